//! A frozen image of RAM: what it held at one instant, kept while the guest writes on (copy before write).
//!
//! Invariant: a page of the image reads as it was when it was frozen until it is let go, whatever is written, and also
//! when the guest begins again in other memory.

use super::{PAGE, Ram, flag};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use pollux_machine::Memory;

/// What is kept for the sake of an image.
#[derive(Default)]
pub(super) struct Frozen {
    is_there: bool,
    /// Former contents of pages written since; `None` is zeros that nobody had written.
    copies: BTreeMap<u32, Option<Box<[u8; PAGE]>>>,
    /// The memory that the image is of, and which of its pages were ever written, if the guest has begun again since.
    life: Option<(Memory, Vec<u64>)>,
}

impl Frozen {
    /// The guest begins again in other memory; returns the old one if no image is of it.
    pub(super) fn outlive(&mut self, memory: Memory, written: Vec<u64>) -> Option<Memory> {
        if !self.is_there || self.life.is_some() {
            return Some(memory);
        }
        self.life = Some((memory, written));
        None
    }
}

impl Ram {
    /// Freezes an image of RAM as it is: from now on the first write to a page keeps a copy of what it held, so that
    /// [`Ram::frozen_page`] goes on showing this instant. Costs one pass over the flags. Let a former image go first.
    pub(crate) fn freeze(&mut self) {
        self.frozen.is_there = true;
        self.flags.iter_mut().for_each(|f| *f |= flag::FROZEN);
    }

    /// Keeps what a page holds before it is written.
    pub(super) fn keep_frozen(&mut self, page: usize) {
        let content = if self.is_written(page) { self.page(page) } else { None };
        let copy = content.map(|content| Box::new(*content));
        self.frozen.copies.insert(page as u32, copy);
    }

    /// A page as it was at [`Ram::freeze`]; `None`: zeros, or not in RAM.
    pub(crate) fn frozen_page(&self, page: u32) -> Option<&[u8; PAGE]> {
        if let Some(copy) = self.frozen.copies.get(&page) {
            return copy.as_deref();
        }
        let page = page as usize;
        match &self.frozen.life {
            None => self.page(page).filter(|_| self.is_written(page)),
            Some((memory, written)) => {
                let is_written = written.get(page / 64).is_some_and(|word| word >> (page % 64) & 1 != 0);
                let bytes = memory.get(page.checked_mul(PAGE)?..)?;
                bytes.first_chunk().filter(|_| is_written)
            }
        }
    }

    /// Lets one page of the image go: nobody reads it any more, and a write to it keeps nothing.
    pub(crate) fn release_frozen(&mut self, page: u32) {
        self.frozen.copies.remove(&page);
        if let (None, Some(flags)) = (&self.frozen.life, self.flags.get_mut(page as usize)) {
            *flags &= !flag::FROZEN;
        }
    }

    /// Lets the image go; returns the memory that was kept for it alone.
    pub(crate) fn thaw(&mut self) -> Option<Memory> {
        let frozen = core::mem::take(&mut self.frozen);
        if frozen.is_there {
            self.flags.iter_mut().for_each(|f| *f &= !flag::FROZEN);
        }
        frozen.life.map(|(memory, _)| memory)
    }

    fn is_written(&self, page: usize) -> bool {
        self.written.get(page / 64).is_some_and(|word| word >> (page % 64) & 1 != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ram::RAM_BASE;
    use pollux_vocab::{GuestAddr, PAGE_BYTES};

    const BASE: GuestAddr = GuestAddr(RAM_BASE);

    #[test]
    fn a_frozen_image_keeps_showing_the_instant_it_was_frozen_at() {
        let mut ram = Ram::new(3 * PAGE_BYTES);
        ram.write_u64(BASE, 1).unwrap();
        ram.freeze();
        ram.write_u64(BASE, 2).unwrap();
        ram.write_u64(BASE, 3).unwrap();
        ram.write_u64(GuestAddr(RAM_BASE + PAGE_BYTES), 4).unwrap();
        assert_eq!(ram.frozen_page(0).unwrap()[0], 1);
        assert_eq!(ram.frozen_page(1), None, "zeros that nobody had written");
        assert_eq!(ram.read_u64(BASE).unwrap(), 3);
        assert_eq!(ram.thaw().map(|memory| memory.len()), None);
        assert_eq!(ram.frozen_page(0).unwrap()[0], 3);
    }

    #[test]
    fn a_page_that_was_let_go_is_kept_no_more() {
        let mut ram = Ram::new(2 * PAGE_BYTES);
        ram.write_u64(BASE, 1).unwrap();
        ram.freeze();
        ram.write_u64(BASE, 2).unwrap();
        ram.release_frozen(0);
        ram.release_frozen(1);
        assert!(ram.frozen.copies.is_empty());
        ram.write_u64(BASE, 3).unwrap();
        ram.write_u64(GuestAddr(RAM_BASE + PAGE_BYTES), 4).unwrap();
        assert!(ram.frozen.copies.is_empty());
    }

    #[test]
    fn an_image_outlives_the_memory_that_the_guest_begins_again_in() {
        let mut ram = Ram::new(2 * PAGE_BYTES);
        ram.write_u64(BASE, 1).unwrap();
        ram.freeze();
        ram.write_u64(GuestAddr(RAM_BASE + PAGE_BYTES), 2).unwrap();
        assert!(ram.replace(Ram::new(2 * PAGE_BYTES)).is_none(), "kept");
        ram.write_u64(BASE, 9).unwrap();
        assert_eq!(ram.frozen_page(0).unwrap()[0], 1);
        assert_eq!(ram.frozen_page(1), None);
        assert!(ram.replace(Ram::new(2 * PAGE_BYTES)).is_some(), "no image is of the second life");
        assert_eq!(ram.thaw().map(|memory| memory.len()), Some(2 * PAGE));
        assert!(ram.replace(Ram::new(2 * PAGE_BYTES)).is_some());
    }
}
