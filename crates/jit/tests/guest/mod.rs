//! Guests of a few pages for one hart: a program in supervisor mode under Sv39, and RAM where it lies.
//!
//! Not here: what they do; each test writes its own program, and says what its window maps.

#![allow(dead_code, unreachable_pub, reason = "every test file uses a part of this")]

use crate::fuzz::asm::Code;
use crate::pair::Pair;
use pollux_isa::{Opcode as Op, csr};
use pollux_riscv::{Boot, Config, RAM_BASE};

pub const PAGE: u64 = 4096;
/// Where the program begins.
pub const PROGRAM: u64 = RAM_BASE + PAGE;
/// Where traps lead to, in machine mode.
pub const HANDLER: u64 = RAM_BASE + 2 * PAGE;
/// The root table; the middle table of [`WINDOW`] comes next.
pub const TABLES: u64 = RAM_BASE + 4 * PAGE;
/// Where the guest maps what it likes, through a leaf table of its own.
pub const WINDOW: u64 = 1 << 30;
const PAGES: u64 = 8;
/// The status register's SUM.
pub const SUM: i32 = 1 << 18;
/// Floating point is dirty.
pub const FLOAT: i32 = 3 << 13;

pub const T0: u8 = 5;
pub const T1: u8 = 6;
pub const T2: u8 = 7;
pub const S0: u8 = 8;
pub const S1: u8 = 9;
pub const A0: u8 = 10;
pub const A1: u8 = 11;
pub const A2: u8 = 12;
pub const A3: u8 = 13;
pub const A4: u8 = 14;
pub const S2: u8 = 18;
pub const S3: u8 = 19;

/// A page-table entry: a leaf, or with V alone a pointer to a table.
pub fn entry(page: u64, bits: u64) -> u64 {
    page >> 12 << 10 | bits
}

/// Enters the program in supervisor mode, with more bits of `mstatus` set.
fn reset(status: i32) -> Code {
    let mut code = Code::new(RAM_BASE);
    code.addi(T0, 0, -1);
    code.csrw(csr::PMPADDR0, T0);
    code.addi(T0, 0, 0x1f);
    code.csrw(csr::PMPCFG0, T0);
    // MPP is S.
    let status = 0x800 | status;
    let high = (status + 0x800) >> 12;
    code.emit(Op::Lui, T0, 0, 0, high);
    code.addi(T0, T0, status - (high << 12));
    code.csrw(csr::MSTATUS, T0);
    for (number, address) in [(csr::MTVEC, HANDLER), (csr::MEPC, PROGRAM)] {
        code.address(T0, address);
        code.csrw(number, T0);
    }
    code.address(T0, TABLES);
    code.emit(Op::Srli, T0, T0, 0, 12);
    code.emit(Op::Bseti, T0, T0, 0, 63);
    code.csrw(csr::SATP, T0);
    code.emit(Op::Mret, 0, 0, 0, 0);
    code
}

/// A guest about to be reset: `codes` where they say that they lie; `leaves` is the window's leaf table, in which
/// `entries` are, by their numbers.
pub fn guest(status: i32, codes: &[&Code], leaves: u64, entries: &[(u64, u64)]) -> Pair {
    let mut image = vec![0; (PAGES * PAGE) as usize];
    let mut put = |at: u64, bytes: &[u8]| {
        let at = (at - RAM_BASE) as usize;
        image[at..at + bytes.len()].copy_from_slice(bytes);
    };
    let reset = reset(status);
    for code in [&reset].iter().chain(codes) {
        let bytes: Vec<u8> = code.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        put(code.base, &bytes);
    }
    let tables = [
        (TABLES + 8, entry(TABLES + PAGE, 1)),
        (TABLES + 16, entry(RAM_BASE, 0xcf)),
        (TABLES + PAGE, entry(leaves, 1)),
    ];
    tables.iter().for_each(|(at, entry)| put(*at, &entry.to_le_bytes()));
    entries.iter().for_each(|(index, entry)| put(leaves + 8 * index, &entry.to_le_bytes()));
    let image: &'static [u8] = image.leak();
    let config =
        Config { ram_bytes: 4 << 20, harts: 1, devices: vec![], rtc_base_ns: 0, ..Config::default() };
    Pair::new(&config, || Boot::Firmware { image, kernel: None, initrd: None, command_line: "" })
}

/// Goes back for as long as a register is not zero.
pub fn back(code: &mut Code, register: u8, to: usize) {
    let distance = 4 * (to as i32 - code.words.len() as i32);
    code.emit(Op::Bne, 0, register, 0, distance);
}

/// A register as both have it.
pub fn value(pair: &Pair, name: &str) -> u64 {
    let hart = pair.interpreted.describe_hart(0);
    hart.iter().find(|(known, _)| known == name).expect("a register").1
}
