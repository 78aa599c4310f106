//! How VMs are started: detached, from files that say everything, and on images that another start has left behind.

mod common;

use common::*;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Runs `pollux` with these words; its status and what it said.
fn pollux(folder: &Path, words: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(POLLUX).args(words).env("POLLUX_RUN_DIR", folder).output().expect("it runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

/// A VM that was started detached does not outlive its test.
struct Detached<'a>(&'a Path, &'static str);

impl Drop for Detached<'_> {
    fn drop(&mut self) {
        let _ = pollux(self.0, &["stop", "--force", self.1]);
    }
}

impl Detached<'_> {
    fn stop(&self) {
        let (code, said) = pollux(self.0, &["stop", "--force", self.1]);
        assert_eq!(code, Some(0), "{said}");
        eventually("it ends", || status(self.0, self.1).is_err().then_some(()));
    }
}

#[test]
fn a_vm_that_is_started_detached_runs_on_and_one_that_cannot_start_says_why() {
    let folder = tempfile::tempdir().expect("a folder");
    let f = folder.path();
    let vm = ["run", "-d", "--kernel", TINY, "--memory", "16M", "--name", "quiet"];
    let running = Detached(f, "quiet");
    let (code, said) = pollux(f, &vm);
    assert!(code == Some(0) && said.contains("quiet runs"), "{said}");
    let shown = status(f, "quiet").expect("it runs");
    assert_eq!(shown.role, "solo");
    let console = shown.console.expect("a console socket, for there is no terminal");
    std::os::unix::net::UnixStream::connect(console).expect("somebody serves it");
    let (code, said) = pollux(f, &vm);
    assert!(code == Some(1) && said.contains("quiet") && said.contains("--name"), "{said}");
    let log = fs::read_to_string(f.join("quiet.log")).expect("a log");
    assert!(log.contains("no --net"), "and the one that runs has kept its log: {log}");
    running.stop();
    for (words, wanted) in [
        (&["--kernel", "/nowhere"][..], "/nowhere"),
        (&["--kernel", TINY, "--console", "stdio"], "no terminal"),
        (&["--kernel", TINY, "--disk", "/nowhere.img"], "/nowhere.img"),
        (&["--kernel", TINY, "--console", "file=/nowhere/console"], "/nowhere/console"),
    ] {
        let (code, said) = pollux(f, &[&["run", "-d", "--memory", "16M"], words].concat());
        assert!(code == Some(1) && said.contains(wanted), "{words:?} ended with {code:?}: {said}");
        assert!(status(f, "vm").is_err(), "{words:?}: nothing is left running");
    }
}
