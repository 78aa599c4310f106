//! How two hosts become a pair, sans-I/O: from the first claim to the first instruction.
//!
//! ```text
//!   PrimaryStart                          BackupStart
//!   reaches the backup
//!   claims its first generation
//!      │  Greet: VM, generation, nonce ────► │  looks for the claim at its own arbiter
//!      │ ◄──────────────── Challenge (proof) │
//!      │  Proof ───────────────────────────► │  from here on it is no stranger
//!      │  Hello: VM, generation, machine,    │  checks the disks (slot, mode, size, content),
//!      │  disks, timeouts, snapshot size ──► │  the RAM it was told to expect, its room
//!      │ ◄────────────────── Welcome/Refuse  │
//!      │  State, State, … StateEnd ────────► │  builds the machine from the snapshot; plugs in
//!      │ ◄─────────────────── Ready/Refuse   │  digest of the machine it has built
//!      │  compares digests; starts           │  backs up
//! ```
//!
//! Both machines have one shape: [`PrimaryStart::handle`] and [`BackupStart::handle`] take in what happened (a word of the
//! peer, the end of a work that was asked for, time, "told to stop"), `poll_action` hands out what is to be done until
//! it returns `None`, `deadline` says until when what is awaited may take. The last action says how it went.
//!
//! Rules, each in one function or one row of a `match`:
//! - A backup hears of a generation only once its primary has won it.
//! - A start that fails after it has asked for its generation spends it, and no other.
//! - Who has not proven that it reads the same arbiter is told nothing; a proof is asked for all the same.
//! - A step has one deadline, whatever arrives meanwhile.
//! - Whatever may still fail on the backup's host comes before Ready: that is its last word.
//!
//! Not here: proofs themselves, bytes, disks, sockets (`pollux-host`); what happens to a running pair
//! ([`crate::primary`], [`crate::backup`]); the end of a VM ([`crate::ending`]).

pub mod backup;
pub mod disks;
pub mod primary;
mod terms;

pub use backup::{BackupAction, BackupInput, BackupStart};
pub use primary::{PrimaryAction, PrimaryInput, PrimaryStart};
pub use terms::{Disk, Found, Greeting, Own, OwnDisk, Peer, Refusal, Terms, Word};

use crate::types::HostTime;

/// How long a stranger may take over all that it takes to become none.
pub const STRANGER_PATIENCE_NS: u64 = 5_000_000_000;
/// How long a proven peer may take over one step, besides what its bytes take.
pub const HANDSHAKE_PATIENCE_NS: u64 = 120_000_000_000;
/// A disk that is hashed, or a snapshot that is sent, more slowly than this is as good as none, in bytes a second.
pub const SLOWEST_BYTES_PER_S: u64 = 4 << 20;
/// How long a peer that is turned away may take to read why.
pub const LAST_WORD_PATIENCE_NS: u64 = 1_000_000_000;
/// How long a primary tries to reach its backup.
pub const CONNECT_PATIENCE_NS: u64 = 30_000_000_000;
/// How long it waits before it tries again.
pub const CONNECT_AGAIN_NS: u64 = 100_000_000;

/// Until when a step may take in which so many bytes are read or sent.
fn step_until(now: HostTime, bytes: u64) -> HostTime {
    let work = (bytes / SLOWEST_BYTES_PER_S).saturating_mul(1_000_000_000);
    now.after(HANDSHAKE_PATIENCE_NS.saturating_add(work))
}
