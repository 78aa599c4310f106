//! The simulator as a judge of mutants: `cargo run --release -p pollux-sim --example seeds -- [--spare] [SEEDS]`
//!
//! Runs the seeds 1 to SEEDS (1000 if not given) as `pollux simulate --first --seeds SEEDS` does, without what `pollux`
//! needs besides. Ends with 0 if none fails; with 10, and a line that begins with "broken", at the first that does.
//! `--spare`: with a third host, on which the VM is started once it has ended.
//! A seed that makes no progress has failed: a rule that is gone may leave a loop without its end.

use pollux_sim::{Plan, Prepared, many};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A property is broken.
const BROKEN: u8 = 10;
/// A seed takes milliseconds; one that takes so long on the slowest of hosts does not end.
const SEED_S_MAX: u64 = 60;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).peekable();
    let spare = arguments.next_if(|word| word == "--spare").is_some();
    let draw = if spare { Plan::draw_with_spare } else { Plan::draw };
    let seeds = arguments.next().map_or(Ok(1000), |n| n.parse::<u64>());
    let (Ok(seeds), None) = (seeds, arguments.next()) else {
        eprintln!("usage: seeds [--spare] [SEEDS]");
        return ExitCode::FAILURE;
    };
    let prepared = Prepared::boot();
    // A panic of the code under test is a violation, and told as one.
    std::panic::set_hook(Box::new(|_| {}));
    std::thread::spawn(watch);
    let began = Instant::now();
    let totals = many(
        1,
        |seed| draw(seed, None),
        &prepared,
        |totals, seed| {
            AT.store(seed, Ordering::Relaxed);
            totals.runs < seeds && totals.failed.is_empty()
        },
        |plan, report| {
            if let Some(violation) = &report.violation {
                println!("broken in seed {}: {}: {}", plan.seed, violation.property, violation.what);
            }
        },
    );
    print!("{}", totals.describe(1, began.elapsed()));
    if totals.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(BROKEN) }
}

/// The seed that is run.
static AT: AtomicU64 = AtomicU64::new(0);

/// Ends the process if one seed never ends.
fn watch() {
    let (mut seed, mut seconds) = (0, 0);
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let at = AT.load(Ordering::Relaxed);
        seconds = if at == seed { seconds + 1 } else { 0 };
        seed = at;
        if seconds >= SEED_S_MAX {
            println!("broken in seed {seed}: time goes on: no end after {SEED_S_MAX} s");
            std::process::exit(BROKEN.into());
        }
    }
}
