//! The loss of the arbiter's storage for one process, for tests and `pollux chaos`: what a host sees whose mount does not
//! answer while the other host's does.
//!
//! Only a process that is started with [`VARIABLE`] in its environment has it.

use rustix::io::Errno;
use std::io;
use std::path::Path;

/// The environment variable that names a file. While that is there, the arbiter cannot be reached.
pub const VARIABLE: &str = "POLLUX_ARBITER_FAULT";

/// Call before the storage is read.
pub(super) fn strike() -> io::Result<()> {
    std::env::var_os(VARIABLE).map_or(Ok(()), |path| strike_of(path.as_ref()))
}

fn strike_of(path: &Path) -> io::Result<()> {
    if path.exists() { Err(Errno::TIMEDOUT.into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arbiter_is_away_while_the_file_is_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("away");
        assert!(strike_of(&file).is_ok() && strike().is_ok());
        std::fs::write(&file, "").expect("room");
        assert_eq!(strike_of(&file).expect_err("away").kind(), io::ErrorKind::TimedOut);
    }
}
