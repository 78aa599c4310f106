//! Where blocks go: to each other, to other pages, to the interpreter.

use super::{Emitter, registers, slow::SlowPath};
use crate::asm::{Alu, Asm, Cond, R15, RAX, RCX, Reg, W};
use crate::block::registers::X0;
use crate::block::{PAGE, Place, Terminator};
use crate::state::{self, StepInfo, word};
use crate::stubs::{Stubs, lookup};
use pollux_isa::{Inst, Opcode as Op};

impl Emitter<'_, '_> {
    /// The end of the block, whose work begins at `body`, up to where it goes on if no branch is taken.
    pub(super) fn terminate(&mut self, body: u32) {
        match self.block.terminator {
            Terminator::Fall => self.restore(),
            Terminator::Jump(place) => self.jump(place, body),
            Terminator::Step { offset, len, opcode } => {
                self.restore();
                opcode.into_iter().for_each(|opcode| self.trap(opcode, offset));
                let info = StepInfo { offset, len, unexecuted: 1, needs_float: false, comes_back: true };
                step(self.asm, self.target.stubs, info);
            }
        }
    }

    /// Registers are as between blocks again. Flags and rax, rcx and rdx stay as they are.
    fn restore(&mut self) {
        registers::restore(self.asm, &self.block.allocation);
    }

    /// The jump that ends the block.
    fn jump(&mut self, place: Place, body: u32) {
        let inst = place.inst;
        match inst.opcode {
            Op::Jal => {
                self.link_register(place);
                self.restore();
            }
            Op::Jalr => {
                self.jump_target(place);
                self.restore();
                lookup(self.asm, self.target.stubs.find);
            }
            _ => {
                let cond = self.compare(inst);
                if self.block.repeats && !self.block.allocation.is_default() {
                    return self.repeat(cond, body);
                }
                self.restore();
                let from = self.asm.jcc(cond);
                let target = place.target();
                match u16::try_from(target) {
                    Ok(target) if target < PAGE => self.jumps.push((target, from)),
                    _ => self.slow_paths.push(SlowPath::Far { from, offset: target }),
                }
            }
        }
    }

    /// The branch back to the block's own beginning: its allocation stays.
    fn repeat(&mut self, cond: u8, body: u32) {
        let block = self.block;
        let out = self.asm.jcc(cond ^ 1);
        self.asm.alu_imm(Alu::Sub, W::Q, R15, i32::from(block.steps));
        self.asm.jcc_to(Cond::Ge, body);
        let from = self.asm.jmp();
        let (offset, steps, allocation) = (block.offset, block.steps, self.allocation());
        self.slow_paths.push(SlowPath::Short { from, offset, steps, allocation });
        self.asm.bind_here(out);
        self.restore();
    }

    /// Writes the return address of a jump.
    fn link_register(&mut self, place: Place) {
        let rd = place.inst.rd;
        if rd != X0 {
            let to = self.place_for(rd, false, RCX);
            self.address(to, i32::from(place.next()));
            self.put(rd, to);
        }
    }

    /// rax = where `jalr` goes; writes its return address.
    fn jump_target(&mut self, place: Place) {
        self.copy(place.inst.rs1, RAX);
        if place.inst.imm != 0 {
            self.asm.alu_imm(Alu::Add, W::Q, RAX, place.inst.imm);
        }
        self.asm.alu_imm(Alu::And, W::Q, RAX, -2);
        self.link_register(place);
    }

    /// Compares as a conditional branch does; returns the condition on which it is taken.
    pub(super) fn compare(&mut self, inst: Inst) -> u8 {
        if inst.rs1 == X0 && inst.rs2 != X0 {
            self.compare_registers(inst.rs2, X0);
            let cond = match inst.opcode {
                Op::Beq | Op::Bgeu => Cond::E,
                Op::Bne | Op::Bltu => Cond::Ne,
                Op::Blt => Cond::G,
                _ => return Cond::G.not(),
            };
            return cond as u8;
        }
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

    pub(super) fn compare_registers(&mut self, a: u8, b: u8) {
        let first = self.get(a, RAX);
        if b == X0 {
            self.asm.test(W::Q, first, first);
        } else {
            let second = self.operand(b);
            self.asm.alu(Alu::Cmp, W::Q, first, second);
        }
    }

    /// `ecall` or `sret`, as far as the stubs do it.
    fn trap(&mut self, opcode: Op, offset: u16) {
        let stub = match opcode {
            Op::Ecall => self.target.stubs.ecall,
            Op::Sret => self.target.stubs.sret,
            _ => return,
        };
        self.address(RAX, i32::from(offset));
        self.asm.call(stub);
    }
}

/// The address of something at an offset from this page's beginning.
pub(super) fn address(asm: &mut Asm, to: Reg, offset: i32) {
    asm.load(W::Q, to, word(state::PAGE_BASE));
    if offset != 0 {
        asm.alu_imm(Alu::Add, W::Q, to, offset);
    }
}

/// Goes to an address by its offset from the beginning of this page.
pub(super) fn go_far(asm: &mut Asm, stubs: &Stubs, offset: i32) {
    address(asm, RAX, offset);
    lookup(asm, stubs.find);
}

/// Leaves translated code for an instruction of this page.
pub(super) fn leave_at(asm: &mut Asm, stubs: &Stubs, offset: u16) {
    address(asm, RAX, i32::from(offset));
    asm.jmp_to(stubs.leave_at);
}

/// One interpreted step.
pub(super) fn step(asm: &mut Asm, stubs: &Stubs, info: StepInfo) {
    asm.mov_imm(RAX, u64::from(info.pack()));
    asm.call(stubs.step);
}
