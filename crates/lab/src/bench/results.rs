//! All passes together: medians, ratios, and whether the systems agree.

use super::console::Pass;
use super::system::System;
use super::workload::BOOT;
use std::collections::BTreeMap;

/// What was measured.
#[derive(Debug, Default)]
pub struct Results {
    /// Seconds of each run, by row and system.
    samples: BTreeMap<(String, System), Vec<f64>>,
    /// The first answer to each workload, and whose it was.
    answers: BTreeMap<String, (System, String)>,
    /// What went wrong.
    pub faults: Vec<String>,
    /// What `/proc/loadavg` said before the first run: one, five and fifteen minutes.
    pub load_before: String,
}

impl Results {
    /// Nothing measured yet, on a host with this load.
    pub fn new(load_before: String) -> Self {
        Self { load_before, ..Self::default() }
    }

    /// Adds one boot.
    pub fn add(&mut self, system: System, pass: Pass) {
        if let Some(boot_s) = pass.boot_s {
            self.samples.entry((BOOT.into(), system)).or_default().push(boot_s);
        }
        for (name, times) in pass.times_s {
            self.samples.entry((name, system)).or_default().extend(times);
        }
        for (name, answer) in pass.answers {
            let (first, expected) =
                self.answers.entry(name.clone()).or_insert_with(|| (system, answer.clone()));
            if *expected != answer {
                let (a, b) = (first.title(), system.title());
                self.faults.push(format!("{name}: {a} says {expected:?}, {b} says {answer:?}"));
            }
        }
        self.faults.extend(pass.faults.into_iter().map(|fault| format!("{}: {fault}", system.title())));
    }

    /// Adds something that went wrong.
    pub fn fault(&mut self, what: String) {
        super::say(&what);
        self.faults.push(what);
    }

    /// The seconds of every run.
    pub fn runs(&self, row: &str, system: System) -> &[f64] {
        self.samples.get(&(row.to_owned(), system)).map_or(&[], Vec::as_slice)
    }

    /// The median of the seconds.
    pub fn median(&self, row: &str, system: System) -> Option<f64> {
        median(self.runs(row, system))
    }

    /// How many times as fast as `base` the system is; above one it is the faster.
    pub fn speed(&self, row: &str, system: System, base: System) -> Option<f64> {
        Some(self.median(row, base)? / self.median(row, system)?)
    }
}

/// The middle value, or the mean of the two in the middle.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted.get(sorted.len().checked_sub(1)? / 2)?, sorted.get(sorted.len() / 2)?);
    Some((low + high) / 2.0)
}

/// The geometric mean: that of ratios, whichever way they are turned.
pub fn geometric_mean(values: &[f64]) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    Some((values.iter().map(|v| v.ln()).sum::<f64>() / values.len() as f64).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(boot_s: f64, name: &str, times: &[f64], answer: &str) -> Pass {
        Pass {
            boot_s: Some(boot_s),
            times_s: [(name.into(), times.to_vec())].into(),
            answers: [(name.into(), answer.into())].into(),
            faults: Vec::new(),
        }
    }

    #[test]
    fn medians_are_of_all_runs_of_all_rounds() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 9.0]), Some(3.0));
        let mut results = Results::default();
        results.add(System::Qemu, pass(3.0, "fork", &[1.0, 8.0], "x"));
        results.add(System::Qemu, pass(5.0, "fork", &[2.0], "x"));
        results.add(System::Pollux, pass(2.0, "fork", &[4.0], "x"));
        assert_eq!(results.median("fork", System::Qemu), Some(2.0));
        assert_eq!(results.median(BOOT, System::Qemu), Some(4.0));
        assert_eq!(results.speed("fork", System::Pollux, System::Qemu), Some(0.5));
        assert_eq!(results.speed(BOOT, System::Pollux, System::Qemu), Some(2.0));
        assert_eq!(results.speed("fork", System::Native, System::Qemu), None);
        assert!(results.faults.is_empty());
    }

    #[test]
    fn the_mean_of_a_ratio_and_its_inverse_is_one() {
        assert_eq!(geometric_mean(&[]), None);
        let mean = geometric_mean(&[4.0, 0.25]).expect("two");
        assert!((mean - 1.0).abs() < 1e-12);
    }

    #[test]
    fn systems_that_answer_differently_are_a_fault() {
        let mut results = Results::default();
        results.add(System::Qemu, pass(1.0, "gcc", &[1.0], "123"));
        results.add(System::Pollux, pass(1.0, "gcc", &[1.0], "124"));
        assert_eq!(results.faults.len(), 1);
        assert!(results.faults[0].contains("QEMU") && results.faults[0].contains("Pollux"));
    }
}
