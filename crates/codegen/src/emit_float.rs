//! F and D on the host's scalar SSE2 and FMA3 arithmetic, which is IEEE 754's (Intel SDM volume 1, chapter 11).
//!
//! Where the two differ, the interpreter decides: for operands that are not boxed, for what is rounded to the nearest with
//! ties away from zero, and for what is not here. Results that are no numbers are made RISC-V's own: see `xmm`.
//! Exceptions gather in MXCSR: those that a host instruction notes before the interpreter repeats the guest's are a
//! subset of what the interpreter notes.

use crate::asm::{Alu, Cond, Fixup, RAX, RCX, RDX, Unary, W, Xmm};
use crate::cold::Cold;
use crate::convert::{is_from_integer, is_rounding};
use crate::region::{Place, Translator};
use crate::state::{self, word};
use alloc::vec::Vec;
use pollux_isa::{Inst, Opcode as Op};

const XMM0: Xmm = Xmm(0);
/// The upper half of a boxed single-precision value.
pub(crate) const BOX: i32 = -1;
/// `rm` values.
pub(crate) const RNE: u8 = 0;
pub(crate) const RTZ: u8 = 1;
pub(crate) const RDN: u8 = 2;
pub(crate) const RUP: u8 = 3;
pub(crate) const DYN: u8 = 7;

/// Whether the host can round so: to the nearest even, in which translated code runs, or as it is told to.
fn is_hosts(rm: u8) -> bool {
    matches!(rm, RNE | RTZ | RDN | RUP | DYN)
}

/// Opcodes of scalar SSE arithmetic.
pub(crate) mod sse {
    pub(crate) const SQRT: u8 = 0x51;
    pub(crate) const ADD: u8 = 0x58;
    pub(crate) const MUL: u8 = 0x59;
    pub(crate) const CONVERT_FLOAT: u8 = 0x5a;
    pub(crate) const SUB: u8 = 0x5c;
    pub(crate) const DIV: u8 = 0x5e;
}

impl Translator<'_> {
    /// The jumps to take if floating point is not on, dirty and rounding to nearest; none if that is known.
    pub(crate) fn check_float(&mut self) -> Vec<Fixup> {
        if self.float_checked {
            return Vec::new();
        }
        self.asm.cmp_byte(word(state::FLOAT), 0);
        alloc::vec![self.asm.jcc(Cond::E as u8)]
    }

    /// Has the hart have the registers. The jumps to take if single-precision ones are not boxed.
    pub(crate) fn check_boxes(&mut self, double: bool, registers: &[u8], slow: &mut Vec<Fixup>) {
        registers.iter().for_each(|&register| self.settle(register));
        if double {
            return;
        }
        for &register in registers {
            self.asm.alu_imm(Alu::Cmp, W::D, state::f_high(register), BOX);
            slow.push(self.asm.jcc(Cond::Ne as u8));
            // The block goes on as if the register were boxed, so an interpreted step must not come back to it.
            self.plan.is_spanned = true;
        }
    }

    /// Translates a floating-point instruction; false if it is none, or the interpreter's.
    pub(crate) fn float(&mut self, place: Place, unexecuted: u16) -> bool {
        let inst = place.inst;
        match inst.opcode {
            Op::Flw => self.load_float(place, unexecuted, false),
            Op::Fld => self.load_float(place, unexecuted, true),
            Op::Fsw => self.store_float(place, unexecuted, false),
            Op::Fsd => self.store_float(place, unexecuted, true),
            opcode if opcode >= Op::FmaddS && opcode <= Op::FmvDX => return self.compute(place, unexecuted),
            _ => return false,
        }
        true
    }

    fn compute(&mut self, place: Place, unexecuted: u16) -> bool {
        let inst = place.inst;
        if !self.is_native(inst) {
            // A step, like any other.
            return false;
        }
        let double = inst.opcode >= Op::FmaddD;
        let mut slow = self.check_float();
        match inst.opcode {
            Op::FaddS | Op::FaddD => self.arithmetic(inst, double, sse::ADD, &mut slow),
            Op::FsubS | Op::FsubD => self.arithmetic(inst, double, sse::SUB, &mut slow),
            Op::FmulS | Op::FmulD => self.arithmetic(inst, double, sse::MUL, &mut slow),
            Op::FdivS | Op::FdivD => self.arithmetic(inst, double, sse::DIV, &mut slow),
            Op::FsqrtS | Op::FsqrtD => {
                let from = self.get_float(inst.rs1, double, &mut slow);
                let to = self.copies.fresh();
                self.rounding(inst.rm, |this| this.asm.sse(sse::SQRT, double, to, from));
                self.copies.owe(inst.rd, double, to, true);
            }
            Op::FmaddS | Op::FmaddD => self.fused(inst, double, 0xa9, &mut slow),
            Op::FmsubS | Op::FmsubD => self.fused(inst, double, 0xab, &mut slow),
            Op::FnmsubS | Op::FnmsubD => self.fused(inst, double, 0xad, &mut slow),
            Op::FnmaddS | Op::FnmaddD => self.fused(inst, double, 0xaf, &mut slow),
            Op::FsgnjS | Op::FsgnjnS | Op::FsgnjxS | Op::FsgnjD | Op::FsgnjnD | Op::FsgnjxD => {
                self.sign(inst, double, &mut slow);
            }
            Op::FminS | Op::FminD => self.extreme_float(inst, double, true, &mut slow),
            Op::FmaxS | Op::FmaxD => self.extreme_float(inst, double, false, &mut slow),
            Op::FeqS | Op::FeqD => self.equal(inst, double, &mut slow),
            Op::FltS | Op::FltD => self.less(inst, double, Cond::A, &mut slow),
            Op::FleS | Op::FleD => self.less(inst, double, Cond::Ae, &mut slow),
            Op::FcvtWS | Op::FcvtWD => self.convert_to_integer(inst, double, W::D, &mut slow),
            Op::FcvtLS | Op::FcvtLD => self.convert_to_integer(inst, double, W::Q, &mut slow),
            Op::FcvtWuS | Op::FcvtWuD => self.convert_to_unsigned(inst, double, W::D, &mut slow),
            Op::FcvtLuS | Op::FcvtLuD => self.convert_to_unsigned(inst, double, W::Q, &mut slow),
            Op::FclassS | Op::FclassD => self.classify(inst, double, &mut slow),
            opcode if is_from_integer(opcode) => self.convert_from_integer(inst, double, &mut slow),
            Op::FcvtSD => {
                let from = self.get_float(inst.rs1, true, &mut slow);
                let to = self.copies.fresh();
                self.rounding(inst.rm, |this| this.asm.sse(sse::CONVERT_FLOAT, true, to, from));
                self.copies.owe(inst.rd, false, to, true);
            }
            Op::FcvtDS => {
                let from = self.get_float(inst.rs1, false, &mut slow);
                let to = self.copies.fresh();
                self.asm.sse(sse::CONVERT_FLOAT, false, to, from);
                self.copies.owe(inst.rd, true, to, true);
            }
            Op::FmvXW => {
                self.settle(inst.rs1);
                self.asm.load_extended(4, true, RAX, state::f(inst.rs1).into());
                self.put(inst.rd, RAX);
            }
            Op::FmvXD => {
                self.settle(inst.rs1);
                self.asm.load(W::Q, RAX, state::f(inst.rs1));
                self.put(inst.rd, RAX);
            }
            _ => {
                let from = self.get(inst.rs1, RAX);
                self.put_float_bits(inst.rd, from, double);
            }
        }
        self.cold_step(slow, place, unexecuted, true);
        self.float_checked = true;
        true
    }

    /// Whether an instruction is computed by the host, as far as can be said before it has operands.
    pub(crate) fn is_native(&self, inst: Inst) -> bool {
        match inst.opcode {
            Op::FmaddS | Op::FmsubS | Op::FnmsubS | Op::FnmaddS => is_hosts(inst.rm) && self.features.fma,
            Op::FmaddD | Op::FmsubD | Op::FnmsubD | Op::FnmaddD => is_hosts(inst.rm) && self.features.fma,
            Op::FcvtWS | Op::FcvtWD | Op::FcvtLS | Op::FcvtLD => is_rounding(inst.rm),
            Op::FclassS | Op::FclassD => true,
            Op::FsgnjS | Op::FsgnjnS | Op::FsgnjxS | Op::FsgnjD | Op::FsgnjnD | Op::FsgnjxD => true,
            Op::FminS | Op::FmaxS | Op::FminD | Op::FmaxD => true,
            Op::FeqS | Op::FltS | Op::FleS | Op::FeqD | Op::FltD | Op::FleD => true,
            Op::FmvXW | Op::FmvWX | Op::FmvXD | Op::FmvDX => true,
            // Exact whatever the mode, or tested to be; but a reserved mode is an illegal instruction.
            Op::FcvtDS | Op::FcvtDW | Op::FcvtDWu => is_rounding(inst.rm),
            Op::FcvtDL | Op::FcvtDLu | Op::FcvtSW | Op::FcvtSWu | Op::FcvtSL | Op::FcvtSLu => {
                is_rounding(inst.rm)
            }
            _ => is_hosts(inst.rm),
        }
    }

    /// A host register that holds a guest register; a single one must be boxed.
    pub(crate) fn get_float(&mut self, register: u8, double: bool, slow: &mut Vec<Fixup>) -> Xmm {
        if let Some(xmm) = self.copies.find(register, double) {
            return xmm;
        }
        self.check_boxes(double, &[register], slow);
        let xmm = self.copies.fresh();
        self.asm.load_xmm(double, xmm, state::f(register));
        self.copies.hold(register, double, xmm);
        xmm
    }

    fn arithmetic(&mut self, inst: Inst, double: bool, opcode: u8, slow: &mut Vec<Fixup>) {
        let first = self.get_float(inst.rs1, double, slow);
        let second = self.get_float(inst.rs2, double, slow);
        let to = self.copies.fresh();
        self.asm.mov_xmm(to, first);
        self.rounding(inst.rm, |this| this.asm.sse(opcode, double, to, second));
        self.copies.owe(inst.rd, double, to, true);
    }

    fn fused(&mut self, inst: Inst, double: bool, opcode: u8, slow: &mut Vec<Fixup>) {
        let first = self.get_float(inst.rs1, double, slow);
        let second = self.get_float(inst.rs2, double, slow);
        let third = self.get_float(inst.rs3, double, slow);
        let to = self.copies.fresh();
        self.asm.mov_xmm(to, first);
        self.rounding(inst.rm, |this| this.asm.fma213(opcode, double, to, second, third));
        self.asm.compare(true, double, to, to);
        let from = self.asm.jcc(Cond::P as u8);
        self.cold.push(Cold::Fused { from, back: self.asm.here(), factors: [first, second], to, double });
        self.copies.owe(inst.rd, double, to, false);
    }

    /// Has the host round as `rm` says. What is done so takes no jump.
    pub(crate) fn rounding(&mut self, rm: u8, compute: impl FnOnce(&mut Self)) {
        let thunk = match rm {
            RTZ => self.thunks.round_to_zero,
            RDN => self.thunks.round_down,
            RUP => self.thunks.round_up,
            _ => return compute(self),
        };
        self.call(thunk);
        compute(self);
        self.call(self.thunks.round_to_nearest);
    }

    /// Sign injection, on the bits.
    fn sign(&mut self, inst: Inst, double: bool, slow: &mut Vec<Fixup>) {
        let moves = inst.rs1 == inst.rs2 && matches!(inst.opcode, Op::FsgnjS | Op::FsgnjD);
        if moves {
            let from = self.get_float(inst.rs1, double, slow);
            let to = self.copies.fresh();
            self.asm.mov_xmm(to, from);
            let is_raw = self.copies.is_raw(from);
            return self.copies.owe(inst.rd, double, to, is_raw);
        }
        self.check_boxes(double, &[inst.rs1, inst.rs2], slow);
        let (wide, sign) = if double { (W::Q, 1 << 63) } else { (W::D, 1 << 31) };
        self.asm.load(wide, RAX, state::f(inst.rs1));
        self.asm.load(wide, RCX, state::f(inst.rs2));
        self.asm.mov_imm(RDX, sign);
        match inst.opcode {
            Op::FsgnjxS | Op::FsgnjxD => {
                self.asm.alu(Alu::And, wide, RCX, RDX);
                self.asm.alu(Alu::Xor, wide, RAX, RCX);
            }
            _ => {
                if matches!(inst.opcode, Op::FsgnjnS | Op::FsgnjnD) {
                    self.asm.unary(Unary::Not, wide, RCX);
                }
                self.asm.alu(Alu::And, wide, RCX, RDX);
                self.asm.unary(Unary::Not, wide, RDX);
                self.asm.alu(Alu::And, wide, RAX, RDX);
                self.asm.alu(Alu::Or, wide, RAX, RCX);
            }
        }
        self.put_float_bits(inst.rd, RAX, double);
    }

    /// `fmin`, `fmax`. Equal numbers have the same bits or are zeros, of which min takes the negative.
    fn extreme_float(&mut self, inst: Inst, double: bool, min: bool, slow: &mut Vec<Fixup>) {
        self.check_boxes(double, &[inst.rs1, inst.rs2], slow);
        let wide = if double { W::Q } else { W::D };
        self.asm.load(wide, RAX, state::f(inst.rs1));
        self.asm.load(wide, RCX, state::f(inst.rs2));
        self.asm.mov(RDX, RAX);
        self.asm.alu(if min { Alu::Or } else { Alu::And }, wide, RDX, RCX);
        self.asm.load_xmm(double, XMM0, state::f(inst.rs1));
        self.asm.compare(true, double, XMM0, state::f(inst.rs2));
        let from = self.asm.jcc(Cond::P as u8);
        self.asm.cmov(if min { Cond::A } else { Cond::B }, W::Q, RAX, RCX);
        self.asm.cmov(Cond::E, W::Q, RAX, RDX);
        self.cold.push(Cold::Extreme { from, back: self.asm.here(), second: inst.rs2, double });
        self.put_float_bits(inst.rd, RAX, double);
    }

    /// `feq`: quiet; unordered is not equal.
    fn equal(&mut self, inst: Inst, double: bool, slow: &mut Vec<Fixup>) {
        let first = self.get_float(inst.rs1, double, slow);
        let second = self.get_float(inst.rs2, double, slow);
        self.asm.compare(true, double, first, second);
        self.asm.set(Cond::E, RAX);
        self.asm.set(Cond::Np, RCX);
        self.asm.alu(Alu::And, W::D, RAX, RCX);
        self.put(inst.rd, RAX);
    }

    /// `flt`, `fle`: the operands the other way round, so that unordered compares as false.
    fn less(&mut self, inst: Inst, double: bool, cond: Cond, slow: &mut Vec<Fixup>) {
        let first = self.get_float(inst.rs1, double, slow);
        let second = self.get_float(inst.rs2, double, slow);
        self.asm.compare(false, double, second, first);
        self.asm.set(cond, RAX);
        self.put(inst.rd, RAX);
    }
}
