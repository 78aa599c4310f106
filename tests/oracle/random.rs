//! Random numbers that are the same for ever: a failure is named by its seed and case number.

#[path = "../chance.rs"]
mod chance;

pub(crate) struct Random(u64);

impl Random {
    /// The stream of case `index` under `seed`.
    pub(crate) fn of_case(seed: u64, index: usize) -> Self {
        let mut random = Self(seed ^ (index as u64).wrapping_mul(0xd134_2543_de82_ef95));
        random.next();
        random
    }

    pub(crate) fn next(&mut self) -> u64 {
        chance::splitmix(&mut self.0)
    }

    /// A number in `0..n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// True `percent` times in a hundred.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    /// One of `choices`.
    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// An integer with a taste for the edges.
    pub(crate) fn integer(&mut self) -> u64 {
        let shift = self.below(64);
        match self.below(12) {
            0 => 0,
            1 => u64::MAX,
            2 => self.pick(&[1, 2, 63, 64, 31, 32, 0x8000_0000, 0x7fff_ffff, 0xffff_ffff]),
            3 => self.pick(&[
                i32::MIN as u64,
                i64::MIN as u64,
                i64::MAX as u64,
                i16::MIN as u64,
                i8::MIN as u64,
            ]),
            4 => (1u64 << shift).wrapping_sub(1),
            5 => 1 << shift,
            6 => (1u64 << shift).wrapping_neg(),
            7 => self.next() as i32 as u64,
            8 => self.next() as u32 as u64,
            9 => self.next() >> shift,
            _ => self.next(),
        }
    }

    /// A pattern for a floating-point register: doubles and boxed singles, special and random, and singles
    /// that are not boxed properly.
    pub(crate) fn float(&mut self) -> u64 {
        if self.chance(45) {
            return self.float_of(52, 11);
        }
        if self.chance(10) {
            return self.float_of(10, 5) | !0xffff;
        }
        let single = self.float_of(23, 8);
        if self.chance(4) { single | self.next() << 32 } else { single | 0xffff_ffff << 32 }
    }

    fn float_of(&mut self, fraction_bits: u32, exponent_bits: u32) -> u64 {
        let special = (1 << exponent_bits) - 1;
        let exponent = match self.below(16) {
            0 => 0,
            1 => special,
            2 => 1 + self.next() % 3,
            3 => special - 1 - self.next() % 3,
            4 | 5 => self.next() % special,
            // Around the sizes of the integers, for conversions.
            6 | 7 => special / 2 + 28 + self.next() % 40,
            _ => special / 2 - 4 + self.next() % 8,
        }
        .min(special);
        let mask = (1 << fraction_bits) - 1;
        let shift = self.next() % u64::from(fraction_bits);
        let fraction = match self.below(8) {
            0 | 1 => 0,
            2 => 1 << shift,
            3 => mask << shift,
            4 => self.next() << shift,
            5 => self.next() % 3,
            _ => self.next(),
        };
        (self.next() & 1) << (fraction_bits + exponent_bits) | exponent << fraction_bits | fraction & mask
    }
}
