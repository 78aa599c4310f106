//! Random programs, interpreted and translated, are the same machine at random stops, to the bit and to the step.
//!
//! `POLLUX_JIT_SEEDS=N` runs N seeds of each kind, `POLLUX_JIT_SEED=S` only that one; `POLLUX_JIT_STEPS` says for how
//! many steps; with `POLLUX_JIT_COLD=1` no interpreter remembers anything from one step to the next.

// Elsewhere there is no JIT to hold against the interpreter.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod fuzz;

use fuzz::boot::World;
use fuzz::duel::{Plan, Tally, duel};

/// Steps of one seed.
const STEPS: u64 = 30_000;
/// Seeds of each kind.
const SEEDS: u64 = 160;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

fn run(world: World, harts: u32) {
    let seeds = match number("POLLUX_JIT_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("POLLUX_JIT_SEEDS").unwrap_or(SEEDS),
    };
    let cold = number("POLLUX_JIT_COLD").is_some_and(|cold| cold != 0);
    let plan = Plan { world, harts, steps: number("POLLUX_JIT_STEPS").unwrap_or(STEPS), cold };
    let mut tally = Tally::default();
    for seed in seeds {
        match duel(seed, plan) {
            Ok(more) => tally.add(&more),
            Err(report) => {
                panic!(
                    "{report}\nAgain: POLLUX_JIT_SEED={seed} POLLUX_JIT_COLD={} cargo test -p pollux-jit --test random",
                    u64::from(cold)
                )
            }
        }
    }
    println!("{plan:?}: {tally:?}");
}

#[test]
fn machine_mode_is_the_same_translated() {
    run(World::Machine, 1);
}

#[test]
fn supervisor_mode_is_the_same_translated() {
    run(World::Supervisor, 1);
}

#[test]
fn user_mode_is_the_same_translated() {
    run(World::User, 1);
}

#[test]
fn three_harts_on_shared_memory_are_the_same_translated() {
    run(World::Machine, 3);
}

#[test]
fn three_harts_with_page_tables_are_the_same_translated() {
    run(World::Supervisor, 3);
}
