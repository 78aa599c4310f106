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
#[path = "../../tests/chance.rs"]
mod chance;
#[path = "../../crates/jit/tests/fuzz/choose.rs"]
mod choose;
#[path = "../../crates/jit/tests/fuzz/duel.rs"]
mod duel;
#[path = "../../crates/jit/tests/fuzz/layout.rs"]
mod layout;
#[path = "../../crates/jit/tests/fuzz/privileged.rs"]
mod privileged;
#[path = "../../crates/jit/tests/fuzz/program.rs"]
mod program;
#[path = "../../crates/jit/tests/fuzz/numbers.rs"]
mod numbers;
#[path = "../../crates/jit/tests/fuzz/straight.rs"]
mod straight;
#[path = "../../crates/jit/tests/fuzz/tangled.rs"]
mod tangled;
#[path = "../../crates/jit/tests/fuzz/trace.rs"]
mod trace;

/// Chance, from the fuzzer's bytes for as long as there are any, then from a seed.
mod rng {
    use super::chance::splitmix;
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

        pub fn next(&mut self) -> u64 {
            let mut value = [0; 8];
            for byte in &mut value {
                match self.bytes.next() {
                    Some(next) => *byte = next,
                    None => return splitmix(&mut self.state),
                }
            }
            u64::from_le_bytes(value)
        }

        /// Small numbers cost one byte.
        pub fn below(&mut self, end: u64) -> u64 {
            match self.bytes.next() {
                Some(byte) if end <= 256 => u64::from(byte) % end.max(1),
                Some(_) => self.next() % end,
                None => splitmix(&mut self.state) % end.max(1),
            }
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
