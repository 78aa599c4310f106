//! Failure detection: silence, measured by ticks (DESIGN 5).
//!
//! A process that was itself stopped (SIGSTOP, a paused cloud VM) has heard nothing because it did not listen, so
//! after a pause it first listens for a while. What it may *release* after a long pause is [`Silence::slept`]'s business.

use crate::types::HostTime;

/// Watches one direction of the link, and this process itself.
#[derive(Clone, Debug)]
pub(crate) struct Silence {
    failure_after_ns: u64,
    heard_at: HostTime,
    ticked_at: HostTime,
    lost: bool,
}

impl Silence {
    pub(crate) fn new(failure_after_ns: u64, now: HostTime) -> Self {
        Self { failure_after_ns, heard_at: now, ticked_at: now, lost: false }
    }

    pub(crate) fn handle_sound(&mut self, now: HostTime) {
        self.heard_at = now;
    }

    pub(crate) fn handle_link_lost(&mut self) {
        self.lost = true;
    }

    /// Called at every tick. True if this process was away for so long that the other side must have given it up.
    pub(crate) fn slept(&mut self, now: HostTime) -> bool {
        let away = now.since(self.ticked_at);
        self.ticked_at = now;
        if away > self.failure_after_ns / 2 {
            let grace = self.failure_after_ns / 2;
            self.heard_at = self.heard_at.max(HostTime(now.0.saturating_sub(self.failure_after_ns - grace)));
        }
        away >= self.failure_after_ns
    }

    /// Whether the other side counts as dead.
    pub(crate) fn is_dead(&self, now: HostTime) -> bool {
        self.lost || now.since(self.heard_at) >= self.failure_after_ns
    }

    pub(crate) fn deadline(&self) -> HostTime {
        self.heard_at.after(self.failure_after_ns)
    }
}

/// When to ask the arbiter, again and again.
#[derive(Clone, Debug)]
pub(crate) struct Asking {
    retry_ns: u64,
    retry_max_ns: u64,
    again_at: Option<HostTime>,
}

impl Asking {
    /// The first question has just been put.
    pub(crate) fn begun(retry_ns: u64, retry_max_ns: u64) -> Self {
        Self { retry_ns, retry_max_ns, again_at: None }
    }

    /// The arbiter could not be reached.
    pub(crate) fn handle_unreachable(&mut self, now: HostTime) {
        self.again_at = Some(now.after(self.retry_ns));
        self.retry_ns = (self.retry_ns * 2).min(self.retry_max_ns);
    }

    /// Whether to ask again now.
    pub(crate) fn is_due(&mut self, now: HostTime) -> bool {
        let due = self.again_at.is_some_and(|at| now >= at);
        if due {
            self.again_at = None;
        }
        due
    }

    pub(crate) fn next(&self) -> Option<HostTime> {
        self.again_at
    }
}
