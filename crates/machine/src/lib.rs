//! What Pollux needs of a machine, whatever kind of machine it is (DESIGN 1).
//!
//! Replication, recording and observation are written against these traits, so that none of them drags a kind of
//! machine along.
//!
//! Map: [`Machine`] is what replication drives, [`Freeze`] gives a snapshot of it while it runs, [`Restore`] makes it of
//! one, [`Inspect`] looks into it; [`MemorySource`] lends it memory; [`Difference`] says in what two of them differ.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

mod difference;
mod freeze;
mod machine;
mod memory;
mod restore;

pub use difference::Difference;
pub use freeze::{DeviceState, Freeze, Inspect, Pieces};
pub use machine::{Machine, Stop};
pub use memory::{Memory, MemorySource, OwnMemory};
pub use restore::{Build, DiskPart, Parts, Restore};
