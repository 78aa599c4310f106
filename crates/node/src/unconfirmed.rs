//! Unconfirmed outputs: those that a standby's machine has made, and that the primary has not said to be released. It may
//! or may not have released them.
//!
//! Invariant guarded here: duplicates, not gaps (DESIGN 5). An output is let go of only when the primary says that
//! the mark that covers it has been released, never by its icount: at one instant several marks may be made, with
//! events and outputs between them.

use alloc::collections::VecDeque;
use pollux_protocol::output_weight;
use pollux_protocol::primary::{HELD_BYTES_MAX, HELD_MAX};
use pollux_vocab::{Icount, Lsn, Output};

/// A primary holds no more than its bound and what one slice makes; twice the bound is room for both. Beyond this
/// the oldest are let go.
const UNCONFIRMED_MAX: usize = 2 * HELD_MAX;
/// The same in bytes.
const UNCONFIRMED_BYTES_MAX: u64 = 2 * HELD_BYTES_MAX;

/// One of them.
#[derive(Debug)]
struct Made {
    icount: Icount,
    /// The mark that covers it, once that has been replayed. Marks are made behind the outputs that they cover, so
    /// it is the first one that the log has after the output.
    covering: Option<Lsn>,
    output: Output,
}

/// All of them, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Unconfirmed {
    outputs: VecDeque<Made>,
    bytes: u64,
}

impl Unconfirmed {
    /// The machine has made `output`.
    pub(crate) fn push(&mut self, icount: Icount, output: Output) {
        self.bytes += output_weight(&output);
        self.outputs.push_back(Made { icount, covering: None, output });
        while self.outputs.len() > UNCONFIRMED_MAX || self.bytes > UNCONFIRMED_BYTES_MAX {
            self.pop();
        }
    }

    /// The log has this mark now: it covers all that no older one covers.
    pub(crate) fn handle_mark(&mut self, mark: Lsn) {
        let uncovered = self.outputs.iter_mut().rev().take_while(|made| made.covering.is_none());
        uncovered.for_each(|made| made.covering = Some(mark));
    }

    /// Lets go of what the primary says it has released, up to this mark. Not of the last word: a primary may die
    /// between that and its goodbye, and whoever takes over then must end, too.
    pub(crate) fn forget(&mut self, released: Lsn) {
        let is_released = |made: &Made| {
            made.covering.is_some_and(|mark| mark <= released)
                && !matches!(made.output, Output::PowerOff { .. } | Output::Reset)
        };
        while self.outputs.front().is_some_and(is_released) {
            self.pop();
        }
    }

    /// The oldest output, with the icount that it was made at.
    pub(crate) fn pop(&mut self) -> Option<(Icount, Output)> {
        let Made { icount, output, .. } = self.outputs.pop_front()?;
        self.bytes -= output_weight(&output);
        Some((icount, output))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use pollux_vocab::ConsoleId;

    fn said(len: usize) -> Output {
        Output::Console { console: ConsoleId::Uart, bytes: vec![0; len] }
    }

    #[test]
    fn as_many_outputs_are_kept_as_a_primary_may_hold() {
        let mut outputs = Unconfirmed::default();
        for n in 0..=HELD_MAX as u64 {
            outputs.push(Icount(n), said(1));
        }
        assert_eq!(outputs.pop().map(|(icount, _)| icount), Some(Icount(0)));
    }

    #[test]
    fn unconfirmed_outputs_are_bounded_in_number_and_in_bytes() {
        let mut outputs = Unconfirmed::default();
        for n in 0..=UNCONFIRMED_MAX as u64 {
            outputs.push(Icount(n), said(1));
        }
        assert_eq!(outputs.outputs.len(), UNCONFIRMED_MAX);
        for n in 0..9 {
            outputs.push(Icount(UNCONFIRMED_MAX as u64 + n), said(64 << 20));
        }
        assert!(outputs.bytes <= UNCONFIRMED_BYTES_MAX);
        while outputs.pop().is_some() {}
        assert_eq!(outputs.bytes, 0);
    }
}
