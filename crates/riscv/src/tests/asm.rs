//! Just enough of an assembler for tests: one function per instruction format.

/// ABI register numbers.
pub(super) mod r {
    #![allow(dead_code)]
    pub(in crate::tests) const ZERO: u32 = 0;
    pub(in crate::tests) const RA: u32 = 1;
    pub(in crate::tests) const SP: u32 = 2;
    pub(in crate::tests) const T0: u32 = 5;
    pub(in crate::tests) const T1: u32 = 6;
    pub(in crate::tests) const T2: u32 = 7;
    pub(in crate::tests) const S0: u32 = 8;
    pub(in crate::tests) const S1: u32 = 9;
    pub(in crate::tests) const A0: u32 = 10;
    pub(in crate::tests) const A1: u32 = 11;
    pub(in crate::tests) const A2: u32 = 12;
    pub(in crate::tests) const A3: u32 = 13;
    pub(in crate::tests) const A4: u32 = 14;
    pub(in crate::tests) const A5: u32 = 15;
    pub(in crate::tests) const A6: u32 = 16;
    pub(in crate::tests) const A7: u32 = 17;
}

fn i(op: u32, f3: u32, rd: u32, rs1: u32, imm: i32) -> u32 {
    op | rd << 7 | f3 << 12 | rs1 << 15 | (imm as u32 & 0xfff) << 20
}
fn rr(op: u32, f3: u32, f7: u32, rd: u32, rs1: u32, rs2: u32) -> u32 {
    op | rd << 7 | f3 << 12 | rs1 << 15 | rs2 << 20 | f7 << 25
}
fn s(f3: u32, rs2: u32, rs1: u32, imm: i32) -> u32 {
    let imm = imm as u32;
    0x23 | (imm & 31) << 7 | f3 << 12 | rs1 << 15 | rs2 << 20 | (imm >> 5 & 0x7f) << 25
}
fn b(f3: u32, rs1: u32, rs2: u32, offset: i32) -> u32 {
    let o = offset as u32;
    0x63 | (o >> 11 & 1) << 7
        | (o >> 1 & 15) << 8
        | f3 << 12
        | rs1 << 15
        | rs2 << 20
        | (o >> 5 & 0x3f) << 25
        | (o >> 12 & 1) << 31
}

macro_rules! assembler {
    ($($name:ident($($arg:ident: $type:ty),*) = $value:expr;)*) => {
        $(#[allow(dead_code)] pub(super) fn $name($($arg: $type),*) -> u32 { $value })*
    };
}

assembler! {
    lui(rd: u32, imm20: u32) = 0x37 | rd << 7 | imm20 << 12;
    auipc(rd: u32, imm20: u32) = 0x17 | rd << 7 | imm20 << 12;
    addi(rd: u32, rs1: u32, imm: i32) = i(0x13, 0, rd, rs1, imm);
    andi(rd: u32, rs1: u32, imm: i32) = i(0x13, 7, rd, rs1, imm);
    slli(rd: u32, rs1: u32, shamt: i32) = i(0x13, 1, rd, rs1, shamt);
    srli(rd: u32, rs1: u32, shamt: i32) = i(0x13, 5, rd, rs1, shamt);
    add(rd: u32, rs1: u32, rs2: u32) = rr(0x33, 0, 0, rd, rs1, rs2);
    xor(rd: u32, rs1: u32, rs2: u32) = rr(0x33, 4, 0, rd, rs1, rs2);
    mul(rd: u32, rs1: u32, rs2: u32) = rr(0x33, 0, 1, rd, rs1, rs2);
    lw(rd: u32, imm: i32, rs1: u32) = i(0x03, 2, rd, rs1, imm);
    lwu(rd: u32, imm: i32, rs1: u32) = i(0x03, 6, rd, rs1, imm);
    ld(rd: u32, imm: i32, rs1: u32) = i(0x03, 3, rd, rs1, imm);
    lbu(rd: u32, imm: i32, rs1: u32) = i(0x03, 4, rd, rs1, imm);
    sd(rs2: u32, imm: i32, rs1: u32) = s(3, rs2, rs1, imm);
    sw(rs2: u32, imm: i32, rs1: u32) = s(2, rs2, rs1, imm);
    sb(rs2: u32, imm: i32, rs1: u32) = s(0, rs2, rs1, imm);
    beq(rs1: u32, rs2: u32, offset: i32) = b(0, rs1, rs2, offset);
    bne(rs1: u32, rs2: u32, offset: i32) = b(1, rs1, rs2, offset);
    jal(rd: u32, offset: i32) = {
        let o = offset as u32;
        0x6f | rd << 7 | (o >> 12 & 0xff) << 12 | (o >> 11 & 1) << 20 | (o >> 1 & 0x3ff) << 21 | (o >> 20 & 1) << 31
    };
    jalr(rd: u32, rs1: u32, imm: i32) = i(0x67, 0, rd, rs1, imm);
    csrrw(rd: u32, csr: u16, rs1: u32) = i(0x73, 1, rd, rs1, i32::from(csr));
    csrrs(rd: u32, csr: u16, rs1: u32) = i(0x73, 2, rd, rs1, i32::from(csr));
    csrrc(rd: u32, csr: u16, rs1: u32) = i(0x73, 3, rd, rs1, i32::from(csr));
    csrrwi(rd: u32, csr: u16, imm: u32) = i(0x73, 5, rd, imm, i32::from(csr));
    csrrsi(rd: u32, csr: u16, imm: u32) = i(0x73, 6, rd, imm, i32::from(csr));
    amoadd_d(rd: u32, rs2: u32, rs1: u32) = rr(0x2f, 3, 0, rd, rs1, rs2);
    lr_d(rd: u32, rs1: u32) = rr(0x2f, 3, 0x08, rd, rs1, 0);
    sc_d(rd: u32, rs2: u32, rs1: u32) = rr(0x2f, 3, 0x0c, rd, rs1, rs2);
    mret() = 0x3020_0073;
    sret() = 0x1020_0073;
    wfi() = 0x1050_0073;
    ecall() = 0x73;
    fence_i() = 0x100f;
    sfence_vma() = 0x1200_0073;
    nop() = 0x13;
}
