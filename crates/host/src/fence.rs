//! The fence: what has been released may still be on its way through a thread when this side loses the right to
//! run. A writer thread asks the fence before each piece of work, so that at most the piece in progress is done
//! by a side that has been replaced (DESIGN 5, "at most one runs"; DESIGN 6, shared disks).
//!
//! ```text
//!  Open ── this side claims ──► Held ── Won ──► Open
//!    └──────── the VM has ended, this side has lost ────────► Ended
//! ```
//!
//! An open fence holds, too, from the moment on until which the node was sure to be the one that runs: a process that
//! slept wakes with all its threads, and the others must not be faster than the node, which finds out that it was away.
//!
//! Not here: when this side claims and wins (`pollux-protocol`); who works behind a fence (`disk`, `net`).

use crate::clock;
use pollux_node::HostTime;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often a thread looks whether the node is sure again.
const LOOK_EVERY: Duration = Duration::from_millis(5);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Open,
    Held,
    Ended,
}

/// Stands between a queue and the world.
#[derive(Debug)]
pub struct Fence {
    state: Mutex<State>,
    changed: Condvar,
    /// Until when the node is sure that nobody has taken its place, in host nanoseconds; at first, and in the end, for
    /// ever.
    sure_until_ns: AtomicU64,
}

impl Default for Fence {
    fn default() -> Self {
        Self {
            state: Mutex::new(State::Open),
            changed: Condvar::new(),
            sure_until_ns: AtomicU64::new(u64::MAX),
        }
    }
}

impl Fence {
    /// This side asks for the right to go on: nothing more is begun until it is known.
    pub fn hold(&self) {
        self.change(State::Held);
    }

    /// This side has the right to go on.
    pub fn open(&self) {
        self.change(State::Open);
    }

    /// Nothing is begun ever again.
    pub fn end(&self) {
        self.change(State::Ended);
    }

    /// The node has taken a turn, what it found out has been told to this fence, and this is how long it is sure.
    pub fn set_sure_until(&self, sure_until: HostTime) {
        self.sure_until_ns.store(sure_until.0, Ordering::Release);
    }

    /// The node takes no more turns, in good order: its silence means nothing from here on.
    pub fn be_sure_for_ever(&self) {
        self.set_sure_until(HostTime(u64::MAX));
    }

    /// Waits until a piece of work may be begun. False: never again.
    pub fn pass(&self) -> bool {
        let mut state = self.state();
        loop {
            state = match *state {
                State::Ended => return false,
                State::Open if self.is_sure(clock::now()) => return true,
                State::Open => {
                    let waited = self.changed.wait_timeout(state, LOOK_EVERY);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                State::Held => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn is_sure(&self, now: HostTime) -> bool {
        now.0 < self.sure_until_ns.load(Ordering::Acquire)
    }

    fn change(&self, to: State) {
        let mut state = self.state();
        if *state != State::Ended {
            *state = to;
        }
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_ended_stays_ended() {
        let fence = Fence::default();
        assert!(fence.pass());
        fence.end();
        fence.open();
        assert!(!fence.pass());
    }

    #[test]
    fn a_node_that_slept_holds_its_threads_until_it_has_taken_a_turn() {
        let (fence, late) = (Fence::default(), HostTime(u64::MAX - 1));
        assert!(fence.is_sure(late), "at first it is sure for ever");
        fence.set_sure_until(HostTime(1_000));
        assert!(fence.is_sure(HostTime(999)));
        assert!(!fence.is_sure(HostTime(1_000)));
        fence.be_sure_for_ever();
        assert!(fence.is_sure(late));
    }
}
