//! A guest that reboots, in a protected pair of real processes.

mod common;

use common::*;
use rustix::process::Signal;
use std::path::Path;

const REBOOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../guests/reboot/reboot.elf");
/// Reboots of the whole test; one side is killed in the middle.
const REBOOTS: u64 = 300;
/// What a process may have grown by between two looks, in KiB: noise of allocator and kernel.
const GROWTH_KIB_MAX: u64 = 4096;
/// Descriptors of this test's own questions that may still be open.
const DESCRIPTORS_MAX: usize = 3;

/// Resident memory in KiB, and open descriptors.
fn footprint(process: &Process) -> (u64, usize) {
    let folder = Path::new("/proc").join(process.child.id().to_string());
    let status = std::fs::read_to_string(folder.join("status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it has memory");
    let resident = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number");
    (resident, std::fs::read_dir(folder.join("fd")).expect("it runs").count())
}

fn wait_restarts(pair: &Pair, instance: &str, restarts: u64) {
    eventually("the guest reboots", || {
        status(&pair.folder, instance).ok().filter(|s| s.restarts >= restarts).map(|_| ())
    });
}

/// Holds that `process` has not grown since `before`.
fn is_flat(process: &Process, before: (u64, usize)) {
    let after = footprint(process);
    assert!(after.0 < before.0 + GROWTH_KIB_MAX, "{before:?} then {after:?}");
    assert!(after.1 <= before.1 + DESCRIPTORS_MAX, "{} descriptors, then {}", before.1, after.1);
}

#[test]
fn a_guest_that_reboots_three_hundred_times_stays_protected_and_outlives_its_primary() {
    let primary_args = strings(&["--kernel", REBOOT, "--memory", "16M", "--digest-s", "0.05"]);
    let mut pair = Pair::start(&Options { primary_args, ..Options::default() });
    pair.wait_paired();
    wait_restarts(&pair, "vm", REBOOTS / 6);
    // The backup counts what it replays.
    wait_restarts(&pair, "backup", REBOOTS / 6);
    let before = [footprint(&pair.primary), footprint(&pair.backup)];
    wait_restarts(&pair, "vm", REBOOTS / 2);
    is_flat(&pair.primary, before[0]);
    is_flat(&pair.backup, before[1]);
    let status = [pair.primary_status(), pair.backup_status()].map(|s| s.expect("it answers"));
    assert_eq!([status[0].role.as_str(), status[1].role.as_str()], ["primary", "backup"]);
    assert!(status[0].digests_agreed + status[1].digests_agreed > 3, "compared while it rebooted");
    pair.primary.signal(Signal::KILL);
    let _ = pair.primary.child.wait();
    let before = eventually("the backup is live", || {
        pair.backup_status().filter(|s| s.role == "solo" && s.restarts > 0).map(|_| footprint(&pair.backup))
    });
    wait_restarts(&pair, "backup", REBOOTS);
    is_flat(&pair.backup, before);
    assert!(!pair.backup.log().contains("differ"), "{}", pair.backup.log());
}

#[test]
fn a_reset_ends_the_vm_and_its_pair_if_it_is_told_to() {
    let primary_args = strings(&["--kernel", REBOOT, "--memory", "16M", "--on-reset", "stop"]);
    let mut pair = Pair::start(&Options { primary_args, ..Options::default() });
    let ended = pair.primary.wait(std::time::Duration::from_secs(20)).expect("it ends");
    assert_eq!(ended.code(), Some(73), "{}", pair.primary.log());
    assert!(pair.backup.wait(std::time::Duration::from_secs(20)).is_some(), "{}", pair.backup.log());
}
