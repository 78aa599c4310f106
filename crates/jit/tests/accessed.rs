//! Instructions that are page-table entries: the walk for an access sets the accessed bit in what executes, or is about
//! to, and the next instruction is what it has become.

// Elsewhere there is no JIT to hold against the interpreter.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod fuzz;
mod pair;

use fuzz::asm::Code;
use pair::Pair;
use pollux_isa::{Opcode as Op, csr};
use pollux_machine::{Boot, Config, RAM_BASE};

const PAGE: u64 = 4096;
/// Both code and the table of [`WINDOW`]'s leaf entries.
const PROGRAM: u64 = RAM_BASE + PAGE;
const HANDLER: u64 = RAM_BASE + 2 * PAGE;
const TABLES: u64 = RAM_BASE + 4 * PAGE;
const WINDOW: u64 = 1 << 30;
const SUM: i32 = 1 << 18;

const T0: u8 = 5;
const T1: u8 = 6;
const S1: u8 = 9;
const A0: u8 = 10;
const A1: u8 = 11;
const S2: u8 = 18;
const S3: u8 = 19;

/// `addi s0, zero, 512`; as a leaf entry V, R, U, and a page of RAM. With A set it is `fsgnj.s`.
const ADD_OR_ENTRY: u32 = 0x2000_0413;
/// `lw a0, 48(a1)`; as a leaf entry V, R, and a page of the PLIC. With A set it is `fmadd.s`.
const LOAD_OR_ENTRY: u32 = 0x0305_a503;
/// `c.addi s0, 2`, then `c.fld fs0, 0(s0)`, which faults; as a leaf entry V, X, and [`PROGRAM`]. With A set it is
/// `c.addi s0, 18`.
const STEP_OR_ENTRY: u32 = 0x2000_0409;

/// Counts a trap and goes on at what s2 says, then at what s3 says.
fn handler() -> Code {
    let mut code = Code::new(HANDLER);
    code.addi(S1, S1, 1);
    code.csrw(csr::MEPC, S2);
    code.addi(S2, S3, 0);
    code.emit(Op::Mret, 0, 0, 0, 0);
    code
}

/// Enters the program in supervisor mode, with floating point dirty.
fn reset() -> Code {
    let mut code = Code::new(RAM_BASE);
    code.addi(T0, 0, -1);
    code.csrw(csr::PMPADDR0, T0);
    code.addi(T0, 0, 0x1f);
    code.csrw(csr::PMPCFG0, T0);
    code.emit(Op::Lui, T0, 0, 0, 7);
    code.addi(T0, T0, -0x800);
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

fn image(program: &Code) -> Vec<u8> {
    let mut image = vec![0; (TABLES + 2 * PAGE - RAM_BASE) as usize];
    let mut put = |at: u64, bytes: &[u8]| {
        let at = (at - RAM_BASE) as usize;
        image[at..at + bytes.len()].copy_from_slice(bytes);
    };
    for code in [&reset(), program, &handler()] {
        let bytes: Vec<u8> = code.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        put(code.base, &bytes);
    }
    let entries = [
        (TABLES + 8, (TABLES + PAGE) >> 12 << 10 | 1),
        (TABLES + 16, RAM_BASE >> 12 << 10 | 0xcf),
        (TABLES + PAGE, PROGRAM >> 12 << 10 | 1),
    ];
    entries.iter().for_each(|(at, entry)| put(*at, &entry.to_le_bytes()));
    image
}

/// Ends the code: with an entry at the next doubleword, which the rest of the program does not get past.
fn end(code: &mut Code, entry: u32) {
    code.words.extend([entry, 0]);
    code.emit(Op::Jal, 0, 0, 0, 0);
}

/// Where the next doubleword is, as an index.
fn entry_after(code: &Code, instructions: usize) -> u64 {
    let index = code.words.len() + instructions;
    assert_eq!(index % 2, 0);
    index as u64 / 2
}

/// Runs both; returns s0 and the count of traps.
fn run(code: &Code) -> (u64, u64) {
    let image: &'static [u8] = image(code).leak();
    let config = Config { ram_bytes: 4 << 20, harts: 1, devices: vec![], rtc_base_ns: 0 };
    let boot = || Boot::Firmware { image, kernel: None, initrd: None, command_line: "" };
    let mut pair = Pair::new(&config, boot);
    pair.advance(200, false);
    let hart = pair.interpreted.describe_hart(0);
    let value = |wanted| hart.iter().find(|(name, _)| name == wanted).map_or(0, |(_, value)| *value);
    (value("s0"), value("s1"))
}

#[test]
fn a_load_that_changes_the_next_instruction_by_its_walk_is_followed_by_the_changed_one() {
    let mut code = Code::new(PROGRAM);
    code.address(S2, PROGRAM + 0x800);
    code.emit(Op::Lui, T1, 0, 0, SUM >> 12);
    code.emit(Op::Csrrs, 0, T1, 0, i32::from(csr::SSTATUS));
    let index = entry_after(&code, 2);
    code.emit(Op::Lui, A1, 0, 0, ((WINDOW + index * PAGE) >> 12) as i32);
    code.emit(Op::Ld, A0, A1, 0, 0);
    end(&mut code, ADD_OR_ENTRY);
    assert_eq!(run(&code).0, 0);
}

#[test]
fn a_load_from_a_device_that_changes_itself_by_its_walk_is_the_load_that_it_was() {
    let mut code = Code::new(PROGRAM);
    code.address(S2, PROGRAM + 0x800);
    code.addi(A0, 0, 7);
    let index = entry_after(&code, 1);
    code.emit(Op::Lui, A1, 0, 0, ((WINDOW + index * PAGE) >> 12) as i32);
    end(&mut code, LOAD_OR_ENTRY);
    run(&code);
}

#[test]
fn a_fetch_that_changes_the_instruction_by_its_walk_fetches_the_changed_one() {
    let mut code = Code::new(PROGRAM);
    // Twice where it lies, then by way of itself.
    let index = entry_after(&code, 6);
    code.emit(Op::Lui, S3, 0, 0, ((WINDOW + index * PAGE) >> 12) as i32);
    code.addi(S3, S3, 8 * index as i32);
    code.address(S2, PROGRAM + 8 * index);
    code.addi(T0, 0, 0);
    code.addi(T0, 0, 0);
    end(&mut code, STEP_OR_ENTRY);
    let (s0, traps) = run(&code);
    assert!(s0 >= 2 + 2 + 18 && traps > 2, "{s0}, {traps}");
}
