//! Guest integer registers as operands, and the moves that an allocation needs.
//!
//! **x0 is kept zero here.** No host register holds it ([`Allocation::of`]), so that it is read from its word in the hart,
//! which is zero; and integer registers are written by [`Emitter::put`], which writes nothing for x0, by way of
//! [`Emitter::place_for`], which names a scratch register for it, or by [`Emitter::in_place`], which is not for x0. Whoever
//! asks elsewhere whether a register is [`X0`] only saves instructions.

use super::Emitter;
use crate::asm::{Asm, RAX, Reg, Rm, W};
use crate::block::registers::{Allocation, X0};
use crate::state::x;

impl Emitter<'_, '_> {
    /// The host register that holds a guest register, if one does.
    pub(crate) fn home(&self, guest: u8) -> Option<Reg> {
        match self.aside {
            Some((register, reg)) if register == guest => Some(reg),
            _ => self.block.allocation.of(guest),
        }
    }

    /// A guest register as an operand.
    pub(crate) fn operand(&self, guest: u8) -> Rm {
        self.home(guest).map_or(Rm::M(x(guest)), Rm::R)
    }

    /// A guest register that an instruction reads and writes, as an operand.
    pub(crate) fn in_place(&self, guest: u8) -> Rm {
        debug_assert!(guest != X0, "x0 is written");
        self.operand(guest)
    }

    /// A host register that holds a guest register: its own, or `scratch`, loaded.
    pub(crate) fn get(&mut self, guest: u8, scratch: Reg) -> Reg {
        match self.home(guest) {
            Some(reg) => reg,
            None => {
                self.copy(guest, scratch);
                scratch
            }
        }
    }

    /// Copies a guest register into `to`.
    pub(crate) fn copy(&mut self, guest: u8, to: Reg) {
        match self.home(guest) {
            Some(reg) => self.asm.mov(to, reg),
            None if guest == X0 => self.asm.mov_imm(to, 0),
            None => self.asm.load(W::Q, to, x(guest)),
        }
    }

    /// Where to compute a guest register: its own host register, or `scratch` if it has none or is `in_use` by an
    /// operand that is read later.
    pub(crate) fn place_for(&self, guest: u8, in_use: bool, scratch: Reg) -> Reg {
        if in_use { scratch } else { self.home(guest).unwrap_or(scratch) }
    }

    /// Writes a guest register from a host register.
    pub(crate) fn put(&mut self, guest: u8, from: Reg) {
        match self.home(guest) {
            Some(reg) => self.asm.mov(reg, from),
            None if guest == X0 => {}
            None => self.asm.store(W::Q, x(guest), from),
        }
    }

    /// Writes a guest register from a host register, if flags say so.
    pub(crate) fn put_if(&mut self, cond: u8, guest: u8, from: Reg) {
        match self.home(guest) {
            Some(reg) => self.asm.cmov(cond, W::Q, reg, from),
            None => {
                self.copy(guest, RAX);
                self.asm.cmov(cond, W::Q, RAX, from);
                self.put(guest, RAX);
            }
        }
    }

    /// The address of something at an offset from this page's beginning.
    pub(crate) fn address(&mut self, to: Reg, offset: i32) {
        super::exits::address(self.asm, to, offset);
    }
}

/// From how registers are between blocks to how they are in this one. Leaves flags and all other registers alone.
pub(crate) fn assign(asm: &mut Asm, allocation: &Allocation) {
    for assignment in &allocation.assignments {
        asm.store(W::Q, x(assignment.spilled), assignment.reg);
        asm.load(W::Q, assignment.reg, x(assignment.guest));
    }
}

/// And back: what the block has written is written back, and what it has spilled filled.
pub(crate) fn restore(asm: &mut Asm, allocation: &Allocation) {
    for assignment in &allocation.assignments {
        if assignment.is_written {
            asm.store(W::Q, x(assignment.guest), assignment.reg);
        }
        asm.load(W::Q, assignment.reg, x(assignment.spilled));
    }
}

/// After an interpreted step, which has been taken as between blocks.
pub(crate) fn assign_again(asm: &mut Asm, allocation: &Allocation) {
    for assignment in &allocation.assignments {
        // The step has stored what is spilled.
        asm.load(W::Q, assignment.reg, x(assignment.guest));
    }
}
