//! Add, multiply, divide, square root and fused multiply-add on integers: the reference.
//!
//! Each operation computes an exact significand, or one whose lowest bit stands for "and a bit more", and
//! leaves rounding to [`round_pack`]. Source: IEEE 754-2019, 5.4.1, 6.1 to 6.3, 7.2, 7.3.

use super::format::{
    Finite, Format, Value, infinity, invalid, nan_of, round_pack, shift_right_jam, shift_right_jam_wide,
    unpack, zero,
};
use super::{DZ, Rounding};

/// The sign of an exact zero sum of numbers of opposite signs (IEEE 754-2019, 6.3).
#[inline]
fn zero_sum_sign(a: bool, b: bool, rm: Rounding) -> bool {
    if a == b { a } else { rm == Rounding::Rdn }
}

/// `a + b`.
pub(super) fn add<F: Format>(a: u64, b: u64, rm: Rounding, flags: &mut u8) -> u64 {
    match (unpack::<F>(a), unpack::<F>(b)) {
        (Value::Nan, _) | (_, Value::Nan) => nan_of::<F>(&[a, b], flags),
        (Value::Infinity(x), Value::Infinity(y)) if x != y => invalid::<F>(flags),
        (Value::Infinity(_), _) | (Value::Finite(_), Value::Zero(_)) => a,
        (_, Value::Infinity(_)) | (Value::Zero(_), Value::Finite(_)) => b,
        (Value::Zero(x), Value::Zero(y)) => zero::<F>(zero_sum_sign(x, y, rm)),
        (Value::Finite(x), Value::Finite(y)) => match add_finite(x, y) {
            Some(sum) => round_pack::<F>(sum, rm, flags),
            None => zero::<F>(rm == Rounding::Rdn),
        },
    }
}

/// `a + b`; `None` is an exact zero.
///
/// Both significands have at least eleven zero bits at the bottom. One goes to make room for the carry. What
/// is shifted out of the smaller number is not zero only when it is shifted by two places or more; then at
/// most one leading bit cancels, so the jammed bit stays well below the place where the sum is rounded.
#[inline]
fn add_finite(a: Finite, b: Finite) -> Option<Finite> {
    let (large, small) = if (a.exp, a.sig) >= (b.exp, b.sig) { (a, b) } else { (b, a) };
    let shifted = shift_right_jam(small.sig >> 1, large.exp.abs_diff(small.exp));
    let sum = if large.sign == small.sign { (large.sig >> 1) + shifted } else { (large.sig >> 1) - shifted };
    if sum == 0 {
        return None;
    }
    let lead = sum.leading_zeros();
    Some(Finite { sign: large.sign, exp: large.exp + 1 - lead as i32, sig: sum << lead })
}

/// `a * b`.
pub(super) fn mul<F: Format>(a: u64, b: u64, rm: Rounding, flags: &mut u8) -> u64 {
    let sign = (a ^ b) & F::SIGN != 0;
    match (unpack::<F>(a), unpack::<F>(b)) {
        (Value::Nan, _) | (_, Value::Nan) => nan_of::<F>(&[a, b], flags),
        (Value::Infinity(_), Value::Zero(_)) | (Value::Zero(_), Value::Infinity(_)) => invalid::<F>(flags),
        (Value::Infinity(_), _) | (_, Value::Infinity(_)) => infinity::<F>(sign),
        (Value::Zero(_), _) | (_, Value::Zero(_)) => zero::<F>(sign),
        (Value::Finite(x), Value::Finite(y)) => round_pack::<F>(narrow(product(x, y)), rm, flags),
    }
}

/// A [`Finite`] with a significand twice as wide: `sig / 2^127 * 2^exp`.
struct Wide {
    sign: bool,
    exp: i32,
    sig: u128,
}

/// The exact product.
#[inline]
fn product(a: Finite, b: Finite) -> Wide {
    let sig = u128::from(a.sig) * u128::from(b.sig);
    let lead = sig.leading_zeros();
    Wide { sign: a.sign != b.sign, exp: a.exp + b.exp + 1 - lead as i32, sig: sig << lead }
}

/// The upper half, the lower jammed into it.
#[inline]
fn narrow(wide: Wide) -> Finite {
    let sig = (wide.sig >> 64) as u64 | u64::from(wide.sig as u64 != 0);
    Finite { sign: wide.sign, exp: wide.exp, sig }
}

/// `a / b`.
pub(super) fn div<F: Format>(a: u64, b: u64, rm: Rounding, flags: &mut u8) -> u64 {
    let sign = (a ^ b) & F::SIGN != 0;
    match (unpack::<F>(a), unpack::<F>(b)) {
        (Value::Nan, _) | (_, Value::Nan) => nan_of::<F>(&[a, b], flags),
        (Value::Infinity(_), Value::Infinity(_)) | (Value::Zero(_), Value::Zero(_)) => invalid::<F>(flags),
        (Value::Infinity(_), _) => infinity::<F>(sign),
        (Value::Zero(_), _) | (_, Value::Infinity(_)) => zero::<F>(sign),
        (Value::Finite(_), Value::Zero(_)) => {
            *flags |= DZ;
            infinity::<F>(sign)
        }
        (Value::Finite(x), Value::Finite(y)) => round_pack::<F>(quotient(sign, x, y), rm, flags),
    }
}

/// `a / b` to 64 bits, the remainder jammed.
fn quotient(sign: bool, a: Finite, b: Finite) -> Finite {
    // The dividend is shifted so that the quotient has its top bit at 63: one place more if a.sig < b.sig.
    let less = a.sig < b.sig;
    let dividend = u128::from(a.sig) << if less { 64 } else { 63 };
    let divisor = u128::from(b.sig);
    let sig = (dividend / divisor) as u64 | u64::from(dividend % divisor != 0);
    Finite { sign, exp: a.exp - b.exp - i32::from(less), sig }
}

/// The square root of `a`.
pub(super) fn sqrt<F: Format>(a: u64, rm: Rounding, flags: &mut u8) -> u64 {
    match unpack::<F>(a) {
        Value::Nan => nan_of::<F>(&[a], flags),
        Value::Zero(_) | Value::Infinity(false) => a,
        Value::Infinity(true) => invalid::<F>(flags),
        Value::Finite(x) if x.sign => invalid::<F>(flags),
        Value::Finite(x) => round_pack::<F>(root(x), rm, flags),
    }
}

/// The square root to 64 bits, the remainder jammed.
fn root(a: Finite) -> Finite {
    // With an even exponent 2e, a = sig * 2^(2e - 63), so sqrt(a) = isqrt(sig << 63) / 2^63 * 2^e; an odd one
    // lends the significand a factor of two. Either way the root's top bit is bit 63.
    let odd = a.exp & 1;
    let radicand = u128::from(a.sig) << (63 + odd);
    let root = radicand.isqrt();
    let sig = root as u64 | u64::from(root * root != radicand);
    Finite { sign: false, exp: a.exp >> 1, sig }
}

/// `a * b + c`, rounded once.
pub(super) fn fma<F: Format>(a: u64, b: u64, c: u64, rm: Rounding, flags: &mut u8) -> u64 {
    let sign = (a ^ b) & F::SIGN != 0;
    match (unpack::<F>(a), unpack::<F>(b), unpack::<F>(c)) {
        // RISC-V: invalid even if the addend is a quiet NaN.
        (Value::Infinity(_), Value::Zero(_), _) | (Value::Zero(_), Value::Infinity(_), _) => {
            invalid::<F>(flags)
        }
        (Value::Nan, _, _) | (_, Value::Nan, _) | (_, _, Value::Nan) => nan_of::<F>(&[a, b, c], flags),
        (Value::Infinity(_), _, Value::Infinity(z)) | (_, Value::Infinity(_), Value::Infinity(z))
            if z != sign =>
        {
            invalid::<F>(flags)
        }
        (Value::Infinity(_), _, _) | (_, Value::Infinity(_), _) => infinity::<F>(sign),
        (_, _, Value::Infinity(_)) => c,
        (Value::Zero(_), _, Value::Zero(z)) | (_, Value::Zero(_), Value::Zero(z)) => {
            zero::<F>(zero_sum_sign(sign, z, rm))
        }
        (Value::Zero(_), _, _) | (_, Value::Zero(_), _) => c,
        (Value::Finite(x), Value::Finite(y), Value::Zero(_)) => {
            round_pack::<F>(narrow(product(x, y)), rm, flags)
        }
        (Value::Finite(x), Value::Finite(y), Value::Finite(z)) => match add_wide(product(x, y), z) {
            Some(sum) => round_pack::<F>(narrow(sum), rm, flags),
            None => zero::<F>(rm == Rounding::Rdn),
        },
    }
}

/// `a + b`; `None` is an exact zero. The argument is that of [`add_finite`]: a product of two 53-bit
/// significands leaves 22 zero bits at the bottom.
#[inline]
fn add_wide(a: Wide, b: Finite) -> Option<Wide> {
    let b = Wide { sign: b.sign, exp: b.exp, sig: u128::from(b.sig) << 64 };
    let (large, small) = if (a.exp, a.sig) >= (b.exp, b.sig) { (a, b) } else { (b, a) };
    let shifted = shift_right_jam_wide(small.sig >> 1, large.exp.abs_diff(small.exp));
    let sum = if large.sign == small.sign { (large.sig >> 1) + shifted } else { (large.sig >> 1) - shifted };
    if sum == 0 {
        return None;
    }
    let lead = sum.leading_zeros();
    Some(Wide { sign: large.sign, exp: large.exp + 1 - lead as i32, sig: sum << lead })
}
