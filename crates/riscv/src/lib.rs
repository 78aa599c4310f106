//! The guest computer: a pure function from a state and events to a state and outputs (DESIGN 1).
//!
//! `no_std` and without `unsafe`: a clock, a thread, a file or a randomly seeded map cannot be named here, so
//! the compiler is the proof that the machine is deterministic.
//!
//! Map: [`computer`] is the RV64 implementation of the contract (`pollux-machine`), made of
//! [`hart`]s (registers, traps, execution), the `mmu` (translation), [`ram`] (memory and its page flags) and a
//! [`board`] (devices). An [`engine`] may take the interpreter's place. [`sbi`] stands in for firmware; `snapshot` and `digest` turn the state into bytes.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod board;
mod boot_image;
pub mod computer;
pub mod config;
pub mod device;
pub mod digest;
pub mod engine;
pub mod hart;
mod mmu;
pub mod ram;
pub mod sbi;
mod sbi_host;
pub mod snapshot;
mod state;
#[cfg(test)]
mod tests;
pub mod virtio;

pub use computer::Computer;
pub use config::{Boot, Config, DeviceConfig, OnPanic, OnReset};
/// What drives it.
pub use pollux_machine::{Machine, Stop};
pub use ram::{BadAddress, RAM_BASE, Ram};
