//! Page tables in RAM: which pages walks have read entries from, and what a store to one makes stale.
//!
//! Invariant (DESIGN 2.1): whatever was cached from an entry is dropped before the next instruction when the entry
//! changes. To drop little, it is known what a table was used as; to watch little, a page that holds no valid entry any
//! more is no table.
//!
//! Not here: the walk and what is cached (`mmu`).

use super::{PAGE, RAM_BASE, Ram, flag};
use pollux_vocab::PAGE_BYTES;

/// What a page with page-table entries has been used as by walks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TablePlace {
    /// The table where walks begin.
    Root,
    /// A table of the last level for one place alone: the virtual address that its first entry translates.
    Last(u64),
    /// Anything else.
    Other,
}

/// What a store to a page-table entry made stale.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum StaleTranslation {
    /// A virtual page, in every address space.
    Page {
        /// Its first byte.
        addr: u64,
        /// Whether instructions could be fetched from it.
        is_executable: bool,
    },
    /// Address spaces with this root: its guest physical address.
    Space(u64),
}

/// More stale translations than this at once make all translations stale.
const STALE_PAGES_MAX: usize = 64;
/// Every so many writes to tables it is looked whether the page is still one.
const TABLE_CHECK_WRITES: u32 = 16;
/// After so many writes to flagged tables it is found out anew which pages are tables.
const TABLE_WRITES_MAX: u32 = 8192;

impl Ram {
    /// Notes what a write to a page with `PAGE_TABLE` set, and perhaps `ROOT`, makes stale.
    pub(super) fn before_table_write(&mut self, at: usize, new: &[u8]) {
        self.table_writes += 1;
        // What is no table any more, but was one, is written to more often than tables are.
        if self.table_writes >= TABLE_WRITES_MAX {
            return self.note_stale(None);
        }
        let page = at / PAGE;
        if self.flags[page] & flag::ROOT != 0 && at % PAGE + new.len() > PAGE / 2 {
            self.flags[page] &= !flag::ROOT;
            self.note_stale(Some(StaleTranslation::Space(RAM_BASE + (page * PAGE) as u64)));
        }
        if self.changes_valid_entry(at, new) {
            self.note_stale(self.behind_entry(at, new.len()));
            if self.table_places[page] == TablePlace::Root {
                // With the address spaces goes all that was read from here.
                self.flags[page] &= !(flag::PAGE_TABLE | flag::ROOT);
            }
        } else if self.table_writes.is_multiple_of(TABLE_CHECK_WRITES) && !self.stale {
            self.retire_table(page);
        }
    }

    /// Notes that some translations are stale, or all.
    fn note_stale(&mut self, some: Option<StaleTranslation>) {
        match some {
            Some(some) if self.stale_pages.len() < STALE_PAGES_MAX => self.stale_pages.push(some),
            _ => self.stale_translations = true,
        }
        self.stale = true;
    }

    /// Takes a page for a table no more if it holds no valid entry: nothing that is cached was read from it then. An
    /// operating system clears a table before it uses the page for something else.
    fn retire_table(&mut self, page: usize) {
        if self.has_no_valid_entry(page) {
            self.flags[page] &= !flag::PAGE_TABLE;
        }
    }

    fn has_no_valid_entry(&self, page: usize) -> bool {
        self.bytes[page * PAGE..(page + 1) * PAGE].iter().step_by(8).all(|low| low & 1 == 0)
    }

    /// What the page-table entries at `at` translate, if that is not too much.
    fn behind_entry(&self, at: usize, len: usize) -> Option<StaleTranslation> {
        const EXECUTABLE: u8 = 1 << 3;
        match self.table_places[at / PAGE] {
            TablePlace::Root => Some(StaleTranslation::Space(RAM_BASE + (at - at % PAGE) as u64)),
            TablePlace::Last(first) if len == 8 && at.is_multiple_of(8) => Some(StaleTranslation::Page {
                addr: first | (at % PAGE / 8 * PAGE) as u64,
                is_executable: self.bytes[at] & EXECUTABLE != 0,
            }),
            _ => None,
        }
    }

    /// Whether writing `new` at `at` changes a page-table entry with its V bit set through which something may have
    /// been cached. Entries with V clear are never cached, so making one valid leaves nothing stale.
    fn changes_valid_entry(&self, at: usize, new: &[u8]) -> bool {
        if self.bytes[at..at + new.len()] == *new {
            return false;
        }
        (at & !7..at + new.len())
            .step_by(8)
            .any(|entry| self.bytes[entry] & 1 != 0 && !self.leads_to_nothing(entry))
    }

    /// Whether the page-table entry at `at` points to a table without valid entries: whatever was cached through it was
    /// dropped when those went. An operating system empties a table before it takes it out.
    fn leads_to_nothing(&self, at: usize) -> bool {
        const LEAF: u64 = 0xe;
        let entry = u64::from_le_bytes(self.load(at));
        let table = self.offset(entry >> 10 << 12, PAGE_BYTES);
        entry & LEAF == 0 && table.is_some_and(|table| self.has_no_valid_entry(table / PAGE))
    }

    /// Flags the page of the entry at `at` as one that translations were cached from.
    #[inline]
    pub(crate) fn mark_table(&mut self, at: usize, place: TablePlace) {
        let page = at / PAGE;
        if self.flags[page] & flag::PAGE_TABLE == 0 {
            self.flags[page] |= flag::PAGE_TABLE;
            self.flagged += 1;
            self.table_pages.push(page as u32);
            self.table_places[page] = place;
        } else if self.table_places[page] != place {
            self.table_places[page] = TablePlace::Other;
        }
    }

    /// Flags the table at this guest physical address as one whose upper half is known by its content: any change there
    /// makes the address spaces stale that begin with it.
    pub(crate) fn mark_root(&mut self, root: u64) {
        if let Some(at) = self.offset(root, PAGE_BYTES) {
            let page = at / PAGE;
            if self.flags[page] & flag::PAGE_TABLE == 0 {
                self.mark_table(at, TablePlace::Root);
            }
            self.flags[page] |= flag::ROOT;
        }
    }

    /// Flags every page as free of cached translations: the caller drops them all.
    pub(crate) fn forget_tables(&mut self) {
        for page in self.table_pages.drain(..) {
            self.flags[page as usize] &= !(flag::PAGE_TABLE | flag::ROOT);
        }
        self.table_writes = 0;
        self.stale_translations = false;
        self.stale_pages.clear();
        self.stale = !self.stale_code.is_empty();
    }

    /// Takes one of the stale translations, unless all are.
    pub(crate) fn take_stale_translation(&mut self) -> Option<StaleTranslation> {
        if self.stale_translations {
            return None;
        }
        let page = self.stale_pages.pop();
        self.stale = !self.stale_pages.is_empty() || !self.stale_code.is_empty();
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pollux_vocab::GuestAddr;

    const BASE: GuestAddr = GuestAddr(RAM_BASE);

    #[test]
    fn only_a_change_to_a_valid_entry_makes_translations_stale() {
        let mut ram = Ram::new(PAGE_BYTES);
        ram.mark_table(0, TablePlace::Other);
        ram.write_u64(BASE, 0x11).unwrap();
        assert!(!ram.stale_translations(), "the entry was invalid before");
        ram.write_u64(BASE, 0x11).unwrap();
        assert!(!ram.stale_translations(), "the entry did not change");
        ram.write(GuestAddr(RAM_BASE + 1), &[5]).unwrap();
        assert!(ram.stale_translations(), "one byte of a valid entry changed");
        ram.forget_tables();
        assert!(!ram.is_stale());
    }

    #[test]
    fn taking_out_an_empty_table_makes_nothing_stale_and_taking_out_another_does() {
        let pointer = (RAM_BASE + PAGE_BYTES) >> 12 << 10 | 1;
        for (last_entry, is_stale) in [(0, false), (2, false), (1, true)] {
            let mut ram = Ram::new(2 * PAGE_BYTES);
            ram.write_u64(BASE, pointer).unwrap();
            ram.write_u64(GuestAddr(RAM_BASE + 2 * PAGE_BYTES - 8), last_entry).unwrap();
            ram.mark_table(0, TablePlace::Other);
            ram.write_u64(BASE, 0).unwrap();
            assert_eq!(ram.stale_translations(), is_stale, "{last_entry}");
        }
        // A leaf that happens to map such a page is another matter.
        let mut ram = Ram::new(2 * PAGE_BYTES);
        ram.write_u64(BASE, pointer | 2).unwrap();
        ram.mark_table(0, TablePlace::Other);
        ram.write_u64(BASE, 0).unwrap();
        assert!(ram.stale_translations());
    }

    #[test]
    fn any_change_to_a_half_that_is_known_by_its_content_is_noticed_even_if_no_entry_was_valid() {
        let mut ram = Ram::new(PAGE_BYTES);
        ram.mark_root(RAM_BASE);
        for _ in 0..TABLE_CHECK_WRITES {
            ram.write_u64(BASE, 2).unwrap();
        }
        assert!(!ram.is_stale(), "that is the other half");
        ram.write_u64(GuestAddr(RAM_BASE + PAGE_BYTES - 8), 1).unwrap();
        assert_eq!(ram.take_stale_translation(), Some(StaleTranslation::Space(RAM_BASE)));
    }

    #[test]
    fn a_page_that_holds_no_valid_entry_any_more_counts_as_a_table_no_longer() {
        let mut ram = Ram::new(PAGE_BYTES);
        ram.mark_table(0, TablePlace::Other);
        for _ in 0..TABLE_CHECK_WRITES {
            ram.write_u64(BASE, 2).unwrap();
        }
        ram.write_u64(BASE, 1).unwrap();
        ram.write_u64(BASE, 0).unwrap();
        assert!(!ram.stale_translations(), "what it holds means nothing to anybody");
        ram.mark_table(0, TablePlace::Other);
        ram.write_u64(BASE, 1).unwrap();
        for _ in 0..TABLE_CHECK_WRITES {
            ram.write_u64(GuestAddr(RAM_BASE + 8), 2).unwrap();
        }
        ram.write_u64(BASE, 0).unwrap();
        assert!(ram.stale_translations(), "it held a valid entry all the time");
    }

    #[test]
    fn a_changed_entry_of_a_last_table_makes_its_page_stale_and_no_other() {
        const PAGE_3: GuestAddr = GuestAddr(RAM_BASE + 3 * 8);
        let changed = |places: &[TablePlace], old: u64, bytes: usize| {
            let mut ram = Ram::new(PAGE_BYTES);
            ram.write_u64(PAGE_3, old).unwrap();
            places.iter().for_each(|&place| ram.mark_table(0, place));
            ram.write(PAGE_3, &[0; 8][..bytes]).unwrap();
            (ram.take_stale_translation(), ram.is_stale())
        };
        let place = TablePlace::Last(0x20_0000);
        let page = |is_executable| Some(StaleTranslation::Page { addr: 0x20_3000, is_executable });
        assert_eq!(changed(&[place, place], 0x7, 8), (page(false), false));
        assert_eq!(changed(&[place], 0xf, 8), (page(true), false));
        let all = (None, true);
        assert_eq!(changed(&[place, TablePlace::Last(0x40_0000)], 0x7, 8), all, "two places share the table");
        assert_eq!(changed(&[place, TablePlace::Other], 0x7, 8), all, "it is a table of another level, too");
        assert_eq!(changed(&[place], 0x7, 4), all, "not the entry as a whole");
        let space = (Some(StaleTranslation::Space(RAM_BASE)), false);
        assert_eq!(changed(&[TablePlace::Root; 2], 0x7, 4), space);
        assert_eq!(changed(&[TablePlace::Root, place], 0x7, 8), all, "it is a root and a last table");
    }
}
