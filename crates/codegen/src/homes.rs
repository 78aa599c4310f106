//! Which host register holds which guest register within a block.
//!
//! Between blocks, the ten guest registers that programs use most have host registers (`state::PINNED`), the others
//! lie in the hart. A long block of, say, a hash function uses others more: it lends them the host registers of those
//! that it uses little, and takes them back where it ends; a block that repeats itself, after the last time. The choice
//! holds for the whole block, so that wherever it is left, the same few moves restore what everybody outside expects.

use crate::asm::{Asm, Reg, W};
use crate::groups::written;
use crate::region::Place;
use crate::state::{PINNED, pinned, x};
use alloc::vec::Vec;
use pollux_isa::{Format, Inst};

/// What an operand in memory costs, in something like half instructions: a read is part of what reads, mostly.
const READ: i32 = 1;
const WRITE: i32 = 2;

/// A guest register that has the host register of another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Loan {
    reg: Reg,
    owner: u8,
    borrower: u8,
    /// Whether the block writes the borrower.
    is_written: bool,
}

/// Where the guest registers are in a block.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Homes {
    loans: Vec<Loan>,
    /// A guest register that is elsewhere for the moment.
    aside: Option<(u8, Reg)>,
}

impl Homes {
    /// Chooses for the instructions of a block; one that `repeats` itself lends once for many times.
    pub(crate) fn choose(block: impl Iterator<Item = Inst>, repeats: bool) -> Self {
        let mut worth = [0; 32];
        let mut is_written = [false; 32];
        for inst in block {
            for register in read(inst).into_iter().flatten() {
                worth[usize::from(register)] += READ;
            }
            if let Some(rd) = written(inst) {
                worth[usize::from(rd)] += WRITE;
                is_written[usize::from(rd)] = true;
            }
        }
        let by_worth = |guest: &u8| worth[usize::from(*guest)];
        let mut owners: Vec<u8> = PINNED.iter().map(|&(guest, _)| guest).collect();
        owners.sort_by_key(by_worth);
        let mut borrowers: Vec<u8> = (1..32).filter(|&guest| pinned(guest).is_none()).collect();
        borrowers.sort_by_key(|guest| -by_worth(guest));
        let mut loans = Vec::new();
        for (owner, borrower) in owners.into_iter().zip(borrowers) {
            let is_written = is_written[usize::from(borrower)];
            // The owner is stored and loaded, the borrower loaded and perhaps stored.
            let cost = WRITE + READ + READ + if is_written { WRITE } else { 0 };
            let gain = by_worth(&borrower) - by_worth(&owner);
            if gain <= if repeats { 0 } else { cost } {
                break;
            }
            let Some(reg) = pinned(owner) else { break };
            loans.push(Loan { reg, owner, borrower, is_written });
        }
        Self { loans, aside: None }
    }

    /// Whether all registers are where they are between blocks.
    pub(crate) fn are_plain(&self) -> bool {
        self.loans.is_empty()
    }

    /// The host register that holds a guest register, if one does.
    pub(crate) fn of(&self, guest: u8) -> Option<Reg> {
        if let Some((register, reg)) = self.aside
            && register == guest
        {
            return Some(reg);
        }
        for loan in &self.loans {
            if loan.borrower == guest {
                return Some(loan.reg);
            }
            if loan.owner == guest {
                return None;
            }
        }
        pinned(guest)
    }

    /// Has a guest register be in a host register that is no guest register's; or where it was again.
    pub(crate) fn set_aside(&mut self, aside: Option<(u8, Reg)>) {
        self.aside = aside;
    }

    /// From how it is between blocks to how it is in this one. Leaves flags and all other registers alone.
    pub(crate) fn lend(&self, asm: &mut Asm) {
        for loan in &self.loans {
            asm.store(W::Q, x(loan.owner), loan.reg);
            asm.load(W::Q, loan.reg, x(loan.borrower));
        }
    }

    /// And back.
    pub(crate) fn take_back(&self, asm: &mut Asm) {
        for loan in &self.loans {
            if loan.is_written {
                asm.store(W::Q, x(loan.borrower), loan.reg);
            }
            asm.load(W::Q, loan.reg, x(loan.owner));
        }
    }

    /// After a step that was taken between blocks' conventions.
    pub(crate) fn lend_again(&self, asm: &mut Asm) {
        for loan in &self.loans {
            // The step has stored the owner.
            asm.load(W::Q, loan.reg, x(loan.borrower));
        }
    }
}

/// The integer registers that an instruction reads.
pub(crate) fn read(inst: Inst) -> [Option<u8>; 2] {
    let (first, second) = (Some(inst.rs1), Some(inst.rs2));
    match inst.opcode.info().map(|info| info.format) {
        Some(Format::B | Format::Store | Format::R | Format::Amo | Format::SFence) => [first, second],
        Some(
            Format::I
            | Format::Load
            | Format::Shift
            | Format::ShiftW
            | Format::Unary
            | Format::Cbo
            | Format::Csr
            | Format::Lr
            | Format::FLoad
            | Format::FStore
            | Format::FFromIntRound
            | Format::FFromInt,
        ) => [first, None],
        _ => [None, None],
    }
}

/// The instructions of places.
pub(crate) fn insts(places: &[Place], last: Option<Place>) -> impl Iterator<Item = Inst> {
    places.iter().copied().chain(last).map(|place| place.inst)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pollux_isa::Opcode;

    fn add(rd: u8, rs1: u8, rs2: u8) -> Inst {
        Inst { opcode: Opcode::Add, len: 4, rd, rs1, rs2, rs3: 0, rm: 0, imm: 0 }
    }

    #[test]
    fn a_register_that_a_block_uses_much_borrows_from_one_that_it_does_not_use() {
        let homes = Homes::choose([add(28, 28, 29); 10].into_iter(), false);
        let reg = homes.of(28).unwrap();
        let owners: Vec<u8> = (1..32).filter(|&guest| pinned(guest) == Some(reg)).collect();
        assert_eq!(owners.len(), 1);
        assert_eq!(homes.of(owners[0]), None);
        assert_eq!(homes.of(0), None);
    }

    #[test]
    fn what_is_used_little_stays_where_it_is() {
        let little = [add(28, 28, 29), add(15, 15, 28)];
        let homes = Homes::choose(little.into_iter(), false);
        assert!(homes.are_plain());
        assert!(!Homes::choose(little.into_iter(), true).are_plain(), "unless it is used again and again");
        assert_eq!(homes.of(28), None);
        assert_eq!(homes.of(15), pinned(15));
    }

    #[test]
    fn nobody_lends_what_is_worth_as_much_to_the_block() {
        let busy: Vec<Inst> = PINNED.iter().flat_map(|&(guest, _)| [add(guest, guest, guest); 4]).collect();
        assert!(Homes::choose(busy.iter().copied().chain([add(28, 28, 28); 4]), true).are_plain());
    }
}
