//! Loads that are tried again, because only their page was not known, and that are steps after all.

// Elsewhere there is no JIT to hold against the interpreter.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod fuzz;
mod guest;
mod pair;

use fuzz::asm::Code;
use guest::*;
use pollux_isa::{Opcode as Op, csr};

/// The bits of 1.0 in single precision.
const ONE: i32 = 0x3f80_0000;

#[test]
fn what_a_load_overwrites_survives_its_second_try() {
    let fflags = i32::from(csr::FFLAGS);
    let mut code = Code::new(PROGRAM);
    code.emit(Op::Lui, A1, 0, 0, (WINDOW >> 12) as i32);
    // The page's tables are known from here on.
    code.emit(Op::Lbu, T1, A1, 0, 0);
    code.emit(Op::Jal, 0, 0, 0, 4);
    code.emit(Op::Lui, T0, 0, 0, ONE >> 12);
    code.emit(Op::FmvWX, 1, T0, 0, 0);
    code.emit(Op::FmvWX, 11, T0, 0, 0);
    code.emit(Op::Csrrwi, 0, 0, 0, fflags);
    // The hart is owed this sum where the load begins. The load leads a store to a page of code: the TLB learns of the
    // page, and then it has a flag.
    code.emit(Op::FaddS, 10, 1, 1, 0);
    code.emit(Op::Flw, 10, A1, 0, 0x7f0);
    code.emit(Op::Fsw, 0, A1, 11, 0x7f8);
    code.emit(Op::Csrrs, S3, 0, 0, fflags);
    code.emit(Op::Jal, 0, 0, 0, 0);
    let mut pair = guest(FLOAT, &[&code], TABLES + 2 * PAGE, &[(0, entry(PROGRAM, 0xc7))]);
    for _ in 0..10 {
        pair.advance(101, false);
    }
    assert_eq!(value(&pair, "s3"), 0, "no exception was raised");
}
