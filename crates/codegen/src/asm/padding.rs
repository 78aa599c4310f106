//! Where code must begin at a round address, for speed.

use super::Asm;

/// Instructions that do nothing, of one byte and more (Intel SDM volume 2, `NOP`).
const NOPS: [&[u8]; 9] = [
    &[0x90],
    &[0x66, 0x90],
    &[0x0f, 0x1f, 0x00],
    &[0x0f, 0x1f, 0x40, 0],
    &[0x0f, 0x1f, 0x44, 0, 0],
    &[0x66, 0x0f, 0x1f, 0x44, 0, 0],
    &[0x0f, 0x1f, 0x80, 0, 0, 0, 0],
    &[0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],
    &[0x66, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],
];

impl Asm {
    /// Has the next instruction lie at a multiple of `bytes`, a power of two.
    pub(crate) fn align(&mut self, bytes: u32) {
        let mut missing = (self.here().wrapping_neg() & (bytes - 1)) as usize;
        while missing > 0 {
            let nop = NOPS[missing.min(NOPS.len()) - 1];
            nop.iter().for_each(|&byte| self.byte(byte));
            missing -= nop.len();
        }
    }
}
