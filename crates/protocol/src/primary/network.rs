//! What is known of the service network, through which clients reach the VM, on either side.
//!
//! Not here: how a host finds that out (`pollux-host`).

use super::{Primary, State};
use crate::types::HostTime;

/// Who reaches it.
#[derive(Clone, Hash, Debug)]
pub(super) struct Network {
    /// This side does.
    pub(super) reaches: bool,
    /// Since when that is so.
    since: HostTime,
    /// The backup does, as far as it has said.
    pub(super) peer_reaches: bool,
}

impl Network {
    pub(super) fn new(now: HostTime) -> Self {
        Self { reaches: true, since: now, peer_reaches: true }
    }
}

impl Primary {
    /// This host has lost the service network, or has it back.
    pub fn handle_network(&mut self, now: HostTime, reached: bool) {
        if self.network.reaches != reached {
            (self.network.reaches, self.network.since) = (reached, now);
            if let State::Claiming(asking) = &mut self.state
                && reached
            {
                asking.put_off(now);
            }
        }
        self.invariants();
    }

    /// Rule: a primary that has lost the service network for the bound is to hand over to a backup that reaches it.
    #[must_use]
    pub fn wants_handover(&self, now: HostTime) -> bool {
        let lost = !self.network.reaches
            && self.settings.net_loss_ns.is_some_and(|bound_ns| now.since(self.network.since) >= bound_ns);
        lost && self.network.peer_reaches && matches!(self.state, State::Primary)
    }
}
