//! Chance, from a seed: SplitMix64. The only source of chance in a simulation.
//!
//! Invariant: every part of the world draws from a stream of its own, named after it, so that a fault that is taken
//! out of a schedule (see [`crate::shrink`]) does not change the dice of the parts that it has nothing to do with.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A stream of numbers.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The stream `name` of a seed.
    #[must_use]
    pub fn new(seed: u64, name: &str) -> Self {
        Self(xxh3_64_with_seed(name.as_bytes(), seed))
    }

    /// The next number.
    #[expect(clippy::should_implement_trait, reason = "a stream without end, and never an iterator")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number less than `n`; 0 if `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// True `permille` times in a thousand.
    pub fn chance(&mut self, permille: u64) -> bool {
        self.below(1000) < permille
    }

    /// One of several.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// A number from `low` to `high`, small ones as likely in every order of magnitude.
    pub fn log_between(&mut self, low: u64, high: u64) -> u64 {
        let (low, high) = (low.max(1), high.max(1));
        let bits = self.between(u64::from(low.ilog2()), u64::from(high.ilog2()));
        (1u64 << bits).saturating_add(self.below(1 << bits)).clamp(low, high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_one_seed_differ_and_each_repeats() {
        let draw = |seed, name| {
            let mut random = Random::new(seed, name);
            [random.next(), random.next()]
        };
        assert_eq!(draw(1, "link"), draw(1, "link"));
        assert_ne!(draw(1, "link"), draw(1, "disk"));
        assert_ne!(draw(1, "link"), draw(2, "link"));
    }

    #[test]
    fn numbers_keep_to_their_bounds() {
        let mut random = Random::new(7, "bounds");
        for _ in 0..10_000 {
            assert!((3..=9).contains(&random.between(3, 9)));
            assert!((5..=5000).contains(&random.log_between(5, 5000)));
        }
    }
}
