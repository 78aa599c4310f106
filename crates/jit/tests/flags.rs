//! Pages that get a flag while translated code remembers them as free of any, and the first store to a page.

// Elsewhere there is no JIT to hold against the interpreter.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod fuzz;
mod guest;
mod pair;

use fuzz::asm::Code;
use guest::*;
use pollux_isa::Opcode as Op;
use pollux_riscv::{Computer, Machine, RAM_BASE};

const RA: u8 = 1;
const SP: u8 = 2;
/// A page that becomes code, and one that is.
const PATCHED: u64 = RAM_BASE + 3 * PAGE;
const OTHER: u64 = HANDLER;
const ROUNDS: i32 = 60;
const FIRST_ROUNDS: i32 = 30;

/// `addi a0, zero, imm; ret`.
fn answer(base: u64, imm: i32) -> Code {
    let mut code = Code::new(base);
    code.addi(A0, 0, imm);
    code.emit(Op::Jalr, 0, RA, 0, 0);
    code
}

/// Writes the first instruction of the patched page in every round, always through sp, and calls the other page; from
/// some round on the patched one.
fn program() -> Code {
    let mut code = Code::new(PROGRAM);
    code.address(SP, PATCHED);
    code.address(S3, OTHER);
    code.emit(Op::Lw, T0, SP, 0, 0);
    code.emit(Op::Lui, T1, 0, 0, 1 << 20 >> 12);
    code.addi(T2, 0, ROUNDS - FIRST_ROUNDS);
    code.addi(S2, 0, ROUNDS);
    let round = code.words.len();
    code.emit(Op::Add, T0, T0, T1, 0);
    code.emit(Op::Sw, 0, SP, T0, 0);
    code.emit(Op::Jalr, RA, S3, 0, 0);
    code.emit(Op::Add, S0, S0, A0, 0);
    code.addi(S2, S2, -1);
    code.emit(Op::Bne, 0, S2, T2, 8);
    code.addi(S3, SP, 0);
    back(&mut code, S2, round);
    code.emit(Op::Jal, 0, 0, 0, 0);
    code
}

#[test]
fn a_page_that_becomes_code_is_watched_from_then_on() {
    let mut pair = guest(0, &[&program(), &answer(OTHER, 1), &answer(PATCHED, 0)], TABLES + 2 * PAGE, &[]);
    for _ in 0..10 {
        pair.advance(101, false);
    }
    let patched: i32 = (FIRST_ROUNDS + 1..=ROUNDS).sum();
    assert_eq!(value(&pair, "s0"), (FIRST_ROUNDS + patched) as u64);
}

#[test]
fn a_snapshot_has_every_page_that_translated_code_wrote() {
    const PAGES: i32 = 200;
    let mut code = Code::new(PROGRAM);
    code.address(A1, RAM_BASE + 0x10_0000);
    code.emit(Op::Lui, T1, 0, 0, 1);
    code.addi(S2, 0, PAGES);
    let round = code.words.len();
    code.emit(Op::Sd, 0, A1, S2, 0);
    code.emit(Op::Sd, 0, A1, S2, 16);
    code.emit(Op::Add, A1, A1, T1, 0);
    code.addi(S2, S2, -1);
    back(&mut code, S2, round);
    code.emit(Op::Jal, 0, 0, 0, 0);
    let mut pair = guest(0, &[&code], TABLES + 2 * PAGE, &[]);
    for _ in 0..20 {
        pair.advance(101, false);
    }
    assert_eq!(value(&pair, "s2"), 0);
    let mut restored = Computer::restore(&pair.translated.snapshot()).expect("its own snapshot");
    assert_eq!(restored.digest().ram, pair.translated.digest().ram);
}
