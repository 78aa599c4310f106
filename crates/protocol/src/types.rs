//! The protocol's nouns: settings, messages, verdicts, reasons, reports.

use crate::hold_stats::HoldSummary;
use crate::strategy::Strategy;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use pollux_vocab::{DiskOp, Generation, Icount, Input, Lsn, Output, Record, RecordBody, VirtTime};

/// Host time in nanoseconds, monotonic; only differences mean anything.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct HostTime(pub u64);

impl HostTime {
    /// This time, `ns` later.
    #[must_use]
    pub const fn after(self, ns: u64) -> Self {
        Self(self.0.saturating_add(ns))
    }
    /// Nanoseconds from `earlier` to this; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Timeouts and bounds. Both sides of a pair use the same.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Settings {
    /// How the two machines are kept one VM.
    pub strategy: Strategy,
    /// A side that has nothing else to say says this often that it lives.
    pub heartbeat_every_ns: u64,
    /// Silence after which the other side counts as dead.
    pub failure_after_ns: u64,
    /// Bytes of log that the backup has not acknowledged, or holds unexecuted, at which the primary stops.
    pub send_window_bytes: u64,
    /// Execution lag that is not to be reached: the primary is slowed from half of it on. The default is less than what
    /// DESIGN 5 allows, 100 ms, because a lag has grown by the time it is known.
    pub lag_target_ns: u64,
    /// The log says at least this often how far the primary has come, while it executes.
    pub progress_every_ns: u64,
    /// First wait before an arbiter that could not be reached is asked again; doubles up to `claim_retry_max_ns`.
    pub claim_retry_ns: u64,
    /// Longest such wait.
    pub claim_retry_max_ns: u64,
    /// How long a primary that has handed the VM over waits for its backup before it asks the arbiter itself.
    pub handover_after_ns: u64,
    /// A backup that executes nothing, or a window that is full, for so long is as bad as a dead backup.
    pub stall_after_ns: u64,
    /// A side that knows that it does not reach the service network waits so long before it claims.
    pub net_wait_ns: u64,
    /// A primary that has not reached the service network for so long hands over to a backup that does; `None`: it stays.
    pub net_loss_ns: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            strategy: Strategy::default(),
            heartbeat_every_ns: 50_000_000,
            failure_after_ns: 300_000_000,
            send_window_bytes: 64 << 20,
            lag_target_ns: 80_000_000,
            progress_every_ns: 1_000_000,
            claim_retry_ns: 100_000_000,
            claim_retry_max_ns: 1_000_000_000,
            handover_after_ns: 2_000_000_000,
            stall_after_ns: 5_000_000_000,
            net_wait_ns: 2_000_000_000,
            net_loss_ns: Some(1_000_000_000),
        }
    }
}

/// What the two sides say to each other once they are a pair.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Message {
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
    Ack {
        /// The generation that it backs up.
        generation: Generation,
        /// Newest record received. This is what the output rule counts.
        received: Lsn,
        /// Newest record executed.
        executed: Lsn,
        /// How far the machine has come.
        icount: Icount,
        /// Its virtual time there.
        time: VirtTime,
        /// Log received and not yet executed.
        buffered_bytes: u64,
    },
    /// Either: I live.
    Heartbeat {
        /// The sender's generation.
        generation: Generation,
    },
    /// Primary: I execute and release nothing more; take over.
    Handover {
        /// The primary's generation.
        generation: Generation,
        /// The log ends with this record.
        last: Lsn,
    },
    /// Backup: whether I reach the service network.
    Network {
        /// The generation that it backs up.
        generation: Generation,
        /// It does.
        reached: bool,
    },
    /// Either: I end in good order; do not take over from me, do not wait for me.
    Goodbye {
        /// The sender's generation.
        generation: Generation,
        /// Why.
        reason: GoodbyeReason,
    },
}

impl Message {
    /// The generation of the sender.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        match self {
            Self::Records { generation, .. }
            | Self::Ack { generation, .. }
            | Self::Heartbeat { generation }
            | Self::Handover { generation, .. }
            | Self::Network { generation, .. }
            | Self::Goodbye { generation, .. } => *generation,
        }
    }
}

/// Why a side leaves.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum GoodbyeReason {
    /// The VM has ended.
    Ended,
    /// This replica was told to leave, or must: the VM goes on without it.
    Leaving,
    /// This replica differs from the other one.
    Diverged,
}

/// The arbiter's answer to a claim.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Verdict {
    /// The generation is this side's.
    Won,
    /// Somebody else has it.
    Lost,
    /// Nobody knows; ask again.
    Unreachable,
}

/// Why a replica must not run on.
#[derive(Clone, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum HaltReason {
    /// The arbiter gave the generation to the other side.
    #[error("generation {0} belongs to the other replica: it runs on, this one must not")]
    LostClaim(Generation),
    /// This side has handed the VM over.
    #[error("the VM was handed over: it runs on at the other replica, in generation {0}")]
    HandedOver(Generation),
    /// The primary was gone before it had said anything.
    #[error(
        "the primary was gone before it had said anything: it may never have started the VM, so this backup does not take over; start the pair again"
    )]
    NeverHeard,
    /// The VM has ended on the other side.
    #[error("the VM has ended on the other side")]
    PeerEnded,
    /// This side executes nothing of what it holds.
    #[error(
        "this replica has executed nothing of its log for too long (does a disk of this host hang?): it has left the pair; the VM goes on without it"
    )]
    Stalled,
    /// This side was told to leave the pair.
    #[error("this replica has left the pair; the VM goes on without it")]
    Left,
    /// This side was told to leave while it asked for a generation that it may have been given by now.
    #[error(
        "this replica was told to leave while it claimed generation {0}: if the other one has died, the VM runs nowhere"
    )]
    LeftClaiming(Generation),
    /// The other side breaks the protocol's rules.
    #[error("the peer breaks the protocol: {0}; this backup leaves the pair")]
    PeerFault(String),
}

/// Whether the primary may execute.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Pace {
    /// Yes, with this share of the time, in 1/1000: less than 1000 while the backup lags.
    Run {
        /// The share.
        share_permille: u16,
    },
    /// Not until something has changed.
    Wait,
}

/// The part a replica plays (DESIGN 5). `Joining` is the place of a backup that is being cloned from a running VM.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Role {
    /// Runs with no backup.
    #[default]
    Solo,
    /// Runs with a backup.
    Primary,
    /// Has given the VM to its backup, and executes no more.
    HandingOver,
    /// The other side is missing; waits for the arbiter.
    Claiming,
    /// Replays.
    Backup,
    /// Has won and replays the rest of the log.
    Draining,
    /// Must not run.
    Halted,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Solo => "solo",
            Self::Primary => "primary",
            Self::HandingOver => "handing-over",
            Self::Claiming => "claiming",
            Self::Backup => "backup",
            Self::Draining => "draining",
            Self::Halted => "halted",
        })
    }
}

/// A side's account of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Its part.
    pub state: Role,
    /// Its generation.
    pub generation: Generation,
    /// Newest record.
    pub lsn: Lsn,
    /// Newest record acknowledged by the other side (primary) or received (backup).
    pub acked: Lsn,
    /// Outputs in the gate.
    pub held: usize,
    /// Outputs released.
    pub released: u64,
    /// How long outputs were held.
    pub hold: HoldSummary,
    /// Execution lag of the backup in nanoseconds (see [`crate::lag`] for what that means).
    pub lag_ns: u64,
    /// Steps by which the backup, as last heard, is behind.
    pub lag_steps: u64,
    /// Share of the time that the primary runs, in 1/1000.
    pub share_permille: u16,
    /// Log bytes not yet acknowledged (primary) or not yet executed (backup).
    pub buffered_bytes: u64,
}

/// What a record costs in buffers: its payload and a fixed part. Not its size on the wire.
#[must_use]
pub fn weight(record: &Record) -> u64 {
    const FIXED: u64 = 64;
    let payload = match &record.body {
        RecordBody::Input(Input::Packet { frame, .. }) => frame.len(),
        RecordBody::Input(Input::DiskDone { data, .. }) => data.len(),
        RecordBody::Input(Input::Console { bytes, .. } | Input::Entropy { bytes, .. }) => bytes.len(),
        RecordBody::Digest(digest) => 16 * digest.changed.len(),
        _ => 0,
    };
    FIXED + payload as u64
}

/// What an output costs in the gate.
#[must_use]
pub fn output_weight(output: &Output) -> u64 {
    const FIXED: u64 = 64;
    let payload = match output {
        Output::Packet { frame, .. } => frame.len(),
        Output::Console { bytes, .. } => bytes.len(),
        Output::Disk(request) => match &request.op {
            DiskOp::Write { data, .. } => data.len(),
            DiskOp::Read { .. } | DiskOp::Flush | DiskOp::Zero { .. } => 0,
        },
        _ => 0,
    };
    FIXED + payload as u64
}
