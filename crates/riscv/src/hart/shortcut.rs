//! One instruction for an engine that would rather not enter the inner loop for it: floating point that only computes,
//! and loads and stores across pages that the TLB knows.
//!
//! Invariant: what is done here is what the inner loop would have done, and leads to the next instruction, with no
//! trap, in the same context, with nothing stale. Whatever has more to it is left undone.

use super::code::{CodeCache, Packed, SLOTS};
use super::{Hart, float, fp};
use crate::mmu::{Entry, PAGE_MASK};
use crate::ram::{PAGE, Ram};
use core::sync::atomic::Ordering;
use pollux_isa::code;

/// Executes the instruction at an address, if it is one of those; returns whether it has. `pc` stays what it is.
pub(crate) fn execute(hart: &mut Hart, ram: &mut Ram, cache: &CodeCache, pc: u64) -> bool {
    let Some(op) = decoded(hart, cache, pc) else { return false };
    match op.kind() {
        code::FmaddS..=code::FmvDX | code::FmvXH..=code::FleqD => float::execute(hart, op).is_ok(),
        kind => match width(kind) {
            Some((bytes, false)) => load(hart, ram, op, bytes),
            Some((bytes, true)) => store(hart, ram, op, bytes),
            None => false,
        },
    }
}

/// The instruction at an address, if it has been decoded. One that ends in the next page never is.
fn decoded(hart: &Hart, cache: &CodeCache, pc: u64) -> Option<Packed> {
    let entry = &hart.tlb.fetch[hart.fetches.slot(pc)];
    if entry.tag != pc & PAGE_MASK | hart.fetches.tag(pc) {
        return None;
    }
    let cell = cache.page(entry.code_page)?.get((pc >> 1) as usize % SLOTS)?;
    Some(Packed(cell.load(Ordering::Relaxed))).filter(|op| *op != Packed::EMPTY)
}

/// How many bytes an instruction accesses, and whether it stores them. Bytes never lie across pages.
fn width(kind: u8) -> Option<(u64, bool)> {
    let width = match kind {
        code::Lh | code::Lhu => (2, false),
        code::Lw | code::Lwu | code::Flw => (4, false),
        code::Ld | code::Fld => (8, false),
        code::Sh => (2, true),
        code::Sw | code::Fsw => (4, true),
        code::Sd | code::Fsd => (8, true),
        _ => return None,
    };
    Some(width)
}

/// Where the two parts of an access lie in RAM, and how many bytes the first one has; if it is one across pages that
/// both are known.
fn parts(hart: &Hart, tlb: &[Entry], addr: u64, bytes: u64) -> Option<(usize, usize, usize)> {
    let first = PAGE as u64 - addr % PAGE as u64;
    if first >= bytes {
        return None;
    }
    let place = |addr: u64| {
        let entry = tlb.get(hart.data.slot(addr))?;
        (entry.tag == addr & PAGE_MASK | hart.data.tag(addr)).then(|| addr.wrapping_add(entry.delta) as usize)
    };
    Some((place(addr)?, place(addr.wrapping_add(first))?, first as usize))
}

fn load(hart: &mut Hart, ram: &Ram, op: Packed, bytes: u64) -> bool {
    let addr = hart.x[op.rs1()].wrapping_add(op.imm());
    let Some((at, rest, first)) = parts(hart, &hart.tlb.read[..], addr, bytes) else { return false };
    let mut buffer = [0; 8];
    for (i, byte) in buffer.iter_mut().take(bytes as usize).enumerate() {
        [*byte] = ram.load::<1>(if i < first { at + i } else { rest + i - first });
    }
    let raw = u64::from_le_bytes(buffer);
    let value = match op.kind() {
        code::Flw | code::Fld if !float::enabled(hart) => return false,
        code::Flw => {
            float::set(hart, op.rd(), fp::boxed(raw as u32));
            return true;
        }
        code::Fld => {
            float::set(hart, op.rd(), raw);
            return true;
        }
        code::Lh => raw as i16 as u64,
        code::Lw => raw as i32 as u64,
        _ => raw,
    };
    hart.x[op.rd()] = value;
    true
}

fn store(hart: &Hart, ram: &mut Ram, op: Packed, bytes: u64) -> bool {
    let addr = hart.x[op.rs1()].wrapping_add(op.imm());
    let Some((at, rest, first)) = parts(hart, &hart.tlb.write[..], addr, bytes) else { return false };
    let value = match op.kind() {
        code::Fsw | code::Fsd if !float::enabled(hart) => return false,
        code::Fsw | code::Fsd => hart.f[op.rs2() & 31],
        _ => hart.x[op.rs2()],
    };
    if ram.is_flagged(at) || ram.is_flagged(rest) {
        return false;
    }
    for (i, byte) in value.to_le_bytes().into_iter().take(bytes as usize).enumerate() {
        ram.store(if i < first { at + i } else { rest + i - first }, [byte]);
    }
    true
}
