//! Where released output leaves: a thread that writes to something that may stand still (a terminal, a pipe, a
//! switch), behind a bounded queue, so that the node never stands still with it.
//!
//! Invariants: [`Outlet::offer`] never waits; what is taken is written whole and in order; what finds no room is
//! lost whole and counted. The thread says so, not the node: a log may stand still like any other terminal.
//!
//! Not here: what is written to (`console`, `net`).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Pieces that may wait; a serial port makes one of every character.
const PIECES_WAITING_MAX: usize = 65_536;
/// Bytes that may wait.
const BYTES_WAITING_MAX: usize = 4 << 20;
/// Bytes written at a time, if so many wait.
const BATCH_BYTES: usize = 64 * 1024;
/// How long what was taken may still be written when everything ends.
pub const LAST_WORDS: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Counts {
    waiting_bytes: AtomicUsize,
    lost: AtomicU64,
}

/// A bounded queue and the thread that empties it. Dropping it gives the thread [`LAST_WORDS`].
#[derive(Debug)]
pub struct Outlet {
    queue: Option<SyncSender<Vec<u8>>>,
    counts: Arc<Counts>,
    /// Says nothing; closed when the thread ends.
    ended: Receiver<()>,
}

impl Outlet {
    /// Starts the thread `name`. `write` gets what waits, oldest first, and may take its time; it says whether it
    /// is to be called again.
    pub fn spawn(
        name: String,
        mut write: impl FnMut(Vec<Vec<u8>>) -> bool + Send + 'static,
    ) -> io::Result<Self> {
        let (queue, inbox) = sync_channel(PIECES_WAITING_MAX);
        let (end, ended) = sync_channel(0);
        let counts = Arc::<Counts>::default();
        let shared = counts.clone();
        std::thread::Builder::new().name(name.clone()).spawn(move || {
            let _end = end;
            let mut told = 0;
            while let Some(batch) = next_batch(&inbox, &shared) {
                if !write(batch) {
                    return;
                }
                let lost = shared.lost.load(Ordering::Relaxed);
                if lost > told {
                    tracing::warn!(lost = lost - told, "{name} stood still; output for it was lost");
                    told = lost;
                }
            }
        })?;
        Ok(Self { queue: Some(queue), counts, ended })
    }

    /// Takes `piece` if there is room. False: lost.
    pub fn offer(&self, piece: Vec<u8>) -> bool {
        let taken = self.queue.as_ref().is_some_and(|queue| {
            let bytes = piece.len();
            let waiting = self.counts.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
            let taken = waiting + bytes <= BYTES_WAITING_MAX && queue.try_send(piece).is_ok();
            if !taken {
                self.counts.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            }
            taken
        });
        if !taken {
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    /// Nothing more will be offered: the thread ends when it has written what waits.
    pub fn close(&mut self) {
        self.queue = None;
    }

    /// After [`Outlet::close`], waits for the thread's end, at most until `deadline`. True: all is written.
    pub fn wait_closed(&self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        self.ended.recv_timeout(left) == Err(RecvTimeoutError::Disconnected)
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        if self.queue.take().is_some() {
            self.wait_closed(Instant::now() + LAST_WORDS);
        }
    }
}

/// What waits, as far as it makes one batch; waits for the first piece. `None` when there will be no more.
fn next_batch(inbox: &Receiver<Vec<u8>>, counts: &Counts) -> Option<Vec<Vec<u8>>> {
    let mut batch = vec![inbox.recv().ok()?];
    let mut bytes = batch[0].len();
    while bytes < BATCH_BYTES {
        let Ok(piece) = inbox.try_recv() else { break };
        bytes += piece.len();
        batch.push(piece);
    }
    counts.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
    Some(batch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn an_outlet_that_stands_still_loses_whole_pieces_and_waits_for_nobody() {
        let (go, gate) = channel::<()>();
        let (written, seen) = channel();
        let outlet = Outlet::spawn("outlet".into(), move |batch| {
            let _ = gate.recv();
            written.send(batch).is_ok()
        })
        .expect("a thread");
        let piece = |n: usize| (n as u64).to_le_bytes().repeat(128);
        let taken: Vec<usize> = (0..8000).filter(|n| outlet.offer(piece(*n))).collect();
        assert!((4096..8000).contains(&taken.len()), "{} of 8000 KiB", taken.len());
        drop(go);
        drop(outlet);
        let got: Vec<Vec<u8>> = seen.into_iter().flatten().collect();
        assert_eq!(got, taken.into_iter().map(piece).collect::<Vec<_>>());
    }
}
