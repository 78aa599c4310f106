//! An instruction that ends in the next page, whose page-table entry changes between its executions.

// Elsewhere there is no JIT to hold against the interpreter.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod fuzz;
mod guest;
mod pair;

use fuzz::asm::{Code, Fields, word};
use guest::*;
use pollux_isa::{Opcode as Op, csr};
use pollux_riscv::RAM_BASE;

const FIRST: u64 = RAM_BASE + 3 * PAGE;
const SECOND: u64 = RAM_BASE + 7 * PAGE;
/// Where the second page is mapped, by its number in the window.
const NUMBER: u64 = 7;
/// From there to another address of it, which takes the same place in the TLB: as many pages as that has entries.
const ALIAS: u64 = 16384 * PAGE;
/// A large page's bytes, each of which an entry of the window's middle table maps.
const LARGE: u64 = 2 << 20;
const RIGHTS: u64 = 0xcf;
const ROUNDS: i32 = 60;
const C_NOP: u32 = 1;
const C_RET: u32 = 0x8082;

/// Calls `nop; addi a0, a0, 1; ret`, of which `addi` lies in two pages; every eighth time the second page's entry is
/// changed by `bits`. Before, calls the `ret` by way of the second page's other address, which stays as it is. Returns a0, the count of faults, and the address of the last.
fn run(bits: i32) -> (u64, u64, u64) {
    let leaves = TABLES + 2 * PAGE;
    let mut code = Code::new(PROGRAM);
    code.emit(Op::Lui, A1, 0, 0, ((WINDOW >> 12) + NUMBER) as i32);
    code.emit(Op::Lui, A4, 0, 0, (((WINDOW + ALIAS) >> 12) + NUMBER) as i32);
    code.address(A2, TABLES + PAGE + 8 * (ALIAS / LARGE));
    code.address(T0, entry(RAM_BASE, RIGHTS));
    code.emit(Op::Sd, 0, A2, T0, 0);
    code.address(A2, leaves + 8 * NUMBER);
    code.addi(A3, 0, bits);
    code.addi(S2, 0, ROUNDS);
    let round = code.words.len();
    code.emit(Op::Jalr, 1, A4, 0, 2);
    code.emit(Op::Jalr, 1, A1, 0, -4);
    code.emit(Op::Andi, T1, S2, 0, 7);
    let skip = code.branch(Op::Bne, T1, 0);
    code.emit(Op::Ld, T0, A2, 0, 0);
    code.emit(Op::Xor, T0, T0, A3, 0);
    code.emit(Op::Sd, 0, A2, T0, 0);
    code.bind(skip);
    code.addi(S2, S2, -1);
    back(&mut code, S2, round);
    code.emit(Op::Jal, 0, 0, 0, 0);
    let mut handler = Code::new(HANDLER);
    handler.addi(S0, S0, 1);
    handler.csrr(S3, csr::MTVAL);
    handler.csrw(csr::MEPC, 1);
    handler.emit(Op::Mret, 0, 0, 0, 0);
    let add = word(Op::Addi, Fields { rd: A0, rs1: A0, rs2: 0, imm: 1 });
    let mut first = Code::new(FIRST + PAGE - 4);
    first.words.push(C_NOP | add << 16);
    let mut second = Code::new(SECOND);
    second.words.push(add >> 16 | C_RET << 16);
    let entries = [(NUMBER - 1, entry(FIRST, RIGHTS)), (NUMBER, entry(SECOND, RIGHTS))];
    let mut pair = guest(0, &[&code, &handler, &first, &second], leaves, &entries);
    for _ in 0..20 {
        pair.advance(101, false);
    }
    (value(&pair, "a0"), value(&pair, "s0"), value(&pair, "s3"))
}

#[test]
fn it_faults_for_as_long_as_the_second_page_is_not_to_be_executed() {
    // X; V; U, for the guest is in supervisor mode.
    for bits in [8, 1, 0x10] {
        let (executed, faults, addr) = run(bits);
        assert_eq!(executed + faults, ROUNDS as u64, "{bits:#x}");
        assert!(executed > 20 && faults > 20, "{bits:#x}: {executed}, {faults}");
        assert_eq!(addr, WINDOW + NUMBER * PAGE, "{bits:#x}: the second half is what cannot be fetched");
    }
}

#[test]
fn it_executes_whether_the_second_page_is_marked_as_accessed_or_not() {
    assert_eq!(run(0x40).0, ROUNDS as u64);
}
