//! Which instructions are computed by the host, and which are always the interpreter's.

use crate::region::{Features, Manner, translate};
use crate::stubs;
use iced_x86::{Decoder, DecoderOptions};
use pollux_isa::{Opcode as Op, csr};

/// A loop of one instruction.
fn is_always_interpreted(instruction: u32) -> bool {
    const BACK: u32 = 0xffdf_f06f;
    let mut page = [0; 4096];
    page[..4].copy_from_slice(&instruction.to_le_bytes());
    page[4..8].copy_from_slice(&BACK.to_le_bytes());
    let (code, stubs) = stubs();
    let features = Features { fma: true, popcnt: true };
    let manner = Manner { features, grouped: true, upper: false };
    let base = code.len() as u32;
    let region = translate(&page, 0, (base, 1 << 24), &stubs, manner, &|_| None, None);
    let decoder = Decoder::with_ip(64, &region.bytes, u64::from(base), DecoderOptions::NONE);
    decoder.into_iter().any(|host| host.near_branch_target() == u64::from(stubs.step))
}

fn word(op: Op, rd: u32, rs1: u32, imm: u32) -> u32 {
    op.info().expect("a row").value | rd << 7 | rs1 << 15 | imm << 20
}

#[test]
fn what_compilers_emit_around_quiet_comparisons_is_translated() {
    let fflags = u32::from(csr::FFLAGS);
    for (name, instruction) in [
        ("frflags a0", word(Op::Csrrs, 10, 0, fflags)),
        ("fsflags a0", word(Op::Csrrw, 0, 10, fflags)),
        ("fsflags a1, a0", word(Op::Csrrw, 11, 10, fflags)),
        ("fsflagsi 16", word(Op::Csrrwi, 0, 16, fflags)),
        ("csrs fflags, a0", word(Op::Csrrs, 0, 10, fflags)),
        ("frrm a0", word(Op::Csrrs, 10, 0, csr::FRM.into())),
        ("fsrm a0", word(Op::Csrrw, 0, 10, csr::FRM.into())),
        ("frcsr a0", word(Op::Csrrs, 10, 0, csr::FCSR.into())),
        ("fscsr a0", word(Op::Csrrw, 0, 10, csr::FCSR.into())),
        ("rdtime a0", word(Op::Csrrs, 10, 0, csr::TIME.into())),
    ] {
        assert!(!is_always_interpreted(instruction), "{name}");
    }
    assert!(is_always_interpreted(word(Op::Csrrwi, 0, 1, csr::FRM.into())), "another rounding mode");
    assert!(is_always_interpreted(word(Op::Csrrw, 0, 10, csr::SATP.into())));
}

#[test]
fn conversions_are_translated_however_they_round() {
    let signed = [Op::FcvtWS, Op::FcvtLS, Op::FcvtWD, Op::FcvtLD];
    let from = [Op::FcvtSW, Op::FcvtSWu, Op::FcvtSL, Op::FcvtSLu, Op::FcvtDL, Op::FcvtDLu, Op::FcvtDWu];
    let unsigned = [Op::FcvtWuS, Op::FcvtLuS, Op::FcvtWuD, Op::FcvtLuD];
    for mode in [0, 1, 2, 3, 4, 7] {
        for op in signed.into_iter().chain(from) {
            assert!(!is_always_interpreted(word(op, 10, 10, 0) | mode << 12), "{op:?} {mode}");
        }
    }
    for op in unsigned {
        for mode in [0, 1, 2, 3, 7] {
            assert!(!is_always_interpreted(word(op, 10, 10, 0) | mode << 12), "{op:?} {mode}");
        }
    }
    assert!(is_always_interpreted(word(Op::FcvtWD, 10, 10, 0) | 5 << 12), "no rounding mode");
    for op in [Op::FclassS, Op::FclassD] {
        assert!(!is_always_interpreted(word(op, 10, 10, 0)), "{op:?}");
    }
}

#[test]
fn arithmetic_is_translated_however_the_host_can_round() {
    let two = [Op::FaddS, Op::FsubS, Op::FmulS, Op::FdivS, Op::FaddD, Op::FsubD, Op::FmulD, Op::FdivD];
    let one = [Op::FsqrtS, Op::FsqrtD, Op::FcvtSD];
    let three = [Op::FmaddS, Op::FmsubS, Op::FnmsubS, Op::FnmaddS, Op::FmaddD, Op::FmsubD, Op::FnmsubD];
    for mode in [0, 1, 2, 3, 7] {
        for op in two.into_iter().chain(one).chain(three) {
            assert!(!is_always_interpreted(word(op, 10, 10, 0) | mode << 12), "{op:?} {mode}");
        }
    }
    assert!(
        is_always_interpreted(word(Op::FaddD, 10, 10, 0) | 4 << 12),
        "no host rounds ties away from zero"
    );
    assert!(is_always_interpreted(word(Op::FaddD, 10, 10, 0) | 5 << 12), "no rounding mode");
}

#[test]
fn waiting_for_other_harts_is_translated() {
    for op in [Op::Pause, Op::WrsNto, Op::WrsSto] {
        assert!(!is_always_interpreted(op.info().expect("a row").value), "{op:?}");
    }
}
