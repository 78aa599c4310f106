//! `cargo xtask mutants`: takes one rule of the protocol out at a time, and demands that the judges notice.
//!
//! The workspace is copied into the target folder, so that the shipped text needs no switches for its own destruction.
//! In the copy one piece of text is replaced, the judge is built (that must succeed: a mutant that does not compile
//! proves nothing) and run, and must end with the exit status that says "a rule is broken". The copy as it is, without a
//! mutant, must satisfy the judge.
//!
//! The mutants are two tables, each with its judges (`table`; `start` for the start and the end of a pair). Not here: what the judges look for (`crates/sim`).

mod start;
mod table;

use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;
use table::{JUDGES, Judge, MUTANTS, Mutant};

/// What a mutant is made from: sources and whatever cargo wants to see beside them.
const COPIED: [&str; 7] = ["Cargo.toml", "Cargo.lock", ".cargo", "crates", "guests", "tests", "xtask"];

/// Tries the mutants that are named, or all, on the judges that are named, or all.
pub(crate) fn run(root: &Path, names: &[&str]) -> Result<()> {
    for name in names {
        let is_known = |(mutants, judges): &Group| {
            mutants.iter().any(|m| m.name == *name) || judges.iter().any(|j| j.name == *name)
        };
        ensure!(GROUPS.iter().any(is_known), "mutants: there is no mutant and no judge called {name}");
    }
    let scratch = Scratch::make(root)?;
    for group in GROUPS.iter().filter(|group| names.is_empty() || is_named(group, names)) {
        run_group(&scratch, group, names)?;
    }
    Ok(())
}

/// Mutants, and the judges that must each find every one of them.
type Group = (&'static [Mutant], &'static [Judge]);

const GROUPS: [Group; 2] = [(&MUTANTS, &JUDGES), (&start::MUTANTS, &start::JUDGES)];

fn is_named((mutants, judges): &Group, names: &[&str]) -> bool {
    mutants.iter().any(|m| names.contains(&m.name)) || judges.iter().any(|j| names.contains(&j.name))
}

fn run_group(scratch: &Scratch, (mutants, judges): &Group, names: &[&str]) -> Result<()> {
    let judges = named(judges, names, |judge| judge.name);
    let mutants = named(mutants, names, |mutant| mutant.name);
    let mut missed = Vec::new();
    for judge in &judges {
        let (status, output) = scratch.judge(judge)?;
        ensure!(status == Some(0), "{} complains of the text as it is ({status:?}):\n{output}", judge.name);
    }
    println!("| mutant | rule taken out | judge | found | s |\n|---|---|---|---|---|");
    for mutant in &mutants {
        let path = scratch.tree.join(mutant.file);
        let shipped = fs::read_to_string(&path)?;
        fs::write(&path, mutate(&shipped, mutant)?)?;
        for judge in &judges {
            let began = Instant::now();
            let (status, output) = scratch.judge(judge).with_context(|| format!("mutant {}", mutant.name))?;
            let found = match status {
                Some(code) if code == judge.found => {
                    output.lines().find_map(|line| line.strip_prefix("broken ")).unwrap_or("yes").to_owned()
                }
                Some(0) => {
                    missed.push(format!("{} by {}", mutant.name, judge.name));
                    "**no**".to_owned()
                }
                other => bail!("{} failed on mutant {} ({other:?}):\n{output}", judge.name, mutant.name),
            };
            let (name, rule, seconds) = (mutant.name, mutant.rule, began.elapsed().as_secs());
            println!("| `{name}` | {rule} | {} | {found} | {seconds} |", judge.name);
        }
        fs::write(&path, shipped)?;
    }
    ensure!(missed.is_empty(), "mutants: not found: {}", missed.join(", "));
    println!("mutants: each of {} found by each of {} judges", mutants.len(), judges.len());
    Ok(())
}

/// Those that are named, or all if none is.
fn named<T: Copy>(all: &[T], names: &[&str], name: fn(&T) -> &'static str) -> Vec<T> {
    let some: Vec<T> = all.iter().filter(|one| names.contains(&name(one))).copied().collect();
    if some.is_empty() { all.to_vec() } else { some }
}

/// The text with the mutant's piece replaced.
fn mutate(text: &str, mutant: &Mutant) -> Result<String> {
    let times = text.matches(mutant.old).count();
    ensure!(times == 1, "mutant {}: its text stands {times} times in {}, not once", mutant.name, mutant.file);
    Ok(text.replace(mutant.old, mutant.new))
}

/// A copy of the workspace, and what is built from it.
struct Scratch {
    tree: PathBuf,
    target: PathBuf,
}

impl Scratch {
    fn make(root: &Path) -> Result<Self> {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        let target = root.join(target).join("mutants");
        let tree = target.join("tree");
        if tree.exists() {
            fs::remove_dir_all(&tree)?;
        }
        fs::create_dir_all(&tree)?;
        for name in COPIED {
            copy(&root.join(name), &tree.join(name))
                .with_context(|| format!("mutants: cannot copy {name}"))?;
        }
        Ok(Self { tree, target: target.join("build") })
    }

    /// Builds and runs a judge. Its exit status and what it printed.
    fn judge(&self, judge: &Judge) -> Result<(Option<i32>, String)> {
        let built = self.cargo(judge.build)?;
        ensure!(built.0 == Some(0), "{} cannot be built:\n{}", judge.name, built.1);
        self.cargo(judge.run)
    }

    fn cargo(&self, arguments: &[&str]) -> Result<(Option<i32>, String)> {
        let mut command: Command = crate::ci::cargo_command(&self.tree);
        let output = command.args(arguments).env("CARGO_TARGET_DIR", &self.target).output()?;
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status.code(), String::from_utf8_lossy(&text).into_owned()))
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if !from.is_dir() {
        fs::copy(from, to)?;
        return Ok(());
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mutant_replaces_text_that_stands_in_the_code_exactly_once() {
        let root = crate::root().expect("the workspace");
        for mutant in GROUPS.iter().flat_map(|(mutants, _)| mutants.iter()) {
            let text = fs::read_to_string(root.join(mutant.file)).expect(mutant.file);
            let mutated = mutate(&text, mutant).expect("exactly once");
            assert_ne!(mutated, text, "{} changes something", mutant.name);
            syn::parse_file(&mutated).unwrap_or_else(|error| panic!("{} is no Rust: {error}", mutant.name));
        }
    }

    #[test]
    fn no_two_mutants_or_judges_have_one_name() {
        let names = GROUPS.iter().flat_map(|(mutants, judges)| {
            mutants.iter().map(|m| m.name).chain(judges.iter().map(|j| j.name))
        });
        let mut seen = std::collections::BTreeSet::new();
        assert!(names.into_iter().all(|name| seen.insert(name)));
    }
}
