//! The host's monotonic clock. The only place that reads it for the node.

use pollux_node::HostTime;
use rustix::time::{ClockId, clock_gettime};

/// `CLOCK_MONOTONIC` in nanoseconds: comparable between processes of one host.
#[must_use]
pub fn now() -> HostTime {
    let t = clock_gettime(ClockId::Monotonic);
    HostTime((t.tv_sec as u64) * 1_000_000_000 + t.tv_nsec as u64)
}
