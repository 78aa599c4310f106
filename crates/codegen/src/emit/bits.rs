//! Zicond, Zba, Zbb, Zbs and Zbkb: address arithmetic and bits, in the order of the specification's chapters.

use super::Emitter;
use crate::asm::{Alu, Cond, RAX, RCX, RDX, Shift, Unary, W, scaled};
use pollux_isa::{Inst, Opcode as Op};

impl Emitter<'_, '_> {
    /// Zba, Zbb; and on to Zbs.
    pub(super) fn bits(&mut self, inst: Inst) -> bool {
        let Inst { rd, rs1, rs2, imm, .. } = inst;
        match inst.opcode {
            Op::AddUw => self.shifted_add(inst, 0, true),
            Op::Sh1add => self.shifted_add(inst, 1, false),
            Op::Sh1addUw => self.shifted_add(inst, 1, true),
            Op::Sh2add => self.shifted_add(inst, 2, false),
            Op::Sh2addUw => self.shifted_add(inst, 2, true),
            Op::Sh3add => self.shifted_add(inst, 3, false),
            Op::Sh3addUw => self.shifted_add(inst, 3, true),
            Op::SlliUw => {
                let from = self.operand(rs1);
                self.asm.load_extended(4, false, RAX, from);
                self.asm.shift_imm(Shift::Shl, W::Q, RAX, imm as u8 & 63);
                self.put(rd, RAX);
            }
            Op::Andn => self.with_not(Alu::And, inst),
            Op::Orn => self.with_not(Alu::Or, inst),
            Op::Xnor => {
                self.copy(rs1, RAX);
                let second = self.operand(rs2);
                self.asm.alu(Alu::Xor, W::Q, RAX, second);
                self.asm.unary(Unary::Not, W::Q, RAX);
                self.put(rd, RAX);
            }
            Op::Clz => self.count_zeros(inst, true, W::Q),
            Op::Clzw => self.count_zeros(inst, true, W::D),
            Op::Ctz => self.count_zeros(inst, false, W::Q),
            Op::Ctzw => self.count_zeros(inst, false, W::D),
            Op::Cpop | Op::Cpopw => {
                let wide = if inst.opcode == Op::Cpop { W::Q } else { W::D };
                let from = self.operand(rs1);
                self.asm.count_ones(wide, RAX, from);
                self.put(rd, RAX);
            }
            Op::Max => self.extreme(inst, Cond::L),
            Op::Maxu => self.extreme(inst, Cond::B),
            Op::Min => self.extreme(inst, Cond::G),
            Op::Minu => self.extreme(inst, Cond::A),
            Op::SextB => self.extend(inst, 1, true),
            Op::SextH => self.extend(inst, 2, true),
            Op::ZextH => self.extend(inst, 2, false),
            Op::Rol => self.shift_register(Shift::Rol, W::Q, inst),
            Op::Rolw => self.shift_register(Shift::Rol, W::D, inst),
            Op::Ror => self.shift_register(Shift::Ror, W::Q, inst),
            Op::Rorw => self.shift_register(Shift::Ror, W::D, inst),
            Op::Rori => self.shift_immediate(Shift::Ror, W::Q, inst),
            Op::Roriw => self.shift_immediate(Shift::Ror, W::D, inst),
            Op::OrcB => self.or_combine(inst),
            Op::Rev8 => {
                self.copy(rs1, RAX);
                self.asm.byte_swap(RAX);
                self.put(rd, RAX);
            }
            Op::MopR | Op::MopRr => {
                self.asm.mov_imm(RAX, 0);
                self.put(rd, RAX);
            }
            Op::CzeroEqz => self.zero_if(inst, Cond::E),
            Op::CzeroNez => self.zero_if(inst, Cond::Ne),
            Op::Pack | Op::Packh | Op::Packw | Op::Brev8 => self.pack(inst),
            _ => return self.single_bits(inst),
        }
        true
    }

    /// rd = rs1, or zero if rs2 is zero, or if it is not.
    fn zero_if(&mut self, inst: Inst, cond: Cond) {
        self.copy(inst.rs1, RAX);
        let condition = self.get(inst.rs2, RCX);
        self.asm.mov_imm(RDX, 0);
        self.asm.test(W::Q, condition, condition);
        self.asm.cmov(cond, W::Q, RAX, RDX);
        self.put(inst.rd, RAX);
    }

    /// Zbkb.
    fn pack(&mut self, inst: Inst) {
        let low = match inst.opcode {
            Op::Pack => 4,
            Op::Packw => 2,
            Op::Packh => 1,
            _ => return self.reverse_in_bytes(inst),
        };
        self.copy(inst.rs1, RAX);
        self.copy(inst.rs2, RCX);
        self.asm.load_extended(low, false, RAX, RAX.into());
        self.asm.load_extended(low, false, RCX, RCX.into());
        self.asm.shift_imm(Shift::Shl, W::Q, RCX, 8 * low);
        self.asm.alu(Alu::Or, W::Q, RAX, RCX);
        if inst.opcode == Op::Packw {
            self.asm.load_extended(4, true, RAX, RAX.into());
        }
        self.put(inst.rd, RAX);
    }

    /// `brev8`: halves of bytes change places, halves of these, and halves of these.
    fn reverse_in_bytes(&mut self, inst: Inst) {
        self.copy(inst.rs1, RAX);
        for (mask, shift) in
            [(0x0f0f_0f0f_0f0f_0f0f, 4), (0x3333_3333_3333_3333, 2), (0x5555_5555_5555_5555, 1)]
        {
            self.asm.mov_imm(RDX, mask);
            self.asm.mov(RCX, RAX);
            self.asm.alu(Alu::And, W::Q, RCX, RDX);
            self.asm.shift_imm(Shift::Shl, W::Q, RCX, shift);
            self.asm.shift_imm(Shift::Shr, W::Q, RAX, shift);
            self.asm.alu(Alu::And, W::Q, RAX, RDX);
            self.asm.alu(Alu::Or, W::Q, RAX, RCX);
        }
        self.put(inst.rd, RAX);
    }

    /// Zbs.
    fn single_bits(&mut self, inst: Inst) -> bool {
        let Inst { rd, rs1, imm, .. } = inst;
        match inst.opcode {
            Op::Bclr | Op::Bclri => self.single_bit(inst, Alu::And),
            Op::Binv | Op::Binvi => self.single_bit(inst, Alu::Xor),
            Op::Bset | Op::Bseti => self.single_bit(inst, Alu::Or),
            Op::Bext => {
                self.shift_register_into_rax(inst);
                self.asm.alu_imm(Alu::And, W::D, RAX, 1);
                self.put(rd, RAX);
            }
            Op::Bexti => {
                self.copy(rs1, RAX);
                self.asm.shift_imm(Shift::Shr, W::Q, RAX, imm as u8 & 63);
                self.asm.alu_imm(Alu::And, W::D, RAX, 1);
                self.put(rd, RAX);
            }
            _ => return false,
        }
        true
    }

    fn shift_register_into_rax(&mut self, inst: Inst) {
        self.copy(inst.rs2, RCX);
        self.copy(inst.rs1, RAX);
        self.asm.shift_cl(Shift::Shr, W::Q, RAX);
    }

    /// rd = rs2 + (rs1, or its low word, << shift).
    fn shifted_add(&mut self, inst: Inst, shift: u8, word: bool) {
        let first = self.operand(inst.rs1);
        self.asm.load_extended(if word { 4 } else { 8 }, false, RAX, first);
        self.copy(inst.rs2, RCX);
        self.asm.lea(RAX, scaled(RCX, RAX, shift));
        self.put(inst.rd, RAX);
    }

    fn with_not(&mut self, op: Alu, inst: Inst) {
        self.copy(inst.rs2, RAX);
        self.asm.unary(Unary::Not, W::Q, RAX);
        let first = self.operand(inst.rs1);
        self.asm.alu(op, W::Q, RAX, first);
        self.put(inst.rd, RAX);
    }

    fn extend(&mut self, inst: Inst, bytes: u8, signed: bool) {
        self.copy(inst.rs1, RAX);
        self.asm.load_extended(bytes, signed, RAX, RAX.into());
        self.put(inst.rd, RAX);
    }

    /// Leading (`highest`) or trailing zeros. The bit scans leave their result open for zero.
    fn count_zeros(&mut self, inst: Inst, highest: bool, wide: W) {
        let bits: i32 = if wide == W::Q { 64 } else { 32 };
        self.copy(inst.rs1, RCX);
        self.asm.bit_scan(highest, wide, RAX, RCX);
        // Leading zeros are (bits - 1) xor the number of the highest bit.
        self.asm.mov_imm(RDX, (if highest { 2 * bits - 1 } else { bits }) as u64);
        self.asm.cmov(Cond::E, W::Q, RAX, RDX);
        if highest {
            self.asm.alu_imm(Alu::Xor, W::Q, RAX, bits - 1);
        }
        self.put(inst.rd, RAX);
    }

    /// rd = rs1, or rs2 if rs1 compares so to it.
    fn extreme(&mut self, inst: Inst, cond: Cond) {
        self.copy(inst.rs1, RAX);
        let second = self.operand(inst.rs2);
        self.asm.alu(Alu::Cmp, W::Q, RAX, second);
        self.asm.cmov(cond, W::Q, RAX, second);
        self.put(inst.rd, RAX);
    }

    /// `orc.b`: bytes that are not zero become all ones. Adding 7f to the low seven bits of a byte carries into its
    /// top bit unless they are zero.
    fn or_combine(&mut self, inst: Inst) {
        const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
        self.copy(inst.rs1, RAX);
        self.asm.mov_imm(RDX, LOW);
        self.asm.mov(RCX, RAX);
        self.asm.alu(Alu::And, W::Q, RCX, RDX);
        self.asm.alu(Alu::Add, W::Q, RCX, RDX);
        self.asm.alu(Alu::Or, W::Q, RAX, RCX);
        self.asm.unary(Unary::Not, W::Q, RDX);
        self.asm.alu(Alu::And, W::Q, RAX, RDX);
        self.asm.shift_imm(Shift::Shr, W::Q, RAX, 7);
        self.asm.mov_imm(RCX, 0xff);
        self.asm.imul(W::Q, RAX, RCX);
        self.put(inst.rd, RAX);
    }

    fn single_bit(&mut self, inst: Inst, op: Alu) {
        let immediate = matches!(inst.opcode, Op::Bclri | Op::Binvi | Op::Bseti);
        if immediate {
            self.asm.mov_imm(RAX, 1 << (inst.imm & 63));
        } else {
            self.copy(inst.rs2, RCX);
            self.asm.mov_imm(RAX, 1);
            self.asm.shift_cl(Shift::Shl, W::Q, RAX);
        }
        if op == Alu::And {
            self.asm.unary(Unary::Not, W::Q, RAX);
        }
        let first = self.operand(inst.rs1);
        self.asm.alu(op, W::Q, RAX, first);
        self.put(inst.rd, RAX);
    }
}
