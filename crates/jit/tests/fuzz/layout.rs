//! What lies where in the guest, physically and virtually.

use pollux_riscv::RAM_BASE;

pub const PAGE: u64 = 4096;
/// Reset code and the machine-mode trap handler.
pub const RESET: u64 = RAM_BASE;
/// The supervisor-mode trap handler.
pub const SUPERVISOR: u64 = RAM_BASE + 0x1000;
/// Random code, then data: pages that lie side by side.
pub const CODE: u64 = RAM_BASE + 0x2000;
pub const CODE_PAGES: u64 = 4;
pub const DATA: u64 = CODE + CODE_PAGES * PAGE;
pub const DATA_PAGES: u64 = 8;
/// Both address spaces' page tables: a root, a middle and a leaf table each.
pub const TABLES: u64 = RAM_BASE + 0x1_0000;
pub const SPACE_BYTES: u64 = 3 * PAGE;
/// Where RAM lies a second time, in the upper half, for the supervisor alone; and the middle table that says so.
pub const HIGH: u64 = 0xffff_ffff_8000_0000;
pub const HIGH_TABLE: u64 = TABLES + 2 * SPACE_BYTES;
/// What harts start with.
pub const FIRST: u64 = RAM_BASE + 0x1_8000;
pub const FIRST_BYTES: u64 = 0x400;
/// Where the handlers go on after a wild jump: [`WAYS`] addresses.
pub const ENTRIES: u64 = FIRST + 0x2000;
pub const WAYS: u64 = 16;
/// What the handlers flip: doublewords for `mstatus`, then for `sstatus`, then one each for `satp`, `pmpcfg0` and `pmpaddr0`.
pub const FLIPS: u64 = ENTRIES + 8 * WAYS;
/// Bytes of the image.
pub const IMAGE_BYTES: u64 = 0x1_f000;
/// What an Sv48 address space's root is, above its Sv39 one, and the table between that and [`HIGH_TABLE`].
pub const TOPS: u64 = RAM_BASE + 0x1_c000;
pub const HIGH_MIDDLE: u64 = TOPS + 2 * PAGE;

/// Where both address spaces map code and data, page by page as they lie in memory or permuted.
pub const VIRTUAL: u64 = 0x4000_0000;
pub const SHARED_PAGES: u64 = CODE_PAGES + DATA_PAGES;
/// Where they are mapped a second time: an index into the leaf table.
pub const SECOND: u64 = 16;
/// Where the two leaf tables are mapped.
pub const TABLE_PAGES: u64 = 30;
/// Where devices are mapped.
pub const DEVICE_PAGES: u64 = 32;
/// UART, CLINT (time; software interrupts), RTC, PLIC.
pub const DEVICES: [u64; 5] = [0x1000_0000, 0x200_b000, 0x200_0000, 0x10_1000, 0xc00_0000];
/// Leaf entries in use, and some that are not.
pub const LEAVES: u64 = 40;
/// Where a page of 2 MiB maps the beginning of RAM.
pub const LARGE: u64 = VIRTUAL + 0x20_0000;

/// Code pages that also are leaf tables, of the large pages from here on: what 8 bytes of code say as an entry is
/// mapped. Behind them come the [`DATA_TABLES`].
pub const TANGLED: u64 = VIRTUAL + 0x40_0000;
pub const LARGE_BYTES: u64 = 0x20_0000;
/// Data pages that also are leaf tables.
pub const DATA_TABLES: [u64; 2] = [DATA + 5 * PAGE, DATA + 6 * PAGE];
/// The last data page also is a middle table, of this part of both address spaces.
pub const DATA_MIDDLE: u64 = DATA + 7 * PAGE;
pub const FAR: u64 = 0xc000_0000;

/// The same place in the upper half.
pub fn high(addr: u64) -> u64 {
    addr - RESET + HIGH
}

pub fn leaf_table(space: u64) -> u64 {
    TABLES + space * SPACE_BYTES + 2 * PAGE
}

/// Sv48 if it is deep.
pub fn satp(space: u64, is_deep: bool) -> u64 {
    let root = if is_deep { TOPS + space * PAGE } else { TABLES + space * SPACE_BYTES };
    (8 + u64::from(is_deep)) << 60 | (space + 1) << 44 | root >> 12
}
