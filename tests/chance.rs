//! Chance from a seed, for the tests of every crate (`#[path]`): the same numbers for ever, so that a failure is named by
//! its seed.
//!
//! Not here: chance of simulations (`pollux_sim::random`), which ships.

#![allow(dead_code, unreachable_pub, reason = "every test uses one of these")]

/// The next number of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators").
pub fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ *state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// Marsaglia's xorshift64*. The state must not be 0.
#[derive(Clone)]
pub struct Xorshift(pub u64);

impl Xorshift {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}
