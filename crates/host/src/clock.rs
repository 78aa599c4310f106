//! The host's clock. The only place that reads it for the node.
//!
//! It goes on while the host is suspended, so that a side that was away with its host notices, and asks the arbiter
//! before it lets anything out.

use pollux_node::HostTime;
use rustix::time::{ClockId, clock_gettime};

/// `CLOCK_BOOTTIME` in nanoseconds: comparable between processes of one host.
#[must_use]
pub fn now() -> HostTime {
    let t = clock_gettime(ClockId::Boottime);
    HostTime((t.tv_sec as u64) * 1_000_000_000 + t.tv_nsec as u64)
}
