//! Conversions between numbers and integers, and `fclass`.
//!
//! The host converts to signed integers, truncating or to the nearest. The other ways are made of that. What would be out
//! of range after rounding must not have been noted as inexact, so that where rounding is not the host's, the operand's
//! bits, which rise as numbers do, are compared with a bound first. Source: unprivileged specification, "F", tables
//! "Domains of float-to-integer conversions" and "Format of result of FCLASS instruction".

use super::Emitter;
use crate::asm::float::sse;
use crate::asm::{Alu, Cond, RAX, RCX, RDX, Shift, W, Xmm};
use crate::block::native::{DYN, RDN, RNE, RTZ, RUP};
use crate::state;
use pollux_isa::{Inst, Opcode as Op};

const XMM0: Xmm = Xmm(0);
const XMM1: Xmm = Xmm(1);
/// Whether an instruction converts from an integer.
pub(super) fn is_from_integer(opcode: Op) -> bool {
    matches!(opcode, Op::FcvtSW | Op::FcvtDW | Op::FcvtSWu | Op::FcvtDWu)
        || matches!(opcode, Op::FcvtSL | Op::FcvtDL | Op::FcvtSLu | Op::FcvtDLu)
}

/// Powers of two as numbers.
const TWO_31: f32 = 2_147_483_648.0;
const TWO_32: f32 = 4_294_967_296.0;
const TWO_63: f64 = 9_223_372_036_854_775_808.0;
/// Integers up to these powers of two are numbers.
const EXACT_DOUBLE: u8 = 53;
const EXACT_SINGLE: u8 = 24;

impl Emitter<'_, '_> {
    /// To a signed integer, as the host rounds, or otherwise.
    pub(super) fn convert_to_integer(&mut self, inst: Inst, double: bool, wide: W) {
        let from = self.get_float(inst.rs1, double);
        if matches!(inst.rm, RNE | RTZ | DYN) {
            self.saturate(inst, double, wide, from);
        } else {
            self.convert_directed(inst, double, wide, from);
        }
        self.put(inst.rd, RAX);
    }

    /// What is out of range becomes the smallest integer to the host; if it is not negative, it is to be the largest.
    fn saturate(&mut self, inst: Inst, double: bool, wide: W, from: Xmm) {
        self.asm.convert_to_int(double, inst.rm == RTZ, wide, RAX, from);
        if wide == W::D {
            self.asm.alu_imm(Alu::Cmp, W::D, RAX, i32::MIN);
        } else {
            self.asm.mov_imm(RCX, 1 << 63);
            self.asm.alu(Alu::Cmp, W::Q, RAX, RCX);
        }
        let in_range = self.asm.jcc(Cond::Ne as u8);
        self.asm.zero_xmm(XMM0);
        // Carry: positive, or no number.
        self.asm.compare(true, double, XMM0, from);
        self.asm.alu_imm(Alu::Sbb, wide, RAX, 0);
        self.asm.bind_here(in_range);
        if wide == W::D {
            self.asm.load_extended(4, true, RAX, RAX.into());
        }
    }

    /// The bits of a floating-point register, into rax.
    fn bits_of(&mut self, register: u8, double: bool) {
        self.write_back(register);
        self.asm.load(if double { W::Q } else { W::D }, RAX, state::f(register));
    }

    /// Down, up, or to the nearest with ties away from zero: truncated, and corrected by what was lost, which a number
    /// can always tell.
    fn convert_directed(&mut self, inst: Inst, double: bool, wide: W, from: Xmm) {
        let bound = match (double, wide) {
            (true, W::Q) => TWO_63.to_bits() << 1,
            (true, W::D) => f64::from(i32::MAX).to_bits() << 1,
            (false, W::Q) => u64::from((TWO_63 as f32).to_bits() << 1),
            (false, W::D) => u64::from(TWO_31.to_bits() << 1),
        };
        let bits = if double { W::Q } else { W::D };
        self.bits_of(inst.rs1, double);
        self.asm.alu(Alu::Add, bits, RAX, RAX);
        self.asm.mov_imm(RCX, bound);
        self.asm.alu(Alu::Cmp, bits, RAX, RCX);
        self.slow_if(Cond::Ae);
        self.asm.convert_to_int(double, true, W::Q, RAX, from);
        self.asm.zero_xmm(XMM0);
        self.asm.convert_from_int(double, W::Q, XMM0, RAX);
        match inst.rm {
            RDN => {
                self.asm.compare(true, double, from, XMM0);
                self.asm.alu_imm(Alu::Sbb, W::Q, RAX, 0);
            }
            RUP => {
                self.asm.compare(true, double, XMM0, from);
                self.asm.alu_imm(Alu::Adc, W::Q, RAX, 0);
            }
            _ => {
                // Twice the fraction is 1 or more if it is to be rounded away.
                self.asm.mov_xmm(XMM1, from);
                self.asm.sse(sse::SUB, double, XMM1, XMM0);
                self.asm.sse(sse::ADD, double, XMM1, XMM1);
                self.asm.convert_to_int(double, true, W::Q, RCX, XMM1);
                self.asm.alu(Alu::Add, W::Q, RAX, RCX);
            }
        }
    }

    /// To an unsigned integer, from what is not negative and not too large for a signed one of 64 bits.
    pub(super) fn convert_to_unsigned(&mut self, inst: Inst, double: bool, wide: W) {
        let from = self.get_float(inst.rs1, double);
        let bound = match (double, wide) {
            (true, W::Q) => TWO_63.to_bits(),
            (true, W::D) => f64::from(u32::MAX).to_bits() + 1,
            (false, W::Q) => u64::from((TWO_63 as f32).to_bits()),
            (false, W::D) => u64::from(TWO_32.to_bits()),
        };
        self.bits_of(inst.rs1, double);
        self.asm.mov_imm(RCX, bound);
        self.asm.alu(Alu::Cmp, if double { W::Q } else { W::D }, RAX, RCX);
        self.slow_if(Cond::Ae);
        match inst.rm {
            RTZ => self.asm.convert_to_int(double, true, W::Q, RAX, from),
            rm => self.rounding(rm, |asm| asm.convert_to_int(double, false, W::Q, RAX, from)),
        }
        if wide == W::D {
            self.asm.load_extended(4, true, RAX, RAX.into());
        }
        self.put(inst.rd, RAX);
    }

    /// From an integer.
    pub(super) fn convert_from_integer(&mut self, inst: Inst, double: bool) {
        match inst.opcode {
            Op::FcvtSL | Op::FcvtDL => self.convert_long(inst, double),
            Op::FcvtSLu | Op::FcvtDLu => self.convert_unsigned_long(inst, double),
            _ => self.convert_word(inst, double),
        }
    }

    /// From a word.
    fn convert_word(&mut self, inst: Inst, double: bool) {
        let signed = matches!(inst.opcode, Op::FcvtSW | Op::FcvtDW);
        let from = self.operand(inst.rs1);
        self.asm.load_extended(4, signed, RAX, from);
        if !double {
            self.demand_exact(inst, EXACT_SINGLE);
        }
        self.convert_rax(inst.rd, double);
    }

    /// From a doubleword.
    fn convert_long(&mut self, inst: Inst, double: bool) {
        self.copy(inst.rs1, RAX);
        self.demand_exact(inst, if double { EXACT_DOUBLE } else { EXACT_SINGLE });
        self.convert_rax(inst.rd, double);
    }

    /// From an unsigned doubleword that is a signed one, too.
    fn convert_unsigned_long(&mut self, inst: Inst, double: bool) {
        self.copy(inst.rs1, RAX);
        self.asm.alu_imm(Alu::Cmp, W::Q, RAX, 0);
        self.slow_if(Cond::L);
        self.demand_exact(inst, if double { EXACT_DOUBLE } else { EXACT_SINGLE });
        self.convert_rax(inst.rd, double);
    }

    /// If the rounding mode is not the host's, rax must be small enough not to be rounded.
    fn demand_exact(&mut self, inst: Inst, bits: u8) {
        if matches!(inst.rm, RNE | DYN) {
            return;
        }
        self.asm.mov_imm(RCX, 1 << bits);
        self.asm.alu(Alu::Add, W::Q, RCX, RAX);
        self.asm.shift_imm(Shift::Shr, W::Q, RCX, bits + 1);
        self.slow_if(Cond::Ne);
    }

    fn convert_rax(&mut self, rd: u8, double: bool) {
        let to = self.floats.fresh();
        self.asm.zero_xmm(to);
        self.asm.convert_from_int(double, W::Q, to, RAX);
        self.floats.define(rd, double, to, false);
    }

    /// `fclass`. Without their signs, the classes from zero to quiet NaN are 4 to 9, rising as bits do; a negative number's is
    /// as far from the other end.
    pub(super) fn classify(&mut self, inst: Inst, double: bool) {
        const ZERO: u64 = 4;
        const FIRST_NAN: i32 = 8;
        let (wide, exponent, sign) = if double { (W::Q, 52, 63) } else { (W::D, 23, 31) };
        let infinity: u64 = if double { f64::INFINITY.to_bits() } else { f32::INFINITY.to_bits().into() };
        self.check_boxes(double, &[inst.rs1]);
        self.asm.load(wide, RCX, state::f(inst.rs1));
        self.asm.alu(Alu::Add, wide, RCX, RCX);
        self.asm.mov_imm(RAX, ZERO);
        let quiet = infinity | 1 << (exponent - 1);
        for least in [1, 1 << exponent, infinity, infinity + 1, quiet] {
            self.asm.mov_imm(RDX, least << 1);
            self.asm.alu(Alu::Cmp, wide, RCX, RDX);
            // One more, unless it is below.
            self.asm.alu_imm(Alu::Sbb, W::D, RAX, -1);
        }
        self.asm.load(wide, RDX, state::f(inst.rs1));
        self.asm.shift_imm(Shift::Sar, wide, RDX, sign);
        self.asm.alu_imm(Alu::And, W::D, RDX, 7);
        self.asm.alu_imm(Alu::Cmp, W::D, RAX, FIRST_NAN);
        self.asm.alu(Alu::Sbb, W::D, RCX, RCX);
        self.asm.alu(Alu::And, W::D, RCX, RDX);
        self.asm.alu(Alu::Xor, W::D, RCX, RAX);
        self.asm.mov_imm(RAX, 1);
        self.asm.shift_cl(Shift::Shl, W::D, RAX);
        self.put(inst.rd, RAX);
    }
}
