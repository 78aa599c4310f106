//! What a link runs over: a stream of bytes each way, whose halves are used by two threads.
//!
//! Invariant: no call waits longer than it is told to. Whatever is to carry a link (a TCP connection here, an encrypted
//! one, a pair in memory) is a [`Stream`]; what is said over it, and when, knows no more of it than this.
//!
//! Not here: messages and what waits to be sent ([`super`]).

use rustix::io::Errno;
use rustix::net::SendFlags;
use std::fmt::Debug;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// The half that is read.
pub trait Incoming: Send + Debug {
    /// Waits for bytes, so long or (`None`) for ever; 0: the peer says no more. A wait that ends without bytes is
    /// `WouldBlock` or `TimedOut`.
    fn read(&mut self, buffer: &mut [u8], patience: Option<Duration>) -> io::Result<usize>;

    /// Ends the connection, both ways. Whoever waits for it on either half is told.
    fn shut_down(&mut self);
}

/// The half that is written.
pub trait Outgoing: Send + Debug {
    /// Hands over as much as there is room for, and waits so long for some. A wait that ends without room is
    /// `WouldBlock` or `TimedOut`.
    fn write(&mut self, bytes: &[u8], patience: Duration) -> io::Result<usize>;

    /// Hands over as much as there is room for, without waiting: perhaps nothing.
    fn offer(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Ends this direction (`Write`: the peer reads what was said, and then an end), or the connection (`Both`).
    fn shut_down(&mut self, how: Shutdown);
}

/// A connection that can carry a link.
pub trait Stream {
    /// Its two halves.
    fn halves(self) -> io::Result<(Box<dyn Outgoing>, Box<dyn Incoming>)>;
}

/// A half of a TCP connection. Both have the same socket.
#[derive(Debug)]
struct TcpHalf {
    stream: TcpStream,
    /// How long the socket waits in this half's direction, as it was last told.
    patience: Option<Option<Duration>>,
}

impl Stream for TcpStream {
    fn halves(self) -> io::Result<(Box<dyn Outgoing>, Box<dyn Incoming>)> {
        self.set_nodelay(true)?;
        let incoming = TcpHalf { stream: self.try_clone()?, patience: None };
        Ok((Box::new(TcpHalf { stream: self, patience: None }), Box::new(incoming)))
    }
}

impl Incoming for TcpHalf {
    fn read(&mut self, buffer: &mut [u8], patience: Option<Duration>) -> io::Result<usize> {
        if self.patience != Some(patience) {
            self.stream.set_read_timeout(patience)?;
            self.patience = Some(patience);
        }
        self.stream.read(buffer)
    }

    fn shut_down(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl Outgoing for TcpHalf {
    fn write(&mut self, bytes: &[u8], patience: Duration) -> io::Result<usize> {
        if self.patience != Some(Some(patience)) {
            self.stream.set_write_timeout(Some(patience))?;
            self.patience = Some(Some(patience));
        }
        self.stream.write(bytes)
    }

    fn offer(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut taken = 0;
        while taken < bytes.len() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::send(&self.stream, &bytes[taken..], flags) {
                Ok(n) => taken += n,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(taken)
    }

    fn shut_down(&mut self, how: Shutdown) {
        let _ = self.stream.shutdown(how);
    }
}
