//! What a guest may expect of its clock, held against guests whose speed changes as it likes on hosts with other things
//! to do.

use super::*;

const MS: u64 = 1_000_000;

/// A guest and its host, by the pacer's rules: slices, adjustments, pauses.
struct Run {
    pacer: Pacer,
    host: u64,
    /// Virtual time in 1/2^32 ns.
    virt: u128,
    rate: u64,
    /// How far the clock has leapt in a busy guest's sight, at most.
    leapt: u64,
}

impl Run {
    fn new() -> Self {
        let pacer = Pacer::new(Pacing::RealTime, HostTime(0), VirtTime(0));
        Self { pacer, host: 0, virt: 0, rate: ClockRate::default().0, leapt: 0 }
    }

    fn virt(&self) -> u64 {
        (self.virt >> 32) as u64
    }

    fn adjust(&mut self, input: Option<Input>, busy: bool) {
        let Some(Input::Clock { time, rate }) = input else { return };
        let leap = time.0.checked_sub(self.virt()).expect("time never runs backwards");
        if busy {
            self.leapt = self.leapt.max(leap);
        }
        if leap > 0 {
            self.virt = u128::from(time.0) << 32;
        }
        self.rate = rate.0;
    }

    /// A slice of a guest that takes `ps` picoseconds for a step, on a host that first does `pause` ns of other things.
    fn slice(&mut self, ps: u64, pause: u64) {
        let due = self.pacer.poll_adjustment(HostTime(self.host), VirtTime(self.virt()));
        self.adjust(due, true);
        let steps = self.pacer.steps_in(200_000).max(1000);
        let spent = pause + steps * ps / 1000;
        self.host += spent;
        self.virt += u128::from(steps) * u128::from(self.rate);
        self.pacer.handle_sample(steps, spent);
    }

    /// Computes for `ns` of the host's time; how fast the clock went meanwhile, in permille of the host's.
    fn compute(&mut self, ns: u64, ps: u64) -> u64 {
        let (host, virt) = (self.host, self.virt());
        while self.host < host + ns {
            self.slice(ps, 0);
        }
        (self.virt() - virt) * 1000 / (self.host - host)
    }

    fn gap(&self) -> u64 {
        self.virt().abs_diff(self.host)
    }
}

/// Chance, the same every time.
fn chance(seed: &mut u64, below: u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) % below
}

#[test]
fn a_clock_is_right_again_a_third_of_a_second_after_any_change_of_speed() {
    for from in [100, 300, 1_000, 10_000, 60_000] {
        for to in [100, 300, 1_000, 10_000, 60_000] {
            let mut run = Run::new();
            run.compute(100 * MS, from);
            run.compute(300 * MS, to);
            let pace = run.compute(10 * MS, to);
            assert!((900..=1100).contains(&pace), "from {from} to {to} ps a step: {pace} permille");
            assert!(run.gap() < MS, "from {from} to {to} ps a step: {} ns", run.gap());
        }
    }
}

#[test]
fn a_stretch_of_ten_milliseconds_is_measured_at_half_to_twice_its_length_whatever_the_guest_did_before() {
    for from in [100, 300, 1_000, 10_000, 60_000] {
        for to in [100, 300, 1_000, 10_000] {
            let mut run = Run::new();
            run.compute(200 * MS, from);
            // Its own slices, before the first of the new speed is known, are not the guest's to time.
            run.compute(2 * MS, to);
            for window in 0..10 {
                let pace = run.compute(10 * MS, to);
                assert!(
                    (500..=2000).contains(&pace),
                    "from {from} to {to}, window {window}: {pace} permille"
                );
            }
        }
    }
}

#[test]
fn a_host_that_stood_still_for_a_moment_lets_no_clock_race() {
    for pause in [MS, 5 * MS, 20 * MS, 90 * MS] {
        let mut run = Run::new();
        run.compute(200 * MS, 300);
        run.slice(300, pause);
        for window in 0..200 {
            let pace = run.compute(2 * MS, 300);
            assert!((500..=2050).contains(&pace), "{pause} ns, window {window}: {pace} permille");
        }
        assert_eq!(run.leapt, 0);
        assert!(run.gap() < MS, "{pause} ns: {} are left", run.gap());
    }
}

#[test]
fn a_large_gap_is_leapt_over_once() {
    let mut run = Run::new();
    run.compute(50 * MS, 300);
    run.slice(300, 3_000 * MS);
    run.compute(5 * MS, 300);
    assert!(run.leapt > 2_900 * MS && run.gap() < 10 * MS);
    run.leapt = 0;
    run.compute(500 * MS, 300);
    assert_eq!(run.leapt, 0);
}

#[test]
fn whatever_happens_a_busy_guest_is_let_go_no_faster_than_twice_and_no_slower_than_half_of_what_was_measured()
{
    let mut seed = 1;
    for _ in 0..200 {
        let mut run = Run::new();
        for _ in 0..300 {
            let ps = 50 << chance(&mut seed, 12);
            let pause = if chance(&mut seed, 10) == 0 { chance(&mut seed, 30 * MS) } else { 0 };
            run.slice(ps, pause);
            if chance(&mut seed, 8) == 0 {
                run.host += chance(&mut seed, 5 * MS);
                let end = run.pacer.idle_end(HostTime(run.host), VirtTime(run.virt()), None);
                run.adjust(Some(end), false);
            }
            let right = (u128::from(run.pacer.expected_ps()) << 32) / 1000;
            let rate = u128::from(run.rate);
            let first = run.rate == ClockRate::default().0;
            let adjusted = run.pacer.steps == 0;
            assert!(
                first || !adjusted || (right / 2 <= rate + 1 && rate <= right * 2),
                "{rate} where {right} is right"
            );
            assert!(run.leapt == 0 || run.leapt > LEAP_NS);
        }
    }
}

#[test]
fn an_idle_wait_ends_at_the_hosts_time() {
    let mut pacer = Pacer::new(Pacing::RealTime, HostTime(0), VirtTime(0));
    let end = pacer.idle_end(HostTime(7 * MS), VirtTime(MS), Some(VirtTime(7 * MS)));
    assert!(matches!(end, Input::Clock { time: VirtTime(7_000_000), .. }), "{end:?}");
    let ahead = pacer.idle_end(HostTime(8 * MS), VirtTime(9 * MS), None);
    assert!(matches!(ahead, Input::Clock { time: VirtTime(9_000_000), .. }), "never backwards: {ahead:?}");
}

#[test]
fn a_time_that_never_comes_is_the_end_of_time() {
    let pacer = Pacer::new(Pacing::RealTime, HostTime(7), VirtTime(1));
    assert_eq!(pacer.host_time_of(VirtTime(u64::MAX)), HostTime(u64::MAX));
    let late = Pacer::new(Pacing::RealTime, HostTime(7), VirtTime(u64::MAX - 1));
    assert_eq!(late.target(HostTime(100)), VirtTime(u64::MAX));
}

#[test]
fn adjustments_are_at_least_a_millisecond_apart_by_one_of_the_clocks() {
    let mut pacer = Pacer::new(Pacing::RealTime, HostTime(0), VirtTime(0));
    assert!(pacer.poll_adjustment(HostTime(2_000_000), VirtTime(0)).is_some());
    assert!(pacer.poll_adjustment(HostTime(2_900_000), VirtTime(900_000)).is_none());
    assert!(
        pacer.poll_adjustment(HostTime(2_900_000), VirtTime(1_000_000)).is_some(),
        "its own has run ahead"
    );
    assert!(pacer.poll_adjustment(HostTime(3_900_000), VirtTime(1_000_000)).is_some());
}
