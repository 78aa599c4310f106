//! Comparison, minimum, maximum and classification.
//!
//! Source: Unprivileged ISA, F extension (since 2.2 `fmin` and `fmax` are IEEE 754-2019's `minimumNumber` and
//! `maximumNumber`: a NaN, even a signalling one, loses against a number); IEEE 754-2019, 5.11, 9.6.

use super::NV;
use super::format::{Format, is_nan, is_signalling, nan_of};

/// A key that orders numbers as integers, -0 right below +0. Not for NaNs.
#[inline]
fn order<F: Format>(bits: u64) -> i64 {
    let magnitude = (bits & !F::SIGN) as i64;
    if bits & F::SIGN == 0 { magnitude } else { -1 - magnitude }
}

/// Whether both are zeros, of whatever sign.
#[inline]
fn both_zero<F: Format>(a: u64, b: u64) -> bool {
    (a | b) & !F::SIGN == 0
}

/// `a == b`.
#[inline]
pub(super) fn eq<F: Format>(a: u64, b: u64, flags: &mut u8) -> bool {
    if is_nan::<F>(a) || is_nan::<F>(b) {
        if is_signalling::<F>(a) || is_signalling::<F>(b) {
            *flags |= NV;
        }
        return false;
    }
    a == b || both_zero::<F>(a, b)
}

/// `a < b`.
#[inline]
pub(super) fn lt<F: Format>(a: u64, b: u64, flags: &mut u8) -> bool {
    if is_nan::<F>(a) || is_nan::<F>(b) {
        *flags |= NV;
        return false;
    }
    order::<F>(a) < order::<F>(b) && !both_zero::<F>(a, b)
}

/// `a <= b`.
#[inline]
pub(super) fn le<F: Format>(a: u64, b: u64, flags: &mut u8) -> bool {
    if is_nan::<F>(a) || is_nan::<F>(b) {
        *flags |= NV;
        return false;
    }
    order::<F>(a) <= order::<F>(b) || both_zero::<F>(a, b)
}

/// `a < b`, quiet.
pub(super) fn lt_quiet<F: Format>(a: u64, b: u64, flags: &mut u8) -> bool {
    are_numbers::<F>(a, b, flags) && lt::<F>(a, b, flags)
}

/// `a <= b`, quiet.
pub(super) fn le_quiet<F: Format>(a: u64, b: u64, flags: &mut u8) -> bool {
    are_numbers::<F>(a, b, flags) && le::<F>(a, b, flags)
}

/// Whether both are numbers; a signalling NaN is invalid.
fn are_numbers<F: Format>(a: u64, b: u64, flags: &mut u8) -> bool {
    if is_signalling::<F>(a) || is_signalling::<F>(b) {
        *flags |= NV;
    }
    !is_nan::<F>(a) && !is_nan::<F>(b)
}

/// The smaller; NaN if either is.
pub(super) fn min_or_nan<F: Format>(a: u64, b: u64, flags: &mut u8) -> u64 {
    if is_nan::<F>(a) || is_nan::<F>(b) { nan_of::<F>(&[a, b], flags) } else { min::<F>(a, b, flags) }
}

/// The larger; NaN if either is.
pub(super) fn max_or_nan<F: Format>(a: u64, b: u64, flags: &mut u8) -> u64 {
    if is_nan::<F>(a) || is_nan::<F>(b) { nan_of::<F>(&[a, b], flags) } else { max::<F>(a, b, flags) }
}

/// The smaller.
pub(super) fn min<F: Format>(a: u64, b: u64, flags: &mut u8) -> u64 {
    number_or::<F>(a, b, flags).unwrap_or(if order::<F>(a) <= order::<F>(b) { a } else { b })
}

/// The larger.
pub(super) fn max<F: Format>(a: u64, b: u64, flags: &mut u8) -> u64 {
    number_or::<F>(a, b, flags).unwrap_or(if order::<F>(a) >= order::<F>(b) { a } else { b })
}

/// The answer of `min` and `max` if there is a NaN among their operands.
fn number_or<F: Format>(a: u64, b: u64, flags: &mut u8) -> Option<u64> {
    if is_signalling::<F>(a) || is_signalling::<F>(b) {
        *flags |= NV;
    }
    match (is_nan::<F>(a), is_nan::<F>(b)) {
        (false, false) => None,
        (false, true) => Some(a),
        (true, false) => Some(b),
        (true, true) => Some(F::NAN),
    }
}

/// The `fclass` mask.
pub(super) fn class<F: Format>(bits: u64) -> u64 {
    let magnitude = bits & !F::SIGN;
    if is_nan::<F>(bits) {
        return if is_signalling::<F>(bits) { 1 << 8 } else { 1 << 9 };
    }
    // Counted outwards from zero; negative classes are 3 down to 0, positive ones 4 up to 7.
    let outwards = match magnitude {
        0 => 0,
        m if m <= F::FRACTION_MASK => 1,
        m if m < F::INFINITY => 2,
        _ => 3,
    };
    if bits & F::SIGN == 0 { 1 << (4 + outwards) } else { 1 << (3 - outwards) }
}
