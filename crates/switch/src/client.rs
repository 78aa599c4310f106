//! The VM's end of a port: connect, then send frames from one thread and receive them on another.
//!
//! Invariant: a frame is either whole in the stream or not in it at all; after any error the port is dead and
//! the caller connects again (the switch keeps the guest's connections meanwhile). A switch that is silent for
//! [`SILENCE_MAX`] is such an error; whoever waits in [`PortReceiver::recv`] gives this side's signs of life.
//!
//! Not here: when to reconnect, and the announcement of the MAC after a failover: the host decides both.

use crate::config::SwitchAddr;
use crate::stream::Stream;
use crate::wire::{
    self, BEAT, BEAT_EVERY, Claim, FRAME_BYTES_MAX, FRAME_BYTES_MIN, FrameBuffer, HELLO, SILENCE_MAX,
    WireError,
};
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long to wait between two attempts to reach a switch that is not there yet.
const RETRY_EVERY: Duration = Duration::from_millis(20);
/// A switch that takes nothing for this long is considered gone; it never stops reading while it lives.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
/// Frames waiting for `flush` are written out beyond this many bytes.
const SEND_BUFFER_BYTES: usize = 256 * 1024;
/// How much is read from the stream at a time, in bytes.
const RECV_BUFFER_BYTES: usize = 256 * 1024;

/// Why a port could not be opened or used.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// cannot connect to the switch
    #[error("cannot connect to the switch at {addr}: {source}; is `pollux switch` running there?")]
    Connect {
        /// Where it was expected.
        addr: SwitchAddr,
        /// What the system said last.
        source: io::Error,
    },
    /// the peer does not speak the port protocol
    #[error("the peer at the switch's address: {0}")]
    Wire(#[from] WireError),
    /// the switch closed the port
    #[error("the switch closed the port")]
    Closed,
    /// nothing was heard of the switch for too long
    #[error("nothing was heard of the switch for {} s: the network between, or its host, is down", SILENCE_MAX.as_secs())]
    Silent,
    /// a frame outside the limits was to be sent
    #[error("a frame of {0} bytes cannot be sent: the limits are {FRAME_BYTES_MIN} and {FRAME_BYTES_MAX}")]
    FrameLength(usize),
    /// the stream failed
    #[error("the stream to the switch failed: {0}")]
    Io(#[from] io::Error),
}

/// An open port, hellos exchanged.
#[derive(Debug)]
pub struct PortClient {
    stream: Arc<Stream>,
}

impl PortClient {
    /// Connects to the switch at `addr`, trying again until `timeout` has passed if nobody listens there
    /// yet, and exchanges hellos.
    pub fn connect(addr: &SwitchAddr, timeout: Duration) -> Result<Self, PortError> {
        let deadline = Instant::now() + timeout;
        let stream = loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match Stream::connect(addr, left) {
                Ok(stream) => break stream,
                Err(source) if left <= RETRY_EVERY => {
                    return Err(PortError::Connect { addr: addr.clone(), source });
                }
                Err(_) => std::thread::sleep(RETRY_EVERY),
            }
        };
        let left = deadline.saturating_duration_since(Instant::now()).max(RETRY_EVERY);
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        stream.set_read_timeout(Some(left))?;
        (&stream).write_all(&HELLO)?;
        let mut hello = [0; HELLO.len()];
        (&stream).read_exact(&mut hello).map_err(closed_or_io)?;
        wire::check_hello(hello)?;
        stream.set_read_timeout(Some(BEAT_EVERY))?;
        Ok(Self { stream: Arc::new(stream) })
    }

    /// A handle that ends the port from any thread: a blocked [`PortReceiver::recv`] returns.
    #[must_use]
    pub fn closer(&self) -> PortCloser {
        PortCloser { stream: Arc::clone(&self.stream) }
    }

    /// The sending and the receiving half, each for a thread of its own.
    #[must_use]
    pub fn split(self) -> (PortSender, PortReceiver) {
        let sent = Arc::new(Mutex::new(Instant::now()));
        let sender =
            PortSender { stream: Arc::clone(&self.stream), waiting: Vec::new(), sent: Arc::clone(&sent) };
        let buffer = FrameBuffer::new(RECV_BUFFER_BYTES);
        (sender, PortReceiver { stream: self.stream, buffer, sent, quiet: 0 })
    }
}

/// Ends a port. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PortCloser {
    stream: Arc<Stream>,
}

impl PortCloser {
    /// Shuts the stream down in both directions; harmless if it is already.
    pub fn close(&self) {
        self.stream.shutdown();
    }
}

/// The sending half of a port.
#[derive(Debug)]
pub struct PortSender {
    stream: Arc<Stream>,
    waiting: Vec<u8>,
    /// When something was sent last; held while something is being sent.
    sent: Arc<Mutex<Instant>>,
}

impl PortSender {
    /// Takes `frame` (destination address first, no FCS); it leaves at the next [`PortSender::flush`], or
    /// earlier if much is waiting.
    pub fn send(&mut self, frame: &[u8]) -> Result<(), PortError> {
        if !(FRAME_BYTES_MIN..=FRAME_BYTES_MAX).contains(&frame.len()) {
            return Err(PortError::FrameLength(frame.len()));
        }
        wire::push_frame(&mut self.waiting, frame);
        if self.waiting.len() >= SEND_BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    /// Says whose MAC speaks here; it leaves before the frames that are sent after it.
    pub fn claim(&mut self, claim: &Claim) {
        claim.push(&mut self.waiting);
    }

    /// Writes out what is waiting. Blocks while the socket is full, at most two seconds: then the port is dead.
    pub fn flush(&mut self) -> Result<(), PortError> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let written = (&*self.stream).write_all(&self.waiting);
        *sent = Instant::now();
        drop(sent);
        self.waiting.clear();
        if written.is_err() {
            // Part of a frame may be out: nothing sent after it would be understood.
            self.stream.shutdown();
        }
        written.map_err(closed_or_io)
    }
}

/// The receiving half of a port.
#[derive(Debug)]
pub struct PortReceiver {
    stream: Arc<Stream>,
    buffer: FrameBuffer,
    sent: Arc<Mutex<Instant>>,
    /// For how many times [`BEAT_EVERY`] nothing has come. Counted, not timed: a process that stood still listens
    /// before it judges.
    quiet: u32,
}

impl PortReceiver {
    /// Waits for the next frame and puts it into `frame`, whose old content is lost. Gives signs of life meanwhile.
    pub fn recv(&mut self, frame: &mut Vec<u8>) -> Result<(), PortError> {
        loop {
            if let Some(next) = self.buffer.next_frame()? {
                frame.clear();
                frame.extend_from_slice(next);
                return Ok(());
            }
            let read = (&*self.stream).read(self.buffer.space());
            self.beat()?;
            match read {
                Ok(0) => return Err(PortError::Closed),
                Ok(n) => {
                    self.quiet = 0;
                    self.buffer.filled(n);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    self.quiet += 1;
                    if BEAT_EVERY * self.quiet >= SILENCE_MAX {
                        self.stream.shutdown();
                        return Err(PortError::Silent);
                    }
                }
                Err(error) => return Err(closed_or_io(error)),
            }
        }
    }

    /// Says that this side lives, if it has said nothing for long. Not while the other half is sending: then it does.
    fn beat(&self) -> Result<(), PortError> {
        let Ok(mut sent) = self.sent.try_lock() else { return Ok(()) };
        if sent.elapsed() < BEAT_EVERY {
            return Ok(());
        }
        *sent = Instant::now();
        let written = (&*self.stream).write_all(&BEAT);
        if written.is_err() {
            self.stream.shutdown();
        }
        written.map_err(closed_or_io)
    }

    /// A frame that has already arrived, without waiting and without a system call: false if there is none.
    /// Lets a reader take a burst in one go before it wakes the VM.
    pub fn try_buffered(&mut self, frame: &mut Vec<u8>) -> Result<bool, PortError> {
        let Some(next) = self.buffer.next_frame()? else { return Ok(false) };
        frame.clear();
        frame.extend_from_slice(next);
        Ok(true)
    }
}

/// The ways in which a stream says that its peer has gone are one error.
fn closed_or_io(error: io::Error) -> PortError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
            PortError::Closed
        }
        _ => PortError::Io(error),
    }
}
