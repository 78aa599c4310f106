//! What lies where while translated code runs.
//!
//! | host register | holds |
//! |---|---|
//! | rbp | the hart's registers: [`REGISTERS`] into it |
//! | r15 | the budget: steps that may still be taken |
//! | rbx r12 r14 rdi rsi r13 r8 r9 r10 r11 | guest a5 sp ra a0 a4 s0 s1 a3 a1 a2, the most used ones |
//! | rax rcx rdx xmm0 to xmm2 | nothing from one instruction to the next |
//! | xmm3 to xmm15 | within a block, floating-point registers, some of which the hart does not have yet (`float_cache`) |
//!
//! All other guest registers stay in the hart. MXCSR rounds to nearest with all exceptions masked; the exceptions
//! that it has noted belong to the guest's `fflags` (see [`MXCSR`]).

use crate::asm::{Mem, R8, R9, R10, R11, R12, R13, R14, RBP, RBX, RDI, RSI, Reg, at};
use pollux_riscv::engine::layout;

/// What rbp is relative to the hart: its first register.
pub const REGISTERS: usize = layout::X;

/// Pairs of guest register and host register.
pub(crate) const PINNED: [(u8, Reg); 10] =
    [(15, RBX), (2, R12), (1, R14), (10, RDI), (14, RSI), (8, R13), (9, R8), (13, R9), (11, R10), (12, R11)];

/// The host register that holds a guest register, if one does.
pub(crate) fn pinned(guest: u8) -> Option<Reg> {
    PINNED.iter().find(|(number, _)| *number == guest).map(|&(_, reg)| reg)
}

/// sp, gp and tp mean the same everywhere; the registers from this one on are those that loops have their own words for.
pub(crate) const FIRST_LOOP_REGISTER: u8 = 5;
/// And how many they are.
pub(crate) const LOOP_REGISTERS: u8 = 32 - FIRST_LOOP_REGISTER;

/// Engine words: the inline caches. For each guest register the page that an access through it has hit last, so that the
/// next one is likely to; in loops, moved by the loop's number (`locality`).
/// 32 tags for loads, 32 for stores (as the TLB's, but without a context), then as many numbers to add to a virtual
/// address for its host address; [`NO_TAG`] is none. Whoever may have changed the context of loads and stores makes
/// them all none. A page that stores have hit has no flag set: whoever may have set one makes the tags of stores none.
pub const LOAD_TAGS: usize = 0;
/// A tag that no address has: the bit lies between those that must be zero for alignment and the page.
pub const NO_TAG: u64 = 8;
/// See [`LOAD_TAGS`].
pub const STORE_TAGS: usize = 32;
/// From a tag to what is added.
pub(crate) const TAG_TO_ADDEND: usize = 64;
/// One past the last of these words.
pub const TAGS_END: usize = 64;
/// Engine words: what is added to the addresses of a group whose leader asked the TLB in line; as [`LOAD_TAGS`], 32 for
/// groups of loads, 32 for those with a store. They mean nothing outside of the block.
pub(crate) const GROUP_ADDENDS: usize = 128;
/// The words that are used most lie next to the registers, so that a byte says where.
const NEAR: usize = layout::ENGINE_WORDS - 16;
/// Engine word: the virtual address of the page that executes.
pub const PAGE_BASE: usize = NEAR;
/// Engine word: the budget, whenever translated code is not running.
pub const BUDGET: usize = NEAR + 1;
/// Engine word: address of a table of jump targets; see [`TABLE_ENTRIES`].
pub const TABLE: usize = NEAR + 2;
/// Engine word: the first argument of [`STEP`].
pub const CONTEXT: usize = NEAR + 3;
/// Engine word: address of `extern "sysv64" fn(context: *mut c_void, info: u32) -> u32`, which executes one
/// instruction; see [`StepInfo`] and [`after`].
pub const STEP: usize = NEAR + 4;
/// Engine word: 1 if floating point is on and dirty and `frm` is to nearest even; else 0.
pub const FLOAT: usize = NEAR + 5;
/// Engine word: MXCSR as it was when translated code was last left, by return or by a step. Whoever runs the code
/// adds its exceptions ([`fflags`]) to the guest's.
pub const MXCSR: usize = NEAR + 6;
/// Engine word: [`MXCSR_CLEAN`].
pub const CLEAN: usize = NEAR + 7;
/// Engine words: addresses of RAM and of its page flags.
pub const RAM: usize = NEAR + 8;
/// See [`RAM`].
pub const FLAGS: usize = NEAR + 9;
/// Engine word: set to 1 when code was left because the block at `pc` has more instructions than the budget.
pub const SHORT: usize = NEAR + 10;

/// Engine word: 1 in S-mode and M-mode, 0 in U-mode.
pub const SUPERVISOR: usize = NEAR + 11;
/// Engine word: 1 if `cbo.zero` is enabled; else 0.
pub const ZERO: usize = NEAR + 12;
/// Engine words: what [`ZERO`] is in U-mode, and in S-mode.
pub const ZERO_IN_MODE: usize = NEAR - 4;
/// Engine words: what [`TABLE`] is for the lower half of the address space in U-mode, and for the upper one in S-mode.
pub const TABLE_IN_MODE: usize = NEAR - 6;
/// Engine word: the interrupt lines into `mip`.
pub const LINES: usize = NEAR + 13;

/// Engine words: address of an array with, for each decoded page of the machine, the address of its entries or 0; and
/// the array's length. A page's entries are 2048 words of 32 bits, one for each halfword: where in code memory the block
/// is that begins there, or 0.
pub const PAGES: usize = NEAR + 14;
/// See [`PAGES`].
pub const PAGES_LEN: usize = NEAR + 15;
/// Engine word: address of code memory.
pub const CODE: usize = NEAR - 1;
/// Engine word: the fetch context that the table of jump targets is for.
pub const TABLE_CONTEXT: usize = NEAR - 2;

/// Engine word: 1 or 2 if the step is one of an access whose page is not in the TLB, for loads or for stores, with the
/// address in [`MISSED_AT`]; else 0. Whoever takes the step takes the word. What the instruction accesses is in that page.
pub const MISSED: usize = NEAR - 7;
/// See [`MISSED`].
pub const MISSED_AT: usize = NEAR - 8;
/// Engine word: 1 if the step has put the page in the TLB, for the instruction to be tried again; 0 if it has executed
/// it.
pub const AGAIN: usize = NEAR - 9;

/// Engine word: 1 if the machine has no other hart, so that nobody can be waited for; else 0.
pub const ALONE: usize = NEAR - 12;

/// Engine words: the NaNs that computations result in, [`CANONICAL_NANS`].
pub const NAN_DOUBLE: usize = NEAR - 11;
/// See [`NAN_DOUBLE`].
pub const NAN_SINGLE: usize = NEAR - 10;
/// RISC-V's NaNs in double and single precision (unprivileged specification 21.3).
pub const CANONICAL_NANS: [u64; 2] = [0x7ff8_0000_0000_0000, 0x7fc0_0000];

/// Engine words: 64 bytes, `fflags` for each of the exceptions that MXCSR may have noted ([`FFLAGS_TABLE`]).
pub const FFLAGS_OF: usize = NEAR - 20;
/// The bits of MXCSR that note exceptions.
pub const MXCSR_EXCEPTIONS: u64 = 63;
/// What lies at [`FFLAGS_OF`].
pub const FFLAGS_TABLE: [u64; 8] = fflags_table();

const fn fflags_table() -> [u64; 8] {
    let mut words = [0; 8];
    let mut noted = 0;
    while noted <= MXCSR_EXCEPTIONS {
        words[noted as usize / 8] |= fflags(noted) << (8 * (noted % 8));
        noted += 1;
    }
    words
}

/// Engine words, for each number of a privilege mode: 1 if it may read `time`, and [`TIME_STEPS`] and the like say what
/// that is; else 0.
pub const TIME_IN_MODE: usize = NEAR - 24;
/// How many words [`TIME_IN_MODE`] has.
pub const MODES: usize = 4;
/// Engine word: steps from where the clock's line begins to where the run will have used up its budget.
pub const TIME_STEPS: usize = NEAR - 25;
/// Engine word: virtual nanoseconds where the line begins.
pub const TIME_BASE: usize = NEAR - 26;
/// Engine word: its slope, nanoseconds in 2^32 steps.
pub const TIME_RATE: usize = NEAR - 27;

/// MXCSR with no exceptions noted, all masked, rounding to nearest even (Intel SDM volume 1, 10.2.3).
pub const MXCSR_CLEAN: u64 = 0x1f80;

/// The exceptions that MXCSR has noted, as in `fflags`.
#[must_use]
pub const fn fflags(mxcsr: u64) -> u64 {
    let (invalid, zero, over, under, inexact) =
        (mxcsr & 1, mxcsr >> 2 & 1, mxcsr >> 3 & 1, mxcsr >> 4 & 1, mxcsr >> 5 & 1);
    invalid << 4 | zero << 3 | over << 2 | under << 1 | inexact
}

/// Entries in a table of jump targets. An entry is two words: virtual address, and address of the code; no code is at
/// address 1, which is an entry that nothing finds. [`table_entry`] says which one is an address's.
pub const TABLE_ENTRIES: usize = 8192;
/// Words in an entry.
pub const TABLE_ENTRY_WORDS: usize = 2;
/// See [`TABLE_ENTRIES`].
pub const NO_TARGET: u64 = 1;

/// The number of the entry for an address. Code is full of pages that look alike, so that the page's number counts.
#[must_use]
pub fn table_entry(addr: u64) -> usize {
    ((addr ^ addr >> 12) >> 1) as usize % TABLE_ENTRIES
}

/// What the step function is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StepInfo {
    /// Where the instruction is in its page.
    pub offset: u16,
    /// Its length.
    pub len: u16,
    /// Instructions that the block has taken off the budget and that have not been executed, this one included.
    pub unexecuted: u16,
    /// What follows in the block relies on [`FLOAT`] being 1.
    pub needs_float: bool,
    /// Translated code can go on behind the instruction as if it had executed it itself. Otherwise it must be entered
    /// anew, there.
    pub comes_back: bool,
}

impl StepInfo {
    pub(crate) fn pack(self) -> u32 {
        u32::from(self.offset)
            | u32::from(self.len == 4) << 12
            | u32::from(self.needs_float) << 13
            | u32::from(self.comes_back) << 14
            | u32::from(self.unexecuted) << 16
    }

    /// From the step function's second argument.
    #[must_use]
    pub fn unpack(info: u32) -> Self {
        Self {
            offset: (info & 0xfff) as u16,
            len: if info >> 12 & 1 == 1 { 4 } else { 2 },
            unexecuted: (info >> 16) as u16,
            needs_float: info >> 13 & 1 == 1,
            comes_back: info >> 14 & 1 == 1,
        }
    }
}

/// What the step function answers.
pub mod after {
    /// The instruction did nothing unusual: on with the next one. [`super::BUDGET`] is as it was.
    pub const NEXT: u32 = 0;
    /// Translated code must be left. [`super::BUDGET`] is exact.
    pub const LEAVE: u32 = 1;
    /// Go on at the hart's `pc`. [`super::BUDGET`] is exact.
    pub const JUMP: u32 = 2;
}

/// Where an engine word is from rbp.
pub(crate) const fn word_offset(word: usize) -> i32 {
    layout::ENGINE as i32 + 8 * word as i32 - REGISTERS as i32
}

/// An engine word as an operand.
pub(crate) const fn word(word: usize) -> Mem {
    at(RBP, word_offset(word))
}

/// A part of the hart as an operand.
pub(crate) const fn part(offset: usize) -> Mem {
    at(RBP, offset as i32 - REGISTERS as i32)
}

/// A guest integer register's place in the hart.
pub(crate) fn x(guest: u8) -> Mem {
    part(layout::X + 8 * usize::from(guest & 31))
}

/// A guest floating-point register's place in the hart.
pub(crate) fn f(guest: u8) -> Mem {
    part(layout::F + 8 * usize::from(guest & 31))
}

/// The upper half of a guest floating-point register.
pub(crate) fn f_high(guest: u8) -> Mem {
    part(layout::F + 8 * usize::from(guest & 31) + 4)
}
