//! Integer instructions, in the order of the specification's chapters: I and M. `bits` has the others, `exits` the jumps.

use super::Emitter;
use crate::asm::{Alu, Cond, RAX, RCX, RDX, Shift, Unary, W, at, at2};
use crate::block::Place;
use crate::block::registers::X0;
use crate::state::{self, word};
use pollux_isa::{Inst, Opcode as Op};

impl Emitter<'_, '_> {
    /// I.
    pub(super) fn base(&mut self, place: Place) -> bool {
        let inst = place.inst;
        let Inst { rd, rs1, rs2, imm, .. } = inst;
        match inst.opcode {
            Op::Lui => {
                let to = self.place_for(rd, false, RAX);
                self.asm.mov_imm(to, i64::from(imm) as u64);
                self.put(rd, to);
            }
            Op::Auipc => {
                let to = self.place_for(rd, false, RAX);
                self.asm.load(W::Q, to, word(state::PAGE_BASE));
                self.asm.alu_imm(Alu::Add, W::Q, to, imm + i32::from(place.offset));
                self.put(rd, to);
            }
            Op::Addi => self.add_immediate(rd, rs1, imm),
            Op::Slti => self.set_less_immediate(inst, Cond::L),
            Op::Sltiu => self.set_less_immediate(inst, Cond::B),
            Op::Xori => self.immediate(Alu::Xor, inst),
            Op::Ori => self.immediate(Alu::Or, inst),
            Op::Andi => self.immediate(Alu::And, inst),
            Op::Slli => self.shift_immediate(Shift::Shl, W::Q, inst),
            Op::Srli => self.shift_immediate(Shift::Shr, W::Q, inst),
            Op::Srai => self.shift_immediate(Shift::Sar, W::Q, inst),
            Op::Add => self.binary(Alu::Add, W::Q, rd, rs1, rs2),
            Op::Sub => self.binary(Alu::Sub, W::Q, rd, rs1, rs2),
            Op::Xor => self.binary(Alu::Xor, W::Q, rd, rs1, rs2),
            Op::Or => self.binary(Alu::Or, W::Q, rd, rs1, rs2),
            Op::And => self.binary(Alu::And, W::Q, rd, rs1, rs2),
            Op::Sll => self.shift_register(Shift::Shl, W::Q, inst),
            Op::Srl => self.shift_register(Shift::Shr, W::Q, inst),
            Op::Sra => self.shift_register(Shift::Sar, W::Q, inst),
            Op::Slt => self.set_less(inst, Cond::L),
            Op::Sltu => self.set_less(inst, Cond::B),
            Op::Addiw => {
                let to = self.place_for(rd, false, RAX);
                match self.home(rs1) {
                    _ if imm == 0 => {
                        let from = self.operand(rs1);
                        self.asm.load_extended(4, true, to, from);
                    }
                    Some(from) if rd != rs1 => {
                        self.asm.lea(to, at(from, imm));
                        self.asm.load_extended(4, true, to, to.into());
                    }
                    _ => {
                        self.copy(rs1, to);
                        self.asm.alu_imm(Alu::Add, W::D, to, imm);
                        self.asm.load_extended(4, true, to, to.into());
                    }
                }
                self.put(rd, to);
            }
            Op::Slliw => self.shift_immediate(Shift::Shl, W::D, inst),
            Op::Srliw => self.shift_immediate(Shift::Shr, W::D, inst),
            Op::Sraiw => self.shift_immediate(Shift::Sar, W::D, inst),
            Op::Addw => self.binary(Alu::Add, W::D, rd, rs1, rs2),
            Op::Subw => self.binary(Alu::Sub, W::D, rd, rs1, rs2),
            Op::Sllw => self.shift_register(Shift::Shl, W::D, inst),
            Op::Srlw => self.shift_register(Shift::Shr, W::D, inst),
            Op::Sraw => self.shift_register(Shift::Sar, W::D, inst),
            _ => return false,
        }
        true
    }

    fn add_immediate(&mut self, rd: u8, rs1: u8, imm: i32) {
        if rd == rs1 {
            let operand = self.in_place(rd);
            return self.asm.alu_imm(Alu::Add, W::Q, operand, imm);
        }
        let to = self.place_for(rd, false, RAX);
        match self.home(rs1) {
            _ if rs1 == X0 => self.asm.mov_imm(to, i64::from(imm) as u64),
            Some(reg) if imm != 0 => self.asm.lea(to, at(reg, imm)),
            _ => {
                self.copy(rs1, to);
                if imm != 0 {
                    self.asm.alu_imm(Alu::Add, W::Q, to, imm);
                }
            }
        }
        self.put(rd, to);
    }

    fn immediate(&mut self, op: Alu, inst: Inst) {
        let to = self.place_for(inst.rd, false, RAX);
        self.copy(inst.rs1, to);
        self.asm.alu_imm(op, W::Q, to, inst.imm);
        self.put(inst.rd, to);
    }

    /// rd = rs1 op rs2; a word result is sign-extended.
    fn binary(&mut self, op: Alu, wide: W, rd: u8, rs1: u8, rs2: u8) {
        let commutes = op != Alu::Sub;
        let (a, b) = if rd == rs2 && commutes { (rs2, rs1) } else { (rs1, rs2) };
        if a == X0 && wide == W::Q && matches!(op, Alu::Add | Alu::Or | Alu::Xor) {
            // A move.
            let to = self.place_for(rd, false, RAX);
            self.copy(b, to);
            return self.put(rd, to);
        }
        let to = self.place_for(rd, rd == b && rd != a, RAX);
        match (self.home(a), self.home(b)) {
            (Some(first), Some(second)) if op == Alu::Add && rd != a => {
                self.asm.lea(to, at2(first, second, 0));
            }
            _ => {
                self.copy(a, to);
                let second = self.operand(b);
                self.asm.alu(op, wide, to, second);
            }
        }
        if wide == W::D {
            self.asm.load_extended(4, true, to, to.into());
        }
        self.put(rd, to);
    }

    pub(super) fn shift_immediate(&mut self, op: Shift, wide: W, inst: Inst) {
        let to = self.place_for(inst.rd, false, RAX);
        let count = inst.imm as u8 & if wide == W::Q { 63 } else { 31 };
        if op == Shift::Sar && wide == W::D {
            let from = self.operand(inst.rs1);
            self.asm.load_extended(4, true, to, from);
            if count != 0 {
                self.asm.shift_imm(op, W::Q, to, count);
            }
            return self.put(inst.rd, to);
        }
        self.copy(inst.rs1, to);
        if count != 0 {
            self.asm.shift_imm(op, wide, to, count);
        }
        // A word shifted right has lost its sign, and is extended by zeros already.
        if wide == W::D && (op != Shift::Shr || count == 0) {
            self.asm.load_extended(4, true, to, to.into());
        }
        self.put(inst.rd, to);
    }

    /// The host, too, takes the low five or six bits of a count.
    pub(super) fn shift_register(&mut self, op: Shift, wide: W, inst: Inst) {
        self.copy(inst.rs2, RCX);
        self.copy(inst.rs1, RAX);
        self.asm.shift_cl(op, wide, RAX);
        if wide == W::D {
            self.asm.load_extended(4, true, RAX, RAX.into());
        }
        self.put(inst.rd, RAX);
    }

    fn set_less(&mut self, inst: Inst, cond: Cond) {
        self.compare_registers(inst.rs1, inst.rs2);
        self.put_condition(inst.rd, cond);
    }

    fn put_condition(&mut self, rd: u8, cond: Cond) {
        let to = self.place_for(rd, false, RAX);
        self.asm.set(cond, to);
        self.put(rd, to);
    }

    fn set_less_immediate(&mut self, inst: Inst, cond: Cond) {
        let first = self.get(inst.rs1, RAX);
        self.asm.alu_imm(Alu::Cmp, W::Q, first, inst.imm);
        self.put_condition(inst.rd, cond);
    }

    /// M.
    pub(super) fn multiply(&mut self, inst: Inst) -> bool {
        let Inst { rd, rs1, rs2, .. } = inst;
        match inst.opcode {
            Op::Mul | Op::Mulw => {
                let wide = if inst.opcode == Op::Mul { W::Q } else { W::D };
                let to = self.place_for(rd, rd == rs2 && rd != rs1, RAX);
                self.copy(rs1, to);
                let second = self.operand(rs2);
                self.asm.imul(wide, to, second);
                if wide == W::D {
                    self.asm.load_extended(4, true, to, to.into());
                }
                self.put(rd, to);
            }
            Op::Mulh | Op::Mulhu => {
                self.copy(rs1, RAX);
                let second = self.operand(rs2);
                self.asm.unary(if inst.opcode == Op::Mulh { Unary::Imul } else { Unary::Mul }, W::Q, second);
                self.put(rd, RDX);
            }
            Op::Mulhsu => {
                // Of the unsigned product's upper half, rs2 is taken off if rs1 is negative.
                self.copy(rs1, RAX);
                let second = self.operand(rs2);
                self.asm.unary(Unary::Mul, W::Q, second);
                self.copy(rs1, RCX);
                self.asm.shift_imm(Shift::Sar, W::Q, RCX, 63);
                self.asm.alu(Alu::And, W::Q, RCX, second);
                self.asm.alu(Alu::Sub, W::Q, RDX, RCX);
                self.put(rd, RDX);
            }
            Op::Div => self.divide(inst, true, false, false),
            Op::Divu => self.divide(inst, false, false, false),
            Op::Rem => self.divide(inst, true, true, false),
            Op::Remu => self.divide(inst, false, true, false),
            Op::Divw => self.divide(inst, true, false, true),
            Op::Divuw => self.divide(inst, false, false, true),
            Op::Remw => self.divide(inst, true, true, true),
            Op::Remuw => self.divide(inst, false, true, true),
            _ => return false,
        }
        true
    }

    /// Division, in 64 bits also for words. The host traps where RISC-V has results: by zero (all ones; the
    /// dividend), and by -1 where the quotient would overflow, so that -1 is always handled apart.
    fn divide(&mut self, inst: Inst, signed: bool, remainder: bool, words: bool) {
        let bytes = if words { 4 } else { 8 };
        let (dividend, divisor) = (self.operand(inst.rs1), self.operand(inst.rs2));
        self.asm.load_extended(bytes, signed, RAX, dividend);
        self.asm.load_extended(bytes, signed, RCX, divisor);
        let special = if signed {
            // 0 and -1 become 1 and 0.
            self.asm.lea(RDX, at(RCX, 1));
            self.asm.alu_imm(Alu::Cmp, W::Q, RDX, 1);
            self.asm.jcc(Cond::A.not())
        } else {
            self.asm.test(W::Q, RCX, RCX);
            self.asm.jcc(Cond::E as u8)
        };
        if signed {
            self.asm.sign_into_rdx(W::Q);
            self.asm.unary(Unary::Idiv, W::Q, RCX);
        } else {
            self.asm.mov_imm(RDX, 0);
            self.asm.unary(Unary::Div, W::Q, RCX);
        }
        if remainder {
            self.asm.mov(RAX, RDX);
        }
        let done = self.asm.jmp();
        self.asm.bind_here(special);
        let mut ends = alloc::vec![done];
        if signed {
            self.asm.test(W::Q, RCX, RCX);
            let by_zero = self.asm.jcc(Cond::E as u8);
            if remainder {
                self.asm.mov_imm(RAX, 0);
            } else {
                self.asm.unary(Unary::Neg, W::Q, RAX);
            }
            ends.push(self.asm.jmp());
            self.asm.bind_here(by_zero);
        }
        if !remainder {
            self.asm.mov_imm(RAX, u64::MAX);
        }
        ends.into_iter().for_each(|end| self.asm.bind_here(end));
        if words {
            self.asm.load_extended(4, true, RAX, RAX.into());
        }
        self.put(inst.rd, RAX);
    }
}
