//! What an instance says about itself: the content of `pollux status --json`.

use serde::{Deserialize, Serialize};

/// A replica's account of itself. Times of the host are `CLOCK_MONOTONIC` nanoseconds.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Status {
    /// This instance's name on its host.
    #[serde(default)]
    pub name: String,
    /// The version of Pollux that it runs.
    #[serde(default)]
    pub version: String,
    /// The VM's name.
    pub vm: String,
    /// `solo`, `primary`, `backup`, `waiting`, `halted`.
    pub role: String,
    /// Where the other replica is, or was.
    #[serde(default)]
    pub peer: Option<String>,
    /// Whether another host could take over, or does take over from another: a pair.
    #[serde(default)]
    pub protected: bool,
    /// The same with its history: `unprotected` (never was), `protected`, `backup lost`, `took over` (from a primary
    /// that was lost).
    #[serde(default)]
    pub protection: String,
    /// The generation this side runs in.
    pub generation: u64,
    /// Process id.
    pub pid: u32,
    /// Steps since reset.
    pub icount: u64,
    /// Virtual time in nanoseconds since reset.
    pub virtual_ns: u64,
    /// Measured speed of the guest, million steps per second, while it runs.
    pub speed_msteps_per_s: f64,
    /// Newest record of the log.
    pub lsn: u64,
    /// Newest record that the other side has acknowledged (primary) or received (backup).
    pub acked: u64,
    /// Bytes of log sent or received.
    pub log_bytes: u64,
    /// Execution lag of the backup in virtual nanoseconds, as of its last ack.
    pub lag_ns: u64,
    /// Largest execution lag since the start, nanoseconds.
    pub lag_max_ns: u64,
    /// CPU share the primary grants itself so that the backup keeps up, in 1/1000.
    pub share_permille: u16,
    /// Outputs waiting for an acknowledgement.
    pub held: u64,
    /// Outputs released.
    pub released: u64,
    /// Median, 99th percentile and maximum time that an output was held, nanoseconds.
    pub hold_ns: [u64; 3],
    /// State digests found equal.
    pub digests_agreed: u64,
    /// How often the guest has rebooted.
    #[serde(default)]
    pub restarts: u64,
    /// Packets dropped because the guest or the switch had no room.
    pub packets_dropped: u64,
    /// Slots of network cards whose switch or TAP device is gone; a switch is waited for.
    #[serde(default)]
    pub nets_down: Vec<u8>,
    /// Slots of disks that have not answered a request for longer than one may take.
    #[serde(default)]
    pub disks_hung: Vec<u8>,
    /// Control and console sockets, where there are any.
    pub console: Option<String>,
    /// Where it is reached by the other replica, if it listens.
    pub listen: Option<String>,
    /// When things happened, by name; see [`Timeline`].
    pub timeline: Timeline,
    /// The same instants on the calendar.
    #[serde(default)]
    pub times: Times,
}

/// Instants on the calendar, milliseconds since 1970 by the host's wall clock; 0 for what has not happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Times {
    /// The machine left reset on this side.
    pub started_ms: u64,
    /// The other side was found missing.
    pub suspected_ms: u64,
    /// This side had the right to go on: as a survivor, or alone.
    pub won_ms: u64,
    /// This side was live.
    pub live_ms: u64,
}

impl Times {
    /// What `timeline` says, on the calendar.
    pub(crate) fn of(timeline: &Timeline) -> Self {
        let on = |ns| if ns == 0 { 0 } else { crate::clock::wall_ms(pollux_node::HostTime(ns)) };
        Self {
            started_ms: on(timeline.started_ns),
            suspected_ms: on(timeline.suspected_ns),
            won_ms: on(timeline.won_ns),
            live_ms: on(timeline.live_ns),
        }
    }
}

/// Instants of a failover, host nanoseconds; 0 for what has not happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Timeline {
    /// The machine left reset.
    pub started_ns: u64,
    /// The other side was found missing.
    pub suspected_ns: u64,
    /// The arbiter answered in this side's favour.
    pub won_ns: u64,
    /// The log had been replayed to its end.
    pub replayed_ns: u64,
    /// This side was live.
    pub live_ns: u64,
}
