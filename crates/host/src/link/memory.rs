//! A connection in memory, between two threads of one process: what a link runs over where no socket is wanted.

use super::stream::{Incoming, Outgoing, Stream};
use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes that one direction holds, as a socket's buffers would.
const ROOM_BYTES: usize = 64 * 1024;

/// One direction.
#[derive(Debug, Default)]
struct Pipe {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    bytes: VecDeque<u8>,
    /// No more will be written.
    ended: bool,
    /// Nobody reads any more.
    deaf: bool,
}

impl Pipe {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `is_ready`, so long.
    fn wait(&self, patience: Option<Duration>, is_ready: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let until = patience.and_then(|patience| Instant::now().checked_add(patience));
        let mut state = self.state();
        while !is_ready(&state) {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            state = match left {
                Some(Duration::ZERO) => return state,
                Some(left) => {
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        state
    }

    fn end(&self, and_deaf: bool) {
        let mut state = self.state();
        state.ended = true;
        state.deaf |= and_deaf;
        drop(state);
        self.changed.notify_all();
    }
}

/// One end of a connection in memory.
#[derive(Debug)]
pub struct MemoryStream {
    incoming: Arc<Pipe>,
    outgoing: Arc<Pipe>,
}

/// A half of one.
#[derive(Debug)]
struct Half {
    incoming: Arc<Pipe>,
    outgoing: Arc<Pipe>,
    reads: bool,
}

/// Both ends of a new connection.
#[must_use]
pub fn connected() -> [MemoryStream; 2] {
    let [a, b] = [(); 2].map(|()| Arc::new(Pipe::default()));
    let far = MemoryStream { incoming: a.clone(), outgoing: b.clone() };
    [MemoryStream { incoming: b, outgoing: a }, far]
}

impl Stream for MemoryStream {
    fn halves(self) -> io::Result<(Box<dyn Outgoing>, Box<dyn Incoming>)> {
        let half = |reads| {
            let (incoming, outgoing) = (self.incoming.clone(), self.outgoing.clone());
            Box::new(Half { incoming, outgoing, reads })
        };
        Ok((half(false), half(true)))
    }
}

impl Half {
    fn end_both(&self) {
        self.outgoing.end(false);
        self.incoming.end(true);
    }
}

impl Drop for Half {
    /// As with a socket: who reads no more is deaf, who writes no more has said all.
    fn drop(&mut self) {
        if self.reads {
            self.incoming.end(true);
        } else {
            self.outgoing.end(false);
        }
    }
}

impl Incoming for Half {
    fn read(&mut self, buffer: &mut [u8], patience: Option<Duration>) -> io::Result<usize> {
        let mut state = self.incoming.wait(patience, |state| !state.bytes.is_empty() || state.ended);
        if state.bytes.is_empty() {
            return if state.ended { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        let count = buffer.len().min(state.bytes.len());
        for (place, byte) in buffer.iter_mut().zip(state.bytes.drain(..count)) {
            *place = byte;
        }
        drop(state);
        self.incoming.changed.notify_all();
        Ok(count)
    }

    fn shut_down(&mut self) {
        self.end_both();
    }
}

impl Outgoing for Half {
    fn write(&mut self, bytes: &[u8], patience: Duration) -> io::Result<usize> {
        let is_ready = |state: &State| state.bytes.len() < ROOM_BYTES || state.ended || state.deaf;
        let mut state = self.outgoing.wait(Some(patience), is_ready);
        if state.ended || state.deaf {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let count = bytes.len().min(ROOM_BYTES.saturating_sub(state.bytes.len()));
        if count == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.bytes.extend(&bytes[..count]);
        drop(state);
        self.outgoing.changed.notify_all();
        Ok(count)
    }

    fn offer(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.write(bytes, Duration::ZERO) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            written => written,
        }
    }

    fn shut_down(&mut self, how: Shutdown) {
        if how == Shutdown::Write { self.outgoing.end(false) } else { self.end_both() }
    }
}
