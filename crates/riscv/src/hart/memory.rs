//! Loads and stores off the fast path: translation, misaligned and page-crossing accesses, devices, and what
//! a store makes stale.
//!
//! Choices: misaligned loads and stores to RAM work, byte order and all; one that crosses a page checks both
//! pages before it touches either. A device sees only naturally aligned accesses; others are access faults.
//! Source: unprivileged specification, "Load and Store Instructions"; privileged, "Address Translation".

use super::csr::{envcfg, status};
use super::execute::Env;
use super::trap::{Exception, cause};
use super::{Access, Hart, Mode, NO_RESERVATION};
use crate::mmu::walk::{Fault, Request, walk};
use crate::mmu::{Entry, PAGE_MASK};
use crate::ram::{PAGE, Ram};

/// The exception that a failed access of this kind raises.
fn exception(fault: Fault, access: Access, addr: u64) -> Exception {
    let cause = match (fault, access) {
        (Fault::Page, Access::Fetch) => cause::FETCH_PAGE,
        (Fault::Page, Access::Load) => cause::LOAD_PAGE,
        (Fault::Page, Access::Store) => cause::STORE_PAGE,
        (Fault::Access, Access::Fetch) => cause::FETCH_ACCESS,
        (Fault::Access, Access::Load) => cause::LOAD_ACCESS,
        (Fault::Access, Access::Store) => cause::STORE_ACCESS,
    };
    Exception { cause, tval: addr }
}

/// The mode an access runs under.
fn mode_of(hart: &Hart, access: Access) -> Mode {
    if access == Access::Fetch { hart.mode } else { hart.data_mode() }
}

/// Translates an address by walking the tables; see [`Request::happens`]. PMP of the result is the caller's to check.
pub(super) fn translate(
    hart: &mut Hart,
    ram: &mut Ram,
    addr: u64,
    access: Access,
    happens: bool,
) -> Result<u64, Exception> {
    let mode = mode_of(hart, access);
    let satp = hart.satp_for(mode);
    if satp >> 60 == 0 {
        return Ok(addr);
    }
    let mstatus = hart.csrs.mstatus;
    let (sum, mxr) = (mstatus & status::SUM != 0, mstatus & status::MXR != 0);
    let sets_bits = hart.csrs.menvcfg & envcfg::ADUE != 0;
    let has_types = hart.csrs.menvcfg & envcfg::PBMTE != 0;
    let request = Request { satp, mode, sum, mxr, access, happens, sets_bits, has_types };
    walk(ram, &hart.pmp, &request, addr).map_err(|fault| exception(fault, access, addr))
}

/// Where an access within one page goes.
pub(crate) enum Target {
    /// RAM, at this offset.
    Ram(usize),
    /// Not RAM: this physical address.
    Device(u64),
}

/// Translates an access within one page, checks PMP, and caches the translation if the whole page allows it.
pub(super) fn resolve(
    hart: &mut Hart,
    ram: &mut Ram,
    addr: u64,
    bytes: u64,
    access: Access,
) -> Result<Target, Exception> {
    let physical = translate(hart, ram, addr, access, true)?;
    check_and_cache(hart, ram, addr, physical, bytes, access)
}

/// Caches the translation of an access that has not happened, if that changes nothing else; returns whether it is one to
/// RAM that it can tell of.
pub(crate) fn foresee(hart: &mut Hart, ram: &mut Ram, addr: u64, access: Access) -> bool {
    translate(hart, ram, addr, access, false)
        .and_then(|physical| check_and_cache(hart, ram, addr, physical, 1, access))
        .is_ok_and(|target| matches!(target, Target::Ram(_)))
}

fn check_and_cache(
    hart: &mut Hart,
    ram: &Ram,
    addr: u64,
    physical: u64,
    bytes: u64,
    access: Access,
) -> Result<Target, Exception> {
    let mode = mode_of(hart, access);
    if !hart.pmp.allows(physical, bytes, access, mode) {
        return Err(exception(Fault::Access, access, addr));
    }
    let Some(at) = ram.offset(physical, bytes) else { return Ok(Target::Device(physical)) };
    if hart.pmp.allows(physical & PAGE_MASK, PAGE as u64, access, mode) {
        let entry =
            Entry { tag: addr & PAGE_MASK | hart.data.tag(addr), delta: (at as u64).wrapping_sub(addr) };
        match access {
            Access::Load => hart.tlb.read[hart.data.slot(addr)] = entry,
            _ => hart.tlb.write[hart.data.slot(addr)] = entry,
        }
    }
    Ok(Target::Ram(at))
}

/// Bytes of an access that lie in the page it starts in.
fn in_first_page(addr: u64, bytes: u64) -> u64 {
    bytes.min(PAGE as u64 - addr % PAGE as u64)
}

/// Any load, zero-extended.
#[cold]
#[inline(never)]
pub(super) fn load(
    hart: &mut Hart,
    ram: &mut Ram,
    env: &mut Env<'_>,
    addr: u64,
    bytes: u64,
) -> Result<u64, Exception> {
    let first = in_first_page(addr, bytes);
    let mut buffer = [0u8; 8];
    match resolve(hart, ram, addr, first, Access::Load)? {
        Target::Device(physical) => {
            let fault = exception(Fault::Access, Access::Load, addr);
            if physical % bytes != 0 {
                return Err(fault);
            }
            hart.reservation = NO_RESERVATION;
            env.leave = true;
            let now = env.time();
            return env.board.read(ram, now, physical, bytes as u8).ok_or(fault);
        }
        Target::Ram(at) => {
            let second_addr = addr.wrapping_add(first);
            let mut rest = 0;
            if first < bytes {
                match resolve(hart, ram, second_addr, bytes - first, Access::Load)? {
                    Target::Ram(second) => rest = second,
                    Target::Device(_) => {
                        return Err(exception(Fault::Access, Access::Load, second_addr));
                    }
                }
            }
            for i in 0..bytes {
                let from = if i < first { at + i as usize } else { rest + (i - first) as usize };
                buffer[i as usize] = ram.load::<1>(from)[0];
            }
            // The walk may have set an accessed bit in what is executed.
            settle(ram, env);
        }
    }
    Ok(u64::from_le_bytes(buffer))
}

/// Any store of the low `bytes` bytes of `value`.
#[cold]
#[inline(never)]
pub(super) fn store(
    hart: &mut Hart,
    ram: &mut Ram,
    env: &mut Env<'_>,
    addr: u64,
    bytes: u64,
    value: u64,
) -> Result<(), Exception> {
    let first = in_first_page(addr, bytes);
    match resolve(hart, ram, addr, first, Access::Store)? {
        Target::Device(physical) => {
            let fault = exception(Fault::Access, Access::Store, addr);
            if physical % bytes != 0 {
                return Err(fault);
            }
            hart.reservation = NO_RESERVATION;
            env.leave = true;
            let now = env.time();
            let value = if bytes == 8 { value } else { value & ((1 << (8 * bytes)) - 1) };
            env.board.write(ram, now, physical, bytes as u8, value).ok_or(fault)?;
        }
        Target::Ram(at) => {
            let second_addr = addr.wrapping_add(first);
            let mut rest = 0;
            if first < bytes {
                match resolve(hart, ram, second_addr, bytes - first, Access::Store)? {
                    Target::Ram(second) => rest = second,
                    Target::Device(_) => {
                        return Err(exception(Fault::Access, Access::Store, second_addr));
                    }
                }
            }
            store_ram(ram, at, &value.to_le_bytes()[..first as usize]);
            store_ram(ram, rest, &value.to_le_bytes()[first as usize..bytes as usize]);
            settle(ram, env);
        }
    }
    Ok(())
}

/// Stores a few bytes at an offset in RAM, within one page.
fn store_ram(ram: &mut Ram, at: usize, bytes: &[u8]) {
    match *bytes {
        [a, b, c, d, e, f, g, h] => _ = ram.store(at, [a, b, c, d, e, f, g, h]),
        [a, b, c, d] => _ = ram.store(at, [a, b, c, d]),
        _ => bytes.iter().enumerate().for_each(|(i, byte)| _ = ram.store(at + i, [*byte])),
    }
}

/// Drops what a store has made stale: decoded instructions here and now; translations, which other harts hold
/// too, once the inner loop has been left.
#[cold]
#[inline(never)]
pub(crate) fn settle(ram: &mut Ram, env: &mut Env<'_>) {
    if ram.is_stale() {
        env.code.drain(ram);
        env.leave |= ram.stale_translations();
    }
}
