//! `cargo xtask pure`: the pure half compiles where there is no standard library.
//!
//! `#![no_std]` alone does not say that of a crate's dependencies: one of them may bring std back. So the crates are
//! checked against a sysroot that holds the compiler's own `core` and `alloc` and nothing else. What it proves: no code
//! of the pure crates, nor of what they depend on, with the features that they ask for, can name a clock, a thread, a
//! file, a socket or the environment. What it does not: that nobody declares a C function (that needs `unsafe`, which
//! the pure crates forbid; their dependencies are read for it when they are chosen), and nothing about build scripts and
//! procedural macros, which run on the host of the build.

use crate::ci;
use crate::tidy::PURE;
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The libraries of the compiler that need no operating system, by the beginning of their files' names.
const KEPT: [&str; 4] = ["libcore-", "liballoc-", "libcompiler_builtins-", "librustc_std_workspace_core-"];

/// Checks the pure crates in a sysroot without std.
pub(crate) fn run(root: &Path) -> Result<()> {
    let target = host_target()?;
    let sysroot = root.join("target/pure/sysroot");
    make_sysroot(&sysroot, &target)?;
    ensure!(!compiles(&sysroot, &target, "extern crate std;")?, "pure: the sysroot without std has a std");
    ensure!(
        compiles(&sysroot, &target, "extern crate alloc;")?,
        "pure: the sysroot in {} has no alloc; is this compiler's standard library installed?",
        sysroot.display()
    );
    let flags = format!("CARGO_TARGET_{}_RUSTFLAGS", target.to_uppercase().replace('-', "_"));
    let mut cargo = ci::cargo_command(root);
    // With `--target` the flags are for the crates alone, and not for build scripts and procedural macros.
    cargo
        .args(["check", "--lib", "--target", &target])
        .env(flags, format!("--sysroot={}", sysroot.display()));
    cargo.env("CARGO_TARGET_DIR", root.join("target/pure"));
    for name in PURE {
        cargo.args(["-p", &format!("pollux-{name}")]);
    }
    ensure!(
        cargo.status().context("cannot run cargo")?.success(),
        "pure: a pure crate needs more than core and alloc"
    );
    println!("pure: {} crates compile without a standard library", PURE.len());
    Ok(())
}

/// The target that this compiler builds for by itself.
fn host_target() -> Result<String> {
    let text = output(rustc().arg("-vV"))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc names no host")?.to_owned())
}

fn rustc() -> Command {
    Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().context("cannot run rustc")?;
    if !output.status.success() {
        bail!("rustc failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A sysroot with what is in [`KEPT`], of the compiler in use.
fn make_sysroot(sysroot: &Path, target: &str) -> Result<()> {
    let libraries = Path::new("lib/rustlib").join(target).join("lib");
    let from = PathBuf::from(output(rustc().args(["--print", "sysroot"]))?.trim()).join(&libraries);
    let to = sysroot.join(&libraries);
    if sysroot.exists() {
        fs::remove_dir_all(sysroot).with_context(|| format!("cannot remove {}", sysroot.display()))?;
    }
    fs::create_dir_all(&to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in fs::read_dir(&from).with_context(|| format!("cannot read {}", from.display()))? {
        let path = entry?.path();
        let name = path.file_name().context("a file has a name")?;
        if KEPT.iter().any(|kept| name.to_string_lossy().starts_with(kept)) {
            fs::copy(&path, to.join(name)).with_context(|| format!("cannot copy {}", path.display()))?;
        }
    }
    Ok(())
}

/// Whether a crate of this text compiles in the sysroot.
fn compiles(sysroot: &Path, target: &str, text: &str) -> Result<bool> {
    let scratch = tempfile::tempdir().context("cannot make a temporary folder")?;
    let source = scratch.path().join("probe.rs");
    fs::write(&source, format!("#![no_std]\n{text}\n")).context("cannot write the probe")?;
    let status = rustc()
        .args([
            "--crate-type",
            "rlib",
            "--emit",
            "metadata",
            "--edition",
            "2024",
            "--target",
            target,
            "--out-dir",
        ])
        .arg(scratch.path())
        .arg(format!("--sysroot={}", sysroot.display()))
        .arg(&source)
        .stderr(Stdio::null())
        .status()
        .context("cannot run rustc")?;
    Ok(status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_that_names_the_standard_library_does_not_compile_in_the_sysroot() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let target = host_target().expect("a compiler");
        make_sysroot(folder.path(), &target).expect("room");
        let compiles = |text| compiles(folder.path(), &target, text).expect("a compiler");
        assert!(compiles("extern crate alloc; pub fn f() -> alloc::vec::Vec<u8> { alloc::vec![1] }"));
        assert!(!compiles(
            "extern crate std; pub fn f() -> std::time::Instant { std::time::Instant::now() }"
        ));
    }
}
