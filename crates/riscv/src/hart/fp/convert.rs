//! Between formats, between them and integers, and to integers in a format.
//!
//! Source: Unprivileged ISA, F extension, "Single-Precision Floating-Point Conversion and Move Instructions":
//! what does not fit saturates and raises NV alone; a NaN converts like plus infinity; 32-bit results are
//! sign-extended, unsigned ones too.

use super::format::{Finite, Format, Value, infinity, nan_of, round_pack, rounds_up, unpack, zero};
use super::{NV, NX, Rounding};

/// `a` in another format.
pub(super) fn between<From: Format, To: Format>(a: u64, rm: Rounding, flags: &mut u8) -> u64 {
    match unpack::<From>(a) {
        Value::Nan => {
            nan_of::<From>(&[a], flags);
            To::NAN
        }
        Value::Zero(sign) => zero::<To>(sign),
        Value::Infinity(sign) => infinity::<To>(sign),
        Value::Finite(x) => round_pack::<To>(x, rm, flags),
    }
}

/// From an unsigned integer.
pub(super) fn from_unsigned<F: Format>(x: u64, rm: Rounding, flags: &mut u8) -> u64 {
    from_magnitude::<F>(false, x, rm, flags)
}

/// From a signed integer.
pub(super) fn from_signed<F: Format>(x: i64, rm: Rounding, flags: &mut u8) -> u64 {
    from_magnitude::<F>(x < 0, x.unsigned_abs(), rm, flags)
}

fn from_magnitude<F: Format>(sign: bool, x: u64, rm: Rounding, flags: &mut u8) -> u64 {
    if x == 0 {
        return 0;
    }
    let lead = x.leading_zeros();
    round_pack::<F>(Finite { sign, exp: 63 - lead as i32, sig: x << lead }, rm, flags)
}

/// To a signed 64-bit integer.
pub(super) fn to_i64<F: Format>(a: u64, rm: Rounding, flags: &mut u8) -> u64 {
    to_integer::<F>(a, i64::MAX as u64, 1 << 63, rm, flags)
}

/// To an unsigned 64-bit integer.
pub(super) fn to_u64<F: Format>(a: u64, rm: Rounding, flags: &mut u8) -> u64 {
    to_integer::<F>(a, u64::MAX, 0, rm, flags)
}

/// To a signed 32-bit integer, sign-extended.
pub(super) fn to_i32<F: Format>(a: u64, rm: Rounding, flags: &mut u8) -> u64 {
    to_integer::<F>(a, i32::MAX as u64, 1 << 31, rm, flags)
}

/// To an unsigned 32-bit integer, sign-extended.
pub(super) fn to_u32<F: Format>(a: u64, rm: Rounding, flags: &mut u8) -> u64 {
    to_integer::<F>(a, u32::MAX.into(), 0, rm, flags) as i32 as u64
}

/// To an integer between `-below` and `above`, in two's complement.
fn to_integer<F: Format>(a: u64, above: u64, below: u64, rm: Rounding, flags: &mut u8) -> u64 {
    let (sign, magnitude, inexact) = match unpack::<F>(a) {
        Value::Zero(_) => return 0,
        Value::Finite(x) => match round_to_integer(x, rm) {
            Some((magnitude, inexact)) => (x.sign, magnitude, inexact),
            None => return saturate(x.sign, above, below, flags),
        },
        Value::Infinity(sign) => return saturate(sign, above, below, flags),
        Value::Nan => return saturate(false, above, below, flags),
    };
    if magnitude > if sign { below } else { above } {
        return saturate(sign, above, below, flags);
    }
    if inexact {
        *flags |= NX;
    }
    if sign { magnitude.wrapping_neg() } else { magnitude }
}

/// To an integer in the same format (`fround`; NX as `froundnx` has it).
pub(super) fn round<F: Format>(a: u64, rm: Rounding, flags: &mut u8) -> u64 {
    match unpack::<F>(a) {
        Value::Nan => nan_of::<F>(&[a], flags),
        // Without a fraction.
        Value::Finite(x) if x.exp < F::FRACTION as i32 => match round_to_integer(x, rm) {
            Some((magnitude, inexact)) => {
                if inexact {
                    *flags |= NX;
                }
                zero::<F>(x.sign) | from_unsigned::<F>(magnitude, rm, flags)
            }
            None => a,
        },
        _ => a,
    }
}

/// The low 32 bits of the integer that is left without the fraction, sign-extended; flags as if it had to fit.
pub(super) fn to_i32_modular<F: Format>(a: u64, flags: &mut u8) -> u64 {
    to_i32::<F>(a, Rounding::Rtz, flags);
    let Value::Finite(x) = unpack::<F>(a) else { return 0 };
    let magnitude = match x.exp {
        ..0 => 0,
        0..64 => x.sig >> (63 - x.exp),
        _ => x.sig.checked_shl((x.exp - 63) as u32).unwrap_or(0),
    };
    let value = if x.sign { magnitude.wrapping_neg() } else { magnitude };
    value as i32 as u64
}

#[cold]
fn saturate(sign: bool, above: u64, below: u64, flags: &mut u8) -> u64 {
    *flags |= NV;
    if sign { below.wrapping_neg() } else { above }
}

/// The magnitude rounded to an integer, and whether that lost anything; `None` if it needs over 64 bits.
#[inline]
fn round_to_integer(x: Finite, rm: Rounding) -> Option<(u64, bool)> {
    if x.exp > 63 {
        return None;
    }
    // The integer's lowest bit is `sig`'s bit 63 - exp; `rest` is what lies below it, as a fraction of 2^64.
    let (kept, rest) = match x.exp {
        63 => (x.sig, 0),
        0..63 => (x.sig >> (63 - x.exp), x.sig << (x.exp + 1)),
        -1 => (0, x.sig),
        _ => (0, 1),
    };
    let up = rounds_up(x.sign, kept & 1 != 0, rest, 1 << 63, rm);
    Some((kept.checked_add(u64::from(up))?, rest != 0))
}
