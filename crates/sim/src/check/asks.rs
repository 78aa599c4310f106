//! Who may have been replaced asks first: a primary that has said nothing on the link for the failure timeout, by its
//! own clock, or that has claimed, lets nothing out before it has been told that it has won. A word counts from the look
//! at the clock before it, and only if the look behind it finds that it was said in time.
//!
//! Its backup counts silence from what it hears, so from then on it may be live. What leaves late contradicts nothing
//! if it had been acknowledged (`outputs`), so only the order of these events shows that nobody asked.
//!
//! Nor does a lease run for longer than the timeout after the last whole message of its peer's, whatever bytes
//! arrive; a pause gives it half of that to listen.
//!
//! What it cannot ask for: that a process looks at its clock between the decision to let an output out and the output.

use super::Broken;
use crate::fault::{HostId, NAMES};
use pollux_node::HostTime;

const NAME: &str = "who may have been replaced asks first";

/// One host, as its ports see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asks {
    failure_ns: u64,
    /// What the clock showed when it was last looked at.
    looked_at: HostTime,
    /// What it showed before the newest message that has left in time.
    spoke_at: HostTime,
    /// What it showed before the newest whole message that the host has taken in.
    heard_at: HostTime,
    /// A message has been sent since the last look.
    has_sent: bool,
    must: bool,
    has_won: bool,
}

impl Asks {
    pub(crate) fn new(failure_ns: u64, now: HostTime) -> Self {
        Self {
            failure_ns,
            looked_at: now,
            spoke_at: now,
            heard_at: now,
            has_sent: false,
            must: false,
            has_won: false,
        }
    }

    /// The host has looked at its clock.
    pub(crate) fn handle_look(&mut self, now: HostTime) {
        self.must |= now.0.saturating_sub(self.spoke_at.0) >= self.failure_ns;
        if std::mem::take(&mut self.has_sent) {
            self.spoke_at = self.looked_at;
        }
        self.looked_at = now;
    }

    /// It has sent a message.
    pub(crate) fn handle_sent(&mut self) {
        self.has_sent = true;
    }

    /// It has taken in a whole message of its peer's.
    pub(crate) fn handle_heard(&mut self) {
        self.heard_at = self.looked_at;
    }

    /// It has told its backup to take over.
    pub(crate) fn handle_handover(&mut self) {
        self.must = true;
    }

    /// It has claimed.
    pub(crate) fn handle_claim(&mut self) {
        self.must = true;
    }

    /// It has heard that it has won: it has no other side any more.
    pub(crate) fn handle_won(&mut self) {
        self.has_won = true;
    }

    /// Whether it has heard that.
    pub(crate) fn has_won(&self) -> bool {
        self.has_won
    }

    /// It has taken a turn, and its lease runs until then: what it has released may leave as long.
    pub(crate) fn handle_lease(&self, host: HostId, until: HostTime) -> Result<(), Broken> {
        let spoken = self.spoke_at.0.saturating_add(self.failure_ns);
        let listened = self.looked_at.0.saturating_sub(self.failure_ns / 2);
        let heard = self.heard_at.0.max(listened).saturating_add(self.failure_ns);
        if self.has_won || until.0 <= spoken.min(heard) {
            return Ok(());
        }
        let what = format!("{} has a lease for longer than its messages, or its peer's, last", NAMES[host]);
        Err(Broken(NAME, what))
    }

    /// Its disk, which both hosts share, begins a request that waited: its clock shows `now`.
    pub(crate) fn handle_begin(&self, host: HostId, now: HostTime) -> Result<(), Broken> {
        let silent = now.0.saturating_sub(self.spoke_at.0) >= self.failure_ns;
        if self.has_won || !self.must && !silent {
            return Ok(());
        }
        let what = format!("{} may have been replaced, and its disk begins what waited", NAMES[host]);
        Err(Broken(NAME, what))
    }

    /// It lets an output out.
    pub(crate) fn handle_release(&self, host: HostId) -> Result<(), Broken> {
        if self.has_won || !self.must {
            return Ok(());
        }
        let what = format!(
            "{} has been silent for the failure timeout, has claimed or handed over, and lets an output out",
            NAMES[host]
        );
        Err(Broken(NAME, what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_and_claims_forbid_what_a_win_allows_again() {
        let mut asks = Asks::new(100, HostTime(1_000));
        asks.handle_look(HostTime(1_099));
        assert!(asks.handle_release(0).is_ok());
        asks.handle_sent();
        asks.handle_look(HostTime(1_099));
        asks.handle_look(HostTime(1_198));
        assert!(asks.handle_release(0).is_ok(), "it has spoken meanwhile");
        asks.handle_look(HostTime(1_199));
        asks.handle_sent();
        assert!(asks.handle_release(0).is_err(), "a message that comes late does not help");
        asks.handle_won();
        assert!(asks.handle_release(0).is_ok());
        let mut asks = Asks::new(100, HostTime(0));
        asks.handle_look(HostTime(90));
        asks.handle_sent();
        asks.handle_look(HostTime(110));
        assert!(asks.handle_release(0).is_err(), "it stood still before the message, or behind it");
        let mut asks = Asks::new(100, HostTime(0));
        assert!(asks.handle_lease(0, HostTime(100)).is_ok() && asks.handle_lease(0, HostTime(101)).is_err());
        assert!(asks.handle_begin(0, HostTime(99)).is_ok() && asks.handle_begin(0, HostTime(100)).is_err());
        asks.handle_look(HostTime(80));
        asks.handle_sent();
        asks.handle_look(HostTime(90));
        assert!(asks.handle_lease(0, HostTime(140)).is_ok(), "it listens");
        assert!(asks.handle_lease(0, HostTime(150)).is_err(), "its peer has not been heard since the start");
        asks.handle_heard();
        assert!(asks.handle_lease(0, HostTime(180)).is_ok());
        asks.handle_claim();
        assert!(asks.handle_begin(0, HostTime(1)).is_err());
        assert!(asks.handle_release(1).is_err());
    }
}
