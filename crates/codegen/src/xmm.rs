//! Which floating-point registers host registers hold, within a block.
//!
//! A result stays in its host register, and the hart is *owed* it: written are only those that are still a guest
//! register's at the end of the block, for most results are an operand of the next instruction and no more. Where
//! translated code is left before, what is owed is paid out of line.
//!
//! A result is *raw* until somebody has looked whether it is a number: RISC-V has one NaN that computations result in
//! (unprivileged specification 21.3), the host has many. Arithmetic makes of every quiet NaN the same and raises nothing
//! for it, so that only bits that are written to the hart or to memory need to be looked at; one comparison looks at
//! two results.
//!
//! Nothing is held from one block to the next, and what is interpreted in between takes the copies with it (xmm registers
//! are the caller's to save); where the block goes on behind an interpreted step, they are loaded again.

use crate::asm::{Cond, W, Xmm};
use crate::cold::Cold;
use crate::emit_float::BOX;
use crate::region::Translator;
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
    is_owed: bool,
    /// It may be a NaN that RISC-V does not have.
    is_raw: bool,
}

/// The copies.
#[derive(Clone, Default, Debug)]
pub(crate) struct Copies {
    /// Of each host register from [`FIRST`].
    held: [Option<Held>; COUNT],
    /// Host registers of the present instruction.
    busy: [bool; COUNT],
    next: usize,
}

impl Copies {
    /// A new instruction begins. For it to find room, a guest register that is returned has to be settled first.
    pub(crate) fn begin(&mut self) -> Option<u8> {
        self.busy = [false; COUNT];
        // What is settled keeps its host register for this instruction.
        if self.owed().count() < COUNT - OPERANDS_MAX {
            return None;
        }
        let from_next = (0..COUNT).map(|index| (self.next + index) % COUNT);
        let oldest = from_next.filter_map(|index| self.held[index]).find(|held| held.is_owed);
        oldest.map(|held| held.guest)
    }

    /// Where a copy is. It stays there for the present instruction.
    pub(crate) fn find(&mut self, guest: u8, double: bool) -> Option<Xmm> {
        let held = self.all().find(|held| held.guest == guest && held.double == double)?;
        self.busy[usize::from(held.xmm.0 - FIRST)] = true;
        Some(held.xmm)
    }

    /// A host register for the present instruction; what it held is no longer held. The hart is not owed that.
    pub(crate) fn fresh(&mut self) -> Xmm {
        let is_free =
            |index: &usize| !self.busy[*index] && self.held[*index].is_none_or(|held| !held.is_owed);
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
            Some(Held { guest, double, xmm, is_owed: false, is_raw: false });
    }

    /// A host register holds a guest register, and the hart does not.
    pub(crate) fn owe(&mut self, guest: u8, double: bool, xmm: Xmm, is_raw: bool) {
        self.forget(guest);
        self.held[usize::from(xmm.0 - FIRST)] = Some(Held { guest, double, xmm, is_owed: true, is_raw });
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

    /// What has to be written, if the hart is owed a guest register; it no longer is. The copy stays where it is for the
    /// present instruction, which may still be left as it was entered.
    pub(crate) fn pay(&mut self, guest: u8) -> Option<Held> {
        let held = self.held.iter_mut().flatten().find(|held| held.guest == guest && held.is_owed)?;
        held.is_owed = false;
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
    pub(crate) fn owed(&self) -> impl Iterator<Item = Held> {
        self.all().filter(|held| held.is_owed)
    }
}

impl Translator<'_> {
    /// Writes a copy to the hart, whatever it is.
    pub(crate) fn write_copy(&mut self, held: Held) {
        if held.is_raw {
            self.make_canonical(held);
        }
        let Held { guest, double, xmm, .. } = held;
        self.asm.store_xmm(double, state::f(guest), xmm);
        if !double {
            self.asm.store_imm(W::D, state::f_high(guest), BOX);
        }
    }

    /// Makes RISC-V's NaN of a copy that is a NaN.
    pub(crate) fn make_canonical(&mut self, Held { double, xmm, .. }: Held) {
        self.asm.compare(true, double, xmm, xmm);
        let number = self.asm.jcc(Cond::P.not());
        self.asm.load_xmm(double, xmm, word(if double { state::NAN_DOUBLE } else { state::NAN_SINGLE }));
        self.asm.bind_here(number);
    }

    /// Sees to it that a guest register's copy is as RISC-V has it. Changes flags.
    pub(crate) fn look_at(&mut self, guest: u8) {
        if let Some((first, second)) = self.copies.look(guest) {
            self.asm.compare(true, first.double, first.xmm, second.unwrap_or(first).xmm);
            let from = self.asm.jcc(Cond::P as u8);
            self.cold.push(Cold::NotANumber { from, back: self.asm.here(), first, second });
        }
    }

    /// Sees to it that the hart has a guest register.
    pub(crate) fn settle(&mut self, guest: u8) {
        if self.copies.owed().any(|held| held.guest == guest) {
            self.look_at(guest);
        }
        if let Some(held) = self.copies.pay(guest) {
            self.write_copy(held);
        }
    }

    /// Sees to it that the hart has them all. Leaves general registers alone.
    pub(crate) fn settle_all(&mut self) {
        let owed: Vec<Held> = self.copies.owed().collect();
        owed.into_iter().for_each(|held| self.settle(held.guest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registers_of_an_instruction_are_not_taken_from_it() {
        let mut copies = Copies::default();
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
    fn what_is_owed_is_paid_before_its_host_register_is_another_ones() {
        let mut copies = Copies::default();
        let mut written = Vec::new();
        for guest in 0..32 {
            written.extend(copies.begin().and_then(|guest| copies.pay(guest)));
            let operands: [Xmm; OPERANDS_MAX] = core::array::from_fn(|_| copies.fresh());
            let owed: Vec<Xmm> = copies.owed().map(|held| held.xmm).collect();
            assert!(operands.iter().all(|xmm| !owed.contains(xmm)), "{operands:?} {owed:?}");
            copies.owe(guest, true, operands[0], false);
        }
        written.extend((0..32).filter_map(|guest| copies.pay(guest)));
        written.sort_by_key(|held| held.guest);
        assert!(written.iter().map(|held| held.guest).eq(0..32), "each once: {written:?}");
        assert_eq!(copies.owed().count(), 0);
    }

    #[test]
    fn a_result_that_is_overwritten_is_never_paid() {
        let mut copies = Copies::default();
        for double in [true, false] {
            copies.begin();
            let xmm = copies.fresh();
            copies.owe(7, double, xmm, false);
        }
        let held = copies.pay(7).expect("the second is owed");
        assert!(!held.double);
        assert_eq!(copies.pay(7), None);
    }

    #[test]
    fn what_is_paid_keeps_its_host_register_for_the_instruction() {
        let mut copies = Copies::default();
        for guest in 0..(COUNT - OPERANDS_MAX) as u8 {
            assert_eq!(copies.begin(), None);
            let xmm = copies.fresh();
            copies.owe(guest, true, xmm, false);
        }
        // The next ones that would be taken are the first again.
        copies.begin();
        let _unused: [Xmm; OPERANDS_MAX] = core::array::from_fn(|_| copies.fresh());
        assert_eq!(copies.begin(), Some(0), "there are not enough left for an instruction");
        let paid = [0, 5, 7].map(|guest| copies.pay(guest).expect("it is owed").xmm);
        let operands: [Xmm; OPERANDS_MAX] = core::array::from_fn(|_| copies.fresh());
        assert!(paid.iter().all(|xmm| !operands.contains(xmm)), "{operands:?} {paid:?}");
    }

    #[test]
    fn raw_results_are_looked_at_in_pairs_of_one_precision() {
        let mut copies = Copies::default();
        for (guest, double) in [(1, true), (2, false), (3, true), (4, true)] {
            copies.begin();
            let xmm = copies.fresh();
            copies.owe(guest, double, xmm, true);
        }
        let pair = copies.look(4).map(|(first, second)| (first.guest, second.map(|held| held.guest)));
        assert_eq!(pair, Some((4, Some(1))));
        let alone = copies.look(2).map(|(first, second)| (first.guest, second));
        assert_eq!(alone, Some((2, None)));
        assert_eq!(copies.look(1), None, "it was looked at");
        assert!(copies.look(3).is_some());
    }
}
