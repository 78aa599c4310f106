//! `pollux simulate`: the simulator (`pollux-sim`) at the command line. One seed with its timeline, or many without.
//!
//! The wall clock is read here only, to say how fast it went and when a soak is over; no run depends on it.

use crate::exit;
use anyhow::Result;
use clap::{Args, ValueEnum};
use pollux_sim::{MachineKind, Plan, Prepared, Report, run as simulate, shrink};
use std::time::{Duration, Instant};

#[derive(Args, Debug)]
pub struct SimulateArgs {
    /// Run this seed and print its timeline; the same seed is the same run, to the byte
    #[arg(long, conflicts_with_all = ["seeds", "hours"])]
    seed: Option<u64>,
    /// With --seed: only these faults of its schedule, by number, e.g. 0,3; none: ''
    #[arg(long, requires = "seed", value_name = "NUMBERS")]
    only: Option<String>,
    /// Run so many seeds, and print those that fail
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Run seed after seed for so long instead
    #[arg(long, conflicts_with = "seeds")]
    hours: Option<f64>,
    /// The machine in every run [default: the seed says; one in eight is the real one]
    #[arg(long, value_enum)]
    machine: Option<Machine>,
    /// End at the first seed that fails
    #[arg(long)]
    first: bool,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Machine {
    /// A model of a machine: fast, and every output is a hash of every event
    Model,
    /// The real one, with the embedded guest
    Guest,
}

/// What many runs came to.
#[derive(Default)]
struct Totals {
    runs: u64,
    with_guest: u64,
    failed: Vec<u64>,
    faults: u64,
    takeovers: [u64; 2],
    outputs: u64,
    late: u64,
    operations: u64,
    undecided: u64,
    digests: u64,
    steps: u64,
    longest_ns: u64,
}

pub fn run(args: &SimulateArgs) -> Result<u8> {
    let prepared = Prepared::boot();
    // A panic of the code under test is a violation, and told as one.
    std::panic::set_hook(Box::new(|_| {}));
    let failed = match args.seed {
        Some(seed) => one(args, seed, &prepared),
        None => many(args, &prepared),
    };
    Ok(if failed { exit::FAILED } else { 0 })
}

impl SimulateArgs {
    fn plan(&self, seed: u64) -> Plan {
        let kind = self.machine.map(|machine| match machine {
            Machine::Model => MachineKind::Model,
            Machine::Guest => MachineKind::Guest,
        });
        Plan::draw(seed, kind)
    }

    /// What else must be said to get the same runs.
    fn flags(&self) -> &'static str {
        match self.machine {
            None => "",
            Some(Machine::Model) => " --machine model",
            Some(Machine::Guest) => " --machine guest",
        }
    }
}

fn one(args: &SimulateArgs, seed: u64, prepared: &Prepared) -> bool {
    let mut plan = args.plan(seed);
    if let Some(only) = &args.only {
        let numbers: Vec<usize> = only.split(',').filter_map(|word| word.trim().parse().ok()).collect();
        plan = plan.only(&numbers);
    }
    let report = simulate(&plan, prepared, true);
    print!("{plan}{}", report.timeline);
    if report.violation.is_some() && args.only.is_none() {
        print_smallest(args, &plan, prepared);
    }
    report.violation.is_some()
}

fn many(args: &SimulateArgs, prepared: &Prepared) -> bool {
    let begun = Instant::now();
    let patience = args.hours.map(|hours| Duration::from_secs_f64(hours.max(0.0) * 3600.0));
    let mut totals = Totals::default();
    let mut seed = args.from;
    loop {
        let over = match patience {
            Some(patience) => begun.elapsed() >= patience,
            None => totals.runs >= args.seeds,
        };
        if over || args.first && !totals.failed.is_empty() {
            break;
        }
        let plan = args.plan(seed);
        let report = simulate(&plan, prepared, false);
        totals.count(&plan, &report);
        if let Some(violation) = &report.violation {
            println!("seed {seed} FAILS: {}: {}", violation.property, violation.what);
            println!("  replay: pollux simulate --seed {seed}{}", args.flags());
            print_smallest(args, &plan, prepared);
        }
        seed = seed.wrapping_add(1);
    }
    totals.print(args.from, begun.elapsed());
    !totals.failed.is_empty()
}

fn print_smallest(args: &SimulateArgs, plan: &Plan, prepared: &Prepared) {
    let kept = shrink(plan, prepared);
    let smallest = plan.only(&kept);
    let numbers = kept.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    println!("  fails with {} of {} faults:", kept.len(), plan.faults.len());
    for fault in &smallest.faults {
        println!("    {fault}");
    }
    println!("  replay: pollux simulate --seed {} --only '{numbers}'{}", plan.seed, args.flags());
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
        self.takeovers[0] += stats.takeovers[0];
        self.takeovers[1] += stats.takeovers[1];
        self.outputs += stats.outputs;
        self.late += stats.late;
        self.operations += stats.operations;
        self.undecided += stats.undecided;
        self.digests += stats.digests;
        self.steps += stats.steps;
        self.longest_ns = self.longest_ns.max(stats.longest_ns);
    }

    fn print(&self, from: u64, took: Duration) {
        let last = from.wrapping_add(self.runs.saturating_sub(1));
        let seconds = took.as_secs_f64();
        println!(
            "seeds {from} to {last}: {} failed, {:.1} s, {:.0} seeds a second, {} with the real machine",
            self.failed.len(),
            seconds,
            self.runs as f64 / seconds.max(1e-9),
            self.with_guest
        );
        println!(
            "  {} faults; {} failovers, {} primaries that went on alone; {} outputs ({} of them late copies), {} operations judged ({} registers undecided), {} digests compared; {:.1} million steps; longest wait of a client {:.0} ms",
            self.faults,
            self.takeovers[1],
            self.takeovers[0],
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
            println!("  failed: {}", seeds.join(" "));
        }
    }
}
