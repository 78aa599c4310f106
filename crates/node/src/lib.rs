//! The glue: one loop that marries a machine to the protocol, generic over [`Ports`].
//!
//! Pure, like everything it joins: time, packets, disks and the arbiter come and go through the ports, so the
//! same loop runs under a real host and in a simulator. A replica is a [`Node`]; drive it with [`Node::step`]
//! until it says how long to wait or that it has finished.
//!
//! ```text
//!            go-live (arbiter won, log replayed through its last mark)
//!  Standby ────────────────────────────────────────────────────────────► Live
//!     │ divergence, disk fault, lost claim, goodbye                        │ lost claim, power-off, reset
//!     └───────────────────────────────► Finished(Outcome) ◄────────────────┘
//! ```
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

mod digests;
pub mod disks;
pub mod divergence;
mod ending;
pub mod fence;
mod handover;
mod inbox;
pub mod live;
pub mod pacer;
pub mod ports;
pub mod replay;
pub mod standby;
mod unconfirmed;
pub mod wire;

use alloc::boxed::Box;
use alloc::vec::Vec;
pub use disks::DiskMode;
pub use live::Live;
pub use pacer::Pacing;
use pollux_machine::Machine;
use pollux_protocol::HaltReason;
pub use pollux_protocol::{HostTime, PeerId};
use pollux_vocab::{DiskStatus, RequestId, SlotId};
pub use ports::{DiskCompletion, DiskFault, Divergence, Event, HandoverCause, Notice, Ports};
pub use standby::Standby;

/// Events heard in one step: a flood of them must not keep a node from acknowledging and executing.
const EVENTS_PER_STEP_MAX: usize = 1024;
/// Pages hashed for a digest before the world is looked at again: about as long as a slice of execution takes.
const DIGEST_PAGES_MAX: usize = 256;

/// How a node behaves; the same on both sides of a pair.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Timeouts and bounds of the protocol.
    pub protocol: pollux_protocol::Settings,
    /// How virtual time relates to the host's.
    pub pacing: Pacing,
    /// The mode of each disk; a disk that is not named is replicated.
    pub disk_modes: Vec<(SlotId, DiskMode)>,
    /// Host nanoseconds between state digests in the log; 0 for none.
    pub digest_every_ns: u64,
}

/// What to do after a step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Next {
    /// Step again at once.
    Again,
    /// Step again when an event arrives, or at this time at the latest.
    WaitUntil(HostTime),
    /// This node is done.
    Finished(Outcome),
}

/// How a node ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The guest powered off, or an operator stopped it.
    PoweredOff {
        /// The guest's exit status.
        status: i32,
    },
    /// The guest asked for a reset.
    Reset,
    /// This replica must not run on.
    Halted(HaltCause),
}

/// Why a replica must not run on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HaltCause {
    /// The protocol says so.
    Protocol(HaltReason),
    /// The replicas differ.
    Diverged(Divergence),
    /// A disk failed a request on one side only; the backup leaves the pair (DESIGN 6).
    DiskDiffers {
        /// The disk.
        slot: SlotId,
        /// The request.
        request: RequestId,
        /// How it went on this host.
        here: DiskStatus,
        /// How it went on the primary.
        there: DiskStatus,
    },
    /// This host's disk is out of order; the backup leaves the pair.
    DiskFault {
        /// The disk.
        slot: SlotId,
        /// What is wrong with it.
        fault: DiskFault,
    },
}

/// A replica.
#[derive(Debug)]
pub enum Node<M> {
    /// It talks to the world.
    Live(Box<Live<M>>),
    /// It replays.
    Standby(Box<Standby<M>>),
    /// Between two states, inside [`Node::step`] only.
    Moving,
}

impl<M: Machine> Node<M> {
    /// One turn of the loop. It ends with what this side's place is worth until the next one.
    pub fn step(&mut self, ports: &mut impl Ports) -> Next {
        let next = self.turn(ports);
        ports.set_lease(self.lease());
        next
    }

    fn turn(&mut self, ports: &mut impl Ports) -> Next {
        match self {
            Self::Live(live) => live.step(ports),
            Self::Standby(standby) => match standby.step(ports) {
                Ok(next) => next,
                Err(granted) => {
                    if let Self::Standby(standby) = core::mem::replace(self, Self::Moving) {
                        *self = Self::Live(Box::new(standby.go_live(ports, &granted)));
                    }
                    Next::Again
                }
            },
            Self::Moving => unreachable!("a node is never left between two states"),
        }
    }

    /// The machine.
    pub fn machine(&mut self) -> &mut M {
        match self {
            Self::Live(live) => &mut live.machine,
            Self::Standby(standby) => &mut standby.machine,
            Self::Moving => unreachable!("a node is never left between two states"),
        }
    }

    /// The guest's measured speed, steps per second; 0 for a standby.
    pub fn steps_per_s(&self) -> u64 {
        match self {
            Self::Live(live) => live.steps_per_s(),
            Self::Standby(_) | Self::Moving => 0,
        }
    }

    /// Until when, by this host's clock, no other side can have taken this one's place
    /// ([`pollux_protocol::Primary::lease`]). A standby releases nothing, and needs none.
    fn lease(&self) -> HostTime {
        match self {
            Self::Live(live) => live.protocol.lease(),
            Self::Standby(_) => HostTime(u64::MAX),
            Self::Moving => unreachable!("a node is never left between two states"),
        }
    }

    /// The protocol's account of itself.
    pub fn report(&self) -> pollux_protocol::Report {
        match self {
            Self::Live(live) => live.protocol.report(),
            Self::Standby(standby) => standby.protocol.report(),
            Self::Moving => unreachable!("a node is never left between two states"),
        }
    }
}
