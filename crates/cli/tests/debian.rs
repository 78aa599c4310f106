//! The real thing: unmodified Debian, its kernel and its redis-server. Needs apt and a few minutes, so it runs where
//! `POLLUX_TEST_DEBIAN=1` is set, as in CI; elsewhere it says that it was skipped.

mod common;

use common::*;
use rustix::process::Signal;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

const BOOT_PATIENCE: Duration = Duration::from_secs(150);

fn image() -> Option<&'static pollux_image::Image> {
    static IMAGE: OnceLock<Option<pollux_image::Image>> = OnceLock::new();
    let image = IMAGE.get_or_init(|| {
        if std::env::var_os("POLLUX_TEST_DEBIAN").is_none() {
            println!("skipped: set POLLUX_TEST_DEBIAN=1 to test with Debian");
            return None;
        }
        Some(pollux_image::build(&pollux_image::BuildOptions::default(), &mut ()).expect("an image"))
    });
    image.as_ref()
}

/// A running VM with a console to type at.
struct Vm {
    process: Process,
    console: UnixStream,
    seen: String,
}

impl Vm {
    fn start(folder: &Path, command: &str, args: &[String]) -> Self {
        let socket = folder.join("console");
        let mut words = strings(&[command, "--console", &format!("socket={}", socket.display())]);
        words.extend(args.iter().cloned());
        let process = spawn(folder, "vm", &[], &words);
        let console = eventually("the console is there", || UnixStream::connect(&socket).ok());
        console.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        Self { process, console, seen: String::new() }
    }

    /// Reads the console until `text` appears behind what was awaited before.
    fn wait_for(&mut self, text: &str) {
        let begun = Instant::now();
        let mut buffer = [0; 4096];
        loop {
            if let Some(at) = self.seen.find(text) {
                self.seen.drain(..at + text.len());
                return;
            }
            assert!(
                begun.elapsed() < BOOT_PATIENCE,
                "{text:?} does not come:\n{}\n{}",
                self.seen,
                self.process.log()
            );
            match self.console.read(&mut buffer) {
                Ok(n) if n > 0 => self.seen.push_str(&String::from_utf8_lossy(&buffer[..n])),
                _ => {
                    assert!(self.process.is_running(), "the VM ended:\n{}\n{}", self.seen, self.process.log())
                }
            }
        }
    }

    fn type_line(&mut self, line: &str) {
        writeln!(self.console, "{line}").expect("the console takes it");
    }
}

fn kernel_args(image: &pollux_image::Image, disk: &Path) -> Vec<String> {
    let mut args = strings(&["--name", "vm", "--append", &image.command_line]);
    for (flag, path) in [("--kernel", &image.kernel), ("--initrd", &image.initrd)] {
        args.extend([flag.to_owned(), path.display().to_string()]);
    }
    args.extend(["--disk".into(), disk.display().to_string()]);
    args
}

fn fresh_disk(image: &pollux_image::Image, to: PathBuf) -> PathBuf {
    pollux_image::fresh_disk_copy(&image.disk, &to).expect("a copy of the disk");
    to
}

fn boots_and_powers_off(extra: &[&str]) {
    let Some(image) = image() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let disk = fresh_disk(image, folder.path().join("disk.img"));
    let mut args = kernel_args(image, &disk);
    args.extend(strings(extra));
    let mut vm = Vm::start(folder.path(), "run", &args);
    vm.wait_for("root@pollux");
    vm.type_line("nproc; redis-cli ping");
    vm.wait_for("PONG");
    vm.type_line("poweroff");
    let status = vm.process.wait(Duration::from_secs(60)).expect("the VM ends");
    assert_eq!(status.code(), Some(0), "{}", vm.process.log());
}

#[test]
fn debian_shuts_down_in_good_order_when_its_power_button_is_pressed() {
    let Some(image) = image() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let disk = fresh_disk(image, folder.path().join("disk.img"));
    let mut vm = Vm::start(folder.path(), "run", &kernel_args(image, &disk));
    vm.wait_for("root@pollux");
    // Its last word is the kernel's, behind init's and redis's.
    let stop = ["stop", "vm", "--timeout", "60"];
    let stopped = Command::new(POLLUX).args(stop).env("POLLUX_RUN_DIR", folder.path()).output();
    let stopped = stopped.expect("it runs");
    assert!(stopped.status.success() && stopped.stderr.is_empty(), "{stopped:?}");
    vm.wait_for("Power down");
    assert_eq!(
        vm.process.wait(Duration::from_secs(10)).and_then(|s| s.code()),
        Some(0),
        "{}",
        vm.process.log()
    );
}

/// Lets the guest count its lives on its disk, twice, with a reboot between them.
fn live_twice(vm: &mut Vm) {
    for life in 1..=2 {
        vm.wait_for("root@pollux");
        vm.type_line("echo >> /lives; sync; echo life $(wc -l < /lives)");
        vm.wait_for(&format!("life {life}\r\n"));
        if life == 1 {
            vm.type_line("reboot");
            // The shell that is about to end prompts once more; what is typed at it is lost.
            vm.wait_for("Restarting system");
        }
    }
}

#[test]
fn debian_reboots() {
    let Some(image) = image() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let disk = fresh_disk(image, folder.path().join("disk.img"));
    let mut vm = Vm::start(folder.path(), "run", &kernel_args(image, &disk));
    live_twice(&mut vm);
    vm.type_line("poweroff");
    assert_eq!(
        vm.process.wait(Duration::from_secs(60)).and_then(|s| s.code()),
        Some(0),
        "{}",
        vm.process.log()
    );
}

#[test]
fn debian_reboots_in_a_pair_which_stays_one() {
    let Some(image) = image() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let f = folder.path();
    let disks = ["primary.img", "backup.img"].map(|name| fresh_disk(image, f.join(name)));
    let arbiter = arbiter(f);
    let words = ["backup", "--listen", "127.0.0.1:0", "--instance", "backup", "--arbiter", &arbiter];
    let mut words = strings(&words);
    words.extend(["--disk".into(), disks[1].display().to_string()]);
    let mut backup = spawn(f, "backup", &[], &words);
    let listen = eventually("the backup listens", || status(f, "backup").ok()?.listen);
    let mut words = strings(&["--backup", &listen, "--arbiter", &arbiter]);
    words.extend(kernel_args(image, &disks[0]));
    let mut vm = Vm::start(f, "run", &words);
    live_twice(&mut vm);
    for (name, role) in [("vm", "primary"), ("backup", "backup")] {
        let seen = status(f, name).map(|seen| seen.role).unwrap_or_default();
        assert_eq!(seen, role, "{name}:\n{}\n{}", vm.process.log(), backup.log());
    }
    assert_eq!(status(f, "vm").expect("it answers").restarts, 1);
    vm.process.signal(Signal::KILL);
    eventually("the backup is live", || status(f, "backup").ok().filter(|s| s.role == "solo"));
    assert!(backup.is_running() && !backup.log().contains("differ"), "{}", backup.log());
}

#[test]
fn debian_boots_to_a_shell_and_powers_off_with_one_hart() {
    boots_and_powers_off(&[]);
}

#[test]
fn debian_boots_to_a_shell_and_powers_off_with_four_harts() {
    boots_and_powers_off(&["--harts", "4"]);
}

#[test]
fn unmodified_opensbi_boots_debian() {
    const FIRMWARE: &str = "/usr/lib/riscv64-linux-gnu/opensbi/generic/fw_dynamic.bin";
    if !Path::new(FIRMWARE).exists() {
        println!("skipped: Debian's package opensbi is not installed");
        assert!(std::env::var_os("CI").is_none(), "CI installs it");
        return;
    }
    boots_and_powers_off(&["--bios", FIRMWARE]);
}

#[test]
fn a_benchmark_of_our_own_programs_needs_a_kernel_alone_and_writes_its_three_files() {
    let Some(image) = image() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out");
    let words = ["bench", "--rounds", "1", "--repeats", "1", "--only", "calls,fork", "--json"];
    let output = Command::new(POLLUX)
        .args(words)
        .args(["--engines", "pollux,protected", "--kernel"])
        .arg(&image.kernel)
        .arg("--out")
        .arg(&out)
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    for (row, name) in ["boot", "calls", "fork"].iter().enumerate() {
        assert_eq!(report["rows"][row]["name"], *name);
        for system in ["pollux", "protected"] {
            assert!(report["rows"][row]["median_s"][system].as_f64().is_some_and(|s| s > 0.0), "{report}");
        }
    }
    for name in ["bench.json", "bench.md", "bench.svg"] {
        assert!(fs::metadata(out.join(name)).is_ok_and(|meta| meta.len() > 0), "{name}");
    }
}

/// A line to redis and the line that it answers.
fn redis(stream: &mut BufReader<TcpStream>, command: &str) -> std::io::Result<String> {
    writeln!(stream.get_mut(), "{command}\r")?;
    let mut line = String::new();
    stream.read_line(&mut line)?;
    if line.starts_with('$') && !line.starts_with("$-1") {
        line.clear();
        stream.read_line(&mut line)?;
    }
    Ok(line.trim().to_owned())
}

fn connect(service: SocketAddr, patience: Duration) -> BufReader<TcpStream> {
    let begun = Instant::now();
    loop {
        if let Ok(stream) = TcpStream::connect(service) {
            let _ = stream.set_read_timeout(Some(Duration::from_secs(20)));
            let _ = stream.set_nodelay(true);
            let mut reader = BufReader::new(stream);
            if redis(&mut reader, "PING").is_ok_and(|answer| answer == "+PONG") {
                return reader;
            }
        }
        assert!(begun.elapsed() < patience, "redis does not answer");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A recorded boot with network and disk traffic, and what is left of it: the recording, and the disk at its end.
struct Recorded {
    folder: tempfile::TempDir,
    log: String,
}

fn record_a_boot(image: &pollux_image::Image, extra: &[&str]) -> Recorded {
    let folder = tempfile::tempdir().expect("a folder");
    let f = folder.path();
    let disk = fresh_disk(image, f.join("disk.img"));
    let switch_addr = format!("unix:{}", f.join("switch.sock").display());
    let bound = f.join("bound").display().to_string();
    let words = ["switch", "--listen", &switch_addr, "--forward", "tcp:127.0.0.1:0-:6379", "--bound", &bound];
    let _switch = spawn(f, "switch", &[], &strings(&words));
    let service: SocketAddr =
        eventually("the switch is bound", || fs::read_to_string(&bound).ok()?.lines().next()?.parse().ok());
    let log = f.join("boot.log").display().to_string();
    let mut args = strings(&["--log", &log, "--net", &format!("switch={switch_addr}")]);
    args.extend(strings(extra));
    args.extend(kernel_args(image, &disk));
    let mut vm = Vm::start(f, "record", &args);
    let mut client = connect(service, BOOT_PATIENCE);
    for i in 0..200 {
        assert_eq!(redis(&mut client, &format!("SET recorded:{i} {i}")).expect("an answer"), "+OK");
    }
    vm.type_line("echo typed; sync");
    vm.wait_for("typed");
    std::thread::sleep(Duration::from_millis(300));
    let stopped = Command::new(POLLUX)
        .args(["stop", "--force", "vm"])
        .env("POLLUX_RUN_DIR", f)
        .status()
        .expect("it runs");
    // Cut, not asked: what is recorded ends with a guest that still serves.
    assert!(stopped.success());
    assert_eq!(
        vm.process.wait(Duration::from_secs(30)).and_then(|s| s.code()),
        Some(0),
        "{}",
        vm.process.log()
    );
    Recorded { folder, log }
}

fn replay(words: &[&str]) -> (Option<i32>, serde_json::Value, String) {
    let output =
        Command::new(POLLUX).args(["replay", "--quiet", "--json"]).args(words).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default(), said)
}

#[test]
fn a_recorded_boot_replays_to_the_same_digests_warm_cold_from_the_middle_and_then_fails_over() {
    let Some(image) = image() else { return };
    let recorded = record_a_boot(image, &["--digest-s", "0.05"]);
    let f = recorded.folder.path();
    let end = f.join("end.snapshot").display().to_string();
    // Recorded with the JIT, where there is one.
    let (code, warm, said) = replay(&[&recorded.log, "--snapshot", &end, "--engine", "interpreter"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(warm["digests_equal"].as_u64() >= Some(20), "{warm}");
    let half = (warm["icount"].as_u64().expect("a count") / 2).to_string();
    let middle = f.join("middle.snapshot").display().to_string();
    let (code, _, said) = replay(&[&recorded.log, "--until", &half, "--snapshot", &middle]);
    assert_eq!(code, Some(0), "{said}");
    let (code, second, said) = replay(&[&recorded.log, "--from", &middle, "--cold", "20"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(second["state"], warm["state"], "from the middle, in another process, with cold caches");
    assert_eq!(second["icount"], warm["icount"]);
    let (code, diverged, said) = replay(&[&recorded.log, "--flip", &format!("{half}:0x80400000")]);
    assert_eq!(code, Some(71), "a flipped bit is found: {said}");
    assert!(diverged["what"].as_str().is_some_and(|what| what.contains("page 0x80400")), "{diverged}");
    fail_over(image, f, &end, false);
    fail_over(image, f, &end, true);
}

#[test]
fn a_boot_recorded_with_the_interpreter_replays_with_both_engines_to_the_same_digests() {
    let (Some(image), Some(_)) = (image(), mixed_engines()) else { return };
    let recorded = record_a_boot(image, &["--digest-s", "0.05", "--engine", "interpreter"]);
    let chained = |engine| {
        let (code, result, said) = replay(&[&recorded.log, "--engine", engine, "--chain", "20000"]);
        assert_eq!(code, Some(0), "{said}");
        assert!(result["digests_equal"].as_u64() >= Some(20), "{result}");
        assert!(result["chained"].as_u64() >= Some(50_000), "{result}");
        result["chain"].clone()
    };
    assert_eq!(
        chained("jit"),
        chained("interpreter"),
        "a digest every 20,000 steps, each hashed with all before"
    );
}

/// Kills the primary during a write load, again and again; every acknowledged write must be on the survivor's disk,
/// and its file system clean once its journal has been replayed. The sides have different engines, if there are two,
/// in all rounds but the first of three.
fn fail_over(image: &pollux_image::Image, recorded: &Path, snapshot: &str, shared: bool) {
    let mut random = Random(if shared { 11 } else { 5 });
    for round in 0..rounds(3).min(10) {
        let folder = tempfile::tempdir().expect("a folder");
        let disks = ["p.img", "b.img"].map(|name| {
            let disk = folder.path().join(name);
            pollux_image::fresh_disk_copy(&recorded.join("disk.img"), &disk).expect("a copy");
            disk
        });
        let mut primary_args = strings(&["--snapshot", snapshot, "--memory", "512M"]);
        primary_args.extend(strings(&["--append", &image.command_line]));
        let mut backup_args = vec![];
        let mixed = mixed_engines().zip((round % 3).checked_sub(1)).map(|(mixed, way)| mixed[way as usize]);
        if let Some([primary, backup]) = mixed {
            primary_args.extend(strings(&["--engine", primary]));
            backup_args.extend(strings(&["--engine", backup]));
        }
        let options = Options {
            disks: Some(disks),
            shared,
            forward: "tcp:127.0.0.1:0-:6379",
            primary_args,
            backup_args,
            ..Options::default()
        };
        let mut pair = Pair::start(&options);
        pair.wait_paired();
        let mut client = connect(pair.service, Duration::from_secs(60));
        let written =
            write_through_a_kill(&mut pair, &mut client, Duration::from_millis(200 + random.below(800)));
        for i in 0..written {
            let answer =
                redis(&mut client, &format!("GET failover:{i}")).expect("the same connection answers");
            assert_eq!(answer, format!("value-{i}"), "round {round}: an acknowledged write is lost");
        }
        drop(client);
        // Pull the plug on the survivor: only what is on its disk counts.
        pair.backup.signal(Signal::KILL);
        let _ = pair.backup.child.wait();
        let disk = &pair.disks[usize::from(!shared)];
        check_disk(disk, written, round);
        println!("round {round}, {}: {written} writes", if shared { "shared" } else { "replicated" });
    }
}

/// Writes key after key; kills the primary after `before`; goes on for half a second and for ten writes, however slow
/// the host. Returns how many were acknowledged.
fn write_through_a_kill(pair: &mut Pair, client: &mut BufReader<TcpStream>, before: Duration) -> usize {
    const AFTERWARDS: usize = 10;
    let begun = Instant::now();
    let (mut written, mut killed_at) = (0, None);
    while begun.elapsed() < before + Duration::from_millis(500)
        || killed_at.is_none_or(|at| written < at + AFTERWARDS)
    {
        assert!(begun.elapsed() < Duration::from_secs(120), "{written} writes, killed at {killed_at:?}");
        if killed_at.is_none() && begun.elapsed() >= before && written > 0 {
            pair.primary.signal(Signal::KILL);
            let _ = pair.primary.child.wait();
            killed_at = Some(written);
        }
        let answer = redis(client, &format!("SET failover:{written} value-{written}"));
        assert_eq!(answer.expect("the connection lives"), "+OK", "{}", pair.backup.log());
        written += 1;
    }
    assert_eq!(pair.backup_status().expect("it is live").role, "solo");
    written
}

fn check_disk(disk: &Path, written: usize, round: u64) {
    let run = |program: &str, args: &[&str]| {
        let path = std::env::var("PATH").unwrap_or_default();
        let output = Command::new(program)
            .args(args)
            .arg(disk)
            .env("PATH", format!("{path}:/usr/sbin:/sbin"))
            .output();
        output.unwrap_or_else(|e| panic!("{program}: {e}"))
    };
    let preen = run("e2fsck", &["-p"]);
    assert!(matches!(preen.status.code(), Some(0 | 1)), "round {round}: {preen:?}");
    let check = run("e2fsck", &["-fn"]);
    assert_eq!(check.status.code(), Some(0), "round {round}: {}", String::from_utf8_lossy(&check.stdout));
    let folder = "/var/lib/redis/appendonlydir";
    let list = run("debugfs", &["-R", &format!("ls -p {folder}")]);
    let names = String::from_utf8_lossy(&list.stdout).into_owned();
    let mut log = String::new();
    for name in names.lines().filter_map(|line| line.split('/').nth(5)).filter(|name| name.ends_with(".aof"))
    {
        let content = run("debugfs", &["-R", &format!("cat {folder}/{name}")]);
        log.push_str(&String::from_utf8_lossy(&content.stdout));
    }
    for i in 0..written {
        assert!(
            log.contains(&format!("value-{i}\r\n")),
            "round {round}: write {i} of {written} is not on the disk"
        );
    }
}
