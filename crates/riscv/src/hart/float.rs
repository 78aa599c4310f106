//! The F, D, Zfhmin and Zfa extensions: register file, rounding modes, `fflags` and `mstatus.FS` around the pure functions
//! of [`fp`](super::fp).
//!
//! Choices: FS becomes Dirty with every write of an FP register and every accrual of flags, as precise
//! tracking would have it at the latest; a reserved rounding mode is an illegal instruction.
//! Source: unprivileged specification, "F", "D"; privileged, "Extension Context Status".

use super::Hart;
use super::code::Packed;
use super::csr::{Illegal, status};
use super::fp::{self, Rounding, boxed, unbox};
use pollux_isa::code;

/// Whether floating point is on (`mstatus.FS` is not Off).
#[inline(always)]
pub(super) fn enabled(hart: &Hart) -> bool {
    hart.csrs.mstatus & status::FS != 0
}

/// Writes an FP register.
#[inline(always)]
pub(super) fn set(hart: &mut Hart, rd: usize, value: u64) {
    hart.f[rd & 31] = value;
    hart.csrs.mstatus |= status::FS;
}

/// The rounding mode an instruction asks for.
fn rounding(hart: &Hart, op: Packed) -> Result<Rounding, Illegal> {
    let bits = if op.rm() == 7 { hart.csrs.frm as u8 } else { op.rm() };
    Rounding::from_bits(bits).ok_or(Illegal)
}

/// Executes one computational instruction of F or D.
#[inline(never)]
pub(super) fn execute(hart: &mut Hart, op: Packed) -> Result<(), Illegal> {
    if !enabled(hart) {
        return Err(Illegal);
    }
    match op.kind() {
        kind if kind >= code::FmvXH => execute_more(hart, op),
        kind if kind >= code::FmaddD => execute_double(hart, op),
        _ => execute_single(hart, op),
    }
}

/// Notes flags that an operation accrued, from what `fflags` was before.
fn accrue(hart: &mut Hart, flags: u8) {
    if u64::from(flags) != hart.csrs.fflags {
        hart.csrs.fflags = u64::from(flags);
        hart.csrs.mstatus |= status::FS;
    }
}

fn execute_single(hart: &mut Hart, op: Packed) -> Result<(), Illegal> {
    let a = unbox(hart.f[op.rs1() & 31]);
    let b = unbox(hart.f[op.rs2() & 31]);
    let c = unbox(hart.f[op.rs3() & 31]);
    let x = hart.x[op.rs1()];
    let rm = || rounding(hart, op);
    let mut flags = hart.csrs.fflags as u8;
    let fl = &mut flags;
    enum To {
        F(u32),
        X(u64),
    }
    let to = match op.kind() {
        code::FmaddS => To::F(fp::fmadd_s(a, b, c, rm()?, fl)),
        code::FmsubS => To::F(fp::fmsub_s(a, b, c, rm()?, fl)),
        code::FnmsubS => To::F(fp::fnmsub_s(a, b, c, rm()?, fl)),
        code::FnmaddS => To::F(fp::fnmadd_s(a, b, c, rm()?, fl)),
        code::FaddS => To::F(fp::add_s(a, b, rm()?, fl)),
        code::FsubS => To::F(fp::sub_s(a, b, rm()?, fl)),
        code::FmulS => To::F(fp::mul_s(a, b, rm()?, fl)),
        code::FdivS => To::F(fp::div_s(a, b, rm()?, fl)),
        code::FsqrtS => To::F(fp::sqrt_s(a, rm()?, fl)),
        code::FsgnjS => To::F(fp::sgnj_s(a, b)),
        code::FsgnjnS => To::F(fp::sgnjn_s(a, b)),
        code::FsgnjxS => To::F(fp::sgnjx_s(a, b)),
        code::FminS => To::F(fp::min_s(a, b, fl)),
        code::FmaxS => To::F(fp::max_s(a, b, fl)),
        code::FcvtWS => To::X(fp::cvt_w_s(a, rm()?, fl)),
        code::FcvtWuS => To::X(fp::cvt_wu_s(a, rm()?, fl)),
        code::FmvXW => To::X(hart.f[op.rs1() & 31] as i32 as u64),
        code::FeqS => To::X(u64::from(fp::eq_s(a, b, fl))),
        code::FltS => To::X(u64::from(fp::lt_s(a, b, fl))),
        code::FleS => To::X(u64::from(fp::le_s(a, b, fl))),
        code::FclassS => To::X(fp::class_s(a)),
        code::FcvtSW => To::F(fp::cvt_s_w(x, rm()?, fl)),
        code::FcvtSWu => To::F(fp::cvt_s_wu(x, rm()?, fl)),
        code::FmvWX => To::F(x as u32),
        code::FcvtLS => To::X(fp::cvt_l_s(a, rm()?, fl)),
        code::FcvtLuS => To::X(fp::cvt_lu_s(a, rm()?, fl)),
        code::FcvtSL => To::F(fp::cvt_s_l(x, rm()?, fl)),
        code::FcvtSLu => To::F(fp::cvt_s_lu(x, rm()?, fl)),
        _ => return Err(Illegal),
    };
    match to {
        To::F(value) => set(hart, op.rd(), boxed(value)),
        To::X(value) => hart.x[op.rd()] = value,
    }
    accrue(hart, flags);
    Ok(())
}

fn execute_double(hart: &mut Hart, op: Packed) -> Result<(), Illegal> {
    let a = hart.f[op.rs1() & 31];
    let b = hart.f[op.rs2() & 31];
    let c = hart.f[op.rs3() & 31];
    let x = hart.x[op.rs1()];
    let rm = || rounding(hart, op);
    let mut flags = hart.csrs.fflags as u8;
    let fl = &mut flags;
    enum To {
        F(u64),
        X(u64),
    }
    let to = match op.kind() {
        code::FmaddD => To::F(fp::fmadd_d(a, b, c, rm()?, fl)),
        code::FmsubD => To::F(fp::fmsub_d(a, b, c, rm()?, fl)),
        code::FnmsubD => To::F(fp::fnmsub_d(a, b, c, rm()?, fl)),
        code::FnmaddD => To::F(fp::fnmadd_d(a, b, c, rm()?, fl)),
        code::FaddD => To::F(fp::add_d(a, b, rm()?, fl)),
        code::FsubD => To::F(fp::sub_d(a, b, rm()?, fl)),
        code::FmulD => To::F(fp::mul_d(a, b, rm()?, fl)),
        code::FdivD => To::F(fp::div_d(a, b, rm()?, fl)),
        code::FsqrtD => To::F(fp::sqrt_d(a, rm()?, fl)),
        code::FsgnjD => To::F(fp::sgnj_d(a, b)),
        code::FsgnjnD => To::F(fp::sgnjn_d(a, b)),
        code::FsgnjxD => To::F(fp::sgnjx_d(a, b)),
        code::FminD => To::F(fp::min_d(a, b, fl)),
        code::FmaxD => To::F(fp::max_d(a, b, fl)),
        code::FcvtSD => To::F(boxed(fp::cvt_s_d(a, rm()?, fl))),
        code::FcvtDS => To::F(fp::cvt_d_s(unbox(a), rm()?, fl)),
        code::FeqD => To::X(u64::from(fp::eq_d(a, b, fl))),
        code::FltD => To::X(u64::from(fp::lt_d(a, b, fl))),
        code::FleD => To::X(u64::from(fp::le_d(a, b, fl))),
        code::FclassD => To::X(fp::class_d(a)),
        code::FcvtWD => To::X(fp::cvt_w_d(a, rm()?, fl)),
        code::FcvtWuD => To::X(fp::cvt_wu_d(a, rm()?, fl)),
        code::FcvtDW => To::F(fp::cvt_d_w(x, rm()?, fl)),
        code::FcvtDWu => To::F(fp::cvt_d_wu(x, rm()?, fl)),
        code::FcvtLD => To::X(fp::cvt_l_d(a, rm()?, fl)),
        code::FcvtLuD => To::X(fp::cvt_lu_d(a, rm()?, fl)),
        code::FmvXD => To::X(a),
        code::FcvtDL => To::F(fp::cvt_d_l(x, rm()?, fl)),
        code::FcvtDLu => To::F(fp::cvt_d_lu(x, rm()?, fl)),
        code::FmvDX => To::F(x),
        _ => return Err(Illegal),
    };
    match to {
        To::F(value) => set(hart, op.rd(), value),
        To::X(value) => hart.x[op.rd()] = value,
    }
    accrue(hart, flags);
    Ok(())
}

/// Zfhmin and Zfa.
fn execute_more(hart: &mut Hart, op: Packed) -> Result<(), Illegal> {
    let (raw_a, raw_b) = (hart.f[op.rs1() & 31], hart.f[op.rs2() & 31]);
    let (a, b) = (unbox(raw_a), unbox(raw_b));
    let half = fp::unbox_half(raw_a);
    let x = hart.x[op.rs1()];
    let rm = || rounding(hart, op);
    let mut flags = hart.csrs.fflags as u8;
    let fl = &mut flags;
    enum To {
        F(u64),
        X(u64),
    }
    let to = match op.kind() {
        code::FmvXH => To::X(raw_a as i16 as u64),
        code::FmvHX => To::F(fp::boxed_half(x as u16)),
        code::FcvtSH => To::F(boxed(fp::cvt_s_h(half, rm()?, fl))),
        code::FcvtHS => To::F(fp::boxed_half(fp::cvt_h_s(a, rm()?, fl))),
        code::FcvtDH => To::F(fp::cvt_d_h(half, rm()?, fl)),
        code::FcvtHD => To::F(fp::boxed_half(fp::cvt_h_d(raw_a, rm()?, fl))),
        code::FliS => To::F(boxed(fp::li_s(op.rs1()))),
        code::FliD => To::F(fp::li_d(op.rs1())),
        code::FminmS => To::F(boxed(fp::minm_s(a, b, fl))),
        code::FmaxmS => To::F(boxed(fp::maxm_s(a, b, fl))),
        code::FminmD => To::F(fp::minm_d(raw_a, raw_b, fl)),
        code::FmaxmD => To::F(fp::maxm_d(raw_a, raw_b, fl)),
        code::FroundS => To::F(boxed(fp::round_s(a, rm()?, false, fl))),
        code::FroundnxS => To::F(boxed(fp::round_s(a, rm()?, true, fl))),
        code::FroundD => To::F(fp::round_d(raw_a, rm()?, false, fl)),
        code::FroundnxD => To::F(fp::round_d(raw_a, rm()?, true, fl)),
        code::FcvtmodWD => To::X(fp::cvtmod_w_d(raw_a, fl)),
        code::FltqS => To::X(u64::from(fp::ltq_s(a, b, fl))),
        code::FleqS => To::X(u64::from(fp::leq_s(a, b, fl))),
        code::FltqD => To::X(u64::from(fp::ltq_d(raw_a, raw_b, fl))),
        code::FleqD => To::X(u64::from(fp::leq_d(raw_a, raw_b, fl))),
        _ => return Err(Illegal),
    };
    match to {
        To::F(value) => set(hart, op.rd(), value),
        To::X(value) => hart.x[op.rd()] = value,
    }
    accrue(hart, flags);
    Ok(())
}
