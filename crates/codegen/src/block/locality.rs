//! Which code is likely to stay within few pages: loops that call nobody, and long blocks, as those of ciphers.
//!
//! There a register's inline cache, of one page, serves many accesses; elsewhere registers go from object to
//! object. Where that guess is wrong, it costs time and nothing else.

use super::find::Source;
use crate::state::LOOP_REGISTERS;
use pollux_isa::{Opcode as Op, is_compressed};

/// How far, in instructions, the branch back is looked for.
const AHEAD_MAX: usize = 500;
/// Instructions that are looked at for one region, so that no page that a guest writes takes long to translate.
const LOOKS_MAX: u32 = 40_000;
/// Instructions in a long block.
const LONG: u16 = 40;
/// Spreads the places of loops over numbers (Knuth's multiplicative hashing).
const SPREAD: u32 = 0x9e37_79b1;

/// Whether an instruction may go elsewhere, by its first halfword.
fn may_jump(low: u16) -> bool {
    if is_compressed(low) {
        // c.j, c.beqz, c.bnez; c.jr, c.jalr and their like.
        (low & 3 == 1 && low >> 13 >= 5) || (low & 3 == 2 && low >> 13 == 4)
    } else {
        // Branches, jumps, system instructions.
        low & 0x60 == 0x60
    }
}

/// Where code goes on.
enum Step {
    /// With the next instruction, or with one before: their offsets.
    On(u16, Option<i32>),
    /// Somewhere that is not known.
    Away,
}

/// Whether a block is likely to access few pages, so that the inline caches of pages serve many accesses.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Locality {
    pub(crate) is_local: bool,
    /// By how much the inline caches of its registers are moved: each loop has a number of its own.
    pub(crate) rotation: u8,
}

/// What is known of loops while a region is planned.
pub(crate) struct Loops<'a> {
    source: &'a Source<'a>,
    /// Instructions that may still be looked at.
    looks: u32,
    /// The loop without calls that was found last: where it begins and ends.
    inner: (u16, u16),
}

impl<'a> Loops<'a> {
    pub(crate) fn new(source: &'a Source<'a>) -> Self {
        Self { source, looks: LOOKS_MAX, inner: (0, 0) }
    }

    /// Of the block at `offset`, of so many instructions.
    pub(crate) fn locality(&mut self, offset: u16, instructions: u16) -> Locality {
        if instructions >= LONG {
            return Locality { is_local: true, rotation: 0 };
        }
        if !self.is_in_inner_loop(offset) {
            return Locality::default();
        }
        let (first, _) = self.inner;
        let rotation = (u32::from(first / 2).wrapping_mul(SPREAD) >> 16) as u8 % LOOP_REGISTERS;
        Locality { is_local: true, rotation }
    }

    /// Whether the block at `offset` belongs to a loop in which nobody is called.
    fn is_in_inner_loop(&mut self, offset: u16) -> bool {
        if (self.inner.0..self.inner.1).contains(&offset) {
            return true;
        }
        let mut at = offset;
        for _ in 0..AHEAD_MAX {
            match self.step_from(at) {
                Step::On(end, Some(first)) if first <= i32::from(offset) => {
                    let is_one = self.leads_to(first, offset);
                    if is_one {
                        self.inner = (first as u16, end);
                    }
                    return is_one;
                }
                Step::On(next, _) => at = next,
                Step::Away => return false,
            }
        }
        false
    }

    /// Whether nobody is called between two offsets.
    fn leads_to(&mut self, first: i32, end: u16) -> bool {
        let Ok(mut at) = u16::try_from(first) else { return false };
        while at < end {
            match self.step_from(at) {
                Step::On(next, _) => at = next,
                Step::Away => return false,
            }
        }
        true
    }

    fn step_from(&mut self, offset: u16) -> Step {
        let (Some(looks), Some(low)) = (self.looks.checked_sub(1), self.source.half(offset)) else {
            return Step::Away;
        };
        self.looks = looks;
        if !may_jump(low) {
            return Step::On(offset + if is_compressed(low) { 2 } else { 4 }, None);
        }
        let Ok(place) = self.source.place(offset) else { return Step::Away };
        match place.inst.opcode {
            Op::Jal if place.inst.rd != 0 => Step::Away,
            Op::Jal | Op::Beq | Op::Bne | Op::Blt | Op::Bge | Op::Bltu | Op::Bgeu => {
                Step::On(place.next(), Some(place.target()))
            }
            Op::Jalr | Op::Ecall | Op::Ebreak | Op::Sret | Op::Mret | Op::Wfi => Step::Away,
            _ => Step::On(place.next(), None),
        }
    }
}
