//! Pollux without hosts. The simulator: a whole deployment (a pair, spare hosts, the shipped protocol and node loop, disks, links, the arbiter's
//! shipped rules, clients) in one thread and in virtual time, from one seed, with faults and checkers.
//!
//! Why: rules that hold only because of the order in which things happen are not found by tests that somebody
//! thought of. A seed and a commit are a complete report of a failure: the same seed gives the same run, to the byte.
//!
//! The node is generic over its ports; `pollux-host` is one implementation of them and this crate is the other
//! ([`desk`]), so what runs here is the production loop. Map: [`plan`] what a seed means; [`deploy`] hosts and the
//! processes that are started on them; [`world`] the queue of what happens; [`links`], [`link`], [`net`], [`disk`],
//! [`storage`] what may fail, [`inject`] how; [`client`] who asks; [`check`] what must hold; [`shrink`] a smaller
//! schedule.
//!
//! Invariant: no clock, no thread, no unordered collection, no chance but [`random`]'s.
//!
//! [`model`] explores the protocol alone, exhaustively. What is judged is always the code that ships: no rule is written
//! down a second time.
//!
//! Not here: sockets, files and processes (`pollux-host`, tested by real processes), the start of a pair.
#![forbid(unsafe_code)]

mod check;
mod client;
mod clock;
mod deploy;
mod desk;
mod disk;
mod fault;
mod inject;
mod link;
mod links;
mod machines;
#[cfg(feature = "model")]
pub mod model;
mod net;
mod plan;
mod random;
mod run;
mod seeds;
mod service;
mod shrink;
mod storage;
mod timeline;
mod world;

pub use check::Violation;
pub use check::linear::{Effect, Operation, is_linearizable};
pub use fault::{DiskFault, Fault, FaultKind, Order, Way};
pub use machines::MachineKind;
pub use machines::guest::Prepared;
pub use plan::{GUEST_EVERY, Plan};
pub use random::Random;
pub use run::{Report, run};
pub use seeds::{Totals, many};
pub use shrink::shrink;
pub use world::Stats;
