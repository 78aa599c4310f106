//! The A extension and `cbo.zero`. There is one thread, so an atomic operation is a load, some arithmetic and a store;
//! what its checks cannot prove, misalignment included, is the interpreter's.

use super::Emitter;
use crate::asm::{Alu, Cond, RAX, RCX, RDX, W, Xmm, at};
use crate::block::Planned;
use crate::state::{self, part, word};
use pollux_isa::{Inst, Opcode as Op};
use pollux_riscv::RAM_BASE;
use pollux_riscv::engine::layout;

/// Bytes in a cache block.
const BLOCK_BYTES: i32 = 64;

impl Emitter<'_, '_> {
    /// An instruction of A, or `cbo.zero`.
    pub(super) fn atomic(&mut self, planned: &Planned) {
        let inst = planned.place.inst;
        let bytes = if inst.opcode >= Op::LrD { 8 } else { 4 };
        self.pending.start = self.asm.here();
        match inst.opcode {
            Op::LrW | Op::LrD => self.load_reserved(inst, bytes),
            Op::ScW | Op::ScD => self.store_conditional(inst, bytes),
            Op::CboZero => self.zero_block(inst),
            _ => self.modify(inst, bytes),
        }
        self.end_fast_path(planned, false);
    }

    /// rcx = the guest physical address of the doubleword of which rax is a host address. Uses rdx.
    fn reservation_of_rax(&mut self) {
        self.asm.mov(RCX, RAX);
        self.asm.alu(Alu::Sub, W::Q, RCX, word(state::RAM));
        self.asm.alu_imm(Alu::And, W::Q, RCX, -8);
        self.asm.mov_imm(RDX, RAM_BASE);
        self.asm.alu(Alu::Add, W::Q, RCX, RDX);
    }

    fn load_reserved(&mut self, inst: Inst, bytes: u8) {
        self.copy(inst.rs1, RAX);
        self.find_page(inst.rs1, bytes, false);
        self.reservation_of_rax();
        self.asm.store(W::Q, part(layout::RESERVATION), RCX);
        self.asm.load_extended(bytes, true, RAX, at(RAX, 0).into());
        self.put(inst.rd, RAX);
    }

    fn store_conditional(&mut self, inst: Inst, bytes: u8) {
        self.copy(inst.rs1, RAX);
        self.asm.alu_imm(Alu::Cmp, W::Q, part(layout::RESERVATION), 0);
        let some = self.asm.jcc(Cond::Ne as u8);
        // So kernels lose a reservation when they return from a trap. It still must be aligned; nothing is accessed.
        self.asm.alu_imm(Alu::And, W::D, RAX, i32::from(bytes) - 1);
        self.slow_if(Cond::Ne);
        self.asm.mov_imm(RDX, 1);
        let none = self.asm.jmp();
        self.asm.bind_here(some);
        self.find_page(inst.rs1, bytes, true);
        self.reservation_of_rax();
        self.asm.alu(Alu::Cmp, W::Q, RCX, part(layout::RESERVATION));
        self.asm.store_imm(W::Q, part(layout::RESERVATION), 0);
        self.asm.mov_imm(RDX, 1);
        let lost = self.asm.jcc(Cond::Ne as u8);
        let value = self.get(inst.rs2, RCX);
        self.asm.store_sized(bytes, at(RAX, 0), value);
        self.asm.mov_imm(RDX, 0);
        self.asm.bind_here(lost);
        self.asm.bind_here(none);
        self.put(inst.rd, RDX);
    }

    fn modify(&mut self, inst: Inst, bytes: u8) {
        self.copy(inst.rs1, RAX);
        self.find_page(inst.rs1, bytes, true);
        self.asm.load_extended(bytes, true, RCX, at(RAX, 0).into());
        let source = self.operand(inst.rs2);
        self.asm.load_extended(bytes, true, RDX, source);
        let keep_old = match inst.opcode {
            Op::AmominW | Op::AmominD => Some(Cond::L),
            Op::AmomaxW | Op::AmomaxD => Some(Cond::G),
            Op::AmominuW | Op::AmominuD => Some(Cond::B),
            Op::AmomaxuW | Op::AmomaxuD => Some(Cond::A),
            _ => None,
        };
        let arithmetic = match inst.opcode {
            Op::AmoaddW | Op::AmoaddD => Some(Alu::Add),
            Op::AmoxorW | Op::AmoxorD => Some(Alu::Xor),
            Op::AmoandW | Op::AmoandD => Some(Alu::And),
            Op::AmoorW | Op::AmoorD => Some(Alu::Or),
            _ => None,
        };
        if let Some(op) = arithmetic {
            self.asm.alu(op, W::Q, RDX, RCX);
        }
        if let Some(cond) = keep_old {
            // Sign extension keeps both orders of words.
            self.asm.alu(Alu::Cmp, W::Q, RCX, RDX);
            self.asm.cmov(cond, W::Q, RDX, RCX);
        }
        self.asm.store_sized(bytes, at(RAX, 0), RDX);
        self.put(inst.rd, RCX);
    }

    fn zero_block(&mut self, inst: Inst) {
        self.asm.cmp_byte(word(state::ZERO), 0);
        self.slow_if(Cond::E);
        self.copy(inst.rs1, RAX);
        self.asm.alu_imm(Alu::And, W::Q, RAX, -BLOCK_BYTES);
        self.find_page(inst.rs1, 1, true);
        let zero = Xmm(0);
        self.asm.zero_xmm(zero);
        for offset in (0..BLOCK_BYTES).step_by(16) {
            self.asm.store_vector(at(RAX, offset), zero);
        }
    }
}
