//! `pollux demo`: the main job, on one machine, to be seen.
//!
//! Starts switch, backup and primary as processes of their own, talks to the service in the guest from outside
//! through *one* TCP connection, kills the primary with SIGKILL, goes on through the same connection, and then
//! judges the history that the clients saw. Exit status 0 only if that history is right.

mod clients;
mod fleet;
mod history;
mod redis;
mod table;
mod tiny;

use crate::guest_files::{GuestFiles, GuestSource};
use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use fleet::Fleet;
use history::Verdict;
use std::time::{Duration, Instant};

#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// The guest: Debian with redis, or the small program that comes with Pollux (needs no download)
    #[arg(long, value_enum, default_value = "debian")]
    pub guest: Guest,
    /// Seconds of traffic before the primary is killed, and as many after
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// Harts of the guest
    #[arg(long, default_value_t = 1)]
    pub harts: u32,
    /// What executes the guest's instructions, on both sides [default: jit on x86-64 Linux, else interpreter]
    #[arg(long, value_parser = ["interpreter", "jit"], env = "POLLUX_ENGINE")]
    pub engine: Option<String>,
    #[command(flatten)]
    pub source: GuestSource,
    /// Print the result as JSON as well
    #[arg(long)]
    pub json: bool,
    /// Keep the working folder (logs of every process, disks)
    #[arg(long)]
    pub keep: bool,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Guest {
    /// Debian 13 riscv64, its own kernel, its own redis-server
    Debian,
    /// The embedded guest: a counter over UDP, blocks on a disk
    Tiny,
}

pub fn run(args: &DemoArgs) -> Result<bool> {
    ensure!((0.5..=3600.0).contains(&args.seconds), "--seconds must be 0.5 to 3600");
    args.source.patience()?;
    let guest = match args.guest {
        Guest::Debian => GuestFiles::debian(&args.source, say)?,
        Guest::Tiny => GuestFiles::tiny(),
    };
    let fleet = Fleet::start(args, &guest)?;
    let result = story(args, &fleet);
    if result.is_err() || args.keep {
        let folder = fleet.keep();
        eprintln!("the logs of all processes are in {}", folder.display());
    }
    let verdict = result?;
    table::print(&verdict);
    if args.json {
        println!("{}", serde_json::to_string(&verdict)?);
    }
    Ok(verdict.faults.is_empty())
}

fn story(args: &DemoArgs, fleet: &Fleet) -> Result<Verdict> {
    let half = Duration::from_secs_f64(args.seconds);
    say(&format!(
        "booting the guest under a primary (pid {}) and a backup (pid {})",
        fleet.primary_pid(),
        fleet.backup_pid()
    ));
    let patience = args.source.patience()?;
    let boot = match args.guest {
        Guest::Debian => redis::wait_ready(fleet, patience),
        Guest::Tiny => tiny::wait_ready(fleet, patience),
    }
    .context("the guest does not answer")?;
    say(&format!("the service answers after {:.1} s; clients are at work", boot.as_secs_f64()));
    let clients = match args.guest {
        Guest::Debian => redis::start(fleet.service())?,
        Guest::Tiny => tiny::start(fleet.service())?,
    };
    let begun = Instant::now();
    while begun.elapsed() < half {
        std::thread::sleep(Duration::from_millis(100));
        clients.check_alive()?;
    }
    let before = fleet.primary_status().context("the primary does not say how it is")?;
    let killed_ns = fleet.kill_primary()?;
    say(&format!("kill -9 {}: the primary is dead", fleet.primary_pid()));
    let killed = Instant::now();
    while killed.elapsed() < half {
        std::thread::sleep(Duration::from_millis(100));
    }
    let after = fleet.backup_status().context("the backup does not say how it is")?;
    say("stopping the clients and reading everything back");
    let verdict = clients.finish(boot, killed_ns)?;
    Ok(verdict.with_status(&before, &after, killed_ns))
}

fn say(text: &str) {
    eprintln!("demo: {text}");
}
