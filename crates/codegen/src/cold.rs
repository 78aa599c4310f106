//! Out-of-line code: what is rarely needed, behind the regions. Where translated code is left in the middle of a block,
//! this is where the hart gets its exact state: what the hart is owed is written, lent registers are taken back, and the
//! thunk [`crate::thunks::Thunks::step`] knows which instruction it is.

use crate::asm::{Alu, Cond, Fixup, R15, RAX, RCX, W, Xmm};
use crate::emit_float::sse;
use crate::region::{Place, Translator};
use crate::state::{self, StepInfo, word};
use crate::tlb::OtherPage;
use crate::xmm::Held;
use alloc::vec::Vec;

/// A piece of it.
pub(crate) enum Cold {
    /// One interpreted step, then back.
    Step {
        from: Vec<Fixup>,
        other_page: Option<OtherPage>,
        info: StepInfo,
        /// Where the instruction is tried again, and where it has been executed.
        start: u32,
        back: u32,
        /// What the hart is owed where the instruction begins, and what is held behind it.
        owed: Vec<Held>,
        copies: Vec<Held>,
        /// Which of [`Translator::lent`], if any.
        lent: Option<usize>,
    },
    /// One interpreted step at the end of a page, then on behind it.
    StepAway { from: Vec<Fixup>, info: StepInfo },
    /// The budget does not suffice for the block at `offset`, which has taken `steps` off.
    Short { from: Fixup, offset: u16, steps: u16, lent: Option<usize> },
    /// One of these copies, or both, is a NaN.
    NotANumber { from: Fixup, back: u32, first: Held, second: Option<Held> },
    /// The result of a fused operation, in `to`, is a NaN.
    Fused { from: Fixup, back: u32, factors: [Xmm; 2], to: Xmm, double: bool },
    /// `fmin` or `fmax` of a NaN, with the operands' bits in rax and rcx, and the first one in xmm0.
    Extreme { from: Fixup, back: u32, second: u8, double: bool },
    /// A taken branch to another page: the offset from this one's beginning.
    Far { from: Fixup, offset: i32 },
}

impl Translator<'_> {
    /// Where the jumps in `from`, and those of the instruction's access, lead: to the interpreter.
    pub(crate) fn cold_step(&mut self, from: Vec<Fixup>, place: Place, unexecuted: u16, needs_float: bool) {
        if from.is_empty() && self.other_page.is_none() {
            return;
        }
        let info = StepInfo {
            offset: place.offset,
            len: u16::from(place.inst.len),
            unexecuted,
            needs_float,
            comes_back: !self.plan.is_spanned,
        };
        let other_page = self.other_page.take();
        let (owed, copies) = (core::mem::take(&mut self.owed), self.copies.all().collect());
        let (back, lent) = (self.asm.here(), self.lent());
        self.cold.push(Cold::Step { from, other_page, info, start: self.start, back, owed, copies, lent });
    }

    /// One interpreted step, in line.
    pub(crate) fn step_here(&mut self, info: StepInfo) {
        self.asm.mov_imm(RAX, u64::from(info.pack()));
        self.call(self.thunks.step);
    }

    pub(crate) fn emit_cold(&mut self) {
        // Of the last block in which registers are lent: what takes them back, and what lends them again.
        let mut routines: Option<(usize, [u32; 2])> = None;
        for cold in core::mem::take(&mut self.cold) {
            match cold {
                Cold::Step { mut from, other_page, info, start, back, owed, copies, lent } => {
                    let lent = lent.map(|index| self.lending_routines(index, &mut routines));
                    if let Some(other_page) = &other_page {
                        from.extend(&other_page.fails);
                        self.emit_other_page(other_page, &mut from);
                    }
                    from.into_iter().for_each(|jump| self.asm.bind_here(jump));
                    owed.iter().for_each(|&held| self.write_copy(held));
                    lent.into_iter().for_each(|[take_back, _]| self.call(take_back));
                    self.step_here(info);
                    if !info.comes_back && other_page.is_none() {
                        continue;
                    }
                    lent.into_iter().for_each(|[_, lend_again]| self.call(lend_again));
                    let is_free = |held: &Held| copies.iter().all(|other| other.xmm != held.xmm);
                    // What is tried again may come here again, and pay the same.
                    let debts = owed.iter().filter(|held| other_page.is_some() && is_free(held));
                    for &Held { guest, double, xmm, .. } in copies.iter().chain(debts) {
                        self.asm.load_xmm(double, xmm, state::f(guest));
                    }
                    if other_page.is_some() {
                        let again = self.asm.jcc(Cond::Ne as u8);
                        self.asm.bind(again, start);
                    }
                    if info.comes_back {
                        let jump = self.asm.jmp();
                        self.asm.bind(jump, back);
                    }
                }
                Cold::StepAway { from, info } => {
                    from.into_iter().for_each(|jump| self.asm.bind_here(jump));
                    self.step_here(info);
                    self.go_far(i32::from(info.offset + info.len));
                }
                Cold::Short { from, offset, steps, lent } => {
                    let lent = lent.map(|index| self.lending_routines(index, &mut routines));
                    self.asm.bind_here(from);
                    lent.into_iter().for_each(|[take_back, _]| self.call(take_back));
                    self.asm.alu_imm(Alu::Add, W::Q, R15, i32::from(steps));
                    self.asm.store_imm(W::Q, word(state::SHORT), 1);
                    self.leave_at(offset);
                }
                Cold::NotANumber { from, back, first, second } => {
                    self.asm.bind_here(from);
                    [Some(first), second].into_iter().flatten().for_each(|held| self.make_canonical(held));
                    self.go_back(back);
                }
                Cold::Fused { from, back, factors, to, double } => {
                    self.asm.bind_here(from);
                    self.fused_is_no_number(factors, to, double);
                    self.go_back(back);
                }
                Cold::Extreme { from, back, second, double } => {
                    self.asm.bind_here(from);
                    self.number_of_two(second, double);
                    self.go_back(back);
                }
                Cold::Far { from, offset } => {
                    self.asm.bind_here(from);
                    self.go_far(offset);
                }
            }
        }
    }

    /// On with the block.
    fn go_back(&mut self, place: u32) {
        let jump = self.asm.jmp();
        self.asm.bind(jump, place);
    }

    /// `to` = RISC-V's NaN. Infinity times zero is invalid whatever is added to it; hosts say so only if that is no quiet
    /// NaN. The product is asked, and believed if it is no number: then it notes nothing else.
    fn fused_is_no_number(&mut self, [first, second]: [Xmm; 2], to: Xmm, double: bool) {
        const PRODUCT: Xmm = Xmm(0);
        self.asm.mxcsr(true, word(state::MXCSR));
        self.asm.mov_xmm(PRODUCT, first);
        self.asm.sse(sse::MUL, double, PRODUCT, second);
        self.asm.compare(true, double, PRODUCT, PRODUCT);
        let believed = self.asm.jcc(Cond::P as u8);
        self.asm.mxcsr(false, word(state::MXCSR));
        self.asm.bind_here(believed);
        self.asm.load_xmm(double, to, word(if double { state::NAN_DOUBLE } else { state::NAN_SINGLE }));
    }

    /// rax = the one of two that is a number, if one is; else RISC-V's NaN. See [`Cold::Extreme`].
    fn number_of_two(&mut self, second: u8, double: bool) {
        const FIRST: Xmm = Xmm(0);
        self.asm.compare(true, double, FIRST, FIRST);
        let first_is = self.asm.jcc(Cond::Np as u8);
        self.asm.mov(RAX, RCX);
        self.asm.load_xmm(double, FIRST, state::f(second));
        self.asm.compare(true, double, FIRST, FIRST);
        let second_is = self.asm.jcc(Cond::Np as u8);
        self.asm.mov_imm(RAX, state::CANONICAL_NANS[usize::from(!double)]);
        self.asm.bind_here(second_is);
        self.asm.bind_here(first_is);
    }

    /// What steps in a block in which registers are lent call before and after: where it is. `last` is the answer for
    /// the block that was asked for last.
    fn lending_routines(&mut self, index: usize, last: &mut Option<(usize, [u32; 2])>) -> [u32; 2] {
        if let Some((known, places)) = *last
            && known == index
        {
            return places;
        }
        let homes = core::mem::take(&mut self.lent[index]);
        let take_back = self.asm.here();
        homes.take_back(&mut self.asm);
        self.asm.ret();
        let lend_again = self.asm.here();
        homes.lend_again(&mut self.asm);
        self.asm.ret();
        *last = Some((index, [take_back, lend_again]));
        [take_back, lend_again]
    }
}
