//! The A extension, Zacas, and `cbo.zero` (which is a store of its own kind).
//!
//! Choices: a misaligned address is an address-misaligned exception; a device is an access fault; `sc`
//! succeeds if the reservation is on exactly its doubleword and was not lost (see [`Hart::reservation`]);
//! a failing `sc` touches no memory, so it cannot fault. Source: unprivileged specification, "A", "Zacas"; CMO.

use super::code::{Packed, SINK};
use super::execute::Env;
use super::memory::{Target, resolve, settle};
use super::trap::{Exception, cause};
use super::{Access, Hart, NO_RESERVATION};
use crate::ram::{RAM_BASE, Ram};
use pollux_isa::code;

/// Bytes in a cache block (CMO; told to the guest in the device tree).
pub(crate) const BLOCK_BYTES: u64 = 64;

/// Executes one instruction of the A extension.
#[inline(never)]
pub(super) fn execute(
    hart: &mut Hart,
    ram: &mut Ram,
    env: &mut Env<'_>,
    op: Packed,
) -> Result<(), Exception> {
    let kind = op.kind();
    let double = kind >= code::LrD;
    let bytes = if double { 8 } else { 4 };
    let addr = hart.x[op.rs1()];
    let reserve = kind == code::LrW || kind == code::LrD;
    if !addr.is_multiple_of(bytes) {
        let cause = if reserve { cause::LOAD_MISALIGNED } else { cause::STORE_MISALIGNED };
        return Err(Exception { cause, tval: addr });
    }
    if reserve {
        let at = in_ram(hart, ram, addr, bytes, Access::Load)?;
        hart.reservation = RAM_BASE + (at & !7) as u64;
        hart.x[op.rd()] = read(ram, at, double);
        // The walk may have set an accessed bit in what is executed.
        settle(ram, env);
        return Ok(());
    }
    let source = hart.x[op.rs2()];
    if kind == code::ScW || kind == code::ScD {
        let reserved = core::mem::replace(&mut hart.reservation, NO_RESERVATION);
        if reserved == NO_RESERVATION {
            hart.x[op.rd()] = 1;
            return Ok(());
        }
        let at = in_ram(hart, ram, addr, bytes, Access::Store)?;
        let held = reserved == RAM_BASE + (at & !7) as u64;
        if held {
            write(ram, env, at, double, source);
        }
        hart.x[op.rd()] = u64::from(!held);
        return Ok(());
    }
    let at = in_ram(hart, ram, addr, bytes, Access::Store)?;
    let old = read(ram, at, double);
    let new = combine(kind, old, if double { source } else { source as i32 as u64 });
    write(ram, env, at, double, new);
    hart.x[op.rd()] = old;
    Ok(())
}

/// Whether an `amocas.q` names half a pair of registers, which is reserved. Its rd is the sink if it was x0.
pub(super) fn is_odd(op: Packed) -> bool {
    (op.rd() | op.rs2()) & 1 != 0
}

/// Executes one instruction of Zacas. Memory must be writable whatever the comparison says.
#[inline(never)]
pub(super) fn compare_and_swap(
    hart: &mut Hart,
    ram: &mut Ram,
    env: &mut Env<'_>,
    op: Packed,
) -> Result<(), Exception> {
    let bytes = match op.kind() {
        code::AmocasW => 4,
        code::AmocasD => 8,
        _ => 16,
    };
    let addr = hart.x[op.rs1()];
    if !addr.is_multiple_of(bytes) {
        return Err(Exception { cause: cause::STORE_MISALIGNED, tval: addr });
    }
    let at = in_ram(hart, ram, addr, bytes, Access::Store)?;
    // x0 as rd is the sink, which holds anything; what is compared with is zero then.
    let is_zero = op.rd() == usize::from(SINK);
    let expected = if is_zero { 0 } else { hart.x[op.rd()] };
    if bytes < 16 {
        let double = bytes == 8;
        let old = read(ram, at, double);
        if old == if double { expected } else { expected as i32 as u64 } {
            write(ram, env, at, double, hart.x[op.rs2()]);
        }
        hart.x[op.rd()] = old;
        settle(ram, env);
        return Ok(());
    }
    let upper = |first: usize, hart: &Hart| if first == 0 { 0 } else { hart.x[first + 1] };
    let expected_upper = if is_zero { 0 } else { upper(op.rd(), hart) };
    let (low, high) = (read(ram, at, true), read(ram, at + 8, true));
    if (low, high) == (expected, expected_upper) {
        let source = (hart.x[op.rs2()], upper(op.rs2(), hart));
        write(ram, env, at, true, source.0);
        write(ram, env, at + 8, true, source.1);
    }
    hart.x[op.rd()] = low;
    if !is_zero {
        hart.x[op.rd() + 1] = high;
    }
    settle(ram, env);
    Ok(())
}

/// What an AMO stores. Words come sign-extended, which keeps both orders.
fn combine(kind: u8, old: u64, source: u64) -> u64 {
    let (signed_old, signed_source) = (old as i64, source as i64);
    match kind {
        code::AmoswapW | code::AmoswapD => source,
        code::AmoaddW | code::AmoaddD => old.wrapping_add(source),
        code::AmoxorW | code::AmoxorD => old ^ source,
        code::AmoandW | code::AmoandD => old & source,
        code::AmoorW | code::AmoorD => old | source,
        code::AmominW | code::AmominD => signed_old.min(signed_source) as u64,
        code::AmomaxW | code::AmomaxD => signed_old.max(signed_source) as u64,
        code::AmominuW | code::AmominuD => old.min(source),
        _ => old.max(source),
    }
}

fn in_ram(hart: &mut Hart, ram: &mut Ram, addr: u64, bytes: u64, access: Access) -> Result<usize, Exception> {
    let cached = if access == Access::Load { &hart.tlb.read } else { &hart.tlb.write };
    let entry = &cached[hart.data.slot(addr)];
    if entry.tag == addr & crate::mmu::PAGE_MASK | hart.data.tag(addr) {
        return Ok(addr.wrapping_add(entry.delta) as usize);
    }
    match resolve(hart, ram, addr, bytes, access)? {
        Target::Ram(at) => Ok(at),
        Target::Device(_) => {
            let cause = if access == Access::Load { cause::LOAD_ACCESS } else { cause::STORE_ACCESS };
            Err(Exception { cause, tval: addr })
        }
    }
}

fn read(ram: &Ram, at: usize, double: bool) -> u64 {
    if double { u64::from_le_bytes(ram.load(at)) } else { i32::from_le_bytes(ram.load(at)) as u64 }
}

fn write(ram: &mut Ram, env: &mut Env<'_>, at: usize, double: bool, value: u64) {
    let stale =
        if double { ram.store(at, value.to_le_bytes()) } else { ram.store(at, (value as u32).to_le_bytes()) };
    if stale {
        settle(ram, env);
    }
}

/// `cbo.zero`: zeroes the cache block around an address.
pub(super) fn zero_block(
    hart: &mut Hart,
    ram: &mut Ram,
    env: &mut Env<'_>,
    addr: u64,
) -> Result<(), Exception> {
    let block = addr & !(BLOCK_BYTES - 1);
    let at = in_ram(hart, ram, block, BLOCK_BYTES, Access::Store)
        .map_err(|exception| Exception { tval: addr, ..exception })?;
    if ram.store(at, [0u8; BLOCK_BYTES as usize]) {
        settle(ram, env);
    }
    Ok(())
}

/// Checks that a cache-block management instruction may name the block around an address: it may if a load or
/// a store may; if neither may, it is a store that faults (CMO, "Traps").
pub(super) fn check_block(hart: &mut Hart, ram: &mut Ram, addr: u64) -> Result<(), Exception> {
    let block = addr & !(BLOCK_BYTES - 1);
    if resolve(hart, ram, block, BLOCK_BYTES, Access::Load).is_ok() {
        return Ok(());
    }
    resolve(hart, ram, block, BLOCK_BYTES, Access::Store)
        .map(|_| ())
        .map_err(|exception| Exception { tval: addr, ..exception })
}
