//! Loads and stores. Three ways, from the fast to the slow:
//!
//! 1. In line, one of two. Where few pages are accessed (`inner_loop`, the stack): the page that the last access through
//!    the same base register hit (`state::LOAD_TAGS`), five instructions, of which the address waits for none. Elsewhere:
//!    the soft TLB (`tlb`), thirteen instructions, whose branch nearly always goes the same way.
//! 2. The soft TLB, out of line (`thunks`), which then remembers the page for the register.
//! 3. The interpreter.
//!
//! One comparison proves four things: the page is translated, in this context (what is remembered is of this one), with
//! this right, and the access is aligned (`pollux_machine::engine::layout::TLB_READ`). A store goes the third way if its
//! page has a flag set: such a page is in somebody's cache, which the interpreter will see to.

use crate::asm::{Alu, Cond, Mem, RAX, RCX, RDX, Reg, Rm, W, at, at2};
use crate::emit_float::BOX;
use crate::groups::Way;
use crate::region::{Place, Translator};
use crate::state::{self, word};
use crate::tlb::{GoesOn, OtherPage, Span};
use alloc::vec::Vec;
use pollux_isa::Inst;

/// sp, gp and tp mean the same everywhere; the registers behind them are those that loops have their own words for.
const FIRST_MOVED: u8 = 5;
pub(crate) const MOVED: u8 = 32 - FIRST_MOVED;

/// Whose words a register has in a loop with this number.
fn moved(register: u8, rotation: u8) -> u8 {
    match register.checked_sub(FIRST_MOVED) {
        Some(index) => FIRST_MOVED + (index + rotation) % MOVED,
        None => register,
    }
}

impl Translator<'_> {
    /// The engine word of the tag that is remembered for a register. Loops that follow each other use the same registers
    /// for other things, so that each has its own order of words.
    pub(crate) fn tag_word(&self, register: u8, store: bool) -> usize {
        usize::from(moved(register, self.rotation)) + if store { state::STORE_TAGS } else { state::LOAD_TAGS }
    }

    /// And of what is added to an address.
    pub(crate) fn addend_word(&self, register: u8, store: bool) -> usize {
        self.tag_word(register, store) + state::TAG_TO_ADDEND
    }

    /// The host memory that `bytes` bytes at rs1 + imm are. Uses rax, rcx and rdx.
    fn translate_address(&mut self, place: Place, bytes: u8, store: bool) -> Mem {
        let Inst { rs1, imm, .. } = place.inst;
        self.start = self.asm.here();
        let (low, high, align, leads, proves_store) = match self.plan.way {
            Way::Follows { store } => return self.proved(rs1, imm, store),
            Way::Leads { low, high, align, store } => (low, high, align, true, store),
            Way::Alone => (imm, imm, bytes, false, store),
        };
        let home = self.homes.of(rs1);
        if home.is_none() {
            self.copy(rs1, RAX);
            self.addend_in_rax = None;
        }
        self.groups_of_tlb.set(rs1, proves_store, false);
        let span = Span { low, high, align, leads, store: proves_store };
        if self.wanders(rs1) { self.ask_tlb(rs1, imm, span) } else { self.compare_page(rs1, imm, span) }
    }

    /// The host memory at `base` + `imm`, of which rax has the base register's value unless that has a home; in the page
    /// that is remembered for the register.
    fn compare_page(&mut self, rs1: u8, imm: i32, Span { low, high, align, store, .. }: Span) -> Mem {
        let home = self.homes.of(rs1);
        let base = home.unwrap_or(RAX);
        if low == 0 {
            self.asm.mov(RDX, base);
        } else {
            self.asm.lea(RDX, at(base, low));
        }
        let mut other_page = OtherPage { base: home, low, ..self.check_page(rs1, align, store) };
        if high > low {
            // The last byte lies in the same page, or in the next.
            let tag = word(self.tag_word(rs1, store));
            self.asm.lea(RCX, at(base, high));
            self.asm.alu_imm(Alu::And, W::D, RCX, -4096);
            self.asm.alu(Alu::Cmp, W::D, RCX, tag);
            other_page.fails.push(self.asm.jcc(Cond::Ne as u8));
        }
        self.other_page = Some(other_page);
        let place = match home {
            Some(reg) => {
                // What another page's way has done to rax is made good here.
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

    /// What is to be added to the address has been. What another page's way finds goes on here, unless it has more to
    /// prove.
    pub(crate) fn address_is_ready(&mut self) {
        let here = self.asm.here();
        if let Some(other_page) = &mut self.other_page
            && other_page.fails.is_empty()
        {
            other_page.goes_on = GoesOn::Accessing(here);
        }
    }

    /// rax, an address that is a multiple of `bytes`, becomes a host address; `base` is the register it came from. Uses
    /// rdx.
    pub(crate) fn find_page(&mut self, base: u8, bytes: u8, store: bool) {
        self.asm.mov(RDX, RAX);
        self.other_page = Some(OtherPage { aligned: true, ..self.check_page(base, bytes, store) });
        self.asm.alu(Alu::Add, W::Q, RAX, word(self.addend_word(base, store)));
        self.address_is_ready();
    }

    /// Compares rdx with the page that is remembered for a register.
    fn check_page(&mut self, base: u8, align: u8, store: bool) -> OtherPage {
        let tag = self.tag_word(base, store);
        self.asm.alu_imm(Alu::And, W::Q, RDX, -4096 | i32::from(align - 1));
        self.asm.alu(Alu::Cmp, W::Q, RDX, word(tag));
        let from = self.asm.jcc(Cond::Ne as u8);
        OtherPage {
            from,
            base: None,
            low: 0,
            tag,
            store,
            aligned: false,
            in_line: false,
            goes_on: GoesOn::Proving(self.asm.here()),
            fails: Vec::new(),
        }
    }

    /// The same, for an address in the page that the group's leader has proved.
    fn proved(&mut self, base: u8, imm: i32, store: bool) -> Mem {
        let addend = self.proved_addend(base, store);
        if self.addend_in_rax != Some(addend) {
            self.asm.load(W::Q, RAX, word(addend));
        }
        match self.homes.of(base) {
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
    pub(crate) fn load(&mut self, place: Place, unexecuted: u16, bytes: u8, signed: bool) {
        let from = Rm::M(self.translate_address(place, bytes, false));
        match (place.inst.rd, self.homes.of(place.inst.rd)) {
            (0, _) => {}
            (_, Some(reg)) => self.asm.load_extended(bytes, signed, reg, from),
            (rd, None) => {
                self.addend_in_rax = None;
                self.asm.load_extended(bytes, signed, RAX, from);
                self.asm.store(W::Q, state::x(rd), RAX);
            }
        }
        self.cold_step(Vec::new(), place, unexecuted, false);
    }

    /// An integer store.
    pub(crate) fn store(&mut self, place: Place, unexecuted: u16, bytes: u8) {
        let to = self.translate_address(place, bytes, true);
        if place.inst.rs2 == 0 {
            self.asm.store_zero(bytes, to);
        } else {
            let value = self.get(place.inst.rs2, RCX);
            self.asm.store_sized(bytes, to, value);
        }
        self.cold_step(Vec::new(), place, unexecuted, false);
    }

    /// A floating-point load.
    pub(crate) fn load_float(&mut self, place: Place, unexecuted: u16, double: bool) {
        let slow = self.check_float();
        let from = self.translate_address(place, if double { 8 } else { 4 }, false);
        let to = self.copies.fresh();
        self.asm.load_xmm(double, to, from);
        self.copies.owe(place.inst.rd, double, to, false);
        self.cold_step(slow, place, unexecuted, true);
        self.float_checked = true;
    }

    /// A floating-point store.
    pub(crate) fn store_float(&mut self, place: Place, unexecuted: u16, double: bool) {
        let slow = self.check_float();
        let to = self.translate_address(place, if double { 8 } else { 4 }, true);
        let rs2 = place.inst.rs2;
        self.look_at(rs2);
        // The lower half of a double-precision register is what `fsw` stores.
        let copy = self.copies.find(rs2, true).or_else(|| self.copies.find(rs2, false).filter(|_| !double));
        match copy {
            Some(xmm) => self.asm.store_xmm(double, to, xmm),
            None => {
                let wide = if double { W::Q } else { W::D };
                self.settle(rs2);
                self.asm.load(wide, RCX, state::f(rs2));
                self.asm.store(wide, to, RCX);
            }
        }
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
            self.asm.store_imm(W::D, state::f_high(rd), BOX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_registers_of_a_loop_have_the_same_words() {
        for rotation in 0..MOVED {
            let mut words: Vec<u8> = (0..32).map(|register| moved(register, rotation)).collect();
            assert!(words.iter().take(usize::from(FIRST_MOVED)).copied().eq(0..FIRST_MOVED));
            words.sort_unstable();
            assert!(words.into_iter().eq(0..32), "{rotation}");
        }
    }
}
