//! Instructions as words, and code with labels.

use pollux_isa::{Format, Opcode as Op};

/// An instruction's fields. What its format has no room for is ignored.
#[derive(Clone, Copy, Default)]
pub struct Fields {
    pub rd: u8,
    pub rs1: u8,
    pub rs2: u8,
    pub imm: i32,
}

/// The word of an instruction (volume I, "Immediate Encoding Variants"). CSR numbers and shift amounts are immediates.
pub fn word(op: Op, Fields { rd, rs1, rs2, imm }: Fields) -> u32 {
    let info = op.info().expect("a row of the table");
    let bits = imm as u32;
    let immediate = match info.format {
        Format::U => bits << 12,
        Format::J => {
            (bits >> 20 & 1) << 31 | (bits >> 1 & 0x3ff) << 21 | (bits >> 11 & 1) << 20 | bits & 0xf_f000
        }
        Format::B => {
            (bits >> 12 & 1) << 31 | (bits >> 5 & 63) << 25 | (bits >> 1 & 15) << 8 | (bits >> 11 & 1) << 7
        }
        Format::Store | Format::FStore => (bits >> 5 & 127) << 25 | (bits & 31) << 7,
        _ => bits << 20,
    };
    let registers = u32::from(rd) << 7 | u32::from(rs1) << 15 | u32::from(rs2) << 20;
    info.value | (immediate | registers) & !info.mask
}

/// A jump whose target is not known yet.
#[must_use]
pub struct Jump(usize, Op, Fields);

/// Code that is being written, for an address.
pub struct Code {
    pub base: u64,
    pub words: Vec<u32>,
}

impl Code {
    pub fn new(base: u64) -> Self {
        Self { base, words: Vec::new() }
    }

    pub fn emit(&mut self, op: Op, rd: u8, rs1: u8, rs2: u8, imm: i32) {
        self.words.push(word(op, Fields { rd, rs1, rs2, imm }));
    }

    pub fn addi(&mut self, rd: u8, rs1: u8, imm: i32) {
        self.emit(Op::Addi, rd, rs1, 0, imm);
    }

    pub fn csrr(&mut self, rd: u8, csr: u16) {
        self.emit(Op::Csrrs, rd, 0, 0, i32::from(csr));
    }

    pub fn csrw(&mut self, csr: u16, rs1: u8) {
        self.emit(Op::Csrrw, 0, rs1, 0, i32::from(csr));
    }

    /// rd = an address, from where the code lies.
    pub fn address(&mut self, rd: u8, target: u64) {
        let here = self.base + 4 * self.words.len() as u64;
        let distance = target.wrapping_sub(here) as i32;
        let high = distance.wrapping_add(0x800) >> 12;
        self.emit(Op::Auipc, rd, 0, 0, high);
        self.addi(rd, rd, distance - (high << 12));
    }

    pub fn branch(&mut self, op: Op, rs1: u8, rs2: u8) -> Jump {
        let jump = Jump(self.words.len(), op, Fields { rs1, rs2, ..Fields::default() });
        self.words.push(0);
        jump
    }

    /// Lets a jump lead to here.
    pub fn bind(&mut self, Jump(at, op, fields): Jump) {
        let imm = 4 * (self.words.len() - at) as i32;
        self.words[at] = word(op, Fields { imm, ..fields });
    }
}
