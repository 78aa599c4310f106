//! `pollux bench`: a fixed set of guest workloads on Pollux and on QEMU, timed side by side.
//!
//! ```text
//!   round ─► for each system: one boot ─► each workload: once to warm up, then --repeats times, timed by the host
//!   all rounds ─► medians ─► ratios to QEMU ─► table, bench.json, bench.md, bench.svg
//! ```
//!
//! Systems take turns in every round, so that what else happens on the host meets all of them alike. The host times
//! what lies between two marker lines on the guest's console: a guest's clock need not be the host's.
//! Not here: what the numbers mean (`docs/performance.md`).

mod chart;
mod console;
mod guest;
mod native;
mod report;
mod results;
mod system;
mod workload;

use anyhow::{Context, Result, ensure};
use clap::Args;
use results::Results;
use std::path::PathBuf;
use std::time::Duration;
use system::System;
use workload::Workload;

#[derive(Args, Clone, Debug)]
#[command(after_help = workload::HELP.as_str())]
pub struct BenchArgs {
    /// How often every system is booted; the systems take turns
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Timed runs of each workload in a boot, after one to warm up
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repeats: u32,
    /// Only these workloads [default: all]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Only these systems [default: pollux, protected, and qemu, icount, record and native where they are there]
    #[arg(long, value_enum, value_name = "NAME,...", value_delimiter = ',')]
    pub engines: Vec<System>,
    /// The slow ones as well: the interpreter
    #[arg(long, conflicts_with = "engines")]
    pub all: bool,
    /// Where bench.json, bench.md and bench.svg are written
    #[arg(long, value_name = "FOLDER", default_value = "bench-results")]
    pub out: PathBuf,
    /// Print the results as JSON instead of the table
    #[arg(long)]
    pub json: bool,
    /// Where images are kept [default: the user's cache folder]
    #[arg(long, value_name = "FOLDER")]
    pub cache: Option<PathBuf>,
    /// Build no Debian guest: boot this kernel with Pollux's own programs alone (no Debian packages are timed)
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// A Debian mirror, for hosts whose apt has no Debian source
    #[arg(long, value_name = "URI")]
    pub mirror: Option<String>,
    /// The keyring that the mirror's signatures are checked with
    #[arg(long, value_name = "FILE")]
    pub keyring: Option<PathBuf>,
    /// Seconds in which a boot, or one run of a workload, must end
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    pub patience: u64,
}

/// What is run: on which systems, which workloads, how often.
pub struct Plan {
    systems: Vec<System>,
    workloads: Vec<&'static Workload>,
    rounds: u32,
    repeats: u32,
    patience: Duration,
}

impl Plan {
    fn new(args: &BenchArgs) -> Result<Self> {
        let mut workloads = workload::chosen(&args.only)?;
        let systems = system::chosen(&args.engines, args.all)?;
        if args.kernel.is_some() || systems == [System::Native] {
            workloads.retain(|w| w.is_ours());
            ensure!(!workloads.is_empty(), "there, only Pollux's own workloads can be run, such as integer");
        }
        Ok(Self {
            systems,
            workloads,
            rounds: args.rounds,
            repeats: args.repeats,
            patience: Duration::from_secs(args.patience),
        })
    }
}

pub fn run(args: &BenchArgs) -> Result<bool> {
    let plan = Plan::new(args)?;
    std::fs::create_dir_all(&args.out)
        .with_context(|| format!("cannot make the folder {}", args.out.display()))?;
    let guest = guest::Guest::find(args, &plan)?;
    let mut results = Results::new(load());
    for round in 1..=plan.rounds {
        for &system in &plan.systems {
            say(&format!("round {round} of {}: {}", plan.rounds, system.title()));
            match system.measure(&guest, &plan) {
                Ok(pass) => results.add(system, pass),
                Err(error) => results.fault(format!("{}, round {round}: {error:#}", system.title())),
            }
        }
    }
    let report = report::Report::new(&plan, &guest, &results);
    report.write(&args.out)?;
    if args.json {
        println!("{}", report.json());
    } else {
        println!("{}", report.table());
    }
    say(&format!("bench.json, bench.md and bench.svg are in {}", args.out.display()));
    for fault in &report.faults {
        eprintln!("bench: FAILED: {fault}");
    }
    Ok(report.faults.is_empty())
}

/// How busy the host is.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

fn say(text: &str) {
    eprintln!("bench: {text}");
}
