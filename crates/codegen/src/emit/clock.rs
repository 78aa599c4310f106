//! `rdtime`: virtual time is a line over the machine's steps, and translated code knows how many have been taken.
//!
//! Source: unprivileged specification, "Zicntr"; `pollux_vocab::Clock`.

use super::Emitter;
use crate::asm::{Alu, Cond, R15, RAX, RCX, RDX, Shift, Unary, W, indexed};
use crate::block::Planned;
use crate::state::{self, part, word};
use pollux_riscv::engine::layout;

impl Emitter<'_, '_> {
    /// Translates a read of `time`.
    pub(super) fn read_time(&mut self, planned: &Planned) {
        self.asm.load_extended(1, false, RAX, part(layout::MODE).into());
        self.asm.alu_imm(Alu::Cmp, W::Q, indexed(word(state::TIME_IN_MODE), RAX, 3), 0);
        self.slow_if(Cond::E);
        self.asm.load(W::Q, RAX, word(state::TIME_STEPS));
        self.asm.alu(Alu::Sub, W::Q, RAX, R15);
        self.asm.alu_imm(Alu::Sub, W::Q, RAX, i32::from(planned.unexecuted));
        self.asm.unary(Unary::Mul, W::Q, word(state::TIME_RATE));
        self.asm.mov(RCX, RDX);
        self.asm.shift_imm(Shift::Shr, W::Q, RCX, 32);
        self.slow_if(Cond::Ne);
        self.asm.shift_imm(Shift::Shr, W::Q, RAX, 32);
        self.asm.shift_imm(Shift::Shl, W::Q, RDX, 32);
        self.asm.alu(Alu::Or, W::Q, RAX, RDX);
        self.asm.alu(Alu::Add, W::Q, RAX, word(state::TIME_BASE));
        self.slow_if(Cond::B);
        self.asm.mov_imm(RDX, 0);
        self.asm.mov_imm(RCX, layout::NS_PER_TICK);
        self.asm.unary(Unary::Div, W::Q, RCX);
        self.put(planned.place.inst.rd, RAX);
        self.end_fast_path(planned, false);
        self.float_checked = false;
    }
}
