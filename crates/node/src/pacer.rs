//! Keeps virtual time close to real time by deciding clock adjustments (DESIGN 2.4).
//!
//! The pacer only decides; the adjustment itself is an event in the log, so the backup never sees a host clock.
//! Virtual time follows `origin + host time`. It never runs backwards, and a guest that computes never sees it leap
//! over a small gap: while it is behind or ahead it goes up to twice as fast or half as fast as the guest's measured
//! speed makes right, until the gap is closed. It leaps where a guest expects it: over an idle wait, and over a gap so
//! large that the host must have stood still. What a guest may expect of its clock: `docs/operations.md`.
//!
//! The guest's speed is measured between adjustments. Nothing makes a guest look faster than it is, so a faster sample
//! is believed at once; a slower one (the host had other things to do) only when a second one agrees.

use pollux_protocol::HostTime;
use pollux_vocab::{ClockRate, Input, VirtTime};

/// At most one adjustment in this many nanoseconds of a busy guest, by the host's clock or by its own.
pub const ADJUST_EVERY_NS: u64 = 1_000_000;
/// A gap is closed so as to be gone after about this long, in nanoseconds.
const CATCH_UP_NS: u64 = 20_000_000;
/// A clock that is this far behind, in nanoseconds, is moved forward at once.
const LEAP_NS: u64 = 100_000_000;
/// How much faster or slower than right the clock of a busy guest is let go while it closes a gap.
const FACTOR_MAX: u64 = 2;
/// Weight of the newest sample of what fits into a slice, in 1/16.
const SAMPLE_WEIGHT: u64 = 2;
/// Fewer steps than this tell nothing of the guest's speed.
const SAMPLE_STEPS_MIN: u64 = 1000;
/// Speeds that are believed, in picoseconds per step.
const PS_PER_STEP: core::ops::RangeInclusive<u64> = 50..=10_000_000;
/// What is assumed before anything was measured: 100 million steps per second.
const PS_PER_STEP_AT_FIRST: u64 = 10_000;

/// How virtual time relates to the host's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pacing {
    /// Virtual time follows the host's clock.
    RealTime,
    /// Virtual time advances at a fixed rate and jumps over idle waits: for replays, tests and batch jobs.
    Virtual,
}

/// Decides clock adjustments for the live side.
#[derive(Debug)]
pub struct Pacer {
    pacing: Pacing,
    /// Virtual time = host time + offset, in wrapping arithmetic.
    origin_host: HostTime,
    origin_virt: VirtTime,
    /// Picoseconds of host time per step while steps are taken, smoothed.
    ps_per_step: u64,
    /// The same with all that happens between steps, of the newest three intervals between adjustments.
    samples: [u64; 3],
    /// Steps since the last adjustment, and the host time that taking them took.
    steps: u64,
    spent_ns: u64,
    adjusted_at: HostTime,
    adjusted_virt: VirtTime,
}

impl Pacer {
    /// A pacer that takes the guest's clock over at `virt` when the host's says `host`.
    #[must_use]
    pub fn new(pacing: Pacing, host: HostTime, virt: VirtTime) -> Self {
        Self {
            pacing,
            origin_host: host,
            origin_virt: virt,
            ps_per_step: PS_PER_STEP_AT_FIRST,
            samples: [PS_PER_STEP_AT_FIRST; 3],
            steps: 0,
            spent_ns: 0,
            adjusted_at: host,
            adjusted_virt: virt,
        }
    }

    /// What virtual time ought to be.
    #[must_use]
    pub fn target(&self, now: HostTime) -> VirtTime {
        VirtTime(self.origin_virt.0.saturating_add(now.since(self.origin_host)))
    }

    /// When the host's clock will show `virt`; the end of time if it never will.
    #[must_use]
    pub fn host_time_of(&self, virt: VirtTime) -> HostTime {
        self.origin_host.after(virt.0.saturating_sub(self.origin_virt.0))
    }

    /// Feeds a measurement: `steps` executed in `host_ns`.
    pub fn handle_sample(&mut self, steps: u64, host_ns: u64) {
        self.steps = self.steps.saturating_add(steps);
        self.spent_ns = self.spent_ns.saturating_add(host_ns);
        if let Some(sample) = ps_per_step(steps, host_ns) {
            self.ps_per_step = (self.ps_per_step * (16 - SAMPLE_WEIGHT) + sample * SAMPLE_WEIGHT) / 16;
        }
    }

    /// The adjustment due now for a busy guest whose clock says `virt`, if any.
    pub fn poll_adjustment(&mut self, now: HostTime, virt: VirtTime) -> Option<Input> {
        let spent_ns = now.since(self.adjusted_at);
        let went_ns = virt.0.saturating_sub(self.adjusted_virt.0);
        if self.pacing == Pacing::Virtual || spent_ns.max(went_ns) < ADJUST_EVERY_NS {
            return None;
        }
        self.measure(spent_ns);
        let target = self.target(now);
        let time = if target.0.saturating_sub(virt.0) > LEAP_NS { target } else { virt };
        Some(self.adjustment(now, time))
    }

    /// The adjustment that ends an idle wait: time has passed, instructions have not. `wake` is the timer that
    /// the guest waits for; virtual pacing jumps straight to it.
    pub fn idle_end(&mut self, now: HostTime, virt: VirtTime, wake: Option<VirtTime>) -> Input {
        if self.pacing == Pacing::Virtual {
            return Input::Clock { time: wake.unwrap_or(virt).max(virt), rate: ClockRate::default() };
        }
        self.measure(self.spent_ns);
        self.adjustment(now, self.target(now).max(virt))
    }

    /// Whether an idle guest that waits for `wake` should be woken now.
    #[must_use]
    pub fn wakes(&self, now: HostTime, wake: VirtTime) -> bool {
        self.pacing == Pacing::Virtual || self.target(now) >= wake
    }

    /// Takes note of the speed since the last adjustment, of which `ns` nanoseconds count.
    fn measure(&mut self, ns: u64) {
        if let Some(sample) = ps_per_step(self.steps, ns) {
            self.samples = [sample, self.samples[0], self.samples[1]];
        }
    }

    /// Picoseconds of host time per step that are to be expected: the newest sample if it is fast, else what two of the
    /// newest three agree on.
    fn expected_ps(&self) -> u64 {
        let [newest, b, c] = self.samples;
        let median = newest.min(b).max(newest.max(b).min(c));
        newest.min(median)
    }

    /// The clock goes on from `time` so that the gap to the host's is closed.
    fn adjustment(&mut self, now: HostTime, time: VirtTime) -> Input {
        (self.adjusted_at, self.adjusted_virt) = (now, time);
        (self.steps, self.spent_ns) = (0, 0);
        let target = self.target(now);
        let (behind, ahead) = (target.0.saturating_sub(time.0), time.0.saturating_sub(target.0));
        // One more CATCH_UP_NS of virtual time for each that it is behind, one less for each ahead.
        let go_ns = CATCH_UP_NS.saturating_add(behind).saturating_sub(ahead);
        let go_ns = go_ns.clamp(CATCH_UP_NS / FACTOR_MAX, CATCH_UP_NS * FACTOR_MAX);
        let right = (u128::from(self.expected_ps()) << 32) / 1000;
        let rate = (right * u128::from(go_ns) / u128::from(CATCH_UP_NS)).max(1) as u64;
        Input::Clock { time, rate: ClockRate(rate) }
    }

    /// Steps that take about `host_ns` at the present speed.
    #[must_use]
    pub fn steps_in(&self, host_ns: u64) -> u64 {
        ((u128::from(host_ns) * 1000) / u128::from(self.ps_per_step.max(1))).min(u128::from(u64::MAX)) as u64
    }

    /// The guest's measured speed.
    #[must_use]
    pub fn steps_per_s(&self) -> u64 {
        1_000_000_000_000 / self.ps_per_step.max(1)
    }
}

/// Picoseconds per step, if so many steps tell anything.
fn ps_per_step(steps: u64, host_ns: u64) -> Option<u64> {
    let sample = (u128::from(host_ns) * 1000) / u128::from(steps.max(1));
    (steps >= SAMPLE_STEPS_MIN)
        .then(|| sample.clamp(u128::from(*PS_PER_STEP.start()), u128::from(*PS_PER_STEP.end())) as u64)
}

#[cfg(test)]
#[path = "pacer_tests.rs"]
mod tests;
