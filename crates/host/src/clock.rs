//! The host's clock. The only place that reads it for the node.
//!
//! It goes on while the host is suspended, so that a side that was away with its host notices, and asks the arbiter
//! before it lets anything out.

use pollux_node::HostTime;
use rustix::time::{ClockId, clock_gettime};

/// When `at` was, or will be, on the calendar: milliseconds since 1970, as the host's wall clock has it now.
#[must_use]
pub fn wall_ms(at: HostTime) -> u64 {
    let t = clock_gettime(ClockId::Realtime);
    let wall_ns = i128::from(t.tv_sec) * 1_000_000_000 + i128::from(t.tv_nsec);
    let then_ns = wall_ns - i128::from(now().0) + i128::from(at.0);
    u64::try_from(then_ns / 1_000_000).unwrap_or(0)
}

/// `CLOCK_BOOTTIME` in nanoseconds: comparable between processes of one host.
#[must_use]
pub fn now() -> HostTime {
    let t = clock_gettime(ClockId::Boottime);
    HostTime((t.tv_sec as u64) * 1_000_000_000 + t.tv_nsec as u64)
}
