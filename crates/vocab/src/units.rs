//! Units with types: instruction counts, log positions, generations, guest addresses, virtual time.
//!
//! Invariant guarded here: the clock is a function of icount (DESIGN 2.4). [`Clock`] is that function, in
//! integer arithmetic only, so that it gives the same answer on every host.

use core::fmt;
use serde::{Deserialize, Serialize};

macro_rules! unit {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

unit! {
    /// Steps since reset, over all harts: one for every instruction attempted, retired or trapped. Taking an
    /// interrupt costs none. The only time the machine knows (DESIGN 1).
    Icount
}
unit! {
    /// Log sequence number. The first record of a generation's log has LSN 1; 0 means "none yet".
    Lsn
}
unit! {
    /// How often the right to be the live VM has changed hands. The arbiter gives each number out once.
    Generation
}
unit! {
    /// A guest physical address.
    GuestAddr
}
unit! {
    /// Virtual time in nanoseconds since the machine's reset. Never runs backwards.
    VirtTime
}

impl Icount {
    /// The count `steps` later, saturating at the end of time.
    #[must_use]
    pub const fn after(self, steps: u64) -> Self {
        Self(self.0.saturating_add(steps))
    }
    /// Steps from `earlier` to `self`, zero if `earlier` is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Lsn {
    /// The LSN of the record that follows this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Generation {
    /// The generation whoever takes over next must win.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Nanoseconds of virtual time per step, as a 32.32 fixed-point number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ClockRate(pub u64);

impl ClockRate {
    /// The rate at which `steps_per_s` steps take one virtual second.
    #[must_use]
    pub const fn from_steps_per_s(steps_per_s: u64) -> Self {
        let steps = if steps_per_s == 0 { 1 } else { steps_per_s };
        Self(((1_000_000_000u128 << 32) / steps as u128) as u64)
    }
}

impl Default for ClockRate {
    /// Ten nanoseconds per step: 100 million steps per second.
    fn default() -> Self {
        Self(10 << 32)
    }
}

/// Virtual time as a function of icount: `base + (icount - base_icount) * rate` (DESIGN 2.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Clock {
    /// Where the line starts, in steps.
    pub base_icount: Icount,
    /// Where the line starts, in virtual time.
    pub base: VirtTime,
    /// Its slope.
    pub rate: ClockRate,
}

impl Clock {
    /// Virtual time at `icount`. Counts before the base give the base.
    #[must_use]
    pub const fn at(&self, icount: Icount) -> VirtTime {
        let ns = (icount.since(self.base_icount) as u128 * self.rate.0 as u128) >> 32;
        VirtTime(self.base.0.saturating_add(if ns > u64::MAX as u128 { u64::MAX } else { ns as u64 }))
    }

    /// The first icount at which [`Clock::at`] is `time` or later; `Icount(u64::MAX)` if there is none.
    #[must_use]
    pub const fn icount_reaching(&self, time: VirtTime) -> Icount {
        if time.0 <= self.base.0 {
            return self.base_icount;
        }
        if self.rate.0 == 0 {
            return Icount(u64::MAX);
        }
        let ns = (time.0 - self.base.0) as u128;
        let steps = (ns << 32).div_ceil(self.rate.0 as u128);
        if steps > u64::MAX as u128 { Icount(u64::MAX) } else { self.base_icount.after(steps as u64) }
    }

    /// The clock that takes over at `icount` with `time` and `rate`; a `time` in the past is raised to the
    /// present, because virtual time never runs backwards.
    #[must_use]
    pub fn adjusted(&self, icount: Icount, time: VirtTime, rate: ClockRate) -> Self {
        Self { base_icount: icount, base: time.max(self.at(icount)), rate }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_icount_that_reaches_a_time_is_exact() {
        for rate in [1u64, 3, 1 << 31, 10 << 32, (10 << 32) + 12345, 977 << 32] {
            let clock = Clock { base_icount: Icount(1000), base: VirtTime(77), rate: ClockRate(rate) };
            for ns in [78u64, 79, 100, 1_000, 123_456_789] {
                let at = clock.icount_reaching(VirtTime(ns));
                assert!(clock.at(at) >= VirtTime(ns), "rate {rate} ns {ns}");
                assert!(clock.at(Icount(at.0 - 1)) < VirtTime(ns), "rate {rate} ns {ns}");
            }
        }
    }

    #[test]
    fn an_adjustment_never_moves_time_backwards() {
        let clock = Clock::default();
        let now = clock.at(Icount(1_000_000));
        let adjusted = clock.adjusted(Icount(1_000_000), VirtTime(5), ClockRate(1));
        assert_eq!(adjusted.at(Icount(1_000_000)), now);
    }
}
