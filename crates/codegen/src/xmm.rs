//! Which floating-point registers host registers hold, within a block.
//!
//! A copy only saves a load and its latency: every result is written to the hart at once, so translated code can be
//! left anywhere, and a copy can be dropped at any time. Nothing is held from one block to the next, and what is
//! interpreted in between takes the copies with it (xmm registers are the caller's to save); where the block goes on
//! behind an interpreted step, they are loaded again.

use crate::asm::Xmm;

/// xmm0 to xmm2 are for everyone.
const FIRST: u8 = 3;
const COUNT: usize = 13;

/// The copies.
#[derive(Clone, Default, Debug)]
pub(crate) struct Copies {
    /// Of each host register from [`FIRST`]: which guest register, and whether in double precision.
    held: [Option<(u8, bool)>; COUNT],
    /// Host registers of the present instruction.
    busy: [bool; COUNT],
    next: usize,
}

impl Copies {
    /// A new instruction begins.
    pub(crate) fn begin(&mut self) {
        self.busy = [false; COUNT];
    }

    /// Where a copy is. It stays there for the present instruction.
    pub(crate) fn find(&mut self, guest: u8, double: bool) -> Option<Xmm> {
        let index = self.held.iter().position(|held| *held == Some((guest, double)))?;
        self.busy[index] = true;
        Some(Xmm(FIRST + index as u8))
    }

    /// A host register for the present instruction; what it held is no longer held.
    pub(crate) fn fresh(&mut self) -> Xmm {
        // An instruction has four registers at most, so one is free.
        while self.busy[self.next] {
            self.next = (self.next + 1) % COUNT;
        }
        let index = self.next;
        self.next = (self.next + 1) % COUNT;
        self.busy[index] = true;
        self.held[index] = None;
        Xmm(FIRST + index as u8)
    }

    /// A host register holds a guest register.
    pub(crate) fn hold(&mut self, guest: u8, double: bool, xmm: Xmm) {
        self.held[usize::from(xmm.0 - FIRST)] = Some((guest, double));
    }

    /// A guest register has another value.
    pub(crate) fn forget(&mut self, guest: u8) {
        let stale = |held: &&mut Option<(u8, bool)>| held.is_some_and(|(register, _)| register == guest);
        self.held.iter_mut().filter(stale).for_each(|held| *held = None);
    }

    /// Nothing is held.
    pub(crate) fn clear(&mut self) {
        self.held = [None; COUNT];
    }

    /// All copies: guest register, precision, host register.
    pub(crate) fn all(&self) -> impl Iterator<Item = (u8, bool, Xmm)> {
        let place = |(index, held): (usize, &Option<(u8, bool)>)| {
            held.map(|(guest, double)| (guest, double, Xmm(FIRST + index as u8)))
        };
        self.held.iter().enumerate().filter_map(place)
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
}
