//! What a primary says of itself: whether it may run, when it wants to be asked, what state it is in; and what must always hold of it.

use super::{COMMANDS_MAX, HELD_BYTES_MAX, HELD_MAX, Primary, State};
use crate::peer::Peer;
use crate::timer::{Timer, TimerTable};
use crate::types::{HostTime, Pace, Report, Role};

impl Primary {
    /// Whether, and how much, the VM may execute.
    #[must_use]
    pub fn pace(&self, _now: HostTime) -> Pace {
        match self.state {
            State::HandingOver(_) | State::Halted => Pace::Wait,
            // Where it has stopped is where the backup goes on.
            State::Claiming(_) if self.handed => Pace::Wait,
            _ if self.is_window_full() || self.is_gate_full() => Pace::Wait,
            _ => Pace::Run { share_permille: self.lag.share_permille() },
        }
    }

    /// Rule: a primary whose backup cannot take more log in stops.
    pub(super) fn is_window_full(&self) -> bool {
        self.peers.iter().any(|peer| peer.is_window_full(self.settings.send_window_bytes))
    }

    /// Rule: a primary whose outputs may not leave runs on only as long as there is room to hold them.
    fn is_gate_full(&self) -> bool {
        self.gate.len() > HELD_MAX || self.held_bytes > HELD_BYTES_MAX
    }

    /// When [`Primary::handle_tick`] must be called next, if nothing else happens.
    #[must_use]
    pub fn next_timeout(&self) -> Option<HostTime> {
        self.timers().next()
    }

    /// What the present state waits for.
    pub(super) fn timers(&self) -> TimerTable {
        let table = TimerTable::default();
        match &self.state {
            State::Primary => self.peers.iter().fold(table, |table, peer| peer.timers(table, &self.settings)),
            State::HandingOver(until) => table.with(Timer::Handover, *until),
            State::Claiming(claim) => table.with(Timer::Claim, claim.ask_at()),
            State::Solo | State::Halted => table,
        }
    }

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
            buffered_bytes: self.peers.iter().map(Peer::in_flight_bytes).max().unwrap_or(0),
        }
    }

    /// What must hold between any two calls.
    pub(super) fn invariants(&self) {
        self.peers.iter().for_each(|peer| peer.invariants(self.lsn));
        assert!(self.acked <= self.lsn, "acknowledged ≤ written");
        assert!(self.gate.released() <= self.lsn, "released ≤ written");
        assert!(
            matches!(self.state, State::Halted) || matches!(self.state, State::Solo) == self.peers.is_empty(),
            "only a VM alone has no backup"
        );
        assert!(!self.gate.is_empty() || self.held_bytes == 0, "an empty gate holds no bytes");
        assert!(
            matches!(self.state, State::Primary) || self.unsent.is_empty(),
            "only a primary has records to send"
        );
        assert!(self.commands.len() <= COMMANDS_MAX, "the states only go one way");
    }
}
