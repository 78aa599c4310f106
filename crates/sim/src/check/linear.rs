//! What clients saw is linearizable: there is an order of all operations, each within the time between its
//! question and its answer, in which every answer is right (Herlihy and Wing 1990). A write that was acknowledged
//! and is read no more has no place in such an order: lost writes are found here.
//!
//! The search is Wing and Gong's (1993) with Lowe's memory of where it has been: one register or counter at a
//! time (linearizability is local), depth first, forgetting nothing twice. Writes that were never acknowledged and
//! never read are left out: an order with them is one without them. What is left has few choices; a search that
//! has too many all the same is given up and counted.

use super::Broken;
use std::collections::{BTreeMap, BTreeSet};

/// A search that has been in so many places is given up.
const PLACES_MAX: usize = 200_000;

/// What an operation does to a register, or to the counter, which is a register that only counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Sets the register; the answer says nothing.
    Write(u64),
    /// The answer is the register.
    Read,
    /// Counts up by one; the answer is the new count.
    Add,
}

/// An operation of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// What was asked.
    pub effect: Effect,
    /// When it was asked, in nanoseconds of any one clock.
    pub invoked_ns: u64,
    /// When it was answered, and with what. `None`: perhaps it happened, perhaps it will.
    pub returned: Option<(u64, u64)>,
}

/// Which register: a block of the disk, or the counter of a run of the VM, which starts with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Object {
    Block(u64),
    Counter(u64),
}

/// Everything that clients did.
#[derive(Debug, Default)]
pub(crate) struct History {
    objects: BTreeMap<Object, Vec<Operation>>,
    /// Which run of the VM clients talk to.
    pub(crate) vm_run: u64,
    pub(crate) operations: u64,
    /// Objects whose search was given up.
    pub(crate) undecided: u64,
}

impl History {
    pub(crate) fn push(&mut self, object: Object, operation: Operation) {
        self.operations += 1;
        self.objects.entry(object).or_default().push(operation);
    }

    pub(crate) fn judge(&mut self) -> Result<(), Broken> {
        for (object, operations) in &self.objects {
            match is_linearizable(operations) {
                Some(true) => {}
                None => self.undecided += 1,
                Some(false) => {
                    let count = operations.len();
                    let what = format!("{object:?}: no order of its {count} operations explains the answers");
                    return Err(Broken("clients see one register", what));
                }
            }
        }
        Ok(())
    }
}

/// Whether there is an order; a register starts as 0. `None`: given up.
#[must_use]
pub fn is_linearizable(operations: &[Operation]) -> Option<bool> {
    let read = |operation: &Operation| match operation.effect {
        Effect::Read => operation.returned.map(|(_, value)| value),
        Effect::Write(_) | Effect::Add => None,
    };
    let seen: BTreeSet<u64> = operations.iter().filter_map(read).collect();
    let matters = |operation: &&Operation| match operation.effect {
        Effect::Write(value) => operation.returned.is_some() || seen.contains(&value),
        Effect::Read | Effect::Add => true,
    };
    let mut order: Vec<&Operation> = operations.iter().filter(matters).collect();
    order.sort_by_key(|operation| operation.invoked_ns);
    let done = vec![false; order.len()];
    Search { order, done, seen: BTreeSet::new() }.run(0)
}

struct Search<'a> {
    /// By the time of their questions.
    order: Vec<&'a Operation>,
    done: Vec<bool>,
    /// Where the search has been: the first that is not done, what is done beyond it, and the register.
    seen: BTreeSet<(usize, Vec<usize>, u64)>,
}

/// What the register is after an operation; `None` if the answer is another.
fn apply(operation: &Operation, register: u64) -> Option<u64> {
    let (after, answer) = match operation.effect {
        Effect::Write(value) => (value, None),
        Effect::Read => (register, Some(register)),
        Effect::Add => (register + 1, Some(register + 1)),
    };
    let fits = match (operation.returned, answer) {
        (Some((_, got)), Some(right)) => got == right,
        _ => true,
    };
    fits.then_some(after)
}

impl Search<'_> {
    fn run(&mut self, start: u64) -> Option<bool> {
        // What was chosen, and the register before it: the way back.
        let mut path: Vec<(usize, u64)> = Vec::new();
        let (mut register, mut from) = (start, 0);
        loop {
            if self.is_complete() {
                return Some(true);
            }
            if self.seen.len() > PLACES_MAX {
                return None;
            }
            match self.next(from, register) {
                Some((index, after)) => {
                    path.push((index, register));
                    (register, from) = (after, self.first());
                }
                None => {
                    let Some((index, before)) = path.pop() else { return Some(false) };
                    self.done[index] = false;
                    (register, from) = (before, index + 1);
                }
            }
        }
    }

    /// Every operation that was answered has its place.
    fn is_complete(&self) -> bool {
        self.order.iter().zip(&self.done).all(|(operation, done)| *done || operation.returned.is_none())
    }

    fn first(&self) -> usize {
        self.done.iter().position(|done| !done).unwrap_or(self.done.len())
    }

    /// The next operation, from number `from` on, that may come now; it is marked as done.
    fn next(&mut self, from: usize, register: u64) -> Option<(usize, u64)> {
        // Nothing may come that was asked after something that is not done was answered.
        let open = self.order.iter().zip(&self.done).filter(|(_, done)| !**done);
        let latest = open.filter_map(|(operation, _)| operation.returned).map(|(at, _)| at).min();
        for index in from..self.order.len() {
            let operation = self.order[index];
            if latest.is_some_and(|latest| operation.invoked_ns > latest) {
                return None;
            }
            if self.done[index] {
                continue;
            }
            let Some(after) = apply(operation, register) else { continue };
            self.done[index] = true;
            let first = self.first();
            let beyond = (first..self.done.len()).filter(|index| self.done[*index]).collect();
            if self.seen.insert((first, beyond, after)) {
                return Some((index, after));
            }
            self.done[index] = false;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn did(effect: Effect, from: u64, to: u64, answer: u64) -> Operation {
        Operation { effect, invoked_ns: from, returned: Some((to, answer)) }
    }

    fn asked(effect: Effect, from: u64) -> Operation {
        Operation { effect, invoked_ns: from, returned: None }
    }

    use Effect::{Add, Read, Write};

    fn ordered(operations: &[Operation]) -> bool {
        is_linearizable(operations).expect("small")
    }

    #[test]
    fn a_write_that_was_acknowledged_must_be_read() {
        let history = [did(Write(5), 0, 10, 0), did(Read, 20, 30, 0)];
        assert!(!ordered(&history), "lost");
        let history = [did(Write(5), 0, 10, 0), did(Read, 20, 30, 5)];
        assert!(ordered(&history));
    }

    #[test]
    fn operations_that_overlap_may_come_in_any_order() {
        let history = [did(Write(1), 0, 100, 0), did(Write(2), 0, 100, 0), did(Read, 110, 120, 1)];
        assert!(ordered(&history));
        let history = [did(Write(1), 0, 100, 0), did(Read, 10, 20, 1), did(Read, 30, 40, 0)];
        assert!(!ordered(&history), "what was read once stays");
    }

    #[test]
    fn what_was_never_answered_may_happen_late_or_never() {
        let base = [did(Write(1), 0, 10, 0), asked(Write(2), 5)];
        for seen in [1, 2] {
            assert!(ordered(&[&base[..], &[did(Read, 1000, 1001, seen)]].concat()));
        }
        let flips = [did(Read, 20, 21, 2), did(Read, 30, 31, 1)];
        assert!(!ordered(&[&base[..], &flips].concat()));
    }

    #[test]
    fn many_writes_that_failed_do_not_make_the_search_long() {
        let failed = (0..60).map(|n| asked(Write(1000 + n), 3 * n));
        let reads = (0..200).map(|n| did(Read, 1000 + 10 * n, 1005 + 10 * n, 1059));
        let mut history: Vec<_> = failed.chain(reads).collect();
        assert!(ordered(&history));
        history.push(did(Read, 5000, 5001, 7));
        assert!(!ordered(&history));
    }

    #[test]
    fn a_count_is_given_out_once() {
        assert!(ordered(&[did(Add, 0, 10, 2), did(Add, 0, 10, 1), did(Read, 20, 21, 2)]));
        assert!(!ordered(&[did(Add, 0, 10, 1), did(Add, 20, 30, 1)]));
    }
}
