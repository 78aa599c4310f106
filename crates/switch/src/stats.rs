//! Counters that another thread may read while the switch runs.
//!
//! Invariant: counting is one relaxed atomic addition; a reader never makes the switch wait.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// A handle to a switch's counters. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    ports: Mutex<Vec<Arc<PortCounters>>>,
    gateway: GatewayCounters,
    turns: AtomicU64,
}

/// What a port did, in frames and bytes since it connected.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortSnapshot {
    /// The port's number; never used again.
    pub id: u64,
    /// Where it came from.
    pub peer: String,
    /// Frames that it sent.
    pub frames_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Frames queued for it.
    pub frames_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Frames that it lost because it was too slow.
    pub drops: u64,
    /// Frames of its that were not let through, because they spoke for another's MAC or address.
    pub forged: u64,
}

/// What the gateway did since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct GatewaySnapshot {
    /// Frames that came to it.
    pub frames_in: u64,
    /// Frames that it sent.
    pub frames_out: u64,
    /// Frames that it could not understand or would not carry.
    pub refused: u64,
    /// TCP connections opened, both ways.
    pub tcp_opened: u64,
    /// TCP connections that ended in a reset or a timeout.
    pub tcp_failed: u64,
    /// UDP datagrams carried, both ways.
    pub udp_datagrams: u64,
    /// Times a guest's MAC moved from one port to another: failovers.
    pub moves: u64,
}

/// All counters at about one instant.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    /// The ports that are connected.
    pub ports: Vec<PortSnapshot>,
    /// The gateway.
    pub gateway: GatewaySnapshot,
    /// Times the switch woke up. An idle switch sleeps.
    pub turns: u64,
}

#[derive(Debug, Default)]
pub(crate) struct PortCounters {
    pub(crate) id: u64,
    pub(crate) peer: String,
    pub(crate) frames_in: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) frames_out: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    pub(crate) drops: AtomicU64,
    pub(crate) forged: AtomicU64,
}

#[derive(Debug, Default)]
pub(crate) struct GatewayCounters {
    pub(crate) frames_in: AtomicU64,
    pub(crate) frames_out: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) tcp_opened: AtomicU64,
    pub(crate) tcp_failed: AtomicU64,
    pub(crate) udp_datagrams: AtomicU64,
    pub(crate) moves: AtomicU64,
}

/// Adds to a counter.
pub(crate) fn count(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Relaxed);
}

impl Stats {
    pub(crate) fn gateway(&self) -> &GatewayCounters {
        &self.shared.gateway
    }

    pub(crate) fn turn(&self) {
        count(&self.shared.turns, 1);
    }

    /// Counters for a new port.
    pub(crate) fn add_port(&self, id: u64, peer: String) -> Arc<PortCounters> {
        let counters = Arc::new(PortCounters { id, peer, ..PortCounters::default() });
        self.ports().push(Arc::clone(&counters));
        counters
    }

    pub(crate) fn remove_port(&self, id: u64) {
        self.ports().retain(|port| port.id != id);
    }

    fn ports(&self) -> std::sync::MutexGuard<'_, Vec<Arc<PortCounters>>> {
        self.shared.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads all counters.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let gateway = &self.shared.gateway;
        Snapshot {
            ports: self.ports().iter().map(|port| port.snapshot()).collect(),
            gateway: GatewaySnapshot {
                frames_in: gateway.frames_in.load(Relaxed),
                frames_out: gateway.frames_out.load(Relaxed),
                refused: gateway.refused.load(Relaxed),
                tcp_opened: gateway.tcp_opened.load(Relaxed),
                tcp_failed: gateway.tcp_failed.load(Relaxed),
                udp_datagrams: gateway.udp_datagrams.load(Relaxed),
                moves: gateway.moves.load(Relaxed),
            },
            turns: self.shared.turns.load(Relaxed),
        }
    }
}

impl PortCounters {
    fn snapshot(&self) -> PortSnapshot {
        PortSnapshot {
            id: self.id,
            peer: self.peer.clone(),
            frames_in: self.frames_in.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed),
            frames_out: self.frames_out.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
            drops: self.drops.load(Relaxed),
            forged: self.forged.load(Relaxed),
        }
    }
}
