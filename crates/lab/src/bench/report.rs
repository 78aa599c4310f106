//! The report: a table for the terminal and for Markdown, JSON, and the chart, all of the same results.

use super::guest::Guest;
use super::results::{Results, geometric_mean};
use super::system::{System, qemu_version};
use super::workload::BOOT;
use super::{Plan, chart};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// What a set of results amounts to.
pub struct Report {
    systems: Vec<System>,
    /// What the ratios are to: QEMU if it is there, else the first system.
    base: System,
    rows: Vec<Row>,
    /// Geometric means of the speeds over the workloads, by system.
    means: BTreeMap<System, f64>,
    about: Value,
    command: String,
    /// What went wrong.
    pub faults: Vec<String>,
}

/// One line of the table.
pub struct Row {
    /// The workload, or the boot.
    pub name: &'static str,
    what: &'static str,
    cells: BTreeMap<System, Cell>,
}

struct Cell {
    median_s: f64,
    runs_s: Vec<f64>,
    speed: Option<f64>,
}

impl Report {
    /// Reckons it up.
    pub fn new(plan: &Plan, guest: &Guest, results: &Results) -> Self {
        let systems = plan.systems.clone();
        let base = if systems.contains(&System::Qemu) { System::Qemu } else { systems[0] };
        let boot = (BOOT, "start of the process until init has brought the guest up");
        let lines = std::iter::once(boot).chain(plan.workloads.iter().map(|w| (w.name, w.what)));
        let rows: Vec<Row> = lines.map(|line| Row::new(line, &systems, base, results)).collect();
        let mut means = BTreeMap::new();
        for &system in &systems {
            let workloads = rows.iter().filter(|row| row.name != BOOT);
            let speeds: Vec<f64> = workloads.filter_map(|row| row.speed(system)).collect();
            if let Some(mean) = geometric_mean(&speeds) {
                means.insert(system, mean);
            }
        }
        let words = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
        let about = json!({
            "pollux": env!("CARGO_PKG_VERSION"),
            "qemu": qemu_version(),
            "host": host(),
            "load_before_1_5_15_min": results.load_before,
            "rounds": plan.rounds,
            "repeats": plan.repeats,
            "packages": guest.timed_packages(),
        });
        let faults = results.faults.clone();
        Self { systems, base, rows, means, about, command: format!("pollux {words}"), faults }
    }

    /// Writes `bench.json`, `bench.md` and `bench.svg`.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let svg = chart::draw(&self.chart());
        for (name, text) in [("bench.json", self.json()), ("bench.md", self.markdown()), ("bench.svg", svg)] {
            let path = folder.join(name);
            std::fs::write(&path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    /// All of it, for programs.
    pub fn json(&self) -> String {
        let by_key = |value: &dyn Fn(System) -> Option<Value>| -> Value {
            self.systems.iter().filter_map(|&s| Some((s.key(), value(s)?))).collect()
        };
        let row = |row: &Row| {
            json!({
                "name": row.name,
                "what": row.what,
                "median_s": by_key(&|s| Some(json!(row.cells.get(&s)?.median_s))),
                "runs_s": by_key(&|s| Some(json!(row.cells.get(&s)?.runs_s))),
                "speed": by_key(&|s| Some(json!(row.speed(s)?))),
            })
        };
        let value = json!({
            "command": self.command,
            "about": self.about,
            "speed_is_relative_to": self.base.key(),
            "rows": self.rows.iter().map(row).collect::<Vec<_>>(),
            "geometric_mean_of_speeds": by_key(&|s| Some(json!(self.means.get(&s)?))),
            "faults": self.faults,
        });
        serde_json::to_string_pretty(&value).unwrap_or_default()
    }

    /// The table in Markdown, aligned, so that it is one on the terminal as well.
    pub fn table(&self) -> String {
        let mut lines = vec![vec![format!("seconds (speed, {} = 1)", self.base.title())]];
        lines[0].extend(self.systems.iter().map(|s| s.title().to_owned()));
        for row in &self.rows {
            let cells = self.systems.iter().map(|s| row.cells.get(s).map_or("–".into(), Cell::text));
            lines.push([row.name.to_owned()].into_iter().chain(cells).collect());
        }
        let mean = |s: &System| self.means.get(s).map_or("–".into(), |mean| format!("({mean:.2})"));
        lines.push(["geometric mean".to_owned()].into_iter().chain(self.systems.iter().map(mean)).collect());
        let width = |column: usize| lines.iter().map(|l| l[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..=self.systems.len()).map(width).collect();
        let mut text = String::new();
        for (index, line) in lines.iter().enumerate() {
            for (column, cell) in line.iter().enumerate() {
                let pad = " ".repeat(widths[column] - cell.chars().count());
                text += &if column == 0 { format!("| {cell}{pad} ") } else { format!("| {pad}{cell} ") };
            }
            text += "|\n";
            if index == 0 {
                text += &format!("|{}|", "-".repeat(widths[0] + 2));
                text += &widths[1..].iter().map(|w| format!("{}:|", "-".repeat(w + 1))).collect::<String>();
                text += "\n";
            }
        }
        text
    }

    fn markdown(&self) -> String {
        let about = |key: &str| match &self.about[key] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let mut text = format!(
            "# Benchmark\n\n`{}`: {} rounds, each workload {} times in each after one run to warm up; medians of all runs. \
             The boot is not in the geometric mean.\n\nHost: {}; load before: {}. {}.\n\n{}\n![chart](bench.svg)\n\n| workload | what it does |\n|---|---|\n",
            self.command,
            about("rounds"),
            about("repeats"),
            about("host"),
            about("load_before_1_5_15_min"),
            about("qemu"),
            self.table()
        );
        for row in &self.rows {
            text += &format!("| {} | {} |\n", row.name, row.what);
        }
        for fault in &self.faults {
            text += &format!("\nFailed: {}\n", fault.replace('\n', " "));
        }
        text
    }

    fn chart(&self) -> chart::Chart {
        let speeds = |value: &dyn Fn(System) -> Option<f64>| self.systems.iter().map(|&s| value(s)).collect();
        let mut groups: Vec<_> =
            self.rows.iter().map(|row| (row.name.to_owned(), speeds(&|s| row.speed(s)))).collect();
        groups.push(("geometric mean".into(), speeds(&|s| self.means.get(&s).copied())));
        chart::Chart {
            title: format!("Speed relative to {} (log scale; longer is faster)", self.base.title()),
            series: self.systems.iter().map(|s| s.title().to_owned()).collect(),
            groups,
        }
    }
}

impl Row {
    fn new(
        (name, what): (&'static str, &'static str),
        systems: &[System],
        base: System,
        results: &Results,
    ) -> Self {
        let cell = |&system: &System| {
            let median_s = results.median(name, system)?;
            let runs_s = results.runs(name, system).to_vec();
            Some((system, Cell { median_s, runs_s, speed: results.speed(name, system, base) }))
        };
        Self { name, what, cells: systems.iter().filter_map(cell).collect() }
    }

    fn speed(&self, system: System) -> Option<f64> {
        self.cells.get(&system)?.speed
    }
}

impl Cell {
    fn text(&self) -> String {
        let speed = self.speed.map_or(String::new(), |speed| format!(" ({speed:.2})"));
        format!("{:.3}{speed}", self.median_s)
    }
}

/// The processor and how many of it there are.
fn host() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{cores} cores of {}", model.map_or("an unknown kind", |(_, name)| name.trim()))
}

#[cfg(test)]
mod tests {
    use super::super::console::Pass;
    use super::super::workload;
    use super::*;
    use std::time::Duration;

    fn report(qemu: bool) -> Report {
        let mut systems = vec![System::Pollux, System::Protected];
        let mut results = Results::default();
        let pass = |seconds: f64| Pass {
            boot_s: Some(seconds),
            times_s: [("fork".into(), vec![seconds, seconds]), ("gcc".into(), vec![4.0 * seconds])].into(),
            ..Pass::default()
        };
        results.add(System::Pollux, pass(0.5));
        results.add(System::Protected, pass(1.0));
        if qemu {
            systems.push(System::Qemu);
            results.add(System::Qemu, pass(2.0));
        }
        results.fault("QEMU, round 1: it said\n<nothing> & went".into());
        let workloads = workload::chosen(&["fork".into(), "gcc".into(), "redis".into()]).expect("known");
        let plan = Plan { systems, workloads, rounds: 1, repeats: 2, patience: Duration::ZERO };
        Report::new(&plan, &Guest::default(), &results)
    }

    #[test]
    fn ratios_are_to_qemu_or_to_the_first_system_without_it() {
        let with: Value = serde_json::from_str(&report(true).json()).expect("JSON");
        assert_eq!(with["speed_is_relative_to"], "qemu");
        assert_eq!(with["rows"][1]["speed"]["pollux"], 4.0);
        assert_eq!(with["rows"][1]["runs_s"]["qemu"], json!([2.0, 2.0]));
        assert!((with["geometric_mean_of_speeds"]["protected"].as_f64().expect("there") - 2.0).abs() < 1e-9);
        let without: Value = serde_json::from_str(&report(false).json()).expect("JSON");
        assert_eq!(without["speed_is_relative_to"], "pollux");
        assert_eq!(without["rows"][1]["speed"]["protected"], 0.5);
    }

    #[test]
    fn the_table_is_aligned_and_what_is_missing_is_a_dash() {
        let table = report(true).table();
        let widths: Vec<usize> = table.lines().map(|line| line.chars().count()).collect();
        assert!(widths.iter().all(|&width| width == widths[0]), "{table}");
        assert!(table.lines().any(|l| l.starts_with("| redis") && l.contains('–')), "{table}");
        assert!(table.lines().any(|l| l.starts_with("| gcc") && l.contains("2.000 (4.00)")), "{table}");
    }

    #[test]
    fn all_three_files_are_written_and_a_fault_is_in_them() {
        let folder = tempfile::tempdir().expect("a folder");
        report(true).write(folder.path()).expect("room");
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect("there");
        assert!(read("bench.json").contains("round 1"));
        assert!(read("bench.md").contains("Failed: QEMU, round 1: it said <nothing>"));
        assert!(read("bench.svg").starts_with("<svg"));
    }
}
