//! `fflags`, `frm` and `fcsr`: what compilers emit around every quiet comparison, square root and emulated operation.
//!
//! Translated only while floating point is on, dirty and rounding to nearest, so that `frm` reads as zero, and no write
//! changes it. The exceptions are those that the hart has, and those that MXCSR has noted since.
//! Source: unprivileged specification, "Floating-Point Control and Status Register".

use crate::asm::{Alu, Cond, Fixup, RAX, RCX, W, indexed};
use crate::region::{Place, Translator};
use crate::state::{self, part, word};
use alloc::vec::Vec;
use pollux_isa::{Inst, Opcode as Op, csr};
use pollux_machine::engine::layout;

/// The bits of `fflags`.
const FLAGS: i32 = 31;
/// Those of `frm`, where it is alone and in `fcsr`.
const MODE: i32 = 7;
const MODE_IN_FCSR: i32 = MODE << 5;

/// Whether an instruction names one of the three registers, and does not choose another rounding mode for certain.
pub(crate) fn is_native(inst: Inst) -> bool {
    match inst.imm as u16 & 0xfff {
        csr::FFLAGS | csr::FCSR => true,
        csr::FRM => {
            let chooses = matches!(inst.opcode, Op::Csrrwi | Op::Csrrsi) && i32::from(inst.rs1) & MODE != 0;
            !chooses
        }
        _ => false,
    }
}

impl Translator<'_> {
    /// Translates an instruction for which [`is_native`] holds.
    pub(crate) fn float_csr(&mut self, place: Place, unexecuted: u16) {
        let inst = place.inst;
        let mut slow = self.check_float();
        self.keep_rounding(inst, &mut slow);
        if inst.imm as u16 & 0xfff == csr::FRM {
            self.asm.mov_imm(RAX, 0);
        } else {
            self.exceptions(inst);
        }
        self.put(inst.rd, RAX);
        self.cold_step(slow, place, unexecuted, true);
        self.float_checked = true;
    }

    /// The jump to take if the instruction would choose another rounding mode.
    fn keep_rounding(&mut self, inst: Inst, slow: &mut Vec<Fixup>) {
        let bits = match inst.imm as u16 & 0xfff {
            csr::FRM => MODE,
            csr::FCSR => MODE_IN_FCSR,
            _ => return,
        };
        // Clearing bits of zero is no change, and neither is setting those of x0.
        if inst.opcode == Op::Csrrw || (inst.opcode == Op::Csrrs && inst.rs1 != 0) {
            self.copy(inst.rs1, RCX);
            self.asm.alu_imm(Alu::And, W::D, RCX, bits);
            slow.push(self.asm.jcc(Cond::Ne as u8));
        }
    }

    /// rax = the exceptions before the instruction, which may change them.
    fn exceptions(&mut self, inst: Inst) {
        let immediate = matches!(inst.opcode, Op::Csrrwi | Op::Csrrsi | Op::Csrrci);
        let swaps = matches!(inst.opcode, Op::Csrrw | Op::Csrrwi);
        let writes = swaps || inst.rs1 != 0;
        if !swaps || inst.rd != 0 {
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
