//! What replication drives (DESIGN 1).
//!
//! Invariant: `run(a); run(b)` leaves the same state as `run(b)`; where a run stops never shows.

use alloc::vec::Vec;
use pollux_vocab::{ConsoleId, Digest, Icount, Input, Output, SlotId, VirtTime};

/// Why [`Machine::run`] came back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// The requested icount is reached; or, earlier, the guest begins again, which takes its time: run on.
    Until,
    /// At least one output waits in [`Machine::take_output`]; the icount is the one it was made at.
    Output,
    /// Every hart waits for an interrupt. Nothing but an [`Input`] can change that; `wake` is the virtual time
    /// of the earliest timer that would (apply an [`Input::Clock`] that reaches it), if one is armed.
    Idle {
        /// When a timer would fire.
        wake: Option<VirtTime>,
    },
    /// The guest has powered off, or reset a machine that ends with that; its last output says which. `run` does nothing any more.
    Halted,
}

/// A deterministic machine.
pub trait Machine {
    /// Steps since reset.
    fn icount(&self) -> Icount;
    /// Virtual time at [`Machine::icount`].
    fn time(&self) -> VirtTime;
    /// Executes until exactly `until`, or until there is a reason to stop earlier. A `until` that is not
    /// later than the present returns [`Stop::Until`] at once (unless halted, idle or with outputs waiting).
    fn run(&mut self, until: Icount) -> Stop;
    /// Applies an event here and now. Events that make no sense to the guest's present state (a packet with
    /// no receive buffer, a completion for an unknown request) are dropped, the same on every replica.
    fn apply(&mut self, input: &Input);
    /// How often the guest has begun again in place.
    fn restarts(&self) -> u64 {
        0
    }
    /// The oldest output not yet taken.
    fn take_output(&mut self) -> Option<Output>;
    /// Whether a packet applied now would find a receive buffer.
    fn packet_room(&self, slot: SlotId) -> bool;
    /// How many bytes of console input would be taken now.
    fn console_room(&self, console: ConsoleId) -> usize;
    /// Requests ([`Output::Disk`], [`Output::EntropyWanted`]) whose answers have not been applied, oldest
    /// first: what a replica that goes live, or a restored machine, must issue again.
    fn pending(&self) -> Vec<Output>;
    /// Does up to `pages_max` pages of the next [`Machine::digest`]'s work ahead; true if there is none left for
    /// now. What was done ahead never shows in the digest. A machine whose digests cost little need not do anything.
    fn prepare_digest(&mut self, _pages_max: usize) -> bool {
        true
    }
    /// Digest of the whole state at this instant. Costs time in proportion to the pages changed since the
    /// previous call, except those that [`Machine::prepare_digest`] has seen to.
    fn digest(&mut self) -> Digest;
}
