//! Instruction fetch off the fast path: translating a page of code, decoding a slot, and instructions that
//! straddle two pages.
//!
//! Invariant: a fetch that faults has no effect but its exception; an instruction's second halfword is only
//! fetched if the first says that there is one.

use super::code::{CodeCache, Packed};
use super::memory::translate;
use super::trap::{Exception, cause};
use super::{Access, Hart};
use crate::mmu::{FetchEntry, PAGE_MASK, Tlb};
use crate::ram::{PAGE, Ram};
use core::sync::atomic::Ordering;
use pollux_isa::{decode, decode_compressed, is_compressed};

/// The offset in RAM of the instruction halfword at `addr`.
fn translate_fetch(hart: &mut Hart, ram: &mut Ram, addr: u64) -> Result<usize, Exception> {
    let physical = translate(hart, ram, addr, Access::Fetch)?;
    let fault = Exception { cause: cause::FETCH_ACCESS, tval: addr };
    if !hart.pmp.allows(physical, 2, Access::Fetch, hart.mode) {
        return Err(fault);
    }
    ram.offset(physical, 2).ok_or(fault)
}

/// Translates the page of `hart.pc` and makes the fast path find it.
pub(crate) fn fill(hart: &mut Hart, ram: &mut Ram, code: &mut CodeCache) -> Result<(), Exception> {
    let pc = hart.pc;
    let at = translate_fetch(hart, ram, pc)?;
    let ram_page = at / PAGE;
    let uniform = hart.pmp.allows(page_addr(at), PAGE as u64, Access::Fetch, hart.mode);
    let code_page = if uniform { code.page_for(ram, ram_page) } else { code.uncached_page_for(ram_page) };
    hart.tlb.fetch[Tlb::slot(pc)] = FetchEntry { tag: pc & PAGE_MASK | hart.fetch_context, code_page };
    Ok(())
}

/// Decodes the instruction at `pc`, which lies in decoded page `code_page`, and caches it there if it may.
#[cold]
#[inline(never)]
pub(super) fn decode_at(
    hart: &mut Hart,
    ram: &mut Ram,
    code: &CodeCache,
    code_page: u32,
    pc: u64,
) -> Result<Packed, Exception> {
    let in_page = (pc % PAGE as u64) as usize;
    let at = code.ram_page(code_page) * PAGE + in_page;
    check_pmp(hart, pc, at)?;
    let low = u16::from_le_bytes(ram.load(at));
    let (inst, bits) = if is_compressed(low) {
        (decode_compressed(low), u32::from(low))
    } else {
        let next = pc.wrapping_add(2);
        let second = if in_page + 2 < PAGE {
            check_pmp(hart, next, at + 2)?;
            at + 2
        } else {
            translate_fetch(hart, ram, next)?
        };
        let word = u32::from(low) | u32::from(u16::from_le_bytes(ram.load(second))) << 16;
        (decode(word), word)
    };
    let inst = inst.ok_or(Exception::illegal(bits))?;
    let packed = Packed::new(&inst);
    let whole = in_page + usize::from(inst.len) <= PAGE;
    if whole
        && hart.pmp.allows(page_addr(at), PAGE as u64, Access::Fetch, hart.mode)
        && let Some(page) = code.page(code_page)
    {
        page[in_page / 2].store(packed.0, Ordering::Relaxed);
    }
    Ok(packed)
}

fn page_addr(at: usize) -> u64 {
    crate::ram::RAM_BASE + (at - at % PAGE) as u64
}

fn check_pmp(hart: &Hart, addr: u64, at: usize) -> Result<(), Exception> {
    let physical = crate::ram::RAM_BASE + at as u64;
    if hart.pmp.allows(physical, 2, Access::Fetch, hart.mode) {
        Ok(())
    } else {
        Err(Exception { cause: cause::FETCH_ACCESS, tval: addr })
    }
}

/// The bits of the instruction at `pc`, for `mtval` of an illegal-instruction exception. It has just been
/// fetched, so this cannot fault; if it does all the same, 0 is a legal answer.
pub(super) fn bits_at(hart: &mut Hart, ram: &mut Ram, pc: u64) -> u32 {
    let Ok(at) = translate_fetch(hart, ram, pc) else { return 0 };
    let low = u16::from_le_bytes(ram.load(at));
    if is_compressed(low) {
        return u32::from(low);
    }
    let Ok(at) = translate_fetch(hart, ram, pc.wrapping_add(2)) else { return 0 };
    u32::from(low) | u32::from(u16::from_le_bytes(ram.load(at))) << 16
}
