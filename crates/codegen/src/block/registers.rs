//! Register allocation: which host register holds which guest register within a block.
//!
//! Between blocks, the ten guest registers that programs use most have host registers (`state::PINNED`), the others
//! lie in the hart. A long block of, say, a hash function uses others more: it spills those of the ten that it uses
//! little, and gives their host registers to the others until it ends; a block that repeats itself, until after the last
//! time. The allocation holds for the whole block, so that wherever it is left, the same few moves restore what everybody
//! outside expects. `emit/registers.rs` emits them.

use super::Place;
use crate::asm::Reg;
use crate::state::{PINNED, pinned};
use alloc::vec::Vec;
use pollux_isa::{Format, Inst};

/// The register that is zero: `emit/registers.rs` says how it stays so.
pub(crate) const X0: u8 = 0;

/// What an operand in memory costs, in something like half instructions: a read is part of what reads, mostly.
const READ: i32 = 1;
const WRITE: i32 = 2;

/// A host register that holds another guest register than between blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Assignment {
    pub(crate) reg: Reg,
    /// The guest register that it holds between blocks; in this one it lies in the hart.
    pub(crate) spilled: u8,
    /// The one that it holds in this block.
    pub(crate) guest: u8,
    /// Whether the block writes that, so that it has to be written back.
    pub(crate) is_written: bool,
}

/// Where the guest registers are in a block.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Allocation {
    pub(crate) assignments: Vec<Assignment>,
}

impl Allocation {
    /// Chooses for the instructions of a block; one that `repeats` itself spills once for many times.
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
        let mut holders: Vec<u8> = PINNED.iter().map(|&(guest, _)| guest).collect();
        holders.sort_by_key(by_worth);
        let mut others: Vec<u8> = (1..32).filter(|&guest| pinned(guest).is_none()).collect();
        others.sort_by_key(|guest| -by_worth(guest));
        let mut assignments = Vec::new();
        for (spilled, guest) in holders.into_iter().zip(others) {
            let is_written = is_written[usize::from(guest)];
            // What is spilled is stored and loaded, the other one loaded and perhaps stored.
            let cost = WRITE + READ + READ + if is_written { WRITE } else { 0 };
            let gain = by_worth(&guest) - by_worth(&spilled);
            if gain <= if repeats { 0 } else { cost } {
                break;
            }
            let Some(reg) = pinned(spilled) else { break };
            assignments.push(Assignment { reg, spilled, guest, is_written });
        }
        Self { assignments }
    }

    /// Whether all registers are where they are between blocks.
    pub(crate) fn is_default(&self) -> bool {
        self.assignments.is_empty()
    }

    /// The host register that holds a guest register, if one does; none ever holds x0.
    pub(crate) fn of(&self, guest: u8) -> Option<Reg> {
        for assignment in &self.assignments {
            if assignment.guest == guest {
                return Some(assignment.reg);
            }
            if assignment.spilled == guest {
                return None;
            }
        }
        pinned(guest)
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

/// The integer register that an instruction writes.
pub(crate) fn written(inst: Inst) -> Option<u8> {
    let format = inst.opcode.info()?.format;
    let none = matches!(
        format,
        Format::B
            | Format::Store
            | Format::Bare
            | Format::Fence
            | Format::SFence
            | Format::Cbo
            | Format::FLoad
            | Format::FStore
            | Format::F4
            | Format::FRound2
            | Format::FRound1
            | Format::F2
            | Format::FFromIntRound
            | Format::FFromInt
            | Format::FConstant
    );
    (!none).then_some(inst.rd)
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
    fn a_register_that_a_block_uses_much_gets_the_host_register_of_one_that_it_does_not_use() {
        let allocation = Allocation::choose([add(28, 28, 29); 10].into_iter(), false);
        let reg = allocation.of(28).unwrap();
        let holders: Vec<u8> = (1..32).filter(|&guest| pinned(guest) == Some(reg)).collect();
        assert_eq!(holders.len(), 1);
        assert_eq!(allocation.of(holders[0]), None);
        assert_eq!(allocation.of(0), None);
    }

    #[test]
    fn what_is_used_little_stays_where_it_is() {
        let little = [add(28, 28, 29), add(15, 15, 28)];
        let allocation = Allocation::choose(little.into_iter(), false);
        assert!(allocation.is_default());
        assert!(
            !Allocation::choose(little.into_iter(), true).is_default(),
            "unless it is used again and again"
        );
        assert_eq!(allocation.of(28), None);
        assert_eq!(allocation.of(15), pinned(15));
    }

    #[test]
    fn what_is_worth_as_much_to_the_block_is_not_spilled() {
        let busy: Vec<Inst> = PINNED.iter().flat_map(|&(guest, _)| [add(guest, guest, guest); 4]).collect();
        assert!(Allocation::choose(busy.iter().copied().chain([add(28, 28, 28); 4]), true).is_default());
    }
}
