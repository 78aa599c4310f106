//! Failure detection: silence, measured by ticks (DESIGN 5; Scales et al. 2010, 2.3).
//!
//! A process that was itself stopped (SIGSTOP, a paused cloud VM) has heard nothing because it did not listen, so
//! after a pause it first listens for a while. It does so once for each silence: a process that is always slow must
//! still find out that the other side is dead. What it may *release* after a pause is [`Silence::is_away`]'s business.
//!
//! Bytes of a message that is not whole yet are signs of life, too: on a slow link a large message takes long. They put a
//! death off, for so long after the last whole message, and nothing else: no right to run is counted from them
//! ([`Silence::assured_until`]).

use crate::types::HostTime;

/// Watches one direction of the link, and this process itself.
#[derive(Clone, Hash, Debug)]
pub(crate) struct Silence {
    failure_after_ns: u64,
    /// Bytes alone are signs of life for so long after the last whole message.
    bytes_for_ns: u64,
    /// When the other side gave the last sign of life.
    heard_at: HostTime,
    /// When its last whole message came.
    told_at: HostTime,
    ticked_at: HostTime,
    /// Whether this silence has been extended because this process was away.
    extended: bool,
}

impl Silence {
    pub(crate) fn new(failure_after_ns: u64, bytes_for_ns: u64, now: HostTime) -> Self {
        Self { failure_after_ns, bytes_for_ns, heard_at: now, told_at: now, ticked_at: now, extended: false }
    }

    /// The other side said something, whatever it was: it lives.
    pub(crate) fn handle_sound(&mut self, now: HostTime) {
        self.heard_at = now;
        self.told_at = now;
        self.extended = false;
    }

    /// Rule: bytes are signs of life. The other side lives, or its words are still on their way: either way it is too
    /// early to call it dead. One that never ends a message is not waited for beyond the bound.
    pub(crate) fn handle_bytes(&mut self, now: HostTime) {
        if now.since(self.told_at) < self.bytes_for_ns {
            self.heard_at = self.heard_at.max(now);
            self.extended = false;
        }
    }

    /// Rule: who was away listens before it judges. Half a timeout is given to what queued up meanwhile.
    pub(crate) fn handle_tick(&mut self, now: HostTime) {
        let grace_ns = self.failure_after_ns / 2;
        if now.since(self.ticked_at) > grace_ns && !self.extended {
            self.extended = true;
            let latest = HostTime(now.0.saturating_sub(self.failure_after_ns - grace_ns));
            self.heard_at = self.heard_at.max(latest);
            self.told_at = self.told_at.max(latest);
        }
        self.ticked_at = now;
    }

    /// Whether this process has not ticked for so long that the other side must have given it up.
    pub(crate) fn is_away(&self, now: HostTime) -> bool {
        now >= self.away_at()
    }

    /// From when on it is, if it does not tick.
    pub(crate) fn away_at(&self) -> HostTime {
        self.ticked_at.after(self.failure_after_ns)
    }

    /// Whether the other side counts as dead.
    pub(crate) fn is_dead(&self, now: HostTime) -> bool {
        now.since(self.heard_at) >= self.failure_after_ns
    }

    /// Rule: only whole messages assure a side of its place. Bytes tell neither the generation of who sends them nor that
    /// it still listens: a backup that has gone live sends some as well.
    pub(crate) fn assured_until(&self) -> HostTime {
        self.told_at.after(self.failure_after_ns)
    }

    /// When the other side counts as dead, if nothing more is heard of it.
    pub(crate) fn deadline(&self) -> HostTime {
        self.heard_at.after(self.failure_after_ns)
    }
}

/// When to ask the arbiter, again and again. Asking twice does no harm: the same holder wins twice.
#[derive(Clone, Hash, Debug)]
pub(crate) struct Asking {
    retry_ns: u64,
    retry_max_ns: u64,
    again_at: HostTime,
}

impl Asking {
    /// The first question has just been put.
    pub(crate) fn begun(now: HostTime, retry_ns: u64, retry_max_ns: u64) -> Self {
        let retry_max_ns = retry_max_ns.max(1);
        Self { retry_ns: retry_ns.clamp(1, retry_max_ns), retry_max_ns, again_at: now.after(retry_max_ns) }
    }

    /// The first question is to be put later.
    pub(crate) fn put_off(&mut self, until: HostTime) {
        self.again_at = until;
    }

    /// The arbiter could not be reached.
    pub(crate) fn handle_unreachable(&mut self, now: HostTime) {
        self.again_at = now.after(self.retry_ns);
        self.retry_ns = self.retry_ns.saturating_mul(2).min(self.retry_max_ns);
    }

    /// Whether to ask again now. A question that nobody answers is put again after the longest wait.
    pub(crate) fn is_due(&mut self, now: HostTime) -> bool {
        let due = now >= self.again_at;
        if due {
            self.again_at = now.after(self.retry_max_ns);
        }
        due
    }

    pub(crate) fn next(&self) -> HostTime {
        self.again_at
    }
}
