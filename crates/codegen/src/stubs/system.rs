//! The stubs for system calls and returns from traps: what `ecall`, `sret` and a change of `sstatus` do beyond their own
//! registers.
//!
//! The contexts that the TLB has for U-mode and for S-mode lie ready in the hart (`engine::layout::VIEWS`), so that a
//! change of mode is a copy; inline caches are emptied, as with every change of context.
//! Source: privileged specification, "Trap Return", "Supervisor CSRs".

use super::lookup;
use crate::asm::{Alu, Asm, Cond, Fixup, RAX, RCX, RDX, RSP, Shift, W, Xmm};
use crate::state::{self, part, word};
use alloc::vec::Vec;
use pollux_riscv::engine::layout::{self, sstatus};

const SCRATCH: Xmm = Xmm(0);

/// Empties the inline caches.
fn empty_caches(asm: &mut Asm) {
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
    empty_caches(asm);
}

/// Fails unless the bits of rdx are all zero. Uses rcx.
fn demand_zero(asm: &mut Asm, bits: u64, failures: &mut Vec<Fixup>) {
    asm.mov32(RCX, RDX);
    asm.alu_imm(Alu::And, W::D, RCX, bits as i32);
    failures.push(asm.jcc(Cond::Ne as u8));
}

/// [`super::Stubs::ecall`]: U-mode calls a kernel in the upper half.
pub(super) fn ecall(asm: &mut Asm, find: u32) -> u32 {
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

/// [`super::Stubs::sret`]: S-mode returns to itself or to U-mode, and no interrupt may become due.
pub(super) fn sret(asm: &mut Asm, find: u32) -> u32 {
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

/// [`super::Stubs::status_changed`].
pub(super) fn status_changed(asm: &mut Asm) -> u32 {
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
    // What was cached without SUM holds with it.
    copy_view(asm, 2, &[layout::DATA_CONTEXTS]);
    asm.ret();
    asm.bind_here(cleared);
    copy_view(asm, 1, &[layout::DATA_CONTEXTS]);
    empty_caches(asm);
    asm.bind_here(same);
    asm.bind_here(elsewhere);
    asm.ret();
    place
}
