//! Liveness is not progress: a side that heartbeats and acknowledges may still get nowhere, because a disk under it hangs.
//!
//! Not here: what follows from that (`primary`, `backup`).

use crate::types::HostTime;

/// Watches something that is to change as long as there is work.
#[derive(Clone, Hash, Debug)]
pub(crate) struct Stall<T> {
    after_ns: u64,
    /// Time between two looks counts up to this: a process that was away has not looked.
    step_ns: u64,
    looked_at: HostTime,
    seen: Option<T>,
    stuck_ns: u64,
}

impl<T: PartialEq> Stall<T> {
    pub(crate) fn new(after_ns: u64, step_ns: u64, now: HostTime) -> Self {
        Self { after_ns, step_ns, looked_at: now, seen: None, stuck_ns: 0 }
    }

    /// How far it is now; `None`: there is no work. True: it has stood still for too long.
    pub(crate) fn look(&mut self, now: HostTime, at: Option<T>) -> bool {
        let passed_ns = now.since(self.looked_at).min(self.step_ns);
        self.looked_at = now;
        self.stuck_ns = match &at {
            Some(_) if self.seen == at => self.stuck_ns.saturating_add(passed_ns),
            _ => 0,
        };
        self.seen = at;
        self.stuck_ns >= self.after_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_time_that_was_looked_at_with_work_and_without_progress_counts() {
        let mut stall = Stall::new(100, 50, HostTime(0));
        assert!(!stall.look(HostTime(40), Some(1)), "it has just begun");
        assert!(!stall.look(HostTime(80), Some(1)));
        assert!(!stall.look(HostTime(130), Some(2)), "progress");
        assert!(!stall.look(HostTime(180), None) && !stall.look(HostTime(200), Some(2)), "no work");
        assert!(!stall.look(HostTime(900), Some(2)), "it was away");
        assert!(!stall.look(HostTime(949), Some(2)));
        assert!(stall.look(HostTime(950), Some(2)));
    }
}
