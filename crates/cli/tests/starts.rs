//! How VMs are started: detached, from files that say everything, and on images that another start has left behind.

mod common;

use common::*;
use rustix::process::Signal;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

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

#[test]
fn a_pair_may_be_started_detached_from_a_vm_file_and_the_command_returns_when_it_is_protected() {
    let folder = tempfile::tempdir().expect("a folder");
    let f = folder.path();
    for name in ["a.img", "b.img"] {
        fs::File::create(f.join(name)).and_then(|file| file.set_len(1 << 20)).expect("a disk");
    }
    let arbiter = arbiter(f);
    let disk = f.join("b.img").display().to_string();
    let words = ["backup", "--listen", "127.0.0.1:0", "--instance", "backup", "--arbiter", &arbiter];
    let backup = spawn(f, "backup", &[], &strings(&[&words[..], &["--disk", &disk]].concat()));
    let listen = eventually("the backup listens", || status(f, "backup").ok()?.listen);
    let said = format!(
        "kernel = {TINY:?}\nmemory = '16M'\nconsole = 'file=said'\nbackup = '{listen}'\narbiter = 'arbiter'\n[[disk]]\npath = 'a.img'\n"
    );
    fs::write(f.join("service.toml"), said).expect("room");
    let running = Detached(f, "service");
    let file = f.join("service.toml").display().to_string();
    let (code, said) = pollux(f, &["run", "-d", &file]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(status(f, "service").expect("it runs").role, "primary", "{}", backup.log());
    assert!(f.join("said").exists(), "its console is where the file says");
    running.stop();
    // No arbiter, no pair.
    let (code, said) = pollux(f, &["run", "-d", &file, "--arbiter", "/nowhere"]);
    assert!(code == Some(1) && said.contains("/nowhere"), "{said}");
}

/// Starts a VM on `disk`; what it says if it is refused, and nothing if it runs.
fn start_on(disk: &Path, mode: &str, more: &[&str]) -> Option<(Option<i32>, String)> {
    let disk = format!("{}{mode}", disk.display());
    let words = ["run", "--kernel", TINY, "--memory", "16M", "--console", "none", "--disk", &disk];
    let folder = tempfile::tempdir().expect("a folder");
    // Another host has another run folder.
    let mut vm = spawn(folder.path(), "again", &[], &strings(&[&words[..], more].concat()));
    let ended = eventually("it runs or is refused", || match vm.wait(ms(1)) {
        Some(ended) => Some(Some(ended)),
        None => status(folder.path(), "vm").ok().filter(|s| s.icount > 0).map(|_| None),
    });
    if ended.is_none() {
        vm.signal(Signal::INT);
        vm.wait(ms(20_000)).expect("it ends");
    }
    ended.map(|status| (status.code(), vm.log()))
}

fn refused(start: Option<(Option<i32>, String)>, wanted: &[&str]) {
    let (code, said) = start.expect("it must be refused, and runs");
    assert_eq!(code, Some(70), "{said}");
    for word in wanted {
        assert!(said.contains(word), "{word}: {said}");
    }
}

fn generation_of(disk: &Path) -> Option<u64> {
    pollux_host::mark::read(disk).expect("whole").map(|mark| mark.generation)
}

#[test]
fn the_stale_image_of_a_dead_primary_starts_neither_without_the_arbiter_nor_with_it() {
    let mut pair = Pair::start(&Options::default());
    pair.wait_paired();
    let [stale, newest] = pair.disks.clone();
    assert_eq!([&stale, &newest].map(|disk| generation_of(disk)), [Some(1), Some(1)]);
    Client::new(pair.service, 1).wait_ready();
    pair.primary.signal(Signal::KILL);
    let _ = pair.primary.child.wait();
    eventually("the survivor's image is marked anew", || (generation_of(&newest) == Some(2)).then_some(()));
    // `solo` alone does not say whether it ever was protected.
    let survivor = eventually("it runs", || pair.backup_status().filter(|status| status.role == "solo"));
    assert_eq!(survivor.protection, "took over");
    assert!(
        !survivor.protected && survivor.peer.is_some() && survivor.times.live_ms > survivor.times.started_ms
    );
    let arbiter = pair.folder.join("arbiter").display().to_string();
    let under = ["--arbiter", &arbiter];
    // The survivor runs.
    refused(
        start_on(&stale, "", &[]),
        &["primary.img", "vm (generation 1", "--arbiter", "--ignore-mark vm@1"],
    );
    refused(start_on(&stale, "", &under), &["is held by"]);
    pair.backup.signal(Signal::TERM);
    assert_eq!(pair.backup.wait(ms(20_000)).and_then(|s| s.code()), Some(0), "{}", pair.backup.log());
    // It has ended in good order.
    refused(start_on(&stale, "", &[]), &["--ignore-mark vm@1"]);
    refused(start_on(&stale, "", &under), &["older", "--ignore-mark vm@1"]);
    refused(start_on(&newest, "", &[]), &["--ignore-mark vm@2"]);
    refused(start_on(&newest, "", &["--ignore-mark", "vm@1"]), &["--ignore-mark vm@2"]);
    refused(start_on(&newest, "", &["--name", "other", "--arbiter", &arbiter]), &["not other's"]);
    let log = pair.folder.join("r.log").display().to_string();
    let disk = stale.display().to_string();
    let (code, said) = pollux(&pair.folder, &["record", "--log", &log, "--kernel", TINY, "--disk", &disk]);
    assert!(code == Some(70) && said.contains("--ignore-mark vm@1"), "{said}");
    assert_eq!(start_on(&newest, "", &under), None, "the right one, under its arbiter");
    assert_eq!(generation_of(&newest), Some(4));
    assert_eq!(start_on(&stale, "", &["--ignore-mark", "vm@1"]), None, "overridden by name");
    assert_eq!(generation_of(&stale), None, "and nobody's from then on");
}

#[test]
fn a_primary_that_goes_on_alone_marks_its_image_and_its_backups_is_stale() {
    let mut pair = Pair::start(&Options::default());
    pair.wait_paired();
    assert_eq!(pair.primary_status().expect("it runs").protection, "protected");
    let [newest, stale] = pair.disks.clone();
    pair.backup.signal(Signal::KILL);
    let _ = pair.backup.child.wait();
    eventually("it is marked anew", || (generation_of(&newest) == Some(2)).then_some(()));
    let alone = eventually("it runs", || pair.primary_status().filter(|status| status.role == "solo"));
    assert_eq!(alone.protection, "backup lost");
    assert!(!alone.protected && alone.times.won_ms > alone.times.started_ms);
    pair.primary.signal(Signal::INT);
    assert_eq!(pair.primary.wait(ms(20_000)).and_then(|s| s.code()), Some(0), "{}", pair.primary.log());
    let arbiter = pair.folder.join("arbiter").display().to_string();
    refused(start_on(&stale, "", &["--arbiter", &arbiter]), &["older", "--ignore-mark vm@1"]);
    assert_eq!(start_on(&newest, "", &["--arbiter", &arbiter]), None);
}

#[test]
fn a_shared_image_has_one_mark_that_follows_the_vm() {
    let mut pair = Pair::start(&Options { shared: true, ..Options::default() });
    pair.wait_paired();
    let image = pair.disks[0].clone();
    assert_eq!(generation_of(&image), Some(1));
    pair.primary.signal(Signal::KILL);
    let _ = pair.primary.child.wait();
    eventually("it is marked anew", || (generation_of(&image) == Some(2)).then_some(()));
    // Beside the survivor, which writes to it.
    refused(start_on(&image, ",mode=shared", &[]), &["generation 2", "--ignore-mark vm@2"]);
}

#[test]
fn a_vm_that_was_started_with_nohup_outlives_its_terminal() {
    let folder = tempfile::tempdir().expect("a folder");
    let f = folder.path();
    let words = ["run", "--kernel", TINY, "--memory", "16M", "--console", "none"];
    let mut vm = spawn(f, "vm", &strings(&["nohup"]), &strings(&words));
    eventually("it runs", || status(f, "vm").ok());
    vm.signal(Signal::HUP);
    assert!(vm.wait(ms(300)).is_none(), "it was told to ignore that:\n{}", vm.log());
    vm.signal(Signal::TERM);
    assert!(vm.wait(ms(20_000)).expect("it ends").success());
}

#[test]
fn a_switch_takes_the_forwards_of_vm_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let f = folder.path();
    let at = |name: &str| f.join(name).display().to_string();
    for (name, ports) in
        [("a.toml", "'tcp:127.0.0.1:0-:22', 'tcp:127.0.0.1:0-:80'"), ("b.toml", "'tcp:127.0.0.1:0-:6379'")]
    {
        fs::write(f.join(name), format!("kernel = {TINY:?}\nforward = [{ports}]\n")).expect("room");
    }
    let listen = format!("unix:{}", at("switch.sock"));
    let words = [
        "switch",
        "--listen",
        &listen,
        "--bound",
        &at("bound"),
        "--vm",
        &at("a.toml"),
        "--vm",
        &at("b.toml"),
    ];
    let mut switch = spawn(f, "switch", &[], &strings(&words));
    let bound = eventually("it is bound", || {
        fs::read_to_string(f.join("bound")).ok().filter(|b| b.lines().count() > 2)
    });
    assert!(bound.lines().all(|line| line.starts_with("127.0.0.1:")), "{bound}");
    switch.signal(Signal::TERM);
    assert!(switch.wait(ms(20_000)).expect("it ends").success());
    // A file that names none, or is none, is named.
    fs::write(f.join("b.toml"), "forward = ['tcp:nonsense']\n").expect("room");
    let (code, said) = pollux(f, &words);
    assert!(code == Some(1) && said.contains("b.toml") && said.contains("nonsense"), "{said}");
}
