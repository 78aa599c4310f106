//! The fence for threads: the node's state machine (`pollux_node::fence`) behind a lock, asked by this host's clock. A
//! writer thread asks it before each piece of work, and waits until that may be begun.
//!
//! Not here: what passes and when (`pollux_node::fence`); who works behind a fence (`disk`, `net`).

use crate::clock;
use pollux_node::HostTime;
use pollux_node::fence::{self, Passage};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often a thread looks whether the lease has been renewed. Nobody is woken for that: it happens every turn.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Stands between a queue and the world.
#[derive(Debug, Default)]
pub struct Fence {
    core: Mutex<fence::Fence>,
    changed: Condvar,
}

impl Fence {
    /// Another side may be given the right to run from here on: nothing more is begun until this one has won.
    pub fn hold(&self) {
        self.core().hold();
        self.changed.notify_all();
    }

    /// This side has the right to run.
    pub fn open(&self) {
        self.core().open();
        self.changed.notify_all();
    }

    /// Nothing is begun ever again.
    pub fn end(&self) {
        self.core().end();
        self.changed.notify_all();
    }

    /// The node has taken a turn, what it found out has been told to this fence, and its lease runs until then.
    pub fn set_lease(&self, until: HostTime) {
        self.core().set_lease(until);
    }

    /// The node takes no more turns, in good order: its silence means nothing from here on.
    pub fn set_lease_for_ever(&self) {
        self.core().set_lease_for_ever();
    }

    /// Waits until a piece of work may be begun. False: never again.
    pub fn pass(&self) -> bool {
        let mut core = self.core();
        loop {
            core = match core.passage(clock::now()) {
                Passage::Free => return true,
                Passage::Ended => return false,
                Passage::Held => self.changed.wait(core).unwrap_or_else(PoisonError::into_inner),
                Passage::Lapsed => {
                    let waited = self.changed.wait_timeout(core, LOOK_EVERY);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            }
        }
    }

    /// Held for as long as it takes to look or to change: nobody works with it.
    fn core(&self) -> MutexGuard<'_, fence::Fence> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn what_has_ended_stays_ended() {
        let fence = Fence::default();
        assert!(fence.pass());
        fence.end();
        fence.open();
        assert!(!fence.pass());
    }

    /// A thread that waits at the fence, and whether it got through.
    fn waiting(fence: &Arc<Fence>) -> std::thread::JoinHandle<bool> {
        let fence = fence.clone();
        std::thread::spawn(move || fence.pass())
    }

    #[test]
    fn a_node_that_slept_holds_its_threads_until_it_has_taken_a_turn() {
        let fence = Arc::new(Fence::default());
        fence.set_lease(HostTime(0));
        let thread = waiting(&fence);
        std::thread::sleep(4 * LOOK_EVERY);
        assert!(!thread.is_finished(), "the lease has run out");
        fence.set_lease_for_ever();
        assert!(thread.join().expect("no panic"), "it has been renewed");
    }

    #[test]
    fn a_thread_that_waits_at_a_held_fence_goes_on_when_that_opens_and_leaves_when_it_ends() {
        for (opens, passes) in [(true, true), (false, false)] {
            let fence = Arc::new(Fence::default());
            fence.hold();
            let thread = waiting(&fence);
            std::thread::sleep(2 * LOOK_EVERY);
            assert!(!thread.is_finished(), "held");
            if opens {
                fence.open()
            } else {
                fence.end()
            }
            assert_eq!(thread.join().expect("no panic"), passes);
        }
    }
}
