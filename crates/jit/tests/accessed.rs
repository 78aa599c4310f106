//! Instructions that are page-table entries: the walk for an access sets the accessed bit in what executes, or is about
//! to, and the next instruction is what it has become.

// Elsewhere there is no JIT to hold against the interpreter.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod fuzz;
mod guest;
mod pair;

use fuzz::asm::Code;
use guest::*;
use pollux_isa::{Opcode as Op, csr};

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

/// Runs both; returns s0 and the count of traps. The program is the leaf table of its window.
fn run(code: &Code) -> (u64, u64) {
    let mut pair = guest(FLOAT, &[code, &handler()], PROGRAM, &[]);
    pair.advance(200, false);
    (value(&pair, "s0"), value(&pair, "s1"))
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
