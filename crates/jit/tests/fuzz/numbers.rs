//! Straight code that computes with floating-point registers: results that are operands of the next instruction, that
//! are overwritten before anybody has seen them, that are no numbers, and that somebody sees after all.

use super::asm::{Fields, word};
use super::program::Program;
use pollux_isa::Opcode as Op;

/// Where a `rm` field lies.
const RM: u32 = 12;
/// As `frm` says.
const DYNAMIC: u32 = 7;

impl Program<'_> {
    /// A float that arithmetic finds unusual: infinity, NaN with any bits, the smallest number, a zero.
    fn unusual(&mut self, rd: u8, double: bool) {
        let through = self.any();
        let (ones, up) = if double { (2047, 52) } else { (255, 23) };
        let exponent = self.rng.pick(&[ones, ones, ones, ones - 1, 0, 0]);
        let fraction = self.rng.pick(&[0, 0, 0, 1, 5, -1]);
        self.emit(Op::Addi, through, 0, 0, exponent);
        self.emit(Op::Slli, through, through, 0, up);
        self.emit(Op::Addi, through, through, 0, fraction);
        if self.rng.percent(30) {
            self.emit(Op::Sub, through, 0, through, 0);
        }
        self.emit(if double { Op::FmvDX } else { Op::FmvWX }, rd, through, 0, 0);
    }

    fn rounded(&mut self, op: Op, fields: Fields) {
        let mode = if self.rng.percent(97) { DYNAMIC } else { self.rng.below(3) as u32 };
        self.word(word(op, fields) | mode << RM);
    }

    /// Arithmetic, and what looks at bits.
    fn calculation(&mut self, few: &[u8], double: bool) {
        let [rd, rs1, rs2, rs3] = [0; 4].map(|_| self.rng.pick(few));
        let fields = Fields { rd, rs1, rs2, imm: 0 };
        let integer = self.any();
        let of = |single: Op, other: Op| if double { other } else { single };
        match self.rng.below(22) {
            0..4 => self.rounded(of(Op::FaddS, Op::FaddD), fields),
            4..7 => self.rounded(of(Op::FsubS, Op::FsubD), fields),
            7..10 => self.rounded(of(Op::FmulS, Op::FmulD), fields),
            10 => self.rounded(of(Op::FdivS, Op::FdivD), fields),
            11 => self.rounded(of(Op::FsqrtS, Op::FsqrtD), Fields { rs2: 0, ..fields }),
            12..14 => {
                let op = self.rng.pick(&[
                    of(Op::FmaddS, Op::FmaddD),
                    of(Op::FmsubS, Op::FmsubD),
                    of(Op::FnmaddS, Op::FnmaddD),
                    of(Op::FnmsubS, Op::FnmsubD),
                ]);
                self.word(word(op, fields) | DYNAMIC << RM | u32::from(rs3) << 27);
            }
            14 => {
                let op = self.rng.pick(&[
                    of(Op::FsgnjS, Op::FsgnjD),
                    of(Op::FsgnjnS, Op::FsgnjnD),
                    of(Op::FsgnjxS, Op::FsgnjxD),
                ]);
                self.emit(op, rd, rs1, rs2, 0);
            }
            15 => self.emit(of(Op::FsgnjS, Op::FsgnjD), rd, rs1, rs1, 0),
            16 => {
                let op = self.rng.pick(&[of(Op::FminS, Op::FminD), of(Op::FmaxS, Op::FmaxD)]);
                self.emit(op, rd, rs1, rs2, 0);
            }
            17 => {
                let op = self.rng.pick(&[
                    of(Op::FeqS, Op::FeqD),
                    of(Op::FltS, Op::FltD),
                    of(Op::FleS, Op::FleD),
                    of(Op::FclassS, Op::FclassD),
                    of(Op::FmvXW, Op::FmvXD),
                ]);
                let looks = matches!(op, Op::FclassS | Op::FclassD | Op::FmvXW | Op::FmvXD);
                self.emit(op, integer, rs1, if looks { 0 } else { rs2 }, 0);
            }
            18 => self.rounded(of(Op::FcvtDS, Op::FcvtSD), Fields { rs2: 0, ..fields }),
            19 => self.rounded(of(Op::FcvtWS, Op::FcvtLD), Fields { rd: integer, rs2: 0, ..fields }),
            _ => self.unusual(rd, double),
        }
    }

    /// Much arithmetic with a few registers, or with nearly as many as the host has, with memory and integers in between.
    pub(super) fn calculations(&mut self) {
        let count = self.rng.pick(&[2, 4, 4, 8, 14, 24]);
        let first = self.rng.below(32 - count) as u8;
        let few: Vec<u8> = (first..first + count as u8).collect();
        let double = self.rng.percent(60);
        for &register in &few {
            if self.rng.percent(30) {
                self.unusual(register, double);
            }
        }
        if self.rng.percent(40) {
            // Exceptions that are noted already would hide others.
            self.emit(Op::Csrrwi, 0, 0, 0, i32::from(pollux_isa::csr::FFLAGS));
        }
        for _ in 0..self.rng.between(6, 36) {
            let precision = if self.rng.percent(95) { double } else { !double };
            match self.rng.below(20) {
                0..13 => self.calculation(&few, precision),
                13..16 => {
                    let (base, imm) = (self.base(), 8 * self.rng.between(-8, 8) as i32);
                    let ops =
                        if precision { [Op::Fld, Op::Fsd, Op::Fsd] } else { [Op::Flw, Op::Fsw, Op::Fsw] };
                    let (op, register) = (self.rng.pick(&ops), self.rng.pick(&few));
                    self.emit(op, register, base, register, imm);
                }
                16 => {
                    let (base, imm) = (self.base(), self.rng.between(-64, 64) as i32);
                    let (op, value) = (self.rng.pick(&[Op::Ld, Op::Lw, Op::Sd, Op::Sb]), self.any());
                    self.emit(op, value, base, value, imm);
                }
                _ => {
                    let (rd, rs1, rs2) = (self.any(), self.any(), self.rng.below(32) as u8);
                    let op = self.rng.pick(&[Op::Add, Op::Xor, Op::Addw]);
                    self.emit(op, rd, rs1, rs2, 0);
                }
            }
        }
    }
}
