//! The formats, taken apart and put together again: where every result is rounded, once.
//!
//! Source: IEEE 754-2019, 3.4 (encodings), 4.3 (rounding), 7.4 to 7.6 (overflow, underflow, inexact).
//! Invariant: [`round_pack`] is the only place that rounds to a format and raises OF, UF and NX.

use super::{NV, NX, OF, Rounding, UF};

/// A binary interchange format, its patterns held in the low bits of a `u64`.
pub(super) trait Format {
    /// Fraction bits.
    const FRACTION: u32;
    /// The all-ones exponent field: infinities and NaNs.
    const EXP_SPECIAL: u64;
    /// Exponent bias, which is also the largest exponent of a finite number.
    const BIAS: i32 = (Self::EXP_SPECIAL / 2) as i32;
    /// Exponent of the smallest normal number.
    const EXP_MIN: i32 = 1 - Self::BIAS;
    /// The sign bit.
    const SIGN: u64 = (Self::EXP_SPECIAL + 1) << Self::FRACTION;
    /// The fraction field.
    const FRACTION_MASK: u64 = (1 << Self::FRACTION) - 1;
    /// Plus infinity.
    const INFINITY: u64 = Self::EXP_SPECIAL << Self::FRACTION;
    /// The fraction bit that tells quiet NaNs from signalling ones.
    const QUIET: u64 = 1 << (Self::FRACTION - 1);
    /// The canonical NaN: positive, quiet, no payload.
    const NAN: u64 = Self::INFINITY | Self::QUIET;
}

/// binary16.
pub(super) struct Half;
/// binary32.
pub(super) struct Single;
/// binary64.
pub(super) struct Double;

impl Format for Half {
    const FRACTION: u32 = 10;
    const EXP_SPECIAL: u64 = 0x1f;
}

impl Format for Single {
    const FRACTION: u32 = 23;
    const EXP_SPECIAL: u64 = 0xff;
}

impl Format for Double {
    const FRACTION: u32 = 52;
    const EXP_SPECIAL: u64 = 0x7ff;
}

/// Whether `bits` is a NaN.
#[inline]
pub(super) fn is_nan<F: Format>(bits: u64) -> bool {
    bits & !F::SIGN > F::INFINITY
}

/// Whether `bits` is a signalling NaN.
#[inline]
pub(super) fn is_signalling<F: Format>(bits: u64) -> bool {
    is_nan::<F>(bits) && bits & F::QUIET == 0
}

/// The canonical NaN as the result of an operation with a NaN among `operands`: NV if one signals.
#[cold]
pub(super) fn nan_of<F: Format>(operands: &[u64], flags: &mut u8) -> u64 {
    if operands.iter().any(|&bits| is_signalling::<F>(bits)) {
        *flags |= NV;
    }
    F::NAN
}

/// The canonical NaN as the result of an invalid operation.
#[cold]
pub(super) fn invalid<F: Format>(flags: &mut u8) -> u64 {
    *flags |= NV;
    F::NAN
}

/// A finite number other than zero: `(-1)^sign * sig / 2^63 * 2^exp`, `sig` with its top bit set.
#[derive(Clone, Copy)]
pub(super) struct Finite {
    pub(super) sign: bool,
    pub(super) exp: i32,
    pub(super) sig: u64,
}

/// What a pattern stands for.
#[derive(Clone, Copy)]
pub(super) enum Value {
    /// A zero; its sign.
    Zero(bool),
    /// Any other finite number.
    Finite(Finite),
    /// An infinity; its sign.
    Infinity(bool),
    /// A NaN of either kind.
    Nan,
}

/// Takes `bits` apart.
#[inline]
pub(super) fn unpack<F: Format>(bits: u64) -> Value {
    let sign = bits & F::SIGN != 0;
    let fraction = bits & F::FRACTION_MASK;
    let field = bits >> F::FRACTION & F::EXP_SPECIAL;
    if field == F::EXP_SPECIAL {
        return if fraction == 0 { Value::Infinity(sign) } else { Value::Nan };
    }
    if field != 0 {
        let sig = (fraction << (63 - F::FRACTION)) | 1 << 63;
        return Value::Finite(Finite { sign, exp: field as i32 - F::BIAS, sig });
    }
    if fraction == 0 {
        return Value::Zero(sign);
    }
    let shift = fraction.leading_zeros();
    let exp = F::EXP_MIN + 63 - F::FRACTION as i32 - shift as i32;
    Value::Finite(Finite { sign, exp, sig: fraction << shift })
}

/// A zero.
#[inline]
pub(super) fn zero<F: Format>(sign: bool) -> u64 {
    if sign { F::SIGN } else { 0 }
}

/// An infinity.
#[inline]
pub(super) fn infinity<F: Format>(sign: bool) -> u64 {
    zero::<F>(sign) | F::INFINITY
}

/// `x >> shift` with every bit that falls out "jammed" into the lowest: enough to round correctly later.
#[inline]
pub(super) fn shift_right_jam(x: u64, shift: u32) -> u64 {
    if shift >= 64 {
        return u64::from(x != 0);
    }
    x >> shift | u64::from(x & ((1 << shift) - 1) != 0)
}

/// [`shift_right_jam`] for the wide intermediate results.
#[inline]
pub(super) fn shift_right_jam_wide(x: u128, shift: u32) -> u128 {
    if shift >= 128 {
        return u128::from(x != 0);
    }
    x >> shift | u128::from(x & ((1 << shift) - 1) != 0)
}

/// Whether a magnitude whose last kept bit is `odd` and whose discarded part is `rest`, against a unit in the
/// last place of `2 * half`, rounds away from zero.
#[inline]
pub(super) fn rounds_up(sign: bool, odd: bool, rest: u64, half: u64, rm: Rounding) -> bool {
    match rm {
        Rounding::Rne => rest > half || rest == half && odd,
        Rounding::Rtz => false,
        Rounding::Rdn => sign && rest != 0,
        Rounding::Rup => !sign && rest != 0,
        Rounding::Rmm => rest >= half,
    }
}

/// Rounds a number whose `sig` may hold more bits than the format (the lowest jammed) and encodes it.
///
/// Tininess is detected after rounding (Unprivileged ISA, F extension): a result is tiny if, rounded to the
/// format's precision *with an unbounded exponent*, it lies below the smallest normal number. That is not
/// the same as "the encoded result is subnormal": just below the smallest normal number a result may be
/// encoded as that number and still be tiny.
#[inline]
pub(super) fn round_pack<F: Format>(number: Finite, rm: Rounding, flags: &mut u8) -> u64 {
    let Finite { sign, exp, mut sig } = number;
    let drop = 63 - F::FRACTION;
    let half = 1 << (drop - 1);
    if exp > F::BIAS {
        return overflow::<F>(sign, rm, flags);
    }
    let mut exponent_field = 0;
    let mut tiny = false;
    if exp >= F::EXP_MIN {
        // One less than the field: the significand's top bit adds the one back.
        exponent_field = (exp - F::EXP_MIN) as u64;
    } else {
        let reaches_normal = exp == F::EXP_MIN - 1 && sig >> drop == (2 << F::FRACTION) - 1 && {
            let rest = sig & (2 * half - 1);
            rounds_up(sign, true, rest, half, rm)
        };
        tiny = !reaches_normal;
        sig = shift_right_jam(sig, exp.abs_diff(F::EXP_MIN));
    }
    let rest = sig & (2 * half - 1);
    let kept = sig >> drop;
    let up = rounds_up(sign, kept & 1 != 0, rest, half, rm);
    // A carry out of the fraction runs into the exponent field, which is right in every case.
    let magnitude = (exponent_field << F::FRACTION) + kept + u64::from(up);
    if magnitude >= F::INFINITY {
        return overflow::<F>(sign, rm, flags);
    }
    if rest != 0 {
        *flags |= if tiny { UF | NX } else { NX };
    }
    zero::<F>(sign) | magnitude
}

/// A result too large for the format (IEEE 754-2019, 7.4).
#[cold]
fn overflow<F: Format>(sign: bool, rm: Rounding, flags: &mut u8) -> u64 {
    *flags |= OF | NX;
    let to_infinity = match rm {
        Rounding::Rne | Rounding::Rmm => true,
        Rounding::Rtz => false,
        Rounding::Rdn => sign,
        Rounding::Rup => !sign,
    };
    infinity::<F>(sign) - u64::from(!to_infinity)
}
