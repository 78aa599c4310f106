//! F and D on the host's scalar SSE2 and FMA3 arithmetic, which is IEEE 754's (Intel SDM volume 1, chapter 11).
//!
//! Where the two differ, the interpreter decides: for operands that are not boxed, for what is rounded to the nearest with
//! ties away from zero, and for what is not here. Results that are NaN are made canonical: see `float_cache`.
//! Exceptions gather in MXCSR: those that a host instruction notes before the interpreter repeats the guest's are a
//! subset of what the interpreter notes.

use super::Emitter;
use super::convert::is_from_integer;
use super::slow::SlowPath;
use crate::asm::float::sse;
use crate::asm::{Alu, Asm, Cond, RAX, RCX, RDX, Unary, W, Xmm};
use crate::block::Planned;
use crate::block::native::{RDN, RTZ, RUP};
use crate::state::{self, word};
use pollux_isa::{Inst, Opcode as Op};

const XMM0: Xmm = Xmm(0);
/// The upper half of a boxed single-precision value.
pub(super) const BOX: i32 = -1;

impl Emitter<'_, '_> {
    /// Takes the slow path if floating point is not on, dirty and rounding to nearest, unless that is known.
    pub(super) fn check_float(&mut self) {
        if !self.float_checked {
            self.asm.cmp_byte(word(state::FLOAT), 0);
            self.slow_if(Cond::E);
        }
    }

    /// Has the hart have the registers. Takes the slow path if single-precision ones are not boxed.
    pub(super) fn check_boxes(&mut self, double: bool, registers: &[u8]) {
        registers.iter().for_each(|&register| self.write_back(register));
        if double {
            return;
        }
        for &register in registers {
            self.asm.alu_imm(Alu::Cmp, W::D, state::f_high(register), BOX);
            self.slow_if(Cond::Ne);
            // The block goes on as if the register were boxed, so an interpreted step must not come back to it.
            self.pending.is_spanned = true;
        }
    }

    /// An instruction that computes with floating-point registers.
    pub(super) fn float(&mut self, planned: &Planned) {
        let inst = planned.place.inst;
        let double = inst.opcode >= Op::FmaddD;
        self.check_float();
        match inst.opcode {
            Op::FaddS | Op::FaddD => self.arithmetic(inst, double, sse::ADD),
            Op::FsubS | Op::FsubD => self.arithmetic(inst, double, sse::SUB),
            Op::FmulS | Op::FmulD => self.arithmetic(inst, double, sse::MUL),
            Op::FdivS | Op::FdivD => self.arithmetic(inst, double, sse::DIV),
            Op::FsqrtS | Op::FsqrtD => {
                let from = self.get_float(inst.rs1, double);
                let to = self.floats.fresh();
                self.rounding(inst.rm, |asm| asm.sse(sse::SQRT, double, to, from));
                self.floats.define(inst.rd, double, to, true);
            }
            Op::FmaddS | Op::FmaddD => self.fused(inst, double, 0xa9),
            Op::FmsubS | Op::FmsubD => self.fused(inst, double, 0xab),
            Op::FnmsubS | Op::FnmsubD => self.fused(inst, double, 0xad),
            Op::FnmaddS | Op::FnmaddD => self.fused(inst, double, 0xaf),
            Op::FsgnjS | Op::FsgnjnS | Op::FsgnjxS | Op::FsgnjD | Op::FsgnjnD | Op::FsgnjxD => {
                self.sign(inst, double);
            }
            Op::FminS | Op::FminD => self.extreme_float(inst, double, true),
            Op::FmaxS | Op::FmaxD => self.extreme_float(inst, double, false),
            Op::FeqS | Op::FeqD => self.equal(inst, double),
            Op::FltS | Op::FltD => self.less(inst, double, Cond::A),
            Op::FleS | Op::FleD => self.less(inst, double, Cond::Ae),
            Op::FcvtWS | Op::FcvtWD => self.convert_to_integer(inst, double, W::D),
            Op::FcvtLS | Op::FcvtLD => self.convert_to_integer(inst, double, W::Q),
            Op::FcvtWuS | Op::FcvtWuD => self.convert_to_unsigned(inst, double, W::D),
            Op::FcvtLuS | Op::FcvtLuD => self.convert_to_unsigned(inst, double, W::Q),
            Op::FclassS | Op::FclassD => self.classify(inst, double),
            opcode if is_from_integer(opcode) => self.convert_from_integer(inst, double),
            Op::FcvtSD => {
                let from = self.get_float(inst.rs1, true);
                let to = self.floats.fresh();
                self.rounding(inst.rm, |asm| asm.sse(sse::CONVERT_FLOAT, true, to, from));
                self.floats.define(inst.rd, false, to, true);
            }
            Op::FcvtDS => {
                let from = self.get_float(inst.rs1, false);
                let to = self.floats.fresh();
                self.asm.sse(sse::CONVERT_FLOAT, false, to, from);
                self.floats.define(inst.rd, true, to, true);
            }
            Op::FmvXW => {
                self.write_back(inst.rs1);
                self.asm.load_extended(4, true, RAX, state::f(inst.rs1).into());
                self.put(inst.rd, RAX);
            }
            Op::FmvXD => {
                self.write_back(inst.rs1);
                self.asm.load(W::Q, RAX, state::f(inst.rs1));
                self.put(inst.rd, RAX);
            }
            _ => {
                let from = self.get(inst.rs1, RAX);
                self.put_float_bits(inst.rd, from, double);
            }
        }
        self.end_fast_path(planned, true);
        self.float_checked = true;
    }

    /// A host register that holds a guest register; a single one must be boxed.
    pub(super) fn get_float(&mut self, register: u8, double: bool) -> Xmm {
        if let Some(xmm) = self.floats.find(register, double) {
            return xmm;
        }
        self.check_boxes(double, &[register]);
        let xmm = self.floats.fresh();
        self.asm.load_xmm(double, xmm, state::f(register));
        self.floats.hold(register, double, xmm);
        xmm
    }

    fn arithmetic(&mut self, inst: Inst, double: bool, opcode: u8) {
        let first = self.get_float(inst.rs1, double);
        let second = self.get_float(inst.rs2, double);
        let to = self.floats.fresh();
        self.asm.mov_xmm(to, first);
        self.rounding(inst.rm, |asm| asm.sse(opcode, double, to, second));
        self.floats.define(inst.rd, double, to, true);
    }

    fn fused(&mut self, inst: Inst, double: bool, opcode: u8) {
        let first = self.get_float(inst.rs1, double);
        let second = self.get_float(inst.rs2, double);
        let third = self.get_float(inst.rs3, double);
        let to = self.floats.fresh();
        self.asm.mov_xmm(to, first);
        self.rounding(inst.rm, |asm| asm.fma213(opcode, double, to, second, third));
        self.asm.compare(true, double, to, to);
        let from = self.asm.jcc(Cond::P as u8);
        self.slow_paths.push(SlowPath::Fused {
            from,
            back: self.asm.here(),
            factors: [first, second],
            to,
            double,
        });
        self.floats.define(inst.rd, double, to, false);
    }

    /// Has the host round as `rm` says. What is done so takes no jump.
    pub(super) fn rounding(&mut self, rm: u8, compute: impl FnOnce(&mut Asm)) {
        let stubs = self.target.stubs;
        let stub = match rm {
            RTZ => stubs.round_to_zero,
            RDN => stubs.round_down,
            RUP => stubs.round_up,
            _ => return compute(self.asm),
        };
        self.asm.call(stub);
        compute(self.asm);
        self.asm.call(stubs.round_to_nearest);
    }

    /// Sign injection, on the bits.
    fn sign(&mut self, inst: Inst, double: bool) {
        let moves = inst.rs1 == inst.rs2 && matches!(inst.opcode, Op::FsgnjS | Op::FsgnjD);
        if moves {
            let from = self.get_float(inst.rs1, double);
            let to = self.floats.fresh();
            self.asm.mov_xmm(to, from);
            let is_raw = self.floats.is_raw(from);
            return self.floats.define(inst.rd, double, to, is_raw);
        }
        self.check_boxes(double, &[inst.rs1, inst.rs2]);
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
    fn extreme_float(&mut self, inst: Inst, double: bool, min: bool) {
        self.check_boxes(double, &[inst.rs1, inst.rs2]);
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
        self.slow_paths.push(SlowPath::Extreme { from, back: self.asm.here(), second: inst.rs2, double });
        self.put_float_bits(inst.rd, RAX, double);
    }

    /// `feq`: quiet; unordered is not equal.
    fn equal(&mut self, inst: Inst, double: bool) {
        let first = self.get_float(inst.rs1, double);
        let second = self.get_float(inst.rs2, double);
        self.asm.compare(true, double, first, second);
        self.asm.set(Cond::E, RAX);
        self.asm.set(Cond::Np, RCX);
        self.asm.alu(Alu::And, W::D, RAX, RCX);
        self.put(inst.rd, RAX);
    }

    /// `flt`, `fle`: the operands the other way round, so that unordered compares as false.
    fn less(&mut self, inst: Inst, double: bool, cond: Cond) {
        let first = self.get_float(inst.rs1, double);
        let second = self.get_float(inst.rs2, double);
        self.asm.compare(false, double, second, first);
        self.asm.set(cond, RAX);
        self.put(inst.rd, RAX);
    }
}
