//! The guest computer: a pure function from a state and events to a state and outputs (DESIGN 1).
//!
//! `no_std` and without `unsafe`: a clock, a thread, a file or a randomly seeded map cannot be named here, so
//! the compiler is the proof that the machine is deterministic.
//!
//! Map: [`machine`](crate::machine) is the trait that replication drives; `Computer` the RV64 implementation.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod config;
pub mod machine;

pub use config::{Boot, Config, DeviceConfig};
pub use machine::{Machine, Stop};
