//! The shipped protocol and arbiter under a model checker: every order of steps and faults, within bounds.
//!
//! What is explored is [`Primary`](pollux_protocol::Primary), [`Backup`](pollux_protocol::Backup) and
//! [`Ledger`](pollux_arbiter::Ledger) themselves, cloned and hashed as they are; the machine is a toy ([`toy`]), and the
//! glue between them does what `pollux-node` does ([`step`]). `stateright` enumerates the states.
//!
//! # Time
//!
//! The protocol reads a [`HostTime`](pollux_protocol::HostTime), compares it only with what the same host read earlier,
//! and never sends it. So each host has a clock of its own, in units that are small against nothing: a heartbeat is due
//! after one unit, a side is dead after two, an arbiter is asked again after one. A clock moves only by an action,
//! one unit at a time ([`Action::Tick`]) or by a whole failure timeout unnoticed ([`Action::Sleep`]), at any moment
//! and any number of times within the bound, whatever other clocks do. That covers every ratio of speeds, every
//! delay and every pause that ends in the same order of timeouts and steps; it keeps the number of states finite; and it
//! assumes less than the deployment does, where both clocks run at nearly one rate. What it cannot say is how long
//! anything takes.
//!
//! The lag loop (units of 10 ms) and progress records stand still here; they decide how fast, never who.
//!
//! Invariants: see [`PROPERTIES`]. Not here: how a pair begins and ends ([`start`]), disks, devices, real timing, a backup that joins a running VM.

pub mod actions;
pub mod configs;
mod judge;
pub mod run;
pub mod start;
mod step;
pub mod toy;
pub mod world;

pub use actions::Action;
pub use configs::{CONFIGS, Config};
pub use run::{Counterexample, Outcome, check};
pub use world::{Bounds, Broken, World};

use pollux_protocol::{HaltReason, Role};
use stateright::{Model, Property};
use std::panic::{AssertUnwindSafe, catch_unwind};
use world::{Down, Host, Side};

/// A deployment, where it starts, and what may happen to it.
#[derive(Clone, Debug)]
pub struct Deployment {
    /// Where it starts.
    pub start: World,
}

/// What must hold, as it is printed.
pub const PROPERTIES: [&str; 10] = [
    "in each generation at most one side releases outputs",
    "at most one runs alone, and only in the newest generation",
    "no two outputs contradict each other",
    "who runs has made every output that was ever released",
    "no output is missing from what was released",
    "a primary that has slept, or been silent, or claims, releases nothing before it has won",
    "a VM that is somebody's is not started again",
    "no assertion fails",
    "when the faults stop, the VM runs on, and whoever is spent halts",
    "who does not reach the service network waits before it claims",
];

/// What must be reached by some deployment, or the faults do not bite.
pub const REACHED: [&str; 5] = [
    "the backup has taken over",
    "the primary has gone on alone",
    "a side has lost its claim",
    "the backup claims while the primary is still one",
    "a side has handed the VM over",
];

impl Broken {
    /// The property that does not hold then.
    #[must_use]
    pub fn property(&self) -> &'static str {
        PROPERTIES[match self {
            Self::TwoSpoke(_) => 0,
            Self::TwoRun => 1,
            Self::Contradicted(_) => 2,
            Self::Forgotten(_) => 3,
            Self::Gap(_) => 4,
            Self::SpokeUnasked => 5,
            Self::StartedTwice => 6,
            Self::Panicked(_) => 7,
            Self::Stuck(_) => 8,
            Self::ClaimedUnserved => 9,
        }]
    }
}

impl Deployment {
    fn no(world: &World, which: fn(&Broken) -> bool) -> bool {
        !world.broken.as_ref().is_some_and(which)
    }

    fn one_alone(world: &World, which: fn(&Host) -> bool) -> bool {
        world.hosts.iter().any(|at| at.runs_alone() && which(at))
    }

    fn halted(world: &World, which: fn(&HaltReason) -> bool) -> bool {
        world.hosts.iter().any(|at| matches!(&at.side, Side::Down(Down::Halted(reason)) if which(reason)))
    }
}

impl Model for Deployment {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![self.start.clone()]
    }

    fn actions(&self, state: &World, actions: &mut Vec<Action>) {
        state.actions(actions);
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let next = catch_unwind(AssertUnwindSafe(|| {
            let mut next = last.after(action)?;
            if next.broken.is_none() {
                next.broken = next.judge();
            }
            Some(next)
        }));
        next.unwrap_or_else(|panic| {
            Some(World { broken: Some(run::panicked(panic.as_ref())), ..last.clone() })
        })
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let [spoke, two, contradicted, forgotten, gap, slept, started, panicked, stuck, unserved] =
            PROPERTIES;
        let [takeover, alone, lost, claims, handed] = REACHED;
        vec![
            Property::always(spoke, |_, w| Self::no(w, |b| matches!(b, Broken::TwoSpoke(_)))),
            Property::always(two, |_, w| Self::no(w, |b| matches!(b, Broken::TwoRun))),
            Property::always(contradicted, |_, w| Self::no(w, |b| matches!(b, Broken::Contradicted(_)))),
            Property::always(forgotten, |_, w| Self::no(w, |b| matches!(b, Broken::Forgotten(_)))),
            Property::always(gap, |_, w| Self::no(w, |b| matches!(b, Broken::Gap(_)))),
            Property::always(slept, |_, w| Self::no(w, |b| matches!(b, Broken::SpokeUnasked))),
            Property::always(started, |_, w| Self::no(w, |b| matches!(b, Broken::StartedTwice))),
            Property::always(panicked, |_, w| Self::no(w, |b| matches!(b, Broken::Panicked(_)))),
            Property::always(stuck, |_, w| run::ends_well(w).is_ok()),
            Property::always(unserved, |_, w| Self::no(w, |b| matches!(b, Broken::ClaimedUnserved))),
            Property::sometimes(takeover, |_, w| Self::one_alone(w, |at| at.backs.is_some())),
            Property::sometimes(alone, |_, w| {
                Self::one_alone(w, |at| at.backs.is_none() && at.peer.is_some())
            }),
            Property::sometimes(lost, |_, w| Self::halted(w, |r| matches!(r, HaltReason::LostClaim(_)))),
            Property::sometimes(handed, |_, w| Self::halted(w, |r| matches!(r, HaltReason::HandedOver(_)))),
            Property::sometimes(claims, |_, w: &World| {
                let is_primary = |host: usize| w.hosts[host].is(Role::Primary);
                w.hosts.iter().any(|at| at.is(Role::Claiming) && at.peer.is_some_and(is_primary))
            }),
        ]
    }
}
