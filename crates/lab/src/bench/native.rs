//! Our workloads on the host itself: the same source, by the host's compiler.

use super::Plan;
use super::console::Pass;
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// The program, which knows Linux on x86-64 and on aarch64 beside RISC-V.
pub const SOURCE: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../guests/workloads/workloads.c"));
/// As in `guests/workloads/build.sh`, but for what only the guest's compiler knows.
const FLAGS: [&str; 9] = [
    "-O2",
    "-ffreestanding",
    "-nostdlib",
    "-static",
    "-fno-builtin",
    "-fno-stack-protector",
    "-fno-tree-loop-distribute-patterns",
    "-ffp-contract=off",
    "-fno-math-errno",
];

/// Whether there is a compiler, and an architecture that the program knows.
pub fn is_possible() -> bool {
    cfg!(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))
        && Command::new("cc").arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Builds and runs the workloads that are ours.
pub fn measure(plan: &Plan) -> Result<Pass> {
    let folder = tempfile::tempdir().context("cannot make a working folder")?;
    let program = folder.path().join("workloads");
    build(folder.path(), &program)?;
    let mut pass = Pass::default();
    for workload in plan.workloads.iter().filter(|w| w.is_ours()) {
        for turn in 0..=plan.repeats {
            let begun = Instant::now();
            let output = Command::new(&program).arg(workload.name).output()?;
            let seconds = begun.elapsed().as_secs_f64();
            let answer = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            pass.note(workload.name, turn, u32::from(!output.status.success()), answer, seconds);
        }
    }
    Ok(pass)
}

fn build(folder: &Path, program: &Path) -> Result<()> {
    let source = folder.join("workloads.c");
    std::fs::write(&source, SOURCE)?;
    let output = Command::new("cc").args(FLAGS).arg(&source).args(["-lgcc", "-o"]).arg(program).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cc cannot build the workloads for this host:\n{said}");
    Ok(())
}
