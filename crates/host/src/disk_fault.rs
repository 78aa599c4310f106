//! Faults of disks, for tests and `pollux chaos`: a file says what every disk of this process does at the moment.
//!
//! Only a process that is started with [`VARIABLE`] in its environment has them. The fault strikes in front of the
//! image, in the thread that serves it: to everything else it looks like a disk that hangs, is full, or is broken.

use pollux_vocab::DiskOp;
use rustix::io::Errno;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// The environment variable that names the file. It holds one of `hang`, `slow`, `full` and `fail`; if it is not
/// there, or holds anything else, disks work.
pub const VARIABLE: &str = "POLLUX_DISK_FAULT";
/// How often a hung disk looks whether it works again.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// What each request takes longer on a slow disk.
const SLOW: Duration = Duration::from_millis(20);

/// What strikes the disks of a process.
#[derive(Clone, Debug)]
pub(crate) struct DiskFaults(PathBuf);

impl DiskFaults {
    /// As the environment says.
    pub(crate) fn of_process() -> Option<Self> {
        std::env::var_os(VARIABLE).map(|path| Self(path.into()))
    }

    #[cfg(test)]
    pub(crate) fn of(path: PathBuf) -> Self {
        Self(path)
    }

    /// Call before a request is performed; it may take as long as the fault lasts.
    pub(crate) fn strike(&self, op: &DiskOp) -> io::Result<()> {
        loop {
            match std::fs::read_to_string(&self.0).unwrap_or_default().trim() {
                "hang" => std::thread::sleep(LOOK_EVERY),
                "slow" => {
                    std::thread::sleep(SLOW);
                    return Ok(());
                }
                "full" if !matches!(op, DiskOp::Read { .. } | DiskOp::Flush) => {
                    return Err(Errno::NOSPC.into());
                }
                "fail" => return Err(Errno::IO.into()),
                _ => return Ok(()),
            }
        }
    }
}
