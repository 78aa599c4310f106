//! The code that every translation shares: in, out, one interpreted step, and the way to a computed address.

use crate::asm::{
    Alu, Asm, Cond, R12, R13, R14, R15, RAX, RBP, RBX, RCX, RDI, RDX, RSI, RSP, Reg, Shift, W, at, at2,
};
use crate::state::{self, PINNED, after, part, word, x};
use alloc::vec::Vec;
use pollux_machine::engine::layout;

/// Bytes in a TLB entry, as a shift.
const TLB_ENTRY_SHIFT: u8 = 4;

/// Where the thunks are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Thunks {
    /// `extern "sysv64" fn(registers: *mut u8, code: *const u8)`: runs translated code until it leaves.
    pub enter: u32,
    /// Steps: eax is a [`state::StepInfo`]. Called; returns if it answers [`after::NEXT`].
    pub(crate) step: u32,
    /// rax is an address, rdx its tag, rcx where (from rbp) its register's tag is: looks the address up in the TLB,
    /// for a load or a store, and remembers it there. Called; returns with the zero flag if that went well.
    pub(crate) remember_load: u32,
    pub(crate) remember_store: u32,
    /// Leaves, with rax for the program counter. Jumped to.
    pub(crate) leave_at: u32,
    /// First byte behind the thunks.
    pub end: u32,
}

/// What callers of `enter` expect to find again (System V ABI).
const SAVED: [Reg; 6] = [RBX, RBP, R12, R13, R14, R15];
/// Keeps the stack aligned to 16 in translated code: a return address and six registers are 56 bytes.
const PADDING: i32 = 8;

/// Makes the thunks for code memory's beginning.
#[must_use]
pub fn thunks() -> (Vec<u8>, Thunks) {
    let mut asm = Asm::new(0);
    let enter = asm.here();
    for reg in SAVED {
        asm.push(reg);
    }
    asm.alu_imm(Alu::Sub, W::Q, RSP, PADDING);
    asm.mov(RBP, RDI);
    asm.mov(RAX, RSI);
    asm.mxcsr(false, word(state::CLEAN));
    fill(&mut asm);
    asm.jmp_reg(RAX);

    let leave_at = asm.here();
    asm.store(W::Q, part(layout::PC), RAX);
    spill(&mut asm);
    let leave = asm.here();
    asm.mxcsr(true, word(state::MXCSR));
    asm.mxcsr(false, word(state::CLEAN));
    asm.alu_imm(Alu::Add, W::Q, RSP, PADDING);
    for &reg in SAVED.iter().rev() {
        asm.pop(reg);
    }
    asm.ret();

    let step = asm.here();
    spill(&mut asm);
    asm.mxcsr(true, word(state::MXCSR));
    asm.load(W::Q, RDI, word(state::CONTEXT));
    asm.mov32(RSI, RAX);
    // The call of this thunk has moved the stack by 8.
    asm.alu_imm(Alu::Sub, W::Q, RSP, 8);
    asm.call_mem(word(state::STEP));
    asm.alu_imm(Alu::Add, W::Q, RSP, 8);
    asm.mxcsr(false, word(state::CLEAN));
    asm.test(W::D, RAX, RAX);
    let elsewhere = asm.jcc(Cond::Ne as u8);
    fill(&mut asm);
    asm.ret();
    asm.bind_here(elsewhere);
    // Never back to the block: its return address is of no use.
    asm.alu_imm(Alu::Add, W::Q, RSP, 8);
    asm.alu_imm(Alu::Cmp, W::D, RAX, after::JUMP as i32);
    let out = asm.jcc(Cond::Ne as u8);
    asm.bind(out, leave);
    fill(&mut asm);
    asm.load(W::Q, RAX, part(layout::PC));
    lookup(&mut asm, leave_at);
    let remember_load = remember(&mut asm, layout::TLB_READ, false);
    let remember_store = remember(&mut asm, layout::TLB_WRITE, true);
    let end = asm.here();
    (asm.bytes, Thunks { enter, step, remember_load, remember_store, leave_at, end })
}

/// Guest registers from the hart into host registers.
fn fill(asm: &mut Asm) {
    for (guest, reg) in PINNED {
        asm.load(W::Q, reg, x(guest));
    }
    asm.load(W::Q, R15, word(state::BUDGET));
}

/// And back.
fn spill(asm: &mut Asm) {
    for (guest, reg) in PINNED {
        asm.store(W::Q, x(guest), reg);
    }
    asm.store(W::Q, word(state::BUDGET), R15);
}

/// A thunk that fills the words of [`state::LOAD_TAGS`] from the TLB.
fn remember(asm: &mut Asm, tlb: usize, store: bool) -> u32 {
    let tlb = tlb as i32 - state::REGISTERS as i32;
    let place = asm.here();
    asm.push(RBX);
    asm.push(RSI);
    asm.mov32(RBX, RAX);
    asm.shift_imm(Shift::Shr, W::D, RBX, 12 - TLB_ENTRY_SHIFT);
    asm.alu_imm(Alu::And, W::D, RBX, (layout::TLB_ENTRIES as i32 - 1) << TLB_ENTRY_SHIFT);
    asm.mov(RSI, RDX);
    asm.alu(Alu::Or, W::Q, RSI, part(layout::DATA_CONTEXT));
    asm.alu(Alu::Cmp, W::Q, RSI, at2(RBP, RBX, tlb));
    let mut misses = alloc::vec![asm.jcc(Cond::Ne as u8)];
    asm.load(W::Q, RBX, at2(RBP, RBX, tlb + 8));
    if store {
        // The page's flags, by the offset in RAM.
        asm.push(RBX);
        asm.alu(Alu::Add, W::Q, RBX, RAX);
        asm.shift_imm(Shift::Shr, W::Q, RBX, 12);
        asm.alu(Alu::Add, W::Q, RBX, word(state::FLAGS));
        asm.cmp_byte(at(RBX, 0), 0);
        asm.pop(RBX);
        misses.push(asm.jcc(Cond::Ne as u8));
    }
    asm.alu(Alu::Add, W::Q, RBX, word(state::RAM));
    asm.store(W::Q, at2(RBP, RCX, 0), RDX);
    asm.store(W::Q, at2(RBP, RCX, 8 * state::TAG_TO_ADDEND as i32), RBX);
    asm.alu(Alu::Cmp, W::D, RBX, RBX);
    misses.into_iter().for_each(|miss| asm.bind_here(miss));
    asm.pop(RSI);
    asm.pop(RBX);
    asm.ret();
    place
}

/// Jumps to the translation of virtual address rax, or leaves if the table does not know it.
pub(crate) fn lookup(asm: &mut Asm, leave_at: u32) {
    const ENTRY_SHIFT: u8 = (8 * state::TABLE_ENTRY_WORDS).trailing_zeros() as u8;
    asm.mov(RCX, RAX);
    asm.shift_imm(Shift::Shr, W::Q, RCX, 12);
    asm.alu(Alu::Xor, W::D, RCX, RAX);
    asm.alu_imm(Alu::And, W::D, RCX, 2 * (state::TABLE_ENTRIES as i32 - 1));
    asm.shift_imm(Shift::Shl, W::D, RCX, ENTRY_SHIFT - 1);
    asm.alu(Alu::Add, W::Q, RCX, word(state::TABLE));
    asm.alu(Alu::Cmp, W::Q, RAX, at(RCX, 0));
    let other = asm.jcc(Cond::Ne as u8);
    asm.bind(other, leave_at);
    asm.load(W::Q, RDX, part(layout::FETCH_CONTEXT));
    asm.alu(Alu::Cmp, W::Q, RDX, at(RCX, 8));
    let foreign = asm.jcc(Cond::Ne as u8);
    asm.bind(foreign, leave_at);
    asm.alu_imm(Alu::And, W::Q, RAX, -4096);
    asm.store(W::Q, word(state::PAGE_BASE), RAX);
    asm.jmp_mem(at(RCX, 16));
}
