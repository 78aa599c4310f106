//! One direction of the link between two hosts: a pipe of bytes, as TCP makes them. What is sent arrives in order,
//! whole and late, or the connection ends; damage gets through, and is the codec's to find. A connection that has ended
//! is replaced by a new one on the same wire: what ails the wire stays.
//!
//! Messages cross it as bytes of the real codec, in pieces. Loss of a segment is a delay. What TCP could not lose or
//! double (a heartbeat) is lost and doubled before it is sent, because the protocol does not count on TCP for that.
//!
//! Not here: which hosts have a link, and what they do at its end ([`crate::links`]).

use crate::random::Random;
use pollux_codec::frame::FrameDecoder;
use pollux_protocol::Message;

/// Bytes in a segment of a thin link.
const SEGMENT_BYTES: usize = 512;
/// Longest time that TCP waits before it sends again, once a cut has ended.
const RESEND_NS_MAX: u64 = 120_000_000;

/// One direction.
#[derive(Debug)]
pub(crate) struct Pipe {
    /// Which connection this is; 0: there has not been any.
    pub(crate) number: u64,
    /// What is sent goes somewhere.
    pub(crate) open: bool,
    /// Whoever receives still listens.
    pub(crate) heard: bool,
    /// The sender lost its power: what has not arrived by then never does.
    pub(crate) lost_from_ns: Option<u64>,
    pub(crate) cut_until_ns: u64,
    pub(crate) slow_until_ns: u64,
    pub(crate) extra_ns: u64,
    pub(crate) thin_until_ns: u64,
    pub(crate) bytes_per_s: u64,
    pub(crate) lose_until_ns: u64,
    pub(crate) double_until_ns: u64,
    pub(crate) corrupt_next: bool,
    /// The next records are lost.
    pub(crate) lose_records: bool,
    /// Records were lost.
    pub(crate) has_gap: bool,
    /// What the receiver makes of the bytes.
    pub(crate) decoder: FrameDecoder,
    /// A thin link has carried all that was sent by then.
    carried_until_ns: u64,
    last_arrival_ns: u64,
    delay_ns: (u64, u64),
    random: Random,
}

/// Bytes and when they arrive.
pub(crate) type Piece = (u64, Vec<u8>);

impl Pipe {
    /// A wire without a connection.
    pub(crate) fn new(delay_ns: (u64, u64), random: Random) -> Self {
        Self {
            number: 0,
            open: false,
            heard: false,
            lost_from_ns: None,
            cut_until_ns: 0,
            slow_until_ns: 0,
            extra_ns: 0,
            thin_until_ns: 0,
            bytes_per_s: 0,
            carried_until_ns: 0,
            lose_until_ns: 0,
            double_until_ns: 0,
            corrupt_next: false,
            lose_records: false,
            has_gap: false,
            decoder: FrameDecoder::new(),
            last_arrival_ns: 0,
            delay_ns,
            random,
        }
    }

    /// Its next connection, of which nothing has been said yet.
    pub(crate) fn connect(&mut self, random: Random) {
        self.number += 1;
        (self.open, self.heard, self.has_gap) = (true, true, false);
        self.lost_from_ns = None;
        self.decoder = FrameDecoder::new();
        self.random = random;
    }

    /// How often a message that is sent now is sent: not at all, once, twice.
    pub(crate) fn copies(&mut self, now_ns: u64, message: &Message) -> usize {
        let sign_of_life = matches!(message, Message::Heartbeat { .. } | Message::Ack { .. });
        if self.lose_records && matches!(message, Message::Records { .. }) {
            (self.lose_records, self.has_gap) = (false, true);
            0
        } else if !self.open || sign_of_life && now_ns < self.lose_until_ns {
            0
        } else {
            1 + usize::from(now_ns < self.double_until_ns)
        }
    }

    /// Sends bytes; says in which pieces they arrive.
    pub(crate) fn send(&mut self, now_ns: u64, mut bytes: Vec<u8>) -> Vec<Piece> {
        if std::mem::take(&mut self.corrupt_next) {
            let bit = self.random.below(bytes.len() as u64 * 8) as usize;
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        if now_ns < self.thin_until_ns.max(self.carried_until_ns) && self.bytes_per_s > 0 {
            return self.send_thin(now_ns, &bytes);
        }
        let mut pieces = Vec::new();
        if self.random.chance(100) {
            let rest = bytes.split_off(self.random.below(bytes.len() as u64) as usize);
            pieces.push((self.arrival_ns(now_ns), bytes));
            bytes = rest;
        }
        pieces.push((self.arrival_ns(now_ns), bytes));
        pieces
    }

    /// The same where the link takes its time for each byte.
    fn send_thin(&mut self, now_ns: u64, bytes: &[u8]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for segment in bytes.chunks(SEGMENT_BYTES) {
            let takes_ns = segment.len() as u64 * 1_000_000_000 / self.bytes_per_s;
            self.carried_until_ns = self.carried_until_ns.max(now_ns) + takes_ns;
            pieces.push((self.arrival_ns(self.carried_until_ns), segment.to_vec()));
        }
        pieces
    }

    /// When what is sent now arrives: behind all that was sent before.
    pub(crate) fn arrival_ns(&mut self, now_ns: u64) -> u64 {
        let mut at = now_ns + self.random.between(self.delay_ns.0, self.delay_ns.1);
        if now_ns < self.slow_until_ns {
            at += self.extra_ns;
        }
        if at < self.cut_until_ns {
            at = self.cut_until_ns + self.random.log_between(1_000, RESEND_NS_MAX);
        }
        self.last_arrival_ns = at.max(self.last_arrival_ns + 1);
        self.last_arrival_ns
    }
}
