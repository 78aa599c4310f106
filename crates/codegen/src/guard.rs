//! Branches over an instruction or two. What a compiler for RISC-V says with a branch over a move, one for the host
//! says with a conditional move: nobody has to predict the branch.
//!
//! The block takes the instructions that may be skipped off the budget along with its others, and gives them back if
//! they were. They only compute one register, so that nothing can look in between.

use crate::asm::{R15, RAX, RCX, RDX, W, at};
use crate::homes::read;
use crate::region::{Place, Translator};
use crate::state;
use pollux_isa::{Inst, Opcode as Op};

/// Instructions that are worth computing in vain.
pub(crate) const SKIPPED_MAX: usize = 3;

/// Whether an instruction is a conditional branch.
pub(crate) fn is_branch(opcode: Op) -> bool {
    matches!(opcode, Op::Beq | Op::Bne | Op::Blt | Op::Bge | Op::Bltu | Op::Bgeu)
}

/// Whether an instruction that computes a register takes the host an instruction or two, and leaves rcx and rdx alone.
pub(crate) fn is_cheap(inst: Inst) -> bool {
    let shifts_by_register =
        matches!(inst.opcode, Op::Sll | Op::Srl | Op::Sra | Op::Sllw | Op::Srlw | Op::Sraw);
    let in_ranges =
        (Op::Slti..=Op::And).contains(&inst.opcode) || (Op::Addiw..=Op::Sraw).contains(&inst.opcode);
    (in_ranges || matches!(inst.opcode, Op::Lui | Op::Addi)) && !shifts_by_register && inst.rd != 0
}

impl Translator<'_> {
    /// A branch, and the instructions that it may skip, which compute one register.
    pub(crate) fn guard(&mut self, branch: Place, skipped: &[Place]) {
        let Some(first) = skipped.first() else { return };
        let rd = first.inst.rd;
        self.addend_in_rax = None;
        if read(first.inst).contains(&Some(rd)) {
            self.copy(rd, RDX);
        }
        self.homes.set_aside(Some((rd, RDX)));
        let mut rest = skipped;
        while let [one, others @ ..] = rest {
            rest = match others {
                [other, others @ ..] if self.fuse(*one, *other) => others,
                _ => {
                    self.instruction(*one, 0);
                    others
                }
            };
        }
        self.homes.set_aside(None);
        let taken = self.compare(branch.inst);
        self.asm.lea(RCX, at(R15, skipped.len() as i32));
        self.asm.cmov(taken, W::Q, R15, RCX);
        let stays = taken ^ 1;
        if let Some(reg) = self.homes.of(rd) {
            self.asm.cmov(stays, W::Q, reg, RDX);
        } else {
            self.asm.load(W::Q, RAX, state::x(rd));
            self.asm.cmov(stays, W::Q, RAX, RDX);
            self.asm.store(W::Q, state::x(rd), RAX);
        }
    }
}
