//! A pair of replicas, each a `pollux` of its own, and the switch, which runs in this process so that its counters can be
//! read: it is the clients' side and outlives every fault.

use super::base::{Base, from_reset};
use super::bounds::DISK_HANG_MS;
use super::cable::Cable;
use super::log::Log;
use super::plan::{ArbiterLoss, Plan};
use crate::guest_files::GuestFiles;
use crate::processes::{spawn_saying_into, status_of, wait_for};
use anyhow::{Context, Result, bail};
use pollux_host::arbiter_file::FileArbiter;
use pollux_host::status::Status;
use pollux_switch::{Config, Stats, Stopper, Switch, SwitchAddr};
use rustix::process::{Pid, Signal, kill_process};
use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

/// What a side is called.
pub struct SideName {
    /// By its part when a round begins.
    pub part: &'static str,
    /// As an instance.
    pub instance: &'static str,
}

/// The sides, by number.
pub const SIDES: &[SideName] =
    &[SideName { part: "primary", instance: "vm" }, SideName { part: "backup", instance: "backup" }];
/// Which of them starts as the primary, and which as the backup.
pub const PRIMARY: usize = 0;
pub const BACKUP: usize = 1;

/// The switch, in a thread.
pub struct Hub {
    stopper: Stopper,
    stats: Stats,
    thread: Option<JoinHandle<()>>,
    address: SwitchAddr,
    /// Where redis is reached.
    pub service: SocketAddr,
}

impl Hub {
    /// Listens, and leads clients as `forward` says.
    pub fn start(listen: SwitchAddr, forward: &str) -> Result<Self> {
        let mut config = Config::new(listen.clone());
        config.forwards.push(forward.parse().map_err(|e| anyhow::anyhow!("forward {forward}: {e}"))?);
        // What it has to say is said by the replicas as well, in their logs.
        let quiet = tracing::subscriber::NoSubscriber::default();
        let switch = tracing::subscriber::with_default(quiet, || Switch::bind(config))?;
        let service = *switch.bound().forwards.first().context("the switch forwards nothing")?;
        let (stopper, stats) = (Stopper::new()?, switch.stats());
        let stop = stopper.clone();
        let thread = std::thread::Builder::new().name("switch".into()).spawn(move || {
            let quiet = tracing::subscriber::NoSubscriber::default();
            let _ = tracing::subscriber::with_default(quiet, || switch.run(&stop));
        })?;
        Ok(Self { stopper, stats, thread: Some(thread), address: listen, service })
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A side: its process, and what that writes.
struct Side {
    child: RefCell<Child>,
    log: Log,
}

/// Both sides, and the folder that they work in.
pub struct Pair {
    folder: PathBuf,
    hub: Hub,
    sides: Vec<Side>,
}

/// How a pair is set up.
pub struct Setup<'a> {
    /// The guest.
    pub guest: &'a GuestFiles,
    /// Its RAM.
    pub memory: &'a str,
    /// The hosts, unless all is on the loopback device.
    pub cable: Option<&'a Cable>,
    /// What the guest starts from, unless it boots.
    pub base: Option<&'a Base>,
    /// The round's.
    pub plan: &'a Plan,
    /// The longest that a client has waited before faults in rounds before this one, milliseconds.
    pub quiet_ms: f64,
}

impl Pair {
    /// Starts everything in `folder`, on fresh copies of the disk.
    pub fn start(setup: &Setup<'_>, folder: &Path) -> Result<Self> {
        let folder = folder.to_owned();
        let source = setup.base.map(|base| &base.disk).or(setup.guest.disk.as_ref());
        let source = source.context("the guest has no disk")?;
        let disks = ["primary.img", "backup.img"].map(|name| folder.join(name));
        for disk in &disks {
            pollux_image::fresh_disk_copy(source, disk)
                .with_context(|| format!("cannot copy the disk to {}", disk.display()))?;
        }
        let address = match setup.cable {
            Some(cable) => cable.switch_listen(),
            None => format!("unix:{}", folder.join("switch.sock").display()),
        };
        let listen = address.parse().map_err(|e| anyhow::anyhow!("{address}: {e}"))?;
        let hub = Hub::start(listen, setup.guest.forward)?;
        let net = format!("switch={}", hub.address);
        let arbiter = folder.join("arbiter");
        FileArbiter::init(&arbiter)?;
        let wrapper = |side| setup.cable.map(|cable| cable.wrapper(side)).unwrap_or_default();
        let listen = setup.cable.map_or("127.0.0.1:0".into(), Cable::backup_listen);
        let [log, backup_log] = ["primary.log", "backup.log"].map(|name| Log::start(&folder.join(name)));
        let (log, backup_log) = (log?, backup_log?);
        let hang = DISK_HANG_MS.to_string();
        let said = [Stdio::null(), backup_log.stdio()?];
        let backup = spawn_saying_into(&folder, "backup", &wrapper(BACKUP), said, |c| {
            faults(c, &folder, BACKUP);
            c.args(["backup", "--listen", &listen, "--instance", SIDES[BACKUP].instance, "--trust-disks"]);
            c.arg("--disk").arg(&disks[1]).args(["--net", &net, "--arbiter"]).arg(&arbiter);
            c.args(["--disk-hang-ms", &hang]);
        })?;
        let backup = RefCell::new(backup);
        let listen =
            wait_for("the backup", &backup, || status_of(&folder, SIDES[BACKUP].instance).ok()?.listen)?;
        let digest = (setup.plan.digest_ms as f64 / 1e3).to_string();
        let said = [Stdio::null(), log.stdio()?];
        let primary = spawn_saying_into(&folder, "primary", &wrapper(PRIMARY), said, |c| {
            faults(c, &folder, PRIMARY);
            c.args([
                "run",
                "--name",
                SIDES[PRIMARY].instance,
                "--backup",
                &listen,
                "--trust-disks",
                "--arbiter",
            ]);
            c.arg(&arbiter).arg("--disk").arg(&disks[0]).args(["--net", &net, "--digest-s", &digest]);
            match setup.base {
                Some(base) => {
                    c.args(["--memory", setup.memory, "--snapshot"]).arg(&base.snapshot);
                }
                None => from_reset(c, setup.guest, setup.memory, setup.plan.harts),
            }
            c.args(["--disk-hang-ms", &hang])
                .arg("--console")
                .arg(format!("file={}", folder.join("console").display()));
        })?;
        let primary = Side { child: RefCell::new(primary), log };
        Ok(Self { folder, hub, sides: vec![primary, Side { child: backup, log: backup_log }] })
    }

    /// Where clients reach redis.
    pub fn service(&self) -> SocketAddr {
        self.hub.service
    }

    /// The switch's counters.
    pub fn stats(&self) -> Stats {
        self.hub.stats.clone()
    }

    /// What a side says of itself. A side that is stopped does not answer for seconds.
    pub fn status(&self, side: usize) -> Result<Status> {
        status_of(&self.folder, SIDES[side].instance)
    }

    /// Sends a signal.
    pub fn signal(&self, side: usize, signal: Signal) -> Result<()> {
        let child = self.sides[side].child.borrow();
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("no process id")?;
        kill_process(pid, signal).with_context(|| format!("cannot signal the {}", SIDES[side].part))
    }

    /// From now on a side's disks do this (`pollux_host::disk_fault`).
    pub fn set_disk_fault(&self, side: usize, fault: &str) -> Result<()> {
        std::fs::write(disk_fault(&self.folder, side), fault).context("cannot say what a disk is to do")
    }

    /// From now on nobody reads a side's log.
    pub fn stall_log(&self, side: usize) -> Result<()> {
        self.sides[side].log.stall().context("cannot stall a log")
    }

    /// The arbiter's storage is gone for so long: for everybody (without its marker the folder is no arbiter), or for one
    /// side alone.
    pub fn lose_arbiter(&self, loss: ArbiterLoss) -> Result<JoinHandle<()>> {
        let arbiter = self.folder.join("arbiter");
        let (marker, away) = (arbiter.join(pollux_host::arbiter_file::MARKER), arbiter.join("away"));
        let of_side = loss.side.map(|side| arbiter_fault(&self.folder, side));
        match &of_side {
            Some(fault) => std::fs::write(fault, ""),
            None => std::fs::rename(&marker, &away),
        }
        .context("cannot take the arbiter away")?;
        Ok(std::thread::Builder::new().name("arbiter-away".into()).spawn(move || {
            std::thread::sleep(Duration::from_millis(loss.ms));
            let _ = match of_side {
                Some(fault) => std::fs::remove_file(fault),
                None => std::fs::rename(&away, &marker),
            };
        })?)
    }

    /// How a side has ended, if it has.
    pub fn ended(&self, side: usize) -> Option<ExitStatus> {
        self.sides[side].child.borrow_mut().try_wait().ok().flatten()
    }

    /// Fails if one of them has ended.
    pub fn check(&self) -> Result<()> {
        for (side, SideName { part, .. }) in SIDES.iter().enumerate() {
            if let Some(status) = self.ended(side) {
                bail!("the {part} ended too early ({status})");
            }
        }
        Ok(())
    }
}

/// Lets a side have the faults that the round's folder says.
fn faults(command: &mut Command, folder: &Path, side: usize) {
    command.env(pollux_host::disk_fault::VARIABLE, disk_fault(folder, side));
    command.env(pollux_host::arbiter_file::fault::VARIABLE, arbiter_fault(folder, side));
}

/// The file that is there while a side does not reach the arbiter.
fn arbiter_fault(folder: &Path, side: usize) -> PathBuf {
    folder.join(format!("{}.no-arbiter", SIDES[side].part))
}

/// The file that says what a side's disks do.
fn disk_fault(folder: &Path, side: usize) -> PathBuf {
    folder.join(format!("{}.fault", SIDES[side].part))
}

impl Drop for Pair {
    fn drop(&mut self) {
        for side in &self.sides {
            let mut child = side.child.borrow_mut();
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
