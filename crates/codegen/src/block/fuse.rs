//! Pairs of instructions that are one for the host: constants in two halves, and shifts to and fro, which is how
//! RISC-V's base instructions extend bytes, halfwords and words.
//!
//! Both instructions of a pair only compute, and the second overwrites what the first wrote: nothing can look in between.

use super::Place;
use pollux_isa::{Inst, Opcode as Op};

/// One operation for two instructions, which computes `rd`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fused {
    Constant {
        rd: u8,
        value: i64,
    },
    /// An offset from the page's beginning.
    Address {
        rd: u8,
        offset: i32,
    },
    /// The low bytes of a register, extended and shifted to the left; to the right if `up` is negative.
    Extend {
        rd: u8,
        rs1: u8,
        bytes: u8,
        signed: bool,
        up: i32,
    },
}

/// What two instructions are together, if they are such a pair.
pub(crate) fn fuse(first: Place, second: Place) -> Option<Fused> {
    let (a, b) = (first.inst, second.inst);
    if b.rs1 != a.rd || b.rd != a.rd || a.rd == 0 {
        return None;
    }
    let rd = a.rd;
    match (a.opcode, b.opcode) {
        (Op::Lui, Op::Addi) => Some(Fused::Constant { rd, value: i64::from(a.imm) + i64::from(b.imm) }),
        (Op::Lui, Op::Addiw) => Some(Fused::Constant { rd, value: i64::from(a.imm.wrapping_add(b.imm)) }),
        (Op::Auipc, Op::Addi) => {
            let from_page = i64::from(a.imm) + i64::from(first.offset) + i64::from(b.imm);
            i32::try_from(from_page).ok().map(|offset| Fused::Address { rd, offset })
        }
        (Op::Slli, Op::Srli | Op::Srai) => extension(a, b),
        _ => None,
    }
}

/// Left and right again: what is left over of the register's low bits, extended, and perhaps shifted.
fn extension(left: Inst, right: Inst) -> Option<Fused> {
    let (up, down) = (left.imm & 63, right.imm & 63);
    let bytes = match up {
        56 => 1,
        48 => 2,
        32 => 4,
        _ => return None,
    };
    let signed = right.opcode == Op::Srai;
    Some(Fused::Extend { rd: left.rd, rs1: left.rs1, bytes, signed, up: up - down })
}
