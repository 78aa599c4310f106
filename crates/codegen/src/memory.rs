//! Loads and stores: the soft TLB's hit path in line, all else by the interpreter.
//!
//! The path is short because one comparison proves four things: the page is translated, in this context, with this
//! right, and the access is aligned (`pollux_machine::engine::layout::TLB_READ`). A store also looks at its page's
//! flags: a page with a flag set is somebody's cache, which the interpreter will see to.

use crate::asm::{Alu, Cond, Fixup, R14, RAX, RBP, RCX, RDX, Reg, Rm, Shift, W, at2};
use crate::region::{Cold, Place, Translator};
use crate::state::{self, REGISTERS, StepInfo, part, pinned, word};
use alloc::vec;
use alloc::vec::Vec;
use pollux_machine::engine::layout;

/// Bytes in a TLB entry, as a shift.
const ENTRY_SHIFT: u8 = 4;

impl Translator<'_> {
    /// rax = the offset in RAM of `bytes` bytes at rs1 + imm, by way of rcx and rdx; returns the jump that is taken
    /// if the TLB does not know.
    fn translate_address(&mut self, place: Place, bytes: u8, tlb: usize) -> Fixup {
        let inst = place.inst;
        match pinned(inst.rs1) {
            Some(reg) if inst.imm == 0 => self.asm.mov(RAX, reg),
            Some(reg) => self.asm.lea(RAX, crate::asm::at(reg, inst.imm)),
            None => {
                self.asm.load(W::Q, RAX, state::x(inst.rs1));
                if inst.imm != 0 {
                    self.asm.alu_imm(Alu::Add, W::Q, RAX, inst.imm);
                }
            }
        }
        let index_mask = (layout::TLB_ENTRIES as i32 - 1) << ENTRY_SHIFT;
        self.asm.mov32(RCX, RAX);
        self.asm.shift_imm(Shift::Shr, W::D, RCX, 12 - ENTRY_SHIFT);
        self.asm.alu_imm(Alu::And, W::D, RCX, index_mask);
        self.asm.mov(RDX, RAX);
        self.asm.alu_imm(Alu::And, W::Q, RDX, -4096 | i32::from(bytes - 1));
        self.asm.alu(Alu::Or, W::Q, RDX, part(layout::DATA_CONTEXT));
        let entry = at2(RBP, RCX, tlb as i32 - REGISTERS as i32);
        self.asm.alu(Alu::Cmp, W::Q, RDX, entry);
        let miss = self.asm.jcc(Cond::Ne as u8);
        self.asm.alu(Alu::Add, W::Q, RAX, at2(RBP, RCX, tlb as i32 + 8 - REGISTERS as i32));
        miss
    }

    pub(crate) fn cold_step(&mut self, from: Vec<Fixup>, place: Place, unexecuted: u16, needs_float: bool) {
        let info = StepInfo { offset: place.offset, len: u16::from(place.inst.len), unexecuted, needs_float };
        self.cold.push(Cold::Step { from, info, back: self.asm.here() });
    }

    /// An integer load.
    pub(crate) fn load(&mut self, place: Place, unexecuted: u16, bytes: u8, signed: bool) {
        let miss = self.translate_address(place, bytes, layout::TLB_READ);
        let from = Rm::M(at2(R14, RAX, 0));
        match (place.inst.rd, pinned(place.inst.rd)) {
            (0, _) => {}
            (_, Some(reg)) => self.asm.load_extended(bytes, signed, reg, from),
            (rd, None) => {
                self.asm.load_extended(bytes, signed, RAX, from);
                self.asm.store(W::Q, state::x(rd), RAX);
            }
        }
        self.cold_step(vec![miss], place, unexecuted, false);
    }

    /// rax = offset in RAM, checked for a store; the jumps taken if the interpreter is to do it.
    fn translate_store(&mut self, place: Place, bytes: u8) -> Vec<Fixup> {
        let miss = self.translate_address(place, bytes, layout::TLB_WRITE);
        self.asm.mov(RCX, RAX);
        self.asm.shift_imm(Shift::Shr, W::Q, RCX, 12);
        self.asm.load(W::Q, RDX, word(state::FLAGS));
        self.asm.cmp_byte(at2(RDX, RCX, 0), 0);
        let flagged = self.asm.jcc(Cond::Ne as u8);
        vec![miss, flagged]
    }

    /// An integer store.
    pub(crate) fn store(&mut self, place: Place, unexecuted: u16, bytes: u8) {
        let slow = self.translate_store(place, bytes);
        let value = self.get(place.inst.rs2, RCX);
        self.asm.store_sized(bytes, at2(R14, RAX, 0), value);
        self.cold_step(slow, place, unexecuted, false);
    }

    /// A floating-point load.
    pub(crate) fn load_float(&mut self, place: Place, unexecuted: u16, double: bool) {
        let mut slow = self.check_float();
        slow.push(self.translate_address(place, if double { 8 } else { 4 }, layout::TLB_READ));
        let rd = place.inst.rd;
        self.asm.load(if double { W::Q } else { W::D }, RAX, at2(R14, RAX, 0));
        self.put_float_bits(rd, RAX, double);
        self.cold_step(slow, place, unexecuted, true);
        self.float_checked = true;
    }

    /// A floating-point store.
    pub(crate) fn store_float(&mut self, place: Place, unexecuted: u16, double: bool) {
        let mut slow = self.check_float();
        slow.extend(self.translate_store(place, if double { 8 } else { 4 }));
        let wide = if double { W::Q } else { W::D };
        self.asm.load(wide, RCX, state::f(place.inst.rs2));
        self.asm.store(wide, at2(R14, RAX, 0), RCX);
        self.cold_step(slow, place, unexecuted, true);
        self.float_checked = true;
    }

    /// Writes the bits of a floating-point register; single precision is boxed.
    pub(crate) fn put_float_bits(&mut self, rd: u8, from: Reg, double: bool) {
        if double {
            self.asm.store(W::Q, state::f(rd), from);
        } else {
            self.asm.store(W::D, state::f(rd), from);
            self.asm.store_imm(W::D, state::f_high(rd), -1);
        }
    }
}
