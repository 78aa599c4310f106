//! Strategies: in which way two machines are kept one VM. What they do differently is the answers to four questions:
//!
//! 1. When may an event be delivered? [`Strategy::delivers_at`], [`Strategy::runs_to`].
//! 2. Who seals an output, and with what? [`Strategy::seal`].
//! 3. What does the backup do with what it receives? [`Strategy::acknowledges_at_once`], [`Strategy::executes`].
//! 4. How does it go live? [`Strategy::may_go_live`].
//!
//! A strategy is a file that answers them, and a line in each `match` here. The rest is the same for all of them: the log,
//! the output gate, acknowledgements, silence, the lease, claims. The answers are functions of where the machine stands and
//! of the log, so both sides, and a replay, come to the same ones.
//!
//! The clock entry that ends an idle wait is delivered where the machine waits, whatever the strategy: it comes nowhere else.
//!
//! How those answer that are not here: *epochs* deliver at an epoch's end, run to it, and seal with the record that ends
//! it; a *checkpoint* delivers anywhere, seals with the record that ends a checkpoint, and its backup executes nothing and
//! goes live from the last whole one; a *journal* is lockstep whose backup executes nothing until it has won.

pub mod lockstep;

use pollux_vocab::{Icount, Record, RecordBody};

/// The way of a pair. Both sides go the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Strategy {
    /// The backup executes what the primary does, right behind it ([`lockstep`]).
    #[default]
    Lockstep,
}

impl Strategy {
    /// Whether the live machine, which stands at `icount`, may be given events there.
    #[must_use]
    pub fn delivers_at(self, icount: Icount) -> bool {
        match self {
            Self::Lockstep => lockstep::delivers_at(icount),
        }
    }

    /// How far a live machine that is to run to `until` may run from `icount` without a look at its events.
    #[must_use]
    pub fn runs_to(self, icount: Icount, until: Icount) -> Icount {
        match self {
            Self::Lockstep => lockstep::runs_to(icount, until),
        }
    }

    /// The record to write at `icount` that covers every output made up to there; `None`: they wait for a later one.
    #[must_use]
    pub fn seal(self, icount: Icount) -> Option<RecordBody> {
        match self {
            Self::Lockstep => lockstep::seal(icount),
        }
    }

    /// Whether somebody waits for the acknowledgement of these records; otherwise it has time until the next one.
    #[must_use]
    pub fn acknowledges_at_once(self, received: &[Record]) -> bool {
        match self {
            Self::Lockstep => lockstep::acknowledges_at_once(received),
        }
    }

    /// Whether a backup executes what it has received before it has won.
    #[must_use]
    pub fn executes(self) -> bool {
        match self {
            Self::Lockstep => lockstep::executes(),
        }
    }

    /// Whether a side that has won may go live with so many records of its log unexecuted.
    #[must_use]
    pub fn may_go_live(self, unexecuted: usize) -> bool {
        match self {
            Self::Lockstep => lockstep::may_go_live(unexecuted),
        }
    }
}
