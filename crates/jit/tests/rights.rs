//! Rights that go away in the middle of a block, where accesses through one register would share a check.

// Elsewhere there is no JIT to hold against the interpreter.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod fuzz;
mod pair;

use fuzz::asm::Code;
use pair::Pair;
use pollux_isa::{Opcode as Op, csr};
use pollux_machine::{Boot, Config, RAM_BASE};

const PAGE: u64 = 4096;
const PROGRAM: u64 = RAM_BASE + PAGE;
const HANDLER: u64 = RAM_BASE + 2 * PAGE;
const DATA: u64 = RAM_BASE + 3 * PAGE;
const TABLES: u64 = RAM_BASE + 4 * PAGE;
/// Where the user's page is mapped.
const WINDOW: u64 = 1 << 30;
const SUM: i32 = 1 << 18;
const ROUNDS: i32 = 50;

const T0: u8 = 5;
const T1: u8 = 6;
const S0: u8 = 8;
const A0: u8 = 10;
const A1: u8 = 11;
const A2: u8 = 12;
const S2: u8 = 18;

/// Reads a user's page with SUM set, and once more with SUM clear, through one register and in one block.
fn program() -> Code {
    let sstatus = i32::from(csr::SSTATUS);
    let mut code = Code::new(PROGRAM);
    code.emit(Op::Lui, A1, 0, 0, (WINDOW >> 12) as i32);
    code.emit(Op::Lui, T1, 0, 0, SUM >> 12);
    code.addi(S2, 0, ROUNDS);
    let round = code.words.len();
    code.emit(Op::Csrrs, 0, T1, 0, sstatus);
    code.emit(Op::Ld, A0, A1, 0, 0);
    code.emit(Op::Csrrc, 0, T1, 0, sstatus);
    code.emit(Op::Ld, A2, A1, 0, 8);
    code.addi(S2, S2, -1);
    let distance = 4 * (round as i32 - code.words.len() as i32);
    code.emit(Op::Bne, 0, S2, 0, distance);
    code.emit(Op::Jal, 0, 0, 0, 0);
    code
}

/// Counts a trap and goes on behind it.
fn handler() -> Code {
    let mut code = Code::new(HANDLER);
    code.addi(S0, S0, 1);
    code.csrr(T0, csr::MEPC);
    code.addi(T0, T0, 4);
    code.csrw(csr::MEPC, T0);
    code.emit(Op::Mret, 0, 0, 0, 0);
    code
}

/// Enters the program in supervisor mode.
fn reset() -> Code {
    let mut code = Code::new(RAM_BASE);
    code.addi(T0, 0, -1);
    code.csrw(csr::PMPADDR0, T0);
    code.addi(T0, 0, 0x1f);
    code.csrw(csr::PMPCFG0, T0);
    code.addi(T0, 0, 1);
    code.emit(Op::Slli, T0, T0, 0, 11);
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

fn image() -> Vec<u8> {
    let mut image = vec![0; (TABLES + 3 * PAGE - RAM_BASE) as usize];
    let mut put = |at: u64, bytes: &[u8]| {
        let at = (at - RAM_BASE) as usize;
        image[at..at + bytes.len()].copy_from_slice(bytes);
    };
    for code in [reset(), program(), handler()] {
        let bytes: Vec<u8> = code.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        put(code.base, &bytes);
    }
    let entries = [
        (TABLES + 8, (TABLES + PAGE) >> 12 << 10 | 1),
        (TABLES + 16, RAM_BASE >> 12 << 10 | 0xcf),
        (TABLES + PAGE, (TABLES + 2 * PAGE) >> 12 << 10 | 1),
        (TABLES + 2 * PAGE, DATA >> 12 << 10 | 0xd7),
    ];
    entries.iter().for_each(|(at, entry)| put(*at, &entry.to_le_bytes()));
    image
}

#[test]
fn a_page_that_was_the_kernels_for_a_while_faults_at_the_next_access() {
    let image: &'static [u8] = image().leak();
    let config = Config { ram_bytes: 4 << 20, harts: 1, devices: vec![], rtc_base_ns: 0 };
    let boot = || Boot::Firmware { image, kernel: None, initrd: None, command_line: "" };
    let mut pair = Pair::new(&config, boot);
    for _ in 0..10 {
        pair.advance(301, false);
    }
    let s0 = pair.interpreted.describe_hart(0).iter().find(|(name, _)| name == "s0").map(|(_, s0)| *s0);
    assert_eq!(s0, Some(ROUNDS as u64));
}
