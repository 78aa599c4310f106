//! `pollux simulate`: the simulator (`pollux-sim`) at the command line. One seed with its timeline, or many without.
//!
//! The wall clock is read here only, to say how fast it went and when a soak is over; no run depends on it.

use crate::exit;
use anyhow::Result;
use clap::{Args, ValueEnum};
use pollux_sim::{MachineKind, Plan, Prepared, Totals, many, run as simulate, shrink};
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
    /// With a third host: the VM is ended on whichever side it runs, and then started there
    #[arg(long)]
    spare: bool,
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

pub fn run(args: &SimulateArgs) -> Result<u8> {
    let prepared = Prepared::boot();
    // A panic of the code under test is a violation, and told as one.
    std::panic::set_hook(Box::new(|_| {}));
    let failed = match args.seed {
        Some(seed) => one(args, seed, &prepared),
        None => several(args, &prepared),
    };
    Ok(if failed { exit::FAILED } else { 0 })
}

impl SimulateArgs {
    fn machine(&self) -> Option<MachineKind> {
        self.machine.map(|machine| match machine {
            Machine::Model => MachineKind::Model,
            Machine::Guest => MachineKind::Guest,
        })
    }

    /// What a seed means.
    fn plan(&self, seed: u64) -> Plan {
        let draw = if self.spare { Plan::draw_with_spare } else { Plan::draw };
        draw(seed, self.machine())
    }

    /// What else must be said to get the same runs.
    fn flags(&self) -> String {
        let machine = match self.machine {
            None => "",
            Some(Machine::Model) => " --machine model",
            Some(Machine::Guest) => " --machine guest",
        };
        format!("{}{machine}", if self.spare { " --spare" } else { "" })
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

fn several(args: &SimulateArgs, prepared: &Prepared) -> bool {
    let begun = Instant::now();
    let patience = args.hours.map(|hours| Duration::from_secs_f64(hours.max(0.0) * 3600.0));
    let next = |totals: &Totals, _| {
        let over = match patience {
            Some(patience) => begun.elapsed() >= patience,
            None => totals.runs >= args.seeds,
        };
        !over && (!args.first || totals.failed.is_empty())
    };
    let totals = many(
        args.from,
        |seed| args.plan(seed),
        prepared,
        next,
        |plan, report| {
            if let Some(violation) = &report.violation {
                println!("seed {} FAILS: {}: {}", plan.seed, violation.property, violation.what);
                println!("  replay: pollux simulate --seed {}{}", plan.seed, args.flags());
                print_smallest(args, plan, prepared);
            }
        },
    );
    print!("{}", totals.describe(args.from, begun.elapsed()));
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
