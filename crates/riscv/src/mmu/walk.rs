//! The page-table walk of Sv39 and Sv48 (privileged specification, "Virtual Address Translation Process").
//!
//! Choices where the specification leaves one: accessed and dirty bits are set by the walk itself (Svadu), just before
//! the access they stand for, or faults (Svade), as `menvcfg.ADUE` says. All memory is of one type, whatever Svpbmt says
//! of it. Of the sixteen entries of a Svnapot page each stands for its own 4 KiB. Every entry read is subject to PMP as a
//! supervisor access.

use crate::hart::pmp::Pmp;
use crate::hart::{Access, Mode};
use crate::ram::{Ram, TablePlace};

/// `satp` MODE values (privileged specification, table "Encoding of satp MODE field").
pub(crate) const SATP_SV39: u64 = 8;
pub(crate) const SATP_SV48: u64 = 9;
/// `satp` PPN: the page where walks begin.
const SATP_PPN: u64 = 0xfff_ffff_ffff;

/// The guest physical address of the table where walks under this `satp` begin.
pub(crate) fn root(satp: u64) -> Option<u64> {
    matches!(satp >> 60, SATP_SV39 | SATP_SV48).then_some((satp & SATP_PPN) << 12)
}

/// Page-table entry bits.
pub(crate) mod pte {
    pub(crate) const V: u64 = 1;
    pub(crate) const R: u64 = 1 << 1;
    pub(crate) const W: u64 = 1 << 2;
    pub(crate) const X: u64 = 1 << 3;
    pub(crate) const U: u64 = 1 << 4;
    pub(crate) const A: u64 = 1 << 6;
    pub(crate) const D: u64 = 1 << 7;
    /// Physical page number.
    pub(crate) const PPN_MASK: u64 = 0xfff_ffff_ffff;
    /// Bits 60:54.
    pub(crate) const RESERVED: u64 = 0x1fc0_0000_0000_0000;
    /// Svpbmt: the memory type. All ones is reserved.
    pub(crate) const PBMT: u64 = 3 << 61;
    /// Svnapot: one of the entries of a larger page.
    pub(crate) const N: u64 = 1 << 63;
}

/// The page's number within a 64 KiB page, and what an entry has there to say that it is of one.
const NAPOT_MASK: u64 = 0xf000;
const NAPOT_64K: u64 = 0x8000;

/// Why a translation failed; the kind of access decides the exception code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    Page,
    Access,
}

/// What an access is and on whose behalf.
#[derive(Clone, Copy)]
pub(crate) struct Request {
    pub(crate) satp: u64,
    pub(crate) mode: Mode,
    pub(crate) sum: bool,
    pub(crate) mxr: bool,
    pub(crate) access: Access,
    /// Whether the access happens, and its accessed and dirty bits are to be set. Without, the walk fails where one is
    /// missing, and changes nothing.
    pub(crate) happens: bool,
    /// Whether the walk sets accessed and dirty bits (Svadu); else it faults (Svade).
    pub(crate) sets_bits: bool,
    /// Whether entries may name memory types (Svpbmt).
    pub(crate) has_types: bool,
}

impl Request {
    /// Whether an entry is one that the specification leaves no meaning.
    fn is_reserved(&self, entry: u64) -> bool {
        let kind = entry & pte::PBMT;
        entry & pte::RESERVED != 0 || kind == pte::PBMT || (kind != 0 && !self.has_types)
    }

    /// Whether a leaf entry allows the access.
    fn allowed(&self, entry: u64) -> bool {
        let user_page = entry & pte::U != 0;
        let who = match self.mode {
            Mode::User => user_page,
            _ => !user_page || (self.sum && self.access != Access::Fetch),
        };
        let what = match self.access {
            Access::Fetch => entry & pte::X != 0,
            Access::Load => entry & pte::R != 0 || (self.mxr && entry & pte::X != 0),
            Access::Store => entry & pte::W != 0,
        };
        who && what
    }
}

/// Translates `addr` to a physical address, setting accessed and dirty bits, and flags the table pages read.
/// PMP for the final access is the caller's to check.
pub(crate) fn walk(ram: &mut Ram, pmp: &Pmp, request: &Request, addr: u64) -> Result<u64, Fault> {
    let levels = match request.satp >> 60 {
        SATP_SV39 => 3,
        SATP_SV48 => 4,
        _ => return Ok(addr),
    };
    let unused = 64 - (12 + 9 * levels);
    if ((addr as i64) << unused >> unused) as u64 != addr {
        return Err(Fault::Page);
    }
    let mut table = root(request.satp).unwrap_or_default();
    for level in (0..levels).rev() {
        let entry_addr = table + (addr >> (12 + 9 * level) & 0x1ff) * 8;
        if !pmp.allows(entry_addr, 8, Access::Load, Mode::Supervisor) {
            return Err(Fault::Access);
        }
        let at = ram.offset(entry_addr, 8).ok_or(Fault::Access)?;
        let entry = u64::from_le_bytes(ram.load(at));
        if entry & pte::V == 0 || entry & (pte::R | pte::W) == pte::W || request.is_reserved(entry) {
            return Err(Fault::Page);
        }
        let mut target = (entry >> 10 & pte::PPN_MASK) << 12;
        if entry & (pte::R | pte::X) == 0 {
            if entry & (pte::U | pte::A | pte::D | pte::PBMT | pte::N) != 0 {
                return Err(Fault::Page);
            }
            let place = if level == levels - 1 { TablePlace::Root } else { TablePlace::Other };
            ram.mark_table(at, place);
            table = target;
            continue;
        }
        let offset_mask = (1u64 << (12 + 9 * level)) - 1;
        if entry & pte::N != 0 {
            // There is one larger size: 64 KiB, of entries of the last level.
            if level != 0 || target & NAPOT_MASK != NAPOT_64K {
                return Err(Fault::Page);
            }
            target = target & !NAPOT_MASK | addr & NAPOT_MASK;
        }
        if target & offset_mask != 0 || !request.allowed(entry) {
            return Err(Fault::Page);
        }
        let wanted = if request.access == Access::Store { pte::A | pte::D } else { pte::A };
        if entry & wanted != wanted {
            if !request.sets_bits {
                return Err(Fault::Page);
            }
            if !request.happens || !pmp.allows(entry_addr, 8, Access::Store, Mode::Supervisor) {
                return Err(Fault::Access);
            }
            ram.store_pte(at, entry | wanted);
        }
        let place = match level {
            // An entry of the last level stands for one page.
            0 => TablePlace::Last(addr & !0x1f_ffff),
            _ if level == levels - 1 => TablePlace::Root,
            _ => TablePlace::Other,
        };
        ram.mark_table(at, place);
        return Ok(target | addr & offset_mask);
    }
    Err(Fault::Page)
}
