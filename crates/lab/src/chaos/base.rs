//! What most rounds start from: a guest that has booted once, alone, and been recorded until redis answered. The recording
//! is replayed into a snapshot, and the disk kept; a round then costs no boot.

use super::clients::wait_ready;
use super::pair::Hub;
use crate::guest_files::GuestFiles;
use crate::processes::spawn_within;
use anyhow::{Context, Result, bail, ensure};
use pollux_host::control::{Request, ask};
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

/// How long the guest is left alone before it is recorded no more.
const REST: Duration = Duration::from_millis(500);

/// A guest that has booted.
pub struct Base {
    _folder: tempfile::TempDir,
    /// Its machine.
    pub snapshot: PathBuf,
    /// Its disk at that moment.
    pub disk: PathBuf,
}

/// A process that ends with this value.
struct Guarded(RefCell<Child>);

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.get_mut().kill();
        let _ = self.0.get_mut().wait();
    }
}

/// The flags of a machine that is started from reset.
pub fn from_reset(command: &mut Command, guest: &GuestFiles, memory: &str, harts: u32) {
    command.args(["--memory", memory, "--harts", &harts.to_string(), "--append", &guest.command_line]);
    for (flag, path) in [("--kernel", &guest.kernel), ("--initrd", &guest.initrd)] {
        if let Some(path) = path {
            command.arg(flag).arg(path);
        }
    }
}

impl Base {
    /// Boots a guest with so many harts, in a folder of its own in `work`.
    pub fn boot(
        guest: &GuestFiles,
        memory: &str,
        harts: u32,
        work: &Path,
        patience: Duration,
    ) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("pollux-chaos-base").tempdir_in(work)?;
        let path = folder.path();
        let (disk, log) = (path.join("disk.img"), path.join("boot.log"));
        pollux_image::fresh_disk_copy(guest.disk.as_ref().context("the guest has no disk")?, &disk)?;
        let address = format!("unix:{}", path.join("switch.sock").display());
        let hub = Hub::start(address.parse().map_err(|e| anyhow::anyhow!("{address}: {e}"))?, guest.forward)?;
        let recorder = spawn_within(path, "record", &[], |c| {
            c.args(["record", "--name", "vm", "--console", "none", "--log"]).arg(&log);
            c.arg("--disk").arg(&disk).args(["--net", &format!("switch={address}")]);
            from_reset(c, guest, memory, harts);
        })?;
        let recorder = Guarded(RefCell::new(recorder));
        wait_ready(hub.service, patience, || match recorder.0.borrow_mut().try_wait()? {
            Some(status) => bail!("the recorded guest ended too early ({status})"),
            None => Ok(()),
        })?;
        std::thread::sleep(REST);
        ask(&path.join("vm.sock"), Request::Stop)?;
        let status = recorder.0.borrow_mut().wait()?;
        ensure!(status.success(), "the recording ended with {status}");
        let snapshot = path.join("snapshot");
        let mut replay = spawn_within(path, "replay", &[], |c| {
            c.args(["replay", "--quiet", "--snapshot"]).arg(&snapshot).arg(&log);
        })?;
        ensure!(replay.wait()?.success(), "the recording does not replay");
        std::fs::remove_file(&log)?;
        Ok(Self { _folder: folder, snapshot, disk })
    }
}
