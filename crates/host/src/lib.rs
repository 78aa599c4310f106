//! The host half: the node's ports for real, and what it takes to start and end a replica on an ordinary Linux host.
//!
//! Map: [`ports`] joins the rest; [`drive`] is the loop; [`pairing`] happens before it; [`control`] and
//! [`status`] are what an operator sees. `unsafe` lives in [`sys`] only.

pub mod arbiter_file;
mod attached;
mod backlog;
pub mod clock;
pub mod console;
pub mod control;
pub mod disk;
pub mod disk_fault;
pub mod drive;
pub mod events;
pub mod exit;
pub mod fence;
pub mod image;
pub mod link;
mod listen;
mod lock;
pub mod mark;
mod memory;
pub mod net;
pub mod outfile;
pub mod outlet;
pub mod pairing;
pub mod ports;
pub mod proof;
mod rate;
pub mod recorder;
pub mod status;
pub mod sys;
