//! A fuzzer's bytes, read as decisions. Where they end, every decision is the first one, so that every input is
//! a whole story and a shorter input a simpler one.

/// The bytes that are left.
#[derive(Clone, Copy, Debug)]
pub struct Choices<'a>(pub &'a [u8]);

impl<'a> Choices<'a> {
    /// Whether there is nothing left to decide by.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next `len` bytes, or as many as there are.
    pub fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let taken = self.take(N);
        bytes[..taken.len()].copy_from_slice(taken);
        bytes
    }

    /// One byte.
    pub fn u8(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    /// Two bytes.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    /// Four bytes.
    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// A number below `end`, from no more bytes than it needs.
    pub fn below(&mut self, end: u64) -> u64 {
        match end {
            0..=1 => 0,
            2..=0x100 => u64::from(self.u8()) % end,
            0x101..=0x1_0000 => u64::from(self.u16()) % end,
            0x1_0001..=0x1_0000_0000 => u64::from(self.u32()) % end,
            _ => self.u64() % end,
        }
    }

    /// Of `n` times, one; by one byte.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == n - 1
    }

    /// A piece: a length byte and so many bytes.
    pub fn piece(&mut self) -> &'a [u8] {
        let len = usize::from(self.u8());
        self.take(len)
    }
}
