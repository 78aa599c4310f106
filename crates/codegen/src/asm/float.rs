//! Scalar SSE2 and FMA3, as far as translations use it (Intel SDM volumes 1, chapter 11, and 2).

use super::{Asm, Mem, Reg, Rm, W, Xmm};

/// Opcodes of scalar arithmetic.
pub(crate) mod sse {
    pub(crate) const SQRT: u8 = 0x51;
    pub(crate) const ADD: u8 = 0x58;
    pub(crate) const MUL: u8 = 0x59;
    pub(crate) const CONVERT_FLOAT: u8 = 0x5a;
    pub(crate) const SUB: u8 = 0x5c;
    pub(crate) const DIV: u8 = 0x5e;
}

impl Asm {
    /// `op to, from` in scalar double precision (`double`) or single.
    pub(crate) fn sse(&mut self, opcode: u8, double: bool, to: Xmm, from: impl IntoXmmRm) {
        let prefix = if double { 0xf2 } else { 0xf3 };
        self.encode(prefix, W::D, &[0x0f, opcode], to.0, from.rm(), false);
    }

    /// `ucomis` (quiet) or `comis`.
    pub(crate) fn compare(&mut self, quiet: bool, double: bool, a: Xmm, b: impl IntoXmmRm) {
        let opcode = if quiet { 0x2e } else { 0x2f };
        self.encode(if double { 0x66 } else { 0 }, W::D, &[0x0f, opcode], a.0, b.rm(), false);
    }

    /// Loads a scalar; what is above it becomes zero.
    pub(crate) fn load_xmm(&mut self, double: bool, to: Xmm, from: Mem) {
        self.sse(0x10, double, to, from);
    }

    pub(crate) fn store_xmm(&mut self, double: bool, to: Mem, from: Xmm) {
        let prefix = if double { 0xf2 } else { 0xf3 };
        self.encode(prefix, W::D, &[0x0f, 0x11], from.0, to.into(), false);
    }

    /// From an integer register, converting.
    pub(crate) fn convert_from_int(&mut self, double: bool, wide: W, to: Xmm, from: Reg) {
        let prefix = if double { 0xf2 } else { 0xf3 };
        self.encode(prefix, wide, &[0x0f, 0x2a], to.0, from.into(), false);
    }

    /// To an integer register, truncating or as MXCSR rounds.
    pub(crate) fn convert_to_int(&mut self, double: bool, truncate: bool, wide: W, to: Reg, from: Xmm) {
        let prefix = if double { 0xf2 } else { 0xf3 };
        let opcode = if truncate { 0x2c } else { 0x2d };
        self.encode(prefix, wide, &[0x0f, opcode], to.0, Rm::R(Reg(from.0)), false);
    }

    /// `to = from`, all of it.
    pub(crate) fn mov_xmm(&mut self, to: Xmm, from: Xmm) {
        if to != from {
            self.encode(0, W::D, &[0x0f, 0x28], to.0, Rm::R(Reg(from.0)), false);
        }
    }

    /// Stores sixteen bytes, anywhere.
    pub(crate) fn store_vector(&mut self, to: Mem, from: Xmm) {
        self.encode(0, W::D, &[0x0f, 0x11], from.0, to.into(), false);
    }

    /// Loads sixteen bytes, from anywhere.
    pub(crate) fn load_vector(&mut self, to: Xmm, from: Mem) {
        self.encode(0, W::D, &[0x0f, 0x10], to.0, from.into(), false);
    }

    /// `to ^= to`.
    pub(crate) fn zero_xmm(&mut self, to: Xmm) {
        self.encode(0, W::D, &[0x0f, 0x57], to.0, Rm::R(Reg(to.0)), false);
    }

    /// `to = to * a ± c` in one rounding (FMA3, the 213 forms): `opcode` is A9 for fmadd, AB for fmsub, AD for
    /// fnmadd, AF for fnmsub.
    pub(crate) fn fma213(&mut self, opcode: u8, double: bool, to: Xmm, a: Xmm, c: Xmm) {
        // Three-byte VEX, map 0F38, prefix 66; its register bits are inverted.
        let extensions = (!to.0 >> 3 & 1) << 7 | 1 << 6 | (!c.0 >> 3 & 1) << 5;
        let vvvv = (!a.0 & 15) << 3;
        self.bytes.extend_from_slice(&[0xc4, extensions | 2, u8::from(double) << 7 | vvvv | 1, opcode]);
        self.byte(0xc0 | (to.0 & 7) << 3 | c.0 & 7);
    }

    /// Stores (`3`) or loads (`2`) MXCSR.
    pub(crate) fn mxcsr(&mut self, store: bool, mem: Mem) {
        self.encode(0, W::D, &[0x0f, 0xae], if store { 3 } else { 2 }, mem.into(), false);
    }
}

/// What the second operand of a vector instruction may be.
pub(crate) trait IntoXmmRm {
    fn rm(self) -> Rm;
}

impl IntoXmmRm for Xmm {
    fn rm(self) -> Rm {
        Rm::R(Reg(self.0))
    }
}

impl IntoXmmRm for Mem {
    fn rm(self) -> Rm {
        Rm::M(self)
    }
}
