//! An assembler for the part of x86-64 that translations use (Intel SDM volume 2): bytes into a buffer.
//!
//! Invariant: all that is emitted is position-independent but for jumps between places in the same code memory, so
//! an [`Asm`] knows at which offset of that memory its buffer will lie.
//!
//! Not here: what to emit (`emit`), memory that executes (`pollux-jit`).

pub(crate) mod float;
mod padding;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;

/// A general-purpose register, by its number in encodings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Reg(pub(crate) u8);

pub(crate) const RAX: Reg = Reg(0);
pub(crate) const RCX: Reg = Reg(1);
pub(crate) const RDX: Reg = Reg(2);
pub(crate) const RBX: Reg = Reg(3);
pub(crate) const RSP: Reg = Reg(4);
pub(crate) const RBP: Reg = Reg(5);
pub(crate) const RSI: Reg = Reg(6);
pub(crate) const RDI: Reg = Reg(7);
pub(crate) const R8: Reg = Reg(8);
pub(crate) const R9: Reg = Reg(9);
pub(crate) const R10: Reg = Reg(10);
pub(crate) const R11: Reg = Reg(11);
pub(crate) const R12: Reg = Reg(12);
pub(crate) const R13: Reg = Reg(13);
pub(crate) const R14: Reg = Reg(14);
pub(crate) const R15: Reg = Reg(15);

/// A vector register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Xmm(pub(crate) u8);

/// Memory at `base + index + disp`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mem {
    base: Reg,
    /// The index register and log2 of what it is multiplied by.
    index: Option<(Reg, u8)>,
    disp: i32,
}

/// Memory at `base + disp`.
pub(crate) const fn at(base: Reg, disp: i32) -> Mem {
    Mem { base, index: None, disp }
}

/// Memory at `base + index + disp`.
pub(crate) const fn at2(base: Reg, index: Reg, disp: i32) -> Mem {
    Mem { base, index: Some((index, 0)), disp }
}

/// Memory at `base + index * 2^scale`.
pub(crate) const fn scaled(base: Reg, index: Reg, scale: u8) -> Mem {
    Mem { base, index: Some((index, scale)), disp: 0 }
}

/// Memory `index * 2^scale` behind `mem`, which has no index of its own.
pub(crate) const fn indexed(mem: Mem, index: Reg, scale: u8) -> Mem {
    Mem { index: Some((index, scale)), ..mem }
}

/// What an instruction's r/m operand names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rm {
    R(Reg),
    M(Mem),
}

impl From<Reg> for Rm {
    fn from(reg: Reg) -> Self {
        Self::R(reg)
    }
}

impl From<Mem> for Rm {
    fn from(mem: Mem) -> Self {
        Self::M(mem)
    }
}

/// The two-operand operations, by their number in encodings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Alu {
    Add = 0,
    Or = 1,
    Adc = 2,
    Sbb = 3,
    And = 4,
    Sub = 5,
    Xor = 6,
    Cmp = 7,
}

/// Shifts and rotations, by their number in encodings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Shift {
    Rol = 0,
    Ror = 1,
    Shl = 4,
    Shr = 5,
    Sar = 7,
}

/// One-operand operations of opcode F7.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Unary {
    Not = 2,
    Neg = 3,
    Mul = 4,
    Imul = 5,
    Div = 6,
    Idiv = 7,
}

/// Conditions, by their number in encodings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Cond {
    /// Unsigned less (carry).
    B = 2,
    Ae = 3,
    E = 4,
    Ne = 5,
    A = 7,
    /// Negative.
    S = 8,
    /// Parity: unordered, after a comparison of floating-point numbers.
    P = 10,
    Np = 11,
    /// Signed less.
    L = 12,
    Ge = 13,
    G = 15,
}

impl Cond {
    /// The opposite.
    pub(crate) fn not(self) -> u8 {
        self as u8 ^ 1
    }
}

impl From<Cond> for u8 {
    fn from(cond: Cond) -> Self {
        cond as Self
    }
}

/// Operand width.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum W {
    /// 32 bits; the upper half of a destination register becomes zero.
    D,
    /// 64 bits.
    Q,
}

/// A jump whose target is not known yet: where its 32-bit displacement lies, as an offset in code memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(crate) struct Fixup(pub(crate) u32);

/// The buffer, and one that was finished before it.
#[derive(Debug)]
pub(crate) struct Asm {
    pub(crate) bytes: Vec<u8>,
    /// Offset in code memory of the first byte.
    base: u32,
    /// The bytes of another place in code memory, and where that begins: jumps from there may still be bound.
    elsewhere: (Vec<u8>, u32),
}

impl Asm {
    pub(crate) fn new(base: u32) -> Self {
        Self { bytes: Vec::with_capacity(4096), base, elsewhere: (Vec::new(), 0) }
    }

    /// Goes on at another place in code memory.
    pub(crate) fn go_on_at(&mut self, base: u32) {
        let finished = core::mem::replace(&mut self.bytes, Vec::with_capacity(4096));
        self.elsewhere = (finished, core::mem::replace(&mut self.base, base));
    }

    /// The bytes of the first place and of the second.
    pub(crate) fn finish(self) -> (Vec<u8>, Vec<u8>) {
        (self.elsewhere.0, self.bytes)
    }

    /// Offset in code memory of the next byte.
    pub(crate) fn here(&self) -> u32 {
        self.base + self.bytes.len() as u32
    }

    pub(crate) fn byte(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    fn dword(&mut self, value: i32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// One instruction: legacy prefix (0 for none), REX, opcode bytes, ModRM. `byte_reg` asks for REX whenever a byte
    /// register could be mistaken for a legacy one.
    fn encode(&mut self, prefix: u8, wide: W, opcode: &[u8], reg: u8, rm: Rm, byte_reg: bool) {
        if prefix != 0 {
            self.byte(prefix);
        }
        let (base, index) = match rm {
            Rm::R(reg) => (reg.0, 0),
            Rm::M(mem) => (mem.base.0, mem.index.map_or(0, |(index, _)| index.0)),
        };
        let wide = u8::from(wide == W::Q) << 3;
        let rex = 0x40 | wide | (reg >> 3 & 1) << 2 | (index >> 3 & 1) << 1 | base >> 3 & 1;
        if rex != 0x40 || byte_reg {
            self.byte(rex);
        }
        self.bytes.extend_from_slice(opcode);
        self.modrm(reg & 7, rm);
    }

    fn modrm(&mut self, reg: u8, rm: Rm) {
        let Rm::M(Mem { base, index, disp }) = rm else {
            let Rm::R(direct) = rm else { return };
            return self.byte(0xc0 | reg << 3 | direct.0 & 7);
        };
        // A base of rbp or r13 always has a displacement; one of rsp or r12 always has an index byte.
        let size = if disp == 0 && base.0 & 7 != 5 {
            0
        } else if i8::try_from(disp).is_ok() {
            0x40
        } else {
            0x80
        };
        match index {
            Some((index, scale)) => {
                debug_assert!(index != RSP, "rsp is no index");
                self.byte(size | reg << 3 | 4);
                self.byte(scale << 6 | (index.0 & 7) << 3 | base.0 & 7);
            }
            None if base.0 & 7 == 4 => {
                self.byte(size | reg << 3 | 4);
                self.byte(0x20 | base.0 & 7);
            }
            None => self.byte(size | reg << 3 | base.0 & 7),
        }
        match size {
            0x40 => self.byte(disp as u8),
            0x80 => self.dword(disp),
            _ => {}
        }
    }

    // ---- moving ----

    /// `to = from`, 64 bits.
    pub(crate) fn mov(&mut self, to: Reg, from: Reg) {
        if to != from {
            self.encode(0, W::Q, &[0x89], from.0, to.into(), false);
        }
    }

    /// `to = from`, 32 bits, zero-extended.
    pub(crate) fn mov32(&mut self, to: Reg, from: Reg) {
        self.encode(0, W::D, &[0x89], from.0, to.into(), false);
    }

    /// `to = value`. Leaves flags alone.
    pub(crate) fn mov_imm(&mut self, to: Reg, value: u64) {
        if let Ok(small) = u32::try_from(value) {
            if to.0 >= 8 {
                self.byte(0x41);
            }
            self.byte(0xb8 | to.0 & 7);
            self.dword(small as i32);
        } else if let Ok(small) = i32::try_from(value as i64) {
            self.encode(0, W::Q, &[0xc7], 0, to.into(), false);
            self.dword(small);
        } else {
            self.byte(0x48 | to.0 >> 3);
            self.byte(0xb8 | to.0 & 7);
            self.bytes.extend_from_slice(&value.to_le_bytes());
        }
    }

    pub(crate) fn load(&mut self, wide: W, to: Reg, from: Mem) {
        self.encode(0, wide, &[0x8b], to.0, from.into(), false);
    }

    pub(crate) fn store(&mut self, wide: W, to: Mem, from: Reg) {
        self.encode(0, wide, &[0x89], from.0, to.into(), false);
    }

    /// Stores the low `bytes` bytes.
    pub(crate) fn store_sized(&mut self, bytes: u8, to: Mem, from: Reg) {
        match bytes {
            1 => self.encode(0, W::D, &[0x88], from.0, to.into(), true),
            2 => self.encode(0x66, W::D, &[0x89], from.0, to.into(), false),
            4 => self.store(W::D, to, from),
            _ => self.store(W::Q, to, from),
        }
    }

    /// Stores a sign-extended immediate.
    pub(crate) fn store_imm(&mut self, wide: W, to: Mem, value: i32) {
        self.encode(0, wide, &[0xc7], 0, to.into(), false);
        self.dword(value);
    }

    /// Stores `bytes` bytes that are zero.
    pub(crate) fn store_zero(&mut self, bytes: u8, to: Mem) {
        match bytes {
            1 => self.encode(0, W::D, &[0xc6], 0, to.into(), false),
            2 => self.encode(0x66, W::D, &[0xc7], 0, to.into(), false),
            4 => return self.store_imm(W::D, to, 0),
            _ => return self.store_imm(W::Q, to, 0),
        }
        self.bytes.extend_from_slice(&[0, 0][..usize::from(bytes)]);
    }

    /// Loads `bytes` bytes, extended to 64 bits by the sign or by zeros.
    pub(crate) fn load_extended(&mut self, bytes: u8, signed: bool, to: Reg, from: Rm) {
        let byte_reg = bytes == 1;
        match (bytes, signed) {
            (1, true) => self.encode(0, W::Q, &[0x0f, 0xbe], to.0, from, byte_reg),
            (1, false) => self.encode(0, W::D, &[0x0f, 0xb6], to.0, from, byte_reg),
            (2, true) => self.encode(0, W::Q, &[0x0f, 0xbf], to.0, from, false),
            (2, false) => self.encode(0, W::D, &[0x0f, 0xb7], to.0, from, false),
            (4, true) => self.encode(0, W::Q, &[0x63], to.0, from, false),
            (4, false) => self.encode(0, W::D, &[0x8b], to.0, from, false),
            _ => self.encode(0, W::Q, &[0x8b], to.0, from, false),
        }
    }

    /// `to = address of mem`.
    pub(crate) fn lea(&mut self, to: Reg, mem: Mem) {
        self.encode(0, W::Q, &[0x8d], to.0, mem.into(), false);
    }

    // ---- arithmetic ----

    /// `to = to op from`.
    pub(crate) fn alu(&mut self, op: Alu, wide: W, to: Reg, from: impl Into<Rm>) {
        self.encode(0, wide, &[(op as u8) << 3 | 3], to.0, from.into(), false);
    }

    /// `to = to op value`, sign-extended.
    pub(crate) fn alu_imm(&mut self, op: Alu, wide: W, to: impl Into<Rm>, value: i32) {
        if let Ok(small) = i8::try_from(value) {
            self.encode(0, wide, &[0x83], op as u8, to.into(), false);
            self.byte(small as u8);
        } else {
            self.encode(0, wide, &[0x81], op as u8, to.into(), false);
            self.dword(value);
        }
    }

    /// Compares a byte in memory with an immediate.
    pub(crate) fn cmp_byte(&mut self, mem: Mem, value: u8) {
        self.encode(0, W::D, &[0x80], Alu::Cmp as u8, mem.into(), false);
        self.byte(value);
    }

    pub(crate) fn test(&mut self, wide: W, a: Reg, b: Reg) {
        self.encode(0, wide, &[0x85], b.0, a.into(), false);
    }

    pub(crate) fn shift_imm(&mut self, op: Shift, wide: W, reg: Reg, count: u8) {
        self.encode(0, wide, &[0xc1], op as u8, reg.into(), false);
        self.byte(count);
    }

    /// Shifts by `cl`.
    pub(crate) fn shift_cl(&mut self, op: Shift, wide: W, reg: Reg) {
        self.encode(0, wide, &[0xd3], op as u8, reg.into(), false);
    }

    pub(crate) fn unary(&mut self, op: Unary, wide: W, operand: impl Into<Rm>) {
        self.encode(0, wide, &[0xf7], op as u8, operand.into(), false);
    }

    /// `to = low half of to * from`.
    pub(crate) fn imul(&mut self, wide: W, to: Reg, from: impl Into<Rm>) {
        self.encode(0, wide, &[0x0f, 0xaf], to.0, from.into(), false);
    }

    /// Sign of rax into rdx (cqo), or of eax into edx (cdq).
    pub(crate) fn sign_into_rdx(&mut self, wide: W) {
        if wide == W::Q {
            self.byte(0x48);
        }
        self.byte(0x99);
    }

    /// `to = 1 if the condition holds, else 0`, 64 bits. `to` must not be read by what set the flags: it is written
    /// after them.
    pub(crate) fn set(&mut self, cond: Cond, to: Reg) {
        self.encode(0, W::D, &[0x0f, 0x90 | cond as u8], 0, to.into(), true);
        self.load_extended(1, false, to, to.into());
    }

    /// `to = from if the condition holds`.
    pub(crate) fn cmov(&mut self, cond: impl Into<u8>, wide: W, to: Reg, from: impl Into<Rm>) {
        self.encode(0, wide, &[0x0f, 0x40 | cond.into()], to.0, from.into(), false);
    }

    /// Number of the highest bit set (`bsr`) or the lowest (`bsf`); the zero flag if there is none.
    pub(crate) fn bit_scan(&mut self, highest: bool, wide: W, to: Reg, from: Reg) {
        self.encode(0, wide, &[0x0f, 0xbc | u8::from(highest)], to.0, from.into(), false);
    }

    /// `to = number of bits set` (popcnt).
    pub(crate) fn count_ones(&mut self, wide: W, to: Reg, from: Rm) {
        self.encode(0xf3, wide, &[0x0f, 0xb8], to.0, from, false);
    }

    pub(crate) fn byte_swap(&mut self, reg: Reg) {
        self.byte(0x48 | reg.0 >> 3);
        self.bytes.extend_from_slice(&[0x0f, 0xc8 | reg.0 & 7]);
    }

    // ---- going elsewhere ----

    /// `jmp` to a place that is not known yet.
    pub(crate) fn jmp(&mut self) -> Fixup {
        self.byte(0xe9);
        self.fixup()
    }

    /// `jcc` to a place that is not known yet.
    pub(crate) fn jcc(&mut self, cond: u8) -> Fixup {
        self.bytes.extend_from_slice(&[0x0f, 0x80 | cond]);
        self.fixup()
    }

    /// `jmp` to an offset in code memory.
    pub(crate) fn jmp_to(&mut self, target: u32) {
        let jump = self.jmp();
        self.bind(jump, target);
    }

    /// `jcc` to an offset in code memory.
    pub(crate) fn jcc_to(&mut self, cond: impl Into<u8>, target: u32) {
        let jump = self.jcc(cond.into());
        self.bind(jump, target);
    }

    /// `call` of an offset in code memory.
    pub(crate) fn call(&mut self, target: u32) {
        self.byte(0xe8);
        let call = self.fixup();
        self.bind(call, target);
    }

    fn fixup(&mut self) -> Fixup {
        let fixup = Fixup(self.here());
        self.dword(0);
        fixup
    }

    /// Makes a jump lead to `target`, an offset in code memory.
    pub(crate) fn bind(&mut self, fixup: Fixup, target: u32) {
        let (finished, first) = &mut self.elsewhere;
        let here = fixup.0.checked_sub(self.base).filter(|&place| (place as usize) < self.bytes.len());
        let (bytes, place) = match here {
            Some(place) => (&mut self.bytes, place as usize),
            None => (finished, (fixup.0 - *first) as usize),
        };
        if let Some(bytes) = bytes.get_mut(place..place + 4) {
            bytes.copy_from_slice(&displacement(fixup.0, target));
        }
    }

    /// Makes a jump lead here.
    pub(crate) fn bind_here(&mut self, fixup: Fixup) {
        self.bind(fixup, self.here());
    }

    pub(crate) fn jmp_mem(&mut self, mem: Mem) {
        self.encode(0, W::D, &[0xff], 4, mem.into(), false);
    }

    pub(crate) fn jmp_reg(&mut self, reg: Reg) {
        self.encode(0, W::D, &[0xff], 4, reg.into(), false);
    }

    pub(crate) fn call_mem(&mut self, mem: Mem) {
        self.encode(0, W::D, &[0xff], 2, mem.into(), false);
    }

    pub(crate) fn push(&mut self, reg: Reg) {
        if reg.0 >= 8 {
            self.byte(0x41);
        }
        self.byte(0x50 | reg.0 & 7);
    }

    pub(crate) fn pop(&mut self, reg: Reg) {
        if reg.0 >= 8 {
            self.byte(0x41);
        }
        self.byte(0x58 | reg.0 & 7);
    }

    pub(crate) fn ret(&mut self) {
        self.byte(0xc3);
    }
}

/// The displacement that makes the jump whose displacement lies at `place` lead to `target`.
pub(crate) fn displacement(place: u32, target: u32) -> [u8; 4] {
    target.wrapping_sub(place.wrapping_add(4)).to_le_bytes()
}
