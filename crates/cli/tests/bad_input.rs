//! Bad input gets a clear error that says what, where and what to do; never a panic, and nothing is lost.

mod common;

use common::*;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Runs `pollux` with these words; its status and what it said.
fn pollux(folder: &Path, words: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(POLLUX).args(words).env("POLLUX_RUN_DIR", folder).output().expect("it runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

fn refused(folder: &Path, words: &[&str], wanted: &[&str]) {
    let (code, said) = pollux(folder, words);
    assert!(matches!(code, Some(1 | 2)), "{words:?} ended with {code:?}: {said}");
    assert!(!said.contains("panicked"), "{said}");
    for want in wanted {
        assert!(said.contains(want), "{words:?} should mention {want:?}: {said}");
    }
}

#[test]
fn what_cannot_be_started_is_refused_with_its_name_and_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let f = folder.path();
    let file = |name: &str, bytes: &[u8]| {
        fs::write(f.join(name), bytes).expect("room");
        f.join(name).display().to_string()
    };
    let tiny = fs::read(TINY).expect("the guest");
    let cut = file("cut.elf", &tiny[..tiny.len() / 2]);
    let other = file("x86.elf", b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0");
    let empty = file("empty", b"");
    let gzip = file("vmlinuz.gz", &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0]);
    let odd = file("odd.img", &[0; 1000]);
    let qcow = file("q.img", &[b"QFI\xfb", &[0u8; 508][..]].concat());
    let toml = file("vm.toml", b"kernel = 'x'\nmemroy = '1G'\n");
    refused(f, &["run"], &["nothing to start", "--kernel"]);
    refused(f, &["run", "--kernel", "/nowhere"], &["kernel", "/nowhere"]);
    refused(f, &["run", "--kernel", "/dev/zero"], &["kernel", "no regular file"]);
    refused(f, &["run", "/dev/zero"], &["VM file", "no regular file"]);
    refused(f, &["run", "--kernel", TINY, "--snapshot", "/dev/zero"], &["snapshot", "no regular file"]);
    refused(f, &["run", "--kernel", &cut], &["kernel", "cut off"]);
    refused(f, &["run", "--kernel", &other], &["RISC-V"]);
    refused(f, &["run", "--kernel", &empty], &["empty"]);
    refused(f, &["run", "--kernel", &gzip], &["gzip", "unpack"]);
    refused(f, &["run", "--kernel", TINY, "--disk", &odd], &["1000 bytes", "raw image"]);
    refused(f, &["run", "--kernel", TINY, "--disk", &qcow], &["qcow2", "qemu-img"]);
    refused(f, &["run", "--kernel", TINY, "--disk", "/nowhere"], &["/nowhere"]);
    refused(f, &["run", "--kernel", TINY, "--memory", "17M"], &["--memory"]);
    refused(f, &["run", "--kernel", TINY, "--harts", "99"], &["--harts"]);
    refused(f, &["run", "--kernel", TINY, "--append", &"x".repeat(3000)], &["command line", "3000"]);
    refused(f, &["run", &toml], &["memroy"]);
    refused(f, &["run", "--kernel", TINY, "--net", "switch=unix:/nowhere/s"], &["switch", "pollux switch"]);
    refused(f, &["run", "--kernel", TINY, "--snapshot", &empty], &["snapshot"]);
    refused(f, &["run", "--kernel", TINY, "--snapshot", &odd], &["snapshot"]);
    refused(f, &["replay", &empty], &[]);
    refused(f, &["replay", &odd], &["log"]);
    refused(f, &["stop", "nobody"], &["no instance", "pollux status"]);
    refused(f, &["run", "--kernel", TINY, "--backup", "localhost:1"], &["--arbiter"]);
}

#[test]
fn a_benchmark_that_cannot_be_run_is_refused_before_anything_is_built() {
    let folder = tempfile::tempdir().expect("a folder");
    let f = folder.path();
    refused(f, &["bench", "--only", "quake"], &["quake", "integer", "redis"]);
    refused(f, &["bench", "--engines", "bochs"], &["bochs", "protected"]);
    refused(f, &["bench", "--rounds", "0"], &["--rounds", "1..=1000"]);
    refused(f, &["bench", "--only", "redis", "--kernel", "x"], &["only Pollux's own", "integer"]);
}

#[test]
fn an_oversized_kernel_names_the_memory_it_needs() {
    let folder = tempfile::tempdir().expect("a folder");
    let big = folder.path().join("big");
    fs::File::create(&big).and_then(|file| file.set_len(64 << 20)).expect("a hole");
    let path = big.display().to_string();
    refused(folder.path(), &["run", "--kernel", &path, "--memory", "32M"], &["kernel", "--memory"]);
}

/// A backup, and where it listens.
fn backup(folder: &Path, extra: &[&str]) -> (Process, String) {
    let disk = folder.join("backup.img");
    fs::File::create(&disk).and_then(|file| file.set_len(8 << 20)).expect("a disk");
    let arbiter = arbiter(folder);
    let disk = disk.display().to_string();
    let mut args = strings(&[
        "backup",
        "--listen",
        "127.0.0.1:0",
        "--instance",
        "b",
        "--arbiter",
        &arbiter,
        "--disk",
        &disk,
    ]);
    args.extend(strings(extra));
    let process = spawn(folder, "b", &[], &args);
    let listen = eventually("the backup listens", || status(folder, "b").ok()?.listen);
    (process, listen)
}

#[test]
fn peers_that_send_garbage_are_turned_away_and_the_backup_waits_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut process, listen) = backup(folder.path(), &[]);
    let mut random = Random(7);
    for _ in 0..20 {
        let mut peer = TcpStream::connect(&listen).expect("it listens");
        let bytes: Vec<u8> = (0..random.below(4000)).map(|_| random.below(256) as u8).collect();
        let _ = peer.write_all(&bytes);
        let _ = peer.shutdown(std::net::Shutdown::Write);
        let _ = peer.set_read_timeout(Some(Duration::from_secs(5)));
        let _ = peer.read(&mut [0; 64]);
    }
    // A frame of another version, right in everything else that a peer can know.
    let mut frame = pollux_codec::message::Wire::Welcome.encode();
    frame[3] = 77;
    let mut peer = TcpStream::connect(&listen).expect("it listens");
    peer.write_all(&frame).expect("sent");
    eventually("the version is named", || process.log().contains("version").then_some(()));
    assert!(
        process.is_running() && status(folder.path(), "b").is_ok_and(|s| s.role == "waiting"),
        "{}",
        process.log()
    );
}

#[test]
fn sides_that_do_not_fit_say_so_on_both_ends() {
    let cases: [(&[&str], &[&str], &str); 3] = [
        (&["--memory", "64M"], &[], "give both sides the same"),
        (&[], &["--disk", "SMALL"], "bytes on the primary"),
        (&[], &["--disk", "OTHER"], "differs in content"),
    ];
    for (backup_args, primary_args, wanted) in cases {
        let folder = tempfile::tempdir().expect("a folder");
        let f = folder.path();
        let (process, listen) = backup(f, backup_args);
        for (name, bytes) in [("primary.img", 8 << 20), ("SMALL", 4 << 20), ("OTHER", 8 << 20)] {
            fs::File::create(f.join(name)).and_then(|file| file.set_len(bytes)).expect("a disk");
        }
        let mut other = fs::OpenOptions::new().write(true).open(f.join("OTHER")).expect("there");
        other.write_all(b"not the same").expect("room");
        let named = |name: &str| f.join(name).display().to_string();
        let (arbiter, disk) = (named("arbiter"), named("primary.img"));
        let disk_args: Vec<String> = match primary_args {
            [_, name] => vec!["--disk".into(), named(name)],
            _ => vec!["--disk".into(), disk],
        };
        let mut words =
            vec!["run", "--kernel", TINY, "--memory", "32M", "--backup", &listen, "--arbiter", &arbiter];
        words.extend(disk_args.iter().map(String::as_str));
        words.extend(["--console", "none"]);
        let (code, said) = pollux(f, &words);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("refuses") && said.contains(wanted), "{said}");
        eventually("the backup says so, too", || process.log().contains(wanted).then_some(()));
    }
}

#[test]
fn a_backup_that_is_not_there_is_named_after_patience() {
    let folder = tempfile::tempdir().expect("a folder");
    let arbiter = arbiter(folder.path());
    let begun = std::time::Instant::now();
    let mut child = Command::new(POLLUX)
        .args(["run", "--kernel", TINY, "--backup", "not a host", "--arbiter", &arbiter, "--console", "none"])
        .env("POLLUX_RUN_DIR", folder.path())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("it runs");
    let status = child.wait().expect("it ends");
    let mut said = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
    assert!(!status.success() && said.contains("not a host"), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_recording_that_was_cut_or_damaged_says_where() {
    let folder = tempfile::tempdir().expect("a folder");
    let f = folder.path();
    let log = f.join("r.log");
    let path = log.display().to_string();
    let args = [
        "record",
        "--log",
        &path,
        "--kernel",
        TINY,
        "--memory",
        "16M",
        "--console",
        "none",
        "--digest-s",
        "0.02",
    ];
    let mut recorder = spawn(f, "recorder", &[], &strings(&args));
    std::thread::sleep(Duration::from_millis(700));
    recorder.signal(rustix::process::Signal::TERM);
    assert_eq!(recorder.wait(Duration::from_secs(10)).and_then(|s| s.code()), Some(0), "{}", recorder.log());
    let (code, said) = pollux(f, &["replay", "--quiet", &path]);
    assert!(code == Some(0) && said.contains("digests equal") && !said.contains("cut off"), "{said}");
    let bytes = fs::read(&log).expect("there");
    let cut = f.join("cut.log").display().to_string();
    fs::write(&cut, &bytes[..bytes.len() - 50]).expect("room");
    let (code, said) = pollux(f, &["replay", "--quiet", &cut]);
    assert!(code == Some(0) && said.contains("cut off"), "{said}");
    let mut damaged = bytes.clone();
    let at = bytes.len() - 100;
    damaged[at] ^= 1;
    let bad = f.join("bad.log").display().to_string();
    fs::write(&bad, &damaged).expect("room");
    let (code, said) = pollux(f, &["replay", "--quiet", &bad]);
    assert!(code == Some(1) && said.contains("corrupt"), "{said}");
    let flip = "1000:0x80280000";
    let (code, said) = pollux(f, &["replay", "--quiet", "--flip", flip, &path]);
    assert!(code == Some(71) && said.contains("page 0x80280") && said.contains("icount"), "{said}");
    let (code, said) = pollux(f, &["replay", "--quiet", "--cold", "1", "--json", &path]);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn a_wrong_word_destroys_no_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let f = folder.path();
    let named = |name: &str| f.join(name).display().to_string();
    fs::copy(TINY, f.join("kernel")).expect("room");
    fs::write(f.join("disk"), vec![b'd'; 4096]).expect("room");
    fs::write(f.join("vm.toml"), "memory = '16M'\n").expect("room");
    fs::write(f.join("notes"), "precious\n").expect("room");
    let all = ["kernel", "disk", "vm.toml", "notes"];
    let before = all.map(|name| fs::read(f.join(name)).expect("there"));
    let (kernel, disk, toml, notes) = (named("kernel"), named("disk"), named("vm.toml"), named("notes"));
    let switch = format!("unix:{}", named("switch"));
    let vm = ["--kernel", &kernel, "--disk", &disk];
    for file in [&kernel, &disk, &toml] {
        let console = format!("file={file}");
        refused(f, &[&["run", &toml, "--console", &console][..], &vm].concat(), &[file, "left as it is"]);
    }
    for file in [&kernel, &disk, &toml, &notes] {
        let console = format!("socket={file}");
        refused(f, &[&["run", &toml, "--console", &console][..], &vm].concat(), &[file, "left as it is"]);
        let log = ["record", &toml, "--log", file, "--console", "none"];
        refused(f, &[&log[..], &vm].concat(), &[file, "left as it is"]);
        refused(f, &["switch", "--listen", &switch, "--bound", file], &[file, "left as it is"]);
    }
    let arbiter = arbiter(f);
    let (console, listen) = (format!("file={disk}"), "127.0.0.1:0");
    let words = ["backup", "--listen", listen, "--arbiter", &arbiter, "--disk", &disk, "--console", &console];
    refused(f, &words, &[&disk, "left as it is"]);
    for (name, bytes) in all.iter().zip(before) {
        assert!(fs::read(f.join(name)).expect("there") == bytes, "{name} has changed");
    }
}

#[test]
fn a_recording_that_is_refused_leaves_the_running_one_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let f = folder.path();
    let log = f.join("r.log").display().to_string();
    let args = |name| {
        let vm = ["--kernel", TINY, "--memory", "16M", "--console", "none", "--name", name];
        [&["record", "--log", &log][..], &vm].concat()
    };
    let mut running = spawn(f, "recorder", &[], &strings(&args("one")));
    eventually("it runs", || status(f, "one").ok().filter(|s| s.icount > 0));
    refused(f, &args("one"), &["one", "--name"]);
    refused(f, &args("two"), &["r.log", "in use"]);
    running.signal(rustix::process::Signal::TERM);
    assert_eq!(running.wait(Duration::from_secs(20)).and_then(|s| s.code()), Some(0), "{}", running.log());
    let (code, said) = pollux(f, &["replay", "--quiet", &log]);
    assert!(code == Some(0) && !said.contains("cut off"), "{said}");
}

#[test]
fn an_instance_that_hangs_is_listed_and_holds_up_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let f = folder.path();
    let start = |name: &str| {
        let args = ["run", "--kernel", TINY, "--memory", "16M", "--console", "none", "--name", name];
        let process = spawn(f, name, &[], &strings(&args));
        eventually("it runs", || status(f, name).ok().filter(|s| s.role == "solo"));
        process
    };
    let (hung, other) = (start("hung"), start("other"));
    assert!(other.log().contains("no --net"), "{}", other.log());
    assert!(!other.log().contains('\u{1b}'), "colours in a file: {}", other.log());
    hung.signal(rustix::process::Signal::STOP);
    let begun = std::time::Instant::now();
    let (code, said) = pollux(f, &["status", "--json"]);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    let lines: Vec<serde_json::Value> =
        said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((code, lines.len()), (Some(0), 2), "{said}");
    assert_eq!((&lines[0]["name"], &lines[0]["answers"]), (&"hung".into(), &false.into()));
    let other = &lines[1];
    assert_eq!((&other["name"], &other["answers"]), (&"other".into(), &true.into()));
    assert_eq!((&other["protected"], &other["protection"]), (&false.into(), &"unprotected".into()));
    assert_eq!(other["version"], env!("CARGO_PKG_VERSION"));
    // After 2020, and so on the calendar.
    assert!(other["times"]["started_ms"].as_u64() > Some(1_577_836_800_000), "{other}");
    let (_, said) = pollux(f, &["status"]);
    assert!(said.contains("not answering"), "{said}");
    hung.signal(rustix::process::Signal::CONT);
}
