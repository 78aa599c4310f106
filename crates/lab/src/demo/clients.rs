//! Two clients at work, whichever the guest: one counts through a single connection, one writes to disk. What they must
//! see is theirs to know (`redis`, `tiny`); when they stop, and what is judged, is here.

use super::history::{Exchange, Verdict};
use anyhow::{Context, Result, anyhow, ensure};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// The clients at work.
pub struct Clients {
    stop: Arc<AtomicBool>,
    counter: JoinHandle<Result<Vec<Exchange>>>,
    writer: JoinHandle<Result<u64>>,
    count_lost: Box<dyn FnOnce(u64) -> Result<usize>>,
}

impl Clients {
    /// Starts both. Each works until it is told to stop; `count_lost` then reads back what was written, so many times.
    pub fn start(
        count: impl FnOnce(&AtomicBool) -> Result<Vec<Exchange>> + Send + 'static,
        write: impl FnOnce(&AtomicBool) -> Result<u64> + Send + 'static,
        count_lost: impl FnOnce(u64) -> Result<usize> + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let counter = std::thread::spawn(move || count(&stopped));
        let stopped = stop.clone();
        let writer = std::thread::spawn(move || write(&stopped));
        Self { stop, counter, writer, count_lost: Box::new(count_lost) }
    }

    /// Fails if a client has given up.
    pub fn check_alive(&self) -> Result<()> {
        ensure!(!self.counter.is_finished() && !self.writer.is_finished(), "a client ended before the kill");
        Ok(())
    }

    /// Stops the clients and judges what they saw.
    pub fn finish(self, boot: Duration, killed_ns: u64) -> Result<Verdict> {
        self.stop.store(true, Ordering::Relaxed);
        let exchanges = self.counter.join().map_err(|_| anyhow!("the counting client crashed"))?;
        let written = self.writer.join().map_err(|_| anyhow!("the writing client crashed"))?;
        let exchanges = exchanges.context("the connection that counts did not survive")?;
        let written = written.context("the connection that writes did not survive")?;
        let lost = (self.count_lost)(written)?;
        Ok(Verdict::of_counter(&exchanges, killed_ns).and_writes(written as usize, lost).and_boot(boot))
    }
}
