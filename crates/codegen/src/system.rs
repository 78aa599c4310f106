//! The CSR instructions that kernels execute at every trap and around every lock: on `sscratch`, `sepc`, `scause`,
//! `stval` and `sstatus`. All others, and these where they would do anything but move bits, are the interpreter's.

use crate::asm::{Alu, Cond, Fixup, RAX, RCX, RDX, W};
use crate::region::{Place, Translator};
use crate::state::{self, part, word};
use alloc::vec::Vec;
use pollux_isa::{Inst, Opcode as Op, csr};
use pollux_machine::engine::layout::{self, sstatus};

impl Translator<'_> {
    /// Whether a CSR instruction is translated.
    pub(crate) fn is_native_csr(inst: Inst) -> bool {
        let number = inst.imm as u16 & 0xfff;
        let immediate = matches!(inst.opcode, Op::Csrrwi | Op::Csrrsi | Op::Csrrci);
        let reads = matches!(inst.opcode, Op::Csrrs | Op::Csrrc | Op::Csrrsi | Op::Csrrci) && inst.rs1 == 0;
        match number {
            csr::SSTATUS => true,
            csr::SSCRATCH | csr::SEPC | csr::SCAUSE | csr::STVAL => {
                reads || (inst.opcode == Op::Csrrw && !immediate)
            }
            _ => false,
        }
    }

    /// Translates a CSR instruction for which [`Translator::is_native_csr`] holds; false for all others.
    pub(crate) fn csr(&mut self, place: Place, unexecuted: u16) -> bool {
        let inst = place.inst;
        let is_csr =
            matches!(inst.opcode, Op::Csrrw | Op::Csrrs | Op::Csrrc | Op::Csrrwi | Op::Csrrsi | Op::Csrrci);
        if !is_csr || !Self::is_native_csr(inst) {
            return false;
        }
        self.asm.cmp_byte(word(state::SUPERVISOR), 0);
        let mut slow = alloc::vec![self.asm.jcc(Cond::E as u8)];
        match inst.imm as u16 & 0xfff {
            csr::SSTATUS => self.sstatus(inst, &mut slow),
            csr::SSCRATCH => self.plain(inst, layout::SSCRATCH),
            csr::SEPC => self.plain(inst, layout::SEPC),
            csr::SCAUSE => self.plain(inst, layout::SCAUSE),
            _ => self.plain(inst, layout::STVAL),
        }
        self.cold_step(slow, place, unexecuted, false);
        // The interpreter may turn floating point off.
        self.float_checked = false;
        true
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
    fn sstatus(&mut self, inst: Inst, slow: &mut Vec<Fixup>) {
        let immediate = matches!(inst.opcode, Op::Csrrwi | Op::Csrrsi | Op::Csrrci);
        let swaps = matches!(inst.opcode, Op::Csrrw | Op::Csrrwi);
        self.asm.load(W::Q, RAX, part(layout::MSTATUS));
        if swaps || inst.rs1 != 0 {
            if immediate {
                self.asm.mov_imm(RCX, u64::from(inst.rs1));
            } else {
                self.copy(inst.rs1, RCX);
            }
            match inst.opcode {
                Op::Csrrw | Op::Csrrwi => self.asm.alu(Alu::Xor, W::Q, RCX, RAX),
                Op::Csrrs | Op::Csrrsi => {
                    self.asm.mov(RDX, RAX);
                    self.asm.unary(crate::asm::Unary::Not, W::Q, RDX);
                    self.asm.alu(Alu::And, W::Q, RCX, RDX);
                }
                _ => self.asm.alu(Alu::And, W::Q, RCX, RAX),
            }
            self.asm.alu_imm(Alu::And, W::Q, RCX, sstatus::WRITABLE as i32);
            self.change_sstatus(slow);
        }
        if inst.rd != 0 {
            self.read_sstatus(inst.rd);
        }
    }

    /// `mstatus` ^= rcx, if that changes neither translation nor floating point, and lets no interrupt in.
    fn change_sstatus(&mut self, slow: &mut Vec<Fixup>) {
        self.asm.mov(RDX, RCX);
        self.asm.alu_imm(Alu::And, W::D, RDX, !(sstatus::HARMLESS as i32));
        slow.push(self.asm.jcc(Cond::Ne as u8));
        // An interrupt that is pending and enabled may become due: the machine takes it.
        self.asm.load(W::Q, RDX, part(layout::MIP));
        self.asm.alu(Alu::Or, W::Q, RDX, word(state::LINES));
        self.asm.alu(Alu::And, W::Q, RDX, part(layout::MIE));
        slow.push(self.asm.jcc(Cond::Ne as u8));
        self.asm.mov(RDX, RAX);
        self.asm.alu(Alu::Xor, W::Q, RDX, RCX);
        self.asm.store(W::Q, part(layout::MSTATUS), RDX);
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
