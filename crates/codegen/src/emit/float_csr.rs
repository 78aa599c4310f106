//! `fflags`, `frm` and `fcsr`: what compilers emit around every quiet comparison, square root and emulated operation.
//!
//! Translated only while floating point is on, dirty and rounding to nearest, so that `frm` reads as zero, and no write
//! changes it. The exceptions are those that the hart has, and those that MXCSR has noted since.
//! Source: unprivileged specification, "Floating-Point Control and Status Register".

use super::Emitter;
use crate::asm::{Alu, Cond, RAX, RCX, W, indexed};
use crate::block::Planned;
use crate::block::native::{FRM_BITS, csr_number};
use crate::block::registers::X0;
use crate::state::{self, part, word};
use pollux_isa::{Inst, Opcode as Op, csr};
use pollux_riscv::engine::layout;

/// The bits of `fflags`.
const FLAGS: i32 = 31;
/// Where `frm` begins in `fcsr`.
const FRM_IN_FCSR: u8 = 5;

impl Emitter<'_, '_> {
    /// Emits a CSR instruction on one of the three.
    pub(super) fn float_csr(&mut self, planned: &Planned) {
        let inst = planned.place.inst;
        self.check_float();
        self.keep_rounding(inst);
        if csr_number(inst) == csr::FRM {
            self.asm.mov_imm(RAX, 0);
        } else {
            self.exceptions(inst);
        }
        self.put(inst.rd, RAX);
        self.end_fast_path(planned, true);
        self.float_checked = true;
    }

    /// Takes the slow path if the instruction would choose another rounding mode.
    fn keep_rounding(&mut self, inst: Inst) {
        let bits = match csr_number(inst) {
            csr::FRM => FRM_BITS,
            csr::FCSR => FRM_BITS << FRM_IN_FCSR,
            _ => return,
        };
        // Clearing bits of zero is no change, and neither is setting those of x0.
        if inst.opcode == Op::Csrrw || (inst.opcode == Op::Csrrs && inst.rs1 != X0) {
            self.copy(inst.rs1, RCX);
            self.asm.alu_imm(Alu::And, W::D, RCX, bits);
            self.slow_if(Cond::Ne);
        }
    }

    /// rax = the exceptions before the instruction, which may change them.
    fn exceptions(&mut self, inst: Inst) {
        let immediate = matches!(inst.opcode, Op::Csrrwi | Op::Csrrsi | Op::Csrrci);
        let swaps = matches!(inst.opcode, Op::Csrrw | Op::Csrrwi);
        let writes = swaps || inst.rs1 != X0;
        if !swaps || inst.rd != X0 {
            self.asm.mxcsr(true, word(state::MXCSR));
            self.asm.load(W::D, RAX, word(state::MXCSR));
            self.asm.alu_imm(Alu::And, W::D, RAX, state::MXCSR_EXCEPTIONS as i32);
            self.asm.load_extended(1, false, RAX, indexed(word(state::FFLAGS_OF), RAX, 0).into());
            self.asm.alu(Alu::Or, W::Q, RAX, part(layout::FFLAGS));
        }
        if !writes {
            return;
        }
        if immediate {
            self.asm.mov_imm(RCX, u64::from(inst.rs1));
        } else {
            self.copy(inst.rs1, RCX);
            self.asm.alu_imm(Alu::And, W::D, RCX, FLAGS);
        }
        match inst.opcode {
            Op::Csrrs | Op::Csrrsi => self.asm.alu(Alu::Or, W::D, RCX, RAX),
            Op::Csrrc | Op::Csrrci => {
                // Of those that are there, the others.
                self.asm.alu_imm(Alu::Xor, W::D, RCX, FLAGS);
                self.asm.alu(Alu::And, W::D, RCX, RAX);
            }
            _ => {}
        }
        self.asm.store(W::Q, part(layout::FFLAGS), RCX);
        self.asm.mxcsr(false, word(state::CLEAN));
    }
}
