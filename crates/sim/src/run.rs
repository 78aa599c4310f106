//! One run: a plan, from the beginning to a verdict.

use crate::check::{Broken, Violation};
use crate::deploy::Recipe;
use crate::machines::guest::Prepared;
use crate::plan::Plan;
use crate::timeline::Timeline;
use crate::world::{Stats, World};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Report {
    /// The property that does not hold, if one does not.
    pub violation: Option<Violation>,
    /// Numbers.
    pub stats: Stats,
    /// Pairs that were started: more than one if the VM has ended and was started again.
    pub pairs: u64,
    /// What happened, if that was wanted.
    pub timeline: String,
}

/// Runs a plan. `timeline`: whether to write down what happens.
///
/// A panic of the code under test is a violation like any other.
#[must_use]
pub fn run(plan: &Plan, prepared: &Prepared, timeline: bool) -> Report {
    let mut world = World::new(plan.clone(), Recipe::new(plan, prepared), Timeline::new(timeline));
    let judged = catch_unwind(AssertUnwindSafe(|| world.run())).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(Broken("nothing panics", text.unwrap_or_else(|| "a panic without words".into())))
    });
    let violation = judged.err().map(|Broken(property, what)| Violation { at_ns: world.now, property, what });
    if let Some(Violation { at_ns, property, what }) = &violation {
        world.timeline.say(*at_ns, "checker", format_args!("VIOLATION: {property}: {what}"));
    } else {
        let at = world.now;
        world.timeline.say(at, "checker", format_args!("no violation: {:?}", world.stats));
    }
    Report { violation, stats: world.stats, pairs: world.pairs, timeline: world.timeline.finish() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::FaultKind;
    use crate::machines::MachineKind;
    use crate::random::Random;

    #[test]
    fn a_link_that_takes_longer_than_the_failure_timeout_over_a_large_record_is_no_dead_one() {
        let prepared = Prepared::boot();
        for seed in 1..=40 {
            let mut plan = Plan::draw(seed, Some(MachineKind::Model)).only(&[]);
            plan.draw_thin(&mut Random::new(seed, "thin links"));
            let mut until_ns = 0;
            // One after the other: together they would take longer than a standstill may.
            for fault in
                plan.faults.iter_mut().filter(|fault| matches!(fault.kind, FaultKind::LongFrame { .. }))
            {
                fault.at_ns = until_ns;
                until_ns += 3 * plan.failure_ns;
            }
            plan.faults.retain(|fault| fault.at_ns < crate::plan::HEALED_NS);
            plan.faults.sort_by_key(|fault| fault.at_ns);
            let report = run(&plan, &prepared, false);
            assert_eq!(report.violation, None, "seed {seed}: {plan}");
            assert_eq!(report.stats.takeovers, [0, 0], "seed {seed}: {plan}");
        }
    }
}
