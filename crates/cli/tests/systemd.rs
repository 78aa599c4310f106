//! The systemd units under `contrib/systemd`: what systemd itself thinks of them.

use std::fs;
use std::path::Path;
use std::process::Command;

const UNITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../contrib/systemd");

#[test]
fn systemd_finds_no_fault_with_the_units() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["pollux@", "pollux-backup@"] {
        let text = fs::read_to_string(Path::new(UNITS).join(format!("{name}.service"))).expect("a unit");
        assert!(text.contains("\nRestartForceExitStatus=73\n"), "a guest that asks for a reset gets one");
        // systemd wants the program to be there.
        let here = text.replace("/usr/bin/pollux", env!("CARGO_BIN_EXE_pollux"));
        let unit = folder.path().join(format!("{name}vm.service"));
        fs::write(&unit, here).expect("room");
        match Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit).output() {
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                assert!(output.status.success() && !said.contains(name), "{said}");
            }
            Err(_) => println!("skipped: there is no systemd-analyze here"),
        }
    }
}
