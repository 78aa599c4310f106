//! How large a translation can become: whoever runs it reserves that much.

use pollux_codegen::{Behind, Features, Manner, REGION_BYTES_MAX, stubs, translate};
use pollux_isa::Opcode as Op;

const PAGE: usize = 4096;
const DYNAMIC: u32 = 7 << 12;

fn word(op: Op, rd: u32, rs1: u32, rs2: u32) -> u32 {
    op.info().expect("a row of the table").value | rd << 7 | rs1 << 15 | rs2 << 20
}

/// A page of instructions that a guest would choose to have much code for them.
fn page(instruction: impl Fn(u32) -> u32) -> [u8; PAGE] {
    let mut page = [0; PAGE];
    for (at, bytes) in (0..).zip(page.chunks_exact_mut(4)) {
        bytes.copy_from_slice(&instruction(at).to_le_bytes());
    }
    page
}

/// Bytes of the largest translation of a page, and of its cold part.
fn size(page: &[u8; PAGE]) -> (usize, usize) {
    let (code, stubs) = stubs();
    let bases = (code.len() as u32, 1 << 24);
    let behind = Some(Behind { page: 1, ram_offset: 1 << 33, half: 0x0000 });
    let mut largest = (0, 0);
    for fma in [false, true] {
        for grouped in [false, true] {
            for entry in [0, 2, 2048, 4094] {
                let manner = Manner { features: Features { fma, popcnt: false }, grouped, upper: false };
                let region = translate(page, entry, bases, &stubs, manner, &|_| None, behind);
                largest.0 = largest.0.max(region.bytes.len());
                largest.1 = largest.1.max(region.cold.len());
            }
        }
    }
    largest
}

#[test]
fn no_page_has_a_translation_that_is_larger_than_what_is_reserved() {
    let pages = [
        (
            "sums that nobody looks at, and stores that may fail",
            page(|at| {
                let register = at % 32;
                match at % 3 {
                    0 | 1 => word(Op::FaddS, register, register, (at + 7) % 32) | DYNAMIC,
                    _ => word(Op::Fsw, (at % 31) & !3, 5 + at % 20, register),
                }
            }),
        ),
        (
            "sums that everybody who fails has to write",
            page(|at| match at % 100 {
                sum @ 0..10 => word(Op::FaddS, sum, sum, sum + 1) | DYNAMIC,
                _ => word(Op::Sw, (at % 31) & !3, 5 + at % 20, 1),
            }),
        ),
        ("loads through registers that change", page(|at| word(Op::Flw, at % 32, 5 + at % 27, 0))),
        (
            "single-precision operands of which nothing is known",
            page(|at| word(Op::FminS, at % 32, (at + 5) % 32, (at + 11) % 32)),
        ),
        (
            "fused operations",
            page(|at| {
                word(Op::FmaddS, at % 32, (at + 3) % 32, (at + 5) % 32) | ((at + 9) % 32) << 27 | DYNAMIC
            }),
        ),
        (
            "branches that skip",
            page(|at| match at % 2 {
                0 => word(Op::Beq, 8, 5 + at % 11, 6 + at % 13),
                _ => word(Op::Mul, 5 + at % 20, 6 + at % 20, 7 + at % 20),
            }),
        ),
        ("branches that lead back to themselves", page(|at| word(Op::Bne, 0, 5 + at % 11, 6 + at % 13))),
        ("atomics", page(|at| word(Op::AmomaxD, 5 + at % 20, 6 + at % 20, 7 + at % 20))),
        ("status", page(|at| word(Op::Csrrw, 5 + at % 20, 6 + at % 20, 0) | 0x100 << 20)),
        ("divisions", page(|at| word(Op::Remw, 5 + at % 20, 6 + at % 20, 7 + at % 20))),
    ];
    for (what, page) in &pages {
        let (hot, cold) = size(page);
        println!("{what}: {hot} and {cold} bytes");
        assert!(hot > 0 && cold > 0, "{what}: nothing is translated");
        assert!(hot.max(cold) < REGION_BYTES_MAX / 2, "{what}: {hot} and {cold} bytes");
    }
}
