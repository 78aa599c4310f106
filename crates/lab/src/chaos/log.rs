//! The log of a side: a pipe, and behind it a thread that writes it down, unless it is told to stand still.

use anyhow::{Context, Result};
use rustix::fs::OFlags;
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often a thread that stands still looks whether it is to go on, and how long one that reads may take to stop.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A log; it is written down to its end when the value and the side are gone.
pub struct Log {
    writer: PipeWriter,
    stalled: Arc<AtomicBool>,
}

impl Log {
    /// Writes to `path`.
    pub fn start(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        let (reader, writer) = std::io::pipe()?;
        let stalled = Arc::<AtomicBool>::default();
        let stop = stalled.clone();
        std::thread::Builder::new().name("log".into()).spawn(move || write_down(reader, file, &stop))?;
        Ok(Self { writer, stalled })
    }

    /// For a side's standard error.
    pub fn stdio(&self) -> Result<Stdio> {
        Ok(self.writer.try_clone()?.into())
    }

    /// From now on the pipe is full, and nobody reads.
    pub fn stall(&self) -> Result<()> {
        self.stalled.store(true, Ordering::Relaxed);
        // Opened anew: the side's own end keeps its flags.
        let path = format!("/proc/self/fd/{}", self.writer.as_raw_fd());
        let flags = OFlags::NONBLOCK.bits() as i32;
        let mut full = File::options().write(true).custom_flags(flags).open(path)?;
        for _ in 0..3 {
            while full.write(&[b'\n'; 512]).is_ok() {}
            // A read that had begun has ended by then.
            std::thread::sleep(2 * LOOK_EVERY);
        }
        Ok(())
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.stalled.store(false, Ordering::Relaxed);
    }
}

fn write_down(mut reader: PipeReader, mut file: File, stalled: &AtomicBool) {
    let mut bytes = [0; 4096];
    loop {
        while stalled.load(Ordering::Relaxed) {
            std::thread::sleep(LOOK_EVERY);
        }
        match reader.read(&mut bytes) {
            Ok(read @ 1..) => drop(file.write_all(&bytes[..read])),
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_log_that_stands_still_takes_nothing_until_it_is_let_go() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let log = Log::start(&path).expect("a thread");
        log.stall().expect("a pipe");
        let mut side = log.writer.try_clone().expect("a descriptor");
        let said = std::thread::spawn(move || side.write_all(b"at last"));
        std::thread::sleep(10 * LOOK_EVERY);
        assert!(!said.is_finished(), "who writes blockingly waits");
        drop(log);
        said.join().expect("no panic").expect("written");
        let begun = Instant::now();
        while !std::fs::read_to_string(&path).expect("there").ends_with("at last") {
            assert!(begun.elapsed() < Duration::from_secs(20));
            std::thread::sleep(LOOK_EVERY);
        }
    }
}
