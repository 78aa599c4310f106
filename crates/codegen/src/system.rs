//! What kernels execute at every system call and around every lock: `ecall`, `sret`, `sfence.vma`, and the CSR
//! instructions on `sscratch`, `sepc`, `scause`, `stval` and `sstatus` (see `float_csr` for
//! `fcsr`, `clock` for `time`). All others, and these where anything is unusual
//! (an interrupt that may become due, MXR, a kernel in the lower half), are the interpreter's.
//!
//! The contexts that the TLB has for U-mode and for S-mode lie ready in the hart (`engine::layout::VIEWS`), so that a
//! change of mode is a copy; what is remembered of pages goes, as with every change of context.
//! Source: privileged specification, "Supervisor CSRs", "Trap Return", "SFENCE.VMA".

use crate::asm::{Alu, Asm, Cond, Fixup, RAX, RCX, RDX, RSP, Shift, W, Xmm};
use crate::float_csr;
use crate::region::{Place, Translator};
use crate::state::{self, part, word};
use crate::thunks::lookup;
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
            csr::FFLAGS..=csr::FCSR => float_csr::is_native(inst),
            csr::TIME => reads,
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
        if float_csr::is_native(inst) {
            self.float_csr(place, unexecuted);
            return true;
        }
        if inst.imm as u16 & 0xfff == csr::TIME {
            self.read_time(place, unexecuted);
            return true;
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

    /// `mstatus` ^= rcx, if that lets no interrupt in, and translation depends on no more than mode and SUM.
    fn change_sstatus(&mut self, slow: &mut Vec<Fixup>) {
        self.asm.mov(RDX, RCX);
        self.asm.alu(Alu::Or, W::D, RDX, RAX);
        self.asm.alu_imm(Alu::And, W::D, RDX, sstatus::UNUSUAL as i32);
        slow.push(self.asm.jcc(Cond::Ne as u8));
        // An interrupt that is pending and enabled may become due: the machine takes it.
        self.asm.load(W::Q, RDX, part(layout::MIP));
        self.asm.alu(Alu::Or, W::Q, RDX, word(state::LINES));
        self.asm.alu(Alu::And, W::Q, RDX, part(layout::MIE));
        slow.push(self.asm.jcc(Cond::Ne as u8));
        self.asm.mov(RDX, RAX);
        self.asm.alu(Alu::Xor, W::Q, RDX, RCX);
        self.asm.store(W::Q, part(layout::MSTATUS), RDX);
        self.asm.alu_imm(Alu::And, W::D, RCX, (sstatus::FS | sstatus::SUM) as i32);
        let same = self.asm.jcc(Cond::E as u8);
        let call = self.asm.call();
        self.asm.bind(call, self.thunks.status_changed);
        self.asm.bind_here(same);
    }

    /// `sfence.vma`, for which there is nothing to do; false if the instruction is another one.
    pub(crate) fn fence_translations(&mut self, place: Place, unexecuted: u16) -> bool {
        if place.inst.opcode != Op::SfenceVma {
            return false;
        }
        self.asm.cmp_byte(word(state::SUPERVISOR), 0);
        let mut slow = alloc::vec![self.asm.jcc(Cond::E as u8)];
        self.asm.load(W::D, RAX, part(layout::MSTATUS));
        self.asm.alu_imm(Alu::And, W::D, RAX, sstatus::TVM as i32);
        slow.push(self.asm.jcc(Cond::Ne as u8));
        self.cold_step(slow, place, unexecuted, false);
        self.float_checked = false;
        true
    }

    /// `ecall` or `sret` at the end of a block, as far as the thunks do it.
    pub(crate) fn trap(&mut self, opcode: Op, offset: u16) {
        let thunk = match opcode {
            Op::Ecall => self.thunks.ecall,
            Op::Sret => self.thunks.sret,
            _ => return,
        };
        self.address(RAX, i32::from(offset));
        let call = self.asm.call();
        self.asm.bind(call, thunk);
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

/// Whether an instruction may change which pages may be accessed, if it is not a step.
pub(crate) fn may_change_rights(inst: Inst) -> bool {
    let reads = matches!(inst.opcode, Op::Csrrs | Op::Csrrc | Op::Csrrsi | Op::Csrrci) && inst.rs1 == 0;
    Translator::is_native_csr(inst) && inst.imm as u16 & 0xfff == csr::SSTATUS && !reads
}

const SCRATCH: Xmm = Xmm(0);

/// Forgets what is remembered of pages for registers.
fn forget_pages(asm: &mut Asm) {
    asm.mov_imm(RCX, state::NO_TAG);
    asm.store(W::Q, word(state::LOAD_TAGS), RCX);
    asm.store(W::Q, word(state::LOAD_TAGS + 1), RCX);
    asm.load_vector(SCRATCH, word(state::LOAD_TAGS));
    for tag in (state::LOAD_TAGS + 2..state::TAGS_END).step_by(2) {
        asm.store_vector(word(tag), SCRATCH);
    }
}

/// Copies one of the hart's views to where the contexts in use are.
fn copy_view(asm: &mut Asm, view: usize, to: &[usize]) {
    for half in [0, layout::VIEW_BYTES / 2] {
        asm.load_vector(SCRATCH, part(layout::VIEWS + view * layout::VIEW_BYTES + half));
        to.iter().for_each(|to| asm.store_vector(part(to + half), SCRATCH));
    }
}

/// Goes on in a mode, 0 or 1, whose code lies in the half of the address space with that number.
fn change_mode(asm: &mut Asm, mode: u8) {
    let index = usize::from(mode);
    asm.mov_imm(RCX, u64::from(mode));
    asm.store_sized(1, part(layout::MODE), RCX);
    asm.store(W::Q, word(state::SUPERVISOR), RCX);
    asm.load(W::Q, RCX, word(state::ZERO_IN_MODE + index));
    asm.store(W::Q, word(state::ZERO), RCX);
    asm.load(W::Q, RCX, word(state::TABLE_IN_MODE + index));
    asm.store(W::Q, word(state::TABLE), RCX);
    asm.load(W::Q, RCX, part(layout::VIEWS + index * layout::VIEW_BYTES + 8 * index));
    asm.store(W::Q, word(state::TABLE_CONTEXT), RCX);
    copy_view(asm, index, &[layout::FETCH_CONTEXTS, layout::DATA_CONTEXTS]);
    forget_pages(asm);
}

/// Fails unless the bits of rdx are all zero. Uses rcx.
fn demand_zero(asm: &mut Asm, bits: u64, failures: &mut Vec<Fixup>) {
    asm.mov32(RCX, RDX);
    asm.alu_imm(Alu::And, W::D, RCX, bits as i32);
    failures.push(asm.jcc(Cond::Ne as u8));
}

/// [`crate::Thunks::ecall`]: U-mode calls a kernel in the upper half.
pub(crate) fn ecall(asm: &mut Asm, find: u32) -> u32 {
    const FROM_USER: i32 = 8;
    let place = asm.here();
    asm.cmp_byte(part(layout::MODE), 0);
    let mut failures = alloc::vec![asm.jcc(Cond::Ne as u8)];
    asm.load(W::D, RDX, part(layout::MEDELEG));
    asm.alu_imm(Alu::And, W::D, RDX, 1 << FROM_USER);
    failures.push(asm.jcc(Cond::E as u8));
    asm.alu_imm(Alu::Cmp, W::Q, part(layout::STVEC), 0);
    failures.push(asm.jcc(Cond::Ge as u8));
    asm.load(W::Q, RDX, part(layout::MSTATUS));
    demand_zero(asm, sstatus::UNUSUAL | sstatus::SUM, &mut failures);
    asm.store(W::Q, part(layout::SEPC), RAX);
    asm.store_imm(W::Q, part(layout::SCAUSE), FROM_USER);
    asm.store_imm(W::Q, part(layout::STVAL), 0);
    asm.store_imm(W::Q, part(layout::RESERVATION), 0);
    asm.alu_imm(Alu::Add, W::Q, part(layout::TRAPPED), 1);
    // SPIE is what SIE was.
    asm.mov32(RCX, RDX);
    asm.alu_imm(Alu::And, W::D, RCX, sstatus::SIE as i32);
    asm.shift_imm(Shift::Shl, W::D, RCX, SIE_TO_SPIE);
    asm.alu_imm(Alu::And, W::Q, RDX, !((sstatus::SIE | sstatus::SPIE | sstatus::SPP) as i32));
    asm.alu(Alu::Or, W::Q, RDX, RCX);
    asm.store(W::Q, part(layout::MSTATUS), RDX);
    change_mode(asm, 1);
    asm.alu_imm(Alu::Add, W::Q, RSP, 8);
    asm.load(W::Q, RAX, part(layout::STVEC));
    asm.alu_imm(Alu::And, W::Q, RAX, -4);
    lookup(asm, find);
    failures.into_iter().for_each(|failure| asm.bind_here(failure));
    asm.ret();
    place
}

const SIE_TO_SPIE: u8 = (sstatus::SPIE / sstatus::SIE).trailing_zeros() as u8;

/// [`crate::Thunks::sret`]: S-mode returns to itself or to U-mode, and no interrupt may become due.
pub(crate) fn sret(asm: &mut Asm, find: u32) -> u32 {
    let place = asm.here();
    asm.cmp_byte(part(layout::MODE), 1);
    let mut failures = alloc::vec![asm.jcc(Cond::Ne as u8)];
    asm.load(W::Q, RDX, part(layout::MIP));
    asm.alu(Alu::Or, W::Q, RDX, word(state::LINES));
    asm.alu(Alu::And, W::Q, RDX, part(layout::MIE));
    failures.push(asm.jcc(Cond::Ne as u8));
    asm.load(W::Q, RDX, part(layout::MSTATUS));
    demand_zero(asm, sstatus::UNUSUAL | sstatus::TSR, &mut failures);
    asm.mov32(RCX, RDX);
    asm.alu_imm(Alu::And, W::D, RCX, sstatus::SPP as i32);
    let to_user = asm.jcc(Cond::E as u8);
    return_status(asm);
    asm.alu_imm(Alu::Add, W::Q, RSP, 8);
    asm.load(W::Q, RAX, part(layout::SEPC));
    lookup(asm, find);

    asm.bind_here(to_user);
    asm.alu_imm(Alu::Cmp, W::Q, part(layout::SEPC), 0);
    failures.push(asm.jcc(Cond::L as u8));
    return_status(asm);
    change_mode(asm, 0);
    asm.alu_imm(Alu::Add, W::Q, RSP, 8);
    asm.load(W::Q, RAX, part(layout::SEPC));
    lookup(asm, find);
    failures.into_iter().for_each(|failure| asm.bind_here(failure));
    asm.ret();
    place
}

/// `mstatus`, in rdx, becomes what it is after `sret`.
fn return_status(asm: &mut Asm) {
    asm.mov32(RCX, RDX);
    asm.alu_imm(Alu::And, W::D, RCX, sstatus::SPIE as i32);
    asm.shift_imm(Shift::Shr, W::D, RCX, SIE_TO_SPIE);
    asm.alu_imm(Alu::And, W::Q, RDX, !((sstatus::SIE | sstatus::SPP) as i32));
    asm.alu_imm(Alu::Or, W::Q, RDX, sstatus::SPIE as i32);
    asm.alu(Alu::Or, W::Q, RDX, RCX);
    asm.store(W::Q, part(layout::MSTATUS), RDX);
    asm.store_imm(W::Q, part(layout::RESERVATION), 0);
}

/// [`crate::Thunks::status_changed`].
pub(crate) fn status_changed(asm: &mut Asm) -> u32 {
    let place = asm.here();
    // Floating point is plain if it is dirty and rounds to nearest even.
    asm.load(W::Q, RDX, part(layout::MSTATUS));
    asm.alu_imm(Alu::And, W::D, RDX, sstatus::FS as i32);
    asm.alu_imm(Alu::Xor, W::D, RDX, sstatus::FS as i32);
    asm.alu(Alu::Or, W::Q, RDX, part(layout::FRM));
    asm.alu_imm(Alu::Cmp, W::Q, RDX, 1);
    asm.set(Cond::B, RDX);
    asm.store(W::Q, word(state::FLOAT), RDX);
    asm.alu_imm(Alu::And, W::D, RCX, sstatus::SUM as i32);
    let same = asm.jcc(Cond::E as u8);
    // It means something in S-mode alone.
    asm.cmp_byte(part(layout::MODE), 1);
    let elsewhere = asm.jcc(Cond::Ne as u8);
    asm.load(W::Q, RDX, part(layout::MSTATUS));
    asm.alu_imm(Alu::And, W::D, RDX, sstatus::SUM as i32);
    let cleared = asm.jcc(Cond::E as u8);
    // What was remembered without SUM holds with it.
    copy_view(asm, 2, &[layout::DATA_CONTEXTS]);
    asm.ret();
    asm.bind_here(cleared);
    copy_view(asm, 1, &[layout::DATA_CONTEXTS]);
    forget_pages(asm);
    asm.bind_here(same);
    asm.bind_here(elsewhere);
    asm.ret();
    place
}
