//! The host's own add, multiply and divide, where they can only be right.
//!
//! IEEE 754 leaves a host no freedom for these three when the operands are finite and rounding is to nearest
//! even (which is how Rust defines `f32` and `f64` arithmetic): what is left open, NaN patterns and flags, is
//! kept out. `None` means "ask the integers" ([`super::arith`]), and is always a correct answer. The idea is
//! that of Cota and Carloni, "Cross-ISA Machine Instrumentation using Fast and Scalable Dynamic Binary
//! Translation" (VEE 2019), where it is used for QEMU.
//!
//! - The sum: it is inexact exactly if the error term of Knuth's TwoSum is not zero; the error term of an
//!   addition is always representable, and a tiny sum is always exact, so UF cannot arise.
//! - The product and the quotient: safe if NX is set already and the result lies in the normal range, for then
//!   nothing but NX can be raised; the product also if the significands are so short that it is exact.
//!
//! Never `mul_add` here: it is a library call on some hosts, an instruction on others.

use super::{NX, Rounding};

macro_rules! host_arithmetic {
    ($module:ident, $float:ty, $bits:ty, $digits:expr) => {
        pub(super) mod $module {
            use super::*;

            /// Twice the smallest normal number: no result from here on has been near underflow.
            const SMALL: $float = <$float>::MIN_POSITIVE * 2.0;

            /// Results in the middle of the range: neither special nor near underflow.
            #[inline]
            fn safe(result: $float) -> bool {
                let magnitude = result.abs();
                (SMALL..=<$float>::MAX).contains(&magnitude)
            }

            /// `a + b`, if it is finite and not so large that the error term overflows.
            #[inline]
            pub(crate) fn add(a: $bits, b: $bits, rm: Rounding, flags: &mut u8) -> Option<$bits> {
                if rm != Rounding::Rne {
                    return None;
                }
                let (a, b) = (<$float>::from_bits(a), <$float>::from_bits(b));
                let sum = a + b;
                if *flags & NX != 0 {
                    return (sum.abs() <= <$float>::MAX).then(|| sum.to_bits());
                }
                let b_part = sum - a;
                let a_part = sum - b_part;
                let error = (a - a_part) + (b - b_part);
                // Not so if anything overflowed or was special: the error is then infinite or a NaN.
                if error.abs() <= <$float>::MAX {
                    if error != 0.0 {
                        *flags |= NX;
                    }
                    return Some(sum.to_bits());
                }
                None
            }

            /// Whether the significands of `a` and `b` are so short that their product needs no rounding.
            ///
            /// With z trailing zeros a significand has at most `digits - z` bits, and a product at most the
            /// sum of its factors' bits. A power of two adds none at all.
            #[inline]
            fn short(a: $bits, b: $bits) -> bool {
                const TOP: $bits = 1 << ($digits - 1);
                let (a, b) = ((a & (TOP - 1) | TOP).trailing_zeros(), (b & (TOP - 1) | TOP).trailing_zeros());
                a + b >= $digits || a == $digits - 1 || b == $digits - 1
            }

            /// `a * b`, if nothing but an NX that is set already can be raised.
            #[inline]
            pub(crate) fn mul(a: $bits, b: $bits, rm: Rounding, flags: u8) -> Option<$bits> {
                let product = <$float>::from_bits(a) * <$float>::from_bits(b);
                let certain = rm == Rounding::Rne && safe(product) && (flags & NX != 0 || short(a, b));
                certain.then(|| product.to_bits())
            }

            /// `a / b`, if nothing but an NX that is set already can be raised.
            #[inline]
            pub(crate) fn div(a: $bits, b: $bits, rm: Rounding, flags: u8) -> Option<$bits> {
                if rm != Rounding::Rne || flags & NX == 0 {
                    return None;
                }
                let (a, b) = (<$float>::from_bits(a), <$float>::from_bits(b));
                let quotient = a / b;
                safe(quotient).then(|| quotient.to_bits())
            }
        }
    };
}

host_arithmetic!(single, f32, u32, 24);
host_arithmetic!(double, f64, u64, 53);
