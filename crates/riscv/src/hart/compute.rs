//! Instructions that only compute an integer register from others, but for those of I: M, Zimop, Zicond and Zb*, in the
//! specification's order.
//!
//! They have a match of their own behind the inner loop's, so that they cost what is frequent nothing. (With I's
//! instructions here, too, the interpreter was slower by two fifths.)

use super::Hart;
use super::code::Packed;
use pollux_isa::code;

/// What an instruction writes into rd; `None` if it is no such instruction. Here: Zimop, Zicond, M.
#[inline(never)]
pub(super) fn value(hart: &Hart, op: Packed) -> Option<u64> {
    let (a, b) = (|| hart.x[op.rs1()], || hart.x[op.rs2()]);
    let value = match op.kind() {
        // Zimop, Zicond
        code::MopR | code::MopRr => 0,
        code::CzeroEqz => {
            if b() == 0 {
                0
            } else {
                a()
            }
        }
        code::CzeroNez => {
            if b() == 0 {
                a()
            } else {
                0
            }
        }
        // M
        code::Mul => a().wrapping_mul(b()),
        code::Mulh => ((i128::from(a() as i64) * i128::from(b() as i64)) >> 64) as u64,
        code::Mulhsu => ((i128::from(a() as i64) * i128::from(b())) >> 64) as u64,
        code::Mulhu => ((u128::from(a()) * u128::from(b())) >> 64) as u64,
        code::Div => divide(a() as i64, b() as i64),
        code::Divu => a().checked_div(b()).unwrap_or(u64::MAX),
        code::Rem => remainder(a() as i64, b() as i64),
        code::Remu => a().checked_rem(b()).unwrap_or(a()),
        code::Mulw => word(a().wrapping_mul(b())),
        code::Divw => word(divide(i64::from(a() as i32), i64::from(b() as i32))),
        code::Divuw => (a() as u32).checked_div(b() as u32).unwrap_or(u32::MAX) as i32 as u64,
        code::Remw => word(remainder(i64::from(a() as i32), i64::from(b() as i32))),
        code::Remuw => {
            let dividend = a() as u32;
            dividend.checked_rem(b() as u32).unwrap_or(dividend) as i32 as u64
        }
        _ => return bits(hart, op),
    };
    Some(value)
}

/// Zba, Zbb, Zbc, Zbs, Zbkb.
#[inline(always)]
fn bits(hart: &Hart, op: Packed) -> Option<u64> {
    let (a, b) = (|| hart.x[op.rs1()], || hart.x[op.rs2()]);
    let value = match op.kind() {
        // Zba
        code::AddUw => low(a()).wrapping_add(b()),
        code::Sh1add => (a() << 1).wrapping_add(b()),
        code::Sh1addUw => (low(a()) << 1).wrapping_add(b()),
        code::Sh2add => (a() << 2).wrapping_add(b()),
        code::Sh2addUw => (low(a()) << 2).wrapping_add(b()),
        code::Sh3add => (a() << 3).wrapping_add(b()),
        code::Sh3addUw => (low(a()) << 3).wrapping_add(b()),
        code::SlliUw => low(a()) << (op.imm() & 63),
        // Zbb
        code::Andn => a() & !b(),
        code::Orn => a() | !b(),
        code::Xnor => !(a() ^ b()),
        code::Clz => u64::from(a().leading_zeros()),
        code::Clzw => u64::from((a() as u32).leading_zeros()),
        code::Ctz => u64::from(a().trailing_zeros()),
        code::Ctzw => u64::from((a() as u32).trailing_zeros()),
        code::Cpop => u64::from(a().count_ones()),
        code::Cpopw => u64::from((a() as u32).count_ones()),
        code::Max => (a() as i64).max(b() as i64) as u64,
        code::Maxu => a().max(b()),
        code::Min => (a() as i64).min(b() as i64) as u64,
        code::Minu => a().min(b()),
        code::SextB => a() as i8 as u64,
        code::SextH => a() as i16 as u64,
        code::ZextH => a() & 0xffff,
        code::Rol => a().rotate_left(b() as u32 & 63),
        code::Rolw => (a() as u32).rotate_left(b() as u32 & 31) as i32 as u64,
        code::Ror => a().rotate_right(b() as u32 & 63),
        code::Rori => a().rotate_right(op.imm() as u32 & 63),
        code::Roriw => (a() as u32).rotate_right(op.imm() as u32 & 31) as i32 as u64,
        code::Rorw => (a() as u32).rotate_right(b() as u32 & 31) as i32 as u64,
        code::OrcB => or_combine_bytes(a()),
        code::Rev8 => a().swap_bytes(),
        // Zbc
        code::Clmul => carryless(a(), b()) as u64,
        code::Clmulh => (carryless(a(), b()) >> 64) as u64,
        code::Clmulr => (carryless(a(), b()) >> 63) as u64,
        // Zbs
        code::Bclr => a() & !(1 << (b() & 63)),
        code::Bclri => a() & !(1 << (op.imm() & 63)),
        code::Bext => a() >> (b() & 63) & 1,
        code::Bexti => a() >> (op.imm() & 63) & 1,
        code::Binv => a() ^ 1 << (b() & 63),
        code::Binvi => a() ^ 1 << (op.imm() & 63),
        code::Bset => a() | 1 << (b() & 63),
        code::Bseti => a() | 1 << (op.imm() & 63),
        // Zbkb
        code::Pack => low(a()) | b() << 32,
        code::Packh => a() & 0xff | (b() & 0xff) << 8,
        code::Packw => word(a() & 0xffff | b() << 16),
        code::Brev8 => a().reverse_bits().swap_bytes(),
        _ => return None,
    };
    Some(value)
}

/// The low word, sign-extended: what every W instruction writes.
#[inline(always)]
pub(super) fn word(value: u64) -> u64 {
    value as i32 as u64
}

/// The low word, zero-extended.
#[inline(always)]
fn low(value: u64) -> u64 {
    u64::from(value as u32)
}

/// Division by zero gives all ones, overflow the dividend (M, "Semantics for division by zero").
#[inline(always)]
fn divide(dividend: i64, divisor: i64) -> u64 {
    if divisor == 0 { u64::MAX } else { dividend.wrapping_div(divisor) as u64 }
}

/// A remainder by zero is the dividend, on overflow zero.
#[inline(always)]
fn remainder(dividend: i64, divisor: i64) -> u64 {
    if divisor == 0 { dividend as u64 } else { dividend.wrapping_rem(divisor) as u64 }
}

/// A product without carries, all of it (Zbc).
fn carryless(a: u64, b: u64) -> u128 {
    (0..64).filter(|bit| b >> bit & 1 != 0).fold(0, |sum, bit| sum ^ u128::from(a) << bit)
}

/// `orc.b`: every byte that has a bit set becomes all ones.
fn or_combine_bytes(value: u64) -> u64 {
    u64::from_le_bytes(value.to_le_bytes().map(|byte| if byte == 0 { 0 } else { 0xff }))
}
