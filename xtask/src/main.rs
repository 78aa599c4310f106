//! The project's own chores: `cargo xtask ci` is the whole loop, the other commands are its parts.
//!
//! Why a program and not scripts: it runs wherever the project builds, and its rules are tested like the rest.
//! Not here: anything that a user of Pollux needs.

mod ci;
mod guests;
mod mutants;
mod pure;
mod tidy;

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask COMMAND

  ci [full] [--from STEP] | ci --list
          format, clippy, tidy, guests, pure and all tests: what must pass before a commit; `full` is all of `.ci/run`
  tidy    the rules that no other tool checks: heads, sizes, unsafe, crate graph, words, wire format, dependencies
  guests  rebuild the guest programs and compare them with the committed ones
  pure    compile the pure crates where there is no standard library
  mutants [NAME]...
          take one rule of the protocol out at a time, in a copy, and see that the model check notices";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let root = root()?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["ci", "--list"] => {
            ci::list();
            Ok(())
        }
        ["ci"] => ci::run(&root, false, None),
        ["ci", "--from", step] => ci::run(&root, false, Some(step)),
        ["ci", "full"] => ci::run(&root, true, None),
        ["ci", "full", "--from", step] => ci::run(&root, true, Some(step)),
        ["tidy"] => tidy::run(&root),
        ["guests"] => guests::run(&root),
        ["pure"] => pure::run(&root),
        ["mutants", ref names @ ..] => mutants::run(&root, names),
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => bail!("{USAGE}"),
    }
}

/// The workspace's folder: this crate's parent.
fn root() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(here.parent().context("xtask lies in the workspace")?.to_owned())
}
