//! Trials of the whole product, each from processes of this very program: `pollux demo` shows it, `pollux bench` times
//! it, `pollux chaos` breaks it.
//!
//! They are no part of what protects a VM: nothing but the command line names this crate. What they share: [`GuestFiles`]
//! (what the guest is), `processes` (starting the binary that runs, and waiting for it), `redis` (a client), [`Bar`].
//! A trial says whether it found what it should have; which exit status that is, says the command line.
//!
//! Not here: the simulator (`pollux-sim`), tests.

// Nobody outside uses more than the command line; `pub` here means "for the other files".
#![allow(unreachable_pub)]

mod bar;
pub mod bench;
pub mod chaos;
pub mod demo;
mod guest_files;
mod processes;
mod redis;

pub use bar::Bar;
pub use guest_files::{GuestFiles, GuestSource};
