//! The check that a block of one instruction makes that ends in the next page: the TLB for fetches must say that the page
//! behind is the one that it was when the block was translated, and the halfword there must be what it was. If not, the
//! instruction is a step. Nothing has to be told to forget it on account of the second page.

use super::Emitter;
use super::slow::SlowPath;
use crate::asm::{Alu, Cond, RAX, RCX, RDX, W, at2};
use crate::block::LAST_HALF;
use crate::block::find::Behind;
use crate::state::{self, StepInfo, word};
use alloc::vec::Vec;

impl Emitter<'_, '_> {
    /// Goes on if the page behind is as it was.
    pub(super) fn check_next_page(&mut self, behind: Behind) {
        let mut from = Vec::new();
        self.address(RAX, i32::from(LAST_HALF) + 2);
        self.asm.call(self.target.stubs.page_at);
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
        self.slow_paths.push(SlowPath::StepAway { from, info });
    }
}
