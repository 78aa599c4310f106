//! A host's clock: the world's, from another origin, a little fast or slow, and with jumps. Never backwards.

use pollux_node::HostTime;

const MILLION: i128 = 1_000_000;

/// A line from world time to host time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostClock {
    world_ns: u64,
    host_ns: u64,
    drift_ppm: i64,
}

impl HostClock {
    pub(crate) fn new(origin_ns: u64, drift_ppm: i64) -> Self {
        Self { world_ns: 0, host_ns: origin_ns, drift_ppm }
    }

    /// What the clock shows at that instant of the world.
    pub(crate) fn show(&self, world_ns: u64) -> HostTime {
        let passed = i128::from(world_ns.saturating_sub(self.world_ns));
        HostTime(self.host_ns + (passed * (MILLION + i128::from(self.drift_ppm)) / MILLION) as u64)
    }

    /// The first instant of the world at which the clock shows that time, if it does not jump.
    pub(crate) fn when(&self, shows: HostTime) -> u64 {
        let passed = i128::from(shows.0.saturating_sub(self.host_ns));
        let world = passed * MILLION / (MILLION + i128::from(self.drift_ppm)) + 1;
        self.world_ns.saturating_add(u64::try_from(world).unwrap_or(u64::MAX))
    }

    /// Jumps forward.
    pub(crate) fn jump(&mut self, world_ns: u64, by_ns: u64) {
        *self = Self { world_ns, host_ns: self.show(world_ns).0 + by_ns, ..*self };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_instant_of_a_time_is_not_before_it() {
        for drift_ppm in [-200, 0, 150] {
            let mut clock = HostClock::new(1_000_000, drift_ppm);
            clock.jump(5_000, 777);
            for time in [1_005_900, 2_000_001, 900_000_000_123] {
                assert!(clock.show(clock.when(HostTime(time))) >= HostTime(time));
            }
        }
    }
}
