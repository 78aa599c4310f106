//! Numbers of contexts run out and are given out anew; a number then means another address space than before, and
//! nothing that was remembered under it may be believed.

// Elsewhere there is no JIT to hold against the interpreter.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod fuzz;
mod guest;
mod pair;

use fuzz::asm::Code;
use guest::*;
use pollux_isa::Opcode as Op;
use pollux_riscv::{Machine, RAM_BASE};

/// Two pages with different code, which are mapped in turn.
const CODE: [u64; 2] = [RAM_BASE + 2 * PAGE, RAM_BASE + 3 * PAGE];
const LEAVES: u64 = TABLES + 2 * PAGE;
/// As many numbers as there are (`pollux_riscv`'s `mmu`).
const CONTEXTS: i32 = 511;
const RIGHTS: u64 = 0xcf;
const ROUNDS: i32 = 6;

/// Calls the page that is mapped, then changes the mapping `changes` times, once that of the page itself.
fn program(changes: i32) -> Code {
    const RA: u8 = 1;
    let mut code = Code::new(PROGRAM);
    code.emit(Op::Lui, A1, 0, 0, (WINDOW >> 12) as i32);
    code.address(A2, LEAVES);
    code.addi(S2, 0, ROUNDS);
    code.addi(A3, 0, ((CODE[0] ^ CODE[1]) >> 12 << 10) as i32);
    let outer = code.words.len();
    code.emit(Op::Jalr, RA, A1, 0, 0);
    code.emit(Op::Slli, T0, S0, 0, 1);
    code.emit(Op::Add, S0, S0, T0, 0);
    code.emit(Op::Add, S0, S0, A0, 0);
    code.emit(Op::Lbu, T2, A1, 0, 0);
    code.emit(Op::Ld, T0, A2, 0, 0);
    code.emit(Op::Xor, T0, T0, A3, 0);
    code.emit(Op::Sd, 0, A2, T0, 0);
    code.addi(T1, 0, changes - 1);
    let inner = code.words.len();
    // Only tables that are in use are watched.
    code.emit(Op::Lbu, T2, A1, 0, 0);
    code.emit(Op::Ld, T0, A2, 0, 8);
    code.emit(Op::Xori, T0, T0, 0, 0x100);
    code.emit(Op::Sd, 0, A2, T0, 8);
    code.addi(T1, T1, -1);
    back(&mut code, T1, inner);
    code.addi(S2, S2, -1);
    back(&mut code, S2, outer);
    code.emit(Op::Jal, 0, 0, 0, 0);
    code
}

/// What the pages of code do: each puts another number into a0.
fn pages() -> [Code; 2] {
    [(CODE[0], 3), (CODE[1], 5)].map(|(page, value)| {
        let mut code = Code::new(page);
        code.addi(A0, 0, value);
        code.emit(Op::Jalr, 0, 1, 0, 0);
        code
    })
}

#[test]
fn a_number_that_is_given_out_anew_leads_to_no_old_page() {
    // Whatever else takes a number, one of these comes round to the same one.
    for changes in CONTEXTS - 3..=CONTEXTS + 3 {
        let ([first, second], mapped) = (pages(), entry(CODE[0], RIGHTS));
        let entries = [(0, mapped), (1, mapped)];
        let mut pair = guest(0, &[&program(changes), &first, &second], LEAVES, &entries);
        for _ in 0..40 {
            pair.advance(701, false);
        }
        // 3, 5, 3, 5, 3, 5 in turn, each time on three times what there was.
        assert_eq!(value(&pair, "s0"), [3, 5, 3, 5, 3, 5].iter().fold(0, |sum, value| 3 * sum + value));
        assert!(pair.translated.icount().0 > 20_000);
    }
}
