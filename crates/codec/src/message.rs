//! The messages themselves: handshake, log, acknowledgements.
//!
//! A payload is the postcard encoding of the structs here (varints throughout). Records are written with the
//! first LSN and icount of the batch and deltas from there, so that a clock adjustment costs about a dozen bytes.

use crate::frame;
use alloc::string::String;
use alloc::vec::Vec;
use pollux_vocab::{Digest, Generation, Icount, Lsn, Record, RecordBody, SlotId, VirtTime};
use serde::{Deserialize, Serialize};

/// Bytes of records that are put into one frame at most; a longer batch is split.
pub const BATCH_BYTES_MAX: usize = 16 << 20;

/// What goes over the channel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wire {
    /// Primary: who I am.
    Hello(Hello),
    /// Backup: come.
    Welcome,
    /// Backup: no.
    Refuse {
        /// Why not, for people.
        reason: String,
    },
    /// Primary: a piece of the snapshot that both start from.
    State {
        /// Where it belongs.
        offset: u64,
        /// The piece.
        bytes: Vec<u8>,
    },
    /// Primary: that was all.
    StateEnd {
        /// Length of the whole.
        total: u64,
    },
    /// Backup: I hold this machine.
    Ready {
        /// Its digest.
        digest: Digest,
    },
    /// Primary: records of the log.
    Records {
        /// The primary's generation.
        generation: Generation,
        /// Outputs up to and including this record's have been released.
        released: Lsn,
        /// Consecutive records.
        records: Vec<Record>,
    },
    /// Backup: how far I am.
    Ack(AckV1),
    /// Either: I live.
    Heartbeat {
        /// The sender's generation.
        generation: Generation,
    },
    /// Either: I end in good order.
    Goodbye {
        /// The sender's generation.
        generation: Generation,
        /// 0 ended, 1 leaving, 2 diverged.
        reason: u8,
    },
    /// Recording only: the log ends here in good order.
    End {
        /// Number of records before it.
        records: u64,
    },
}

/// Who the primary is and what the pair is to run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// Name and version of the software, for people.
    pub software: String,
    /// The VM's name.
    pub vm: String,
    /// The generation the primary will run in.
    pub generation: Generation,
    /// RAM in bytes.
    pub ram_bytes: u64,
    /// Number of harts.
    pub harts: u32,
    /// The VM's disks.
    pub disks: Vec<DiskHello>,
    /// Interval of heartbeats.
    pub heartbeat_ns: u64,
    /// Silence that counts as death.
    pub failure_ns: u64,
    /// Length of the snapshot that follows.
    pub snapshot_bytes: u64,
}

/// One disk of the VM.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DiskHello {
    /// Its slot.
    pub slot: SlotId,
    /// Whether both hosts reach one image.
    pub shared: bool,
    /// Its size.
    pub bytes: u64,
    /// Hash of its content, if the primary wants it compared.
    pub content_hash: Option<u64>,
}

/// An acknowledgement.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AckV1 {
    /// The generation that is backed up.
    pub generation: Generation,
    /// Newest record received.
    pub received: Lsn,
    /// Newest record executed.
    pub executed: Lsn,
    /// How far the machine has come.
    pub icount: Icount,
    /// Its virtual time.
    pub time: VirtTime,
    /// Log received and not yet executed, bytes.
    pub buffered_bytes: u64,
}

mod kind {
    pub(super) const HELLO: u8 = 1;
    pub(super) const WELCOME: u8 = 2;
    pub(super) const REFUSE: u8 = 3;
    pub(super) const STATE: u8 = 4;
    pub(super) const STATE_END: u8 = 5;
    pub(super) const READY: u8 = 6;
    pub(super) const RECORDS: u8 = 7;
    pub(super) const ACK: u8 = 8;
    pub(super) const HEARTBEAT: u8 = 9;
    pub(super) const GOODBYE: u8 = 10;
    pub(super) const END: u8 = 11;
}

/// What a batch of records starts with.
#[derive(Serialize, Deserialize)]
struct BatchHead {
    generation: Generation,
    released: Lsn,
    first: Lsn,
    icount: Icount,
    count: u32,
}

fn body<T: Serialize>(value: &T) -> Vec<u8> {
    // Serialising plain data into a growing buffer cannot fail.
    postcard::to_allocvec(value).unwrap_or_default()
}

fn whole<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Option<T> {
    match postcard::take_from_bytes(payload) {
        Ok((value, [])) => Some(value),
        _ => None,
    }
}

impl Wire {
    /// The message in one or more frames.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (kind, payload) = match self {
            Self::Hello(hello) => (kind::HELLO, body(hello)),
            Self::Welcome => (kind::WELCOME, Vec::new()),
            Self::Refuse { reason } => (kind::REFUSE, body(reason)),
            Self::State { offset, bytes } => (kind::STATE, [&offset.to_le_bytes()[..], bytes].concat()),
            Self::StateEnd { total } => (kind::STATE_END, body(total)),
            Self::Ready { digest } => (kind::READY, body(digest)),
            Self::Records { generation, released, records } => return encode_records(*generation, *released, records),
            Self::Ack(ack) => (kind::ACK, body(ack)),
            Self::Heartbeat { generation } => (kind::HEARTBEAT, body(generation)),
            Self::Goodbye { generation, reason } => (kind::GOODBYE, body(&(*generation, *reason))),
            Self::End { records } => (kind::END, body(records)),
        };
        frame::encode(kind, &payload)
    }

    /// The message in a frame's payload; `None` if it is none.
    pub(crate) fn decode(kind: u8, payload: &[u8]) -> Option<Self> {
        Some(match kind {
            kind::HELLO => Self::Hello(whole(payload)?),
            kind::WELCOME if payload.is_empty() => Self::Welcome,
            kind::REFUSE => Self::Refuse { reason: whole(payload)? },
            kind::STATE => {
                let (offset, bytes) = payload.split_first_chunk::<8>()?;
                Self::State { offset: u64::from_le_bytes(*offset), bytes: bytes.to_vec() }
            }
            kind::STATE_END => Self::StateEnd { total: whole(payload)? },
            kind::READY => Self::Ready { digest: whole(payload)? },
            kind::RECORDS => decode_records(payload)?,
            kind::ACK => Self::Ack(whole(payload)?),
            kind::HEARTBEAT => Self::Heartbeat { generation: whole(payload)? },
            kind::GOODBYE => {
                let (generation, reason) = whole(payload)?;
                Self::Goodbye { generation, reason }
            }
            kind::END => Self::End { records: whole(payload)? },
            _ => return None,
        })
    }

    /// Its name, for error messages.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "Hello",
            Self::Welcome => "Welcome",
            Self::Refuse { .. } => "Refuse",
            Self::State { .. } => "State",
            Self::StateEnd { .. } => "StateEnd",
            Self::Ready { .. } => "Ready",
            Self::Records { .. } => "Records",
            Self::Ack(_) => "Ack",
            Self::Heartbeat { .. } => "Heartbeat",
            Self::Goodbye { .. } => "Goodbye",
            Self::End { .. } => "End",
        }
    }
}

/// Frames of records, each below [`BATCH_BYTES_MAX`] unless a single record is longer.
fn encode_records(generation: Generation, released: Lsn, records: &[Record]) -> Vec<u8> {
    let mut frames = Vec::new();
    let mut rest = records;
    loop {
        let first = rest.first();
        let mut entries = Vec::new();
        let mut count = 0;
        let mut icount = first.map_or(Icount(0), |r| r.icount);
        let head_icount = icount;
        for record in rest {
            let entry = body(&(record.icount.since(icount), &record.body));
            if count > 0 && entries.len() + entry.len() > BATCH_BYTES_MAX {
                break;
            }
            entries.extend_from_slice(&entry);
            icount = record.icount;
            count += 1;
        }
        let first = first.map_or(Lsn(0), |r| r.lsn);
        let mut payload = body(&BatchHead { generation, released, first, icount: head_icount, count: count as u32 });
        payload.extend_from_slice(&entries);
        frames.extend_from_slice(&frame::encode(kind::RECORDS, &payload));
        rest = &rest[count..];
        if rest.is_empty() {
            return frames;
        }
    }
}

fn decode_records(payload: &[u8]) -> Option<Wire> {
    let (head, mut rest): (BatchHead, _) = postcard::take_from_bytes(payload).ok()?;
    let mut records = Vec::new();
    let (mut lsn, mut icount) = (head.first, head.icount);
    for _ in 0..head.count {
        let ((delta, body), left): ((u64, RecordBody), _) = postcard::take_from_bytes(rest).ok()?;
        rest = left;
        icount = Icount(icount.0.checked_add(delta)?);
        records.push(Record { lsn, icount, body });
        lsn = Lsn(lsn.0.checked_add(1)?);
    }
    rest.is_empty().then_some(Wire::Records { generation: head.generation, released: head.released, records })
}
