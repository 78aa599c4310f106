//! Pages that are several things at once: code that is page-table entries, data that is, and code that changes right
//! before it is executed, or lies on two pages whose mappings change.
//!
//! Both address spaces take the code pages and two data pages as leaf tables, and another data page as a middle one
//! (`layout`, from `TANGLED` on), so that any store to them may change translations, and any walk may set an accessed
//! or dirty bit in an instruction.

use super::boot::{World, entry_in_data};
use super::layout::*;
use super::program::Program;
use pollux_isa::Opcode as Op;

/// A page-table entry: where it lies physically, and what it maps.
#[derive(Clone, Copy)]
struct Entry {
    at: u64,
    maps: u64,
}

/// Low bytes of entries that are instructions as well; with the accessed or dirty bit set they are others:
/// `lw` (`fmadd`), `sw` (`beq`), `fence` (`fnmadd`), `amo` (`jal`), `jal` (another `rd`), `c.addi` (a larger step), `flw`.
const KERNELS: [u64; 8] = [0x03, 0x23, 0x0f, 0x2f, 0x6f, 0x09, 0x07, 0xcf];
/// The same for user pages: `addi` (`fsgnj`), `add` (`ecall` and its like), `auipc`, `lui`.
const USERS: [u64; 6] = [0x13, 0x33, 0x17, 0x37, 0x19, 0xdf];

impl Program<'_> {
    /// What a doubleword of the code maps.
    fn in_code(offset: u64) -> Entry {
        let (page, index) = (offset / PAGE % CODE_PAGES, offset % PAGE / 8);
        Entry { at: CODE + (offset & !7), maps: TANGLED + page * LARGE_BYTES + index * PAGE }
    }

    /// Some entry of some table.
    fn some_entry(&mut self) -> Entry {
        let space = self.rng.below(2);
        let root = TABLES + space * SPACE_BYTES;
        match self.rng.below(20) {
            0..7 if !self.islands.is_empty() => {
                let island = self.rng.pick(&self.islands);
                Self::in_code(island)
            }
            0..11 => {
                let which = self.rng.below(2);
                let end = if self.rng.percent(70) { 16 } else { 512 };
                let index = self.rng.below(end);
                let maps = TANGLED + (CODE_PAGES + which) * LARGE_BYTES + index * PAGE;
                Entry { at: DATA_TABLES[which as usize] + 8 * index, maps }
            }
            11..13 => {
                let (index, page) = (self.rng.below(8), self.rng.below(32));
                Entry { at: DATA_MIDDLE + 8 * index, maps: FAR + index * LARGE_BYTES + page * PAGE }
            }
            13..17 => {
                let index = self.rng.below(LEAVES);
                Entry { at: leaf_table(space) + 8 * index, maps: VIRTUAL + index * PAGE }
            }
            17..19 => {
                let (index, page) = (self.rng.below(8), self.rng.below(32));
                Entry { at: root + PAGE + 8 * index, maps: VIRTUAL + index * LARGE_BYTES + page * PAGE }
            }
            _ => {
                let index = self.rng.pick(&[VIRTUAL >> 30, FAR >> 30]);
                let (large, page) = (self.rng.below(8), self.rng.below(32));
                Entry { at: root + 8 * index, maps: (index << 30) + large * LARGE_BYTES + page * PAGE }
            }
        }
    }

    /// One of the addresses at which a part of RAM is, in one mode or another.
    fn alias(&mut self, physical: u64) -> u64 {
        let in_window = physical.wrapping_sub(CODE) < SHARED_PAGES * PAGE;
        match (self.world, self.rng.below(8)) {
            (World::Machine, 0..7) => physical,
            (World::Supervisor, 0..3) => physical,
            (World::Supervisor, 3 | 4) => high(physical),
            (_, 5) if in_window => VIRTUAL + (physical - CODE),
            _ => LARGE + (physical - RESET),
        }
    }

    /// Looks at a page, or writes to it, or executes it.
    fn use_page(&mut self, base: u8) {
        let value = self.any();
        match self.rng.below(10) {
            0..4 => self.emit(Op::Ld, value, base, 0, 8),
            4..8 => self.emit(Op::Sd, 0, base, value, 16),
            8 => self.emit(Op::AmoaddW, value, base, value, 0),
            _ => {
                let target = 2 * self.rng.below(64) as i32;
                self.emit(Op::Jalr, value, base, 0, target);
            }
        }
    }

    /// Changes a page-table entry, in one of the ways in which memory can be written, between uses of what it maps.
    pub(super) fn entry(&mut self) {
        let [table, first] = [self.any(), self.any()];
        let mapped = self.base();
        if table == 0 || first == 0 || table == first {
            return;
        }
        let Entry { at, maps } = self.some_entry();
        // Now and then what is used lies on two pages.
        let near = if self.rng.percent(15) { PAGE - 12 } else { 8 * self.rng.below(500) };
        let table_at = self.alias(at);
        self.load_address(mapped, maps + near);
        self.load_address(table, table_at);
        if self.rng.percent(25) {
            self.forget_tables(table, first);
        } else if self.rng.percent(70) {
            self.use_page(mapped);
        }
        for _ in 0..self.rng.between(1, 2) {
            self.use_page(mapped);
            self.change(table, first);
            match self.rng.below(8) {
                0 => self.fence(mapped),
                1 => self.thing(),
                _ => {}
            }
            self.use_page(mapped);
        }
    }

    /// Changes a part of an entry, so that nobody knows any more which pages are tables, and writes to it as to data.
    fn forget_tables(&mut self, table: u8, first: u8) {
        self.emit(Op::Lbu, first, table, 0, 0);
        let bits = self.rng.pick(&[0x80, 0x80, 0x40, 0x20]);
        self.emit(Op::Xori, first, first, 0, bits);
        self.emit(Op::Sb, 0, table, first, 0);
        self.emit(Op::Ld, first, table, 0, 0);
        (0..2).for_each(|_| self.emit(Op::Sd, 0, table, first, 0));
    }

    /// Writes to the entry at `table`.
    fn change(&mut self, table: u8, first: u8) {
        let bits = self.rng.pick(&[1, 2, 4, 8, 4, 2, 0x10, 0x20, 0x40, 0x80, 0xc0, 0x86, 0x400]);
        match self.rng.below(9) {
            0 => {
                self.emit(Op::LrD, first, table, 0, 0);
                self.emit(Op::Xori, first, first, 0, bits);
                self.emit(Op::ScD, first, table, first, 0);
            }
            1 => {
                self.emit(Op::Addi, first, 0, 0, bits);
                self.emit(Op::AmoxorD, first, table, first, 0);
            }
            2 => {
                // One byte, or one that is no part of it.
                let imm = self.rng.pick(&[0, 0, 1, 7, 8, -1]);
                self.emit(Op::Lbu, first, table, 0, imm);
                self.emit(Op::Xori, first, first, 0, bits & 0xff);
                self.emit(Op::Sb, 0, table, first, imm);
            }
            3 => {
                // Two entries at once, or a part of one.
                let imm = self.rng.pick(&[4, -4, 2, -6, 1]);
                self.emit(Op::Ld, first, table, 0, imm);
                self.emit(Op::Sd, 0, table, first, imm);
            }
            4 if self.rng.percent(30) => self.emit(Op::CboZero, 0, table, 0, 0),
            5 => {
                let entry = entry_in_data(self.rng, self.world);
                self.load_address(first, entry);
                self.emit(Op::Sd, 0, table, first, 0);
            }
            6 => {
                let imm = 8 * self.rng.between(-4, 4) as i32;
                self.emit(Op::Ld, first, table, 0, imm);
                self.emit(Op::Sd, 0, table, first, 0);
            }
            _ => {
                self.emit(Op::Ld, first, table, 0, 0);
                self.emit(Op::Xori, first, first, 0, bits);
                self.emit(Op::Sd, 0, table, first, 0);
            }
        }
    }

    /// An entry among the code, which mostly is executed, behind an access to what it maps.
    pub(super) fn island(&mut self) {
        let base = self.base();
        let jumps = self.rng.percent(40);
        let before = if jumps { 16 } else { 12 };
        while !(self.code.len() + before).is_multiple_of(8) {
            self.half(1);
        }
        let offset = (self.code.len() + before) as u64;
        let shown = if self.rng.percent(80) || self.islands.is_empty() {
            offset
        } else {
            self.rng.pick(&self.islands)
        };
        let address = Self::in_code(shown).maps + 8 * self.rng.below(32);
        self.emit(Op::Lui, base, 0, 0, (address >> 12) as i32);
        self.emit(Op::Addi, base, base, 0, (address & 0xfff) as i32);
        self.use_page(base);
        if jumps {
            self.emit(Op::Jal, 0, 0, 0, 12);
        }
        let is_user = self.rng.percent(if self.world == World::User { 85 } else { 25 });
        let low = if is_user { self.rng.pick(&USERS) } else { self.rng.pick(&KERNELS) };
        let low = low | if self.rng.percent(15) { self.rng.next() & 0xc8 } else { 0 };
        // Pages further up have registers in the place of rs1.
        let page = match self.rng.below(10) {
            0..4 => CODE + self.rng.below(CODE_PAGES) * PAGE,
            4..7 => DATA + self.rng.below(DATA_PAGES) * PAGE,
            _ => RESET + u64::from(base) * 32 * PAGE + self.rng.below(32) * PAGE,
        };
        self.islands.push(offset);
        self.word((page >> 12 << 10 | low) as u32);
        self.word(0);
        if self.rng.percent(30) {
            self.use_page(base);
        }
    }

    /// Changes an instruction behind the store, in the same block, and tells nobody.
    pub(super) fn poke(&mut self) {
        let (at, piece) = (self.any(), self.any());
        if at == 0 || piece == 0 || at == piece {
            return;
        }
        let behind = self.rng.pick(&[0, 0, 0, 0, 2, 4, 4, 8, -4, -12]);
        self.emit(Op::Auipc, at, 0, 0, 0);
        if self.rng.percent(50) {
            // Another register, or another immediate, every time.
            let bits = self.rng.pick(&[0x80, 0x100, 0x180, 0x400]);
            self.emit(Op::Lw, piece, at, 0, 16 + behind);
            self.emit(Op::Xori, piece, piece, 0, bits);
        } else {
            let word = if self.rng.percent(30) { 0x0001_0001 } else { self.an_instruction() };
            let high = word.wrapping_add(0x800) >> 12;
            self.emit(Op::Lui, piece, 0, 0, high as i32);
            self.emit(Op::Addiw, piece, piece, 0, word.wrapping_sub(high << 12) as i32);
        }
        let op = self.rng.pick(&[Op::Sw, Op::Sw, Op::Sw, Op::Sh, Op::Sb]);
        self.emit(op, 0, at, piece, 16 + behind);
        for _ in 0..3 {
            let info = self.rng.pick(&self.integer);
            self.of(info);
        }
    }

    /// The word of one that does little harm.
    fn an_instruction(&mut self) -> u32 {
        let at = self.code.len();
        let info = self.rng.pick(&self.integer);
        self.of(info);
        let word = self
            .code
            .get(at..at + 4)
            .map_or(1, |word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        self.forget_from(at);
        word
    }

    /// Near a page's end, lets an instruction lie on it and on the next one.
    pub(super) fn straddle(&mut self) {
        let left = (PAGE as usize - 2).wrapping_sub(self.code.len() % PAGE as usize);
        if left < 24 && self.rng.percent(60) {
            (0..left / 2).for_each(|_| self.half(1));
            let word = self.an_instruction();
            self.word(word);
        }
    }

    /// Executes across two pages: after a change of the halves of the instruction that lies on both, or of how the second
    /// one is mapped.
    pub(super) fn edge(&mut self) {
        let [register, table, piece] = [self.any(), self.any(), self.any()];
        if [register, table, piece].contains(&0) || register == table || register == piece || table == piece {
            return;
        }
        let page = self.rng.below(CODE_PAGES);
        let window = match self.world {
            World::Machine => CODE,
            World::Supervisor => self.rng.pick(&[VIRTUAL, VIRTUAL, VIRTUAL + SECOND * PAGE, CODE]),
            World::User => {
                self.rng.pick(&[VIRTUAL, VIRTUAL, VIRTUAL + SECOND * PAGE, LARGE + (CODE - RESET)])
            }
        };
        let last = window + (page + 1) * PAGE - 16;
        self.load_address(register, last);
        if self.rng.percent(50) {
            let word = self.an_instruction();
            let imm = self.rng.pick(&[14, 14, 16, 16, 12]);
            let op = self.rng.pick(&[Op::Sh, Op::Sw]);
            if self.rng.percent(50) {
                self.load_address(piece, u64::from(word));
            } else {
                self.emit(Op::Lw, piece, register, 0, imm);
                self.emit(Op::Xori, piece, piece, 0, 0x180);
            }
            self.emit(op, 0, register, piece, imm);
        }
        if self.world != World::Machine && self.rng.percent(50) {
            let space = self.rng.below(2);
            let second = self.rng.below(2) * SECOND;
            let next = page + self.rng.below(2);
            let at = self.alias(leaf_table(space) + 8 * (second + next));
            self.load_address(table, at);
            self.change(table, piece);
            if self.rng.percent(30) {
                self.fence(register);
            }
        }
        let (link, target) = (self.rng.pick(&[0, piece]), self.rng.pick(&[14, 14, 14, 12, 10, 6, 0]));
        self.emit(Op::Jalr, link, register, 0, target);
    }

    /// What may come between the two, and takes the reservation's page away, or makes it something else.
    pub(super) fn between_lr_and_sc(&mut self) {
        match self.rng.below(5) {
            0 => self.remap(),
            1 => self.entry(),
            2 => self.poke(),
            3 => self.island(),
            _ => self.status(),
        }
    }
}
