//! Every 32-bit encoding of RV64GC and of the extensions named in the rows, one row each, in spec order.
//!
//! Invariant: an instruction word matches at most one row, except that `pause` is a `fence` and `zext.h` a `packw`
//! (their rows come first). Source: RISC-V ISA manual, volume I (20240411) chapter "RV32/64G Instruction Set Listings", the Zb*
//! and CMO chapters, and volume II for the privileged instructions.
//!
//! Rows are numbered in a byte; V, which is not here, will need more than that leaves.
//!
//! Not here: 16-bit encodings (`compressed`); hints, which are instructions that write x0 (`prefetch.r`, `ntl.all`).

/// How the fields of an instruction word are laid out, and how it is written in assembly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// `op rd, imm20`.
    U,
    /// `op rd, target`.
    J,
    /// `op rs1, rs2, target`.
    B,
    /// `op rd, rs1, imm12`.
    I,
    /// `op rd, imm12(rs1)`.
    Load,
    /// `op rs2, imm12(rs1)`.
    Store,
    /// `op rd, rs1, shamt6`.
    Shift,
    /// `op rd, rs1, shamt5`.
    ShiftW,
    /// `op rd, rs1, rs2`.
    R,
    /// `op rd, rs1`.
    Unary,
    /// `op`.
    Bare,
    /// `op pred, succ`.
    Fence,
    /// `op rs1, rs2` (sfence.vma).
    SFence,
    /// `op (rs1)` (cache-block operations).
    Cbo,
    /// `op rd, csr, rs1`.
    Csr,
    /// `op rd, csr, uimm5`.
    CsrI,
    /// `op rd, (rs1)` (lr).
    Lr,
    /// `op rd, rs2, (rs1)`.
    Amo,
    /// `op fd, imm12(rs1)`.
    FLoad,
    /// `op fs2, imm12(rs1)`.
    FStore,
    /// `op fd, fs1, fs2, fs3` with a rounding mode.
    F4,
    /// `op fd, fs1, fs2` with a rounding mode.
    FRound2,
    /// `op fd, fs1` with a rounding mode.
    FRound1,
    /// `op fd, fs1, fs2`.
    F2,
    /// `op rd, fs1, fs2`.
    FCompare,
    /// `op rd, fs1` with a rounding mode.
    FToIntRound,
    /// `op fd, rs1` with a rounding mode.
    FFromIntRound,
    /// `op rd, fs1`.
    FToInt,
    /// `op fd, rs1`.
    FFromInt,
    /// `op fd, number`: one of a table, its index where rs1 would be.
    FConstant,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct OpcodeInfo {
    /// Which instruction.
    pub opcode: Opcode,
    /// Its mnemonic.
    pub name: &'static str,
    /// The extension that brings it.
    pub extension: &'static str,
    /// Bits that identify it.
    pub mask: u32,
    /// What they must be.
    pub value: u32,
    /// Its fields.
    pub format: Format,
}

// Major opcodes (volume I, table "RISC-V base opcode map").
const LOAD: u32 = 0x03;
const LOAD_FP: u32 = 0x07;
const MISC_MEM: u32 = 0x0f;
const OP_IMM: u32 = 0x13;
const AUIPC: u32 = 0x17;
const OP_IMM_32: u32 = 0x1b;
const STORE: u32 = 0x23;
const STORE_FP: u32 = 0x27;
const AMO: u32 = 0x2f;
const OP: u32 = 0x33;
const LUI: u32 = 0x37;
const OP_32: u32 = 0x3b;
const MADD: u32 = 0x43;
const MSUB: u32 = 0x47;
const NMSUB: u32 = 0x4b;
const NMADD: u32 = 0x4f;
const OP_FP: u32 = 0x53;
const BRANCH: u32 = 0x63;
const JALR: u32 = 0x67;
const JAL: u32 = 0x6f;
const SYSTEM: u32 = 0x73;

/// A (mask, value) pair.
type Bits = (u32, u32);

const fn op(op: u32) -> Bits {
    (0x7f, op)
}
const fn f3(op: u32, funct3: u32) -> Bits {
    (0x707f, op | funct3 << 12)
}
const fn f6(op: u32, funct3: u32, funct6: u32) -> Bits {
    (0xfc00_707f, op | funct3 << 12 | funct6 << 26)
}
const fn f7(op: u32, funct3: u32, funct7: u32) -> Bits {
    (0xfe00_707f, op | funct3 << 12 | funct7 << 25)
}
const fn f12(op: u32, funct3: u32, funct12: u32) -> Bits {
    (0xfff0_707f, op | funct3 << 12 | funct12 << 20)
}
const fn amo(funct5: u32, width: u32) -> Bits {
    (0xf800_707f, AMO | width << 12 | funct5 << 27)
}
const fn lr(width: u32) -> Bits {
    (0xf9f0_707f, AMO | width << 12 | 0b00010 << 27)
}
const fn fp(funct7: u32) -> Bits {
    (0xfe00_007f, OP_FP | funct7 << 25)
}
const fn fp_rs2(funct7: u32, rs2: u32) -> Bits {
    (0xfff0_007f, OP_FP | funct7 << 25 | rs2 << 20)
}
const fn fp_f3(funct7: u32, funct3: u32) -> Bits {
    (0xfe00_707f, OP_FP | funct7 << 25 | funct3 << 12)
}
const fn fp_rs2_f3(funct7: u32, rs2: u32, funct3: u32) -> Bits {
    (0xfff0_707f, OP_FP | funct7 << 25 | rs2 << 20 | funct3 << 12)
}
const fn r4(op: u32, format: u32) -> Bits {
    (0x0600_007f, op | format << 25)
}
const fn word(word: u32) -> Bits {
    (u32::MAX, word)
}
const fn cbo(which: u32) -> Bits {
    (0xfff0_7fff, MISC_MEM | 2 << 12 | which << 20)
}

macro_rules! opcodes {
    ($($extension:literal { $($variant:ident $name:literal $format:ident $bits:expr;)* })*) => {
        /// Every instruction, numbered from 1 in table order.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        #[allow(missing_docs)]
        pub enum Opcode { #[doc(hidden)] Undecoded = 0, $($($variant,)*)* }

        /// [`Opcode`]s as `u8` constants, for matching on packed operations.
        #[allow(non_upper_case_globals, missing_docs)]
        pub mod code {
            use super::Opcode;
            pub const Undecoded: u8 = Opcode::Undecoded as u8;
            $($(pub const $variant: u8 = Opcode::$variant as u8;)*)*
        }

        /// The table.
        pub const OPCODES: &[OpcodeInfo] = &[$($(OpcodeInfo {
            opcode: Opcode::$variant,
            name: $name,
            extension: $extension,
            mask: $bits.0,
            value: $bits.1,
            format: Format::$format,
        },)*)*];
    };
}

opcodes! {
    "I" {
        Lui "lui" U op(LUI);
        Auipc "auipc" U op(AUIPC);
        Jal "jal" J op(JAL);
        Jalr "jalr" Load f3(JALR, 0);
        Beq "beq" B f3(BRANCH, 0);
        Bne "bne" B f3(BRANCH, 1);
        Blt "blt" B f3(BRANCH, 4);
        Bge "bge" B f3(BRANCH, 5);
        Bltu "bltu" B f3(BRANCH, 6);
        Bgeu "bgeu" B f3(BRANCH, 7);
        Lb "lb" Load f3(LOAD, 0);
        Lh "lh" Load f3(LOAD, 1);
        Lw "lw" Load f3(LOAD, 2);
        Lbu "lbu" Load f3(LOAD, 4);
        Lhu "lhu" Load f3(LOAD, 5);
        Sb "sb" Store f3(STORE, 0);
        Sh "sh" Store f3(STORE, 1);
        Sw "sw" Store f3(STORE, 2);
        Addi "addi" I f3(OP_IMM, 0);
        Slti "slti" I f3(OP_IMM, 2);
        Sltiu "sltiu" I f3(OP_IMM, 3);
        Xori "xori" I f3(OP_IMM, 4);
        Ori "ori" I f3(OP_IMM, 6);
        Andi "andi" I f3(OP_IMM, 7);
        Slli "slli" Shift f6(OP_IMM, 1, 0);
        Srli "srli" Shift f6(OP_IMM, 5, 0);
        Srai "srai" Shift f6(OP_IMM, 5, 0x10);
        Add "add" R f7(OP, 0, 0);
        Sub "sub" R f7(OP, 0, 0x20);
        Sll "sll" R f7(OP, 1, 0);
        Slt "slt" R f7(OP, 2, 0);
        Sltu "sltu" R f7(OP, 3, 0);
        Xor "xor" R f7(OP, 4, 0);
        Srl "srl" R f7(OP, 5, 0);
        Sra "sra" R f7(OP, 5, 0x20);
        Or "or" R f7(OP, 6, 0);
        And "and" R f7(OP, 7, 0);
    }
    "Zihintpause" {
        Pause "pause" Bare word(0x0100_000f);
    }
    "I" {
        Fence "fence" Fence f3(MISC_MEM, 0);
        Ecall "ecall" Bare word(0x0000_0073);
        Ebreak "ebreak" Bare word(0x0010_0073);
        Lwu "lwu" Load f3(LOAD, 6);
        Ld "ld" Load f3(LOAD, 3);
        Sd "sd" Store f3(STORE, 3);
        Addiw "addiw" I f3(OP_IMM_32, 0);
        Slliw "slliw" ShiftW f7(OP_IMM_32, 1, 0);
        Srliw "srliw" ShiftW f7(OP_IMM_32, 5, 0);
        Sraiw "sraiw" ShiftW f7(OP_IMM_32, 5, 0x20);
        Addw "addw" R f7(OP_32, 0, 0);
        Subw "subw" R f7(OP_32, 0, 0x20);
        Sllw "sllw" R f7(OP_32, 1, 0);
        Srlw "srlw" R f7(OP_32, 5, 0);
        Sraw "sraw" R f7(OP_32, 5, 0x20);
    }
    "Zifencei" {
        FenceI "fence.i" Bare f3(MISC_MEM, 1);
    }
    "Zicsr" {
        Csrrw "csrrw" Csr f3(SYSTEM, 1);
        Csrrs "csrrs" Csr f3(SYSTEM, 2);
        Csrrc "csrrc" Csr f3(SYSTEM, 3);
        Csrrwi "csrrwi" CsrI f3(SYSTEM, 5);
        Csrrsi "csrrsi" CsrI f3(SYSTEM, 6);
        Csrrci "csrrci" CsrI f3(SYSTEM, 7);
    }
    "Zimop" {
        MopR "mop.r.n" Unary (0xb3c0_707fu32, 0x81c0_4073u32);
        MopRr "mop.rr.n" R (0xb200_707fu32, 0x8200_4073u32);
    }
    "Zicond" {
        CzeroEqz "czero.eqz" R f7(OP, 5, 0x07);
        CzeroNez "czero.nez" R f7(OP, 7, 0x07);
    }
    "M" {
        Mul "mul" R f7(OP, 0, 1);
        Mulh "mulh" R f7(OP, 1, 1);
        Mulhsu "mulhsu" R f7(OP, 2, 1);
        Mulhu "mulhu" R f7(OP, 3, 1);
        Div "div" R f7(OP, 4, 1);
        Divu "divu" R f7(OP, 5, 1);
        Rem "rem" R f7(OP, 6, 1);
        Remu "remu" R f7(OP, 7, 1);
        Mulw "mulw" R f7(OP_32, 0, 1);
        Divw "divw" R f7(OP_32, 4, 1);
        Divuw "divuw" R f7(OP_32, 5, 1);
        Remw "remw" R f7(OP_32, 6, 1);
        Remuw "remuw" R f7(OP_32, 7, 1);
    }
    "A" {
        LrW "lr.w" Lr lr(2);
        ScW "sc.w" Amo amo(0b00011, 2);
        AmoswapW "amoswap.w" Amo amo(0b00001, 2);
        AmoaddW "amoadd.w" Amo amo(0b00000, 2);
        AmoxorW "amoxor.w" Amo amo(0b00100, 2);
        AmoandW "amoand.w" Amo amo(0b01100, 2);
        AmoorW "amoor.w" Amo amo(0b01000, 2);
        AmominW "amomin.w" Amo amo(0b10000, 2);
        AmomaxW "amomax.w" Amo amo(0b10100, 2);
        AmominuW "amominu.w" Amo amo(0b11000, 2);
        AmomaxuW "amomaxu.w" Amo amo(0b11100, 2);
        LrD "lr.d" Lr lr(3);
        ScD "sc.d" Amo amo(0b00011, 3);
        AmoswapD "amoswap.d" Amo amo(0b00001, 3);
        AmoaddD "amoadd.d" Amo amo(0b00000, 3);
        AmoxorD "amoxor.d" Amo amo(0b00100, 3);
        AmoandD "amoand.d" Amo amo(0b01100, 3);
        AmoorD "amoor.d" Amo amo(0b01000, 3);
        AmominD "amomin.d" Amo amo(0b10000, 3);
        AmomaxD "amomax.d" Amo amo(0b10100, 3);
        AmominuD "amominu.d" Amo amo(0b11000, 3);
        AmomaxuD "amomaxu.d" Amo amo(0b11100, 3);
    }
    "Zawrs" {
        WrsNto "wrs.nto" Bare word(0x00d0_0073);
        WrsSto "wrs.sto" Bare word(0x01d0_0073);
    }
    "Zacas" {
        AmocasW "amocas.w" Amo amo(0b00101, 2);
        AmocasD "amocas.d" Amo amo(0b00101, 3);
        AmocasQ "amocas.q" Amo amo(0b00101, 4);
    }
    "F" {
        Flw "flw" FLoad f3(LOAD_FP, 2);
        Fsw "fsw" FStore f3(STORE_FP, 2);
        FmaddS "fmadd.s" F4 r4(MADD, 0);
        FmsubS "fmsub.s" F4 r4(MSUB, 0);
        FnmsubS "fnmsub.s" F4 r4(NMSUB, 0);
        FnmaddS "fnmadd.s" F4 r4(NMADD, 0);
        FaddS "fadd.s" FRound2 fp(0x00);
        FsubS "fsub.s" FRound2 fp(0x04);
        FmulS "fmul.s" FRound2 fp(0x08);
        FdivS "fdiv.s" FRound2 fp(0x0c);
        FsqrtS "fsqrt.s" FRound1 fp_rs2(0x2c, 0);
        FsgnjS "fsgnj.s" F2 fp_f3(0x10, 0);
        FsgnjnS "fsgnjn.s" F2 fp_f3(0x10, 1);
        FsgnjxS "fsgnjx.s" F2 fp_f3(0x10, 2);
        FminS "fmin.s" F2 fp_f3(0x14, 0);
        FmaxS "fmax.s" F2 fp_f3(0x14, 1);
        FcvtWS "fcvt.w.s" FToIntRound fp_rs2(0x60, 0);
        FcvtWuS "fcvt.wu.s" FToIntRound fp_rs2(0x60, 1);
        FmvXW "fmv.x.w" FToInt fp_rs2_f3(0x70, 0, 0);
        FeqS "feq.s" FCompare fp_f3(0x50, 2);
        FltS "flt.s" FCompare fp_f3(0x50, 1);
        FleS "fle.s" FCompare fp_f3(0x50, 0);
        FclassS "fclass.s" FToInt fp_rs2_f3(0x70, 0, 1);
        FcvtSW "fcvt.s.w" FFromIntRound fp_rs2(0x68, 0);
        FcvtSWu "fcvt.s.wu" FFromIntRound fp_rs2(0x68, 1);
        FmvWX "fmv.w.x" FFromInt fp_rs2_f3(0x78, 0, 0);
        FcvtLS "fcvt.l.s" FToIntRound fp_rs2(0x60, 2);
        FcvtLuS "fcvt.lu.s" FToIntRound fp_rs2(0x60, 3);
        FcvtSL "fcvt.s.l" FFromIntRound fp_rs2(0x68, 2);
        FcvtSLu "fcvt.s.lu" FFromIntRound fp_rs2(0x68, 3);
    }
    "D" {
        Fld "fld" FLoad f3(LOAD_FP, 3);
        Fsd "fsd" FStore f3(STORE_FP, 3);
        FmaddD "fmadd.d" F4 r4(MADD, 1);
        FmsubD "fmsub.d" F4 r4(MSUB, 1);
        FnmsubD "fnmsub.d" F4 r4(NMSUB, 1);
        FnmaddD "fnmadd.d" F4 r4(NMADD, 1);
        FaddD "fadd.d" FRound2 fp(0x01);
        FsubD "fsub.d" FRound2 fp(0x05);
        FmulD "fmul.d" FRound2 fp(0x09);
        FdivD "fdiv.d" FRound2 fp(0x0d);
        FsqrtD "fsqrt.d" FRound1 fp_rs2(0x2d, 0);
        FsgnjD "fsgnj.d" F2 fp_f3(0x11, 0);
        FsgnjnD "fsgnjn.d" F2 fp_f3(0x11, 1);
        FsgnjxD "fsgnjx.d" F2 fp_f3(0x11, 2);
        FminD "fmin.d" F2 fp_f3(0x15, 0);
        FmaxD "fmax.d" F2 fp_f3(0x15, 1);
        FcvtSD "fcvt.s.d" FRound1 fp_rs2(0x20, 1);
        FcvtDS "fcvt.d.s" FRound1 fp_rs2(0x21, 0);
        FeqD "feq.d" FCompare fp_f3(0x51, 2);
        FltD "flt.d" FCompare fp_f3(0x51, 1);
        FleD "fle.d" FCompare fp_f3(0x51, 0);
        FclassD "fclass.d" FToInt fp_rs2_f3(0x71, 0, 1);
        FcvtWD "fcvt.w.d" FToIntRound fp_rs2(0x61, 0);
        FcvtWuD "fcvt.wu.d" FToIntRound fp_rs2(0x61, 1);
        FcvtDW "fcvt.d.w" FFromIntRound fp_rs2(0x69, 0);
        FcvtDWu "fcvt.d.wu" FFromIntRound fp_rs2(0x69, 1);
        FcvtLD "fcvt.l.d" FToIntRound fp_rs2(0x61, 2);
        FcvtLuD "fcvt.lu.d" FToIntRound fp_rs2(0x61, 3);
        FmvXD "fmv.x.d" FToInt fp_rs2_f3(0x71, 0, 0);
        FcvtDL "fcvt.d.l" FFromIntRound fp_rs2(0x69, 2);
        FcvtDLu "fcvt.d.lu" FFromIntRound fp_rs2(0x69, 3);
        FmvDX "fmv.d.x" FFromInt fp_rs2_f3(0x79, 0, 0);
    }
    "Zfhmin" {
        Flh "flh" FLoad f3(LOAD_FP, 1);
        Fsh "fsh" FStore f3(STORE_FP, 1);
        FmvXH "fmv.x.h" FToInt fp_rs2_f3(0x72, 0, 0);
        FmvHX "fmv.h.x" FFromInt fp_rs2_f3(0x7a, 0, 0);
        FcvtSH "fcvt.s.h" FRound1 fp_rs2(0x20, 2);
        FcvtHS "fcvt.h.s" FRound1 fp_rs2(0x22, 0);
        FcvtDH "fcvt.d.h" FRound1 fp_rs2(0x21, 2);
        FcvtHD "fcvt.h.d" FRound1 fp_rs2(0x22, 1);
    }
    "Zfa" {
        FliS "fli.s" FConstant fp_rs2_f3(0x78, 1, 0);
        FliD "fli.d" FConstant fp_rs2_f3(0x79, 1, 0);
        FminmS "fminm.s" F2 fp_f3(0x14, 2);
        FmaxmS "fmaxm.s" F2 fp_f3(0x14, 3);
        FminmD "fminm.d" F2 fp_f3(0x15, 2);
        FmaxmD "fmaxm.d" F2 fp_f3(0x15, 3);
        FroundS "fround.s" FRound1 fp_rs2(0x20, 4);
        FroundnxS "froundnx.s" FRound1 fp_rs2(0x20, 5);
        FroundD "fround.d" FRound1 fp_rs2(0x21, 4);
        FroundnxD "froundnx.d" FRound1 fp_rs2(0x21, 5);
        FcvtmodWD "fcvtmod.w.d" FToInt fp_rs2_f3(0x61, 8, 1);
        FltqS "fltq.s" FCompare fp_f3(0x50, 5);
        FleqS "fleq.s" FCompare fp_f3(0x50, 4);
        FltqD "fltq.d" FCompare fp_f3(0x51, 5);
        FleqD "fleq.d" FCompare fp_f3(0x51, 4);
    }
    "Zba" {
        AddUw "add.uw" R f7(OP_32, 0, 0x04);
        Sh1add "sh1add" R f7(OP, 2, 0x10);
        Sh1addUw "sh1add.uw" R f7(OP_32, 2, 0x10);
        Sh2add "sh2add" R f7(OP, 4, 0x10);
        Sh2addUw "sh2add.uw" R f7(OP_32, 4, 0x10);
        Sh3add "sh3add" R f7(OP, 6, 0x10);
        Sh3addUw "sh3add.uw" R f7(OP_32, 6, 0x10);
        SlliUw "slli.uw" Shift f6(OP_IMM_32, 1, 0x02);
    }
    "Zbb" {
        Andn "andn" R f7(OP, 7, 0x20);
        Orn "orn" R f7(OP, 6, 0x20);
        Xnor "xnor" R f7(OP, 4, 0x20);
        Clz "clz" Unary f12(OP_IMM, 1, 0x600);
        Clzw "clzw" Unary f12(OP_IMM_32, 1, 0x600);
        Ctz "ctz" Unary f12(OP_IMM, 1, 0x601);
        Ctzw "ctzw" Unary f12(OP_IMM_32, 1, 0x601);
        Cpop "cpop" Unary f12(OP_IMM, 1, 0x602);
        Cpopw "cpopw" Unary f12(OP_IMM_32, 1, 0x602);
        Max "max" R f7(OP, 6, 0x05);
        Maxu "maxu" R f7(OP, 7, 0x05);
        Min "min" R f7(OP, 4, 0x05);
        Minu "minu" R f7(OP, 5, 0x05);
        SextB "sext.b" Unary f12(OP_IMM, 1, 0x604);
        SextH "sext.h" Unary f12(OP_IMM, 1, 0x605);
        ZextH "zext.h" Unary f12(OP_32, 4, 0x080);
        Rol "rol" R f7(OP, 1, 0x30);
        Rolw "rolw" R f7(OP_32, 1, 0x30);
        Ror "ror" R f7(OP, 5, 0x30);
        Rori "rori" Shift f6(OP_IMM, 5, 0x18);
        Roriw "roriw" ShiftW f7(OP_IMM_32, 5, 0x30);
        Rorw "rorw" R f7(OP_32, 5, 0x30);
        OrcB "orc.b" Unary f12(OP_IMM, 5, 0x287);
        Rev8 "rev8" Unary f12(OP_IMM, 5, 0x6b8);
    }
    "Zbc" {
        Clmul "clmul" R f7(OP, 1, 0x05);
        Clmulh "clmulh" R f7(OP, 3, 0x05);
        Clmulr "clmulr" R f7(OP, 2, 0x05);
    }
    "Zbs" {
        Bclr "bclr" R f7(OP, 1, 0x24);
        Bclri "bclri" Shift f6(OP_IMM, 1, 0x12);
        Bext "bext" R f7(OP, 5, 0x24);
        Bexti "bexti" Shift f6(OP_IMM, 5, 0x12);
        Binv "binv" R f7(OP, 1, 0x34);
        Binvi "binvi" Shift f6(OP_IMM, 1, 0x1a);
        Bset "bset" R f7(OP, 1, 0x14);
        Bseti "bseti" Shift f6(OP_IMM, 1, 0x0a);
    }
    "Zbkb" {
        Pack "pack" R f7(OP, 4, 0x04);
        Packh "packh" R f7(OP, 7, 0x04);
        Packw "packw" R f7(OP_32, 4, 0x04);
        Brev8 "brev8" Unary f12(OP_IMM, 5, 0x687);
    }
    "Zicbom" {
        CboInval "cbo.inval" Cbo cbo(0);
        CboClean "cbo.clean" Cbo cbo(1);
        CboFlush "cbo.flush" Cbo cbo(2);
    }
    "Zicboz" {
        CboZero "cbo.zero" Cbo cbo(4);
    }
    "Privileged" {
        Sret "sret" Bare word(0x1020_0073);
        Mret "mret" Bare word(0x3020_0073);
        Wfi "wfi" Bare word(0x1050_0073);
        SfenceVma "sfence.vma" SFence (0xfe00_7fffu32, SYSTEM | 0x09 << 25);
    }
    "Svinval" {
        SinvalVma "sinval.vma" SFence (0xfe00_7fffu32, SYSTEM | 0x0b << 25);
        SfenceWInval "sfence.w.inval" Bare word(0x1800_0073);
        SfenceInvalIr "sfence.inval.ir" Bare word(0x1810_0073);
    }
}

impl Opcode {
    /// Its row of the table; `None` for `Undecoded`.
    #[must_use]
    pub fn info(self) -> Option<&'static OpcodeInfo> {
        OPCODES.get((self as usize).checked_sub(1)?)
    }

    /// Its mnemonic.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.info().map_or("?", |info| info.name)
    }
}
