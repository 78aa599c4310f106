//! The replication protocol, sans-I/O: messages, ticks and verdicts in; messages, outputs and commands out
//! (DESIGN 5). Knows neither the machine nor a socket; time is an argument.
//!
//! How a pair comes about, and who says that a VM has ended, are [`pairing`] and [`ending`].
//!
//! Two state machines, [`Primary`] and [`Backup`], in one shape: `handle_*` takes in what happened, commands say
//! what this side did, `poll_*` hands out effects until it returns `None`. `docs/protocol.md` has the diagram.
//!
//! The output rule is one file: [`output_gate`].
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod backup;
mod claim;
pub mod ending;
pub mod hold_stats;
pub mod lag;
pub mod output_gate;
pub mod pairing;
mod peer;
pub mod primary;
mod silence;
mod stall;
pub mod strategy;
mod timer;
mod types;

pub use backup::{Backup, BackupCommand};
pub use hold_stats::{HoldStats, HoldSummary};
pub use output_gate::OutputGate;
pub use peer::PeerId;
pub use primary::{Command, Primary};
pub use strategy::Strategy;
pub use types::{
    GoodbyeReason, HaltReason, HostTime, Message, Pace, Report, Role, Settings, Verdict, output_weight,
    weight,
};
