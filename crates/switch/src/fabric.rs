//! The learning switch: which port a frame goes to. Pure: no sockets, time is an argument.
//!
//! Invariants: the gateway's MAC address cannot be taken away from it; the table holds at most
//! [`ENTRIES_MAX`] addresses whatever the ports send; a MAC that shows up on another port moves there with
//! that very frame, which is what makes a failover instant.
//!
//! Source: IEEE 802.1D-2004, 7.7 to 7.9 (forwarding, learning, the filtering database). No spanning tree:
//! the ports are ends, not bridges.

use crate::config::MacAddr;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// MAC addresses known at a time; the one not heard of for longest makes room.
pub(crate) const ENTRIES_MAX: usize = 1024;
/// How long an address is known after its last frame (802.1D-2004, table 7-5: the recommended 300 s).
pub(crate) const AGEING: Duration = Duration::from_secs(300);

/// A port's number. Never used twice in a switch's life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct PortId(pub(crate) u64);

impl PortId {
    /// The gateway's own, internal port.
    pub(crate) const GATEWAY: Self = Self(0);
}

/// Where a frame goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// To one port.
    To(PortId),
    /// To all ports but the one it came from; to the gateway if `gateway`.
    Flood {
        /// Whether the gateway wants it: group addresses only.
        gateway: bool,
    },
    /// Nowhere: its receiver is where it came from, or it is forged.
    Drop,
}

/// What a frame's source address told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Learned {
    /// Nothing new.
    Known,
    /// A new address.
    New,
    /// An address that was at another port, or at one that is gone: the VM runs elsewhere.
    Moved,
}

#[derive(Debug)]
struct Entry {
    /// `None`: its port is gone; frames to it are flooded until it is heard of again.
    port: Option<PortId>,
    heard: Instant,
}

/// The table of addresses.
#[derive(Debug)]
pub(crate) struct Fabric {
    gateway: MacAddr,
    table: HashMap<MacAddr, Entry>,
}

/// The destination and source addresses of a frame; `None` if it is too short to be one.
pub(crate) fn addresses(frame: &[u8]) -> Option<(MacAddr, MacAddr)> {
    let (destination, rest) = frame.split_first_chunk::<6>()?;
    let (source, _) = rest.split_first_chunk::<6>()?;
    Some((*destination, *source))
}

/// Whether `mac` is a group address (multicast or broadcast).
pub(crate) fn is_group(mac: MacAddr) -> bool {
    mac[0] & 1 != 0
}

impl Fabric {
    pub(crate) fn new(gateway: MacAddr) -> Self {
        Self { gateway, table: HashMap::new() }
    }

    /// Learns from a frame that came in at `from`, and says where it goes.
    pub(crate) fn switch(&mut self, from: PortId, frame: &[u8], now: Instant) -> (Verdict, Learned) {
        let Some((destination, source)) = addresses(frame) else { return (Verdict::Drop, Learned::Known) };
        if from != PortId::GATEWAY && (source == self.gateway || is_group(source)) {
            return (Verdict::Drop, Learned::Known);
        }
        let learned = if from == PortId::GATEWAY { Learned::Known } else { self.learn(source, from, now) };
        (self.route(from, destination, now), learned)
    }

    fn route(&self, from: PortId, destination: MacAddr, now: Instant) -> Verdict {
        if is_group(destination) {
            return Verdict::Flood { gateway: from != PortId::GATEWAY };
        }
        if destination == self.gateway {
            return if from == PortId::GATEWAY { Verdict::Drop } else { Verdict::To(PortId::GATEWAY) };
        }
        let known = self.table.get(&destination).filter(|entry| now.duration_since(entry.heard) < AGEING);
        match known.and_then(|entry| entry.port) {
            Some(port) if port == from => Verdict::Drop,
            Some(port) => Verdict::To(port),
            None => Verdict::Flood { gateway: false },
        }
    }

    fn learn(&mut self, source: MacAddr, from: PortId, now: Instant) -> Learned {
        if let Some(entry) = self.table.get_mut(&source) {
            entry.heard = now;
            let before = entry.port.replace(from);
            return if before == Some(from) { Learned::Known } else { Learned::Moved };
        }
        if self.table.len() >= ENTRIES_MAX {
            let oldest = self.table.iter().min_by_key(|(_, entry)| entry.heard).map(|(&mac, _)| mac);
            if let Some(oldest) = oldest {
                self.table.remove(&oldest);
            }
        }
        self.table.insert(source, Entry { port: Some(from), heard: now });
        Learned::New
    }

    /// A port is gone: its addresses are flooded to until they are heard of elsewhere.
    pub(crate) fn port_gone(&mut self, port: PortId) {
        for entry in self.table.values_mut() {
            if entry.port == Some(port) {
                entry.port = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: MacAddr = [0x52, 0x55, 10, 0, 2, 2];
    const A: PortId = PortId(1);
    const B: PortId = PortId(2);

    fn mac(n: u32) -> MacAddr {
        let [a, b, c, d] = n.to_be_bytes();
        [0x02, 0, a, b, c, d]
    }

    fn frame(to: MacAddr, from: MacAddr) -> Vec<u8> {
        [&to[..], &from[..], &[0x08, 0x00, 1, 2, 3]].concat()
    }

    #[test]
    fn a_frame_to_a_known_address_goes_to_its_port_only() {
        let now = Instant::now();
        let mut fabric = Fabric::new(GATEWAY);
        let (verdict, learned) = fabric.switch(A, &frame(mac(2), mac(1)), now);
        assert_eq!((verdict, learned), (Verdict::Flood { gateway: false }, Learned::New));
        assert_eq!(fabric.switch(B, &frame(mac(1), mac(2)), now), (Verdict::To(A), Learned::New));
        assert_eq!(fabric.switch(A, &frame(mac(2), mac(1)), now), (Verdict::To(B), Learned::Known));
        assert_eq!(fabric.switch(A, &frame(mac(1), mac(1)), now).0, Verdict::Drop);
        assert_eq!(fabric.switch(A, &frame(GATEWAY, mac(1)), now).0, Verdict::To(PortId::GATEWAY));
        assert_eq!(fabric.switch(A, &frame([0xff; 6], mac(1)), now).0, Verdict::Flood { gateway: true });
        assert_eq!(fabric.switch(PortId::GATEWAY, &frame(mac(2), GATEWAY), now).0, Verdict::To(B));
    }

    #[test]
    fn an_address_moves_with_its_first_frame_from_elsewhere() {
        let now = Instant::now();
        let mut fabric = Fabric::new(GATEWAY);
        fabric.switch(A, &frame(GATEWAY, mac(1)), now);
        assert_eq!(fabric.switch(B, &frame([0xff; 6], mac(1)), now).1, Learned::Moved);
        assert_eq!(fabric.switch(PortId::GATEWAY, &frame(mac(1), GATEWAY), now).0, Verdict::To(B));
        fabric.port_gone(B);
        assert_eq!(
            fabric.switch(PortId::GATEWAY, &frame(mac(1), GATEWAY), now).0,
            Verdict::Flood { gateway: false }
        );
        assert_eq!(fabric.switch(A, &frame(GATEWAY, mac(1)), now).1, Learned::Moved);
    }

    #[test]
    fn the_gateways_address_and_group_addresses_are_never_learned() {
        let now = Instant::now();
        let mut fabric = Fabric::new(GATEWAY);
        assert_eq!(fabric.switch(A, &frame(mac(9), GATEWAY), now).0, Verdict::Drop);
        assert_eq!(fabric.switch(A, &frame(mac(9), [0xff; 6]), now).0, Verdict::Drop);
        assert_eq!(fabric.switch(B, &frame(GATEWAY, mac(2)), now).0, Verdict::To(PortId::GATEWAY));
        assert_eq!(fabric.switch(A, &[0; 11], now).0, Verdict::Drop);
    }

    #[test]
    fn an_address_ages_and_the_table_stays_bounded() {
        let now = Instant::now();
        let mut fabric = Fabric::new(GATEWAY);
        fabric.switch(A, &frame(GATEWAY, mac(1)), now);
        let later = now + AGEING;
        assert_eq!(fabric.switch(B, &frame(mac(1), mac(2)), later).0, Verdict::Flood { gateway: false });
        for n in 0..3 * ENTRIES_MAX as u32 {
            fabric.switch(A, &frame(GATEWAY, mac(n)), later + Duration::from_millis(n.into()));
            assert!(fabric.table.len() <= ENTRIES_MAX);
        }
    }
}
