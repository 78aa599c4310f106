//! Integer instructions, in the order of the specification's chapters (I, M, Zba, Zbb, Zbs). What is not here is
//! interpreted: see the end of [`Translator::instruction`].

use crate::asm::{Alu, Cond, RAX, RCX, RDX, Reg, Rm, Shift, Unary, W, scaled};
use crate::region::{Place, Translator};
use crate::state::{self, StepInfo, pinned, word};
use pollux_isa::{Inst, Opcode as Op};

impl Translator<'_> {
    // ---- registers ----

    /// A guest register as an operand.
    pub(crate) fn operand(&self, guest: u8) -> Rm {
        pinned(guest).map_or(Rm::M(state::x(guest)), Rm::R)
    }

    /// A host register that holds a guest register: its own, or `scratch`, loaded.
    pub(crate) fn get(&mut self, guest: u8, scratch: Reg) -> Reg {
        match pinned(guest) {
            Some(reg) => reg,
            None => {
                self.copy(guest, scratch);
                scratch
            }
        }
    }

    /// Copies a guest register into `to`.
    pub(crate) fn copy(&mut self, guest: u8, to: Reg) {
        match pinned(guest) {
            Some(reg) => self.asm.mov(to, reg),
            None if guest == 0 => self.asm.mov_imm(to, 0),
            None => self.asm.load(W::Q, to, state::x(guest)),
        }
    }

    /// Where to compute a guest register: its own host register, or `scratch` if it has none or is `in_use` by an
    /// operand that is read later.
    fn place_for(&self, guest: u8, in_use: bool, scratch: Reg) -> Reg {
        if in_use { scratch } else { pinned(guest).unwrap_or(scratch) }
    }

    /// Writes a guest register from a host register.
    pub(crate) fn put(&mut self, guest: u8, from: Reg) {
        match pinned(guest) {
            Some(reg) => self.asm.mov(reg, from),
            None if guest == 0 => {}
            None => self.asm.store(W::Q, state::x(guest), from),
        }
    }

    /// The address of something at an offset from this page's beginning.
    pub(crate) fn address(&mut self, to: Reg, offset: i32) {
        self.asm.load(W::Q, to, word(state::PAGE_BASE));
        if offset != 0 {
            self.asm.alu_imm(Alu::Add, W::Q, to, offset);
        }
    }

    // ---- jumps ----

    /// Writes the return address of a jump.
    pub(crate) fn link_register(&mut self, place: Place) {
        let rd = place.inst.rd;
        if rd != 0 {
            let to = self.place_for(rd, false, RCX);
            self.address(to, i32::from(place.next()));
            self.put(rd, to);
        }
    }

    /// rax = where `jalr` goes; writes its return address.
    pub(crate) fn jump_target(&mut self, place: Place) {
        self.copy(place.inst.rs1, RAX);
        if place.inst.imm != 0 {
            self.asm.alu_imm(Alu::Add, W::Q, RAX, place.inst.imm);
        }
        self.asm.alu_imm(Alu::And, W::Q, RAX, -2);
        self.link_register(place);
    }

    /// Compares as a conditional branch does; returns the condition on which it is taken.
    pub(crate) fn compare(&mut self, inst: Inst) -> u8 {
        self.compare_registers(inst.rs1, inst.rs2);
        let cond = match inst.opcode {
            Op::Beq => Cond::E,
            Op::Bne => Cond::Ne,
            Op::Blt => Cond::L,
            Op::Bge => Cond::Ge,
            Op::Bltu => Cond::B,
            _ => Cond::Ae,
        };
        cond as u8
    }

    fn compare_registers(&mut self, a: u8, b: u8) {
        let first = self.get(a, RAX);
        if b == 0 {
            self.asm.test(W::Q, first, first);
        } else {
            let second = self.operand(b);
            self.asm.alu(Alu::Cmp, W::Q, first, second);
        }
    }

    // ---- everything else ----

    /// Translates one instruction that is no jump. `unexecuted` counts from it to the end of its block.
    pub(crate) fn instruction(&mut self, place: Place, unexecuted: u16) {
        let inst = place.inst;
        match inst.opcode {
            Op::Lb => return self.load(place, unexecuted, 1, true),
            Op::Lh => return self.load(place, unexecuted, 2, true),
            Op::Lw => return self.load(place, unexecuted, 4, true),
            Op::Lbu => return self.load(place, unexecuted, 1, false),
            Op::Lhu => return self.load(place, unexecuted, 2, false),
            Op::Lwu => return self.load(place, unexecuted, 4, false),
            Op::Ld => return self.load(place, unexecuted, 8, false),
            Op::Sb => return self.store(place, unexecuted, 1),
            Op::Sh => return self.store(place, unexecuted, 2),
            Op::Sw => return self.store(place, unexecuted, 4),
            Op::Sd => return self.store(place, unexecuted, 8),
            Op::Fence | Op::FenceI => return,
            _ => {}
        }
        let is_done = self.float(place, unexecuted)
            || self.atomic(place, unexecuted)
            || self.csr(place, unexecuted)
            || self.fence_translations(place, unexecuted);
        if is_done {
            return;
        }
        if is_integer(inst.opcode) && inst.rd == 0 {
            return;
        }
        if self.is_step(inst) {
            self.step_here(StepInfo {
                offset: place.offset,
                len: u16::from(inst.len),
                unexecuted,
                needs_float: false,
                comes_back: true,
            });
            self.float_checked = false;
            self.copies.clear();
            return;
        }
        let done = self.base(place) || self.multiply(inst) || self.bits(inst);
        debug_assert!(done, "{inst:?} is neither translated nor a step");
    }

    /// Whether an instruction that is no jump is always interpreted.
    pub(crate) fn is_step(&self, inst: Inst) -> bool {
        match inst.opcode {
            Op::Cpop | Op::Cpopw => !self.features.popcnt,
            Op::Fence | Op::FenceI | Op::CboZero | Op::SfenceVma => false,
            Op::Csrrw | Op::Csrrs | Op::Csrrc | Op::Csrrwi | Op::Csrrsi | Op::Csrrci => {
                !Self::is_native_csr(inst)
            }
            opcode if (Op::LrW..=Op::AmomaxuD).contains(&opcode) => false,
            Op::Flw | Op::Fld | Op::Fsw | Op::Fsd => false,
            Op::Lb | Op::Lh | Op::Lw | Op::Lbu | Op::Lhu | Op::Lwu | Op::Ld => false,
            Op::Sb | Op::Sh | Op::Sw | Op::Sd => false,
            opcode if (Op::FmaddS..=Op::FmvDX).contains(&opcode) => !self.is_native(inst),
            opcode => !is_integer(opcode),
        }
    }

    /// I.
    fn base(&mut self, place: Place) -> bool {
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
                if imm == 0 {
                    let from = self.operand(rs1);
                    self.asm.load_extended(4, true, to, from);
                } else {
                    self.copy(rs1, to);
                    self.asm.alu_imm(Alu::Add, W::D, to, imm);
                    self.asm.load_extended(4, true, to, to.into());
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
            let operand = self.operand(rd);
            return self.asm.alu_imm(Alu::Add, W::Q, operand, imm);
        }
        let to = self.place_for(rd, false, RAX);
        match pinned(rs1) {
            _ if rs1 == 0 => self.asm.mov_imm(to, i64::from(imm) as u64),
            Some(reg) if imm != 0 => self.asm.lea(to, crate::asm::at(reg, imm)),
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
        if a == 0 && wide == W::Q && matches!(op, Alu::Add | Alu::Or | Alu::Xor) {
            // A move.
            let to = self.place_for(rd, false, RAX);
            self.copy(b, to);
            return self.put(rd, to);
        }
        let to = self.place_for(rd, rd == b && rd != a, RAX);
        match (pinned(a), pinned(b)) {
            (Some(first), Some(second)) if op == Alu::Add && wide == W::Q && rd != a => {
                self.asm.lea(to, crate::asm::at2(first, second, 0));
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

    fn shift_immediate(&mut self, op: Shift, wide: W, inst: Inst) {
        let to = self.place_for(inst.rd, false, RAX);
        let count = inst.imm as u8 & if wide == W::Q { 63 } else { 31 };
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
    fn shift_register(&mut self, op: Shift, wide: W, inst: Inst) {
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
        self.asm.set(cond, RAX);
        self.put(inst.rd, RAX);
    }

    fn set_less_immediate(&mut self, inst: Inst, cond: Cond) {
        let first = self.get(inst.rs1, RAX);
        self.asm.alu_imm(Alu::Cmp, W::Q, first, inst.imm);
        self.asm.set(cond, RAX);
        self.put(inst.rd, RAX);
    }

    /// M.
    fn multiply(&mut self, inst: Inst) -> bool {
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
            self.asm.lea(RDX, crate::asm::at(RCX, 1));
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

    /// Zba, Zbb; and on to Zbs.
    fn bits(&mut self, inst: Inst) -> bool {
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
            _ => return self.single_bits(inst),
        }
        true
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

/// Whether an instruction does nothing but compute rd.
fn is_integer(opcode: Op) -> bool {
    let ranges = [Op::Slti..=Op::And, Op::Addiw..=Op::Sraw, Op::Mul..=Op::Remuw, Op::AddUw..=Op::Bseti];
    matches!(opcode, Op::Lui | Op::Auipc | Op::Addi) || ranges.iter().any(|range| range.contains(&opcode))
}
