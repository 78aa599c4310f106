//! What a primary knows of the service network, through which clients reach the VM (of a backup's: `peer`).
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
}

impl Network {
    pub(super) fn new(now: HostTime) -> Self {
        Self { reaches: true, since: now }
    }
}

impl Primary {
    /// This host has lost the service network, or has it back.
    pub fn handle_network(&mut self, now: HostTime, reached: bool) {
        if self.network.reaches != reached {
            (self.network.reaches, self.network.since) = (reached, now);
            if let State::Claiming(claim) = &mut self.state
                && reached
            {
                claim.handle_served(now);
            }
        }
        self.invariants();
    }

    /// Rule: a primary that has lost the service network for the bound is to hand over to a backup that reaches it.
    #[must_use]
    pub fn wants_handover(&self, now: HostTime) -> bool {
        let lost = !self.network.reaches
            && self.settings.net_loss_ns.is_some_and(|bound_ns| now.since(self.network.since) >= bound_ns);
        lost && self.peers.iter().any(|peer| peer.serves) && matches!(self.state, State::Primary)
    }
}
