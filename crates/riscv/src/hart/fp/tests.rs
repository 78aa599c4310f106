//! Three judges: tables of special values from the specifications, the host's arithmetic (to nearest even),
//! and `rustc_apfloat` (every operation in every rounding mode, with flags).
//!
//! `rustc_apfloat` finds tininess from the encoded result, and reports no overflow that rounds to the largest
//! finite number; RISC-V wants both found after rounding with an unbounded exponent. So the judge is asked a
//! second time, in a format of the same precision and a far wider exponent, for UF and OF.

use super::*;
use crate::tests::chance;
use rustc_apfloat::ieee::{DoubleS, IeeeFloat, Semantics, SingleS};
use rustc_apfloat::{Float, FloatConvert, Round, Status, StatusAnd};
use std::vec::Vec;

const MODES: [Rounding; 5] = [Rounding::Rne, Rounding::Rtz, Rounding::Rdn, Rounding::Rup, Rounding::Rmm];
const ROUNDS: usize = 200_000;

/// binary64's precision with fifteen exponent bits: nothing double precision does under- or overflows here.
struct RoomyDoubleS;
impl Semantics for RoomyDoubleS {
    const BITS: usize = 68;
    const EXP_BITS: usize = 15;
}

/// The same for binary32.
struct RoomySingleS;
impl Semantics for RoomySingleS {
    const BITS: usize = 39;
    const EXP_BITS: usize = 15;
}

/// Every failure is reproducible.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        chance::splitmix(&mut self.0)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn mode(&mut self) -> Rounding {
        MODES[self.below(5) as usize]
    }

    /// An operand with a taste for the edges: exponents in the middle, at the ends, special; significands
    /// random, short, or nearly all ones.
    fn operand<F: Format>(&mut self) -> u64 {
        let field = match self.below(10) {
            0 => 0,
            1 => F::EXP_SPECIAL,
            2 => 1 + self.below(3),
            3 => F::EXP_SPECIAL - 1 - self.below(3),
            4 => self.below(F::EXP_SPECIAL),
            5 => F::EXP_SPECIAL / 4 + self.below(80),
            _ => F::EXP_SPECIAL / 2 - 8 + self.below(16),
        };
        let fraction = match self.below(8) {
            0 => 0,
            1 => 1 << self.below(F::FRACTION.into()),
            2 => F::FRACTION_MASK << self.below(F::FRACTION.into()),
            3 => F::FRACTION_MASK >> self.below(F::FRACTION.into()),
            4 => self.next() << self.below(F::FRACTION.into()),
            5 => self.below(4),
            _ => self.next(),
        };
        (self.next() & F::SIGN) | field << F::FRACTION | fraction & F::FRACTION_MASK
    }
}

fn round_of(rm: Rounding) -> Round {
    match rm {
        Rounding::Rne => Round::NearestTiesToEven,
        Rounding::Rtz => Round::TowardZero,
        Rounding::Rdn => Round::TowardNegative,
        Rounding::Rup => Round::TowardPositive,
        Rounding::Rmm => Round::NearestTiesToAway,
    }
}

/// The judge's flags as `fflags`.
fn flags_of(status: Status) -> u8 {
    let has = |s: Status, bit: u8| if status.contains(s) { bit } else { 0 };
    has(Status::INVALID_OP, NV)
        | has(Status::DIV_BY_ZERO, DZ)
        | has(Status::OVERFLOW, OF)
        | has(Status::INEXACT, NX)
}

/// The judge's verdict as a pattern and flags, given what the same operation gives in the roomy format.
fn verdict<F: Format, S: Semantics, R: Semantics>(
    answer: StatusAnd<IeeeFloat<S>>,
    roomy: IeeeFloat<R>,
) -> (u64, u8) {
    let mut flags = flags_of(answer.status);
    let tiny = roomy.is_finite_non_zero() && roomy.ilogb() < F::EXP_MIN;
    if roomy.is_finite_non_zero() && roomy.ilogb() > F::BIAS {
        flags |= OF;
    }
    if tiny && flags & NX != 0 {
        flags |= UF;
    }
    let bits = if answer.value.is_nan() { F::NAN } else { answer.value.to_bits() as u64 };
    (bits, flags)
}

/// One operation on up to three operands, as the judge does it.
fn judge_operation<S: Semantics>(
    name: &str,
    [a, b, c]: [IeeeFloat<S>; 3],
    rm: Rounding,
) -> StatusAnd<IeeeFloat<S>> {
    let round = round_of(rm);
    match name {
        "add" => a.add_r(b, round),
        "sub" => a.sub_r(b, round),
        "mul" => a.mul_r(b, round),
        "div" => a.div_r(b, round),
        "fmadd" => a.mul_add_r(b, c, round),
        "fmsub" => a.mul_add_r(b, -c, round),
        "fnmsub" => (-a).mul_add_r(b, c, round),
        "fnmadd" => (-a).mul_add_r(b, -c, round),
        _ => unreachable!("the table below names no other"),
    }
}

fn judge<F: Format, S: Semantics, R: Semantics>(name: &str, operands: [u64; 3], rm: Rounding) -> (u64, u8)
where
    IeeeFloat<S>: FloatConvert<IeeeFloat<R>>,
{
    let narrow = operands.map(|bits| IeeeFloat::<S>::from_bits(bits.into()));
    let roomy = narrow.map(|x| x.convert(&mut false).value);
    let (mut bits, mut flags) =
        verdict::<F, S, R>(judge_operation(name, narrow, rm), judge_operation(name, roomy, rm).value);
    let used = if name.starts_with('f') { 3 } else { 2 };
    if narrow[..used].iter().any(|x| x.is_nan()) {
        let signals = narrow[..used].iter().any(|x| x.is_signaling());
        let [a, b, _] = narrow;
        let no_product = used == 3 && (a.is_infinite() && b.is_zero() || a.is_zero() && b.is_infinite());
        (bits, flags) = (F::NAN, if signals || no_product { NV } else { 0 });
    }
    (bits, flags)
}

type Operation<T> = (&'static str, fn(T, T, T, Rounding, &mut u8) -> T);

const DOUBLES: [Operation<u64>; 8] = [
    ("add", |a, b, _, rm, f| add_d(a, b, rm, f)),
    ("sub", |a, b, _, rm, f| sub_d(a, b, rm, f)),
    ("mul", |a, b, _, rm, f| mul_d(a, b, rm, f)),
    ("div", |a, b, _, rm, f| div_d(a, b, rm, f)),
    ("fmadd", fmadd_d),
    ("fmsub", fmsub_d),
    ("fnmsub", fnmsub_d),
    ("fnmadd", fnmadd_d),
];

const SINGLES: [Operation<u32>; 8] = [
    ("add", |a, b, _, rm, f| add_s(a, b, rm, f)),
    ("sub", |a, b, _, rm, f| sub_s(a, b, rm, f)),
    ("mul", |a, b, _, rm, f| mul_s(a, b, rm, f)),
    ("div", |a, b, _, rm, f| div_s(a, b, rm, f)),
    ("fmadd", fmadd_s),
    ("fmsub", fmsub_s),
    ("fnmsub", fnmsub_s),
    ("fnmadd", fnmadd_s),
];

#[test]
fn arithmetic_agrees_with_the_judge_in_every_rounding_mode_flags_included() {
    let mut seeded = Random(1);
    for _ in 0..ROUNDS {
        let rm = if seeded.below(2) == 0 { Rounding::Rne } else { seeded.mode() };
        let before = if seeded.below(2) == 0 { 0 } else { NX };
        let operands = [0; 3].map(|_| seeded.operand::<Double>());
        let [a, b, c] = operands;
        for (name, operation) in DOUBLES {
            let mut flags = before;
            let bits = operation(a, b, c, rm, &mut flags);
            let (want, raised) = judge::<Double, DoubleS, RoomyDoubleS>(name, operands, rm);
            assert_eq!((bits, flags), (want, before | raised), "{name}.d {a:#x} {b:#x} {c:#x} {rm:?}");
        }
        let operands = [0; 3].map(|_| seeded.operand::<Single>());
        let [a, b, c] = operands.map(|x| x as u32);
        for (name, operation) in SINGLES {
            let mut flags = before;
            let bits = operation(a, b, c, rm, &mut flags);
            let (want, raised) = judge::<Single, SingleS, RoomySingleS>(name, operands, rm);
            assert_eq!((bits.into(), flags), (want, before | raised), "{name}.s {a:#x} {b:#x} {c:#x} {rm:?}");
        }
    }
}

#[test]
fn arithmetic_agrees_with_the_host_to_nearest_even() {
    let mut seeded = Random(2);
    for _ in 0..ROUNDS {
        let [a, b, c] = [0; 3].map(|_| seeded.operand::<Double>());
        let [x, y, z] = [a, b, c].map(f64::from_bits);
        let host = [x + y, x - y, x * y, x / y, x.mul_add(y, z), x.sqrt()];
        let rm = Rounding::Rne;
        let f = &mut seeded.below(2).try_into().unwrap();
        let ours = [
            add_d(a, b, rm, f),
            sub_d(a, b, rm, f),
            mul_d(a, b, rm, f),
            div_d(a, b, rm, f),
            fmadd_d(a, b, c, rm, f),
            sqrt_d(a, rm, f),
        ];
        let host = host.map(|r| if r.is_nan() { CANONICAL_NAN_D } else { r.to_bits() });
        assert_eq!(ours, host, "{a:#x} {b:#x} {c:#x}");
        let [a, b] = [0; 2].map(|_| seeded.operand::<Single>() as u32);
        let (x, y) = (f32::from_bits(a), f32::from_bits(b));
        let mut nothing = 0;
        let nothing = &mut nothing;
        assert_eq!((eq_s(a, b, nothing), lt_s(a, b, nothing), le_s(a, b, nothing)), (x == y, x < y, x <= y));
        let root = x.sqrt();
        let root = if root.is_nan() { CANONICAL_NAN_S } else { root.to_bits() };
        assert_eq!(sqrt_s(a, rm, nothing), root, "{a:#x}");
    }
}

#[test]
fn the_accrued_flags_change_no_result_and_are_never_lost() {
    let mut seeded = Random(3);
    for _ in 0..ROUNDS {
        let [a, b, c] = [0; 3].map(|_| seeded.operand::<Double>());
        let (rm, before) = (seeded.mode(), seeded.below(32) as u8);
        for (name, operation) in DOUBLES {
            let (mut clear, mut accrued) = (0, before);
            let bits = operation(a, b, c, rm, &mut clear);
            assert_eq!(operation(a, b, c, rm, &mut accrued), bits, "{name} {a:#x} {b:#x} {c:#x} {rm:?}");
            assert_eq!(accrued, before | clear, "{name} {a:#x} {b:#x} {c:#x} {rm:?}");
        }
    }
}

/// binary64's exponent range twice over with room for the exact square of any double.
struct SquareS;
impl Semantics for SquareS {
    const BITS: usize = 126;
    const EXP_BITS: usize = 15;
}

#[test]
fn a_square_root_is_bracketed_by_its_neighbours_in_every_rounding_mode() {
    let exact = |bits: u64| -> IeeeFloat<SquareS> {
        IeeeFloat::<DoubleS>::from_bits(bits.into()).convert(&mut false).value
    };
    let mut seeded = Random(4);
    for _ in 0..ROUNDS {
        let a = seeded.operand::<Double>() & !Double::SIGN;
        if a == 0 || a >= Double::INFINITY {
            continue;
        }
        let mut flags = 0;
        let down = sqrt_d(a, Rounding::Rtz, &mut flags);
        let next = exact(down + 1);
        let (square, over) = ((exact(down) * exact(down)).value, (next * next).value);
        assert!(square <= exact(a) && exact(a) < over, "{a:#x}");
        assert_eq!(flags, if square == exact(a) { 0 } else { NX }, "{a:#x}");
        let up = if flags == 0 { down } else { down + 1 };
        assert_eq!(sqrt_d(a, Rounding::Rdn, &mut flags), down);
        assert_eq!(sqrt_d(a, Rounding::Rup, &mut flags), up);
        let nearest = f64::from_bits(a).sqrt().to_bits();
        // A root is never half-way between two doubles, so the two nearest modes agree.
        assert_eq!(sqrt_d(a, Rounding::Rmm, &mut flags), nearest);
    }
}

/// What a conversion to an integer of `width` bits should give, by the judge.
fn judge_integer<S: Semantics>(bits: u64, width: usize, signed: bool, rm: Rounding) -> (u64, u8) {
    let x = IeeeFloat::<S>::from_bits(bits.into());
    let (mut exact, round) = (false, round_of(rm));
    let (value, status) = if signed {
        let answer = x.to_i128_r(width, round, &mut exact);
        (answer.value as u64, answer.status)
    } else {
        let answer = x.to_u128_r(width, round, &mut exact);
        (answer.value as u64, answer.status)
    };
    let sign_extend = |v: u64| if width == 32 { v as i32 as u64 } else { v };
    if status.contains(Status::INVALID_OP) {
        let negative = x.is_negative() && !x.is_nan();
        let saturated = match (signed, negative) {
            (true, true) => 1 << (width - 1),
            (true, false) => (1 << (width - 1)) - 1,
            (false, true) => 0,
            (false, false) => u64::MAX,
        };
        return (sign_extend(saturated), NV);
    }
    (sign_extend(value), flags_of(status))
}

#[test]
fn conversions_to_integers_agree_with_the_judge() {
    let mut seeded = Random(5);
    for round in 0..ROUNDS {
        let rm = seeded.mode();
        let mut a = seeded.operand::<Double>();
        if round % 2 == 0 {
            // Around the integers' sizes, where rounding and saturation are decided.
            a = a & (Double::SIGN | Double::FRACTION_MASK) | (1020 + seeded.below(70)) << 52;
        }
        let s = cvt_s_d(a, rm, &mut 0);
        type ToInteger<T> = fn(T, Rounding, &mut u8) -> u64;
        let doubles: [(ToInteger<u64>, usize, bool); 4] =
            [(cvt_w_d, 32, true), (cvt_wu_d, 32, false), (cvt_l_d, 64, true), (cvt_lu_d, 64, false)];
        for (convert, width, signed) in doubles {
            let mut flags = 0;
            let got = convert(a, rm, &mut flags);
            assert_eq!(
                (got, flags),
                judge_integer::<DoubleS>(a, width, signed, rm),
                "{a:#x} {width} {signed} {rm:?}"
            );
        }
        let singles: [(ToInteger<u32>, usize, bool); 4] =
            [(cvt_w_s, 32, true), (cvt_wu_s, 32, false), (cvt_l_s, 64, true), (cvt_lu_s, 64, false)];
        for (convert, width, signed) in singles {
            let mut flags = 0;
            let got = convert(s, rm, &mut flags);
            let want = judge_integer::<SingleS>(s.into(), width, signed, rm);
            assert_eq!((got, flags), want, "{s:#x} {width} {signed} {rm:?}");
        }
    }
}

#[test]
fn conversions_from_integers_and_between_formats_agree_with_the_judge() {
    let mut seeded = Random(6);
    for _ in 0..ROUNDS {
        let rm = seeded.mode();
        let x = seeded.next() >> seeded.below(64) << seeded.below(8);
        let from = |value: i128| {
            let single = IeeeFloat::<SingleS>::from_i128_r(value, round_of(rm));
            let double = IeeeFloat::<DoubleS>::from_i128_r(value, round_of(rm));
            let single = (single.value.to_bits() as u64, flags_of(single.status));
            (single, (double.value.to_bits() as u64, flags_of(double.status)))
        };
        type FromInteger<T> = fn(u64, Rounding, &mut u8) -> T;
        let pairs: [(FromInteger<u32>, FromInteger<u64>, i128); 4] = [
            (cvt_s_w, cvt_d_w, (x as i32).into()),
            (cvt_s_wu, cvt_d_wu, (x as u32).into()),
            (cvt_s_l, cvt_d_l, (x as i64).into()),
            (cvt_s_lu, cvt_d_lu, x.into()),
        ];
        for (to_single, to_double, value) in pairs {
            let (mut s, mut d) = (0, 0);
            let single = (to_single(x, rm, &mut s).into(), s);
            assert_eq!((single, (to_double(x, rm, &mut d), d)), from(value), "{value} {rm:?}");
        }
        let a = seeded.operand::<Double>();
        let wide = IeeeFloat::<DoubleS>::from_bits(a.into());
        let answer: StatusAnd<IeeeFloat<SingleS>> = wide.convert_r(round_of(rm), &mut false);
        let roomy: StatusAnd<IeeeFloat<RoomySingleS>> = wide.convert_r(round_of(rm), &mut false);
        let (bits, mut want) = verdict::<Single, SingleS, RoomySingleS>(answer, roomy.value);
        if wide.is_nan() {
            want = if wide.is_signaling() { NV } else { 0 };
        }
        let mut flags = 0;
        assert_eq!((cvt_s_d(a, rm, &mut flags).into(), flags), (bits, want), "{a:#x} {rm:?}");
        let s = bits as u32;
        let back = f64::from(f32::from_bits(s));
        let back = if back.is_nan() { CANONICAL_NAN_D } else { back.to_bits() };
        assert_eq!(cvt_d_s(s, rm, &mut flags), back);
    }
}

const SNAN: u64 = 0x7ff0_0000_0000_0001;
const QNAN: u64 = 0xfff8_0000_0000_0123;
const INF: u64 = 0x7ff0_0000_0000_0000;
const MINUS: u64 = 1 << 63;
const MIN_NORMAL: u64 = 0x0010_0000_0000_0000;
const MAX: u64 = INF - 1;
const ONE: u64 = 0x3ff0_0000_0000_0000;

fn with_flags<T>(operation: impl FnOnce(&mut u8) -> T) -> (T, u8) {
    let mut flags = 0;
    let result = operation(&mut flags);
    (result, flags)
}

#[test]
fn a_nan_result_is_the_canonical_one_and_only_a_signalling_operand_is_invalid() {
    let rm = Rounding::Rne;
    assert_eq!(with_flags(|f| add_d(QNAN, ONE, rm, f)), (CANONICAL_NAN_D, 0));
    assert_eq!(with_flags(|f| add_d(ONE, SNAN, rm, f)), (CANONICAL_NAN_D, NV));
    assert_eq!(with_flags(|f| mul_d(QNAN, SNAN, rm, f)), (CANONICAL_NAN_D, NV));
    assert_eq!(with_flags(|f| sqrt_d(QNAN, rm, f)), (CANONICAL_NAN_D, 0));
    assert_eq!(with_flags(|f| sqrt_d(MINUS | ONE, rm, f)), (CANONICAL_NAN_D, NV));
    assert_eq!(with_flags(|f| sqrt_d(MINUS, rm, f)), (MINUS, 0));
    assert_eq!(with_flags(|f| add_d(INF, INF | MINUS, rm, f)), (CANONICAL_NAN_D, NV));
    assert_eq!(with_flags(|f| div_d(0, 0, rm, f)), (CANONICAL_NAN_D, NV));
    assert_eq!(with_flags(|f| div_d(MINUS | ONE, 0, rm, f)), (INF | MINUS, DZ));
    assert_eq!(with_flags(|f| div_d(INF, 0, rm, f)), (INF, 0));
    assert_eq!(with_flags(|f| cvt_s_d(SNAN, rm, f)), (CANONICAL_NAN_S, NV));
}

#[test]
fn infinity_times_zero_plus_a_quiet_nan_is_invalid() {
    assert_eq!(with_flags(|f| fmadd_d(INF, 0, QNAN, Rounding::Rne, f)), (CANONICAL_NAN_D, NV));
    assert_eq!(with_flags(|f| fmadd_d(0, INF, QNAN, Rounding::Rne, f)), (CANONICAL_NAN_D, NV));
    assert_eq!(with_flags(|f| fmadd_d(INF, ONE, QNAN, Rounding::Rne, f)), (CANONICAL_NAN_D, 0));
    assert_eq!(with_flags(|f| fmadd_d(INF, ONE, INF | MINUS, Rounding::Rne, f)), (CANONICAL_NAN_D, NV));
}

#[test]
fn minimum_and_maximum_prefer_numbers_and_order_the_zeros() {
    assert_eq!(with_flags(|f| min_d(SNAN, ONE, f)), (ONE, NV));
    assert_eq!(with_flags(|f| max_d(ONE, QNAN, f)), (ONE, 0));
    assert_eq!(with_flags(|f| max_d(SNAN, QNAN, f)), (CANONICAL_NAN_D, NV));
    assert_eq!(with_flags(|f| min_d(QNAN, QNAN, f)), (CANONICAL_NAN_D, 0));
    assert_eq!((min_d(0, MINUS, &mut 0), min_d(MINUS, 0, &mut 0)), (MINUS, MINUS));
    assert_eq!((max_d(0, MINUS, &mut 0), max_d(MINUS, 0, &mut 0)), (0, 0));
    assert_eq!((min_s(0x8000_0000, 0, &mut 0), max_s(0xff80_0000, 1, &mut 0)), (0x8000_0000, 1));
}

#[test]
fn comparisons_are_quiet_for_equality_and_signalling_for_order() {
    assert_eq!(with_flags(|f| eq_d(QNAN, ONE, f)), (false, 0));
    assert_eq!(with_flags(|f| eq_d(SNAN, ONE, f)), (false, NV));
    assert_eq!(with_flags(|f| lt_d(QNAN, ONE, f)), (false, NV));
    assert_eq!(with_flags(|f| le_d(ONE, QNAN, f)), (false, NV));
    assert_eq!(
        with_flags(|f| (eq_d(0, MINUS, f), lt_d(MINUS, 0, f), le_d(0, MINUS, f))),
        ((true, false, true), 0)
    );
}

#[test]
fn every_class_has_its_bit() {
    let patterns = [
        INF | MINUS,
        ONE | MINUS,
        1 | MINUS,
        MINUS,
        0,
        MIN_NORMAL - 1,
        MIN_NORMAL,
        INF,
        SNAN,
        CANONICAL_NAN_D,
    ];
    for (bit, pattern) in patterns.into_iter().enumerate() {
        assert_eq!(class_d(pattern), 1 << bit, "{pattern:#x}");
    }
    let patterns: Vec<u64> = [0xff80_0000, 0x80ff_ffff, 0x807f_ffff, 0x8000_0000, 0, 1, 0x7f7f_ffff]
        .into_iter()
        .chain([0x7f80_0000, 0x7fa0_0000, 0x7fc0_0000])
        .map(class_s)
        .collect();
    assert_eq!(patterns, (0..10).map(|bit| 1 << bit).collect::<Vec<_>>());
}

#[test]
fn tininess_is_detected_after_rounding() {
    // The smallest normal number times the largest double below one: with an unbounded exponent the product
    // is exact and below the smallest normal, so it is tiny; encoded, it rounds up to the smallest normal.
    assert_eq!(with_flags(|f| mul_d(MIN_NORMAL, ONE - 1, Rounding::Rne, f)), (MIN_NORMAL, UF | NX));
    // (1 + 2^-52) * (1 - 2^-52) = 1 - 2^-104: rounds up to the smallest normal at full precision: not tiny.
    assert_eq!(with_flags(|f| mul_d(MIN_NORMAL + 1, ONE - 2, Rounding::Rne, f)), (MIN_NORMAL, NX));
    assert_eq!(with_flags(|f| mul_d(MIN_NORMAL + 1, ONE - 2, Rounding::Rtz, f)), (MIN_NORMAL - 1, UF | NX));
    // An exact subnormal result is not an underflow.
    assert_eq!(
        with_flags(|f| div_d(MIN_NORMAL, 0x4000_0000_0000_0000, Rounding::Rne, f)),
        (MIN_NORMAL / 2, 0)
    );
}

#[test]
fn overflow_saturates_as_the_rounding_mode_says() {
    let sums = MODES.map(|rm| with_flags(|f| add_d(MAX, MAX, rm, f)));
    assert_eq!(sums, [INF, MAX, MAX, INF, INF].map(|bits| (bits, OF | NX)));
    let sums = MODES.map(|rm| with_flags(|f| add_d(MAX | MINUS, MAX | MINUS, rm, f).wrapping_sub(MINUS)));
    assert_eq!(sums, [INF, MAX, INF, MAX, INF].map(|bits| (bits, OF | NX)));
}

#[test]
fn exact_zero_sums_are_negative_only_when_rounding_down() {
    for rm in MODES {
        let zero = if rm == Rounding::Rdn { MINUS } else { 0 };
        assert_eq!(with_flags(|f| sub_d(ONE, ONE, rm, f)), (zero, 0));
        assert_eq!(with_flags(|f| add_d(0, MINUS, rm, f)), (zero, 0));
        assert_eq!(with_flags(|f| fmsub_d(ONE, ONE, ONE, rm, f)), (zero, 0));
        assert_eq!(with_flags(|f| add_d(MINUS, MINUS, rm, f)), (MINUS, 0));
    }
}

#[test]
fn integers_that_do_not_fit_saturate_with_nv_alone() {
    let rm = Rounding::Rtz;
    assert_eq!(with_flags(|f| cvt_w_d(CANONICAL_NAN_D, rm, f)), (0x7fff_ffff, NV));
    assert_eq!(with_flags(|f| cvt_wu_d(CANONICAL_NAN_D, rm, f)), (u64::MAX, NV));
    assert_eq!(with_flags(|f| cvt_wu_d(MINUS | ONE, rm, f)), (0, NV));
    assert_eq!(with_flags(|f| cvt_lu_d(MINUS | (ONE - 1), rm, f)), (0, NX));
    assert_eq!(with_flags(|f| cvt_w_s(0xff80_0000, rm, f)), (0xffff_ffff_8000_0000, NV));
    assert_eq!(with_flags(|f| cvt_l_s(0xdf00_0000, rm, f)), (1 << 63, 0));
    assert_eq!(with_flags(|f| cvt_lu_s(0x5f80_0000, rm, f)), (u64::MAX, NV));
}

#[test]
fn a_single_that_is_not_boxed_reads_as_the_canonical_nan() {
    assert_eq!(unbox(boxed(0x3f80_0000)), 0x3f80_0000);
    assert_eq!(unbox(0x3f80_0000), CANONICAL_NAN_S);
    assert_eq!(unbox(0xffff_fffe_3f80_0000), CANONICAL_NAN_S);
}

#[test]
fn reserved_and_dynamic_rounding_modes_are_no_modes() {
    assert_eq!((0..8).filter_map(Rounding::from_bits).collect::<Vec<_>>(), MODES);
}

#[test]
fn sign_injection_touches_nothing_but_the_sign() {
    assert_eq!(
        (sgnj_d(SNAN, MINUS), sgnjn_d(SNAN, MINUS), sgnjx_d(QNAN, MINUS)),
        (SNAN | MINUS, SNAN, QNAN ^ MINUS)
    );
    assert_eq!(
        (sgnj_s(1, 0x8000_0000), sgnjn_s(1, 0), sgnjx_s(0x8000_0001, 0x8000_0000)),
        (0x8000_0001, 0x8000_0001, 1)
    );
}
