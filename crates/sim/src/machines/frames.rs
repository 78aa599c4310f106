//! Frames as a client of either machine makes and reads them.
//!
//! Invariant: what is read is right to the last checksum, or not read at all.

use crate::service::{Answer, Op};
use xxhash_rust::xxh3::xxh3_64;

/// The guest's address, and the clients'.
pub(crate) const GUEST_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
const CLIENT_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 2];
/// An answer that a client has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    /// To whom.
    pub(crate) client: u64,
    /// To which of its requests.
    pub(crate) seq: u64,
    /// What.
    pub(crate) answer: Answer,
}

/// The model machine's frames: fixed fields behind the Ethernet header.
pub(crate) mod model {
    use super::{Answer, CLIENT_MAC, GUEST_MAC, Op, Reply};

    const TYPE: [u8; 2] = [0x88, 0xb5];

    /// A request.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Request {
        pub(crate) client: u64,
        pub(crate) seq: u64,
        pub(crate) op: Op,
    }

    fn numbers<const N: usize>(frame: &[u8]) -> Option<[u64; N]> {
        let body = frame.get(14..)?;
        (body.len() == N * 8).then(|| {
            let mut words =
                body.chunks_exact(8).map(|b| u64::from_le_bytes(*b.first_chunk().expect("eight")));
            std::array::from_fn(|_| words.next().expect("counted"))
        })
    }

    fn frame(to: [u8; 6], from: [u8; 6], words: &[u64]) -> Vec<u8> {
        let mut frame = [&to[..], &from, &TYPE].concat();
        frame.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        frame
    }

    impl Request {
        pub(crate) fn frame(&self) -> Vec<u8> {
            let (kind, key, value) = match self.op {
                Op::Write { key, value } => (0, key, value),
                Op::Read { key } => (1, key, 0),
                Op::Add => (2, 0, 0),
                Op::Total => (3, 0, 0),
                Op::Other => (4, 0, 0),
            };
            frame(GUEST_MAC, CLIENT_MAC, &[self.client, self.seq, kind, key, value])
        }

        pub(crate) fn parse(frame: &[u8]) -> Option<Self> {
            let [client, seq, kind, key, value] = numbers(frame)?;
            let op = match kind {
                0 => Op::Write { key, value },
                1 => Op::Read { key },
                2 => Op::Add,
                3 => Op::Total,
                4 => Op::Other,
                _ => return None,
            };
            Some(Self { client, seq, op })
        }
    }

    /// An answer; `hash` is of all that the machine knew when it gave it.
    pub(crate) fn reply(client: u64, seq: u64, answer: Answer, hash: u64) -> Vec<u8> {
        let (status, value) = match answer {
            Answer::Done => (0, 0),
            Answer::Value(value) => (1, value),
            Answer::Bad => (2, 0),
        };
        frame(CLIENT_MAC, GUEST_MAC, &[client, seq, status, value, hash, 0])
    }

    pub(crate) fn read(frame: &[u8]) -> Option<Reply> {
        let [client, seq, status, value, _hash, 0] = numbers(frame)? else { return None };
        let answer = match status {
            0 => Answer::Done,
            1 => Answer::Value(value),
            2 => Answer::Bad,
            _ => return None,
        };
        Some(Reply { client, seq, answer })
    }
}

/// The embedded guest's: text in UDP (see `guests/tiny/service.c`).
pub(crate) mod guest {
    use super::{Answer, CLIENT_MAC, GUEST_MAC, Op, Reply, xxh3_64};

    const GUEST_IP: [u8; 4] = [10, 0, 2, 15];
    const CLIENT_IP: [u8; 4] = [10, 0, 2, 2];
    const SERVICE_PORT: u16 = 7000;
    const CLIENT_PORT: u16 = 40_000;

    fn checksum(parts: &[&[u8]]) -> u16 {
        let bytes = parts.concat();
        let pair = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        let mut sum: u32 = bytes.chunks(2).map(pair).sum();
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    pub(crate) fn request(client: u64, seq: u64, op: Op) -> Vec<u8> {
        let text = match op {
            Op::Write { key, value } => format!("PUT {client} {seq} {key} {value:x}\n"),
            Op::Read { key } => format!("CHK {client} {seq} {key}\n"),
            Op::Add => format!("INC {client} {seq}\n"),
            Op::Total => format!("GET {client} {seq}\n"),
            Op::Other if seq.is_multiple_of(2) => format!("RND {client} {seq}\n"),
            Op::Other => format!("TIME {client} {seq}\n"),
        };
        let len = 8 + text.len() as u16;
        let mut datagram =
            [CLIENT_PORT.to_be_bytes(), SERVICE_PORT.to_be_bytes(), len.to_be_bytes(), [0; 2]].concat();
        datagram.extend_from_slice(text.as_bytes());
        let sum = checksum(&[&CLIENT_IP, &GUEST_IP, &[0, 17], &len.to_be_bytes(), &datagram]);
        datagram[6..8].copy_from_slice(&sum.to_be_bytes());
        let mut header = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0];
        header[2..4].copy_from_slice(&(20 + len).to_be_bytes());
        header.extend_from_slice(&CLIENT_IP);
        header.extend_from_slice(&GUEST_IP);
        let sum = checksum(&[&header]);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        [&GUEST_MAC[..], &CLIENT_MAC, &[8, 0], &header, &datagram].concat()
    }

    /// `is_block`: whether the request asked for a block, whose value is in hexadecimal; counts are decimal.
    pub(crate) fn read(frame: &[u8], is_block: impl Fn(u64, u64) -> bool) -> Option<Reply> {
        let (ip, datagram) = (frame.get(14..34)?, frame.get(34..)?);
        let ours = frame[..6] == CLIENT_MAC && frame[12..14] == [8, 0] && ip[9] == 17 && datagram.len() >= 8;
        let len = datagram.get(4..6)?;
        if !ours || checksum(&[ip]) != 0 || checksum(&[&ip[12..20], &[0, 17], len, datagram]) != 0 {
            return None;
        }
        let text = std::str::from_utf8(&datagram[8..]).ok()?.trim_end();
        let mut words = text.splitn(3, ' ');
        let client = words.next()?.parse().ok()?;
        let seq = words.next()?.parse().ok()?;
        let answer = match words.next()? {
            "ok" => Answer::Done,
            "bad" => Answer::Bad,
            word => {
                let radix = if is_block(client, seq) { 16 } else { 10 };
                // Random bytes are no number, and need not be one.
                Answer::Value(u64::from_str_radix(word, radix).unwrap_or_else(|_| xxh3_64(word.as_bytes())))
            }
        };
        Some(Reply { client, seq, answer })
    }
}
