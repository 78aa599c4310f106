//! One port as the switch sees it: a non-blocking stream with a reader's and a writer's buffer.
//!
//! Invariants: the queue towards a port is bounded, and what does not fit is dropped frame by frame, so the
//! stream keeps its meaning; a port is read whether or not it can be written, so it can never block its VM.

use crate::poller::{Poller, Token, Watch};
use crate::stats::{PortCounters, count};
use crate::stream::Stream;
use crate::wire::{self, BEAT, BEAT_EVERY, FrameBuffer, HELLO, PREFIX_BYTES, Piece, SILENCE_MAX, WireError};
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a peer may take to say hello.
pub(crate) const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// How often it is said that a port forges frames.
const TELL_FORGED_EVERY: Duration = Duration::from_secs(10);
/// What a port may deliver in one turn before the others get theirs, in bytes.
const TURN_BYTES: usize = 512 * 1024;
/// How much is read from a port at a time, in bytes.
const READ_BYTES: usize = 256 * 1024;

/// Why a port was closed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PortEnd {
    #[error("it closed the connection")]
    Closed,
    #[error("nothing was heard of it for {} s: the network between, or its host, is down", SILENCE_MAX.as_secs())]
    Silent,
    #[error("it never said hello")]
    NoHello,
    #[error("{0}")]
    Wire(#[from] WireError),
    #[error("{0}")]
    Io(#[from] io::Error),
}

#[derive(Debug)]
pub(crate) struct Port {
    stream: Stream,
    token: Token,
    counters: Arc<PortCounters>,
    input: FrameBuffer,
    /// Whether the peer's hello was seen; before it, nothing is sent to the port but ours.
    greeted: bool,
    /// When the port is closed if it has not said hello.
    hello_due: Instant,
    /// When something was heard of it, and sent to it, last.
    heard: Instant,
    sent: Instant,
    /// When it was last said that the port forges frames, and how many were not spoken of since.
    told_forged: Option<Instant>,
    untold_forged: u64,
    output: Vec<u8>,
    /// How much of `output` is already written.
    written: usize,
    queue_bytes_max: usize,
    /// Whether the socket is full: the poller tells when it is not.
    blocked: bool,
}

impl Port {
    /// Takes a fresh connection over and says hello.
    pub(crate) fn new(
        stream: Stream,
        token: Token,
        counters: Arc<PortCounters>,
        queue_bytes_max: usize,
        now: Instant,
    ) -> Self {
        Self {
            stream,
            token,
            counters,
            input: FrameBuffer::new(READ_BYTES),
            greeted: false,
            hello_due: now + HELLO_TIMEOUT,
            heard: now,
            sent: now,
            told_forged: None,
            untold_forged: 0,
            output: HELLO.to_vec(),
            written: 0,
            queue_bytes_max,
            blocked: false,
        }
    }

    pub(crate) fn watch(&self, poller: &Poller) -> io::Result<()> {
        poller.add(&self.stream, self.token, Watch::Input)
    }

    pub(crate) fn greeted(&self) -> bool {
        self.greeted
    }

    /// When the port has to be looked at though nothing happened.
    pub(crate) fn due(&self) -> Instant {
        if self.greeted { (self.sent + BEAT_EVERY).min(self.heard + SILENCE_MAX) } else { self.hello_due }
    }

    /// Gives a sign of life if it is time for one; an error if the peer owes one.
    pub(crate) fn keep_alive(&mut self, now: Instant) -> Result<(), PortEnd> {
        if !self.greeted {
            return if now < self.hello_due { Ok(()) } else { Err(PortEnd::NoHello) };
        }
        if now >= self.heard + SILENCE_MAX {
            return Err(PortEnd::Silent);
        }
        if now >= self.sent + BEAT_EVERY {
            self.sent = now;
            // What waits already says as much when it leaves.
            if self.output.is_empty() {
                self.output.extend_from_slice(&BEAT);
            }
        }
        Ok(())
    }

    /// This process stood still: what the peer said meanwhile is heard before it is judged.
    pub(crate) fn listen_first(&mut self, now: Instant) {
        self.heard = now;
        self.hello_due = self.hello_due.max(now + HELLO_TIMEOUT);
    }

    pub(crate) fn peer(&self) -> &str {
        &self.counters.peer
    }

    /// Reads what is there, within its turn, and hands every frame and claim to `deliver`.
    pub(crate) fn read(&mut self, now: Instant, mut deliver: impl FnMut(Piece<'_>)) -> Result<(), PortEnd> {
        let mut turn = TURN_BYTES;
        while turn > 0 {
            let space = self.input.space();
            let room = space.len();
            let n = match (&self.stream).read(space) {
                Ok(0) => return Err(PortEnd::Closed),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            self.input.filled(n);
            self.heard = now;
            if !self.greeted {
                let Some(hello) = self.input.take() else { return Ok(()) };
                wire::check_hello(hello)?;
                self.greeted = true;
            }
            while let Some(piece) = self.input.next_piece()? {
                if let Piece::Frame(frame) = &piece {
                    count(&self.counters.frames_in, 1);
                    count(&self.counters.bytes_in, frame.len() as u64);
                }
                deliver(piece);
            }
            if n < room {
                return Ok(()); // The stream is dry; if not, the poller says so.
            }
            turn = turn.saturating_sub(n);
        }
        Ok(())
    }

    /// A frame of the port's was not let through: it spoke for somebody else. How often that was left out of the log
    /// since it was last said, if it is time to say it.
    pub(crate) fn forged(&mut self, now: Instant) -> Option<u64> {
        count(&self.counters.forged, 1);
        if self.told_forged.is_some_and(|told| now.saturating_duration_since(told) < TELL_FORGED_EVERY) {
            self.untold_forged += 1;
            return None;
        }
        self.told_forged = Some(now);
        Some(std::mem::take(&mut self.untold_forged))
    }

    /// Queues a frame for the port, or drops it if the port is too slow.
    pub(crate) fn queue(&mut self, frame: &[u8]) {
        if self.output.len() - self.written + frame.len() + PREFIX_BYTES > self.queue_bytes_max {
            count(&self.counters.drops, 1);
            return;
        }
        wire::push_frame(&mut self.output, frame);
        count(&self.counters.frames_out, 1);
        count(&self.counters.bytes_out, frame.len() as u64);
    }

    /// The poller says that the socket has room again; that is no longer news.
    pub(crate) fn unblock(&mut self, poller: &Poller) {
        // If the watch cannot be changed, the poller reports room again and again, which is only wasteful.
        self.blocked = self.blocked && poller.change(&self.stream, self.token, Watch::Input).is_err();
    }

    /// Writes what is queued, as far as the socket takes it.
    pub(crate) fn flush(&mut self, poller: &Poller) -> Result<(), PortEnd> {
        while !self.blocked && self.written < self.output.len() {
            match (&self.stream).write(&self.output[self.written..]) {
                Ok(0) => return Err(PortEnd::Closed),
                Ok(n) => self.written += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked = true;
                    poller.change(&self.stream, self.token, Watch::Both)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.output.drain(..self.written);
        self.written = 0;
        Ok(())
    }
}
