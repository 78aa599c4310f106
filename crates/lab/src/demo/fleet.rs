//! The demo's processes: a switch, a backup, a primary, each a `pollux` of its own.

use super::DemoArgs;
use crate::guest_files::GuestFiles;
use crate::processes::{spawn, status_of, wait_for};
use anyhow::{Context, Result, bail};
use pollux_host::arbiter_file::FileArbiter;
use pollux_host::status::Status;
use std::cell::RefCell;
use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

/// The embedded guest, part of this binary.
const TINY_ELF: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../guests/tiny/tiny.elf"));
/// Disk of the embedded guest.
const TINY_DISK_BYTES: u64 = 8 << 20;

/// The running processes and the folder they work in.
pub struct Fleet {
    folder: RefCell<Option<tempfile::TempDir>>,
    path: PathBuf,
    switch: RefCell<Child>,
    backup: RefCell<Child>,
    primary: RefCell<Child>,
    service: SocketAddr,
    started: Instant,
}

impl Fleet {
    /// Starts all three and waits until they stand.
    pub fn start(args: &DemoArgs, guest: &GuestFiles) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("pollux-demo")
            .tempdir()
            .context("cannot make a working folder")?;
        let path = folder.path().to_owned();
        let disks = ["primary.img", "backup.img"].map(|name| path.join(name));
        for disk in &disks {
            match &guest.disk {
                Some(source) => pollux_image::fresh_disk_copy(source, disk)
                    .with_context(|| format!("cannot copy the disk to {}", disk.display()))?,
                None => File::create(disk)?.set_len(TINY_DISK_BYTES)?,
            }
        }
        let kernel = match &guest.kernel {
            Some(kernel) => kernel.clone(),
            None => {
                let file = path.join("tiny.elf");
                std::fs::write(&file, TINY_ELF)?;
                file
            }
        };
        let switch_addr = format!("unix:{}", path.join("switch.sock").display());
        let bound = path.join("bound");
        let switch = spawn(&path, "switch", |c| {
            c.args(["switch", "--listen", &switch_addr, "--forward", guest.forward, "--bound"]).arg(&bound);
        })?;
        let switch = RefCell::new(switch);
        let service = wait_for("the switch", &switch, || {
            let text = std::fs::read_to_string(&bound).ok()?;
            text.lines().next()?.parse().ok()
        })?;
        let arbiter = path.join("arbiter");
        FileArbiter::init(&arbiter)?;
        let engine = args.engine.as_ref().map(|engine| format!("--engine={engine}"));
        let backup = spawn(&path, "backup", |c| {
            c.args(["backup", "--listen", "127.0.0.1:0", "--instance", "backup", "--arbiter"]).arg(&arbiter);
            c.arg("--disk").arg(&disks[1]).args(["--net", &format!("switch={switch_addr}")]);
            c.arg("--console").arg(format!("file={}", path.join("console-backup").display())).args(&engine);
        })?;
        let backup = RefCell::new(backup);
        let listen = wait_for("the backup", &backup, || status_of(&path, "backup").ok()?.listen)?;
        let started = Instant::now();
        let primary = spawn(&path, "primary", |c| {
            c.args(["run", "--name", "demo", "--backup", &listen, "--arbiter"]).arg(&arbiter);
            c.arg("--kernel").arg(&kernel).args([
                "--memory",
                &args.source.memory,
                "--harts",
                &args.harts.to_string(),
            ]);
            if let Some(initrd) = &guest.initrd {
                c.arg("--initrd").arg(initrd);
            }
            c.args(["--append", &guest.command_line, "--net", &format!("switch={switch_addr}")]);
            c.arg("--disk").arg(&disks[0]).args(&engine);
            c.arg("--console").arg(format!("file={}", path.join("console").display()));
        })?;
        let folder = RefCell::new(Some(folder));
        Ok(Self { folder, path, switch, backup, primary: RefCell::new(primary), service, started })
    }

    /// Where the service in the guest is reached from outside.
    pub fn service(&self) -> SocketAddr {
        self.service
    }

    /// Since the primary was started.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// The primary's process.
    pub fn primary_pid(&self) -> u32 {
        self.primary.borrow().id()
    }

    /// The backup's process.
    pub fn backup_pid(&self) -> u32 {
        self.backup.borrow().id()
    }

    /// The primary's account of itself.
    pub fn primary_status(&self) -> Result<Status> {
        status_of(&self.path, "demo")
    }

    /// The backup's account of itself.
    pub fn backup_status(&self) -> Result<Status> {
        status_of(&self.path, "backup")
    }

    /// Fails if a process that should run does not.
    pub fn check(&self) -> Result<()> {
        for (name, child) in [("switch", &self.switch), ("backup", &self.backup), ("primary", &self.primary)]
        {
            if let Some(status) = child.borrow_mut().try_wait()? {
                let log = std::fs::read_to_string(self.path.join(format!("{name}.log"))).unwrap_or_default();
                let last: Vec<_> = log.lines().rev().take(5).collect();
                let last: Vec<_> = last.into_iter().rev().collect();
                bail!("the {name} ended too early ({status}):\n{}", last.join("\n"));
            }
        }
        Ok(())
    }

    /// SIGKILL. Returns the instant.
    pub fn kill_primary(&self) -> Result<u64> {
        let now = pollux_host::clock::now().0;
        self.primary.borrow_mut().kill().context("cannot kill the primary")?;
        self.primary.borrow_mut().wait()?;
        Ok(now)
    }

    /// Keeps the working folder and says where it is.
    pub fn keep(&self) -> PathBuf {
        if let Some(folder) = self.folder.borrow_mut().take() {
            return folder.keep();
        }
        self.path.clone()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for child in [&self.primary, &self.backup, &self.switch] {
            let mut child = child.borrow_mut();
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
