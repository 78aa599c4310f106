//! Slow paths: what is rarely needed, out of line, behind the regions. Where translated code is left in the middle of a
//! block, this is where the hart gets its exact state: floating-point registers are written back, spilled integer registers
//! are filled again, and the stub [`crate::stubs::Stubs::step`] knows which instruction it is.

use super::Emitter;
use super::exits::{go_far, leave_at, step};
use super::float_cache::{Held, canonicalize, write_back};
use super::registers::{assign_again, restore};
use super::tlb::Miss;
use crate::asm::float::sse;
use crate::asm::{Alu, Asm, Cond, Fixup, R15, RAX, RCX, W, Xmm};
use crate::block::Planned;
use crate::block::registers::Allocation;
use crate::state::{self, StepInfo, word};
use crate::stubs::Stubs;
use alloc::vec::Vec;

/// The slow path of the instruction that is being emitted, as far as it is known.
#[derive(Default)]
pub(crate) struct Pending {
    /// Jumps to it.
    from: Vec<Fixup>,
    /// The way to the TLB of its access.
    pub(super) miss: Option<Miss>,
    /// Where what it does for its access begins.
    pub(super) start: u32,
    /// The floating-point registers that the hart does not have where the instruction begins.
    dirty: Vec<Held>,
    /// The block must not go on behind an interpreted step.
    pub(super) is_spanned: bool,
}

impl Pending {
    pub(super) fn new(dirty: Vec<Held>, is_spanned: bool) -> Self {
        Self { dirty, is_spanned, ..Self::default() }
    }
}

/// A slow path.
pub(crate) enum SlowPath<'p> {
    /// One interpreted step, then back.
    Step {
        from: Vec<Fixup>,
        miss: Option<Miss>,
        info: StepInfo,
        /// Where the instruction is tried again, and where it has been executed.
        start: u32,
        back: u32,
        /// The floating-point registers that the hart does not have where the instruction begins, and all that are in xmm
        /// registers behind it.
        dirty: Vec<Held>,
        held: Vec<Held>,
        /// Of its block, unless that is the default.
        allocation: Option<&'p Allocation>,
    },
    /// One interpreted step at the end of a page, then on behind it.
    StepAway { from: Vec<Fixup>, info: StepInfo },
    /// The budget does not suffice for the block at `offset`, which has taken `steps` off.
    Short { from: Fixup, offset: u16, steps: u16, allocation: Option<&'p Allocation> },
    /// One of these registers, or both, is a NaN.
    NotANumber { from: Fixup, back: u32, first: Held, second: Option<Held> },
    /// The result of a fused operation, in `to`, is a NaN.
    Fused { from: Fixup, back: u32, factors: [Xmm; 2], to: Xmm, double: bool },
    /// `fmin` or `fmax` of a NaN, with the operands' bits in rax and rcx, and the first one in xmm0.
    Extreme { from: Fixup, back: u32, second: u8, double: bool },
    /// A taken branch to another page: the offset from this one's beginning.
    Far { from: Fixup, offset: i32 },
}

impl<'p> Emitter<'_, 'p> {
    /// To the instruction's slow path, if flags say so.
    pub(super) fn slow_if(&mut self, cond: Cond) {
        let jump = self.asm.jcc(cond as u8);
        self.pending.from.push(jump);
    }

    /// Here the instruction has been executed; if it has a slow path, that leads to the interpreter, and back.
    pub(super) fn end_fast_path(&mut self, planned: &Planned, needs_float: bool) {
        let Pending { from, miss, start, dirty, is_spanned } = core::mem::take(&mut self.pending);
        if from.is_empty() && miss.is_none() {
            return;
        }
        let info = StepInfo { needs_float, comes_back: !is_spanned, ..planned.info() };
        let (back, held, allocation) = (self.asm.here(), self.floats.all().collect(), self.allocation());
        self.slow_paths.push(SlowPath::Step { from, miss, info, start, back, dirty, held, allocation });
    }

    /// The block's allocation, unless it is that of all blocks.
    pub(super) fn allocation(&self) -> Option<&'p Allocation> {
        Some(&self.block.allocation).filter(|allocation| !allocation.is_default())
    }
}

/// What emits a region's slow paths.
struct SlowPaths<'e, 'p> {
    asm: &'e mut Asm,
    stubs: &'e Stubs,
    /// The allocation that was asked for last, and routines that restore registers, and assign them again.
    routines: Option<(&'p Allocation, [u32; 2])>,
}

/// Emits a region's slow paths.
pub(super) fn emit(asm: &mut Asm, stubs: &Stubs, paths: Vec<SlowPath<'_>>) {
    let mut emitter = SlowPaths { asm, stubs, routines: None };
    for path in paths {
        emitter.one(path);
    }
}

impl<'p> SlowPaths<'_, 'p> {
    fn one(&mut self, path: SlowPath<'p>) {
        match path {
            SlowPath::Step { .. } => self.step(path),
            SlowPath::StepAway { from, info } => {
                self.bind(from);
                step(self.asm, self.stubs, info);
                go_far(self.asm, self.stubs, i32::from(info.offset + info.len));
            }
            SlowPath::Short { from, offset, steps, allocation } => {
                let routines = allocation.map(|allocation| self.routines(allocation));
                self.asm.bind_here(from);
                routines.into_iter().for_each(|[restore, _]| self.asm.call(restore));
                self.asm.alu_imm(Alu::Add, W::Q, R15, i32::from(steps));
                self.asm.store_imm(W::Q, word(state::SHORT), 1);
                leave_at(self.asm, self.stubs, offset);
            }
            SlowPath::NotANumber { from, back, first, second } => {
                self.asm.bind_here(from);
                [Some(first), second].into_iter().flatten().for_each(|held| canonicalize(self.asm, held));
                self.asm.jmp_to(back);
            }
            SlowPath::Fused { from, back, factors, to, double } => {
                self.asm.bind_here(from);
                self.fused_is_no_number(factors, to, double);
                self.asm.jmp_to(back);
            }
            SlowPath::Extreme { from, back, second, double } => {
                self.asm.bind_here(from);
                self.number_of_two(second, double);
                self.asm.jmp_to(back);
            }
            SlowPath::Far { from, offset } => {
                self.asm.bind_here(from);
                go_far(self.asm, self.stubs, offset);
            }
        }
    }

    fn bind(&mut self, from: Vec<Fixup>) {
        from.into_iter().for_each(|jump| self.asm.bind_here(jump));
    }

    /// [`SlowPath::Step`].
    fn step(&mut self, path: SlowPath<'p>) {
        let SlowPath::Step { mut from, miss, info, start, back, dirty, held, allocation } = path else {
            return;
        };
        let routines = allocation.map(|allocation| self.routines(allocation));
        if let Some(miss) = &miss {
            from.extend(&miss.fails);
            miss.emit(self.asm, self.stubs, &mut from);
        }
        self.bind(from);
        dirty.iter().for_each(|&held| write_back(self.asm, held));
        routines.into_iter().for_each(|[restore, _]| self.asm.call(restore));
        step(self.asm, self.stubs, info);
        if !info.comes_back && miss.is_none() {
            return;
        }
        routines.into_iter().for_each(|[_, assign_again]| self.asm.call(assign_again));
        let is_free = |dirty: &Held| held.iter().all(|other| other.xmm != dirty.xmm);
        // What is tried again may come here again, and write back the same.
        let again = dirty.iter().filter(|dirty| miss.is_some() && is_free(dirty));
        for &Held { guest, double, xmm, .. } in held.iter().chain(again) {
            self.asm.load_xmm(double, xmm, state::f(guest));
        }
        if miss.is_some() {
            self.asm.jcc_to(Cond::Ne, start);
        }
        if info.comes_back {
            self.asm.jmp_to(back);
        }
    }

    /// `to` = the canonical NaN. Infinity times zero is invalid whatever is added to it; hosts say so only if that is no
    /// quiet NaN. The product is asked, and believed if it is no number: then it notes nothing else.
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

    /// rax = the one of two that is a number, if one is; else the canonical NaN. See [`SlowPath::Extreme`].
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

    /// What steps in a block with an allocation of its own call before and after: where it is.
    fn routines(&mut self, allocation: &'p Allocation) -> [u32; 2] {
        if let Some((known, places)) = self.routines
            && core::ptr::eq(known, allocation)
        {
            return places;
        }
        let before = self.asm.here();
        restore(self.asm, allocation);
        self.asm.ret();
        let after = self.asm.here();
        assign_again(self.asm, allocation);
        self.asm.ret();
        self.routines = Some((allocation, [before, after]));
        [before, after]
    }
}
