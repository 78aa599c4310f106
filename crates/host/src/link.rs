//! The channel between two replicas: messages over one connection ([`stream`]; TCP, or memory in tests).
//!
//! Sending never blocks the VM: what the kernel does not take at once waits in a backlog, whose size the protocol
//! bounds by the window of unacknowledged log. The log travels in short frames, and a heartbeat does not wait behind it.
//! Received frames are decoded by a thread of their own; bytes that are no whole message yet are told of as well, and
//! what the node has not taken in is bounded ([`crate::events`]): beyond that the peer's TCP waits. Damage, end of file
//! and every error become [`Event::LinkLost`], once.

pub mod memory;
pub mod stream;

use crate::backlog::Backlog;
use crate::events::EventSender;
use pollux_codec::frame::FrameDecoder;
use pollux_codec::message::Wire;
use pollux_node::{Event, PeerId};
use std::io;
use std::net::Shutdown;
use std::time::{Duration, Instant};
use stream::{Incoming, Outgoing, Stream};

/// Bytes read from the socket at a time.
const READ_BYTES: usize = 256 * 1024;
/// A peer that does not take this much is as good as gone.
const BACKLOG_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Bytes of a message that is not whole are told of at most this often: a peer that drips must not flood the node.
const TELL_BYTES_EVERY: Duration = Duration::from_millis(5);

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

/// How long a last word may take, a piece of it.
const LAST_WORDS_PATIENCE: Duration = Duration::from_secs(1);

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
    stream: Box<dyn Incoming>,
    decoder: FrameDecoder,
    buffer: Vec<u8>,
    /// When the node was last told of bytes that are no whole message yet.
    told_bytes: Option<Instant>,
}

/// The sending half.
#[derive(Debug)]
pub struct LinkSender {
    stream: Box<dyn Outgoing>,
    backlog: Backlog,
    broken: bool,
    sent_bytes: u64,
}

/// Makes the two halves of a connected link.
pub fn split(stream: impl Stream) -> io::Result<(LinkSender, LinkReader)> {
    let (stream, incoming) = stream.halves()?;
    let reader = LinkReader {
        stream: incoming,
        decoder: FrameDecoder::new(),
        buffer: vec![0; READ_BYTES],
        told_bytes: None,
    };
    Ok((LinkSender { stream, backlog: Backlog::default(), broken: false, sent_bytes: 0 }, reader))
}

impl LinkReader {
    /// The next message; waits for it.
    pub fn receive(&mut self) -> Result<Wire, LinkError> {
        loop {
            if let Some(wire) = self.poll()? {
                return Ok(wire);
            }
            self.read(None)?;
        }
    }

    fn poll(&mut self) -> Result<Option<Wire>, LinkError> {
        self.decoder.poll().map_err(|error| LinkError::Garbage(error.to_string()))
    }

    /// Waits for bytes, so long or for ever. False: none have come, and none may be missing.
    fn read(&mut self, patience: Option<Duration>) -> Result<bool, LinkError> {
        match self.stream.read(&mut self.buffer, patience) {
            Ok(0) => Err(LinkError::Closed),
            Ok(n) => {
                self.decoder.push(&self.buffer[..n]);
                Ok(true)
            }
            Err(error) if is_pause(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The next message, the whole of it within `patience`: for the handshake.
    pub fn receive_within(&mut self, patience: &Patience) -> Result<Wire, LinkError> {
        loop {
            if let Some(wire) = self.poll()? {
                return Ok(wire);
            }
            self.read(Some(patience.slice()?))?;
        }
    }

    /// The next message; waits for it, and tells `events` of bytes that are none yet.
    fn receive_telling(&mut self, peer: PeerId, events: &EventSender) -> Result<Wire, LinkError> {
        let mut has_read = false;
        loop {
            if let Some(wire) = self.poll()? {
                return Ok(wire);
            }
            if has_read && self.told_bytes.is_none_or(|told| told.elapsed() >= TELL_BYTES_EVERY) {
                self.told_bytes = Some(Instant::now());
                // A node that has ended shows when a message comes.
                let _ = events.send(Event::LinkBytes(peer));
            }
            has_read = self.read(None)?;
        }
    }

    /// Turns this half into a thread that feeds the node with what `peer` sends.
    pub fn spawn(mut self, peer: PeerId, events: EventSender) -> io::Result<()> {
        std::thread::Builder::new().name("link".into()).spawn(move || {
            loop {
                let event = match self.receive_telling(peer, &events) {
                    Ok(wire) => match pollux_node::wire::from_wire(wire) {
                        Some(message) => Event::Message(peer, message),
                        None => {
                            tracing::error!("the peer repeats its handshake; the link is given up");
                            Event::LinkLost(peer)
                        }
                    },
                    Err(error) => {
                        tracing::warn!(%error, "link lost");
                        Event::LinkLost(peer)
                    }
                };
                let lost = event == Event::LinkLost(peer);
                if events.send(event).is_err() || lost {
                    self.stream.shut_down();
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
        let bytes = wire.encode_in_pieces();
        self.sent_bytes += bytes.len() as u64;
        if matches!(wire, Wire::Heartbeat { .. }) && !self.backlog.is_empty() {
            self.backlog.push_ahead(&bytes);
            return;
        }
        // While something waits the kernel is full: it is asked again by `pump`, once a turn, not once a message.
        let taken = if self.backlog.is_empty() { self.offer(&bytes) } else { 0 };
        self.backlog.push(&bytes, taken);
        if self.backlog.len() > BACKLOG_BYTES_MAX {
            tracing::error!("the peer takes nothing; the link is given up");
            self.give_up();
        }
    }

    /// Offers the backlog to the kernel again. True if some is left.
    pub fn pump(&mut self) -> bool {
        if !self.broken {
            let stream = &mut self.stream;
            if self.backlog.drain(|bytes| stream.offer(bytes)).is_err() {
                self.give_up();
            }
        }
        !self.backlog.is_empty()
    }

    /// Sends a message and waits until the kernel has taken it, within `patience`: for the handshake.
    pub fn send_within(&mut self, wire: &Wire, patience: &Patience) -> Result<(), LinkError> {
        let bytes = wire.encode();
        self.sent_bytes += bytes.len() as u64;
        let mut left = &bytes[..];
        while !left.is_empty() {
            match self.stream.write(left, patience.slice()?) {
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
    pub fn end(mut self, reader: &mut LinkReader, patience: Duration) {
        self.stream.shut_down(Shutdown::Write);
        let patience = Patience::new(patience, None);
        while let Ok(slice) = patience.slice() {
            match reader.stream.read(&mut reader.buffer, Some(slice)) {
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
        match self.stream.offer(bytes) {
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
        self.stream.shut_down(Shutdown::Both);
    }
}

impl Drop for LinkSender {
    /// Last words (a goodbye) are still delivered, within reason.
    fn drop(&mut self) {
        if self.broken || self.backlog.is_empty() {
            return;
        }
        let (head, tail) = self.backlog.as_slices();
        for mut left in [head, tail] {
            while !left.is_empty() {
                match self.stream.write(left, LAST_WORDS_PATIENCE) {
                    Ok(taken @ 1..) => left = &left[taken..],
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Ok(0) | Err(_) => return,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    /// A link of each kind: its two ends.
    fn links() -> [[(LinkSender, LinkReader); 2]; 2] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let near = TcpStream::connect(listener.local_addr().expect("bound")).expect("listening");
        let far = listener.accept().expect("connecting").0;
        [[near, far].map(split), memory::connected().map(split)]
            .map(|ends| ends.map(|end| end.expect("a link")))
    }

    #[test]
    fn a_link_keeps_its_deadlines_and_tells_its_end_whatever_carries_it() {
        let brief = || Patience::new(Duration::from_millis(30), None);
        let heartbeat = Wire::Heartbeat { generation: pollux_vocab::Generation(1) };
        for [(mut near, mut near_reader), (mut far, mut far_reader)] in links() {
            assert!(
                matches!(far_reader.receive_within(&brief()), Err(LinkError::TooLate)),
                "nothing is said"
            );
            near.send(&heartbeat);
            assert_eq!(far_reader.receive_within(&brief()).expect("said"), heartbeat);
            let bytes = (0..2 << 20).flat_map(|i: u64| i.wrapping_pow(7).to_le_bytes()).collect();
            let long = Wire::State { offset: 0, bytes };
            let sent = near.send_within(&long, &Patience::new(Duration::from_secs(1), None));
            assert!(matches!(sent, Err(LinkError::TooLate)), "nobody reads: {sent:?}");
            far.send_within(&heartbeat, &brief()).expect("the other way is free");
            far.end(&mut far_reader, Duration::from_millis(30));
            assert_eq!(near_reader.receive().expect("the last word"), heartbeat);
            assert!(matches!(near_reader.receive(), Err(LinkError::Closed)), "and then an end");
            drop(far_reader);
            let sent = (0..100_000).try_for_each(|_| near.send_within(&heartbeat, &brief()));
            assert!(matches!(sent, Err(LinkError::Io(_))), "nobody will ever read: {sent:?}");
        }
    }

    #[test]
    fn a_heartbeat_does_not_wait_behind_a_long_log() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let stream = TcpStream::connect(listener.local_addr().expect("bound")).expect("listening");
        let (mut sender, _) = split(stream).expect("connected");
        let (_, mut reader) = split(listener.accept().expect("connecting").0).expect("connected");
        let generation = pollux_vocab::Generation(1);
        let data = (0..4_000_000).flat_map(|i: u64| i.wrapping_pow(7).to_le_bytes()).collect();
        let body = pollux_vocab::RecordBody::Input(pollux_vocab::Input::Packet { slot: 0, frame: data });
        let record =
            pollux_vocab::Record { lsn: pollux_vocab::Lsn(1), icount: pollux_vocab::Icount(1), body };
        let released = pollux_vocab::Lsn(0);
        sender.send(&Wire::Records { generation, released, records: vec![record] });
        sender.send(&Wire::Heartbeat { generation });
        let reading = std::thread::spawn(move || [reader.receive(), reader.receive()]);
        while sender.pump() {
            std::thread::yield_now();
        }
        let heard = reading.join().expect("no panic").map(|wire| wire.expect("whole").name());
        assert_eq!(heard, ["Heartbeat", "Records"]);
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
