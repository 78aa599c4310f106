//! The code that every translation shares: in, out, one interpreted step, and the way to a computed address.

mod system;

use crate::asm::{
    Alu, Asm, Cond, R12, R13, R14, R15, RAX, RBP, RBX, RCX, RDI, RDX, RSI, RSP, Reg, Shift, W, at, at2,
    indexed, scaled,
};
use crate::block::checks::GROUP_BYTES_MAX;
use crate::state::{self, PINNED, after, part, word, x};
use alloc::vec::Vec;
use pollux_riscv::engine::layout;

/// Where the stubs are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stubs {
    /// `extern "sysv64" fn(registers: *mut u8, code: *const u8)`: runs translated code until it leaves.
    pub enter: u32,
    /// Steps: eax is a [`state::StepInfo`]. Called; returns if it answers [`after::NEXT`], with the
    /// zero flag unless the instruction is to be tried again ([`state::AGAIN`]).
    pub(crate) step: u32,
    /// rax is an address, rdx its tag without a context, rcx where (from rbp) its register's tag is: looks the address up
    /// in the TLB, for a load or a store, and caches it there. Called; returns with the zero flag and rdx, what is added to the
    /// address, if that went well; else rdx is of no use, and the cache may be empty. Keeps rax.
    pub(crate) refill_load: u32,
    pub(crate) refill_store: u32,
    /// The same for accesses that must be aligned; of the others, only those that may not lie in one page fail.
    pub(crate) refill_load_aligned: u32,
    pub(crate) refill_store_aligned: u32,
    /// Leaves, with rax for the program counter. Jumped to.
    pub(crate) leave_at: u32,
    /// Goes to the translation of the code at virtual address rax, which the table of jump targets does not know, or
    /// leaves if there is none. Jumped to.
    pub(crate) find: u32,
    /// Looks up the page at virtual address rax in the TLB for fetches. Called; returns with the zero flag and ecx, the
    /// number of the decoded page, if it is there.
    pub(crate) page_at: u32,
    /// `ecall` in U-mode, with rax for its address, and `sret`. Called; return if they are not as usual, with nothing
    /// done.
    pub(crate) ecall: u32,
    pub(crate) sret: u32,
    /// Does what a change of `mstatus` in ecx, of FS or SUM, asks for beyond itself. Called; keeps rax.
    pub(crate) status_changed: u32,
    /// Have the host round otherwise, and as it always does again. Called; change nothing but flags.
    pub(crate) round_to_zero: u32,
    pub(crate) round_down: u32,
    pub(crate) round_up: u32,
    pub(crate) round_to_nearest: u32,
    /// First byte behind the stubs.
    pub end: u32,
}

impl Stubs {
    /// Names for listings.
    #[must_use]
    pub fn names(&self) -> [(&'static str, u32); 12] {
        [
            ("enter", self.enter),
            ("step", self.step),
            ("refill_load", self.refill_load),
            ("refill_store", self.refill_store),
            ("refill_load_aligned", self.refill_load_aligned),
            ("refill_store_aligned", self.refill_store_aligned),
            ("leave_at", self.leave_at),
            ("find", self.find),
            ("page_at", self.page_at),
            ("ecall", self.ecall),
            ("sret", self.sret),
            ("status_changed", self.status_changed),
        ]
    }
}

/// What callers of `enter` expect to find again (System V ABI).
const SAVED: [Reg; 6] = [RBX, RBP, R12, R13, R14, R15];
/// Keeps the stack aligned to 16 in translated code: a return address and six registers are 56 bytes.
const PADDING: i32 = 8;

/// Makes the stubs for code memory's beginning.
#[must_use]
pub fn stubs() -> (Vec<u8>, Stubs) {
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

    let find = find(&mut asm, leave_at);

    let step = step(&mut asm, leave, find);
    let refill_load = refill(&mut asm, layout::TLB_READ, false, false);
    let refill_store = refill(&mut asm, layout::TLB_WRITE, true, false);
    let refill_load_aligned = refill(&mut asm, layout::TLB_READ, false, true);
    let refill_store_aligned = refill(&mut asm, layout::TLB_WRITE, true, true);
    let page_at = page_at(&mut asm);
    let ecall = system::ecall(&mut asm, find);
    let sret = system::sret(&mut asm, find);
    let status_changed = system::status_changed(&mut asm);
    let [round_to_nearest, round_down, round_up, round_to_zero] =
        [0, 1, 2, 3].map(|mode| round(&mut asm, mode));
    let end = asm.here();
    let stubs = Stubs {
        enter,
        step,
        refill_load,
        refill_store,
        refill_load_aligned,
        refill_store_aligned,
        leave_at,
        find,
        page_at,
        ecall,
        sret,
        status_changed,
        round_to_zero,
        round_down,
        round_up,
        round_to_nearest,
        end,
    };
    (asm.bytes, stubs)
}

/// [`Stubs::step`].
fn step(asm: &mut Asm, leave: u32, find: u32) -> u32 {
    let place = asm.here();
    spill(asm);
    asm.mxcsr(true, word(state::MXCSR));
    asm.load(W::Q, RDI, word(state::CONTEXT));
    asm.mov32(RSI, RAX);
    // The call of this stub has moved the stack by 8.
    asm.alu_imm(Alu::Sub, W::Q, RSP, 8);
    asm.call_mem(word(state::STEP));
    asm.alu_imm(Alu::Add, W::Q, RSP, 8);
    asm.mxcsr(false, word(state::CLEAN));
    asm.test(W::D, RAX, RAX);
    let elsewhere = asm.jcc(Cond::Ne as u8);
    fill(asm);
    asm.alu_imm(Alu::Cmp, W::Q, word(state::AGAIN), 0);
    asm.ret();
    asm.bind_here(elsewhere);
    // Never back to the block: its return address is of no use.
    asm.alu_imm(Alu::Add, W::Q, RSP, 8);
    asm.alu_imm(Alu::Cmp, W::D, RAX, after::JUMP as i32);
    asm.jcc_to(Cond::Ne, leave);
    fill(asm);
    asm.load(W::Q, RAX, part(layout::PC));
    lookup(asm, find);
    place
}

/// A stub that has the host round as a mode of MXCSR says. What that notes stays noted.
fn round(asm: &mut Asm, mode: i32) -> u32 {
    const MODE_SHIFT: u32 = 13;
    const MODES: i32 = 3 << MODE_SHIFT;
    let place = asm.here();
    asm.mxcsr(true, word(state::MXCSR));
    match mode {
        0 => asm.alu_imm(Alu::And, W::D, word(state::MXCSR), !MODES),
        _ => asm.alu_imm(Alu::Or, W::D, word(state::MXCSR), mode << MODE_SHIFT),
    }
    asm.mxcsr(false, word(state::MXCSR));
    asm.ret();
    place
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

/// A stub that fills the words of [`state::LOAD_TAGS`] from the TLB. What it costs is how long its instructions wait
/// for each other, so that all that the address does not decide is loaded from fixed places.
fn refill(asm: &mut Asm, tlb: usize, store: bool, aligned: bool) -> u32 {
    let place = asm.here();
    asm.push(RBX);
    asm.mov32(RBX, RAX);
    asm.test(W::Q, RAX, RAX);
    let upper = asm.jcc(Cond::S as u8);
    half_of_tlb(asm, 0);
    let both = asm.here();
    entry_of_tlb(asm, RBX, tlb);
    let compare = asm.here();
    asm.alu(Alu::Cmp, W::Q, RDX, at(RBX, 0));
    let unknown = asm.jcc(Cond::Ne as u8);
    asm.load(W::Q, RBX, at(RBX, 8));
    asm.alu_imm(Alu::And, W::Q, RDX, NO_CONTEXT);
    asm.store(W::Q, at2(RBP, RCX, 0), RDX);
    let flagged = store.then(|| {
        // The page's flags, by the offset in RAM.
        asm.lea(RDX, at2(RAX, RBX, 0));
        asm.shift_imm(Shift::Shr, W::Q, RDX, 12);
        asm.alu(Alu::Add, W::Q, RDX, word(state::FLAGS));
        asm.cmp_byte(at(RDX, 0), 0);
        asm.jcc(Cond::Ne as u8)
    });
    asm.alu(Alu::Add, W::Q, RBX, word(state::RAM));
    asm.store(W::Q, at2(RBP, RCX, 8 * state::TAG_TO_ADDEND as i32), RBX);
    asm.mov(RDX, RBX);
    asm.alu(Alu::Cmp, W::D, RBX, RBX);
    let end = asm.here();
    asm.pop(RBX);
    asm.ret();
    asm.bind_here(upper);
    half_of_tlb(asm, 1);
    asm.jmp_to(both);
    if let Some(flagged) = flagged {
        asm.bind_here(flagged);
        asm.store_imm(W::Q, at2(RBP, RCX, 0), state::NO_TAG as i32);
        asm.jmp_to(end);
    }
    asm.bind_here(unknown);
    refill_miss(asm, store, aligned, compare, end);
    place
}

/// rdx, a tag without a context, gets that of a half of the address space, and rbx, an address, what it mixes in.
fn half_of_tlb(asm: &mut Asm, half: usize) {
    asm.alu(Alu::Xor, W::D, RBX, part(layout::DATA_MIXES + 8 * half));
    asm.alu(Alu::Or, W::Q, RDX, part(layout::DATA_CONTEXTS + 8 * half));
}

/// The page is not in the TLB, or the access is not aligned: then it is looked up again, if it lies in one page.
fn refill_miss(asm: &mut Asm, store: bool, aligned: bool, compare: u32, end: u32) {
    const ALIGNMENT: i32 = 7;
    asm.push(RDX);
    asm.alu_imm(Alu::And, W::D, RDX, ALIGNMENT);
    asm.pop(RDX);
    let is_aligned = asm.jcc(Cond::E as u8);
    if aligned {
        asm.jmp_to(end);
    } else {
        asm.alu_imm(Alu::And, W::Q, RDX, !ALIGNMENT);
        asm.push(RAX);
        asm.alu_imm(Alu::And, W::D, RAX, 0xfff);
        asm.alu_imm(Alu::Cmp, W::D, RAX, 0x1000 - 8);
        asm.pop(RAX);
        asm.jcc_to(Cond::A, end);
        asm.jmp_to(compare);
    }
    asm.bind_here(is_aligned);
    // The page can be found without executing the instruction, if it accesses no other one.
    asm.mov32(RBX, RAX);
    asm.alu_imm(Alu::And, W::D, RBX, 0xfff);
    asm.alu_imm(Alu::Cmp, W::D, RBX, 0x1000 - GROUP_BYTES_MAX);
    let perhaps_across = asm.jcc(Cond::A as u8);
    asm.store_imm(W::Q, word(state::MISSED), if store { 2 } else { 1 });
    asm.store(W::Q, word(state::MISSED_AT), RAX);
    asm.bind_here(perhaps_across);
    asm.alu_imm(Alu::Or, W::D, RBX, 1);
    asm.jmp_to(end);
}

/// [`Stubs::find`]: the TLB for fetches knows the page, and the page its blocks.
fn find(asm: &mut Asm, leave_at: u32) -> u32 {
    let place = asm.here();
    asm.push(RBX);
    asm.mov(RBX, RAX);
    asm.shift_imm(Shift::Shr, W::Q, RBX, 63);
    asm.mov32(RCX, RAX);
    asm.alu(Alu::Xor, W::D, RCX, indexed(part(layout::FETCH_MIXES), RBX, 3));
    entry_of_tlb(asm, RCX, layout::TLB_FETCH);
    asm.load(W::Q, RBX, indexed(part(layout::FETCH_CONTEXTS), RBX, 3));
    asm.mov(RDX, RAX);
    asm.alu_imm(Alu::And, W::Q, RDX, -4096);
    asm.alu(Alu::Or, W::Q, RDX, RBX);
    asm.alu(Alu::Cmp, W::Q, RDX, at(RCX, 0));
    let mut unknown = alloc::vec![asm.jcc(Cond::Ne as u8)];
    asm.load(W::D, RCX, at(RCX, 8));
    asm.alu(Alu::Cmp, W::Q, RCX, word(state::PAGES_LEN));
    unknown.push(asm.jcc(Cond::Ae as u8));
    asm.load(W::Q, RDX, word(state::PAGES));
    asm.load(W::Q, RDX, scaled(RDX, RCX, 3));
    asm.test(W::Q, RDX, RDX);
    unknown.push(asm.jcc(Cond::E as u8));
    asm.mov32(RCX, RAX);
    asm.alu_imm(Alu::And, W::D, RCX, 0xffe);
    asm.load(W::D, RCX, scaled(RDX, RCX, 1));
    asm.test(W::D, RCX, RCX);
    unknown.push(asm.jcc(Cond::E as u8));
    asm.alu(Alu::Add, W::Q, RCX, word(state::CODE));
    // The table is for one half of one address space.
    asm.alu(Alu::Cmp, W::Q, RBX, word(state::TABLE_CONTEXT));
    let foreign = asm.jcc(Cond::Ne as u8);
    table_entry(asm, RDX);
    asm.store(W::Q, at(RDX, 0), RAX);
    asm.store(W::Q, at(RDX, 8), RCX);
    asm.bind_here(foreign);
    asm.pop(RBX);
    asm.alu_imm(Alu::And, W::Q, RAX, -4096);
    asm.store(W::Q, word(state::PAGE_BASE), RAX);
    asm.jmp_reg(RCX);
    unknown.into_iter().for_each(|jump| asm.bind_here(jump));
    asm.pop(RBX);
    asm.jmp_to(leave_at);
    place
}

/// `to` = the host address of the table's entry for virtual address rax ([`state::table_entry`]).
fn table_entry(asm: &mut Asm, to: Reg) {
    const ENTRY_SHIFT: u8 = (8 * state::TABLE_ENTRY_WORDS).trailing_zeros() as u8;
    asm.mov32(to, RAX);
    asm.shift_imm(Shift::Shr, W::D, to, 12);
    asm.alu(Alu::Xor, W::D, to, RAX);
    asm.alu_imm(Alu::And, W::D, to, 2 * (state::TABLE_ENTRIES as i32 - 1));
    asm.shift_imm(Shift::Shl, W::D, to, ENTRY_SHIFT - 1);
    asm.alu(Alu::Add, W::Q, to, word(state::TABLE));
}

/// Jumps to the translation of virtual address rax, by way of the table of jump targets or of [`Stubs::find`].
pub(crate) fn lookup(asm: &mut Asm, find: u32) {
    table_entry(asm, RCX);
    asm.alu(Alu::Cmp, W::Q, RAX, at(RCX, 0));
    asm.jcc_to(Cond::Ne, find);
    asm.alu_imm(Alu::And, W::Q, RAX, -4096);
    asm.store(W::Q, word(state::PAGE_BASE), RAX);
    asm.jmp_mem(at(RCX, 8));
}

/// Bytes in a TLB entry, as a shift.
const ENTRY_SHIFT: u8 = 4;
/// Of a tag in the TLB, all but the context.
pub(crate) const NO_CONTEXT: i32 = -4096 | 7;

/// From the lower bits of a virtual address, with those of its mix, to the host address of its entry.
pub(crate) fn entry_of_tlb(asm: &mut Asm, reg: Reg, tlb: usize) {
    asm.shift_imm(Shift::Shr, W::D, reg, 12 - ENTRY_SHIFT);
    asm.alu_imm(Alu::And, W::D, reg, (layout::TLB_ENTRIES as i32 - 1) << ENTRY_SHIFT);
    asm.alu(Alu::Add, W::Q, reg, part(tlb));
}

/// [`Stubs::page_at`]. Uses rdx.
fn page_at(asm: &mut Asm) -> u32 {
    let place = asm.here();
    asm.mov(RDX, RAX);
    asm.shift_imm(Shift::Shr, W::Q, RDX, 63);
    asm.mov32(RCX, RAX);
    asm.alu(Alu::Xor, W::D, RCX, indexed(part(layout::FETCH_MIXES), RDX, 3));
    entry_of_tlb(asm, RCX, layout::TLB_FETCH);
    asm.alu(Alu::Or, W::Q, RAX, indexed(part(layout::FETCH_CONTEXTS), RDX, 3));
    asm.alu(Alu::Cmp, W::Q, RAX, at(RCX, 0));
    // Leaves the flags alone.
    asm.load(W::D, RCX, at(RCX, 8));
    asm.ret();
    place
}
