//! Straight code that the translator looks at as a whole: registers that are used much, pairs of instructions that are
//! one for the host, branches over a few instructions, accesses across pages, waiting.

use super::program::Program;
use pollux_isa::Opcode as Op;

impl Program<'_> {
    /// Straight code that uses a few registers much, and looks at memory in between.
    pub(super) fn busy(&mut self) {
        let few = [self.any(), self.any(), self.any(), self.any()];
        for _ in 0..self.rng.between(8, 40) {
            let [rd, rs1, rs2] = [0; 3].map(|_| self.rng.pick(&few));
            if self.rng.percent(25) {
                let (base, imm) = (self.base(), 8 * self.rng.between(-8, 8) as i32);
                let op = self.rng.pick(&[Op::Ld, Op::Lw, Op::Lbu, Op::Sd, Op::Sw, Op::Sb]);
                self.emit(op, rd, base, rs2, imm);
            } else {
                let op = self.rng.pick(&[
                    Op::Add,
                    Op::Addw,
                    Op::Sub,
                    Op::Subw,
                    Op::Xor,
                    Op::And,
                    Op::Or,
                    Op::Mul,
                    Op::Sllw,
                    Op::Srl,
                    Op::Sltu,
                    Op::Divu,
                ]);
                self.emit(op, rd, rs1, rs2, 0);
            }
        }
    }

    /// A branch over instructions that compute one register.
    fn skip(&mut self) {
        let (rd, rs1, rs2) = (self.any(), self.rng.below(32) as u8, self.rng.below(32) as u8);
        let branch = self.rng.pick(&[Op::Beq, Op::Bne, Op::Blt, Op::Bge, Op::Bltu, Op::Bgeu]);
        let count = self.rng.between(1, 4) as i32;
        let rs1 = if self.rng.percent(30) { rd } else { rs1 };
        self.emit(branch, 0, rs1, rs2, 4 * (count + 1));
        for _ in 0..count {
            let from = if self.rng.percent(50) { rd } else { self.any() };
            let other = if self.rng.percent(50) { rd } else { self.any() };
            let imm = self.rng.between(0, 31) as i32;
            match self.rng.below(2) {
                0 => {
                    let op = self.rng.pick(&[Op::Add, Op::Sub, Op::Xor, Op::Subw, Op::Slt, Op::And, Op::Or]);
                    self.emit(op, rd, from, other, 0);
                }
                _ => {
                    let op = self.rng.pick(&[Op::Addi, Op::Slli, Op::Addiw, Op::Sltiu, Op::Xori, Op::Srai]);
                    let bits = if op == Op::Srai { 0x400 } else { 0 };
                    self.emit(op, rd, from, 0, imm | bits);
                }
            }
        }
    }

    /// Accesses across the beginning of a page, of every kind.
    pub(super) fn crossings(&mut self) {
        let (page, base) = (self.any(), self.base());
        self.emit(Op::Srli, page, base, 0, 12);
        self.emit(Op::Slli, page, page, 0, 12);
        for _ in 0..self.rng.between(1, 8) {
            let (register, imm) = (self.any(), -(self.rng.between(1, 8) as i32));
            let op = self.rng.pick(&[
                Op::Ld,
                Op::Sd,
                Op::Lw,
                Op::Lwu,
                Op::Sw,
                Op::Lh,
                Op::Lhu,
                Op::Sh,
                Op::Fld,
                Op::Fsd,
                Op::Flw,
                Op::Fsw,
            ]);
            let float = matches!(op, Op::Fld | Op::Fsd | Op::Flw | Op::Fsw);
            let register = if float || register != page { register } else { 0 };
            self.emit(op, register, page, register, imm);
            if self.rng.percent(30) {
                self.emit(Op::Xor, 1, 1, register, 0);
            }
        }
    }

    /// What gives a turn away, where there are others to give it to.
    pub(super) fn wait(&mut self) {
        let op = self.rng.pick(&[Op::Pause, Op::Pause, Op::WrsNto, Op::WrsSto]);
        self.emit(op, 0, 0, 0, 0);
    }

    /// Two instructions that look like one.
    pub(super) fn pair(&mut self) {
        if self.rng.percent(30) {
            return self.skip();
        }
        let (rd, rs1) = (self.any(), self.rng.below(32) as u8);
        let any = self.rng.next() as i32;
        let low = any << 12 >> 20;
        match self.rng.below(4) {
            0 => self.emit(Op::Lui, rd, 0, 0, any & !0xfff),
            1 => self.emit(Op::Auipc, rd, 0, 0, any & !0xfff),
            _ => {
                let up = self.rng.pick(&[32, 32, 48, 48, 56, 56, 24, 63]);
                let down = (up + self.rng.pick(&[0, 0, 0, 0, -2, -1, 1, 4])).min(63);
                self.emit(Op::Slli, rd, rs1, 0, up);
                let op = self.rng.pick(&[Op::Srli, Op::Srai]);
                return self.emit(op, rd, rd, 0, down);
            }
        }
        let op = self.rng.pick(&[Op::Addi, Op::Addiw]);
        self.emit(op, rd, rd, 0, low);
    }
}
