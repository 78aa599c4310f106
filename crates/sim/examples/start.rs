//! Explores the start and the end of a pair: `cargo run --release -p pollux-sim --example start -- [NAME]...`
//!
//! Prints a line a deployment. Ends with 0 if all rules hold, with 10 and the steps if one is broken, with 1 if the
//! faults did not bite or the command makes no sense.

use pollux_sim::model::start::{CONFIGS, REACHED, check};
use std::process::ExitCode;
use std::time::Instant;

/// A rule is broken.
const BROKEN: u8 = 10;

fn main() -> ExitCode {
    let names: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = names.iter().find(|name| CONFIGS.iter().all(|config| config.name != **name)) {
        eprintln!("there is no deployment {unknown:?}");
        return ExitCode::FAILURE;
    }
    // A panic of the code that is checked is a finding, and is told as one.
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = REACHED.to_vec();
    for config in CONFIGS.iter().filter(|config| names.is_empty() || names.iter().any(|n| n == config.name)) {
        let began = Instant::now();
        let outcome = check(config.start());
        let (name, states) = (config.name, outcome.states);
        println!(
            "{name:12} {states:>9} distinct states, {:>4} s: {}",
            began.elapsed().as_secs(),
            config.about
        );
        if let Some((broken, steps)) = outcome.broken {
            println!("broken in {name}, step {}: {broken:?}", steps.len());
            steps.iter().enumerate().for_each(|(index, step)| println!("  {:>2} {step:?}", index + 1));
            return ExitCode::from(BROKEN);
        }
        missed.retain(|what| outcome.missed.contains(what));
    }
    missed.iter().for_each(|what| println!("never: {what}"));
    if missed.is_empty() || !names.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
