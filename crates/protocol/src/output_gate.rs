//! **The output rule**: an output may leave only when the backup has acknowledged every log entry up to and
//! including the entry that covers that output (Scales et al. 2010, 2.2; DESIGN 5).
//!
//! Four verbs: [`hold`](OutputGate::hold) an output, [`seal`](OutputGate::seal) everything held with the LSN of the
//! record that covers it, [`ack`](OutputGate::ack) what the backup has received, [`release`](OutputGate::release)
//! what may go. Strategies differ only in who seals; the rule is this file.

use alloc::collections::VecDeque;
use pollux_vocab::Lsn;

/// Holds outputs back until they may be shown to the world, in order.
#[derive(Clone, Hash, Debug)]
pub struct OutputGate<T> {
    sealed: VecDeque<(Lsn, T)>,
    unsealed: VecDeque<T>,
    acked: Lsn,
}

impl<T> Default for OutputGate<T> {
    fn default() -> Self {
        Self { sealed: VecDeque::new(), unsealed: VecDeque::new(), acked: Lsn(0) }
    }
}

impl<T> OutputGate<T> {
    /// Takes an output in. It cannot leave before it is sealed.
    pub fn hold(&mut self, output: T) {
        self.unsealed.push_back(output);
    }

    /// Names the record that covers all that is held: it must have been written after the newest of them was made.
    pub fn seal(&mut self, covering: Lsn) {
        assert!(self.sealed.back().is_none_or(|(lsn, _)| *lsn <= covering), "seals never go back");
        self.sealed.extend(self.unsealed.drain(..).map(|output| (covering, output)));
    }

    /// The backup has every record up to and including `received`. Acknowledgements never go back.
    pub fn ack(&mut self, received: Lsn) {
        self.acked = self.acked.max(received);
    }

    /// The oldest output, if it may leave.
    pub fn release(&mut self) -> Option<T> {
        match self.sealed.front() {
            Some((covering, _)) if *covering <= self.acked => {
                self.sealed.pop_front().map(|(_, output)| output)
            }
            _ => None,
        }
    }

    /// The newest acknowledged record such that no output that it or an older one covers is still in here.
    #[must_use]
    pub fn released(&self) -> Lsn {
        match self.sealed.front() {
            Some((covering, _)) => self.acked.min(Lsn(covering.0.saturating_sub(1))),
            None => self.acked,
        }
    }

    /// Whether something is held that no record covers yet.
    #[must_use]
    pub fn has_unsealed(&self) -> bool {
        !self.unsealed.is_empty()
    }

    /// Outputs held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sealed.len() + self.unsealed.len()
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_output_leaves_before_its_mark_is_acknowledged() {
        let mut gate = OutputGate::default();
        gate.hold('a');
        assert_eq!(gate.release(), None, "unsealed");
        gate.seal(Lsn(7));
        gate.ack(Lsn(6));
        assert_eq!(gate.release(), None, "the mark itself must be acknowledged");
        gate.ack(Lsn(7));
        assert_eq!(gate.release(), Some('a'));
    }

    #[test]
    fn an_output_made_after_the_seal_waits_for_the_next_one() {
        let mut gate = OutputGate::default();
        gate.hold('a');
        gate.seal(Lsn(1));
        gate.hold('b');
        gate.ack(Lsn(5));
        assert_eq!((gate.release(), gate.release()), (Some('a'), None));
        gate.seal(Lsn(6));
        assert_eq!(gate.release(), None);
    }

    #[test]
    fn an_acknowledgement_that_arrives_late_takes_nothing_back() {
        let mut gate = OutputGate::default();
        gate.ack(Lsn(9));
        gate.ack(Lsn(3));
        gate.hold('a');
        gate.seal(Lsn(9));
        assert_eq!(gate.release(), Some('a'));
    }

    #[test]
    fn an_acknowledged_output_counts_as_released_only_once_it_has_left() {
        let mut gate = OutputGate::default();
        gate.hold('a');
        gate.hold('b');
        gate.seal(Lsn(4));
        gate.ack(Lsn(5));
        assert_eq!(gate.released(), Lsn(3));
        gate.release();
        assert_eq!(gate.released(), Lsn(3), "its mark covers another one");
        gate.release();
        assert_eq!(gate.released(), Lsn(5));
    }
}
