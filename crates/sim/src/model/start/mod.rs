//! The start and the end of a pair under a model checker: every order of steps and faults, within bounds.
//!
//! What is explored is shipped: [`PrimaryStart`](pollux_protocol::pairing::PrimaryStart),
//! [`BackupStart`](pollux_protocol::pairing::BackupStart), the rules of the end
//! ([`to_spend`](pollux_protocol::ending::to_spend)), [`Primary`](pollux_protocol::Primary) and
//! [`Backup`](pollux_protocol::Backup) once they are a pair, and the arbiter's rules on a
//! [`Ledger`](pollux_arbiter::Ledger). One step is one action of one of them, or one message that arrives, or a fault:
//! a process crashes, a link ends and takes with it what was under way, the arbiter is not reached or its answer is
//! lost, work on a host fails, somebody says stop, a deadline comes. Proofs are toys: bytes that name the secret.
//!
//! Time is each process's own. A deadline may come at any moment: that covers every delay.
//!
//! Not here: what a running pair does under faults (the model beside this one).

mod configs;
mod judge;
mod perform;
mod step;
mod world;

pub use configs::{CONFIGS, Config};
pub use step::Action;
pub use world::{Bounds, Broken, World};

use super::run::panicked;
use stateright::{Checker, HasDiscoveries, Model, Property};
use std::panic::{AssertUnwindSafe, catch_unwind};
use world::Side;

/// What must hold, as it is printed.
pub const RULES: &str = "the start and the end of a pair keep their rules";

/// What must be reached by some deployment, or the faults do not bite.
pub const REACHED: [&str; 5] = [
    "a pair runs",
    "a start has failed and the VM is free",
    "a backup has taken over from a primary that it paired with",
    "a stranger has been left",
    "a VM has ended and may be started again",
];

/// Where it starts.
#[derive(Clone, Debug)]
struct Deployment(World);

impl Model for Deployment {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![self.0.clone()]
    }

    fn actions(&self, state: &World, actions: &mut Vec<Action>) {
        if state.broken.is_none() {
            state.actions(actions);
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let next = catch_unwind(AssertUnwindSafe(|| {
            let mut next = last.clone();
            next.take(action);
            next.judge();
            next
        }));
        Some(next.unwrap_or_else(|panic| {
            let what = format!("{:?}", panicked(panic.as_ref()));
            World { broken: Some(Broken::Panicked(what)), ..last.clone() }
        }))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let [pair, failed, takeover, stranger, ended] = REACHED;
        vec![
            Property::always(RULES, |_, world: &World| world.broken.is_none() && world.ends_well().is_ok()),
            Property::sometimes(pair, |_, world: &World| {
                world.sides().any(|side| matches!(side, Side::Runs(_)))
                    && world.sides().any(|side| matches!(side, Side::Backs(..)))
            }),
            Property::sometimes(failed, |_, world: &World| {
                world.has_given_up() && world.is_free() && world.ran.is_empty()
            }),
            Property::sometimes(takeover, |_, world: &World| {
                world.procs.iter().any(|at| at.is_backup && matches!(at.side, Side::Runs(_)))
            }),
            Property::sometimes(stranger, |_, world: &World| world.stranger_left),
            Property::sometimes(ended, |_, world: &World| !world.ended.is_empty() && world.is_free()),
        ]
    }
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Distinct states visited.
    pub states: usize,
    /// The rule that was broken, and the steps that break it.
    pub broken: Option<(Broken, Vec<Action>)>,
    /// What should have been reached and was not.
    pub missed: Vec<&'static str>,
}

/// Explores until all is seen or a rule is broken.
#[must_use]
pub fn check(start: World) -> Outcome {
    let checker = Deployment(start).checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let mut discoveries = checker.discoveries();
    let missed = REACHED.into_iter().filter(|name| discoveries.remove(name).is_none()).collect();
    let broken = discoveries.into_values().next().and_then(|path| {
        let last = path.last_state();
        let broken = last.broken.clone().or_else(|| last.ends_well().err())?;
        Some((broken, path.into_actions()))
    });
    Outcome { states: checker.unique_state_count(), broken, missed }
}
