//! Keeps virtual time close to real time by deciding clock adjustments (DESIGN 2.4).
//!
//! The pacer only decides; the adjustment itself is an event in the log, so the backup never sees a host clock.
//! Virtual time follows `origin + host time`: when the guest's clock lags it is moved forward, when it runs ahead
//! its rate is lowered until the host has caught up. It never runs backwards.

use pollux_protocol::HostTime;
use pollux_vocab::{ClockRate, Input, VirtTime};

/// At most one adjustment in this many nanoseconds of a busy guest.
pub const ADJUST_EVERY_NS: u64 = 1_000_000;
/// A clock that is ahead is slowed so as to be right again after about this long.
const CATCH_UP_NS: u64 = 20_000_000;
/// Weight of the newest speed sample, in 1/16.
const SAMPLE_WEIGHT: u64 = 2;

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
    /// Picoseconds of host time per step, smoothed.
    ps_per_step: u64,
    adjusted_at: HostTime,
}

impl Pacer {
    /// A pacer that takes the guest's clock over at `virt` when the host's says `host`.
    #[must_use]
    pub fn new(pacing: Pacing, host: HostTime, virt: VirtTime) -> Self {
        Self { pacing, origin_host: host, origin_virt: virt, ps_per_step: 10_000, adjusted_at: HostTime(0) }
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
        if steps < 1000 {
            return;
        }
        let sample = ((u128::from(host_ns) * 1000) / u128::from(steps)).clamp(50, 10_000_000) as u64;
        self.ps_per_step = (self.ps_per_step * (16 - SAMPLE_WEIGHT) + sample * SAMPLE_WEIGHT) / 16;
    }

    /// The adjustment due now for a busy guest whose clock says `virt`, if any.
    pub fn poll_adjustment(&mut self, now: HostTime, virt: VirtTime) -> Option<Input> {
        if self.pacing == Pacing::Virtual || now.0 < self.adjusted_at.0 + ADJUST_EVERY_NS {
            return None;
        }
        self.adjusted_at = now;
        Some(self.adjustment(now, virt))
    }

    /// The adjustment that ends an idle wait: time has passed, instructions have not. `wake` is the timer that
    /// the guest waits for; virtual pacing jumps straight to it.
    pub fn idle_end(&mut self, now: HostTime, virt: VirtTime, wake: Option<VirtTime>) -> Input {
        if self.pacing == Pacing::Virtual {
            return Input::Clock { time: wake.unwrap_or(virt).max(virt), rate: ClockRate::default() };
        }
        self.adjusted_at = now;
        self.adjustment(now, virt)
    }

    /// Whether an idle guest that waits for `wake` should be woken now.
    #[must_use]
    pub fn wakes(&self, now: HostTime, wake: VirtTime) -> bool {
        self.pacing == Pacing::Virtual || self.target(now) >= wake
    }

    fn adjustment(&self, now: HostTime, virt: VirtTime) -> Input {
        let target = self.target(now);
        let rate = ((u128::from(self.ps_per_step) << 32) / 1000) as u64;
        let ahead = virt.0.saturating_sub(target.0);
        // Ahead by a whole CATCH_UP_NS: stand almost still. On time or behind: full rate.
        let kept = CATCH_UP_NS.saturating_sub(ahead).max(CATCH_UP_NS / 64);
        let rate = ((u128::from(rate) * u128::from(kept)) / u128::from(CATCH_UP_NS)).max(1) as u64;
        Input::Clock { time: target.max(virt), rate: ClockRate(rate) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_lags_is_moved_forward_and_one_that_leads_is_slowed() {
        let mut pacer = Pacer::new(Pacing::RealTime, HostTime(0), VirtTime(0));
        let Some(Input::Clock { time, rate }) =
            pacer.poll_adjustment(HostTime(5_000_000), VirtTime(1_000_000))
        else {
            panic!("an adjustment is due")
        };
        assert_eq!(time, VirtTime(5_000_000));
        let Some(Input::Clock { time: ahead, rate: slower }) =
            pacer.poll_adjustment(HostTime(10_000_000), VirtTime(20_000_000))
        else {
            panic!("an adjustment is due")
        };
        assert_eq!(ahead, VirtTime(20_000_000), "time never runs backwards");
        assert!(slower < rate);
    }

    #[test]
    fn a_time_that_never_comes_is_the_end_of_time() {
        let pacer = Pacer::new(Pacing::RealTime, HostTime(7), VirtTime(1));
        assert_eq!(pacer.host_time_of(VirtTime(u64::MAX)), HostTime(u64::MAX));
        let late = Pacer::new(Pacing::RealTime, HostTime(7), VirtTime(u64::MAX - 1));
        assert_eq!(late.target(HostTime(100)), VirtTime(u64::MAX));
    }

    #[test]
    fn adjustments_are_at_least_a_millisecond_apart() {
        let mut pacer = Pacer::new(Pacing::RealTime, HostTime(0), VirtTime(0));
        assert!(pacer.poll_adjustment(HostTime(2_000_000), VirtTime(0)).is_some());
        assert!(pacer.poll_adjustment(HostTime(2_900_000), VirtTime(0)).is_none());
        assert!(pacer.poll_adjustment(HostTime(3_000_000), VirtTime(0)).is_some());
    }
}
