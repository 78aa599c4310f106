//! From instruction words to [`Inst`].
//!
//! Invariant: decoding is total and pure; a word that no row of the table matches is `None`, which a hart
//! reports as an illegal instruction. Source: volume I, "Immediate Encoding Variants".

use crate::compressed::expand;
use crate::table::{Format, OPCODES, Opcode};

/// A decoded instruction. Fields that the format does not have are zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inst {
    /// What it does.
    pub opcode: Opcode,
    /// Its length in bytes: 2 or 4.
    pub len: u8,
    /// Destination register.
    pub rd: u8,
    /// First source register; the 5-bit immediate of the CSR-immediate forms.
    pub rs1: u8,
    /// Second source register.
    pub rs2: u8,
    /// Third source register (fused multiply-add).
    pub rs3: u8,
    /// funct3: the rounding mode where there is one.
    pub rm: u8,
    /// Immediate, sign-extended; a CSR number, a shift amount, or the fence sets where those are meant.
    pub imm: i32,
}

/// Whether the low halfword of an instruction says that it is 16 bits long (volume I, 1.5).
#[must_use]
pub const fn is_compressed(low: u16) -> bool {
    low & 3 != 3
}

const BUCKETS: usize = 256;
const BUCKET_ROWS: usize = 96;

/// Rows by major opcode (bits 6:2) and funct3: one-based row numbers, zero-terminated.
static INDEX: [[u8; BUCKET_ROWS]; BUCKETS] = index();

const fn index() -> [[u8; BUCKET_ROWS]; BUCKETS] {
    let mut index = [[0; BUCKET_ROWS]; BUCKETS];
    let mut bucket = 0;
    while bucket < BUCKETS {
        let bits = 3 | ((bucket as u32 >> 3) << 2) | ((bucket as u32 & 7) << 12);
        let mut row = 0;
        let mut used = 0;
        while row < OPCODES.len() {
            let info = &OPCODES[row];
            if info.mask & 0x707f & (bits ^ info.value) == 0 {
                index[bucket][used] = row as u8 + 1;
                used += 1;
            }
            row += 1;
        }
        bucket += 1;
    }
    index
}

/// Decodes a 32-bit instruction word.
#[must_use]
pub fn decode(word: u32) -> Option<Inst> {
    if word & 3 != 3 {
        return None;
    }
    let bucket = &INDEX[((word >> 2 & 31) << 3 | (word >> 12 & 7)) as usize];
    let info = bucket
        .iter()
        .take_while(|&&row| row != 0)
        .filter_map(|&row| OPCODES.get(usize::from(row) - 1))
        .find(|info| word & info.mask == info.value)?;
    Some(Inst {
        opcode: info.opcode,
        len: 4,
        rd: (word >> 7 & 31) as u8,
        rs1: (word >> 15 & 31) as u8,
        rs2: (word >> 20 & 31) as u8,
        rs3: (word >> 27) as u8,
        rm: (word >> 12 & 7) as u8,
        imm: immediate(info.format, word),
    })
}

/// Decodes a 16-bit instruction: as the 32-bit instruction it stands for, with length 2.
#[must_use]
pub fn decode_compressed(half: u16) -> Option<Inst> {
    let (_, word) = expand(half)?;
    decode(word).map(|inst| Inst { len: 2, ..inst })
}

fn immediate(format: Format, word: u32) -> i32 {
    let signed = word as i32;
    match format {
        Format::U => signed & !0xfff,
        Format::J => {
            (signed >> 31 & !0xf_ffff)
                | (word & 0xf_f000) as i32
                | (word >> 9 & 0x800) as i32
                | (word >> 20 & 0x7fe) as i32
        }
        Format::B => {
            (signed >> 31 & !0xfff)
                | (word << 4 & 0x800) as i32
                | (word >> 20 & 0x7e0) as i32
                | (word >> 7 & 0x1e) as i32
        }
        Format::I | Format::Load | Format::FLoad => signed >> 20,
        Format::Store | Format::FStore => (signed >> 20 & !31) | (word >> 7 & 31) as i32,
        Format::Shift => (word >> 20 & 63) as i32,
        Format::ShiftW => (word >> 20 & 31) as i32,
        Format::Csr | Format::CsrI => (word >> 20) as i32,
        Format::Fence => (word >> 20) as i32,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_decodes_to_itself() {
        // `zext.h` is `packw` with x0, and has a row of its own.
        for info in OPCODES.iter().filter(|info| info.name != "packw") {
            let inst = decode(info.value).unwrap_or_else(|| panic!("{} does not decode", info.name));
            assert_eq!(inst.opcode, info.opcode, "{}", info.name);
        }
    }

    #[test]
    fn no_word_matches_two_rows_except_pause_and_zext_h() {
        for a in OPCODES {
            for b in OPCODES.iter().filter(|b| b.opcode > a.opcode) {
                let both = a.mask & b.mask;
                let is_special =
                    a.opcode == Opcode::Pause || (a.opcode == Opcode::ZextH && b.opcode == Opcode::Packw);
                if !is_special {
                    assert_ne!(a.value & both, b.value & both, "{} and {}", a.name, b.name);
                }
            }
        }
    }

    #[test]
    fn immediates_are_sign_extended() {
        assert_eq!(decode(0xfe00_0ee3).map(|i| (i.opcode, i.imm)), Some((Opcode::Beq, -4)));
        assert_eq!(decode(0xffdf_f06f).map(|i| (i.opcode, i.imm)), Some((Opcode::Jal, -4)));
        assert_eq!(decode(0xfe11_3c23).map(|i| (i.opcode, i.imm)), Some((Opcode::Sd, -8)));
        assert_eq!(decode(0xffff_f537).map(|i| (i.opcode, i.imm)), Some((Opcode::Lui, -4096)));
        assert_eq!(decode(0x43f5_5513).map(|i| (i.opcode, i.imm)), Some((Opcode::Srai, 63)));
    }
}
