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
    sign_at: HostTime,
    /// When its last whole message was received.
    received_at: HostTime,
    ticked_at: HostTime,
    /// Whether this silence has been extended because this process was away.
    extended: bool,
}

impl Silence {
    pub(crate) fn new(failure_after_ns: u64, bytes_for_ns: u64, now: HostTime) -> Self {
        Self {
            failure_after_ns,
            bytes_for_ns,
            sign_at: now,
            received_at: now,
            ticked_at: now,
            extended: false,
        }
    }

    /// The other side has sent a whole message, whatever it is: it lives.
    pub(crate) fn handle_received(&mut self, now: HostTime) {
        self.sign_at = now;
        self.received_at = now;
        self.extended = false;
    }

    /// Rule: bytes are signs of life. The other side lives, or what it sends is still on its way: either way it is too
    /// early to call it dead. One that never ends a message is not waited for beyond the bound.
    pub(crate) fn handle_bytes(&mut self, now: HostTime) {
        if now.since(self.received_at) < self.bytes_for_ns {
            self.sign_at = self.sign_at.max(now);
            self.extended = false;
        }
    }

    /// Rule: who was away listens before it judges. Half a timeout is given to what queued up meanwhile.
    pub(crate) fn handle_tick(&mut self, now: HostTime) {
        let grace_ns = self.failure_after_ns / 2;
        if now.since(self.ticked_at) > grace_ns && !self.extended {
            self.extended = true;
            let latest = HostTime(now.0.saturating_sub(self.failure_after_ns - grace_ns));
            self.sign_at = self.sign_at.max(latest);
            self.received_at = self.received_at.max(latest);
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

    /// Silence after which the other side counts as dead.
    pub(crate) fn failure_after_ns(&self) -> u64 {
        self.failure_after_ns
    }

    /// Rule: only whole messages assure a side of its place. Bytes tell neither the generation of who sends them nor that
    /// it still listens: a backup that has gone live sends some as well.
    pub(crate) fn assured_until(&self) -> HostTime {
        self.received_at.after(self.failure_after_ns)
    }

    /// When the other side counts as dead, if nothing more is received from it.
    pub(crate) fn deadline(&self) -> HostTime {
        self.sign_at.after(self.failure_after_ns)
    }
}
