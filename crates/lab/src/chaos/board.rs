//! The scoreboard of many rounds.

use super::round::{Counts, Ending, Outcome};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A round in which something was wrong, and where its logs are.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Violation {
    /// The round.
    pub round: u64,
    /// What was wrong.
    pub faults: Vec<String>,
    /// Logs of both sides, disks, the guest's console.
    pub kept: PathBuf,
}

/// What all rounds came to.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Board {
    /// Where chance started.
    pub seed: u64,
    /// Whether the hosts had a network of their own, or all was on the loopback device.
    pub namespaces: bool,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// Pairs that were started and broken.
    pub rounds: u64,
    /// Rounds that could not begin; see the log.
    pub not_begun: u64,
    /// Faults injected, by name.
    pub injected: BTreeMap<&'static str, u64>,
    /// Blows by phase.
    pub phases: BTreeMap<String, u64>,
    /// The backup took over.
    pub failovers: u64,
    /// The primary ran on alone.
    pub alone: u64,
    /// The pair bore it.
    pub whole: u64,
    /// The winner was killed as well.
    pub double: u64,
    /// What was counted in all rounds together.
    #[serde(flatten)]
    pub counts: Counts,
    /// Longest wait of a client in each failover: median, 99th percentile, maximum, milliseconds.
    pub gap_ms: [f64; 3],
    /// Longest wait of a client before faults began, in every round: the same.
    pub quiet_ms: [f64; 3],
    /// The same from the blow until the backup was live.
    pub takeover_ms: [f64; 3],
    /// For each fault: the longest wait of a client in a round that had it, and what that round allowed, milliseconds.
    pub longest_ms: BTreeMap<&'static str, [f64; 2]>,
    /// Frames that crossed the link between the hosts, and that were lost on it.
    pub frames: [u64; 2],
    /// What was wrong.
    pub violations: Vec<Violation>,
    #[serde(skip)]
    gaps: Vec<f64>,
    #[serde(skip)]
    quiet: Vec<f64>,
    #[serde(skip)]
    takeovers: Vec<f64>,
}

/// Median, 99th percentile (the value that 99 of 100 do not exceed) and maximum.
fn quantiles(values: &mut [f64]) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    let at = |permille: usize| {
        let rank = (values.len() * permille).div_ceil(1000).max(1);
        values.get(rank - 1).copied().unwrap_or(0.0)
    };
    [at(500), at(990), at(1000)]
}

impl Board {
    /// An empty one.
    pub fn new(seed: u64, namespaces: bool) -> Self {
        Self { seed, namespaces, ..Self::default() }
    }

    /// Adds a round; `kept` is where its logs are, if something was wrong.
    pub fn add(&mut self, outcome: &Outcome, kept: Option<PathBuf>) {
        self.rounds += 1;
        for name in &outcome.injected {
            *self.injected.entry(name).or_default() += 1;
            let longest = self.longest_ms.entry(name).or_default();
            if outcome.gap_ms >= longest[0] {
                *longest = [outcome.gap_ms, outcome.allowed_ms];
            }
        }
        let phase = serde_json::to_value(outcome.plan.phase).ok();
        let phase = phase.as_ref().and_then(|name| name.as_str()).unwrap_or_default();
        // The blow does not fall if the troubles before it were too much already.
        if outcome.injected.contains(&outcome.plan.blow.name()) {
            *self.phases.entry(phase.to_owned()).or_default() += 1;
        }
        match outcome.ending {
            Ending::Failover => {
                self.failovers += 1;
                self.gaps.push(outcome.gap_ms);
                self.takeovers.push(outcome.takeover_ms);
            }
            Ending::Alone => self.alone += 1,
            Ending::Whole => self.whole += 1,
            Ending::Double => self.double += 1,
            Ending::Wrong => {}
        }
        self.counts.add(&outcome.counts);
        self.quiet.push(outcome.quiet_ms);
        self.quiet_ms = quantiles(&mut self.quiet);
        self.gap_ms = quantiles(&mut self.gaps);
        self.takeover_ms = quantiles(&mut self.takeovers);
        if let Some(kept) = kept {
            let faults = outcome.faults.clone();
            self.violations.push(Violation { round: outcome.plan.round, faults, kept });
        }
    }

    /// Prints it for people.
    pub fn print(&self) {
        let row = |name: &str, value: String| println!("  {name:<44} {value}");
        let times = |[p50, p99, max]: [f64; 3]| format!("{p50:.0} / {p99:.0} / {max:.0} ms");
        println!();
        row("seed", self.seed.to_string());
        row("hosts", if self.namespaces { "network namespaces" } else { "loopback (no link faults)" }.into());
        row("time", format!("{:.0} s", self.seconds));
        row("pairs started", self.rounds.to_string());
        row("guest instructions", format!("{:.1} billion", self.counts.instructions as f64 / 1e9));
        for (name, count) in &self.injected {
            let [gap, allowed] = self.longest_ms.get(name).copied().unwrap_or_default();
            row(&format!("  {name}"), format!("{count:<6} longest wait {gap:.0} of {allowed:.0} ms"));
        }
        for (name, count) in &self.phases {
            row(&format!("phase: {name}"), count.to_string());
        }
        row("failovers", self.failovers.to_string());
        row("primaries that went on alone", self.alone.to_string());
        row("pairs that bore it", self.whole.to_string());
        row("winners killed as well (not judged)", self.double.to_string());
        row("pairs that did not come up", self.not_begun.to_string());
        row("frames on the link, carried / lost", format!("{} / {}", self.frames[0], self.frames[1]));
        row("state digests compared equal", self.counts.digests.to_string());
        row("outputs checked", self.counts.checked.to_string());
        row("lost", self.counts.lost.to_string());
        row("contradicted", self.counts.contradicted.to_string());
        row("two at once", self.counts.two_at_once.to_string());
        row("undecided", self.counts.undecided.to_string());
        row("takeover, p50 / p99 / max", times(self.takeover_ms));
        row("longest wait before faults, p50 / p99 / max", times(self.quiet_ms));
        row("client gap at a failover, p50 / p99 / max", times(self.gap_ms));
        println!();
        for violation in &self.violations {
            let faults = violation.faults.join("; ");
            println!(
                "  VIOLATED in round {} (logs in {}): {faults}",
                violation.round,
                violation.kept.display()
            );
            println!("    again: pollux chaos --seed {} --round {}", self.seed, violation.round);
        }
        if self.violations.is_empty() {
            println!(
                "  PASSED: unbroken connections, nothing lost, nothing contradicted, never two at once, no wait beyond its bound."
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let mut values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!(quantiles(&mut values), [100.0, 198.0, 200.0]);
        assert_eq!(quantiles(&mut [7.0]), [7.0; 3]);
        assert_eq!(quantiles(&mut []), [0.0; 3]);
    }
}
