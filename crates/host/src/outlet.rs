//! Where released output leaves: a thread that writes to something that may stand still (a terminal, a pipe, a
//! switch), behind a bounded queue, so that the node never stands still with it.
//!
//! Invariants: [`Outlet::offer`] never waits for whoever reads; what is taken is written whole and in order; what
//! finds no room is lost whole and counted. The thread says so, not the node, when its reader reads again.
//!
//! Not here: what is written to (`console`, `net`, `pollux`'s own log).

use crate::rate::Rate;
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Frames that may wait.
const FRAMES_WAITING_MAX: usize = 65_536;
/// Bytes that may wait.
pub(crate) const BYTES_WAITING_MAX: usize = 4 << 20;
/// Bytes written at a time, if so many wait.
const BATCH_BYTES: usize = 64 * 1024;
/// How long what was taken may still be written when everything ends.
pub const LAST_WORDS: Duration = Duration::from_secs(1);

/// What an outlet is offered, and what it counts when it loses some.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Pieces of a stream: they may be joined.
    Bytes,
    /// Whole lines of a stream: they may be joined.
    Lines,
    /// Whole frames: each stays for itself.
    Frames,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Lines => "lines",
            Self::Frames => "frames",
        }
    }
}

#[derive(Debug, Default)]
struct Waiting {
    pieces: VecDeque<Vec<u8>>,
    bytes: usize,
    closed: bool,
}

#[derive(Debug)]
struct Queue {
    unit: Unit,
    waiting: Mutex<Waiting>,
    changed: Condvar,
    lost: AtomicU64,
}

/// A bounded queue and the thread that empties it. Dropping it gives the thread [`LAST_WORDS`].
#[derive(Debug)]
pub struct Outlet {
    queue: Arc<Queue>,
    /// Says nothing; closed when the thread ends.
    ended: Receiver<()>,
}

impl Outlet {
    /// Starts the thread `name`. `write` gets what waits, oldest first, and may take its time; it says whether it
    /// is to be called again.
    pub fn spawn(
        name: String,
        unit: Unit,
        mut write: impl FnMut(Vec<Vec<u8>>) -> bool + Send + 'static,
    ) -> io::Result<Self> {
        let (end, ended) = sync_channel(0);
        let (waiting, changed, lost) = Default::default();
        let queue = Arc::new(Queue { unit, waiting, changed, lost });
        let shared = queue.clone();
        std::thread::Builder::new().name(name.clone()).spawn(move || {
            let _end = end;
            let (mut told, mut rate) = (0, Rate::default());
            while let Some(batch) = shared.next_batch() {
                if !write(batch) {
                    shared.close();
                    return;
                }
                let lost = shared.lost.load(Ordering::Relaxed);
                // What is not said now is in the next number.
                if lost > told && rate.take().is_some() {
                    tracing::warn!("{name} stood still: {} {} for it were lost", lost - told, unit.name());
                    told = lost;
                }
            }
        })?;
        Ok(Self { queue, ended })
    }

    /// Takes `piece` if there is room. False: lost.
    pub fn offer(&self, piece: Vec<u8>) -> bool {
        let size = if self.queue.unit == Unit::Bytes { piece.len() as u64 } else { 1 };
        let taken = self.queue.take(piece);
        if !taken {
            self.queue.lost.fetch_add(size, Ordering::Relaxed);
        }
        taken
    }

    /// Nothing more will be offered: the thread ends when it has written what waits.
    pub fn close(&mut self) {
        self.queue.close();
    }

    /// After [`Outlet::close`], waits for the thread's end, at most until `deadline`. True: all is written.
    pub fn wait_closed(&self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        self.ended.recv_timeout(left) == Err(RecvTimeoutError::Disconnected)
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        if self.queue.close() {
            self.wait_closed(Instant::now() + LAST_WORDS);
        }
    }
}

impl Queue {
    /// Held for as long as it takes to move a piece: nobody waits for a reader with it.
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, piece: Vec<u8>) -> bool {
        let mut waiting = self.waiting();
        let has_room = waiting.bytes + piece.len() <= BYTES_WAITING_MAX
            && (self.unit != Unit::Frames || waiting.pieces.len() < FRAMES_WAITING_MAX);
        if waiting.closed || !has_room {
            return false;
        }
        waiting.bytes += piece.len();
        // A serial port makes a piece of every character: alone, each would cost many times its size.
        let joined = match waiting.pieces.back_mut() {
            Some(last) if self.unit != Unit::Frames && last.len() + piece.len() <= BATCH_BYTES => {
                last.extend_from_slice(&piece);
                true
            }
            _ => false,
        };
        if !joined {
            waiting.pieces.push_back(piece);
        }
        drop(waiting);
        self.changed.notify_one();
        true
    }

    /// True if it was open.
    fn close(&self) -> bool {
        let was_closed = std::mem::replace(&mut self.waiting().closed, true);
        self.changed.notify_one();
        !was_closed
    }

    /// What waits, as far as it makes one batch; waits for the first piece. `None` when there will be no more.
    fn next_batch(&self) -> Option<Vec<Vec<u8>>> {
        let mut waiting = self.waiting();
        while waiting.pieces.is_empty() {
            if waiting.closed {
                return None;
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while bytes < BATCH_BYTES
            && let Some(piece) = waiting.pieces.pop_front()
        {
            bytes += piece.len();
            batch.push(piece);
        }
        waiting.bytes -= bytes;
        Some(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Sender, channel};

    /// An outlet that writes nothing until the sender is dropped, and what it has written then.
    fn held_up(unit: Unit) -> (Outlet, Sender<()>, Receiver<Vec<Vec<u8>>>) {
        let (go, gate) = channel::<()>();
        let (written, seen) = channel();
        let outlet = Outlet::spawn("outlet".into(), unit, move |batch| {
            let _ = gate.recv();
            written.send(batch).is_ok()
        });
        (outlet.expect("a thread"), go, seen)
    }

    #[test]
    fn an_outlet_that_stands_still_loses_whole_pieces_and_waits_for_nobody() {
        let (outlet, go, seen) = held_up(Unit::Frames);
        let piece = |n: usize| (n as u64).to_le_bytes().repeat(128);
        let taken: Vec<usize> = (0..8000).filter(|n| outlet.offer(piece(*n))).collect();
        assert!((4096..8000).contains(&taken.len()), "{} of 8000 KiB", taken.len());
        drop(go);
        drop(outlet);
        let got: Vec<Vec<u8>> = seen.into_iter().flatten().collect();
        assert_eq!(got, taken.into_iter().map(piece).collect::<Vec<_>>());
    }

    #[test]
    fn what_waits_for_a_console_is_bounded_in_bytes_however_small_its_pieces_are() {
        let (outlet, go, seen) = held_up(Unit::Bytes);
        let taken = (0..BYTES_WAITING_MAX + 3 * BATCH_BYTES).filter(|n| outlet.offer(vec![*n as u8])).count();
        assert!(taken >= BYTES_WAITING_MAX, "{taken} characters");
        assert_eq!(
            outlet.queue.lost.load(Ordering::Relaxed),
            (BYTES_WAITING_MAX + 3 * BATCH_BYTES - taken) as u64
        );
        assert!(outlet.queue.waiting().pieces.len() <= BYTES_WAITING_MAX / BATCH_BYTES + 1, "joined");
        drop(go);
        drop(outlet);
        let got: Vec<u8> = seen.into_iter().flatten().flatten().collect();
        assert!(got.iter().enumerate().all(|(n, byte)| *byte == n as u8) && got.len() == taken);
    }
}
