//! The learning switch: which port a frame goes to. Pure: no sockets, time is an argument.
//!
//! Invariants: the gateway's MAC address cannot be taken away from it; the table holds at most
//! [`ENTRIES_MAX`] addresses whatever the ports send; a MAC belongs to the port that has it, and moves to another with
//! the first frame from there only if that port claims it for a newer generation of the same VM. That very frame moves
//! it, which is what makes a failover instant. A guest makes no claims: its VM's process does.
//!
//! Source: IEEE 802.1D-2004, 7.7 to 7.9 (forwarding, learning, the filtering database). No spanning tree:
//! the ports are ends, not bridges.

use crate::config::MacAddr;
use crate::wire::Claim;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// MAC addresses known at a time; the one not heard of for longest makes room, one without a port first.
pub(crate) const ENTRIES_MAX: usize = 4096;
/// MAC addresses of one port at a time: its card's, and those of machines and containers inside the guest.
pub(crate) const PER_PORT_MAX: usize = 16;
/// How long the MAC of a VM that has generations waits for its next one after its port has gone: longer than a
/// failover takes.
pub(crate) const HELD_FOR: Duration = Duration::from_secs(5);
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
    /// An address that belongs to another port, or one more than a port may have: the frame goes nowhere.
    Refused,
}

#[derive(Debug)]
struct Entry {
    /// `None`: its port is gone; frames to it are flooded until it is heard of again.
    port: Option<PortId>,
    /// By which right it has the address: `None` is mere use.
    claim: Option<Claim>,
    heard: Instant,
    /// Until when it stays the VM's whose port is gone.
    held_until: Option<Instant>,
}

impl Entry {
    fn is_held(&self, now: Instant) -> bool {
        self.port.is_some() || self.held_until.is_some_and(|until| now < until)
    }

    /// Rule: an address that somebody has goes to a newer generation of the same VM, or to who connects anew; what is
    /// merely used goes to whoever claims it.
    fn may_go_to(&self, claim: Option<&Claim>, now: Instant) -> bool {
        match (&self.claim, claim) {
            _ if !self.is_held(now) => true,
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(old), Some(new)) => new.replaces(old),
        }
    }
}

/// The table of addresses.
#[derive(Debug)]
pub(crate) struct Fabric {
    gateway: MacAddr,
    table: HashMap<MacAddr, Entry>,
    /// What each port has claimed last.
    claims: HashMap<PortId, Claim>,
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
        Self { gateway, table: HashMap::new(), claims: HashMap::new() }
    }

    /// Learns from a frame that came in at `from`, and says where it goes.
    pub(crate) fn switch(&mut self, from: PortId, frame: &[u8], now: Instant) -> (Verdict, Learned) {
        let Some((destination, source)) = addresses(frame) else { return (Verdict::Drop, Learned::Known) };
        if from != PortId::GATEWAY && (source == self.gateway || is_group(source)) {
            return (Verdict::Drop, Learned::Known);
        }
        let learned = if from == PortId::GATEWAY { Learned::Known } else { self.learn(source, from, now) };
        match learned {
            Learned::Refused => (Verdict::Drop, learned),
            _ => (self.route(from, destination, now), learned),
        }
    }

    /// The VM's process says whose MAC speaks at `port`.
    pub(crate) fn claim(&mut self, port: PortId, claim: Claim) {
        for (mac, entry) in &mut self.table {
            if entry.port == Some(port) && *mac == claim.mac {
                entry.claim = Some(claim.clone());
            }
        }
        self.claims.insert(port, claim);
    }

    /// Whether `mac` is at another port than `from`, or waits for its VM's next generation.
    pub(crate) fn is_elsewhere(&self, mac: MacAddr, from: PortId, now: Instant) -> bool {
        self.table.get(&mac).is_some_and(|entry| entry.port != Some(from) && entry.is_held(now))
    }

    /// The port that `mac` is at.
    pub(crate) fn port_of(&self, mac: MacAddr) -> Option<PortId> {
        self.table.get(&mac)?.port
    }

    /// Whether somebody has `mac`.
    pub(crate) fn is_held(&self, mac: MacAddr, now: Instant) -> bool {
        self.table.get(&mac).is_some_and(|entry| entry.is_held(now))
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
        let claim = self.claims.get(&from).filter(|claim| claim.mac == source);
        match self.table.get_mut(&source) {
            Some(entry) if entry.port == Some(from) => {
                entry.heard = now;
                return Learned::Known;
            }
            Some(entry) if !entry.may_go_to(claim, now) => return Learned::Refused,
            _ => {}
        }
        let claim = claim.cloned();
        if !self.make_room(source, from, claim.is_some(), now) {
            return Learned::Refused;
        }
        let entry = Entry { port: Some(from), claim, heard: now, held_until: None };
        if self.table.insert(source, entry).is_some() { Learned::Moved } else { Learned::New }
    }

    /// Makes room for one more address of a port's. False: it has too many. The one that it claims always has a place.
    fn make_room(&mut self, source: MacAddr, from: PortId, claimed: bool, now: Instant) -> bool {
        let its = self.table.iter().filter(|(_, entry)| entry.port == Some(from));
        if !claimed && its.clone().count() >= PER_PORT_MAX {
            let old = |entry: &Entry| entry.claim.is_none() && now.duration_since(entry.heard) >= AGEING;
            let aged = its.filter(|(_, entry)| old(entry)).map(|(&mac, _)| mac).next();
            let Some(aged) = aged else { return false };
            self.table.remove(&aged);
        }
        if self.table.len() >= ENTRIES_MAX && !self.table.contains_key(&source) {
            let age = |(_, entry): &(&MacAddr, &Entry)| (entry.is_held(now), entry.heard);
            if let Some(oldest) = self.table.iter().min_by_key(age).map(|(&mac, _)| mac) {
                self.table.remove(&oldest);
            }
        }
        true
    }

    /// A port is gone: its addresses are flooded to until they are heard of elsewhere.
    pub(crate) fn port_gone(&mut self, port: PortId, now: Instant) {
        self.claims.remove(&port);
        for entry in self.table.values_mut() {
            if entry.port == Some(port) {
                entry.port = None;
                let has_next = entry.claim.as_ref().is_some_and(|claim| claim.generation > 0);
                entry.held_until = has_next.then(|| now + HELD_FOR);
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

    fn claim(generation: u64, instance: u8, vm: &str) -> Claim {
        Claim { generation, instance: [instance; 8], mac: mac(1), vm: vm.into() }
    }

    fn speak(fabric: &mut Fabric, port: PortId, now: Instant) -> Learned {
        fabric.switch(port, &frame([0xff; 6], mac(1)), now).1
    }

    #[test]
    fn an_address_moves_to_a_newer_generation_of_its_vm_with_the_first_frame_and_to_nobody_else() {
        let now = Instant::now();
        let mut fabric = Fabric::new(GATEWAY);
        fabric.claim(A, claim(1, 1, "vm"));
        assert_eq!(speak(&mut fabric, A, now), Learned::New);
        assert_eq!(fabric.switch(B, &frame(GATEWAY, mac(1)), now), (Verdict::Drop, Learned::Refused));
        for other in [claim(1, 2, "vm"), claim(0, 2, "vm"), claim(9, 2, "another")] {
            fabric.claim(B, other);
            assert_eq!(speak(&mut fabric, B, now), Learned::Refused);
        }
        fabric.claim(B, claim(2, 2, "vm"));
        assert_eq!(speak(&mut fabric, B, now), Learned::Moved);
        assert_eq!(fabric.switch(PortId::GATEWAY, &frame(mac(1), GATEWAY), now).0, Verdict::To(B));
        assert_eq!(speak(&mut fabric, A, now), Learned::Refused, "the side that was replaced");
        // The same process connects anew before its old port is known to be dead.
        fabric.claim(PortId(3), claim(2, 2, "vm"));
        assert_eq!(speak(&mut fabric, PortId(3), now), Learned::Moved);
    }

    #[test]
    fn an_address_whose_port_is_gone_waits_for_its_vms_next_generation_and_not_for_ever() {
        let now = Instant::now();
        let mut fabric = Fabric::new(GATEWAY);
        fabric.claim(A, claim(1, 1, "vm"));
        speak(&mut fabric, A, now);
        fabric.port_gone(A, now);
        let flooded = Verdict::Flood { gateway: false };
        assert_eq!(fabric.switch(PortId::GATEWAY, &frame(mac(1), GATEWAY), now).0, flooded);
        assert_eq!(speak(&mut fabric, B, now), Learned::Refused);
        assert_eq!(speak(&mut fabric, B, now + HELD_FOR), Learned::Moved, "nobody came for it");
        fabric.claim(PortId(3), claim(2, 3, "vm"));
        assert_eq!(speak(&mut fabric, PortId(3), now + HELD_FOR), Learned::Moved, "a claim beats mere use");
    }

    #[test]
    fn a_port_has_room_for_its_claimed_address_and_a_bounded_number_of_others() {
        let now = Instant::now();
        let mut fabric = Fabric::new(GATEWAY);
        for n in 2..2 + PER_PORT_MAX as u32 {
            assert_eq!(fabric.switch(A, &frame(GATEWAY, mac(n)), now).1, Learned::New);
        }
        assert_eq!(fabric.switch(A, &frame(GATEWAY, mac(99)), now).1, Learned::Refused);
        fabric.claim(A, claim(1, 1, "vm"));
        assert_eq!(speak(&mut fabric, A, now), Learned::New);
        assert_eq!(fabric.switch(A, &frame(GATEWAY, mac(99)), now + AGEING).1, Learned::New);
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
            let port = PortId(u64::from(n / PER_PORT_MAX as u32) + 3);
            fabric.switch(port, &frame(GATEWAY, mac(n + 3)), later + Duration::from_millis(n.into()));
            assert!(fabric.table.len() <= ENTRIES_MAX);
        }
    }
}
