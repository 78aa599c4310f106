//! Finding blocks: decoding what lies in a page, and, of one instruction, in the next.
//!
//! Instructions that begin in one page and end in the next are blocks of their own. What follows a page is decided by the
//! page tables, and whoever writes the second page knows nothing of the first: such a block looks itself, whenever it
//! executes, whether the page behind is what it was when the block was translated.

use super::native::{is_branch, is_cheap};
use super::{LAST_HALF, PAGE, Place, Terminator};
use alloc::vec::Vec;
use pollux_isa::{Opcode as Op, decode, decode_compressed, is_compressed};

/// Instructions in a block: what an interrupt may have to wait for the interpreter, and what fits into a byte.
const BLOCK_MAX: usize = 100;
/// Instructions that are worth computing in vain.
const SKIPPED_MAX: usize = 3;

/// The page behind the one that is translated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Behind {
    /// The machine's number of the decoded page.
    pub page: u32,
    /// Where it lies in RAM.
    pub ram_offset: u64,
    /// Its first halfword.
    pub half: u16,
}

/// What blocks are found in.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) page: &'a [u8; PAGE as usize],
    pub(crate) behind: Option<Behind>,
}

impl Source<'_> {
    /// A halfword of the page.
    pub(crate) fn half(&self, offset: u16) -> Option<u16> {
        let at = usize::from(offset);
        Some(u16::from_le_bytes([*self.page.get(at)?, *self.page.get(at + 1)?]))
    }

    /// Decodes an instruction; or says how long it is for the interpreter.
    pub(crate) fn place(&self, offset: u16) -> Result<Place, u16> {
        let low = self.half(offset).ok_or(2u16)?;
        let inst = if is_compressed(low) {
            decode_compressed(low)
        } else if let Some(high) = self.half(offset + 2) {
            decode(u32::from(low) | u32::from(high) << 16)
        } else {
            // Its second half is another page's.
            return Err(4);
        };
        inst.map(|inst| Place { inst, offset }).ok_or(2)
    }

    /// Whether an instruction at `offset` ends in the next page.
    pub(crate) fn ends_in_next_page(&self, offset: u16) -> bool {
        offset == LAST_HALF && self.half(offset).is_some_and(|low| !is_compressed(low))
    }

    /// That instruction, if it can be translated.
    pub(crate) fn straddling(&self) -> Option<(Place, Behind)> {
        let behind = self.behind?;
        let low = self.half(LAST_HALF).filter(|low| !is_compressed(*low))?;
        let inst = decode(u32::from(low) | u32::from(behind.half) << 16)?;
        let ends = matches!(inst.opcode, Op::Ecall | Op::Ebreak | Op::Mret | Op::Sret | Op::Wfi);
        (!ends).then_some((Place { inst, offset: LAST_HALF }, behind))
    }

    /// The few instructions that a branch may skip, if they compute one register and no more.
    fn skipped(&self, branch: Place) -> Option<Vec<Place>> {
        let target = branch.target();
        let mut skipped: Vec<Place> = Vec::new();
        let mut at = branch.next();
        while i32::from(at) < target && target < i32::from(PAGE) && skipped.len() < SKIPPED_MAX {
            let place = self.place(at).ok()?;
            if !is_cheap(place.inst) || skipped.first().is_some_and(|first| first.inst.rd != place.inst.rd) {
                return None;
            }
            skipped.push(place);
            at = place.next();
        }
        (i32::from(at) == target && !skipped.is_empty()).then_some(skipped)
    }

    /// The instructions of the block at `offset`, how it ends, and, if it falls through, where. It ends where a block
    /// begins that `is_known`.
    pub(crate) fn block(
        &self,
        mut offset: u16,
        is_known: &dyn Fn(u16) -> bool,
    ) -> (Vec<Place>, Terminator, u16) {
        let mut places = Vec::new();
        loop {
            if offset >= PAGE || places.len() >= BLOCK_MAX || (!places.is_empty() && is_known(offset)) {
                return (places, Terminator::Fall, offset);
            }
            let place = match self.place(offset) {
                Ok(place) => place,
                Err(_) if offset == LAST_HALF && !places.is_empty() => {
                    return (places, Terminator::Fall, offset);
                }
                Err(len) => {
                    return (places, Terminator::Step { offset, len, opcode: None }, offset + len);
                }
            };
            let inst = place.inst;
            match inst.opcode {
                Op::Jal | Op::Jalr => return (places, Terminator::Jump(place), place.next()),
                opcode if is_branch(opcode) => match self.skipped(place) {
                    Some(skipped) => {
                        places.push(place);
                        places.extend(skipped);
                        offset += inst.imm as u16;
                        continue;
                    }
                    None => return (places, Terminator::Jump(place), place.next()),
                },
                Op::Ecall | Op::Ebreak | Op::Mret | Op::Sret | Op::Wfi => {
                    let len = u16::from(inst.len);
                    let end = Terminator::Step { offset, len, opcode: Some(inst.opcode) };
                    return (places, end, place.next());
                }
                _ => places.push(place),
            }
            offset = place.next();
        }
    }
}
