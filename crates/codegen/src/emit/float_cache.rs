//! Floating-point registers in xmm registers, within a block: a write-back cache of the hart's.
//!
//! A result stays in its host register, and is *dirty*: the hart does not have it. Written back are only those that are
//! still a guest register's at the end of the block, for most results are an operand of the next instruction and no more.
//! Where translated code is left before, they are written back out of line.
//!
//! A result is *raw* until somebody has looked whether it is a NaN: RISC-V has one canonical NaN that computations result in
//! (unprivileged specification 21.3), the host has many. Arithmetic makes of every quiet NaN the same and raises nothing
//! for it, so that only bits that are written to the hart or to memory need to be looked at; one comparison looks at
//! two results.
//!
//! Nothing is held from one block to the next, and what is interpreted in between takes the copies with it (xmm registers
//! are the caller's to save); where the block goes on behind an interpreted step, they are loaded again.

use super::Emitter;
use super::float::BOX;
use super::slow::SlowPath;
use crate::asm::{Asm, Cond, W, Xmm};
use crate::state::{self, word};
use alloc::vec::Vec;

/// xmm0 to xmm2 are for everyone.
const FIRST: u8 = 3;
const COUNT: usize = 13;
/// Host registers that an instruction has at most.
const OPERANDS_MAX: usize = 4;

/// A guest register in a host register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Held {
    pub(crate) guest: u8,
    pub(crate) double: bool,
    pub(crate) xmm: Xmm,
    /// The hart does not have it.
    is_dirty: bool,
    /// It may be a NaN that is not canonical.
    is_raw: bool,
}

/// The cache.
#[derive(Clone, Default, Debug)]
pub(crate) struct FloatCache {
    /// Of each host register from [`FIRST`].
    held: [Option<Held>; COUNT],
    /// Host registers of the present instruction.
    busy: [bool; COUNT],
    next: usize,
}

impl FloatCache {
    /// A new instruction begins. For it to find room, a guest register that is returned has to be written back first.
    pub(crate) fn begin(&mut self) -> Option<u8> {
        self.busy = [false; COUNT];
        // What is written back keeps its host register for this instruction.
        if self.dirty().count() < COUNT - OPERANDS_MAX {
            return None;
        }
        let from_next = (0..COUNT).map(|index| (self.next + index) % COUNT);
        let oldest = from_next.filter_map(|index| self.held[index]).find(|held| held.is_dirty);
        oldest.map(|held| held.guest)
    }

    /// Where a copy is. It stays there for the present instruction.
    pub(crate) fn find(&mut self, guest: u8, double: bool) -> Option<Xmm> {
        let held = self.all().find(|held| held.guest == guest && held.double == double)?;
        self.busy[usize::from(held.xmm.0 - FIRST)] = true;
        Some(held.xmm)
    }

    /// A host register for the present instruction; what it held is no longer held, and was not dirty.
    pub(crate) fn fresh(&mut self) -> Xmm {
        let is_free =
            |index: &usize| !self.busy[*index] && self.held[*index].is_none_or(|held| !held.is_dirty);
        let mut from_next = (0..COUNT).map(|index| (self.next + index) % COUNT);
        let index = from_next.find(is_free).expect("`begin` has left as many as an instruction has");
        self.next = (index + 1) % COUNT;
        self.busy[index] = true;
        self.held[index] = None;
        Xmm(FIRST + index as u8)
    }

    /// A host register holds a guest register, as the hart does.
    pub(crate) fn hold(&mut self, guest: u8, double: bool, xmm: Xmm) {
        self.held[usize::from(xmm.0 - FIRST)] =
            Some(Held { guest, double, xmm, is_dirty: false, is_raw: false });
    }

    /// A host register holds a guest register, and the hart does not.
    pub(crate) fn define(&mut self, guest: u8, double: bool, xmm: Xmm, is_raw: bool) {
        self.forget(guest);
        self.held[usize::from(xmm.0 - FIRST)] = Some(Held { guest, double, xmm, is_dirty: true, is_raw });
    }

    /// Whether a copy is raw.
    pub(crate) fn is_raw(&self, xmm: Xmm) -> bool {
        self.all().any(|held| held.xmm == xmm && held.is_raw)
    }

    /// The copies to look at if a guest register is raw: the register's, and perhaps another one. They no longer are raw.
    fn look(&mut self, guest: u8) -> Option<(Held, Option<Held>)> {
        let first = self.all().find(|held| held.guest == guest && held.is_raw)?;
        let is_like = |held: &Held| held.is_raw && held.double == first.double && held.guest != guest;
        let second = self.all().find(is_like);
        for looked_at in [Some(first), second].into_iter().flatten() {
            self.held[usize::from(looked_at.xmm.0 - FIRST)] = Some(Held { is_raw: false, ..looked_at });
        }
        Some((first, second))
    }

    /// What has to be written back, if a guest register is dirty; it no longer is. The copy stays where it is for the
    /// present instruction, which may still be left as it was entered.
    pub(crate) fn clean(&mut self, guest: u8) -> Option<Held> {
        let held = self.held.iter_mut().flatten().find(|held| held.guest == guest && held.is_dirty)?;
        held.is_dirty = false;
        self.busy[usize::from(held.xmm.0 - FIRST)] = true;
        Some(*held)
    }

    /// A guest register has another value.
    pub(crate) fn forget(&mut self, guest: u8) {
        let stale = |held: &&mut Option<Held>| held.is_some_and(|held| held.guest == guest);
        self.held.iter_mut().filter(stale).for_each(|held| *held = None);
    }

    /// Nothing is held.
    pub(crate) fn clear(&mut self) {
        self.held = [None; COUNT];
    }

    /// All copies.
    pub(crate) fn all(&self) -> impl Iterator<Item = Held> {
        self.held.iter().flatten().copied()
    }

    /// Those that the hart does not have.
    pub(crate) fn dirty(&self) -> impl Iterator<Item = Held> {
        self.all().filter(|held| held.is_dirty)
    }
}

/// Writes a register back to the hart, canonical.
pub(super) fn write_back(asm: &mut Asm, held: Held) {
    if held.is_raw {
        canonicalize(asm, held);
    }
    let Held { guest, double, xmm, .. } = held;
    asm.store_xmm(double, state::f(guest), xmm);
    if !double {
        asm.store_imm(W::D, state::f_high(guest), BOX);
    }
}

/// Makes the canonical NaN of a NaN.
pub(super) fn canonicalize(asm: &mut Asm, Held { double, xmm, .. }: Held) {
    asm.compare(true, double, xmm, xmm);
    let number = asm.jcc(Cond::P.not());
    asm.load_xmm(double, xmm, word(if double { state::NAN_DOUBLE } else { state::NAN_SINGLE }));
    asm.bind_here(number);
}

impl Emitter<'_, '_> {
    /// Sees to it that a guest register's copy is canonical. Changes flags.
    pub(super) fn look_at(&mut self, guest: u8) {
        if let Some((first, second)) = self.floats.look(guest) {
            self.asm.compare(true, first.double, first.xmm, second.unwrap_or(first).xmm);
            let from = self.asm.jcc(Cond::P as u8);
            self.slow_paths.push(SlowPath::NotANumber { from, back: self.asm.here(), first, second });
        }
    }

    /// Sees to it that the hart has a guest register.
    pub(super) fn write_back(&mut self, guest: u8) {
        if self.floats.dirty().any(|held| held.guest == guest) {
            self.look_at(guest);
        }
        if let Some(held) = self.floats.clean(guest) {
            write_back(self.asm, held);
        }
    }

    /// Sees to it that the hart has them all. Leaves general registers alone.
    pub(super) fn write_back_all(&mut self) {
        let dirty: Vec<Held> = self.floats.dirty().collect();
        dirty.into_iter().for_each(|held| self.write_back(held.guest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registers_of_an_instruction_are_not_taken_from_it() {
        let mut copies = FloatCache::default();
        let a = copies.fresh();
        copies.hold(1, true, a);
        for guest in 2..40 {
            copies.begin();
            assert_eq!(copies.find(1, true), Some(a), "before {guest}");
            let other = copies.fresh();
            assert_ne!(other, a);
            copies.hold(guest, true, other);
        }
        copies.forget(1);
        assert_eq!(copies.find(1, true), None);
        assert_eq!(copies.all().count(), COUNT - 1);
    }

    #[test]
    fn what_is_dirty_is_written_back_before_its_host_register_is_another_ones() {
        let mut copies = FloatCache::default();
        let mut written = Vec::new();
        for guest in 0..32 {
            written.extend(copies.begin().and_then(|guest| copies.clean(guest)));
            let operands: [Xmm; OPERANDS_MAX] = core::array::from_fn(|_| copies.fresh());
            let dirty: Vec<Xmm> = copies.dirty().map(|held| held.xmm).collect();
            assert!(operands.iter().all(|xmm| !dirty.contains(xmm)), "{operands:?} {dirty:?}");
            copies.define(guest, true, operands[0], false);
        }
        written.extend((0..32).filter_map(|guest| copies.clean(guest)));
        written.sort_by_key(|held| held.guest);
        assert!(written.iter().map(|held| held.guest).eq(0..32), "each once: {written:?}");
        assert_eq!(copies.dirty().count(), 0);
    }

    #[test]
    fn a_result_that_is_overwritten_is_never_written_back() {
        let mut copies = FloatCache::default();
        for double in [true, false] {
            copies.begin();
            let xmm = copies.fresh();
            copies.define(7, double, xmm, false);
        }
        let held = copies.clean(7).expect("the second is dirty");
        assert!(!held.double);
        assert_eq!(copies.clean(7), None);
    }

    #[test]
    fn what_is_written_back_keeps_its_host_register_for_the_instruction() {
        let mut copies = FloatCache::default();
        for guest in 0..(COUNT - OPERANDS_MAX) as u8 {
            assert_eq!(copies.begin(), None);
            let xmm = copies.fresh();
            copies.define(guest, true, xmm, false);
        }
        // The next ones that would be taken are the first again.
        copies.begin();
        let _unused: [Xmm; OPERANDS_MAX] = core::array::from_fn(|_| copies.fresh());
        assert_eq!(copies.begin(), Some(0), "there are not enough left for an instruction");
        let written = [0, 5, 7].map(|guest| copies.clean(guest).expect("it is dirty").xmm);
        let operands: [Xmm; OPERANDS_MAX] = core::array::from_fn(|_| copies.fresh());
        assert!(written.iter().all(|xmm| !operands.contains(xmm)), "{operands:?} {written:?}");
    }

    #[test]
    fn raw_results_are_looked_at_in_pairs_of_one_precision() {
        let mut copies = FloatCache::default();
        for (guest, double) in [(1, true), (2, false), (3, true), (4, true)] {
            copies.begin();
            let xmm = copies.fresh();
            copies.define(guest, double, xmm, true);
        }
        let pair = copies.look(4).map(|(first, second)| (first.guest, second.map(|held| held.guest)));
        assert_eq!(pair, Some((4, Some(1))));
        let alone = copies.look(2).map(|(first, second)| (first.guest, second));
        assert_eq!(alone, Some((2, None)));
        assert_eq!(copies.look(1), None, "it was looked at");
        assert!(copies.look(3).is_some());
    }
}
