//! Runs the checker over a deployment, and tells what it found in words.
//!
//! A panic in the shipped code is a finding like any other, with the steps that lead to it.

use super::world::{Broken, World};
use super::{Action, Deployment, REACHED};
use stateright::{Checker, HasDiscoveries, Model};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Steps that break a rule.
#[derive(Clone, Debug)]
pub struct Counterexample {
    /// The rule.
    pub property: &'static str,
    /// In particular.
    pub broken: Broken,
    /// The steps from the start.
    pub steps: Vec<Action>,
    /// Whether it breaks only when things go on from there without faults.
    pub later: bool,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Distinct states visited.
    pub states: usize,
    /// States reached, each as often as it was.
    pub reached: usize,
    /// Steps on the longest path by which a state was first reached.
    pub depth: usize,
    /// Whether that were all.
    pub complete: bool,
    /// The shortest found, if a rule was broken.
    pub counterexample: Option<Counterexample>,
    /// What should have been reached and was not.
    pub missed: Vec<&'static str>,
}

/// Explores until all is seen, a rule is broken, or `states_max` are reached.
#[must_use]
pub fn check(start: World, threads: usize, states_max: Option<usize>) -> Outcome {
    let mut builder =
        Deployment { start }.checker().threads(threads).finish_when(HasDiscoveries::AnyFailures);
    if let Some(states_max) = states_max {
        builder = builder.target_state_count(states_max);
    }
    let checker = builder.spawn_bfs().join();
    let mut discoveries = checker.discoveries();
    let missed = REACHED.into_iter().filter(|name| discoveries.remove(name).is_none()).collect();
    let shortest = discoveries.into_values().min_by_key(|path| path.clone().into_actions().len());
    let counterexample = shortest.and_then(|path| {
        let last = path.last_state();
        let (broken, later) = match &last.broken {
            Some(broken) => (broken.clone(), false),
            None => (ends_well(last).err()?, true),
        };
        Some(Counterexample { property: broken.property(), broken, steps: path.into_actions(), later })
    });
    let bounded = states_max.is_some_and(|most| checker.state_count() >= most);
    Outcome {
        states: checker.unique_state_count(),
        reached: checker.state_count(),
        depth: checker.max_depth(),
        complete: counterexample.is_none() && !bounded,
        counterexample,
        missed,
    }
}

/// Whether this state, left alone, ends well. A state that has broken a rule is not judged again.
pub(super) fn ends_well(world: &World) -> Result<(), Broken> {
    if world.broken.is_some() {
        return Ok(());
    }
    catch_unwind(AssertUnwindSafe(|| world.heal())).unwrap_or_else(|panic| Err(panicked(panic.as_ref())))
}

/// A panic, as a finding.
pub(super) fn panicked(panic: &(dyn Any + Send)) -> Broken {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).into()));
    Broken::Panicked(text.unwrap_or_else(|| "without a word".into()))
}
