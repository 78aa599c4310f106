//! The project's own chores: `cargo xtask ci` is the whole loop, the other commands are its parts.
//!
//! Why a program and not scripts: it runs wherever the project builds, and its rules are tested like the rest.
//! Not here: anything that a user of Pollux needs.

mod ci;
mod guests;
mod mutants;
mod tidy;

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask COMMAND

  ci      format, clippy, tidy, guests and all tests: what must pass before a change lands
  tidy    the rules that no other tool checks: heads, sizes, unsafe, crate graph, words, wire format, dependencies
  guests  rebuild the guest programs and compare them with the committed ones
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
        ["ci"] => ci::run(&root),
        ["tidy"] => tidy::run(&root),
        ["guests"] => guests::run(&root),
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
