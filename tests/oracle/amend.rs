//! Where QEMU departs from the specification, or the specification leaves a choice: the judge's result is
//! corrected to ours there, narrowly, so that all else is still compared bit for bit.
//!
//! - To QEMU a misaligned AMO is a misaligned load (cause 4); the specification has it a misaligned
//!   store/AMO (cause 6).
//! - QEMU knows the bits of an illegal instruction only if it found out while translating it; else `tval` is
//!   that of an earlier one, or zero.
//! - The address reported for a cache-block operation that faults may lie anywhere in the block.
//! - An AMO that faults because the page may be read but not written may set the page's accessed bit.
//! - Floating-point state may be called dirty when it is not. QEMU does not call it dirty when only `fflags`
//!   changed.
//! - QEMU does not execute a `fround` whose result nobody reads, and so raises none of its exceptions.
//! - An entry with N whose PPN is reserved faults; QEMU may set its accessed bit all the same.
//!
//! Where more than a few bits would have to be corrected the generators leave the case out, and say so there.

use crate::record::{
    CSR, Case, FCSR, LOG, LOG_TRAPS, LOG_WORDS, MCAUSE, MTVAL, Placed, RECORD_BYTES, SCAUSE, STVAL, set_word,
    traps, word,
};
use pollux_isa::{Format, Opcode};

/// Cause of an illegal instruction.
const ILLEGAL: u64 = 2;
/// Cause of a misaligned load, and of a misaligned store or AMO.
const MISALIGNED: [u64; 2] = [4, 6];
/// The `sret` of the supervisor's handler, illegal under TSR: the only such instruction that is no case's.
const SRET: u64 = 0x1020_0073;
/// FS and SD of `mstatus`.
const FS_SD: u64 = 1 << 63 | 3 << 13;
/// Accessed bit of a page-table entry.
const ACCESSED: u64 = 1 << 6;
/// N of a page-table entry, and the PPN's lowest bits, of which one pattern alone is no reserved one.
const NAPOT: u64 = 1 << 63;
const PPN_LOW: (u64, u64) = (0xf << 10, 8 << 10);
/// Invalid and inexact in `fcsr`.
const NV_NX: u64 = 0x11;

/// Where word `field` of entry `trap` of the log is.
fn logged(trap: usize, field: usize) -> usize {
    LOG + 8 * (trap * LOG_WORDS + field)
}

/// Corrects the judge's result of `case`, given ours.
pub(crate) fn amend(case: &Case, judged: &mut [u8], ours: &[u8]) {
    misaligned_amos(case, judged, ours);
    illegal_bits(case, judged, ours);
    if has(case, Format::Cbo) {
        let values = (0..LOG_TRAPS).map(|trap| logged(trap, 3)).chain([STVAL, MTVAL]);
        values.for_each(|at| accept(judged, ours, at, |theirs, mine| theirs == mine & !63));
    }
    if has(case, Format::Amo) {
        let tables = (RECORD_BYTES..judged.len()).step_by(8);
        tables.for_each(|at| accept(judged, ours, at, |theirs, mine| theirs == mine | ACCESSED));
    }
    let tables = (RECORD_BYTES..judged.len()).step_by(8);
    let reserved = |entry: u64| entry & NAPOT != 0 && entry & PPN_LOW.0 != PPN_LOW.1;
    tables
        .for_each(|at| accept(judged, ours, at, |theirs, mine| reserved(mine) && theirs == mine | ACCESSED));
    if case.code.iter().any(rounds_to_integer) {
        accept(judged, ours, FCSR, |theirs, mine| {
            mine & !NV_NX == theirs & !NV_NX && mine & theirs == theirs
        });
    }
    for at in (0..LOG_TRAPS).map(|trap| logged(trap, 4)).chain([CSR]) {
        let is_on = |status| status & FS_SD != 0;
        accept(judged, ours, at, |theirs, mine| is_on(theirs) && mine == theirs | FS_SD);
    }
}

/// Takes over our word at `at` if `free` says that it may differ so from theirs.
fn accept(judged: &mut [u8], ours: &[u8], at: usize, free: impl Fn(u64, u64) -> bool) {
    let (theirs, mine) = (word(judged, at), word(ours, at));
    if free(theirs, mine) {
        set_word(judged, at, mine);
    }
}

fn format_of(inst: &Placed) -> Option<Format> {
    Some(inst.decode()?.opcode.info()?.format)
}

fn rounds_to_integer(inst: &Placed) -> bool {
    let rounds = [Opcode::FroundS, Opcode::FroundnxS, Opcode::FroundD, Opcode::FroundnxD];
    inst.decode().is_some_and(|inst| rounds.contains(&inst.opcode))
}

fn has(case: &Case, format: Format) -> bool {
    case.code.iter().any(|inst| format_of(inst) == Some(format))
}

fn misaligned_amos(case: &Case, judged: &mut [u8], ours: &[u8]) {
    for (index, (theirs, mine)) in traps(judged).into_iter().zip(traps(ours)).enumerate() {
        let format = case.at(theirs[2]).and_then(format_of);
        if [theirs[1], mine[1]] == MISALIGNED && format == Some(Format::Amo) {
            set_word(judged, logged(index, 1), mine[1]);
            if index == LOG_TRAPS - 1 {
                set_word(judged, MCAUSE, mine[1]);
            }
        }
    }
}

fn illegal_bits(case: &Case, judged: &mut [u8], ours: &[u8]) {
    for (index, (theirs, mine)) in traps(judged).into_iter().zip(traps(ours)).enumerate() {
        let bits = case.at(theirs[2]).map_or(SRET, |inst| u64::from(inst.word));
        if theirs[1] == ILLEGAL && mine[3] == bits {
            set_word(judged, logged(index, 3), bits);
        }
    }
    for (cause, tval) in [(MCAUSE, MTVAL), (SCAUSE, STVAL)] {
        let bits = word(ours, tval);
        let is_real = bits == SRET || case.code.iter().any(|inst| u64::from(inst.word) == bits);
        if word(judged, cause) == ILLEGAL && is_real {
            set_word(judged, tval, bits);
        }
    }
}
