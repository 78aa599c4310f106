//! What a case's memory accesses meet: page tables with everything wrong that can be wrong, and PMP.
//!
//! Two regions are mapped: a window of sixteen pages onto the data pages, at a random virtual address, where
//! entries are damaged; and the harness and the code at their own addresses, so that traps can be taken.

use super::{LANDING, Mode, PAGE, Writer, word_of};
use crate::record::{Case, STUB};
use pollux_isa::Opcode;

/// Pages of a case, by index.
const DATA: u64 = 2;
pub(super) const DATA_PAGES: u64 = 4;
const ROOT48: u64 = 6;
pub(super) const ROOT39: u64 = 7;
const WINDOW_MIDDLE: u64 = 8;
const WINDOW_LEAVES: u64 = 9;
const RAM_MIDDLE: u64 = 10;
const HARNESS_LEAVES: u64 = 11;
const OWN_LEAVES: u64 = 12;

// Page-table entry bits.
const V: u64 = 1;
const R: u64 = 2;
const W: u64 = 4;
const X: u64 = 8;
const U: u64 = 16;
const A: u64 = 64;
const D: u64 = 128;

impl Writer<'_> {
    /// Data pages, page tables, `satp`, PMP.
    pub(super) fn memory(&mut self) {
        for page in DATA..DATA + DATA_PAGES {
            let at = (page * PAGE) as usize;
            for word in (0..4096).step_by(64) {
                let value = self.random.next();
                self.case.set(at + word, value);
            }
            let back = word_of(Opcode::Jalr, 0, 31, 0);
            self.case.set(at + LANDING as usize, back.into());
        }
        let sv48 = self.random.chance(40);
        self.window = self.page(DATA);
        if self.paged {
            self.tables(sv48);
            let root = self.page(if sv48 { ROOT48 } else { ROOT39 }) >> 12;
            let asid = (self.random.next() & 0xffff) << 44;
            self.case.set_csr("satp", (8 + u64::from(sv48)) << 60 | asid | root);
        }
        self.protection();
    }

    fn entry(&mut self, table: u64, index: u64, value: u64) {
        self.case.set((table * PAGE + index * 8) as usize, value);
    }

    /// The window onto the data pages, with everything that can go wrong in an entry going wrong now and then,
    /// and the harness and the code at their own addresses.
    fn tables(&mut self, sv48: bool) {
        let pointer = |case: &Case, page: u64| (case.base + page * PAGE) >> 12 << 10 | V;
        let vpn: [u64; 4] = core::array::from_fn(|_| self.random.next() & 0x1ff);
        let [leaf, middle, upper, top] = vpn;
        // High up, where there is nothing for an access that is not translated.
        let (leaf, upper) = (leaf & !15, upper | 0x40);
        // Canonical: bits above the topmost index copy its own topmost bit.
        let (address, bits) = if sv48 { (top << 39 | upper << 30, 48) } else { (upper << 30, 39) };
        let address = address | middle << 21 | leaf << 12;
        self.window = ((address << (64 - bits)) as i64 >> (64 - bits)) as u64;
        let damage = |writer: &mut Self, value: u64| {
            if writer.random.chance(4) { writer.damaged(value) } else { value }
        };
        let root48 = [(0, pointer(&self.case, ROOT39)), (top, pointer(&self.case, ROOT39))];
        for (index, value) in root48 {
            let value = if index == 0 { value } else { damage(self, value) };
            self.entry(ROOT48, index, value);
        }
        let value = damage(self, pointer(&self.case, WINDOW_MIDDLE));
        self.entry(ROOT39, upper, value);
        let value = damage(self, pointer(&self.case, WINDOW_LEAVES));
        self.entry(WINDOW_MIDDLE, middle, value);
        for index in 0..16 {
            let entry = self.random_leaf();
            self.entry(WINDOW_LEAVES, leaf + index, entry);
        }
        // Identity: the harness for the supervisor, the code for whoever starts there.
        self.entry(ROOT39, 2, pointer(&self.case, RAM_MIDDLE));
        let own = self.case.base;
        let (own_middle, own_leaf) = (own >> 21 & 0x1ff, own >> 12 & 0x1ff);
        self.entry(RAM_MIDDLE, 0, pointer(&self.case, HARNESS_LEAVES));
        self.entry(HARNESS_LEAVES, 0, STUB >> 12 << 10 | V | R | X | A);
        let leaves = if own_middle == 0 { HARNESS_LEAVES } else { OWN_LEAVES };
        self.entry(RAM_MIDDLE, own_middle, pointer(&self.case, leaves));
        let user = if self.mode == Mode::User { U } else { 0 };
        let mut entry = own >> 12 << 10 | V | R | X | A | user;
        if self.random.chance(3) {
            entry = self.damaged(entry);
        }
        self.entry(leaves, own_leaf, entry);
    }

    /// A leaf entry of the window.
    fn random_leaf(&mut self) -> u64 {
        let frame = match self.random.below(20) {
            0 | 1 if self.beyond => 1 << 43 | self.random.next() & 0xffff,
            // The tables themselves.
            2 => self.page(WINDOW_LEAVES) >> 12,
            _ => {
                let page = DATA + self.random.next() % DATA_PAGES;
                self.page(page) >> 12
            }
        };
        let user = if self.mode == Mode::User { U } else { 0 };
        let mut flags = V | R | W | X | A | D | user;
        for bit in [V, R, W, X, U, A, D, 32] {
            if self.random.chance(12) {
                flags ^= bit;
            }
        }
        // Who changes tables must fence, which is another test.
        if frame == self.page(WINDOW_LEAVES) >> 12 {
            flags &= !W;
        }
        // QEMU writes accessed and dirty bits into tables that PMP does not let it write.
        if self.protects {
            flags |= A | D;
        }
        let entry = frame << 10 | flags;
        if self.random.chance(3) { entry | 1 << (54 + self.random.below(10)) } else { entry }
    }

    /// An entry with something wrong with it.
    fn damaged(&mut self, entry: u64) -> u64 {
        // Not among them: a table outside of RAM. QEMU takes that for a page fault.
        match self.random.below(5) {
            0 => entry & !V,
            // A superpage, aligned or (rather) not.
            1 => entry | R | X | A | D | U & self.random.next(),
            2 => entry | W,
            3 => entry | 1 << (54 + self.random.below(10)),
            _ => entry ^ (U | A | D) & self.random.next(),
        }
    }

    fn protection(&mut self) {
        let all = (1 << 54) - 1;
        self.case.set_csr("pmpaddr3", all);
        let mut config = 0x1f << 24;
        if self.protects {
            for index in 0..3 {
                let page = DATA + self.random.next() % (OWN_LEAVES - DATA);
                let first = self.page(page);
                let inside = (self.random.next() % PAGE) & !3;
                let kind = self.random.next() % 4;
                let size_bits = self.random.next() % 11;
                let address = match kind {
                    3 => first >> 2 | ((1 << size_bits) - 1),
                    _ if self.random.chance(50) => first >> 2,
                    _ => (first + inside) >> 2,
                };
                self.case.set_csr(["pmpaddr0", "pmpaddr1", "pmpaddr2"][index], address);
                config |= legal_protection(kind << 3 | self.random.next() & 7) << (8 * index);
            }
        }
        self.case.set_csr("pmpcfg0", config);
    }
}

/// `pmpcfg` without locks, and without the reserved combination W without R, which QEMU keeps.
pub(super) fn legal_protection(config: u64) -> u64 {
    let writable = config >> 1 & 0x0101_0101_0101_0101;
    (config | writable) & 0x1f1f_1f1f_1f1f_1f1f
}
