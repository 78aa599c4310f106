//! Floating point exactly as RISC-V has it (Unprivileged ISA, "F" and "D"; IEEE 754-2019), as pure functions
//! on bit patterns.
//!
//! Why not the host's arithmetic: its flags cannot be read from here, its NaNs and its fused multiply-add
//! differ from one host to the next, and it rounds one way only. So the reference is integer arithmetic
//! ([`arith`], [`convert`], all ending in [`format::round_pack`]); [`fast`] answers with the host's add,
//! multiply and divide where IEEE 754 leaves the host no choice, which is nearly always.
//!
//! Invariant guarded here (DESIGN 2.7): the same operands, rounding mode and flags give the same result and
//! flags on every host. NaN results are canonical, a signalling NaN raises NV, tininess is detected after
//! rounding, `min` and `max` are `minimumNumber` and `maximumNumber`.
//!
//! Functions are named after the instructions: `fcvt.w.d` is [`cvt_w_d`], `fmadd.s` is [`fmadd_s`]. Single
//! precision values are plain `u32`s; [`unbox`] and [`boxed`] go from and to registers. Flags are *accrued*:
//! a function ors its own into `flags`, which must hold `fflags` on entry (the fast path profits from NX
//! being set already). Not here: which rounding modes are illegal, `mstatus.FS`, the register file.

mod arith;
mod compare;
mod convert;
mod fast;
mod format;
mod more;
#[cfg(test)]
mod tests;

use format::{Double, Format, Single};
pub use more::*;

/// Inexact, as in `fflags`.
pub const NX: u8 = 1;
/// Underflow.
pub const UF: u8 = 1 << 1;
/// Overflow.
pub const OF: u8 = 1 << 2;
/// Division of a finite number by zero.
pub const DZ: u8 = 1 << 3;
/// Invalid operation.
pub const NV: u8 = 1 << 4;

/// The NaN that every operation makes, single precision.
pub const CANONICAL_NAN_S: u32 = 0x7fc0_0000;
/// The NaN that every operation makes, double precision.
pub const CANONICAL_NAN_D: u64 = 0x7ff8_0000_0000_0000;

/// A rounding mode, numbered as in an instruction's `rm` field and in `frm`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Rounding {
    /// To nearest, ties to even.
    Rne = 0,
    /// Towards zero.
    Rtz = 1,
    /// Down, towards minus infinity.
    Rdn = 2,
    /// Up, towards plus infinity.
    Rup = 3,
    /// To nearest, ties to the larger magnitude.
    Rmm = 4,
}

impl Rounding {
    /// The mode numbered `bits`; `None` for 5 and 6 (reserved), 7 (dynamic: ask `frm`) and larger.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::Rne),
            1 => Some(Self::Rtz),
            2 => Some(Self::Rdn),
            3 => Some(Self::Rup),
            4 => Some(Self::Rmm),
            _ => None,
        }
    }
}

/// The single that a 64-bit register holds: its low half if NaN-boxed, else the canonical NaN.
#[inline]
#[must_use]
pub const fn unbox(register: u64) -> u32 {
    if register >> 32 == 0xffff_ffff { register as u32 } else { CANONICAL_NAN_S }
}

/// A single as a 64-bit register holds it.
#[inline]
#[must_use]
pub const fn boxed(single: u32) -> u64 {
    0xffff_ffff_0000_0000 | single as u64
}

/// Declares the instructions of one precision. `$bits` is the register type, `$format` its [`Format`].
macro_rules! instructions {
    ($bits:ty, $format:ty, $fast:ident:
     $add:ident $sub:ident $mul:ident $div:ident $sqrt:ident
     $fmadd:ident $fmsub:ident $fnmsub:ident $fnmadd:ident
     $min:ident $max:ident $sgnj:ident $sgnjn:ident $sgnjx:ident
     $eq:ident $lt:ident $le:ident $class:ident
     $to_w:ident $to_wu:ident $to_l:ident $to_lu:ident
     $from_w:ident $from_wu:ident $from_l:ident $from_lu:ident) => {
        /// `a + b`.
        #[inline]
        pub fn $add(a: $bits, b: $bits, rm: Rounding, flags: &mut u8) -> $bits {
            match fast::$fast::add(a, b, rm, flags) {
                Some(sum) => sum,
                None => arith::add::<$format>(a.into(), b.into(), rm, flags) as $bits,
            }
        }
        /// `a - b`.
        #[inline]
        pub fn $sub(a: $bits, b: $bits, rm: Rounding, flags: &mut u8) -> $bits {
            $add(a, b ^ (<$format>::SIGN as $bits), rm, flags)
        }
        /// `a * b`.
        #[inline]
        pub fn $mul(a: $bits, b: $bits, rm: Rounding, flags: &mut u8) -> $bits {
            match fast::$fast::mul(a, b, rm, *flags) {
                Some(product) => product,
                None => arith::mul::<$format>(a.into(), b.into(), rm, flags) as $bits,
            }
        }
        /// `a / b`.
        #[inline]
        pub fn $div(a: $bits, b: $bits, rm: Rounding, flags: &mut u8) -> $bits {
            match fast::$fast::div(a, b, rm, *flags) {
                Some(quotient) => quotient,
                None => arith::div::<$format>(a.into(), b.into(), rm, flags) as $bits,
            }
        }
        /// The square root of `a`.
        pub fn $sqrt(a: $bits, rm: Rounding, flags: &mut u8) -> $bits {
            arith::sqrt::<$format>(a.into(), rm, flags) as $bits
        }
        /// `a * b + c`, rounded once.
        pub fn $fmadd(a: $bits, b: $bits, c: $bits, rm: Rounding, flags: &mut u8) -> $bits {
            arith::fma::<$format>(a.into(), b.into(), c.into(), rm, flags) as $bits
        }
        /// `a * b - c`, rounded once.
        pub fn $fmsub(a: $bits, b: $bits, c: $bits, rm: Rounding, flags: &mut u8) -> $bits {
            $fmadd(a, b, c ^ (<$format>::SIGN as $bits), rm, flags)
        }
        /// `-(a * b) + c`, rounded once.
        pub fn $fnmsub(a: $bits, b: $bits, c: $bits, rm: Rounding, flags: &mut u8) -> $bits {
            $fmadd(a ^ (<$format>::SIGN as $bits), b, c, rm, flags)
        }
        /// `-(a * b) - c`, rounded once.
        pub fn $fnmadd(a: $bits, b: $bits, c: $bits, rm: Rounding, flags: &mut u8) -> $bits {
            let sign = <$format>::SIGN as $bits;
            $fmadd(a ^ sign, b, c ^ sign, rm, flags)
        }
        /// The smaller, a number rather than a NaN, -0 rather than +0.
        pub fn $min(a: $bits, b: $bits, flags: &mut u8) -> $bits {
            compare::min::<$format>(a.into(), b.into(), flags) as $bits
        }
        /// The larger, a number rather than a NaN, +0 rather than -0.
        pub fn $max(a: $bits, b: $bits, flags: &mut u8) -> $bits {
            compare::max::<$format>(a.into(), b.into(), flags) as $bits
        }
        /// `a` with the sign of `b`.
        #[inline]
        #[must_use]
        pub const fn $sgnj(a: $bits, b: $bits) -> $bits {
            let sign = <$format>::SIGN as $bits;
            a & !sign | b & sign
        }
        /// `a` with the opposite of the sign of `b`.
        #[inline]
        #[must_use]
        pub const fn $sgnjn(a: $bits, b: $bits) -> $bits {
            $sgnj(a, !b)
        }
        /// `a` with its sign flipped if `b` is negative.
        #[inline]
        #[must_use]
        pub const fn $sgnjx(a: $bits, b: $bits) -> $bits {
            a ^ b & (<$format>::SIGN as $bits)
        }
        /// `a == b`, quiet: only a signalling NaN is invalid.
        #[inline]
        pub fn $eq(a: $bits, b: $bits, flags: &mut u8) -> bool {
            compare::eq::<$format>(a.into(), b.into(), flags)
        }
        /// `a < b`, signalling: every NaN is invalid.
        #[inline]
        pub fn $lt(a: $bits, b: $bits, flags: &mut u8) -> bool {
            compare::lt::<$format>(a.into(), b.into(), flags)
        }
        /// `a <= b`, signalling: every NaN is invalid.
        #[inline]
        pub fn $le(a: $bits, b: $bits, flags: &mut u8) -> bool {
            compare::le::<$format>(a.into(), b.into(), flags)
        }
        /// The `fclass` mask of `a`: one bit of ten.
        #[must_use]
        pub fn $class(a: $bits) -> u64 {
            compare::class::<$format>(a.into())
        }
        /// To a signed 32-bit integer, sign-extended.
        pub fn $to_w(a: $bits, rm: Rounding, flags: &mut u8) -> u64 {
            convert::to_i32::<$format>(a.into(), rm, flags)
        }
        /// To an unsigned 32-bit integer, sign-extended all the same.
        pub fn $to_wu(a: $bits, rm: Rounding, flags: &mut u8) -> u64 {
            convert::to_u32::<$format>(a.into(), rm, flags)
        }
        /// To a signed 64-bit integer.
        pub fn $to_l(a: $bits, rm: Rounding, flags: &mut u8) -> u64 {
            convert::to_i64::<$format>(a.into(), rm, flags)
        }
        /// To an unsigned 64-bit integer.
        pub fn $to_lu(a: $bits, rm: Rounding, flags: &mut u8) -> u64 {
            convert::to_u64::<$format>(a.into(), rm, flags)
        }
        /// From the low 32 bits of `x`, signed.
        pub fn $from_w(x: u64, rm: Rounding, flags: &mut u8) -> $bits {
            convert::from_signed::<$format>(i64::from(x as i32), rm, flags) as $bits
        }
        /// From the low 32 bits of `x`, unsigned.
        pub fn $from_wu(x: u64, rm: Rounding, flags: &mut u8) -> $bits {
            convert::from_unsigned::<$format>(u64::from(x as u32), rm, flags) as $bits
        }
        /// From `x`, signed.
        pub fn $from_l(x: u64, rm: Rounding, flags: &mut u8) -> $bits {
            convert::from_signed::<$format>(x as i64, rm, flags) as $bits
        }
        /// From `x`, unsigned.
        pub fn $from_lu(x: u64, rm: Rounding, flags: &mut u8) -> $bits {
            convert::from_unsigned::<$format>(x, rm, flags) as $bits
        }
    };
}

instructions!(u32, Single, single:
    add_s sub_s mul_s div_s sqrt_s fmadd_s fmsub_s fnmsub_s fnmadd_s
    min_s max_s sgnj_s sgnjn_s sgnjx_s eq_s lt_s le_s class_s
    cvt_w_s cvt_wu_s cvt_l_s cvt_lu_s cvt_s_w cvt_s_wu cvt_s_l cvt_s_lu);
instructions!(u64, Double, double:
    add_d sub_d mul_d div_d sqrt_d fmadd_d fmsub_d fnmsub_d fnmadd_d
    min_d max_d sgnj_d sgnjn_d sgnjx_d eq_d lt_d le_d class_d
    cvt_w_d cvt_wu_d cvt_l_d cvt_lu_d cvt_d_w cvt_d_wu cvt_d_l cvt_d_lu);

/// Double to single.
pub fn cvt_s_d(a: u64, rm: Rounding, flags: &mut u8) -> u32 {
    convert::between::<Double, Single>(a, rm, flags) as u32
}

/// Single to double: exact, so `rm` does not matter.
pub fn cvt_d_s(a: u32, rm: Rounding, flags: &mut u8) -> u64 {
    convert::between::<Single, Double>(a.into(), rm, flags)
}
