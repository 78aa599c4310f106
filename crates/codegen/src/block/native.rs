//! Which instructions the host executes, and which are always the interpreter's. All others that the host executes may
//! still come to the interpreter, on their slow paths.

use super::Kind;
use crate::region::Features;
use pollux_isa::{Inst, Opcode as Op, csr};

/// `rm` values.
pub(crate) const RNE: u8 = 0;
pub(crate) const RTZ: u8 = 1;
pub(crate) const RDN: u8 = 2;
pub(crate) const RUP: u8 = 3;
pub(crate) const RMM: u8 = 4;
pub(crate) const DYN: u8 = 7;

/// The bits of `frm`.
pub(crate) const FRM_BITS: i32 = 7;

/// Who executes an instruction that is no jump.
pub(crate) fn kind(inst: Inst, features: Features) -> Kind {
    let is_void = is_integer(inst.opcode) && inst.rd == 0;
    match inst.opcode {
        Op::Fence | Op::FenceI => Kind::Nothing,
        _ if is_void => Kind::Nothing,
        _ if is_step(inst, features) => Kind::Step,
        _ => Kind::Native,
    }
}

/// Whether an instruction that is no jump is always interpreted.
pub(crate) fn is_step(inst: Inst, features: Features) -> bool {
    match inst.opcode {
        Op::Cpop | Op::Cpopw => !features.popcnt,
        Op::Fence | Op::FenceI | Op::CboZero | Op::SfenceVma => false,
        Op::Pause | Op::WrsNto | Op::WrsSto => false,
        // What it skips is in the block.
        opcode if is_branch(opcode) => false,
        opcode if is_csr(opcode) => !is_native_csr(inst),
        opcode if (Op::LrW..=Op::AmomaxuD).contains(&opcode) => false,
        Op::Flw | Op::Fld | Op::Fsw | Op::Fsd => false,
        Op::Lb | Op::Lh | Op::Lw | Op::Lbu | Op::Lhu | Op::Lwu | Op::Ld => false,
        Op::Sb | Op::Sh | Op::Sw | Op::Sd => false,
        opcode if is_float_compute(opcode) => !is_native_float(inst, features),
        opcode => !is_integer(opcode),
    }
}

/// Whether an instruction is a conditional branch.
pub(crate) fn is_branch(opcode: Op) -> bool {
    matches!(opcode, Op::Beq | Op::Bne | Op::Blt | Op::Bge | Op::Bltu | Op::Bgeu)
}

/// Whether an instruction does nothing but compute rd.
fn is_integer(opcode: Op) -> bool {
    let ranges = [
        Op::Slti..=Op::And,
        Op::Addiw..=Op::Sraw,
        Op::MopR..=Op::CzeroNez,
        Op::Mul..=Op::Remuw,
        Op::AddUw..=Op::Rev8,
        Op::Bclr..=Op::Brev8,
    ];
    matches!(opcode, Op::Lui | Op::Auipc | Op::Addi) || ranges.iter().any(|range| range.contains(&opcode))
}

/// Whether an instruction that computes a register takes the host an instruction or two, and leaves rcx and rdx alone.
pub(crate) fn is_cheap(inst: Inst) -> bool {
    let shifts_by_register =
        matches!(inst.opcode, Op::Sll | Op::Srl | Op::Sra | Op::Sllw | Op::Srlw | Op::Sraw);
    let in_ranges =
        (Op::Slti..=Op::And).contains(&inst.opcode) || (Op::Addiw..=Op::Sraw).contains(&inst.opcode);
    (in_ranges || matches!(inst.opcode, Op::Lui | Op::Addi)) && !shifts_by_register && inst.rd != 0
}

// ---- floating point ----

/// Whether an instruction computes with floating-point registers.
pub(crate) fn is_float_compute(opcode: Op) -> bool {
    (Op::FmaddS..=Op::FmvDX).contains(&opcode)
}

/// Whether the host can round so: to the nearest even, in which translated code runs, or as it is told to.
fn is_hosts(rm: u8) -> bool {
    matches!(rm, RNE | RTZ | RDN | RUP | DYN)
}

/// Whether an `rm` field names a rounding mode, while `frm` does.
fn is_rounding(rm: u8) -> bool {
    rm <= RMM || rm == DYN
}

/// Whether an instruction is computed by the host, as far as can be said before it has operands.
fn is_native_float(inst: Inst, features: Features) -> bool {
    match inst.opcode {
        Op::FmaddS | Op::FmsubS | Op::FnmsubS | Op::FnmaddS => is_hosts(inst.rm) && features.fma,
        Op::FmaddD | Op::FmsubD | Op::FnmsubD | Op::FnmaddD => is_hosts(inst.rm) && features.fma,
        Op::FcvtWS | Op::FcvtWD | Op::FcvtLS | Op::FcvtLD => is_rounding(inst.rm),
        Op::FclassS | Op::FclassD => true,
        Op::FsgnjS | Op::FsgnjnS | Op::FsgnjxS | Op::FsgnjD | Op::FsgnjnD | Op::FsgnjxD => true,
        Op::FminS | Op::FmaxS | Op::FminD | Op::FmaxD => true,
        Op::FeqS | Op::FltS | Op::FleS | Op::FeqD | Op::FltD | Op::FleD => true,
        Op::FmvXW | Op::FmvWX | Op::FmvXD | Op::FmvDX => true,
        // Exact whatever the mode, or tested to be; but a reserved mode is an illegal instruction.
        Op::FcvtDS | Op::FcvtDW | Op::FcvtDWu => is_rounding(inst.rm),
        Op::FcvtDL | Op::FcvtDLu | Op::FcvtSW | Op::FcvtSWu | Op::FcvtSL | Op::FcvtSLu => {
            is_rounding(inst.rm)
        }
        _ => is_hosts(inst.rm),
    }
}

// ---- CSRs ----

/// Whether an instruction reads or writes a CSR.
pub(crate) fn is_csr(opcode: Op) -> bool {
    matches!(opcode, Op::Csrrw | Op::Csrrs | Op::Csrrc | Op::Csrrwi | Op::Csrrsi | Op::Csrrci)
}

/// The CSR of an instruction.
pub(crate) fn csr_number(inst: Inst) -> u16 {
    inst.imm as u16 & 0xfff
}

/// Whether a CSR instruction only reads.
fn reads_only(inst: Inst) -> bool {
    matches!(inst.opcode, Op::Csrrs | Op::Csrrc | Op::Csrrsi | Op::Csrrci) && inst.rs1 == 0
}

/// Whether a CSR instruction is translated.
fn is_native_csr(inst: Inst) -> bool {
    match csr_number(inst) {
        csr::FFLAGS | csr::FCSR => true,
        // It must not choose another rounding mode for certain.
        csr::FRM => !(matches!(inst.opcode, Op::Csrrwi | Op::Csrrsi) && i32::from(inst.rs1) & FRM_BITS != 0),
        csr::TIME => reads_only(inst),
        csr::SSTATUS => true,
        csr::SSCRATCH | csr::SEPC | csr::SCAUSE | csr::STVAL => reads_only(inst) || inst.opcode == Op::Csrrw,
        _ => false,
    }
}

/// Whether an instruction may change which pages may be accessed, if it is not a step. It says so of everything with that
/// number for an immediate, which costs an address check.
pub(crate) fn may_change_rights(inst: Inst) -> bool {
    csr_number(inst) == csr::SSTATUS && !reads_only(inst)
}

/// Whether an instruction is of A, or `cbo.zero`: it may change which page is cached for its base register.
pub(crate) fn is_atomic(opcode: Op) -> bool {
    (Op::LrW..=Op::AmomaxuD).contains(&opcode) || opcode == Op::CboZero
}
