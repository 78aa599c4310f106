//! Execution lag and its feedback loop (Scales et al. 2010, 2.3): a primary whose backup lags is slowed, smoothly,
//! and speeds up again.
//!
//! The backup lags by the virtual time between the two machines, but by no more than the age of the oldest record
//! that it has been sent and has not executed, less the link's round trip. Virtual time alone would mislead: a guest that
//! wakes from an idle wait of ten seconds has made its clock jump by ten seconds, and its backup is one record behind,
//! not ten seconds. So would age alone: a backup that is 60 ms away and executes at once does not lag.

use crate::types::HostTime;
use alloc::collections::VecDeque;
use pollux_vocab::Lsn;

/// The share is reconsidered this often.
const ADJUST_EVERY_NS: u64 = 10_000_000;
/// The primary always keeps this share, in 1/1000.
pub const SHARE_MIN_PERMILLE: u16 = 50;
/// How much of the share is given back at an adjustment without any lag, in 1/1000 of the whole.
const RECOVER_PERMILLE: u64 = 20;
/// The largest cut at one adjustment, in 1/1000 of the present share.
const CUT_MAX_PERMILLE: u64 = 200;
/// Records sent within this time count as sent together.
const GRAIN_NS: u64 = 1_000_000;
/// At most so many sendings are remembered; beyond that the newest are taken for older than they are.
const SENDINGS_MAX: usize = 4096;

/// The round trip is the shortest of this time, or of twice as long.
const ROUND_TRIP_EVERY_NS: u64 = 500_000_000;

/// When records that the backup has not executed were sent.
#[derive(Clone, Hash, Debug, Default)]
pub(crate) struct Unexecuted {
    /// The last record of each sending, and when it began.
    sendings: VecDeque<(Lsn, HostTime)>,
    round_trip: RoundTrip,
}

/// How long it takes at least until what was sent is known to have arrived. Acknowledgements that had to wait for a busy
/// backup are longer, and do not count: the shortest of some time is the link's.
#[derive(Clone, Hash, Debug, Default)]
struct RoundTrip {
    /// What has been received measures nothing again.
    answered: Lsn,
    since: HostTime,
    least_ns: Option<u64>,
    before_ns: Option<u64>,
}

impl RoundTrip {
    fn handle_sample(&mut self, now: HostTime, ns: u64) {
        if now.since(self.since) >= ROUND_TRIP_EVERY_NS {
            (self.before_ns, self.least_ns, self.since) = (self.least_ns, None, now);
        }
        self.least_ns = Some(self.least_ns.map_or(ns, |least| least.min(ns)));
    }

    fn ns(&self) -> u64 {
        self.least_ns.into_iter().chain(self.before_ns).min().unwrap_or(0)
    }
}

impl Unexecuted {
    pub(crate) fn handle_sent(&mut self, now: HostTime, newest: Lsn) {
        let full = self.sendings.len() >= SENDINGS_MAX;
        match self.sendings.back_mut() {
            Some((last, began)) if full || now.since(*began) < GRAIN_NS => *last = newest,
            _ => self.sendings.push_back((newest, now)),
        }
    }

    /// The backup has acknowledged the receipt of everything up to `received`. Call before [`Self::handle_executed`].
    pub(crate) fn handle_received(&mut self, now: HostTime, received: Lsn) {
        let answered = self.sendings.partition_point(|(last, _)| *last <= received);
        if let Some((last, began)) = answered.checked_sub(1).and_then(|index| self.sendings.get(index))
            && *last > self.round_trip.answered
        {
            self.round_trip.answered = *last;
            self.round_trip.handle_sample(now, now.since(*began));
        }
    }

    pub(crate) fn handle_executed(&mut self, executed: Lsn) {
        while self.sendings.front().is_some_and(|(last, _)| *last <= executed) {
            self.sendings.pop_front();
        }
    }

    /// Host nanoseconds since the oldest of them was sent, less the round trip; 0 if there is none.
    pub(crate) fn age_ns(&self, now: HostTime) -> u64 {
        let age = self.sendings.front().map_or(0, |(_, began)| now.since(*began));
        age.saturating_sub(self.round_trip.ns())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sendings.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.sendings.clear();
    }
}

/// The feedback loop.
#[derive(Clone, Hash, Debug)]
pub struct LagLoop {
    /// The lag from which on the primary is slowed.
    aim_ns: u64,
    lag_ns: u64,
    share_permille: u16,
    adjusted_at: HostTime,
}

impl LagLoop {
    /// A loop that keeps the lag below `target_ns`: it begins to slow the primary at half of it, for a lag that grows
    /// is some way further by the time it is known.
    #[must_use]
    pub fn new(target_ns: u64) -> Self {
        Self { aim_ns: (target_ns / 2).max(1), lag_ns: 0, share_permille: 1000, adjusted_at: HostTime(0) }
    }

    /// Takes a measurement.
    pub fn handle_measurement(&mut self, now: HostTime, lag_ns: u64) {
        self.lag_ns = lag_ns;
        if now.since(self.adjusted_at) < ADJUST_EVERY_NS {
            return;
        }
        self.adjusted_at = now;
        self.share_permille = if self.lag_ns > self.aim_ns {
            // In proportion to how far above the aim, so that a small excess is a small correction.
            let over = (self.lag_ns - self.aim_ns).saturating_mul(CUT_MAX_PERMILLE) / self.aim_ns;
            let cut = u64::from(self.share_permille) * over.min(CUT_MAX_PERMILLE) / 1000;
            self.share_permille.saturating_sub((cut as u16).max(1)).max(SHARE_MIN_PERMILLE)
        } else {
            // In proportion, too: close to the aim the share is about right, and hardly moves.
            let room = RECOVER_PERMILLE.saturating_mul(self.aim_ns - self.lag_ns) / self.aim_ns;
            (self.share_permille + (room as u16).max(1)).min(1000)
        };
    }

    /// The newest measurement.
    #[must_use]
    pub fn lag_ns(&self) -> u64 {
        self.lag_ns
    }

    /// The primary's share of the time, in 1/1000. A lag that grows faster than the loop follows has its say at once:
    /// the closer to the target, the smaller the share.
    #[must_use]
    pub fn share_permille(&self) -> u16 {
        let over = self.lag_ns.saturating_sub(self.aim_ns).min(self.aim_ns);
        let cut = u64::from(1000 - SHARE_MIN_PERMILLE).saturating_mul(over) / self.aim_ns;
        self.share_permille.min(1000 - cut as u16)
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
            lag.handle_measurement(HostTime(now), (primary - backup) as u64);
            worst = worst.max(primary - backup);
        }
        assert!(worst < 100e6, "the lag stays below its target: {worst}");
        assert!(primary / (now as f64) > 0.5, "the primary is not strangled: {}", primary / now as f64);
        for _ in 0..200 {
            now += 10_000_000;
            lag.handle_measurement(HostTime(now), 0);
        }
        assert_eq!(lag.share_permille(), 1000, "it speeds up again");
    }

    #[test]
    fn a_lag_close_to_its_target_slows_the_primary_at_once() {
        let mut lag = LagLoop::new(100_000_000);
        let share_at = |lag: &mut LagLoop, ms: u64| {
            lag.handle_measurement(HostTime(1), ms * 1_000_000);
            lag.share_permille()
        };
        assert_eq!([0, 50, 75, 100, 1000].map(|ms| share_at(&mut lag, ms)), [1000, 1000, 525, 50, 50]);
    }

    #[test]
    fn the_age_of_the_log_is_that_of_its_oldest_record_not_executed() {
        let at = |ms: u64| HostTime(ms * 1_000_000);
        let mut log = Unexecuted::default();
        log.handle_sent(at(1), Lsn(1));
        log.handle_sent(at(5), Lsn(2));
        assert_eq!(log.age_ns(at(10)), 9_000_000);
        log.handle_executed(Lsn(1));
        assert_eq!(log.age_ns(at(10)), 5_000_000);
        log.handle_executed(Lsn(2));
        assert_eq!(log.age_ns(at(10)), 0);
    }

    #[test]
    fn a_backup_that_is_far_away_and_executes_at_once_does_not_lag() {
        let (mut log, mut worst) = (Unexecuted::default(), 0);
        // The link becomes 60 ms longer; two seconds on it is 2 ms again, and the backup takes 70 ms to execute.
        let seen = |ms: u64| match ms {
            ..1000 => (1, 0),
            1000..3000 => (61, 0),
            _ => (2, 70),
        };
        for ms in 0..6000u64 {
            let now = HostTime(ms * 1_000_000);
            log.handle_sent(now, Lsn(ms));
            let (away, takes) = seen(ms);
            log.handle_received(now, Lsn(ms.saturating_sub(away)));
            log.handle_executed(Lsn(ms.saturating_sub(away + takes)));
            if (2100..3000).contains(&ms) {
                worst = worst.max(log.age_ns(now));
            }
        }
        assert!(worst <= 2_000_000, "the backup has executed all that has arrived: {worst}");
        assert_eq!(log.age_ns(HostTime(5_999_000_000)), 69_000_000, "and now it does lag");
    }

    #[test]
    fn an_acknowledgement_that_comes_again_makes_a_link_no_longer() {
        let at = |ms: u64| HostTime(ms * 1_000_000);
        let mut log = Unexecuted::default();
        log.handle_sent(at(1), Lsn(1));
        // The backup has it after 2 ms, executes nothing for three seconds, and says so every 5 ms.
        for ms in (3..3000).step_by(5) {
            log.handle_received(at(ms), Lsn(1));
            log.handle_executed(Lsn(0));
        }
        assert_eq!(log.age_ns(at(3000)), 2_997_000_000);
    }

    #[test]
    fn a_backup_that_executes_nothing_costs_no_more_than_a_bounded_list() {
        let mut log = Unexecuted::default();
        for n in 1..20_000 {
            log.handle_sent(HostTime(n * GRAIN_NS), Lsn(n));
        }
        assert_eq!(log.sendings.len(), SENDINGS_MAX);
        log.handle_executed(Lsn(19_999));
        assert_eq!(log.age_ns(HostTime(u64::MAX)), 0);
    }
}
