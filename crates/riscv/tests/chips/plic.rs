//! The interrupt controller (RISC-V PLIC specification 1.0.0).

use pollux_riscv::device::plic::{Plic, SOURCES};

const PENDING: u64 = 0x1000;
const ENABLE: u64 = 0x2000;
const CONTEXT: u64 = 0x20_0000;
/// Contexts of hart 0 and hart 1: M-mode, then S-mode.
const M0: u64 = 0;
const S0: u64 = 1;
const S1: u64 = 3;

/// A controller for two harts, with every source of priority 1.
struct Bench(Plic);

impl Bench {
    fn new() -> Self {
        let mut bench = Self(Plic::new(2));
        (1..SOURCES as u64).for_each(|source| bench.set(4 * source, 1));
        bench
    }

    fn get(&mut self, offset: u64) -> u64 {
        self.0.read(offset, 4).expect("a register")
    }

    fn set(&mut self, offset: u64, value: u64) {
        self.0.write(offset, 4, value).expect("a register");
    }

    fn enable(&mut self, context: u64, sources: &[u64]) {
        for word in 0..3 {
            let bits = sources.iter().filter(|s| **s / 32 == word).fold(0, |bits, s| bits | 1 << (s % 32));
            self.set(ENABLE + 0x80 * context + 4 * word, bits);
        }
    }

    fn threshold(&mut self, context: u64, value: u64) {
        self.set(CONTEXT + 0x1000 * context, value);
    }

    fn claim(&mut self, context: u64) -> u64 {
        self.get(CONTEXT + 0x1000 * context + 4)
    }

    fn complete(&mut self, context: u64, source: u64) {
        self.set(CONTEXT + 0x1000 * context + 4, source);
    }

    fn raise(&mut self, sources: &[usize]) {
        sources.iter().for_each(|source| self.0.set_level(*source, true));
    }

    fn lower(&mut self, source: usize) {
        self.0.set_level(source, false);
    }

    fn is_pending(&mut self, source: u64) -> bool {
        self.get(PENDING + 4 * (source / 32)) >> (source % 32) & 1 != 0
    }
}

#[test]
fn an_interrupt_goes_to_the_contexts_that_enabled_it() {
    let mut plic = Bench::new();
    plic.enable(S0, &[10]);
    plic.enable(S1, &[11]);
    plic.raise(&[10]);
    assert_eq!((plic.0.interrupts(0), plic.0.interrupts(1)), ((false, true), (false, false)));
    plic.raise(&[11]);
    assert_eq!((plic.0.interrupts(0), plic.0.interrupts(1)), ((false, true), (false, true)));
    assert_eq!((plic.claim(M0), plic.claim(S1), plic.claim(S0)), (0, 11, 10));
}

#[test]
fn a_claim_takes_the_interrupt_from_every_context_and_completion_rearms_it() {
    let mut plic = Bench::new();
    plic.enable(S0, &[10]);
    plic.enable(S1, &[10]);
    plic.raise(&[10]);
    assert_eq!(plic.claim(S0), 10);
    assert_eq!((plic.0.interrupts(0), plic.0.interrupts(1)), ((false, false), (false, false)));
    assert_eq!(plic.claim(S1), 0);
    assert!(!plic.is_pending(10));
    // The line is still high when the handler is done: another round.
    plic.complete(S0, 10);
    assert_eq!((plic.is_pending(10), plic.0.interrupts(1)), (true, (false, true)));
    assert_eq!(plic.claim(S1), 10);
    plic.lower(10);
    plic.complete(S1, 10);
    assert_eq!((plic.is_pending(10), plic.claim(S0)), (false, 0));
}

#[test]
fn a_request_once_made_is_kept_until_it_is_claimed() {
    let mut plic = Bench::new();
    plic.enable(S0, &[10]);
    plic.raise(&[10]);
    plic.lower(10);
    assert_eq!((plic.is_pending(10), plic.claim(S0)), (true, 10));
    plic.complete(S0, 10);
    assert_eq!(plic.claim(S0), 0, "the line is low");
}

#[test]
fn a_line_that_pulses_during_service_is_not_remembered() {
    // The gateway of a level-triggered source looks at the level when the handler is done, and at no other time.
    let mut plic = Bench::new();
    plic.enable(S0, &[10]);
    plic.raise(&[10]);
    plic.claim(S0);
    plic.lower(10);
    plic.raise(&[10]);
    assert!(!plic.is_pending(10));
    plic.lower(10);
    plic.complete(S0, 10);
    assert_eq!(plic.claim(S0), 0);
}

#[test]
fn the_highest_priority_is_claimed_first_and_the_lowest_number_among_equals() {
    let mut plic = Bench::new();
    plic.enable(S0, &[3, 40, 41, 95]);
    plic.set(4 * 40, 7);
    plic.set(4 * 41, 7);
    plic.set(4 * 95, 5);
    plic.raise(&[3, 41, 95, 40]);
    let order: Vec<u64> = (0..5).map(|_| plic.claim(S0)).collect();
    assert_eq!(order, [40, 41, 95, 3, 0]);
}

#[test]
fn only_priorities_above_the_threshold_interrupt() {
    let mut plic = Bench::new();
    plic.enable(S0, &[10, 11]);
    plic.set(4 * 11, 3);
    plic.raise(&[10, 11]);
    for (threshold, claimed) in [(7, 0), (3, 0), (2, 11)] {
        plic.threshold(S0, threshold);
        assert_eq!(plic.0.interrupts(0).1, claimed != 0, "threshold {threshold}");
        assert_eq!(plic.claim(S0), claimed);
    }
    plic.threshold(S0, 0);
    assert_eq!(plic.claim(S0), 10);
}

#[test]
fn priority_zero_never_interrupts() {
    let mut plic = Bench::new();
    plic.enable(S0, &[10]);
    plic.set(4 * 10, 0);
    plic.raise(&[10]);
    assert_eq!((plic.is_pending(10), plic.0.interrupts(0).1, plic.claim(S0)), (true, false, 0));
    plic.set(4 * 10, 1);
    assert!(plic.0.interrupts(0).1);
}

#[test]
fn a_disabled_interrupt_stays_pending() {
    let mut plic = Bench::new();
    plic.raise(&[10]);
    assert_eq!(plic.claim(S0), 0);
    plic.enable(S0, &[10]);
    assert_eq!(plic.claim(S0), 10);
}

#[test]
fn completions_that_are_out_of_place_do_nothing() {
    let mut plic = Bench::new();
    plic.enable(S0, &[10, 11]);
    plic.raise(&[10]);
    assert_eq!(plic.claim(S0), 10);
    for (context, source) in
        [(S1, 10), (S0, 11), (S0, 0), (S0, 12), (S0, 96), (S0, 1 << 20), (S0, 0xffff_ffff)]
    {
        plic.complete(context, source);
        assert!(!plic.is_pending(10), "context {context} source {source}");
    }
    plic.complete(S0, 10);
    assert!(plic.is_pending(10));
}

#[test]
fn registers_hold_what_they_can_hold() {
    let mut plic = Bench::new();
    plic.set(4 * 10, 0xffff_ffff);
    plic.threshold(S0, 0xffff_ffff);
    assert_eq!((plic.get(4 * 10), plic.get(CONTEXT + 0x1000 * S0)), (7, 7));
    plic.set(0, 7);
    plic.set(ENABLE, 0xffff_ffff);
    assert_eq!((plic.get(0), plic.get(ENABLE)), (0, 0xffff_fffe), "source 0 does not exist");
    plic.set(PENDING, 0xffff_ffff);
    assert_eq!(plic.get(PENDING), 0, "pending bits are the gateways'");
    // Behind the last source, the last context, the last register of a context.
    for offset in
        [4 * 96, PENDING + 12, ENABLE + 12, ENABLE + 0x80 * 4, CONTEXT + 8, CONTEXT + 0x4000, 0x5f_fffc]
    {
        plic.set(offset, 0xffff_ffff);
        assert_eq!(plic.get(offset), 0, "offset {offset:#x}");
    }
}

#[test]
fn only_aligned_words_are_registers() {
    let mut plic = Bench::new();
    for (offset, bytes) in [(4, 1), (4, 2), (8, 8), (5, 4), (6, 4)] {
        assert_eq!(plic.0.read(offset, bytes), None);
        assert_eq!(plic.0.write(offset, bytes, 1), None);
    }
}

#[test]
fn lines_that_do_not_exist_are_not_connected() {
    let mut plic = Bench::new();
    plic.enable(S0, &[10]);
    plic.raise(&[96, 1000, usize::MAX]);
    assert_eq!((plic.claim(S0), plic.get(PENDING), plic.get(PENDING + 8)), (0, 0, 0));
}
