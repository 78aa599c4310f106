//! Seed after seed: what `pollux simulate --seeds` and the judge of mutants (`examples/seeds.rs`) both do.
//!
//! When to end is the caller's business, as is the wall clock.

use crate::machines::MachineKind;
use crate::machines::guest::Prepared;
use crate::plan::Plan;
use crate::run::{Report, run};
use std::time::Duration;

/// What many runs came to.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// How many.
    pub runs: u64,
    /// The seeds that broke a property.
    pub failed: Vec<u64>,
    with_guest: u64,
    faults: u64,
    failovers: u64,
    alone: u64,
    outputs: u64,
    late: u64,
    operations: u64,
    undecided: u64,
    digests: u64,
    steps: u64,
    longest_ns: u64,
}

/// Runs one seed after the other, from `from` on, until `next` says no; it is told the totals and the seed that would
/// be the next. `draw` says what a seed means. `failed` hears of every run that breaks a property.
pub fn many(
    from: u64,
    draw: impl Fn(u64) -> Plan,
    prepared: &Prepared,
    mut next: impl FnMut(&Totals, u64) -> bool,
    mut failed: impl FnMut(&Plan, &Report),
) -> Totals {
    let mut totals = Totals::default();
    let mut seed = from;
    while next(&totals, seed) {
        let plan = draw(seed);
        let report = run(&plan, prepared, false);
        totals.count(&plan, &report);
        if report.violation.is_some() {
            failed(&plan, &report);
        }
        seed = seed.wrapping_add(1);
    }
    totals
}

impl Totals {
    fn count(&mut self, plan: &Plan, report: &Report) {
        let stats = &report.stats;
        self.runs += 1;
        self.with_guest += u64::from(plan.machine == MachineKind::Guest);
        if report.violation.is_some() {
            self.failed.push(plan.seed);
        }
        self.faults += stats.faults;
        let alone = stats.takeovers[plan.pair.primary];
        self.alone += alone;
        self.failovers += stats.takeovers.iter().sum::<u64>() - alone;
        self.outputs += stats.outputs;
        self.late += stats.late;
        self.operations += stats.operations;
        self.undecided += stats.undecided;
        self.digests += stats.digests;
        self.steps += stats.steps;
        self.longest_ns = self.longest_ns.max(stats.longest_ns);
    }

    /// In words. `from` was the first seed, and `took` is what all of them took.
    #[must_use]
    pub fn describe(&self, from: u64, took: Duration) -> String {
        let last = from.wrapping_add(self.runs.saturating_sub(1));
        let seconds = took.as_secs_f64();
        let mut text = format!(
            "seeds {from} to {last}: {} failed, {:.1} s, {:.0} seeds a second, {} with the real machine\n",
            self.failed.len(),
            seconds,
            self.runs as f64 / seconds.max(1e-9),
            self.with_guest
        );
        text += &format!(
            "  {} faults; {} failovers, {} primaries that went on alone; {} outputs ({} of them late copies), {} operations judged ({} registers undecided), {} digests compared; {:.1} million steps; longest wait of a client {:.0} ms\n",
            self.faults,
            self.failovers,
            self.alone,
            self.outputs,
            self.late,
            self.operations,
            self.undecided,
            self.digests,
            self.steps as f64 / 1e6,
            self.longest_ns as f64 / 1e6
        );
        if !self.failed.is_empty() {
            let seeds: Vec<_> = self.failed.iter().map(u64::to_string).collect();
            text += &format!("  failed: {}\n", seeds.join(" "));
        }
        text
    }
}
