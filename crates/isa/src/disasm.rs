//! Instructions as assembly text, with ABI register names, in the style of the GNU disassembler without
//! aliases. For people who read logs; nothing depends on it.

use crate::csr;
use crate::decode::Inst;
use crate::table::Format;
use alloc::format;
use alloc::string::{String, ToString};

const REGS: [&str; 32] = [
    "zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0", "s1", "a0", "a1", "a2", "a3", "a4", "a5", "a6",
    "a7", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "t3", "t4", "t5", "t6",
];

const FREGS: [&str; 32] = [
    "ft0", "ft1", "ft2", "ft3", "ft4", "ft5", "ft6", "ft7", "fs0", "fs1", "fa0", "fa1", "fa2", "fa3", "fa4",
    "fa5", "fa6", "fa7", "fs2", "fs3", "fs4", "fs5", "fs6", "fs7", "fs8", "fs9", "fs10", "fs11", "ft8",
    "ft9", "ft10", "ft11",
];

/// ABI name of an integer register.
#[must_use]
pub fn reg_name(number: u8) -> &'static str {
    REGS[usize::from(number & 31)]
}

/// ABI name of a floating-point register.
#[must_use]
pub fn freg_name(number: u8) -> &'static str {
    FREGS[usize::from(number & 31)]
}

/// One instruction as text. Branch and jump targets are relative (`.+8`).
#[must_use]
pub fn disasm(inst: &Inst) -> String {
    let name = inst.opcode.name();
    let Some(info) = inst.opcode.info() else { return name.to_string() };
    let (rd, rs1, rs2) = (reg_name(inst.rd), reg_name(inst.rs1), reg_name(inst.rs2));
    let (fd, fs1, fs2, fs3) =
        (freg_name(inst.rd), freg_name(inst.rs1), freg_name(inst.rs2), freg_name(inst.rs3));
    let imm = inst.imm;
    match info.format {
        Format::U => format!("{name} {rd}, {:#x}", imm as u32 >> 12),
        Format::J => format!("{name} {rd}, .{imm:+}"),
        Format::B => format!("{name} {rs1}, {rs2}, .{imm:+}"),
        Format::I => format!("{name} {rd}, {rs1}, {imm}"),
        Format::Load => format!("{name} {rd}, {imm}({rs1})"),
        Format::Store => format!("{name} {rs2}, {imm}({rs1})"),
        Format::Shift | Format::ShiftW => format!("{name} {rd}, {rs1}, {imm:#x}"),
        Format::R => format!("{name} {rd}, {rs1}, {rs2}"),
        Format::Unary => format!("{name} {rd}, {rs1}"),
        Format::Bare => name.to_string(),
        Format::Fence => format!("{name} {}, {}", fence_set(imm >> 4), fence_set(imm)),
        Format::SFence => format!("{name} {rs1}, {rs2}"),
        Format::Cbo => format!("{name} ({rs1})"),
        Format::Csr => format!("{name} {rd}, {}, {rs1}", csr_name(imm)),
        Format::CsrI => format!("{name} {rd}, {}, {}", csr_name(imm), inst.rs1),
        Format::Lr => format!("{name} {rd}, ({rs1})"),
        Format::Amo => format!("{name} {rd}, {rs2}, ({rs1})"),
        Format::FLoad => format!("{name} {fd}, {imm}({rs1})"),
        Format::FStore => format!("{name} {fs2}, {imm}({rs1})"),
        Format::F4 => format!("{name} {fd}, {fs1}, {fs2}, {fs3}{}", rounding(inst.rm)),
        Format::FRound2 => format!("{name} {fd}, {fs1}, {fs2}{}", rounding(inst.rm)),
        Format::FRound1 => format!("{name} {fd}, {fs1}{}", rounding(inst.rm)),
        Format::F2 => format!("{name} {fd}, {fs1}, {fs2}"),
        Format::FCompare => format!("{name} {rd}, {fs1}, {fs2}"),
        Format::FToIntRound => format!("{name} {rd}, {fs1}{}", rounding(inst.rm)),
        Format::FFromIntRound => format!("{name} {fd}, {rs1}{}", rounding(inst.rm)),
        Format::FToInt => format!("{name} {rd}, {fs1}"),
        Format::FFromInt => format!("{name} {fd}, {rs1}"),
        Format::FConstant => format!("{name} {fd}, {}", inst.rs1),
    }
}

fn csr_name(number: i32) -> String {
    csr::name((number & 0xfff) as u16).map_or_else(|| format!("{number:#x}"), ToString::to_string)
}

fn rounding(rm: u8) -> &'static str {
    match rm {
        0 => ", rne",
        1 => ", rtz",
        2 => ", rdn",
        3 => ", rup",
        4 => ", rmm",
        7 => "",
        _ => ", reserved",
    }
}

fn fence_set(bits: i32) -> String {
    let set: String = [(8, 'i'), (4, 'o'), (2, 'r'), (1, 'w')]
        .iter()
        .filter(|(bit, _)| bits & bit != 0)
        .map(|(_, letter)| *letter)
        .collect();
    if set.is_empty() { "0".to_string() } else { set }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{decode, decode_compressed};

    #[test]
    fn text_reads_like_the_gnu_disassembler() {
        let text = |word: u32| decode(word).map(|inst| disasm(&inst)).unwrap_or_default();
        assert_eq!(text(0x0055_0513), "addi a0, a0, 5");
        assert_eq!(text(0xfe11_3c23), "sd ra, -8(sp)");
        assert_eq!(text(0x1005_2573), "csrrs a0, sstatus, a0");
        assert_eq!(text(0x02a5_f543), "fmadd.d fa0, fa1, fa0, ft0");
        assert_eq!(text(0x0330_000f), "fence rw, rw");
        assert_eq!(text(0x0010_0513), "addi a0, zero, 1");
    }

    #[test]
    fn compressed_instructions_expand_to_their_base_instruction() {
        let text = |half: u16| decode_compressed(half).map(|inst| disasm(&inst));
        for (half, expected) in [
            (0x0505, "addi a0, a0, 1"),
            (0x1141, "addi sp, sp, -16"),
            (0xe406, "sd ra, 8(sp)"),
            (0x60a2, "ld ra, 8(sp)"),
            (0x8082, "jalr zero, 0(ra)"),
            (0x4501, "addi a0, zero, 0"),
            (0x852e, "add a0, zero, a1"),
            (0x7139, "addi sp, sp, -64"),
            (0x0800, "addi s0, sp, 16"),
            (0xbfd5, "jal zero, .-12"),
            (0xc119, "beq a0, zero, .+6"),
            (0x67c5, "lui a5, 0x11"),
            (0x9d2d, "addw a0, a0, a1"),
            (0x1502, "slli a0, a0, 0x20"),
        ] {
            assert_eq!(text(half).as_deref(), Some(expected), "{half:#06x}");
        }
        assert_eq!(text(0), None);
        assert_eq!(text(0x8002), None);
    }
}
