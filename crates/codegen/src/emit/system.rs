//! What kernels execute at every system call and around every lock: `ecall`, `sret`, `sfence.vma`, and the CSR
//! instructions on `sscratch`, `sepc`, `scause`, `stval` and `sstatus` (see `float_csr` for `fcsr`, `clock` for `time`). All
//! others, and these where anything is unusual (an interrupt that may become due, MXR, a kernel in the lower half), are
//! the interpreter's. `ecall` and `sret` are stubs.
//!
//! The contexts that the TLB has for U-mode and for S-mode lie ready in the hart (`engine::layout::VIEWS`), so that a
//! change of mode is a copy; inline caches are emptied, as with every change of context.
//! Source: privileged specification, "Supervisor CSRs", "Trap Return", "SFENCE.VMA".

use super::Emitter;
use crate::asm::{Alu, Cond, RAX, RCX, RDX, Unary, W};
use crate::block::Planned;
use crate::block::native::csr_number;
use crate::block::registers::X0;
use crate::state::{self, part, word};
use pollux_isa::{Inst, Opcode as Op, csr};
use pollux_riscv::engine::layout::{self, sstatus};

impl Emitter<'_, '_> {
    /// A CSR instruction that is translated.
    pub(super) fn csr(&mut self, planned: &Planned) {
        let inst = planned.place.inst;
        match csr_number(inst) {
            csr::FFLAGS..=csr::FCSR => return self.float_csr(planned),
            csr::TIME => return self.read_time(planned),
            _ => {}
        }
        self.asm.cmp_byte(word(state::SUPERVISOR), 0);
        self.slow_if(Cond::E);
        match csr_number(inst) {
            csr::SSTATUS => self.sstatus(inst),
            csr::SSCRATCH => self.plain(inst, layout::SSCRATCH),
            csr::SEPC => self.plain(inst, layout::SEPC),
            csr::SCAUSE => self.plain(inst, layout::SCAUSE),
            _ => self.plain(inst, layout::STVAL),
        }
        self.end_fast_path(planned, false);
        // The interpreter may turn floating point off.
        self.float_checked = false;
    }

    /// A register that holds what it is given.
    fn plain(&mut self, inst: Inst, offset: usize) {
        self.asm.load(W::Q, RAX, part(offset));
        if inst.opcode == Op::Csrrw {
            self.copy(inst.rs1, RCX);
            if offset == layout::SEPC {
                self.asm.alu_imm(Alu::And, W::Q, RCX, -2);
            }
            self.asm.store(W::Q, part(offset), RCX);
        }
        self.put(inst.rd, RAX);
    }

    /// `sstatus`: rcx becomes the bits that change, which must be harmless.
    fn sstatus(&mut self, inst: Inst) {
        let immediate = matches!(inst.opcode, Op::Csrrwi | Op::Csrrsi | Op::Csrrci);
        let swaps = matches!(inst.opcode, Op::Csrrw | Op::Csrrwi);
        self.asm.load(W::Q, RAX, part(layout::MSTATUS));
        if swaps || inst.rs1 != X0 {
            if immediate {
                self.asm.mov_imm(RCX, u64::from(inst.rs1));
            } else {
                self.copy(inst.rs1, RCX);
            }
            match inst.opcode {
                Op::Csrrw | Op::Csrrwi => self.asm.alu(Alu::Xor, W::Q, RCX, RAX),
                Op::Csrrs | Op::Csrrsi => {
                    self.asm.mov(RDX, RAX);
                    self.asm.unary(Unary::Not, W::Q, RDX);
                    self.asm.alu(Alu::And, W::Q, RCX, RDX);
                }
                _ => self.asm.alu(Alu::And, W::Q, RCX, RAX),
            }
            self.asm.alu_imm(Alu::And, W::Q, RCX, sstatus::WRITABLE as i32);
            self.change_sstatus();
        }
        if inst.rd != X0 {
            self.read_sstatus(inst.rd);
        }
    }

    /// `mstatus` ^= rcx, if that lets no interrupt in, and translation depends on no more than mode and SUM.
    fn change_sstatus(&mut self) {
        self.asm.mov(RDX, RCX);
        self.asm.alu(Alu::Or, W::D, RDX, RAX);
        self.asm.alu_imm(Alu::And, W::D, RDX, sstatus::UNUSUAL as i32);
        self.slow_if(Cond::Ne);
        // An interrupt that is pending and enabled may become due: the machine takes it.
        self.asm.load(W::Q, RDX, part(layout::MIP));
        self.asm.alu(Alu::Or, W::Q, RDX, word(state::LINES));
        self.asm.alu(Alu::And, W::Q, RDX, part(layout::MIE));
        self.slow_if(Cond::Ne);
        self.asm.mov(RDX, RAX);
        self.asm.alu(Alu::Xor, W::Q, RDX, RCX);
        self.asm.store(W::Q, part(layout::MSTATUS), RDX);
        self.asm.alu_imm(Alu::And, W::D, RCX, (sstatus::FS | sstatus::SUM) as i32);
        let same = self.asm.jcc(Cond::E as u8);
        self.asm.call(self.target.stubs.status_changed);
        self.asm.bind_here(same);
    }

    /// `sfence.vma`, for which there is nothing to do.
    pub(super) fn fence_translations(&mut self, planned: &Planned) {
        self.asm.cmp_byte(word(state::SUPERVISOR), 0);
        self.slow_if(Cond::E);
        self.asm.load(W::D, RAX, part(layout::MSTATUS));
        self.asm.alu_imm(Alu::And, W::D, RAX, sstatus::TVM as i32);
        self.slow_if(Cond::Ne);
        self.end_fast_path(planned, false);
        self.float_checked = false;
    }

    /// rd = what `sstatus` read as when `mstatus` was rax.
    fn read_sstatus(&mut self, rd: u8) {
        self.asm.mov_imm(RDX, sstatus::READABLE);
        self.asm.alu(Alu::And, W::Q, RDX, RAX);
        self.asm.alu_imm(Alu::And, W::D, RAX, sstatus::FS as i32);
        self.asm.alu_imm(Alu::Cmp, W::D, RAX, sstatus::FS as i32);
        let clean = self.asm.jcc(Cond::Ne as u8);
        self.asm.mov_imm(RCX, sstatus::SD);
        self.asm.alu(Alu::Or, W::Q, RDX, RCX);
        self.asm.bind_here(clean);
        self.put(rd, RDX);
    }
}
