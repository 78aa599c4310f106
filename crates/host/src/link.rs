//! The channel between two replicas: one TCP connection.
//!
//! Sending never blocks the VM: what the kernel does not take at once waits in a backlog, whose size the protocol
//! bounds by the window of unacknowledged log. Received frames are decoded by a thread of their own. Damage,
//! end of file and every error become [`Event::LinkLost`], once.

use crate::events::EventSender;
use pollux_codec::frame::FrameDecoder;
use pollux_codec::message::Wire;
use pollux_node::Event;
use rustix::io::Errno;
use rustix::net::SendFlags;
use std::collections::VecDeque;
use std::io::{self, Read};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// Bytes read from the socket at a time.
const READ_BYTES: usize = 256 * 1024;
/// Bytes offered to the kernel at a time.
const OFFER_BYTES: usize = 256 * 1024;
/// A peer that does not take this much is as good as gone.
const BACKLOG_BYTES_MAX: usize = 512 * 1024 * 1024;

/// How often a step of the handshake looks whether it is to end before its time.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long a whole step of the handshake may take, however many bytes it has, and who may end it before.
#[derive(Clone, Debug)]
pub struct Patience {
    until: Instant,
    stop: Option<EventSender>,
}

impl Patience {
    /// From now on so long, or until `stop` is told to stop.
    #[must_use]
    pub fn new(patience: Duration, stop: Option<&EventSender>) -> Self {
        Self { until: Instant::now() + patience, stop: stop.cloned() }
    }

    /// How long to wait before asking again.
    fn slice(&self) -> Result<Duration, LinkError> {
        if self.stop.as_ref().is_some_and(EventSender::is_stopping) {
            return Err(LinkError::Stopped);
        }
        match self.until.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(LinkError::TooLate),
            left => Ok(left.min(LOOK_EVERY)),
        }
    }
}

/// A wait on a socket that ended without an answer.
fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Why the link is of no use.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The socket failed.
    #[error("the link failed: {0}")]
    Io(#[from] io::Error),
    /// The peer closed it.
    #[error("the peer closed the link")]
    Closed,
    /// The peer took longer over one step than that may take.
    #[error("the peer took too long over one step of the handshake")]
    TooLate,
    /// Somebody has told this process to stop.
    #[error("told to stop during the handshake")]
    Stopped,
    /// What came is not the protocol.
    #[error("the peer does not speak Pollux's protocol: {0}")]
    Garbage(String),
}

/// The receiving half.
#[derive(Debug)]
pub struct LinkReader {
    stream: TcpStream,
    decoder: FrameDecoder,
    buffer: Vec<u8>,
}

/// The sending half.
#[derive(Debug)]
pub struct LinkSender {
    stream: TcpStream,
    backlog: VecDeque<u8>,
    broken: bool,
    sent_bytes: u64,
}

/// Makes the two halves of a connected link.
pub fn split(stream: TcpStream) -> io::Result<(LinkSender, LinkReader)> {
    stream.set_nodelay(true)?;
    let reader =
        LinkReader { stream: stream.try_clone()?, decoder: FrameDecoder::new(), buffer: vec![0; READ_BYTES] };
    Ok((LinkSender { stream, backlog: VecDeque::new(), broken: false, sent_bytes: 0 }, reader))
}

impl LinkReader {
    /// The next message; waits for it.
    pub fn receive(&mut self) -> Result<Wire, LinkError> {
        loop {
            match self.decoder.poll() {
                Ok(Some(wire)) => return Ok(wire),
                Ok(None) => {}
                Err(error) => return Err(LinkError::Garbage(error.to_string())),
            }
            match self.stream.read(&mut self.buffer) {
                Ok(0) => return Err(LinkError::Closed),
                Ok(n) => self.decoder.push(&self.buffer[..n]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The next message, the whole of it within `patience`: for the handshake.
    pub fn receive_within(&mut self, patience: &Patience) -> Result<Wire, LinkError> {
        loop {
            match self.decoder.poll() {
                Ok(Some(wire)) => return Ok(wire),
                Ok(None) => {}
                Err(error) => return Err(LinkError::Garbage(error.to_string())),
            }
            self.stream.set_read_timeout(Some(patience.slice()?))?;
            match self.stream.read(&mut self.buffer) {
                Ok(0) => return Err(LinkError::Closed),
                Ok(n) => self.decoder.push(&self.buffer[..n]),
                Err(error) if is_pause(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Turns this half into a thread that feeds the node. `count` is called with the bytes of each message.
    pub fn spawn(mut self, events: EventSender) -> io::Result<()> {
        self.stream.set_read_timeout(None)?;
        std::thread::Builder::new().name("link".into()).spawn(move || {
            loop {
                let event = match self.receive() {
                    Ok(wire) => match pollux_node::wire::from_wire(wire) {
                        Some(message) => Event::Message(message),
                        None => {
                            tracing::error!("the peer repeats its handshake; the link is given up");
                            Event::LinkLost
                        }
                    },
                    Err(error) => {
                        tracing::warn!(%error, "link lost");
                        Event::LinkLost
                    }
                };
                let lost = event == Event::LinkLost;
                if events.send(event).is_err() || lost {
                    let _ = self.stream.shutdown(Shutdown::Both);
                    return;
                }
            }
        })?;
        Ok(())
    }
}

impl LinkSender {
    /// Sends or queues a message. Errors show up at the reading half.
    pub fn send(&mut self, wire: &Wire) {
        if self.broken {
            return;
        }
        let bytes = wire.encode();
        self.sent_bytes += bytes.len() as u64;
        // While something waits the kernel is full: it is asked again by `pump`, once a turn, not once a message.
        let taken = if self.backlog.is_empty() { self.offer(&bytes) } else { 0 };
        self.backlog.extend(&bytes[taken..]);
        if self.backlog.len() > BACKLOG_BYTES_MAX {
            tracing::error!("the peer takes nothing; the link is given up");
            self.give_up();
        }
    }

    /// Offers the backlog to the kernel again. True if some is left.
    pub fn pump(&mut self) -> bool {
        if !self.broken {
            let stream = &self.stream;
            if drain(&mut self.backlog, |bytes| offer(stream, bytes)).is_err() {
                self.give_up();
            }
        }
        !self.backlog.is_empty()
    }

    /// Sends a message and waits until the kernel has taken it, within `patience`: for the handshake.
    pub fn send_within(&mut self, wire: &Wire, patience: &Patience) -> Result<(), LinkError> {
        use std::io::Write;
        let bytes = wire.encode();
        self.sent_bytes += bytes.len() as u64;
        let mut left = &bytes[..];
        while !left.is_empty() {
            self.stream.set_write_timeout(Some(patience.slice()?))?;
            match self.stream.write(left) {
                Ok(0) => return Err(LinkError::Closed),
                Ok(taken) => left = &left[taken..],
                Err(error) if is_pause(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Says no more, and gives the peer so long to read what was said: an end that comes with unread bytes of the
    /// peer's would take the last words back.
    pub fn end(self, reader: &mut LinkReader, patience: Duration) {
        let _ = self.stream.shutdown(Shutdown::Write);
        let patience = Patience::new(patience, None);
        while let Ok(slice) = patience.slice() {
            let _ = reader.stream.set_read_timeout(Some(slice));
            match reader.stream.read(&mut reader.buffer) {
                Ok(1..) => {}
                Err(error) if is_pause(&error) => {}
                Ok(0) | Err(_) => return,
            }
        }
    }

    /// Counts anew: what the handshake sent is no log.
    pub fn forget_sent(&mut self) {
        self.sent_bytes = 0;
    }

    /// Bytes sent since the link was made, or since [`LinkSender::forget_sent`].
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    fn offer(&mut self, bytes: &[u8]) -> usize {
        match offer(&self.stream, bytes) {
            Ok(taken) => taken,
            Err(_) => {
                self.give_up();
                bytes.len()
            }
        }
    }

    fn give_up(&mut self) {
        self.broken = true;
        self.backlog.clear();
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl Drop for LinkSender {
    /// Last words (a goodbye) are still delivered, within reason.
    fn drop(&mut self) {
        if self.broken || self.backlog.is_empty() {
            return;
        }
        use std::io::Write;
        let _ = self.stream.set_write_timeout(Some(Duration::from_secs(1)));
        let (head, tail) = self.backlog.as_slices();
        let _ = self.stream.write_all(head).and_then(|()| self.stream.write_all(tail));
    }
}

/// Hands the front of `backlog` to `offer`, piece by piece and in place, until it takes no more: the cost is that of
/// what is taken, and of one piece, however much waits.
fn drain(
    backlog: &mut VecDeque<u8>,
    mut offer: impl FnMut(&[u8]) -> Result<usize, Errno>,
) -> Result<(), Errno> {
    loop {
        let front = backlog.as_slices().0;
        let piece = &front[..front.len().min(OFFER_BYTES)];
        let offered = piece.len();
        let taken = offer(piece)?;
        backlog.drain(..taken);
        if taken < offered || backlog.is_empty() {
            return Ok(());
        }
    }
}

/// Gives the kernel as much as it takes without waiting.
fn offer(stream: &TcpStream, bytes: &[u8]) -> Result<usize, Errno> {
    let mut taken = 0;
    while taken < bytes.len() {
        match rustix::net::send(stream, &bytes[taken..], SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(n) => taken += n,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_leaves_in_order_and_in_pieces_however_little_is_taken() {
        let sent: Vec<u8> = (0..3 * OFFER_BYTES + 5).map(|i| (i % 251) as u8).collect();
        let mut backlog: VecDeque<u8> = sent.iter().copied().collect();
        let mut got = Vec::new();
        while !backlog.is_empty() {
            let offer = |bytes: &[u8]| {
                assert!(bytes.len() <= OFFER_BYTES);
                let taken = bytes.len().min(100_003);
                got.extend_from_slice(&bytes[..taken]);
                Ok(taken)
            };
            drain(&mut backlog, offer).expect("no error");
        }
        assert_eq!(got, sent);
    }

    #[test]
    fn a_full_kernel_is_offered_one_piece_of_a_long_backlog() {
        let mut backlog: VecDeque<u8> = vec![7; 64 * OFFER_BYTES].into();
        let mut offered = 0;
        let offer = |bytes: &[u8]| {
            offered += bytes.len();
            Ok(0)
        };
        drain(&mut backlog, offer).expect("no error");
        assert_eq!((offered, backlog.len()), (OFFER_BYTES, 64 * OFFER_BYTES));
    }

    #[test]
    fn what_the_kernel_does_not_take_at_once_arrives_whole_and_in_order() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let stream = TcpStream::connect(listener.local_addr().expect("bound")).expect("listening");
        let (mut sender, _) = split(stream).expect("connected");
        let (_, mut reader) = split(listener.accept().expect("connecting").0).expect("connected");
        let message = |n: u64| {
            let body = pollux_vocab::RecordBody::Input(pollux_vocab::Input::Packet {
                slot: 0,
                // Hard to compress: packets may be.
                frame: (0..8192).flat_map(|i: u64| (n * 8192 + i).wrapping_pow(7).to_le_bytes()).collect(),
            });
            let record =
                pollux_vocab::Record { lsn: pollux_vocab::Lsn(n), icount: pollux_vocab::Icount(n), body };
            Wire::Records {
                generation: pollux_vocab::Generation(1),
                released: pollux_vocab::Lsn(0),
                records: vec![record],
            }
        };
        for n in 1..=200 {
            sender.send(&message(n));
        }
        assert!(sender.pump(), "more than a kernel holds");
        let reading = std::thread::spawn(move || (1..=200).map(|_| reader.receive()).collect::<Vec<_>>());
        while sender.pump() {
            std::thread::yield_now();
        }
        for (n, wire) in (1..).zip(reading.join().expect("no panic")) {
            assert_eq!(wire.expect("whole"), message(n));
        }
    }
}
