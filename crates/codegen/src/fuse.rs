//! Pairs of instructions that are one for the host: constants in two halves, and shifts to and fro, which is how
//! RISC-V's base instructions extend bytes, halfwords and words.
//!
//! Both instructions of a pair only compute, and the second overwrites what the first wrote: nothing can look in between.

use crate::asm::{RAX, Shift, W};
use crate::region::{Place, Translator};
use pollux_isa::{Inst, Opcode as Op};

impl Translator<'_> {
    /// Translates two instructions as one, if they are such a pair.
    pub(crate) fn fuse(&mut self, first: Place, second: Place) -> bool {
        let (a, b) = (first.inst, second.inst);
        if b.rs1 != a.rd || b.rd != a.rd || a.rd == 0 {
            return false;
        }
        let done = match (a.opcode, b.opcode) {
            (Op::Lui, Op::Addi) => {
                self.constant(a.rd, i64::from(a.imm) + i64::from(b.imm));
                true
            }
            (Op::Lui, Op::Addiw) => {
                self.constant(a.rd, i64::from(a.imm.wrapping_add(b.imm)));
                true
            }
            (Op::Auipc, Op::Addi) => {
                let from_page = i64::from(a.imm) + i64::from(first.offset) + i64::from(b.imm);
                i32::try_from(from_page).is_ok_and(|offset| {
                    let to = self.place_for(a.rd, false, RAX);
                    self.address(to, offset);
                    self.put(a.rd, to);
                    true
                })
            }
            (Op::Slli, Op::Srli | Op::Srai) => self.extend_by_shifts(a, b),
            _ => false,
        };
        if done {
            self.addend_in_rax = None;
        }
        done
    }

    fn constant(&mut self, rd: u8, value: i64) {
        let to = self.place_for(rd, false, RAX);
        self.asm.mov_imm(to, value as u64);
        self.put(rd, to);
    }

    /// Left and right again: what is left over of the register's low bits, extended, and perhaps shifted.
    fn extend_by_shifts(&mut self, left: Inst, right: Inst) -> bool {
        let (up, down) = (left.imm & 63, right.imm & 63);
        let bytes = match up {
            56 => 1,
            48 => 2,
            32 => 4,
            _ => return false,
        };
        let to = self.place_for(left.rd, false, RAX);
        let from = self.operand(left.rs1);
        let signed = right.opcode == Op::Srai;
        self.asm.load_extended(bytes, signed, to, from);
        if down < up {
            self.asm.shift_imm(Shift::Shl, W::Q, to, (up - down) as u8);
        } else if down > up {
            let op = if signed { Shift::Sar } else { Shift::Shr };
            self.asm.shift_imm(op, W::Q, to, (down - up) as u8);
        }
        self.put(left.rd, to);
        true
    }
}
