//! `cargo xtask guests`: the committed guest programs are what their sources make.
//!
//! Each `guests/NAME/build.sh` is run in a copy of the folder of all guests (one may take sources from another), and the
//! ELF files that come out are compared with the committed ones. Without the cross compiler nothing is checked, and that is said. Compilers differ: under another
//! version than `compiler-version` names, the guest is built and not compared, and that is said, too.

use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const COMPILER: &str = "riscv64-unknown-elf-gcc";

/// Rebuilds every guest that has a `build.sh`.
pub(crate) fn run(root: &Path) -> Result<()> {
    let Ok(version) = Command::new(COMPILER).arg("-dumpfullversion").output() else {
        println!("guests: not checked, because {COMPILER} is not installed (.ci/install-tools installs it)");
        return Ok(());
    };
    let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
    let mut compared = 0;
    for guest in folders(&root.join("guests"))? {
        if guest.join("build.sh").exists() {
            compared += check(&guest, &version).with_context(|| format!("guests: {}", guest.display()))?;
        } else if let Some(program) = programs(&guest)?.first() {
            bail!("guests: {} has no build.sh beside it that makes it", program.display());
        }
    }
    println!("guests: {compared} programs are what their sources make");
    Ok(())
}

/// Rebuilds one guest; returns how many programs were compared.
fn check(guest: &Path, version: &str) -> Result<usize> {
    let scratch = tempfile::tempdir().context("cannot make a temporary folder")?;
    let copies = scratch.path().join("guests");
    copy_files(guest.parent().context("a guest lies in a folder")?, &copies)?;
    let copy = copies.join(guest.file_name().context("a guest's folder has a name")?);
    let committed = programs(&copy)?;
    ensure!(!committed.is_empty(), "no program (*.elf) is committed");
    for program in &committed {
        fs::remove_file(program)?;
    }
    let made_by = fs::read_to_string(guest.join("compiler-version")).unwrap_or_default();
    let output = Command::new("sh").arg("build.sh").current_dir(&copy).output()?;
    ensure!(output.status.success(), "build.sh failed:\n{}", String::from_utf8_lossy(&output.stderr));
    if made_by.trim() != version {
        println!(
            "guests: {} was made by gcc {:?}, this is {version}: it builds, bytes are not compared",
            guest.display(),
            made_by.trim()
        );
        return Ok(0);
    }
    for program in &committed {
        let name = program.strip_prefix(&copy)?;
        let built = fs::read(program).with_context(|| format!("build.sh did not make {}", name.display()))?;
        if built != fs::read(guest.join(name))? {
            bail!(
                "{} is not what its sources make with gcc {version}; rebuild and commit it",
                name.display()
            );
        }
    }
    Ok(committed.len())
}

/// The folders in a folder; none if there is no such folder.
fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The ELF files in a folder and below.
fn programs(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(programs(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "elf") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn copy_files(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let target = to.join(path.file_name().context("a file has a name")?);
        if path.is_dir() {
            copy_files(&path, &target)?;
        } else {
            fs::copy(&path, &target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_its_sources_do_not_make_is_found() {
        let guests = tempfile::tempdir().expect("a temporary folder");
        let guest = guests.path().join("tiny");
        fs::create_dir(&guest).expect("room");
        let write = |name: &str, text: &str| fs::write(guest.join(name), text).expect("room");
        write("build.sh", "cat source > tiny.elf");
        write("source", "one");
        write("tiny.elf", "one");
        write("compiler-version", "1\n");
        assert_eq!(check(&guest, "1").expect("equal"), 1);
        write("source", "two");
        let error = check(&guest, "1").expect_err("unequal");
        assert!(error.to_string().contains("not what its sources make with gcc 1"), "{error}");
        assert_eq!(check(&guest, "2").expect("it builds"), 0, "another compiler proves nothing");
        write("build.sh", "exit 1");
        assert!(check(&guest, "1").is_err());
        assert_eq!(fs::read(guest.join("tiny.elf")).expect("untouched"), b"one");
    }

    #[test]
    fn a_guest_may_take_sources_from_its_neighbour() {
        let guests = tempfile::tempdir().expect("a temporary folder");
        for (name, text) in [
            ("tiny/library", "shared"),
            ("reboot/build.sh", "cat ../tiny/library > reboot.elf"),
            ("reboot/reboot.elf", "shared"),
            ("reboot/compiler-version", "1"),
        ] {
            let path = guests.path().join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("room");
            fs::write(path, text).expect("room");
        }
        assert_eq!(check(&guests.path().join("reboot"), "1").expect("built"), 1);
    }
}
