//! `cargo xtask ci`: every check, in the order of what fails fastest. Stops at the first that fails, and says
//! which command repeats it.

use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// Cargo's arguments, step by step; tidy comes between the lints and the tests.
const LINTS: [&[&str]; 2] =
    [&["fmt", "--all", "--check"], &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]];
const TESTS: [&[&str]; 1] = [&["test", "--workspace"]];

/// Runs all of it.
pub(crate) fn run(root: &Path) -> Result<()> {
    for step in LINTS {
        cargo(root, step)?;
    }
    crate::tidy::run(root)?;
    crate::guests::run(root)?;
    for step in TESTS {
        cargo(root, step)?;
    }
    println!("ci: all good");
    Ok(())
}

fn cargo(root: &Path, arguments: &[&str]) -> Result<()> {
    let shown = format!("cargo {}", arguments.join(" "));
    println!("ci: {shown}");
    let started = Instant::now();
    let status =
        cargo_command(root).args(arguments).status().with_context(|| format!("cannot run {shown}"))?;
    ensure!(status.success(), "ci: `{shown}` failed");
    println!("ci: {shown}: {} s", started.elapsed().as_secs());
    Ok(())
}

/// The cargo that runs this program, in the workspace.
pub(crate) fn cargo_command(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}
