//! Execution lag and its feedback loop (Scales et al. 2010, 2.3): a primary whose backup lags is slowed, smoothly,
//! and speeds up again. Lag is virtual time: how long the backup would need to replay to where the primary is.

use crate::types::HostTime;
use pollux_vocab::VirtTime;

/// The share is reconsidered this often.
const ADJUST_EVERY_NS: u64 = 10_000_000;
/// The primary always keeps this share, in 1/1000.
pub const SHARE_MIN_PERMILLE: u16 = 50;
/// How much of the share is given back at each adjustment without lag, in 1/1000 of the whole.
const RECOVER_PERMILLE: u16 = 20;
/// The largest cut at one adjustment, in 1/1000 of the present share.
const CUT_MAX_PERMILLE: u64 = 200;

/// The feedback loop.
#[derive(Clone, Debug)]
pub struct LagLoop {
    target_ns: u64,
    lag_ns: u64,
    share_permille: u16,
    adjusted_at: HostTime,
}

impl LagLoop {
    /// A loop that aims at a lag below `target_ns`.
    #[must_use]
    pub fn new(target_ns: u64) -> Self {
        Self { target_ns: target_ns.max(1), lag_ns: 0, share_permille: 1000, adjusted_at: HostTime(0) }
    }

    /// Takes a measurement.
    pub fn handle_measurement(&mut self, now: HostTime, primary: VirtTime, backup: VirtTime) {
        self.lag_ns = primary.0.saturating_sub(backup.0);
        if now.since(self.adjusted_at) < ADJUST_EVERY_NS {
            return;
        }
        self.adjusted_at = now;
        self.share_permille = if self.lag_ns > self.target_ns {
            // In proportion to how far above the target, so that a small excess is a small correction.
            let over = (self.lag_ns - self.target_ns).saturating_mul(CUT_MAX_PERMILLE) / self.target_ns;
            let cut = u64::from(self.share_permille) * over.min(CUT_MAX_PERMILLE) / 1000;
            self.share_permille.saturating_sub((cut as u16).max(1)).max(SHARE_MIN_PERMILLE)
        } else {
            (self.share_permille + RECOVER_PERMILLE).min(1000)
        };
    }

    /// The newest measurement, virtual nanoseconds.
    #[must_use]
    pub fn lag_ns(&self) -> u64 {
        self.lag_ns
    }

    /// The primary's share of the time, in 1/1000.
    #[must_use]
    pub fn share_permille(&self) -> u16 {
        self.share_permille
    }

    /// Nobody lags behind a VM without a backup.
    pub fn reset(&mut self) {
        self.lag_ns = 0;
        self.share_permille = 1000;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lagging_backup_slows_the_primary_until_it_keeps_up_and_no_longer() {
        let mut lag = LagLoop::new(100_000_000);
        // The backup executes at 60 % of the primary's full speed.
        let (mut now, mut primary, mut backup) = (0u64, 0f64, 0f64);
        let mut worst: f64 = 0.0;
        for _ in 0..3000 {
            now += 10_000_000;
            primary += 10e6 * f64::from(lag.share_permille()) / 1000.0;
            backup = (backup + 6e6).min(primary);
            lag.handle_measurement(HostTime(now), VirtTime(primary as u64), VirtTime(backup as u64));
            worst = worst.max(primary - backup);
        }
        assert!(worst < 400e6, "the lag stays bounded: {worst}");
        assert!(primary / (now as f64) > 0.5, "the primary is not strangled: {}", primary / now as f64);
        for _ in 0..200 {
            now += 10_000_000;
            lag.handle_measurement(HostTime(now), VirtTime(5), VirtTime(5));
        }
        assert_eq!(lag.share_permille(), 1000, "it speeds up again");
    }
}
