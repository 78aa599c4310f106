//! `pollux`: the one binary. Thin: parses, calls, says how it went.
//!
//! Exit statuses are part of the interface; see [`exit`].

// In a binary nothing is reachable from outside; `pub` here means "for the other files".
#![allow(unreachable_pub)]

mod choices;
mod commands;
mod config;
mod engine;
mod exit;
mod files;
mod logs;
mod marks;
mod signals;
mod tenure;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Keeps an unmodified virtual machine running when the host under it dies.
#[derive(Parser, Debug)]
#[command(version, about, after_help = exit::HELP, max_term_width = 100)]
struct Cli {
    /// Say more (-v: debug, -vv: trace); POLLUX_LOG takes a tracing filter
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Start a VM, alone or protected by a backup
    Run(Box<commands::run::RunArgs>),
    /// Wait for a primary, replay it, take over when it dies
    Backup(commands::backup::BackupArgs),
    /// Run the user-space network switch with its gateway (DHCP, NAT, port forwards)
    Switch(commands::switch::SwitchArgs),
    /// Show the VMs that run on this host
    Status(commands::status::StatusArgs),
    /// Attach to a VM's console socket
    Console(commands::status::ConsoleArgs),
    /// End a VM, on both sides
    Stop(commands::status::StopArgs),
    /// Run a VM alone and write its log to a file
    Record(Box<commands::record::RecordArgs>),
    /// Replay a recording bit-exactly, checking its digests
    Replay(commands::replay::ReplayArgs),
    /// Build a Debian guest image
    Image(commands::image::ImageArgs),
    /// Log in to a guest, or run a command there, with the host's ssh
    Ssh(commands::ssh::SshArgs),
    /// Copy files to or from a guest, with the host's scp
    Cp(commands::ssh::CpArgs),
    /// See a real service survive `kill -9` of its primary
    Demo(pollux_lab::demo::DemoArgs),
    /// Time guest workloads on Pollux and on QEMU, side by side
    Bench(pollux_lab::bench::BenchArgs),
    /// Run whole deployments with faults in virtual time, each from a seed, and check what clients see
    Simulate(commands::simulate::SimulateArgs),
    /// Break real pairs of Debian with redis at random, and check what their clients see
    Chaos(pollux_lab::chaos::ChaosArgs),
    /// Inspect or reset who may run a VM
    Arbiter(commands::arbiter::ArbiterArgs),
}

fn main() -> ExitCode {
    commands::image_machine::end_with_parent();
    let cli = Cli::parse();
    let log = logs::Log::init(cli.verbose);
    let result = match cli.command {
        Command::Run(args) => commands::run::run(*args),
        Command::Backup(args) => commands::backup::run(args),
        Command::Switch(args) => commands::switch::run(args),
        Command::Status(args) => commands::status::status(&args),
        Command::Console(args) => commands::status::console(&args),
        Command::Stop(args) => commands::status::stop(&args),
        Command::Record(args) => commands::record::run(*args),
        Command::Replay(args) => commands::replay::run(&args),
        Command::Image(args) => commands::image::run(args),
        Command::Ssh(args) => commands::ssh::ssh(args),
        Command::Cp(args) => commands::ssh::cp(args),
        Command::Demo(args) => pollux_lab::demo::run(&args).map(exit::of_trial),
        Command::Bench(args) => pollux_lab::bench::run(&args).map(exit::of_trial),
        Command::Simulate(args) => commands::simulate::run(&args),
        Command::Chaos(args) => pollux_lab::chaos::run(&args).map(exit::of_trial),
        Command::Arbiter(args) => commands::arbiter::run(&args),
    };
    let code = match result {
        Ok(code) => code,
        Err(error) => {
            log.say(&format!("pollux: {error:#}"));
            exit::of_error(&error)
        }
    };
    log.close();
    ExitCode::from(code)
}
