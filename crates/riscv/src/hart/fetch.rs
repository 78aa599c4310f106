//! Instruction fetch off the fast path: translating a page of code, decoding a slot, instructions that straddle
//! two pages, and the reset code in ROM.
//!
//! Invariant: a fetch that faults has no effect but its exception; an instruction's second halfword is only
//! fetched if the first says that there is one. Instructions are fetched from RAM and ROM alone.

use super::code::{CodeCache, Packed};
use super::execute::Env;
use super::memory::translate;
use super::trap::{Exception, cause};
use super::{Access, Hart};
use crate::board::ROM_BASE;
use crate::mmu::PAGE_MASK;
use crate::ram::{PAGE, Ram};
use pollux_isa::{decode, decode_compressed, is_compressed};

const PAGE_BYTES: u64 = PAGE as u64;
/// Size of the board's ROM.
const ROM_BYTES: u64 = 0xf000;

fn fault(addr: u64) -> Exception {
    Exception { cause: cause::FETCH_ACCESS, tval: addr }
}

/// The physical address of the instruction halfword at `addr`, if it may be fetched.
fn translate_fetch(hart: &mut Hart, ram: &mut Ram, addr: u64) -> Result<u64, Exception> {
    let physical = translate(hart, ram, addr, Access::Fetch, true)?;
    check_fetch(hart, ram, addr, physical)
}

fn check_fetch(hart: &Hart, ram: &Ram, addr: u64, physical: u64) -> Result<u64, Exception> {
    check_pmp(hart, addr, physical)?;
    let in_rom = (ROM_BASE..ROM_BASE + ROM_BYTES).contains(&physical);
    if in_rom || ram.offset(physical, 2).is_some() { Ok(physical) } else { Err(fault(addr)) }
}

fn check_pmp(hart: &Hart, addr: u64, physical: u64) -> Result<(), Exception> {
    if hart.pmp.allows(physical, 2, Access::Fetch, hart.mode) { Ok(()) } else { Err(fault(addr)) }
}

/// A halfword of RAM or ROM.
fn half_at(ram: &mut Ram, env: &mut Env<'_>, physical: u64) -> u16 {
    match ram.offset(physical, 2) {
        Some(at) => u16::from_le_bytes(ram.load(at)),
        None => {
            let now = env.time();
            env.board.read(ram, now, physical, 2).unwrap_or(0) as u16
        }
    }
}

/// Translates the page of `hart.pc` and makes the fast path find it.
pub(crate) fn fill(hart: &mut Hart, ram: &mut Ram, code: &mut CodeCache) -> Result<(), Exception> {
    let pc = hart.pc;
    let physical = translate_fetch(hart, ram, pc)?;
    let page = physical & PAGE_MASK;
    let whole = hart.pmp.allows(page, PAGE_BYTES, Access::Fetch, hart.mode);
    let code_page = match ram.offset(page, PAGE_BYTES) {
        Some(at) if whole => code.page_for(ram, at / PAGE, page),
        _ => code.uncached_page_for(page),
    };
    hart.tlb.cache_fetch(pc, &hart.fetches, code_page);
    Ok(())
}

/// The same for the page of `pc`, wherever the hart is, as long as it needs no new decoded page and sets no accessed
/// bit, which may be one in code; returns whether it did. A fetch that faults is left to [`fill`].
pub(crate) fn refill(hart: &mut Hart, ram: &mut Ram, code: &CodeCache, pc: u64) -> bool {
    let translated = translate(hart, ram, pc, Access::Fetch, false);
    let checked = translated.and_then(|physical| check_fetch(hart, ram, pc, physical));
    let Ok(physical) = checked else { return false };
    let page = physical & PAGE_MASK;
    let whole = hart.pmp.allows(page, PAGE_BYTES, Access::Fetch, hart.mode);
    match ram.offset(page, PAGE_BYTES).and_then(|at| code.known_page(at / PAGE)) {
        Some(code_page) if whole => {
            hart.tlb.cache_fetch(pc, &hart.fetches, code_page);
            true
        }
        _ => false,
    }
}

/// Decodes the instruction at `pc`, which lies in decoded page `code_page`, and caches it there if it may.
#[cold]
#[inline(never)]
pub(super) fn decode_at(
    hart: &mut Hart,
    ram: &mut Ram,
    env: &mut Env<'_>,
    code_page: u32,
    pc: u64,
) -> Result<Packed, Exception> {
    let in_page = pc % PAGE_BYTES;
    let physical = env.code.physical(code_page) + in_page;
    check_pmp(hart, pc, physical)?;
    let low = half_at(ram, env, physical);
    let (inst, bits) = if is_compressed(low) {
        (decode_compressed(low), u32::from(low))
    } else {
        let next = pc.wrapping_add(2);
        let second = if in_page + 2 < PAGE_BYTES {
            check_pmp(hart, next, physical + 2)?;
            physical + 2
        } else {
            translate_fetch(hart, ram, next)?
        };
        let word = u32::from(low) | u32::from(half_at(ram, env, second)) << 16;
        (decode(word), word)
    };
    let inst = inst.ok_or(Exception::illegal(bits))?;
    let packed = Packed::new(&inst);
    if in_page + u64::from(inst.len) <= PAGE_BYTES {
        env.code.remember(code_page, in_page as usize / 2, packed);
        // The page may have been taken for data in between.
        if let Some(at) = ram.offset(physical & PAGE_MASK, PAGE_BYTES) {
            ram.mark_code(at / PAGE);
        }
    }
    Ok(packed)
}

/// The bits of the instruction at `pc`, for `mtval` of an illegal-instruction exception. It has just been
/// fetched, so this cannot fault; if it does all the same, 0 is a legal answer.
pub(super) fn bits_at(hart: &mut Hart, ram: &mut Ram, env: &mut Env<'_>, pc: u64) -> u32 {
    let Ok(physical) = translate_fetch(hart, ram, pc) else { return 0 };
    let low = half_at(ram, env, physical);
    if is_compressed(low) {
        return u32::from(low);
    }
    let Ok(second) = translate_fetch(hart, ram, pc.wrapping_add(2)) else { return 0 };
    u32::from(low) | u32::from(half_at(ram, env, second)) << 16
}
