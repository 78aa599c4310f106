//! What two replicas say to each other: the handshake, the state of the machine, the log, and signs of life.
//!
//! Invariant: what a frame's kind promises is all that its payload holds; a byte too few or too many is an
//! error. The version that all of this belongs to stands in every frame's header ([`crate::frame::VERSION`]).
//!
//! Layout: `docs/wire.md`, "Messages". Not here: when to say what (`pollux-protocol`), and to whom.

use crate::frame::{self, Frame, FrameError, HEADER_BYTES, Packing};
use crate::piece::{self, PIECE_BYTES_MAX};
use crate::record;
use crate::varint::{self, Cursor};
use alloc::string::String;
use alloc::vec::Vec;
use pollux_vocab::{Digest, Generation, Icount, Lsn, Record, SlotId, VirtTime};
use serde::{Deserialize, Serialize};

/// The primary's introduction.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// What it runs, for people: name and version.
    pub software: String,
    /// The VM's name.
    pub vm: String,
    /// The VM's generation.
    pub generation: Generation,
    /// Harts of the machine.
    pub harts: u32,
    /// Its RAM, in bytes.
    pub ram_bytes: u64,
    /// Its disks.
    pub disks: Vec<DiskHello>,
    /// How often it will send a heartbeat, in nanoseconds.
    pub heartbeat_ns: u64,
    /// After how much silence, in nanoseconds, it will hold the backup for dead, and may be held for dead.
    pub failure_ns: u64,
    /// Bytes of the snapshot that follows.
    pub snapshot_bytes: u64,
    /// Which kind of machine it is, by name, such as [`MACHINE_UNNAMED`].
    pub machine: String,
}

/// What a Hello that names no kind of machine speaks of: there was no other.
pub const MACHINE_UNNAMED: &str = "riscv-virt";

/// [`Hello`] in version 2 and before.
#[derive(Deserialize)]
struct HelloV2 {
    software: String,
    vm: String,
    generation: Generation,
    harts: u32,
    ram_bytes: u64,
    disks: Vec<DiskHello>,
    heartbeat_ns: u64,
    failure_ns: u64,
    snapshot_bytes: u64,
}

impl From<HelloV2> for Hello {
    fn from(hello: HelloV2) -> Self {
        let HelloV2 { software, vm, generation, harts, ram_bytes, disks, .. } = hello;
        let HelloV2 { heartbeat_ns, failure_ns, snapshot_bytes, .. } = hello;
        let machine = MACHINE_UNNAMED.into();
        Self {
            software,
            vm,
            generation,
            harts,
            ram_bytes,
            disks,
            heartbeat_ns,
            failure_ns,
            snapshot_bytes,
            machine,
        }
    }
}

/// Who asks a backup for its services, before anything about the machine is said.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Greet {
    /// The VM's name.
    pub vm: String,
    /// The VM's generation.
    pub generation: Generation,
    /// The id of the arbiter that gave it.
    pub arbiter: [u8; 16],
    /// To whom.
    pub holder: String,
    /// Random, of this connection alone.
    pub nonce: [u8; 32],
}

/// A disk of the primary's machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DiskHello {
    /// Its slot.
    pub slot: SlotId,
    /// Both hosts reach one image; else each host has its own.
    pub shared: bool,
    /// Its size in bytes.
    pub bytes: u64,
    /// A hash of its content, if the primary has taken one.
    pub content_hash: Option<u64>,
}

/// How far a backup has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AckV1 {
    /// The generation that it backs up.
    pub generation: Generation,
    /// Newest record received.
    pub received: Lsn,
    /// Newest record executed.
    pub executed: Lsn,
    /// How far the machine has come.
    pub icount: Icount,
    /// Its virtual time there.
    pub time: VirtTime,
    /// Log received and not yet executed, in bytes.
    pub buffered_bytes: u64,
}

/// One message.
///
/// Kinds 13 to 15 come before Hello: each side shows that it knows the secret of the claim.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wire {
    /// Primary, first: who I am and what I run.
    Hello(Hello),
    /// Backup: I take it; send the state.
    Welcome,
    /// Either: this pair cannot be, because.
    Refuse {
        /// What is wrong and what to do, for people.
        reason: String,
    },
    /// Primary: a piece of the machine's snapshot.
    State {
        /// Its place in the snapshot, in bytes.
        offset: u64,
        /// The piece.
        bytes: Vec<u8>,
    },
    /// Primary: that was all of it.
    StateEnd {
        /// The snapshot's length in bytes.
        total: u64,
    },
    /// Backup: I hold the machine.
    Ready {
        /// Its digest.
        digest: Digest,
    },
    /// Primary: the next records of the log.
    Records {
        /// The primary's generation.
        generation: Generation,
        /// Every output up to and including this record's has been released.
        released: Lsn,
        /// Consecutive records.
        records: Vec<Record>,
    },
    /// Backup: how far it has come.
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
        /// 0 the VM has ended, 1 this side leaves, 2 this side has diverged.
        reason: u8,
    },
    /// Primary, first of all: who asks.
    Greet(Greet),
    /// Backup: what the primary is to prove, and this side's own proof.
    Challenge {
        /// Random, of this connection alone.
        nonce: [u8; 32],
        /// That this side knows the secret.
        proof: [u8; 32],
    },
    /// Primary: that it knows the secret.
    Proof {
        /// The proof.
        proof: [u8; 32],
    },
    /// Primary: it executes and releases nothing more; the backup is to take over.
    Handover {
        /// The sender's generation.
        generation: Generation,
        /// The log ends with this record.
        last: Lsn,
    },
    /// Backup: whether it reaches the service network.
    Network {
        /// The generation that it backs up.
        generation: Generation,
        /// It does.
        reached: bool,
    },
    /// Log file only: it ends here in good order.
    End {
        /// Number of records before it.
        records: u64,
    },
}

/// Frame kinds, one per message.
pub mod kind {
    /// [`super::Wire::Hello`]
    pub const HELLO: u8 = 1;
    /// [`super::Wire::Welcome`]
    pub const WELCOME: u8 = 2;
    /// [`super::Wire::Refuse`]
    pub const REFUSE: u8 = 3;
    /// [`super::Wire::State`]
    pub const STATE: u8 = 4;
    /// [`super::Wire::StateEnd`]
    pub const STATE_END: u8 = 5;
    /// [`super::Wire::Ready`]
    pub const READY: u8 = 6;
    /// [`super::Wire::Records`]; also the frames of a log file.
    pub const RECORDS: u8 = 7;
    /// [`super::Wire::Ack`]
    pub const ACK: u8 = 8;
    /// [`super::Wire::Heartbeat`]
    pub const HEARTBEAT: u8 = 9;
    /// [`super::Wire::Goodbye`]
    pub const GOODBYE: u8 = 10;
    /// [`super::Wire::End`]
    pub const END: u8 = 11;
    /// [`super::Wire::Greet`]
    pub const GREET: u8 = 13;
    /// [`super::Wire::Challenge`]
    pub const CHALLENGE: u8 = 14;
    /// [`super::Wire::Proof`]
    pub const PROOF: u8 = 15;
    /// [`super::Wire::Handover`]
    pub const HANDOVER: u8 = 12;
    /// [`super::Wire::Network`]
    pub const NETWORK: u8 = 16;
    /// A piece of a long frame ([`crate::piece`]): no message of its own.
    pub const PIECE: u8 = 17;
}

/// From this version on a Hello names its kind of machine.
const HELLO_NAMES_MACHINE: u8 = 3;
/// Longest piece of a snapshot in one frame, in bytes; longer [`Wire::State`] messages are split.
const STATE_BYTES_MAX: usize = 4 << 20;

impl Wire {
    /// The message as frames. Long [`Wire::Records`] and [`Wire::State`] become several, each a message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode_into(&mut out);
        out
    }

    /// The message as the channel has it: long frames in pieces, between which a heartbeat may be sent.
    #[must_use]
    pub fn encode_in_pieces(&self) -> Vec<u8> {
        let frames = self.encode();
        if frames.len() <= HEADER_BYTES + PIECE_BYTES_MAX {
            return frames;
        }
        let mut out = Vec::with_capacity(frames.len() + frames.len() / PIECE_BYTES_MAX * HEADER_BYTES);
        piece::cut(&mut out, &frames);
        out
    }

    /// Appends the message's frames.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        let none = Generation(0);
        match self {
            Self::Hello(hello) => put(out, kind::HELLO, hello.generation, &postcard_of(hello)),
            Self::Welcome => put(out, kind::WELCOME, none, &[]),
            Self::Refuse { reason } => put(out, kind::REFUSE, none, reason.as_bytes()),
            Self::State { offset, bytes } => put_state(out, *offset, bytes),
            Self::StateEnd { total } => put(out, kind::STATE_END, none, &total.to_le_bytes()),
            Self::Ready { digest } => {
                let mut payload = Vec::new();
                record::put_digest(&mut payload, digest);
                put(out, kind::READY, none, &payload);
            }
            Self::Records { generation, released, records } => {
                put_records(out, *generation, *released, records);
            }
            Self::Ack(ack) => {
                let mut payload = Vec::new();
                for number in [ack.received.0, ack.executed.0, ack.icount.0, ack.time.0, ack.buffered_bytes] {
                    varint::put(&mut payload, number);
                }
                put(out, kind::ACK, ack.generation, &payload);
            }
            Self::Heartbeat { generation } => put(out, kind::HEARTBEAT, *generation, &[]),
            Self::Goodbye { generation, reason } => put(out, kind::GOODBYE, *generation, &[*reason]),
            Self::Greet(greet) => put(out, kind::GREET, greet.generation, &postcard_of(greet)),
            Self::Challenge { nonce, proof } => put(out, kind::CHALLENGE, none, &[*nonce, *proof].concat()),
            Self::Proof { proof } => put(out, kind::PROOF, none, proof),
            Self::Handover { generation, last } => {
                let mut payload = Vec::new();
                varint::put(&mut payload, last.0);
                put(out, kind::HANDOVER, *generation, &payload);
            }
            Self::Network { generation, reached } => {
                put(out, kind::NETWORK, *generation, &[u8::from(*reached)]);
            }
            Self::End { records } => put(out, kind::END, none, &records.to_le_bytes()),
        }
    }

    /// The message's name, for people.
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
            Self::Greet(_) => "Greet",
            Self::Challenge { .. } => "Challenge",
            Self::Proof { .. } => "Proof",
            Self::Handover { .. } => "Handover",
            Self::Network { .. } => "Network",
            Self::End { .. } => "End",
        }
    }

    /// The message that a frame carries.
    pub(crate) fn decode(frame: Frame) -> Result<Self, FrameError> {
        let offset = frame.offset;
        let generation = frame.generation;
        let name = name_of(frame.kind).ok_or(FrameError::UnknownKind { offset, kind: frame.kind })?;
        if frame.kind == kind::RECORDS {
            let batch =
                record::decode(&frame.payload).map_err(|error| FrameError::Records { offset, error })?;
            return Ok(Self::Records { generation, released: batch.0, records: batch.1 });
        }
        plain(&frame).ok_or(FrameError::Malformed { offset, name })
    }
}

const fn name_of(kind: u8) -> Option<&'static str> {
    Some(match kind {
        kind::HELLO => "Hello",
        kind::WELCOME => "Welcome",
        kind::REFUSE => "Refuse",
        kind::STATE => "State",
        kind::STATE_END => "StateEnd",
        kind::READY => "Ready",
        kind::RECORDS => "Records",
        kind::ACK => "Ack",
        kind::HEARTBEAT => "Heartbeat",
        kind::GOODBYE => "Goodbye",
        kind::GREET => "Greet",
        kind::CHALLENGE => "Challenge",
        kind::PROOF => "Proof",
        kind::HANDOVER => "Handover",
        kind::NETWORK => "Network",
        kind::END => "End",
        _ => return None,
    })
}

fn put(out: &mut Vec<u8>, kind: u8, generation: Generation, payload: &[u8]) {
    frame::encode(out, kind, generation, payload, Packing::Plain);
}

fn put_state(out: &mut Vec<u8>, mut offset: u64, mut bytes: &[u8]) {
    loop {
        let (piece, rest) = bytes.split_at(bytes.len().min(STATE_BYTES_MAX));
        let mut payload = Vec::with_capacity(8 + piece.len());
        payload.extend_from_slice(&offset.to_le_bytes());
        payload.extend_from_slice(piece);
        frame::encode(out, kind::STATE, Generation(0), &payload, Packing::Lz4);
        if rest.is_empty() {
            return;
        }
        offset = offset.wrapping_add(piece.len() as u64);
        bytes = rest;
    }
}

/// Appends records as frames: the channel's [`Wire::Records`] and the body of a log file.
pub(crate) fn put_records(out: &mut Vec<u8>, generation: Generation, released: Lsn, mut records: &[Record]) {
    loop {
        let (payload, rest) = record::encode(released, records);
        frame::encode(out, kind::RECORDS, generation, &payload, Packing::Lz4);
        if rest.is_empty() {
            return;
        }
        records = rest;
    }
}

fn postcard_of<T: Serialize>(value: &T) -> Vec<u8> {
    // Serialising a plain struct into a growing buffer cannot fail.
    postcard::to_allocvec(value).unwrap_or_default()
}

fn hello(frame: &Frame) -> Option<Wire> {
    let (hello, rest) = if frame.version >= HELLO_NAMES_MACHINE {
        postcard::take_from_bytes::<Hello>(&frame.payload).ok()?
    } else {
        let (hello, rest) = postcard::take_from_bytes::<HelloV2>(&frame.payload).ok()?;
        (hello.into(), rest)
    };
    (rest.is_empty() && hello.generation == frame.generation).then_some(Wire::Hello(hello))
}

fn greet(frame: &Frame) -> Option<Wire> {
    match postcard::take_from_bytes::<Greet>(&frame.payload) {
        Ok((greet, [])) if greet.generation == frame.generation => Some(Wire::Greet(greet)),
        _ => None,
    }
}

/// Two halves of a payload of 64 bytes.
fn challenge(frame: &Frame) -> Option<Wire> {
    let (nonce, proof) = frame.payload.split_first_chunk::<32>()?;
    Some(Wire::Challenge { nonce: *nonce, proof: proof.try_into().ok()? })
}

/// All messages but the log.
fn plain(frame: &Frame) -> Option<Wire> {
    let generation = frame.generation;
    let mut cursor = Cursor::new(&frame.payload);
    let wire = match frame.kind {
        kind::HELLO => return hello(frame),
        kind::GREET => return greet(frame),
        kind::CHALLENGE => return challenge(frame),
        kind::PROOF => return Some(Wire::Proof { proof: frame.payload.as_slice().try_into().ok()? }),
        kind::WELCOME => Wire::Welcome,
        kind::REFUSE => Wire::Refuse { reason: core::str::from_utf8(cursor.rest()).ok()?.into() },
        kind::STATE => Wire::State { offset: cursor.u64()?, bytes: cursor.rest().to_vec() },
        kind::STATE_END => Wire::StateEnd { total: cursor.u64()? },
        kind::READY => Wire::Ready { digest: record::digest(&mut cursor)? },
        kind::ACK => Wire::Ack(AckV1 {
            generation,
            received: Lsn(cursor.varint()?),
            executed: Lsn(cursor.varint()?),
            icount: Icount(cursor.varint()?),
            time: VirtTime(cursor.varint()?),
            buffered_bytes: cursor.varint()?,
        }),
        kind::HEARTBEAT => Wire::Heartbeat { generation },
        kind::GOODBYE => Wire::Goodbye { generation, reason: cursor.u8()? },
        kind::NETWORK => match cursor.u8()? {
            0 => Wire::Network { generation, reached: false },
            1 => Wire::Network { generation, reached: true },
            _ => return None,
        },
        kind::HANDOVER => Wire::Handover { generation, last: Lsn(cursor.varint()?) },
        kind::END => Wire::End { records: cursor.u64()? },
        _ => return None,
    };
    (cursor.remaining() == 0).then_some(wire)
}
