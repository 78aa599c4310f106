//! Loads and stores. Three ways, from the fast to the slow:
//!
//! 1. The page that the last access through the same base register hit (`state::LOAD_TAGS`): in line, five
//!    instructions and no dependent loads.
//! 2. The soft TLB, out of line (`thunks`), which then remembers the page for the register.
//! 3. The interpreter.
//!
//! One comparison proves four things: the page is translated, in this context (what is remembered is of this one), with
//! this right, and the access is aligned (`pollux_machine::engine::layout::TLB_READ`). A store goes the third way if its page has a flag set: such a
//! page is in somebody's cache, which the interpreter will see to.

use crate::asm::{Alu, Cond, Fixup, Mem, RAX, RCX, RDX, Reg, Rm, W, at, at2};
use crate::groups::Way;
use crate::region::{Cold, Place, Translator};
use crate::state::{self, StepInfo, pinned, word};
use alloc::vec::Vec;
use pollux_isa::Inst;

/// An access that did not hit the page that was remembered for its register.
#[derive(Clone, Copy)]
pub(crate) struct OtherPage {
    pub(crate) from: Fixup,
    /// The engine word of the register's tag.
    pub(crate) tag: usize,
    pub(crate) store: bool,
    /// Where the access goes on once the page is remembered.
    pub(crate) back: u32,
    /// Taken if not all that it proves lies in one page.
    pub(crate) across: Option<Fixup>,
}

/// The engine word of the tag that is remembered for a register.
fn tag_word(register: u8, store: bool) -> usize {
    usize::from(register) + if store { state::STORE_TAGS } else { state::LOAD_TAGS }
}

impl Translator<'_> {
    /// The host memory that `bytes` bytes at rs1 + imm are. Uses rax, rcx and rdx.
    fn translate_address(&mut self, place: Place, bytes: u8, store: bool) -> Mem {
        let Inst { rs1, imm, .. } = place.inst;
        let (low, high, align) = match self.plan.way {
            Way::Follows { store } => return self.proved(rs1, imm, store),
            Way::Leads { low, high, align } => (low, high, align),
            Way::Alone => (imm, imm, bytes),
        };
        match pinned(rs1) {
            Some(reg) if low == 0 => self.asm.mov(RAX, reg),
            Some(reg) => self.asm.lea(RAX, at(reg, low)),
            None => {
                self.asm.load(W::Q, RAX, state::x(rs1));
                if low != 0 {
                    self.asm.alu_imm(Alu::Add, W::Q, RAX, low);
                }
            }
        }
        let other_page = self.check_page(rs1, align, store);
        if high > low {
            // The last byte lies in the same page.
            self.asm.lea(RCX, at(RAX, high - low));
            self.asm.alu(Alu::Xor, W::D, RCX, RAX);
            self.asm.alu_imm(Alu::And, W::D, RCX, -4096);
            self.other_page = Some(OtherPage { across: Some(self.asm.jcc(Cond::Ne as u8)), ..other_page });
        }
        self.add_page(rs1, store);
        at(RAX, imm - low)
    }

    /// rax, an address that is a multiple of `bytes`, becomes a host address; `base` is the register it came from. Uses
    /// rdx.
    pub(crate) fn find_page(&mut self, base: u8, bytes: u8, store: bool) {
        self.check_page(base, bytes, store);
        self.add_page(base, store);
    }

    /// Compares rax with the page that is remembered for a register.
    fn check_page(&mut self, base: u8, align: u8, store: bool) -> OtherPage {
        let tag = tag_word(base, store);
        self.asm.mov(RDX, RAX);
        self.asm.alu_imm(Alu::And, W::Q, RDX, -4096 | i32::from(align - 1));
        self.asm.alu(Alu::Cmp, W::Q, RDX, word(tag));
        let from = self.asm.jcc(Cond::Ne as u8);
        let other_page = OtherPage { from, tag, store, back: self.asm.here(), across: None };
        self.other_page = Some(other_page);
        other_page
    }

    fn add_page(&mut self, base: u8, store: bool) {
        self.asm.alu(Alu::Add, W::Q, RAX, word(tag_word(base, store) + state::TAG_TO_ADDEND));
    }

    /// The same, for an address in a page that the block has proved to be the one remembered for the register.
    fn proved(&mut self, base: u8, imm: i32, store: bool) -> Mem {
        self.asm.load(W::Q, RAX, word(tag_word(base, store) + state::TAG_TO_ADDEND));
        match pinned(base) {
            Some(reg) => at2(RAX, reg, imm),
            None => {
                self.asm.alu(Alu::Add, W::Q, RAX, state::x(base));
                at(RAX, imm)
            }
        }
    }

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
        let copies = self.copies.clone();
        self.cold.push(Cold::Step { from, other_page, info, back: self.asm.here(), copies });
    }

    /// An integer load.
    pub(crate) fn load(&mut self, place: Place, unexecuted: u16, bytes: u8, signed: bool) {
        let from = Rm::M(self.translate_address(place, bytes, false));
        match (place.inst.rd, pinned(place.inst.rd)) {
            (0, _) => {}
            (_, Some(reg)) => self.asm.load_extended(bytes, signed, reg, from),
            (rd, None) => {
                self.asm.load_extended(bytes, signed, RAX, from);
                self.asm.store(W::Q, state::x(rd), RAX);
            }
        }
        self.cold_step(Vec::new(), place, unexecuted, false);
    }

    /// An integer store.
    pub(crate) fn store(&mut self, place: Place, unexecuted: u16, bytes: u8) {
        let to = self.translate_address(place, bytes, true);
        let value = self.get(place.inst.rs2, RCX);
        self.asm.store_sized(bytes, to, value);
        self.cold_step(Vec::new(), place, unexecuted, false);
    }

    /// A floating-point load.
    pub(crate) fn load_float(&mut self, place: Place, unexecuted: u16, double: bool) {
        let slow = self.check_float();
        let from = self.translate_address(place, if double { 8 } else { 4 }, false);
        let to = self.copies.fresh();
        self.asm.load_xmm(double, to, from);
        self.put_xmm(place.inst.rd, double, to);
        self.cold_step(slow, place, unexecuted, true);
        self.float_checked = true;
    }

    /// A floating-point store.
    pub(crate) fn store_float(&mut self, place: Place, unexecuted: u16, double: bool) {
        let slow = self.check_float();
        let to = self.translate_address(place, if double { 8 } else { 4 }, true);
        let wide = if double { W::Q } else { W::D };
        self.asm.load(wide, RCX, state::f(place.inst.rs2));
        self.asm.store(wide, to, RCX);
        self.cold_step(slow, place, unexecuted, true);
        self.float_checked = true;
    }

    /// Writes the bits of a floating-point register; single precision is boxed.
    pub(crate) fn put_float_bits(&mut self, rd: u8, from: Reg, double: bool) {
        self.copies.forget(rd);
        if double {
            self.asm.store(W::Q, state::f(rd), from);
        } else {
            self.asm.store(W::D, state::f(rd), from);
            self.asm.store_imm(W::D, state::f_high(rd), -1);
        }
    }
}
