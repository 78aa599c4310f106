//! Instructions that begin in one page and end in the next.
//!
//! What follows a page is decided by the page tables, and whoever writes the second page knows nothing of the first. So
//! such an instruction is a block of its own, which looks before it executes: the TLB for fetches must say that the page
//! behind is the one that it was when the block was translated, and the halfword there must be what it was. If not, it
//! is a step. Nothing has to be told to forget it on account of the second page.

use crate::asm::{Alu, Asm, Cond, RAX, RCX, RDX, Shift, W, at, at2, indexed};
use crate::cold::Cold;
use crate::groups::Plan;
use crate::guard::is_branch;
use crate::region::{LAST_HALF, Place, Translator};
use crate::state::{self, StepInfo, part, word};
use crate::tlb::entry_of_tlb;
use alloc::vec::Vec;
use pollux_isa::{Opcode as Op, decode, is_compressed};
use pollux_machine::engine::layout;

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

impl Translator<'_> {
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

    /// Translates the straddling instruction, as a block that has begun; returns where to go on.
    pub(crate) fn straddle(&mut self, place: Place, behind: Behind) -> Option<u16> {
        let mut from = Vec::new();
        self.address(RAX, i32::from(LAST_HALF) + 2);
        self.call(self.thunks.page_at);
        from.push(self.asm.jcc(Cond::Ne as u8));
        self.asm.alu_imm(Alu::Cmp, W::D, RCX, behind.page as i32);
        from.push(self.asm.jcc(Cond::Ne as u8));
        self.asm.load(W::Q, RDX, word(state::RAM));
        self.asm.mov_imm(RCX, behind.ram_offset);
        self.asm.load_extended(2, false, RDX, at2(RDX, RCX, 0).into());
        self.asm.alu_imm(Alu::Cmp, W::D, RDX, i32::from(behind.half));
        from.push(self.asm.jcc(Cond::Ne as u8));
        let info =
            StepInfo { offset: LAST_HALF, len: 4, unexecuted: 1, needs_float: false, comes_back: true };
        self.cold.push(Cold::StepAway { from, info });
        if matches!(place.inst.opcode, Op::Jal | Op::Jalr) || is_branch(place.inst.opcode) {
            return self.jump(place);
        }
        self.next_instruction(place, Plan::ALONE, 1);
        self.settle_all();
        Some(place.next())
    }
}

/// [`crate::thunks::Thunks::page_at`]. Uses rdx.
pub(crate) fn page_at(asm: &mut Asm) -> u32 {
    let place = asm.here();
    asm.mov(RDX, RAX);
    asm.shift_imm(Shift::Shr, W::Q, RDX, 63);
    asm.mov32(RCX, RAX);
    asm.alu(Alu::Xor, W::D, RCX, indexed(part(layout::FETCH_MIXES), RDX, 3));
    entry_of_tlb(asm, RCX, layout::TLB_FETCH);
    asm.alu(Alu::Or, W::Q, RAX, indexed(part(layout::FETCH_CONTEXTS), RDX, 3));
    asm.alu(Alu::Cmp, W::Q, RAX, at(RCX, 0));
    // Leaves the flags alone.
    asm.load(W::D, RCX, at(RCX, 8));
    asm.ret();
    place
}
