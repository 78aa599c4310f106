//! Giving the VM to the backup in good order.
//!
//! Invariant: from [`Primary::hand_over`] on nothing is executed and nothing leaves, until this side has won a generation.

use super::{Cause, Primary, State};
use crate::peer::PeerId;
use crate::types::{HostTime, Message};
use pollux_vocab::{Icount, RecordBody, VirtTime};

impl Primary {
    /// Gives the VM to the backup, if there is one that counts as alive. The machine stands at `icount`, and everything
    /// up to there has been admitted and held. True: from here on nothing is executed and nothing leaves, until the
    /// arbiter gives the VM back; call this only when no request to a shared disk is under way.
    pub fn hand_over(&mut self, now: HostTime, icount: Icount, time: VirtTime) -> bool {
        if matches!(self.state, State::Primary) && icount > self.progress_icount {
            // The log reaches to where the VM stops, so that the backup goes on from there.
            self.admit(icount, RecordBody::Progress);
        }
        self.flush(now, icount, time);
        self.move_on(Cause::HandOver(now));
        self.invariants();
        matches!(self.state, State::HandingOver(_))
    }

    /// This side has taken the VM over: the primary from before is told, for one that has handed it over waits for that.
    pub fn queue_taken_over(&mut self, from: PeerId) {
        if matches!(self.state, State::Solo) {
            self.heartbeats.insert(from);
        }
    }

    /// Acknowledgements come too late now. A backup that leaves, or that speaks as the live side, ends the wait; whether
    /// it is live only the arbiter knows.
    pub(super) fn handle_while_handing_over(&mut self, now: HostTime, message: &Message) {
        let leaves = message.generation() == self.generation && matches!(message, Message::Goodbye { .. });
        if leaves || message.generation() > self.generation {
            self.move_on(Cause::HandedOver(now));
        }
    }
}
