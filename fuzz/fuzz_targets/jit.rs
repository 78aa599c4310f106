//! The JIT against the interpreter on programs that the fuzzer makes: the generator and the duel are those of the
//! JIT's own random tests, but chance is the fuzzer's bytes.
//!
//! Held true: no panic, and at every stop the two machines are the same, to the bit and to the step.
#![no_main]
#![allow(dead_code, unreachable_pub, reason = "the sources have more than is fuzzed")]

#[path = "../../crates/jit/tests/fuzz/asm.rs"]
mod asm;
#[path = "../../crates/jit/tests/fuzz/boot.rs"]
mod boot;
#[path = "../../crates/jit/tests/fuzz/duel.rs"]
mod duel;
#[path = "../../crates/jit/tests/fuzz/layout.rs"]
mod layout;
#[path = "../../crates/jit/tests/fuzz/privileged.rs"]
mod privileged;
#[path = "../../crates/jit/tests/fuzz/program.rs"]
mod program;
#[path = "../../crates/jit/tests/fuzz/straight.rs"]
mod straight;
#[path = "../../crates/jit/tests/fuzz/tangled.rs"]
mod tangled;
#[path = "../../crates/jit/tests/fuzz/trace.rs"]
mod trace;

/// Chance, from the fuzzer's bytes for as long as there are any, then from a seed.
mod rng {
    use std::cell::RefCell;

    thread_local! {
        /// The bytes of the input at hand; every generator starts at their beginning, so that a second duel on the
        /// same input is the same duel.
        pub static INPUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }

    pub struct Rng {
        bytes: std::vec::IntoIter<u8>,
        state: u64,
    }

    impl Rng {
        pub fn new(seed: u64) -> Self {
            Self { bytes: INPUT.with_borrow(Clone::clone).into_iter(), state: seed }
        }

        /// SplitMix64, as in the tests.
        fn chance(&mut self) -> u64 {
            self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.state;
            z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ z >> 31
        }

        pub fn next(&mut self) -> u64 {
            let mut value = [0; 8];
            for byte in &mut value {
                match self.bytes.next() {
                    Some(next) => *byte = next,
                    None => return self.chance(),
                }
            }
            u64::from_le_bytes(value)
        }

        /// Small numbers cost one byte.
        pub fn below(&mut self, end: u64) -> u64 {
            match self.bytes.next() {
                Some(byte) if end <= 256 => u64::from(byte) % end.max(1),
                Some(_) => self.next() % end,
                None => self.chance() % end.max(1),
            }
        }

        pub fn between(&mut self, first: i64, last: i64) -> i64 {
            first + self.below((last - first + 1) as u64) as i64
        }

        pub fn percent(&mut self, chance: u64) -> bool {
            self.below(100) < chance
        }

        pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
            from[self.below(from.len() as u64) as usize]
        }

        pub fn weighted(&mut self, weights: &[u64]) -> usize {
            let mut left = self.below(weights.iter().sum());
            for (index, &weight) in weights.iter().enumerate() {
                if left < weight {
                    return index;
                }
                left -= weight;
            }
            0
        }
    }
}

use boot::World;
use duel::{Plan, duel};
use libfuzzer_sys::fuzz_target;

/// Steps of one duel.
const STEPS: u64 = 2000;

fuzz_target!(|bytes: &[u8]| {
    let (how, rest) = bytes.split_first().unwrap_or((&0, &[]));
    rng::INPUT.set(rest.to_vec());
    let world = [World::Machine, World::Supervisor, World::User][usize::from(how >> 2) % 3];
    let plan = Plan { world, harts: if how & 3 == 3 { 3 } else { 1 }, steps: STEPS, cold: false };
    if let Err(report) = duel(u64::from(*how), plan) {
        panic!("{report}");
    }
});
