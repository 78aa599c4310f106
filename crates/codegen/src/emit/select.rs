//! What is emitted for several instructions at once: pairs that are one operation, and branches over an instruction or two.
//! What a compiler for RISC-V says with a branch over a move, one for the host says with a conditional move (if-conversion):
//! nobody has to predict the branch.
//!
//! The block takes the instructions that may be skipped off the budget along with its others, and gives them back if
//! they were. They only compute one register, so that nothing can look in between.

use super::Emitter;
use crate::asm::{R15, RAX, RCX, RDX, Shift, W, at};
use crate::block::Work;
use crate::block::fuse::Fused;
use crate::block::registers::read;
use pollux_isa::Inst;

impl Emitter<'_, '_> {
    /// A branch, and so many instructions that it may skip, which compute the register that the first one does.
    pub(super) fn select(&mut self, branch: Inst, first: Inst, skipped: &[Work], instructions: u8) {
        let rd = first.rd;
        self.addend_in_rax = None;
        if read(first).contains(&Some(rd)) {
            self.copy(rd, RDX);
        }
        self.aside = Some((rd, RDX));
        for work in skipped {
            match work {
                Work::One(planned) => self.instruction(planned),
                Work::Fused(fused) => self.fused_pair(*fused),
                Work::Select { .. } => debug_assert!(false, "a branch is not skipped"),
            }
        }
        self.aside = None;
        let taken = self.compare(branch);
        self.asm.lea(RCX, at(R15, i32::from(instructions)));
        self.asm.cmov(taken, W::Q, R15, RCX);
        self.put_if(taken ^ 1, rd, RDX);
    }

    /// Two instructions that are one operation.
    pub(super) fn fused_pair(&mut self, fused: Fused) {
        self.addend_in_rax = None;
        match fused {
            Fused::Constant { rd, value } => {
                let to = self.place_for(rd, false, RAX);
                self.asm.mov_imm(to, value as u64);
                self.put(rd, to);
            }
            Fused::Address { rd, offset } => {
                let to = self.place_for(rd, false, RAX);
                self.address(to, offset);
                self.put(rd, to);
            }
            Fused::Extend { rd, rs1, bytes, signed, up } => {
                let to = self.place_for(rd, false, RAX);
                let from = self.operand(rs1);
                self.asm.load_extended(bytes, signed, to, from);
                match (up, signed) {
                    (0, _) => {}
                    (1.., _) => self.asm.shift_imm(Shift::Shl, W::Q, to, up as u8),
                    (_, true) => self.asm.shift_imm(Shift::Sar, W::Q, to, up.unsigned_abs() as u8),
                    (_, false) => self.asm.shift_imm(Shift::Shr, W::Q, to, up.unsigned_abs() as u8),
                }
                self.put(rd, to);
            }
        }
    }
}
