//! Upper halves of address spaces, known by content.
//!
//! Why: an operating system puts itself into the upper half of every address space, through the same tables. Were each
//! address space on its own, a new process would begin with nothing of the kernel in the TLB.
//!
//! Invariant (DESIGN 2.1): two upper halves are taken for the same only if the walk does the same in both: all their
//! entries in the root table are equal, none of them is a leaf (whose accessed bit would be each root's own), and the
//! root may be read. The root is flagged, so that the next write to that half is noticed, whatever it changes; an upper
//! half that changes is another one. What lies below is watched as every other table is.
//!
//! Not here: contexts (`mmu`).

use super::walk::{pte, root};
use crate::hart::pmp::Pmp;
use crate::hart::{Access, Mode};
use crate::ram::Ram;
use alloc::boxed::Box;
use alloc::vec::Vec;
use pollux_vocab::GuestAddr;

/// Bytes of the upper half's entries.
const BYTES: u64 = 2048;
/// Upper halves remembered.
const UPPERS_MAX: usize = 4;
/// MODE of what stands for an upper half: no `satp` has it.
const MODE: u64 = 0xf << 60;

/// An upper half.
struct Upper {
    /// `satp` MODE.
    mode: u64,
    entries: Box<[u8]>,
    id: u64,
}

/// Those that are remembered, the one used last at the end.
#[derive(Default)]
pub(super) struct Uppers {
    known: Vec<Upper>,
    newest: u64,
}

impl Uppers {
    /// What stands for the upper half of the address space of `satp`, if it can be shared.
    pub(super) fn identify(&mut self, ram: &mut Ram, pmp: &Pmp, satp: u64) -> Option<u64> {
        let root = root(satp)?;
        let mode = satp >> 60;
        let entries = ram.slice(GuestAddr(root + BYTES), BYTES)?;
        if !pmp.allows(root + BYTES, BYTES, Access::Load, Mode::Supervisor) {
            return None;
        }
        match self.known.iter().rposition(|upper| upper.mode == mode && *upper.entries == *entries) {
            Some(known) => {
                let upper = self.known.remove(known);
                self.known.push(upper);
            }
            None if has_leaf(entries) => return None,
            None => {
                if self.known.len() == UPPERS_MAX {
                    self.known.remove(0);
                }
                self.newest += 1;
                self.known.push(Upper { mode, entries: entries.into(), id: MODE | self.newest });
            }
        }
        ram.mark_root(root);
        self.known.last().map(|upper| upper.id)
    }
}

fn has_leaf(entries: &[u8]) -> bool {
    let leaf = pte::R | pte::W | pte::X;
    let (entries, _) = entries.as_chunks::<8>();
    entries
        .iter()
        .map(|entry| u64::from_le_bytes(*entry))
        .any(|entry| entry & pte::V != 0 && entry & leaf != 0)
}
