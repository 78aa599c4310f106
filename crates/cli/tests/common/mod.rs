//! Real processes for the tests: a switch, a backup and a primary, and a client of the embedded guest.

#![allow(dead_code, unreachable_pub, unused_imports, reason = "every test file uses a part of this")]

#[path = "../../../../tests/chance.rs"]
mod chance;

pub use chance::Xorshift as Random;
use pollux_host::control::{Request, ask};
use pollux_host::status::Status;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::PipeWriter;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

pub const POLLUX: &str = env!("CARGO_BIN_EXE_pollux");
pub const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../guests/tiny/tiny.elf");
const PATIENCE: Duration = Duration::from_secs(20);

/// Rounds of each kind of fault: few by default, `POLLUX_FAULT_ROUNDS` for many.
pub fn rounds(default: u64) -> u64 {
    std::env::var("POLLUX_FAULT_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// A process that does not outlive the test.
pub struct Process {
    pub child: Child,
    pub log: PathBuf,
}

impl Process {
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            let _ = kill_process(pid, signal);
        }
    }
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
    pub fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let begun = Instant::now();
        while begun.elapsed() < patience {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a pair is made of. The wrappers are put before the command of either side (`ip netns exec …`).
pub struct Options {
    pub disk_bytes: u64,
    pub disks: Option<[PathBuf; 2]>,
    pub shared: bool,
    pub forward: &'static str,
    pub backup_listen: String,
    pub primary_wrapper: Vec<String>,
    pub backup_wrapper: Vec<String>,
    pub primary_args: Vec<String>,
    pub backup_args: Vec<String>,
    /// Where both sides' standard error goes, instead of into their logs.
    pub stderr: Option<PipeWriter>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            disk_bytes: 8 << 20,
            disks: None,
            shared: false,
            forward: "udp:127.0.0.1:0-:7000",
            backup_listen: "127.0.0.1:0".into(),
            primary_wrapper: vec![],
            backup_wrapper: vec![],
            primary_args: ["--kernel", TINY, "--memory", "16M"].map(String::from).to_vec(),
            backup_args: vec![],
            stderr: None,
        }
    }
}

/// Both ways to give two sides different engines, if this host has more than one.
pub fn mixed_engines() -> Option<[[&'static str; 2]; 2]> {
    if pollux_jit::Jit::new(0).is_err() {
        println!("skipped: the JIT needs an x86-64 Linux host");
        return None;
    }
    Some([["jit", "interpreter"], ["interpreter", "jit"]])
}

/// A running pair.
pub struct Pair {
    pub primary: Process,
    pub backup: Process,
    pub switch: Process,
    pub service: SocketAddr,
    pub folder: PathBuf,
    pub disks: [PathBuf; 2],
    _keep: tempfile::TempDir,
}

pub fn spawn(folder: &Path, name: &str, wrapper: &[String], args: &[String]) -> Process {
    spawn_saying_into(folder, name, wrapper, args, None)
}

/// The same; what it says on standard error goes into a pipe, if there is one.
pub fn spawn_saying_into(
    folder: &Path,
    name: &str,
    wrapper: &[String],
    args: &[String],
    pipe: Option<&PipeWriter>,
) -> Process {
    let log = folder.join(format!("{name}.log"));
    let file = File::create(&log).expect("a log");
    let mut words = wrapper.iter().cloned().chain([POLLUX.to_owned()]).chain(args.iter().cloned());
    let mut command = Command::new(words.next().expect("a program"));
    command.args(words).env("POLLUX_RUN_DIR", folder).stdin(Stdio::null());
    command.stdout(file.try_clone().expect("a log"));
    match pipe {
        Some(pipe) => command.stderr(pipe.try_clone().expect("a descriptor")),
        None => command.stderr(file),
    };
    Process { child: command.spawn().expect("the program starts"), log }
}

pub fn eventually<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

impl Pair {
    pub fn start(options: &Options) -> Self {
        let keep = tempfile::tempdir().expect("a folder");
        let folder = keep.path().to_owned();
        let disks = options.disks.clone().unwrap_or_else(|| {
            let disks = ["primary.img", "backup.img"].map(|name| folder.join(name));
            for disk in &disks {
                File::create(disk).and_then(|file| file.set_len(options.disk_bytes)).expect("a disk");
            }
            disks
        });
        let mode = if options.shared { ",mode=shared" } else { "" };
        let disk = |side: usize| format!("{}{mode}", disks[if options.shared { 0 } else { side }].display());
        let switch_addr = format!("unix:{}", folder.join("switch.sock").display());
        let net = format!("switch={switch_addr}");
        let bound = folder.join("bound");
        let mut args =
            strings(&["switch", "--listen", &switch_addr, "--forward", options.forward, "--bound"]);
        args.push(bound.display().to_string());
        let switch = spawn(&folder, "switch", &[], &args);
        let service = eventually("the switch is bound", || {
            std::fs::read_to_string(&bound).ok()?.lines().next()?.parse().ok()
        });
        let arbiter = arbiter(&folder);
        let mut args = strings(&["backup", "--listen", &options.backup_listen, "--instance", "backup"]);
        args.extend(strings(&["--arbiter", &arbiter, "--disk", &disk(1), "--net", &net]));
        args.extend(options.backup_args.iter().cloned());
        let pipe = options.stderr.as_ref();
        let backup = spawn_saying_into(&folder, "backup", &options.backup_wrapper, &args, pipe);
        let listen = eventually("the backup listens", || status(&folder, "backup").ok()?.listen);
        let mut args = strings(&["run", "--name", "vm", "--backup", &listen, "--arbiter", &arbiter]);
        args.extend(strings(&["--disk", &disk(0), "--net", &net, "--console", "none"]));
        args.extend(options.primary_args.iter().cloned());
        let primary = spawn_saying_into(&folder, "primary", &options.primary_wrapper, &args, pipe);
        Self { primary, backup, switch, service, folder, disks, _keep: keep }
    }

    /// Waits until both sides work.
    pub fn wait_paired(&mut self) {
        let folder = self.folder.clone();
        let begun = Instant::now();
        while !status(&folder, "backup").is_ok_and(|s| s.role == "backup" && s.icount > 0) {
            assert!(self.primary.is_running(), "the primary ended:\n{}", self.primary.log());
            assert!(begun.elapsed() < PATIENCE, "no pair:\n{}\n{}", self.primary.log(), self.backup.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn primary_status(&self) -> Option<Status> {
        status(&self.folder, "vm").ok()
    }

    pub fn backup_status(&self) -> Option<Status> {
        status(&self.folder, "backup").ok()
    }

    /// How many sides let outputs out, or would: solo or primary. Waits until things have settled.
    pub fn live_sides(&mut self) -> (bool, bool) {
        let live = |s: Option<Status>| s.is_some_and(|s| matches!(s.role.as_str(), "solo" | "primary"));
        (
            self.primary.is_running() && live(self.primary_status()),
            self.backup.is_running() && live(self.backup_status()),
        )
    }
}

pub fn status(folder: &Path, instance: &str) -> Result<Status, Box<dyn std::error::Error>> {
    Ok(serde_json::from_value(ask(&folder.join(format!("{instance}.sock")), Request::Status)?)?)
}

/// A client of the embedded guest's UDP service.
pub struct Client {
    socket: UdpSocket,
    id: u64,
    seq: u64,
    pub counted: u64,
    pub written: Vec<u64>,
}

/// Blocks that a client writes in turn.
const BLOCKS: usize = 16;

impl Client {
    pub fn new(service: SocketAddr, id: u64) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.connect(service).expect("an address");
        socket.set_read_timeout(Some(Duration::from_millis(40))).expect("a timeout");
        Self { socket, id, seq: 0, counted: 0, written: vec![0; BLOCKS] }
    }

    /// A request, repeated until it is answered.
    pub fn call(&mut self, verb: &str, rest: &str, patience: Duration) -> Option<String> {
        self.seq += 1;
        let request = format!("{verb} {} {}{rest}\n", self.id, self.seq);
        let prefix = format!("{} {} ", self.id, self.seq);
        let begun = Instant::now();
        let mut buffer = [0; 256];
        while begun.elapsed() < patience {
            let _ = self.socket.send(request.as_bytes());
            while let Ok(n) = self.socket.recv(&mut buffer) {
                if let Some(answer) = String::from_utf8_lossy(&buffer[..n]).strip_prefix(&prefix) {
                    return Some(answer.trim().to_owned());
                }
            }
        }
        None
    }

    pub fn wait_ready(&mut self) {
        self.call("GET", "", PATIENCE).expect("the guest answers");
    }

    /// Counts and writes for a while, checking every answer against all earlier ones.
    pub fn work(&mut self, time: Duration) -> Result<(), String> {
        let begun = Instant::now();
        let mut round = self.seq;
        while begun.elapsed() < time {
            let answer = self.call("INC", "", PATIENCE).ok_or("no answer")?;
            self.counted += 1;
            if answer != self.counted.to_string() {
                return Err(format!("the counter says {answer} where {} is right", self.counted));
            }
            round += 1;
            if round.is_multiple_of(8) {
                let block = (round / 8) as usize % BLOCKS;
                let answer = self
                    .call("PUT", &format!(" {block} {round:x}"), PATIENCE)
                    .ok_or("no answer to a write")?;
                if answer != "ok" {
                    return Err(format!("a write was answered with {answer}"));
                }
                self.written[block] = round;
            }
        }
        Ok(())
    }

    /// Reads back what was acknowledged.
    pub fn check(&mut self) -> Result<(), String> {
        for block in 0..BLOCKS {
            let wanted = self.written[block];
            if wanted == 0 {
                continue;
            }
            let answer = self.call("CHK", &format!(" {block}"), PATIENCE).ok_or("no answer to a read")?;
            if answer != format!("{wanted:x}") {
                return Err(format!("block {block} holds {answer}, {wanted:x} was acknowledged"));
            }
        }
        let answer = self.call("GET", "", PATIENCE).ok_or("no answer")?;
        if answer != self.counted.to_string() {
            return Err(format!("the counter says {answer}, {} was acknowledged", self.counted));
        }
        Ok(())
    }
}

/// Makes the arbiter of a test in its folder.
pub fn arbiter(folder: &Path) -> String {
    let path = folder.join("arbiter");
    pollux_host::arbiter_file::FileArbiter::init(&path).expect("room");
    path.display().to_string()
}
