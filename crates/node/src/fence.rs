//! The fence: what has been released may still be on its way when this side loses the right to run. Whoever carries it
//! out asks the fence before each piece of work, so that at most the piece in progress is done by a side that has been
//! replaced (DESIGN 5, "at most one runs"; DESIGN 6, shared disks).
//!
//! ```text
//!  Open ── this side may be replaced ──► Held ── Won ──► Open
//!    └──────── the VM has ended, this side has lost ────────► Ended
//! ```
//!
//! An open fence lets nothing through, either, once the lease has run out: a process that slept wakes with all its
//! threads, and the others must not be faster than the node, which finds out that it was away.
//!
//! A driver keeps one fence for each thing that is shared with the other side, and tells all of them what the node says
//! ([`crate::Ports::hold_fences`], [`crate::Ports::open_fences`], [`crate::Ports::set_lease`]).
//!
//! Not here: when this side may be replaced and how long its lease is (`pollux-protocol`); who waits at a fence, and how
//! (`host`, `sim`).

use pollux_protocol::HostTime;

/// Until the end of time.
const FOR_EVER: HostTime = HostTime(u64::MAX);

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum State {
    Open,
    Held,
    Ended,
}

/// Whether a piece of work may be begun.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Passage {
    /// It may.
    Free,
    /// Not before the fence is opened.
    Held,
    /// Not before the node has renewed the lease.
    Lapsed,
    /// Never again.
    Ended,
}

/// Stands between a queue and the world.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Fence {
    state: State,
    /// Until when nobody can have taken this side's place.
    lease: HostTime,
}

impl Default for Fence {
    /// Open for ever: nobody else has a right to what stands behind it yet.
    fn default() -> Self {
        Self { state: State::Open, lease: FOR_EVER }
    }
}

impl Fence {
    /// Another side may be given the right to run from here on: nothing more is begun until this one has won.
    pub fn hold(&mut self) {
        self.change(State::Held);
    }

    /// This side has the right to run.
    pub fn open(&mut self) {
        self.change(State::Open);
    }

    /// Nothing is begun ever again.
    pub fn end(&mut self) {
        self.change(State::Ended);
    }

    /// Rule: what has ended stays ended.
    fn change(&mut self, to: State) {
        if self.state != State::Ended {
            self.state = to;
        }
    }

    /// The node has taken a turn; what it found out has been told to this fence, and its lease runs until then.
    pub fn set_lease(&mut self, until: HostTime) {
        self.lease = until;
    }

    /// The node takes no more turns, in good order: its silence means nothing from here on.
    pub fn set_lease_for_ever(&mut self) {
        self.lease = FOR_EVER;
    }

    /// Whether a piece of work may be begun now.
    #[must_use]
    pub fn passage(&self, now: HostTime) -> Passage {
        match self.state {
            State::Ended => Passage::Ended,
            State::Held => Passage::Held,
            // Rule: what was released leaves only as long as the lease runs.
            State::Open if now >= self.lease => Passage::Lapsed,
            State::Open => Passage::Free,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: HostTime = HostTime(1_000);

    #[test]
    fn nothing_passes_from_when_a_side_may_be_replaced_until_it_has_won() {
        let mut fence = Fence::default();
        assert_eq!(fence.passage(NOW), Passage::Free, "at first the right is nobody else's");
        fence.hold();
        assert_eq!(fence.passage(NOW), Passage::Held);
        fence.set_lease_for_ever();
        assert_eq!(fence.passage(NOW), Passage::Held, "a lease opens nothing");
        fence.open();
        assert_eq!(fence.passage(NOW), Passage::Free);
    }

    #[test]
    fn an_open_fence_lets_nothing_through_once_the_lease_has_run_out() {
        let (mut fence, late) = (Fence::default(), HostTime(u64::MAX - 1));
        assert_eq!(fence.passage(late), Passage::Free, "at first it runs for ever");
        fence.set_lease(NOW);
        assert_eq!(fence.passage(HostTime(NOW.0 - 1)), Passage::Free);
        assert_eq!(fence.passage(NOW), Passage::Lapsed);
        fence.set_lease(NOW.after(1));
        assert_eq!(fence.passage(NOW), Passage::Free, "renewed");
        fence.set_lease_for_ever();
        assert_eq!(fence.passage(late), Passage::Free);
    }

    #[test]
    fn what_has_ended_stays_ended_whatever_it_is_told() {
        let mut fence = Fence::default();
        fence.end();
        fence.open();
        fence.set_lease_for_ever();
        assert_eq!(fence.passage(NOW), Passage::Ended);
        fence.hold();
        assert_eq!(fence.passage(NOW), Passage::Ended);
    }
}
