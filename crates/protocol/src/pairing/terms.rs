//! The nouns of a pairing: what is said, what is found, and why two hosts do not become a pair.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use pollux_vocab::{Digest, Generation, SlotId};

/// Who asks a backup for its services.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Greeting {
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
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Disk {
    /// Its slot.
    pub slot: SlotId,
    /// Both hosts reach one image; else each host has its own.
    pub shared: bool,
    /// Its size in bytes.
    pub bytes: u64,
    /// A hash of its content, if the primary has taken one.
    pub content_hash: Option<u64>,
}

/// What a backup knows of a disk that it has opened.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct OwnDisk {
    /// Its slot.
    pub slot: SlotId,
    /// Whether both hosts reach one image.
    pub shared: bool,
    /// Whether it was opened for reading only.
    pub read_only: bool,
    /// Its size.
    pub bytes: u64,
    /// Its content, if it was hashed.
    pub content_hash: Option<u64>,
}

/// What the primary says of its machine, as far as somebody decides by it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Terms {
    /// The VM's name.
    pub vm: String,
    /// The VM's generation.
    pub generation: Generation,
    /// Its RAM, in bytes.
    pub ram_bytes: u64,
    /// Its disks.
    pub disks: Vec<Disk>,
    /// How often it will send a heartbeat.
    pub heartbeat_ns: u64,
    /// After how much silence it will hold the backup for dead, and may be held for dead.
    pub failure_ns: u64,
    /// Bytes of the snapshot that follows.
    pub snapshot_bytes: u64,
}

/// What the backup's operator has said of the machine that may come.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Own {
    /// Its RAM, if that was said: in bytes, and as it was said.
    pub ram: Option<(u64, String)>,
}

/// What the two sides say to each other before they are a pair.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Word {
    /// Primary, first of all: who asks.
    Greet(Greeting),
    /// Backup: what the primary is to prove, and this side's own proof.
    Challenge {
        /// Random, of this connection alone.
        nonce: [u8; 32],
        /// That this side knows the secret.
        proof: [u8; 32],
    },
    /// Primary: that it knows the secret.
    Proof([u8; 32]),
    /// Primary: what I run.
    Hello(Terms),
    /// Backup: I take it; send the state.
    Welcome,
    /// Backup: this pair cannot be, because.
    Refuse(String),
    /// Primary: a piece of the machine's snapshot.
    State {
        /// Its place in the snapshot.
        offset: u64,
        /// Its length.
        bytes: u64,
    },
    /// Primary: that was all of it, so many bytes.
    StateEnd(u64),
    /// Backup: I hold the machine, and this is its digest.
    Ready(Digest),
    /// Anything else that a peer may send, by name.
    Other(&'static str),
}

impl Word {
    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Greet(_) => "Greet",
            Self::Challenge { .. } => "Challenge",
            Self::Proof(_) => "Proof",
            Self::Hello(_) => "Hello",
            Self::Welcome => "Welcome",
            Self::Refuse(_) => "Refuse",
            Self::State { .. } => "State",
            Self::StateEnd(_) => "StateEnd",
            Self::Ready(_) => "Ready",
            Self::Other(name) => name,
        }
    }
}

/// What a backup finds at its own arbiter of the generation that it was greeted with.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Found {
    /// The id of the arbiter.
    pub arbiter: [u8; 16],
    /// Who holds the generation; `None`: nobody, or it is an end.
    pub holder: Option<String>,
    /// Whether the next generation has been claimed.
    pub is_spent: bool,
}

/// Which side.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Peer {
    /// The one that runs the VM.
    Primary,
    /// The one that waits.
    Backup,
}

/// Why two hosts do not become a pair, or a VM does not start.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Refusal {
    /// The backup cannot be reached.
    NotReached,
    /// Somebody else has the generation.
    Taken,
    /// The arbiter has not decided.
    Undecided,
    /// The other side will not.
    Refused(String),
    /// This side will not.
    Unfit(String),
    /// That side does not know the secret; what was wrong with what it said, if this side knows.
    Stranger(Peer, Option<String>),
    /// The peer is out of step.
    OutOfStep {
        /// What should have come.
        expected: &'static str,
        /// What came.
        got: &'static str,
    },
    /// The two machines are not equal: in what.
    Unequal(String),
    /// The peer took too long over one step.
    TooLate,
    /// Somebody has told this side to stop.
    Stopped,
    /// The link, or work on this host, has failed: whoever does the work knows why.
    Failed,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReached => f.write_str("cannot reach the backup"),
            Self::Taken => f.write_str("somebody else has just started the VM"),
            Self::Undecided => f.write_str("the arbiter has not decided who may start the VM"),
            Self::Refused(why) | Self::Unfit(why) | Self::Unequal(why) => f.write_str(why),
            Self::Stranger(_, Some(why)) => f.write_str(why),
            Self::Stranger(_, None) => f.write_str("the peer could not prove that it reads the same arbiter"),
            Self::OutOfStep { expected, got } => write!(f, "expected {expected}, the peer sent {got}"),
            Self::TooLate => f.write_str("the peer took too long over one step of the handshake"),
            Self::Stopped => f.write_str("told to stop during the handshake"),
            Self::Failed => f.write_str("the link, or this host, has failed"),
        }
    }
}
