//! Rights that go away in the middle of a block, where accesses through one register would share a check.

// Elsewhere there is no JIT to hold against the interpreter.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod fuzz;
mod guest;
mod pair;

use fuzz::asm::Code;
use guest::*;
use pollux_isa::{Opcode as Op, csr};
use pollux_riscv::RAM_BASE;

/// The user's page.
const DATA: u64 = RAM_BASE + 3 * PAGE;
const ROUNDS: i32 = 50;

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
    back(&mut code, S2, round);
    code.emit(Op::Jal, 0, 0, 0, 0);
    code
}

/// Counts a trap and goes on behind it, so many instructions further.
fn handler(instructions: i32) -> Code {
    let mut code = Code::new(HANDLER);
    code.addi(S0, S0, 1);
    code.csrr(T0, csr::MEPC);
    code.addi(T0, T0, 4 * instructions);
    code.csrw(csr::MEPC, T0);
    code.emit(Op::Mret, 0, 0, 0, 0);
    code
}

#[test]
fn a_page_that_was_the_kernels_for_a_while_faults_at_the_next_access() {
    let mut pair = guest(0, &[&program(), &handler(1)], TABLES + 2 * PAGE, &[(0, entry(DATA, 0xd7))]);
    for _ in 0..10 {
        pair.advance(301, false);
    }
    assert_eq!(value(&pair, "s0"), ROUNDS as u64);
}

#[test]
fn a_load_that_is_proved_for_a_store_leaves_the_page_clean_if_the_store_never_executes() {
    let leaves = TABLES + 2 * PAGE;
    // Readable, writable, accessed, not dirty.
    let clean = entry(DATA, 0x47);
    let mut code = Code::new(PROGRAM);
    code.emit(Op::Lui, A1, 0, 0, (WINDOW >> 12) as i32);
    code.address(A3, leaves);
    code.addi(S2, 0, ROUNDS);
    let round = code.words.len();
    code.emit(Op::Ld, A0, A1, 0, 0);
    // There is nothing at address 0: the handler goes on behind the store.
    code.emit(Op::Ld, A2, 0, 0, 0);
    code.emit(Op::Sd, 0, A1, A0, 8);
    code.addi(S2, S2, -1);
    back(&mut code, S2, round);
    code.emit(Op::Ld, S3, A3, 0, 0);
    code.emit(Op::Jal, 0, 0, 0, 0);
    let mut pair = guest(0, &[&code, &handler(2)], leaves, &[(0, clean)]);
    for _ in 0..10 {
        pair.advance(101, false);
    }
    assert_eq!(value(&pair, "s0"), ROUNDS as u64);
    assert_eq!(value(&pair, "s3"), clean);
}
