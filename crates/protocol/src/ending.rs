//! The end of a VM at the arbiter, sans-I/O: who spends the generation behind its own, and who does not.
//!
//! Invariant: an end leaves a VM that may be started again, or a named holder; it never takes the VM from a side that has
//! it. Only the side that ran the VM says that it has ended, and only if it ended by itself or was stopped: a side
//! that the protocol has halted says nothing, for the VM runs on elsewhere, or may.
//!
//! Not here: how the two sides part ([`crate::primary`], [`crate::backup`]: a goodbye, and a backup that does all that
//! the VM did before it leaves); how an end looks at rest (`pollux-arbiter`).

use pollux_vocab::Generation;

/// How a replica came to its end.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Ended {
    /// The guest powered off or asked for a reset, or an operator stopped it.
    InGoodOrder,
    /// This replica must not run on.
    Halted,
}

/// Which part a replica had at its end.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Part {
    /// It ran the VM.
    Live,
    /// It was a backup.
    Standby,
}

/// Rule: the generation to spend the one behind of, if the VM has ended on this side and nowhere else.
#[must_use]
pub fn to_spend(part: Part, ended: Ended, own: Generation) -> Option<Generation> {
    match (part, ended) {
        (Part::Live, Ended::InGoodOrder) => Some(own),
        (Part::Live, Ended::Halted) | (Part::Standby, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_ran_the_vm_to_its_end_spends_its_generation() {
        let own = Generation(4);
        assert_eq!(to_spend(Part::Live, Ended::InGoodOrder, own), Some(own));
        for (part, ended) in
            [(Part::Live, Ended::Halted), (Part::Standby, Ended::InGoodOrder), (Part::Standby, Ended::Halted)]
        {
            assert_eq!(to_spend(part, ended, own), None, "{part:?} {ended:?}: it may run elsewhere");
        }
    }
}
