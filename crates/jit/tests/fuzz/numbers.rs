//! Straight code that computes with floating-point registers: results that are operands of the next instruction, that
//! are overwritten before anybody has seen them, that are no numbers, and that somebody sees after all.

use super::asm::{Fields, word};
use super::program::Program;
use super::rng::Rng;
use pollux_isa::{Opcode as Op, csr};

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
        let mode = self.rounding_mode();
        self.word(word(op, fields) | mode << RM);
    }

    /// Mostly as `frm` says; every mode of its own, and now and then what is none.
    fn rounding_mode(&mut self) -> u32 {
        if self.rng.percent(80) { DYNAMIC } else { self.rng.pick(&[0, 1, 1, 2, 2, 3, 3, 4, 1, 2, 3, 5]) }
    }

    /// What compilers emit around quiet comparisons: `fflags` read, and written again; `frm`; both.
    fn flags(&mut self, integer: u8) {
        let number = self.rng.pick(&[csr::FFLAGS, csr::FFLAGS, csr::FCSR, csr::FRM]);
        let other = self.any();
        let op =
            self.rng.pick(&[Op::Csrrs, Op::Csrrs, Op::Csrrw, Op::Csrrc, Op::Csrrwi, Op::Csrrsi, Op::Csrrci]);
        let immediate = matches!(op, Op::Csrrwi | Op::Csrrsi | Op::Csrrci);
        let source = match self.rng.below(4) {
            0 if immediate => self.rng.below(32) as u8,
            _ if immediate => 8 * self.rng.below(4) as u8,
            0 => other,
            1 => 0,
            _ => {
                // Most programs give back what they were given, or single exceptions.
                let mask = self.rng.pick(&[31, 16, 1, 8, 0x3f]);
                self.emit(Op::Andi, other, integer, 0, mask);
                other
            }
        };
        self.emit(op, integer, source, 0, i32::from(number));
        if number != csr::FFLAGS {
            self.emit(Op::Csrrwi, 0, 0, 0, i32::from(csr::FRM));
        }
    }

    /// Conversions, rounding in every way, of numbers near the bounds.
    fn conversion(&mut self, rd: u8, rs1: u8, integer: u8, double: bool) {
        let of =
            |singles: &[Op], doubles: &[Op], rng: &mut Rng| rng.pick(if double { doubles } else { singles });
        if self.rng.percent(60) {
            let near = self.any();
            let up = self.rng.pick(&[0, 0, 0, 22, 23, 30, 31, 32, 51, 52, 53, 62, 63]);
            let offset = self.rng.between(-5, 5) as i32;
            let bits = self.rng.pick(&[1, 1, 3, -1, -5, 0]);
            self.emit(Op::Addi, near, 0, 0, bits);
            self.emit(Op::Slli, near, near, 0, up);
            self.emit(Op::Addi, near, near, 0, offset);
            let op = of(
                &[Op::FcvtSL, Op::FcvtSLu, Op::FcvtSW, Op::FcvtSWu],
                &[Op::FcvtDL, Op::FcvtDLu, Op::FcvtDW, Op::FcvtDWu],
                self.rng,
            );
            let mode = self.rng.pick(&[7, 7, 0, 1, 2, 3, 4, 5]);
            self.word(word(op, Fields { rd: rs1, rs1: near, rs2: 0, imm: 0 }) | mode << RM);
            if self.rng.percent(60) {
                // Halves and quarters; or what any of them was.
                let op = of(&[Op::FdivS, Op::FaddS], &[Op::FdivD, Op::FaddD], self.rng);
                self.rounded(op, Fields { rd: rs1, rs1, rs2: rd, imm: 0 });
            }
        }
        if self.rng.percent(30) {
            self.emit(Op::Csrrwi, 0, 0, 0, i32::from(csr::FFLAGS));
        }
        let op = of(
            &[Op::FcvtWS, Op::FcvtLS, Op::FcvtWuS, Op::FcvtLuS, Op::FclassS],
            &[Op::FcvtWD, Op::FcvtLD, Op::FcvtWuD, Op::FcvtLuD, Op::FclassD],
            self.rng,
        );
        let mode = if matches!(op, Op::FclassS | Op::FclassD) {
            0
        } else {
            self.rng.pick(&[7, 0, 1, 1, 2, 2, 3, 4, 4, 6])
        };
        self.word(word(op, Fields { rd: integer, rs1, rs2: 0, imm: 0 }) | mode << RM);
    }

    /// Arithmetic, and what looks at bits.
    fn calculation(&mut self, few: &[u8], double: bool) {
        let [rd, rs1, rs2, rs3] = [0; 4].map(|_| self.rng.pick(few));
        let fields = Fields { rd, rs1, rs2, imm: 0 };
        let integer = self.any();
        let of = |single: Op, other: Op| if double { other } else { single };
        match self.rng.below(28) {
            22 | 23 => self.flags(integer),
            24..27 => self.conversion(rd, rs1, integer, double),
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
                let mode = self.rounding_mode();
                if self.rng.percent(20) {
                    // Infinity times zero, plus anything; or nothing new.
                    self.unusual(rs1, double);
                    self.unusual(rs3, double);
                }
                self.word(word(op, fields) | mode << RM | u32::from(rs3) << 27);
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
