//! Loads and stores. Three ways, from the fast to the slow:
//!
//! 1. In line, one of two. Where few pages are accessed (`block::locality`, the stack): the inline cache of the base register, one page, that of
//!    the last access through it (`state::LOAD_TAGS`), five instructions, of which the address waits for none. Elsewhere:
//!    the soft TLB (`tlb`), thirteen instructions, whose branch nearly always goes the same way.
//! 2. The soft TLB, out of line (`stubs`), which then fills the register's inline cache.
//! 3. The interpreter.
//!
//! One comparison proves four things: the page is translated, in this context (what is cached is of this one), with
//! this right, and the access is aligned (`pollux_riscv::engine::layout::TLB_READ`). A store goes the third way if its
//! page has a flag set: such a page is in somebody's cache, which the interpreter will see to.

use super::Emitter;
use super::float::BOX;
use super::tlb::{Miss, Resume, Span};
use crate::asm::{Alu, Cond, Mem, RAX, RCX, RDX, Reg, Rm, W, at, at2};
use crate::block::Planned;
use crate::block::checks::Check;
use crate::block::registers::X0;
use crate::state::{self, FIRST_LOOP_REGISTER, LOOP_REGISTERS, word};
use alloc::vec::Vec;
use pollux_isa::Inst;

/// Whose words a register has in a loop with this number.
fn moved(register: u8, rotation: u8) -> u8 {
    match register.checked_sub(FIRST_LOOP_REGISTER) {
        Some(index) => FIRST_LOOP_REGISTER + (index + rotation) % LOOP_REGISTERS,
        None => register,
    }
}

impl Emitter<'_, '_> {
    /// The engine word of the tag in a register's inline cache. Loops that follow each other use the same registers
    /// for other things, so that each has its own order of words.
    pub(super) fn tag_word(&self, register: u8, store: bool) -> usize {
        usize::from(moved(register, self.block.locality.rotation))
            + if store { state::STORE_TAGS } else { state::LOAD_TAGS }
    }

    /// And of what is added to an address.
    pub(super) fn addend_word(&self, register: u8, store: bool) -> usize {
        self.tag_word(register, store) + state::TAG_TO_ADDEND
    }

    /// The host memory that `bytes` bytes at rs1 + imm are. Uses rax, rcx and rdx.
    fn translate_address(&mut self, planned: &Planned, bytes: u8, store: bool) -> Mem {
        let Inst { rs1, imm, .. } = planned.place.inst;
        self.pending.start = self.asm.here();
        let span = match planned.check {
            Check::Follows { store } => return self.proved(rs1, imm, store),
            Check::Leads { low, high, align, store } => Span { low, high, align, leads: true, store },
            Check::Own => Span { low: imm, high: imm, align: bytes, leads: false, store },
        };
        if self.home(rs1).is_none() {
            self.copy(rs1, RAX);
            self.addend_in_rax = None;
        }
        if self.wanders(rs1) { self.ask_tlb(rs1, imm, span) } else { self.compare_page(rs1, imm, span) }
    }

    /// The host memory at `base` + `imm`, of which rax has the base register's value unless that has a home; in the page
    /// in the register's inline cache.
    fn compare_page(&mut self, rs1: u8, imm: i32, Span { low, high, align, store, .. }: Span) -> Mem {
        let home = self.home(rs1);
        let base = home.unwrap_or(RAX);
        if low == 0 {
            self.asm.mov(RDX, base);
        } else {
            self.asm.lea(RDX, at(base, low));
        }
        let checked = self.check_page(rs1, align, store);
        let mut miss = Miss { base: home, low, ..checked };
        if high > low {
            // The last byte lies in the same page, or in the next.
            let tag = word(self.tag_word(rs1, store));
            self.asm.lea(RCX, at(base, high));
            self.asm.alu_imm(Alu::And, W::D, RCX, -4096);
            self.asm.alu(Alu::Cmp, W::D, RCX, tag);
            miss.fails.push(self.asm.jcc(Cond::Ne as u8));
        }
        self.pending.miss = Some(miss);
        let place = match home {
            Some(reg) => {
                // What a miss has done to rax is made good here.
                self.asm.load(W::Q, RAX, word(self.addend_word(rs1, store)));
                self.addend_in_rax = Some(self.addend_word(rs1, store));
                at2(RAX, reg, imm)
            }
            None => {
                self.asm.alu(Alu::Add, W::Q, RAX, word(self.addend_word(rs1, store)));
                at(RAX, imm)
            }
        };
        self.address_is_ready();
        place
    }

    /// What is to be added to the address has been. What a miss finds goes on here, unless it has more to
    /// prove.
    pub(super) fn address_is_ready(&mut self) {
        let here = self.asm.here();
        if let Some(miss) = &mut self.pending.miss
            && miss.fails.is_empty()
        {
            miss.resume = Resume::Accessing(here);
        }
    }

    /// rax, an address that is a multiple of `bytes`, becomes a host address; `base` is the register it came from. Uses
    /// rdx.
    pub(super) fn find_page(&mut self, base: u8, bytes: u8, store: bool) {
        self.asm.mov(RDX, RAX);
        let checked = self.check_page(base, bytes, store);
        self.pending.miss = Some(Miss { aligned: true, ..checked });
        self.asm.alu(Alu::Add, W::Q, RAX, word(self.addend_word(base, store)));
        self.address_is_ready();
    }

    /// Compares rdx with the page in a register's inline cache.
    fn check_page(&mut self, base: u8, align: u8, store: bool) -> Miss {
        let tag = self.tag_word(base, store);
        self.asm.alu_imm(Alu::And, W::Q, RDX, -4096 | i32::from(align - 1));
        self.asm.alu(Alu::Cmp, W::Q, RDX, word(tag));
        let from = self.asm.jcc(Cond::Ne as u8);
        Miss {
            from,
            base: None,
            low: 0,
            tag,
            store,
            aligned: false,
            in_line: false,
            resume: Resume::Proving(self.asm.here()),
            fails: Vec::new(),
        }
    }

    /// The same, for an address in the page that the group's leader has proved.
    fn proved(&mut self, base: u8, imm: i32, store: bool) -> Mem {
        let addend = self.proved_addend(base, store);
        if self.addend_in_rax != Some(addend) {
            self.asm.load(W::Q, RAX, word(addend));
        }
        match self.home(base) {
            Some(reg) => {
                self.addend_in_rax = Some(addend);
                at2(RAX, reg, imm)
            }
            None => {
                self.addend_in_rax = None;
                self.asm.alu(Alu::Add, W::Q, RAX, state::x(base));
                at(RAX, imm)
            }
        }
    }

    /// An integer load.
    pub(super) fn load(&mut self, planned: &Planned, bytes: u8, signed: bool) {
        let from = Rm::M(self.translate_address(planned, bytes, false));
        let rd = planned.place.inst.rd;
        if rd != X0 {
            let to = self.place_for(rd, false, RAX);
            if to == RAX {
                self.addend_in_rax = None;
            }
            self.asm.load_extended(bytes, signed, to, from);
            self.put(rd, to);
        }
        self.end_fast_path(planned, false);
    }

    /// An integer store.
    pub(super) fn store(&mut self, planned: &Planned, bytes: u8) {
        let to = self.translate_address(planned, bytes, true);
        let rs2 = planned.place.inst.rs2;
        if rs2 == X0 {
            self.asm.store_zero(bytes, to);
        } else {
            let value = self.get(rs2, RCX);
            self.asm.store_sized(bytes, to, value);
        }
        self.end_fast_path(planned, false);
    }

    /// A floating-point load.
    pub(super) fn load_float(&mut self, planned: &Planned, double: bool) {
        self.check_float();
        let from = self.translate_address(planned, if double { 8 } else { 4 }, false);
        let to = self.floats.fresh();
        self.asm.load_xmm(double, to, from);
        self.floats.define(planned.place.inst.rd, double, to, false);
        self.end_fast_path(planned, true);
        self.float_checked = true;
    }

    /// A floating-point store.
    pub(super) fn store_float(&mut self, planned: &Planned, double: bool) {
        self.check_float();
        let to = self.translate_address(planned, if double { 8 } else { 4 }, true);
        let rs2 = planned.place.inst.rs2;
        self.look_at(rs2);
        // The lower half of a double-precision register is what `fsw` stores.
        let copy = self.floats.find(rs2, true).or_else(|| self.floats.find(rs2, false).filter(|_| !double));
        match copy {
            Some(xmm) => self.asm.store_xmm(double, to, xmm),
            None => {
                let wide = if double { W::Q } else { W::D };
                self.write_back(rs2);
                self.asm.load(wide, RCX, state::f(rs2));
                self.asm.store(wide, to, RCX);
            }
        }
        self.end_fast_path(planned, true);
        self.float_checked = true;
    }

    /// Writes the bits of a floating-point register; single precision is boxed.
    pub(super) fn put_float_bits(&mut self, rd: u8, from: Reg, double: bool) {
        self.floats.forget(rd);
        if double {
            self.asm.store(W::Q, state::f(rd), from);
        } else {
            self.asm.store(W::D, state::f(rd), from);
            self.asm.store_imm(W::D, state::f_high(rd), BOX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_registers_of_a_loop_have_the_same_words() {
        for rotation in 0..LOOP_REGISTERS {
            let mut words: Vec<u8> = (0..32).map(|register| moved(register, rotation)).collect();
            assert!(words.iter().take(usize::from(FIRST_LOOP_REGISTER)).copied().eq(0..FIRST_LOOP_REGISTER));
            words.sort_unstable();
            assert!(words.into_iter().eq(0..32), "{rotation}");
        }
    }
}
