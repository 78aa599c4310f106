//! Unsigned LEB128 integers and a cursor that cannot run past its end.
//!
//! Seven bits a byte, least significant first, the high bit says "more follows"; at most ten bytes. Only the
//! shortest form of a number is valid, so that equal values are equal bytes.

use alloc::vec::Vec;

/// Most bytes a number takes.
pub const VARINT_BYTES_MAX: usize = 10;

/// Appends `value`.
pub fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends the length of `bytes`, then `bytes`.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// The step from `from` to `to`, modulo 2^64, as a number that is small when the step is, in either direction.
#[must_use]
pub const fn zigzag(from: u64, to: u64) -> u64 {
    let step = to.wrapping_sub(from) as i64;
    ((step << 1) ^ (step >> 63)) as u64
}

/// The inverse of [`zigzag`]: where the step leads.
#[must_use]
pub const fn unzigzag(from: u64, step: u64) -> u64 {
    let step = ((step >> 1) as i64) ^ -((step & 1) as i64);
    from.wrapping_add(step as u64)
}

/// Reads forward through bytes; `None` where they do not hold what is asked for.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// At the first byte.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }
    /// How many bytes were read.
    #[must_use]
    pub const fn position(&self) -> usize {
        self.at
    }
    /// How many are left.
    #[must_use]
    pub const fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }
    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(len)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }
    /// All bytes that are left.
    pub fn rest(&mut self) -> &'a [u8] {
        let rest = &self.bytes[self.at..];
        self.at = self.bytes.len();
        rest
    }
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }
    /// One byte.
    pub fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }
    /// Two bytes, little-endian.
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }
    /// Four bytes, little-endian.
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }
    /// Eight bytes, little-endian.
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
    /// A number that [`put`] wrote.
    pub fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit; a last byte of zero is not the shortest form.
            if (shift == 63 && byte > 1) || (shift > 0 && byte == 0) {
                return None;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }
    /// What [`put_bytes`] wrote.
    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.varint()?).ok()?;
        self.take(len)
    }
    /// A count of things that take at least `bytes_each` bytes, so that no count asks for more memory than
    /// the input can fill.
    pub fn count(&mut self, bytes_each: usize) -> Option<usize> {
        let count = usize::try_from(self.varint()?).ok()?;
        (count <= self.remaining() / bytes_each.max(1)).then_some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_number_comes_back_and_takes_no_more_than_ten_bytes(value: u64, shift in 0u32..64) {
            let value = value >> shift;
            let mut out = Vec::new();
            put(&mut out, value);
            prop_assert!(out.len() <= VARINT_BYTES_MAX);
            let mut cursor = Cursor::new(&out);
            prop_assert_eq!(cursor.varint(), Some(value));
            prop_assert_eq!(cursor.remaining(), 0);
        }

        #[test]
        fn every_step_leads_where_it_should(from: u64, to: u64) {
            prop_assert_eq!(unzigzag(from, zigzag(from, to)), to);
        }

        #[test]
        fn bytes_that_are_a_number_are_its_only_form(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let mut cursor = Cursor::new(&bytes);
            if let Some(value) = cursor.varint() {
                let mut out = Vec::new();
                put(&mut out, value);
                prop_assert_eq!(&out[..], &bytes[..cursor.position()]);
            }
        }
    }

    #[test]
    fn a_small_step_is_a_small_number_in_both_directions() {
        assert_eq!(zigzag(1000, 1001), 2);
        assert_eq!(zigzag(1000, 999), 1);
        assert_eq!(zigzag(u64::MAX, 0), 2);
    }

    #[test]
    fn a_count_that_the_input_cannot_fill_is_refused() {
        assert_eq!(Cursor::new(&[3, 0, 0, 0]).count(1), Some(3));
        assert_eq!(Cursor::new(&[4, 0, 0, 0]).count(1), None);
    }
}
