//! Explores the model: `cargo run --release -p pollux-sim --example model -- [--quick] [--threads N] [--at-most STATES] [NAME]...`
//!
//! Prints a line a deployment. Ends with 0 if all rules hold, with 10 and the steps if one is broken, with 1 if the
//! faults did not bite or the command makes no sense.

use pollux_sim::model::{CONFIGS, Config, Counterexample, REACHED, check};
use std::process::ExitCode;
use std::time::Instant;

/// A rule is broken.
const BROKEN: u8 = 10;

fn main() -> ExitCode {
    let (mut quick, mut threads, mut most, mut names) = (false, 1, None, Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => quick = true,
            "--threads" => match arguments.next().and_then(|n| n.parse().ok()) {
                Some(n) if n > 0 => threads = n,
                _ => return usage("--threads wants a number"),
            },
            "--at-most" => match arguments.next().and_then(|n| n.parse().ok()) {
                Some(n) => most = Some(n),
                None => return usage("--at-most wants a number"),
            },
            name if CONFIGS.iter().any(|config| config.name == name) => names.push(argument),
            other => return usage(&format!("there is no deployment {other:?}")),
        }
    }
    // A panic of the code that is checked is a finding, and is told as one.
    std::panic::set_hook(Box::new(|_| {}));
    let wanted = |config: &&Config| {
        names.contains(&config.name.to_string()) || names.is_empty() && (config.quick || !quick)
    };
    let mut total = 0;
    let mut missed = REACHED.to_vec();
    for config in CONFIGS.iter().filter(wanted) {
        let began = Instant::now();
        let outcome = check(config.start(), threads, most);
        total += outcome.states;
        println!(
            "{:10} {:>9} distinct states, {:>9} reached, at most {:>2} steps deep, {:>4} s: {}",
            config.name,
            outcome.states,
            outcome.reached,
            outcome.depth,
            began.elapsed().as_secs(),
            config.about
        );
        if let Some(found) = outcome.counterexample {
            tell(config, &found);
            return ExitCode::from(BROKEN);
        }
        missed.retain(|what| outcome.missed.contains(what));
    }
    println!("{total} distinct states, no rule broken");
    for what in &missed {
        println!("never: {what}");
    }
    if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn tell(config: &Config, found: &Counterexample) {
    println!("broken in {}, step {}: {}", config.name, found.steps.len(), found.property);
    println!("  {:?}", found.broken);
    for (index, step) in found.steps.iter().enumerate() {
        println!("  {:>2} {step:?}", index + 1);
    }
    if found.later {
        println!("     and then no more faults");
    }
}

fn usage(problem: &str) -> ExitCode {
    eprintln!("{problem}; usage: model [--quick] [--threads N] [--at-most STATES] [NAME]...");
    for config in &CONFIGS {
        eprintln!("  {:10} {}", config.name, config.about);
    }
    ExitCode::FAILURE
}
