//! Zfhmin and Zfa: half precision to and fro, and what F and D left out.
//!
//! Source: unprivileged specification, "Zfhmin", "Zfa"; IEEE 754-2019, 9.6 (`minimum`, `maximum`), 5.9 (integers).

use super::format::{Double, Half, Single};
use super::{CANONICAL_NAN_D, CANONICAL_NAN_S, NX, Rounding, compare, convert};

/// The half that a 64-bit register holds: its low quarter if NaN-boxed, else the canonical NaN.
#[must_use]
pub const fn unbox_half(register: u64) -> u16 {
    const CANONICAL_NAN: u16 = 0x7e00;
    if register >> 16 == 0xffff_ffff_ffff { register as u16 } else { CANONICAL_NAN }
}

/// A half as a 64-bit register holds it.
#[must_use]
pub const fn boxed_half(half: u16) -> u64 {
    !0xffff | half as u64
}

/// Half to single: exact.
pub fn cvt_s_h(a: u16, rm: Rounding, flags: &mut u8) -> u32 {
    convert::between::<Half, Single>(a.into(), rm, flags) as u32
}

/// Single to half.
pub fn cvt_h_s(a: u32, rm: Rounding, flags: &mut u8) -> u16 {
    convert::between::<Single, Half>(a.into(), rm, flags) as u16
}

/// Half to double: exact.
pub fn cvt_d_h(a: u16, rm: Rounding, flags: &mut u8) -> u64 {
    convert::between::<Half, Double>(a.into(), rm, flags)
}

/// Double to half.
pub fn cvt_h_d(a: u64, rm: Rounding, flags: &mut u8) -> u16 {
    convert::between::<Double, Half>(a, rm, flags) as u16
}

/// The numbers of `fli`, in quarters of powers of two: significand and exponent. Number 1 is the smallest normal one of
/// the format, 30 infinity, 31 NaN.
const CONSTANTS: [(u64, i32); 32] = [
    (4, 0),
    (0, 0),
    (4, -16),
    (4, -15),
    (4, -8),
    (4, -7),
    (4, -4),
    (4, -3),
    (4, -2),
    (5, -2),
    (6, -2),
    (7, -2),
    (4, -1),
    (5, -1),
    (6, -1),
    (7, -1),
    (4, 0),
    (5, 0),
    (6, 0),
    (7, 0),
    (4, 1),
    (5, 1),
    (6, 1),
    (4, 2),
    (4, 3),
    (4, 4),
    (4, 7),
    (4, 8),
    (4, 15),
    (4, 16),
    (0, 0),
    (0, 0),
];

/// Number `index` of `fli`, in a format.
fn constant(index: usize, fraction_bits: u32, special: u64, nan: u64) -> u64 {
    match index & 31 {
        1 => 1 << fraction_bits,
        30 => special << fraction_bits,
        31 => nan,
        index => {
            let (quarters, exp) = CONSTANTS[index];
            let sign = u64::from(index == 0) * ((special + 1) << fraction_bits);
            let exponent = (special as i64 / 2 + i64::from(exp)) as u64;
            sign | exponent << fraction_bits | (quarters & 3) << (fraction_bits - 2)
        }
    }
}

/// A single of `fli.s`.
#[must_use]
pub fn li_s(index: usize) -> u32 {
    constant(index, 23, 0xff, CANONICAL_NAN_S.into()) as u32
}

/// A double of `fli.d`.
#[must_use]
pub fn li_d(index: usize) -> u64 {
    constant(index, 52, 0x7ff, CANONICAL_NAN_D)
}

/// The smaller, or NaN.
pub fn minm_s(a: u32, b: u32, flags: &mut u8) -> u32 {
    compare::min_or_nan::<Single>(a.into(), b.into(), flags) as u32
}

/// The larger, or NaN.
pub fn maxm_s(a: u32, b: u32, flags: &mut u8) -> u32 {
    compare::max_or_nan::<Single>(a.into(), b.into(), flags) as u32
}

/// The smaller, or NaN.
pub fn minm_d(a: u64, b: u64, flags: &mut u8) -> u64 {
    compare::min_or_nan::<Double>(a, b, flags)
}

/// The larger, or NaN.
pub fn maxm_d(a: u64, b: u64, flags: &mut u8) -> u64 {
    compare::max_or_nan::<Double>(a, b, flags)
}

/// To an integer in the same format; `inexact` says whether NX is raised (`froundnx`).
pub fn round_s(a: u32, rm: Rounding, inexact: bool, flags: &mut u8) -> u32 {
    raising(inexact, flags, |flags| convert::round::<Single>(a.into(), rm, flags)) as u32
}

/// To an integer in the same format; `inexact` says whether NX is raised (`froundnx`).
pub fn round_d(a: u64, rm: Rounding, inexact: bool, flags: &mut u8) -> u64 {
    raising(inexact, flags, |flags| convert::round::<Double>(a, rm, flags))
}

fn raising(inexact: bool, flags: &mut u8, round: impl Fn(&mut u8) -> u64) -> u64 {
    let mut raised = 0;
    let result = round(&mut raised);
    *flags |= if inexact { raised } else { raised & !NX };
    result
}

/// `fcvtmod.w.d`: to a 32-bit integer as JavaScript has it.
pub fn cvtmod_w_d(a: u64, flags: &mut u8) -> u64 {
    convert::to_i32_modular::<Double>(a, flags)
}

/// `a < b`, quiet.
pub fn ltq_s(a: u32, b: u32, flags: &mut u8) -> bool {
    compare::lt_quiet::<Single>(a.into(), b.into(), flags)
}

/// `a <= b`, quiet.
pub fn leq_s(a: u32, b: u32, flags: &mut u8) -> bool {
    compare::le_quiet::<Single>(a.into(), b.into(), flags)
}

/// `a < b`, quiet.
pub fn ltq_d(a: u64, b: u64, flags: &mut u8) -> bool {
    compare::lt_quiet::<Double>(a, b, flags)
}

/// `a <= b`, quiet.
pub fn leq_d(a: u64, b: u64, flags: &mut u8) -> bool {
    compare::le_quiet::<Double>(a, b, flags)
}
