//! The 16-bit encodings of C for RV64 with D, of Zcb and Zcmop, and the 32-bit instruction each stands for.
//!
//! Invariant: executing the expansion is executing the instruction, but for its length. Reserved encodings and
//! the all-zero halfword expand to nothing; hints expand to their harmless base instruction.
//! Source: volume I, chapters "C" Extension, tables of the three quadrants, in their order; "Zc*"; "Zimop".

/// How the fields of a compressed instruction become those of its expansion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shape {
    Addi4spn,
    LoadD(u32),
    LoadW,
    StoreD(u32),
    StoreW,
    Imm(u32, bool),
    Addi16sp,
    Lui,
    ShiftRight(u32),
    Andi,
    Arith(u32),
    J,
    Branch(u32),
    Slli,
    LoadDSp(u32),
    LoadWSp,
    Jr,
    Mv,
    Ebreak,
    Jalr,
    Add,
    StoreDSp(u32),
    StoreWSp,
    /// `op rd', uimm2(rs1')`: funct3 of the load.
    LoadByte(u32),
    LoadHalf(u32),
    StoreByte,
    StoreHalf,
    /// `op rd', rd'` with everything else in this word.
    Unary(u32),
    Nop,
}

/// One 16-bit encoding.
#[derive(Clone, Copy, Debug)]
pub struct CompressedInfo {
    /// Its mnemonic.
    pub name: &'static str,
    /// Bits that identify it.
    pub mask: u16,
    /// What they must be.
    pub value: u16,
    shape: Shape,
}

const fn row(name: &'static str, mask: u16, value: u16, shape: Shape) -> CompressedInfo {
    CompressedInfo { name, mask, value, shape }
}

/// Every 16-bit encoding; where two match, the first counts.
pub const COMPRESSED: &[CompressedInfo] = &[
    // Quadrant 0
    row("c.addi4spn", 0xe003, 0x0000, Shape::Addi4spn),
    row("c.fld", 0xe003, 0x2000, Shape::LoadD(0x07)),
    row("c.lw", 0xe003, 0x4000, Shape::LoadW),
    row("c.ld", 0xe003, 0x6000, Shape::LoadD(0x03)),
    row("c.fsd", 0xe003, 0xa000, Shape::StoreD(0x27)),
    row("c.sw", 0xe003, 0xc000, Shape::StoreW),
    row("c.sd", 0xe003, 0xe000, Shape::StoreD(0x23)),
    row("c.lbu", 0xfc03, 0x8000, Shape::LoadByte(4)),
    row("c.lhu", 0xfc43, 0x8400, Shape::LoadHalf(5)),
    row("c.lh", 0xfc43, 0x8440, Shape::LoadHalf(1)),
    row("c.sb", 0xfc03, 0x8800, Shape::StoreByte),
    row("c.sh", 0xfc43, 0x8c00, Shape::StoreHalf),
    // Quadrant 1
    row("c.nop", 0xef83, 0x0001, Shape::Imm(0x13, false)),
    row("c.addi", 0xe003, 0x0001, Shape::Imm(0x13, false)),
    row("c.addiw", 0xe003, 0x2001, Shape::Imm(0x1b, false)),
    row("c.li", 0xe003, 0x4001, Shape::Imm(0x13, true)),
    row("c.addi16sp", 0xef83, 0x6101, Shape::Addi16sp),
    row("c.mop.n", 0xf8ff, 0x6081, Shape::Nop),
    row("c.lui", 0xe003, 0x6001, Shape::Lui),
    row("c.srli", 0xec03, 0x8001, Shape::ShiftRight(0)),
    row("c.srai", 0xec03, 0x8401, Shape::ShiftRight(0x4000_0000)),
    row("c.andi", 0xec03, 0x8801, Shape::Andi),
    row("c.sub", 0xfc63, 0x8c01, Shape::Arith(0x4000_0033)),
    row("c.xor", 0xfc63, 0x8c21, Shape::Arith(0x0000_4033)),
    row("c.or", 0xfc63, 0x8c41, Shape::Arith(0x0000_6033)),
    row("c.and", 0xfc63, 0x8c61, Shape::Arith(0x0000_7033)),
    row("c.subw", 0xfc63, 0x9c01, Shape::Arith(0x4000_003b)),
    row("c.addw", 0xfc63, 0x9c21, Shape::Arith(0x0000_003b)),
    row("c.mul", 0xfc63, 0x9c41, Shape::Arith(0x0200_0033)),
    row("c.zext.b", 0xfc7f, 0x9c61, Shape::Unary(0x0ff0_7013)),
    row("c.sext.b", 0xfc7f, 0x9c65, Shape::Unary(0x6040_1013)),
    row("c.zext.h", 0xfc7f, 0x9c69, Shape::Unary(0x0800_403b)),
    row("c.sext.h", 0xfc7f, 0x9c6d, Shape::Unary(0x6050_1013)),
    row("c.zext.w", 0xfc7f, 0x9c71, Shape::Unary(0x0800_003b)),
    row("c.not", 0xfc7f, 0x9c75, Shape::Unary(0xfff0_4013)),
    row("c.j", 0xe003, 0xa001, Shape::J),
    row("c.beqz", 0xe003, 0xc001, Shape::Branch(0)),
    row("c.bnez", 0xe003, 0xe001, Shape::Branch(1)),
    // Quadrant 2
    row("c.slli", 0xe003, 0x0002, Shape::Slli),
    row("c.fldsp", 0xe003, 0x2002, Shape::LoadDSp(0x07)),
    row("c.lwsp", 0xe003, 0x4002, Shape::LoadWSp),
    row("c.ldsp", 0xe003, 0x6002, Shape::LoadDSp(0x03)),
    row("c.jr", 0xf07f, 0x8002, Shape::Jr),
    row("c.mv", 0xf003, 0x8002, Shape::Mv),
    row("c.ebreak", 0xffff, 0x9002, Shape::Ebreak),
    row("c.jalr", 0xf07f, 0x9002, Shape::Jalr),
    row("c.add", 0xf003, 0x9002, Shape::Add),
    row("c.fsdsp", 0xe003, 0xa002, Shape::StoreDSp(0x27)),
    row("c.swsp", 0xe003, 0xc002, Shape::StoreWSp),
    row("c.sdsp", 0xe003, 0xe002, Shape::StoreDSp(0x23)),
];

/// Bits `from..from + len` of `c`, shifted to bit `to`.
const fn bits(c: u32, from: u32, len: u32, to: u32) -> u32 {
    (c >> from & ((1 << len) - 1)) << to
}

fn i_type(op: u32, funct3: u32, rd: u32, rs1: u32, imm: u32) -> u32 {
    op | rd << 7 | funct3 << 12 | rs1 << 15 | imm << 20
}

fn s_type(op: u32, funct3: u32, rs1: u32, rs2: u32, imm: u32) -> u32 {
    op | (imm & 31) << 7 | funct3 << 12 | rs1 << 15 | rs2 << 20 | imm >> 5 << 25
}

/// The row and the 32-bit word that `half` stands for; `None` if it is reserved.
#[must_use]
pub fn expand(half: u16) -> Option<(&'static CompressedInfo, u32)> {
    let info = COMPRESSED.iter().find(|info| half & info.mask == info.value)?;
    let c = u32::from(half);
    let word = match info.shape {
        Shape::Addi4spn
        | Shape::LoadD(_)
        | Shape::LoadW
        | Shape::StoreD(_)
        | Shape::StoreW
        | Shape::LoadByte(_)
        | Shape::LoadHalf(_)
        | Shape::StoreByte
        | Shape::StoreHalf => expand_quadrant_0(info.shape, c),
        Shape::Slli
        | Shape::LoadDSp(_)
        | Shape::LoadWSp
        | Shape::Jr
        | Shape::Mv
        | Shape::Ebreak
        | Shape::Jalr
        | Shape::Add
        | Shape::StoreDSp(_)
        | Shape::StoreWSp => expand_quadrant_2(info.shape, c),
        _ => expand_quadrant_1(info.shape, c),
    }?;
    Some((info, word))
}

fn expand_quadrant_0(shape: Shape, c: u32) -> Option<u32> {
    let low = 8 + bits(c, 2, 3, 0);
    let base = 8 + bits(c, 7, 3, 0);
    let uimm_d = bits(c, 10, 3, 3) | bits(c, 5, 2, 6);
    let uimm_w = bits(c, 10, 3, 3) | bits(c, 6, 1, 2) | bits(c, 5, 1, 6);
    let uimm_h = bits(c, 5, 1, 1);
    let uimm_b = uimm_h | bits(c, 6, 1, 0);
    match shape {
        Shape::Addi4spn => {
            let imm = bits(c, 11, 2, 4) | bits(c, 7, 4, 6) | bits(c, 6, 1, 2) | bits(c, 5, 1, 3);
            (imm != 0).then(|| i_type(0x13, 0, low, 2, imm))
        }
        Shape::LoadD(op) => Some(i_type(op, 3, low, base, uimm_d)),
        Shape::LoadW => Some(i_type(0x03, 2, low, base, uimm_w)),
        Shape::StoreD(op) => Some(s_type(op, 3, base, low, uimm_d)),
        Shape::StoreW => Some(s_type(0x23, 2, base, low, uimm_w)),
        Shape::LoadByte(funct3) => Some(i_type(0x03, funct3, low, base, uimm_b)),
        Shape::LoadHalf(funct3) => Some(i_type(0x03, funct3, low, base, uimm_h)),
        Shape::StoreByte => Some(s_type(0x23, 0, base, low, uimm_b)),
        Shape::StoreHalf => Some(s_type(0x23, 1, base, low, uimm_h)),
        _ => None,
    }
}

fn expand_quadrant_1(shape: Shape, c: u32) -> Option<u32> {
    let rd = bits(c, 7, 5, 0);
    let low = 8 + bits(c, 7, 3, 0);
    let sign = bits(c, 12, 1, 0).wrapping_neg();
    let shamt = bits(c, 2, 5, 0) | bits(c, 12, 1, 5);
    let imm6 = (bits(c, 2, 5, 0) | sign << 5) & 0xfff;
    match shape {
        Shape::Imm(op, li) => {
            let reserved = op == 0x1b && rd == 0;
            (!reserved).then(|| i_type(op, 0, rd, if li { 0 } else { rd }, imm6))
        }
        Shape::Addi16sp => {
            let imm = bits(c, 6, 1, 4) | bits(c, 2, 1, 5) | bits(c, 5, 1, 6) | bits(c, 3, 2, 7) | sign << 9;
            (imm != 0).then(|| i_type(0x13, 0, 2, 2, imm & 0xfff))
        }
        Shape::Lui => {
            let imm = bits(c, 2, 5, 12) | sign << 17;
            (imm != 0).then_some(0x37 | rd << 7 | imm)
        }
        Shape::ShiftRight(arithmetic) => Some(i_type(0x13, 5, low, low, shamt) | arithmetic),
        Shape::Andi => Some(i_type(0x13, 7, low, low, imm6)),
        Shape::Unary(word) => Some(word | low << 7 | low << 15),
        Shape::Nop => Some(i_type(0x13, 0, 0, 0, 0)),
        Shape::Arith(word) => Some(word | low << 7 | low << 15 | (8 + bits(c, 2, 3, 0)) << 20),
        Shape::J => {
            let imm = bits(c, 3, 3, 1)
                | bits(c, 11, 1, 4)
                | bits(c, 2, 1, 5)
                | bits(c, 7, 1, 6)
                | bits(c, 6, 1, 7)
                | bits(c, 9, 2, 8)
                | bits(c, 8, 1, 10);
            Some(0x6f | imm << 20 | bits(sign, 0, 1, 20) | bits(sign, 0, 8, 12) | bits(sign, 0, 1, 31))
        }
        Shape::Branch(funct3) => {
            let low_bits = bits(c, 3, 2, 1) | bits(c, 10, 2, 3);
            let high_bits = bits(c, 2, 1, 0) | bits(c, 5, 2, 1) | bits(sign, 0, 4, 3);
            let word = 0x63 | funct3 << 12 | low << 15 | low_bits << 7 | high_bits << 25;
            Some(word | bits(sign, 0, 1, 7))
        }
        _ => None,
    }
}

fn expand_quadrant_2(shape: Shape, c: u32) -> Option<u32> {
    let rd = bits(c, 7, 5, 0);
    let rs2 = bits(c, 2, 5, 0);
    let shamt = bits(c, 2, 5, 0) | bits(c, 12, 1, 5);
    let load_d = bits(c, 5, 2, 3) | bits(c, 12, 1, 5) | bits(c, 2, 3, 6);
    let load_w = bits(c, 4, 3, 2) | bits(c, 12, 1, 5) | bits(c, 2, 2, 6);
    let store_d = bits(c, 10, 3, 3) | bits(c, 7, 3, 6);
    let store_w = bits(c, 9, 4, 2) | bits(c, 7, 2, 6);
    match shape {
        Shape::Slli => Some(i_type(0x13, 1, rd, rd, shamt)),
        Shape::LoadDSp(op) => (op == 0x07 || rd != 0).then(|| i_type(op, 3, rd, 2, load_d)),
        Shape::LoadWSp => (rd != 0).then(|| i_type(0x03, 2, rd, 2, load_w)),
        Shape::Jr => (rd != 0).then(|| i_type(0x67, 0, 0, rd, 0)),
        Shape::Mv => Some(0x33 | rd << 7 | rs2 << 20),
        Shape::Ebreak => Some(0x0010_0073),
        Shape::Jalr => Some(i_type(0x67, 0, 1, rd, 0)),
        Shape::Add => Some(0x33 | rd << 7 | rd << 15 | rs2 << 20),
        Shape::StoreDSp(op) => Some(s_type(op, 3, 2, rs2, store_d)),
        Shape::StoreWSp => Some(s_type(0x23, 2, 2, rs2, store_w)),
        _ => None,
    }
}
