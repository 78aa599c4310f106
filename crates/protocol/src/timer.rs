//! When a side must be ticked next: one enum of all that waits for time to pass, one table of deadlines.
//!
//! A table is made from the state whenever it is wanted, so there is no timer that somebody forgot to stop; what a tick
//! finds expired and when the next tick is due are read from the same table, so they cannot disagree.

use crate::types::HostTime;

/// What waits for time to pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Timer {
    /// Nothing has been sent for so long that a sign of life is due.
    Heartbeat,
    /// A peer that is not heard by then counts as dead.
    Silence,
    /// A backup that was told to take over has had its time.
    Handover,
    /// The arbiter is to be asked (again).
    Claim,
}

impl Timer {
    const COUNT: usize = 4;
}

/// The deadlines of one side.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TimerTable {
    deadlines: [Option<HostTime>; Timer::COUNT],
}

impl TimerTable {
    /// `timer` expires at `at`, or earlier if something else has set it for earlier.
    #[must_use]
    pub(crate) fn with(mut self, timer: Timer, at: HostTime) -> Self {
        let deadline = &mut self.deadlines[timer as usize];
        *deadline = Some(deadline.map_or(at, |earlier| earlier.min(at)));
        self
    }

    /// Whether `timer` is set and has expired.
    pub(crate) fn is_expired(&self, timer: Timer, now: HostTime) -> bool {
        self.deadlines[timer as usize].is_some_and(|at| now >= at)
    }

    /// The first deadline of all.
    pub(crate) fn next(&self) -> Option<HostTime> {
        self.deadlines.iter().flatten().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_is_expired_from_its_first_deadline_on_and_one_that_is_not_set_never() {
        let none = TimerTable::default();
        assert_eq!(none.next(), None);
        assert!(!none.is_expired(Timer::Claim, HostTime(u64::MAX)));
        let table = none.with(Timer::Silence, HostTime(7)).with(Timer::Silence, HostTime(9));
        let table = table.with(Timer::Claim, HostTime(8));
        assert_eq!(table.next(), Some(HostTime(7)));
        assert!(
            !table.is_expired(Timer::Silence, HostTime(6)) && table.is_expired(Timer::Silence, HostTime(7))
        );
        assert!(
            !table.is_expired(Timer::Claim, HostTime(7)) && !table.is_expired(Timer::Heartbeat, HostTime(9))
        );
    }
}
