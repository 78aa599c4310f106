//! What a primary says of itself, and what must always hold of it.

use super::{COMMANDS_MAX, Primary, State};
use crate::types::{Report, Role};

impl Primary {
    /// This side's account of itself.
    #[must_use]
    pub fn report(&self) -> Report {
        Report {
            state: match self.state {
                State::Solo => Role::Solo,
                State::Primary => Role::Primary,
                State::HandingOver(_) => Role::HandingOver,
                State::Claiming(_) => Role::Claiming,
                State::Halted => Role::Halted,
            },
            generation: self.generation,
            lsn: self.lsn,
            acked: self.acked,
            held: self.gate.len(),
            released: self.hold_stats.len(),
            hold: self.hold_stats.summary(),
            lag_ns: self.lag.lag_ns(),
            lag_steps: self.lag_steps,
            share_permille: self.lag.share_permille(),
            buffered_bytes: self.in_flight_bytes,
        }
    }

    /// What must hold between any two calls.
    pub(super) fn invariants(&self) {
        assert!(self.acked <= self.sent && self.sent <= self.lsn, "acknowledged ≤ sent ≤ written");
        assert!(self.gate.released() <= self.lsn, "released ≤ written");
        assert!(
            self.in_flight.is_empty() == (self.in_flight_bytes == 0),
            "bytes in flight belong to records in flight"
        );
        assert!(!self.gate.is_empty() || self.held_bytes == 0, "an empty gate holds no bytes");
        assert!(
            matches!(self.state, State::Primary) || self.unsent.is_empty(),
            "only a primary has records to send"
        );
        assert!(self.commands.len() <= COMMANDS_MAX, "the states only go one way");
    }
}
