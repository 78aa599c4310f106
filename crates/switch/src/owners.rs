//! Which guest has which IPv4 address, so that none can speak for another. Pure: time is an argument.
//!
//! An address belongs to a MAC, and a MAC to a port (`fabric`), so that at a failover the addresses go where the MAC
//! goes. A MAC comes to own an address by a DHCP lease, by a reservation, or by being the first to use it while
//! nobody has it; it keeps it until its port is gone. The gateway's own addresses belong to nobody else.
//!
//! Invariants: what an admitted frame says of an address is true of its sender; a port has at most
//! [`PER_PORT_MAX`] addresses, the one not heard of for longest makes room.
//!
//! Not here: IPv6. Its neighbour discovery is switched unseen.

use crate::config::{Config, MacAddr, Subnet};
use crate::fabric::{Fabric, PortId, addresses};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Instant;

/// Addresses of one port at a time.
pub(crate) const PER_PORT_MAX: usize = 32;
/// Addresses at a time.
const OWNERS_MAX: usize = 256 * PER_PORT_MAX;
/// The UDP port of DHCP servers.
const SERVER_PORT: u16 = 67;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
/// VLAN tags (IEEE 802.1Q): Linux takes a frame with VLAN 0 as one without a tag.
const ETHERTYPE_TAGS: [[u8; 2]; 2] = [[0x81, 0x00], [0x88, 0xa8]];

#[derive(Clone, Copy, Debug)]
struct Owner {
    mac: MacAddr,
    heard: Instant,
}

/// The owners of all addresses.
#[derive(Debug)]
pub(crate) struct Owners {
    subnet: Subnet,
    /// The gateway's and the resolver's.
    own: [Option<Ipv4Addr>; 2],
    /// Whether the gateway serves DHCP, and nobody else may.
    has_dhcp: bool,
    reserved: BTreeMap<Ipv4Addr, MacAddr>,
    table: BTreeMap<Ipv4Addr, Owner>,
}

/// What a frame says of its sender.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Said {
    address: Ipv4Addr,
    /// ARP only: at which MAC it is.
    at: Option<MacAddr>,
    /// Whether it answers DHCP clients.
    serves_dhcp: bool,
}

/// Looks into an ARP or IPv4 frame, behind VLAN tags if there are any.
fn said(frame: &[u8]) -> Option<Said> {
    let mut rest = frame.get(12..)?;
    loop {
        let (ethertype, payload) = rest.split_first_chunk::<2>()?;
        if ETHERTYPE_TAGS.contains(ethertype) {
            rest = payload.get(2..)?;
            continue;
        }
        let ip = |at: usize| Some(Ipv4Addr::from(*payload.get(at..)?.first_chunk::<4>()?));
        return match *ethertype {
            ETHERTYPE_ARP => {
                let at = Some(*payload.get(8..)?.first_chunk::<6>()?);
                Some(Said { address: ip(14)?, at, serves_dhcp: false })
            }
            ETHERTYPE_IPV4 => Some(Said { address: ip(12)?, at: None, serves_dhcp: serves_dhcp(payload) }),
            _ => None,
        };
    }
}

/// Whether an IPv4 packet is a UDP datagram from the port of DHCP servers. Of one in pieces the first says so: a piece
/// is 8 bytes long at least, and there is no second word on them that a receiver may believe (RFC 5722, 3).
fn serves_dhcp(packet: &[u8]) -> bool {
    let header = packet.first().map_or(0, |first| usize::from(first & 15) * 4);
    let begins = packet.get(6..8).is_some_and(|word| word[0] & 0x1f == 0 && word[1] == 0);
    begins
        && packet.get(9) == Some(&17)
        && packet.get(header..header + 2) == Some(&SERVER_PORT.to_be_bytes()[..])
}

impl Owners {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            subnet: config.subnet,
            own: [Some(config.gateway), config.dns],
            has_dhcp: config.dhcp_first.is_some(),
            reserved: config.reservations.iter().map(|&(mac, address)| (address, mac)).collect(),
            table: BTreeMap::new(),
        }
    }

    /// Whether a frame from `from`, whose MAC is its own, may go on; `Err` says for whom it spoke.
    pub(crate) fn admit(
        &mut self,
        fabric: &Fabric,
        from: PortId,
        frame: &[u8],
        now: Instant,
    ) -> Result<(), &'static str> {
        let (Some((_, source)), Some(said)) = (addresses(frame), said(frame)) else { return Ok(()) };
        let Said { address, at, serves_dhcp } = said;
        if at.is_some_and(|at| at != source) {
            return Err("another MAC");
        }
        if serves_dhcp && self.has_dhcp {
            return Err("the DHCP server");
        }
        if self.own.contains(&Some(address)) {
            return Err("the gateway");
        }
        if address.is_unspecified() {
            return Ok(());
        }
        if self.reserved.get(&address).is_some_and(|&mac| mac != source) {
            return Err("the guest that the address is reserved for");
        }
        match self.table.get_mut(&address) {
            Some(owner) if owner.mac == source => owner.heard = now,
            Some(owner) if fabric.is_elsewhere(owner.mac, from, now) => return Err("another guest"),
            // A packet from another network passes through the guest, it does not live there.
            _ if at.is_none() && !self.subnet.has_host(address) => {}
            _ => self.take(fabric, address, source, now),
        }
        Ok(())
    }

    /// DHCP has given `address` to `mac`. As many as there may be leases.
    pub(crate) fn grant(&mut self, address: Ipv4Addr, mac: MacAddr, now: Instant) {
        self.table.insert(address, Owner { mac, heard: now });
    }

    /// Whether somebody else than `mac` has `address`, so that DHCP must not give it out.
    pub(crate) fn is_anothers(&self, address: Ipv4Addr, mac: MacAddr) -> bool {
        self.table.get(&address).is_some_and(|owner| owner.mac != mac)
    }

    fn take(&mut self, fabric: &Fabric, address: Ipv4Addr, mac: MacAddr, now: Instant) {
        let port = fabric.port_of(mac);
        let its = self.table.iter().filter(|(_, owner)| fabric.port_of(owner.mac) == port);
        let evicted = if its.clone().count() >= PER_PORT_MAX {
            its.min_by_key(|(_, owner)| owner.heard)
        } else if self.table.len() >= OWNERS_MAX {
            self.table.iter().min_by_key(|(_, owner)| owner.heard)
        } else {
            None
        };
        if let Some(evicted) = evicted.map(|(&address, _)| address) {
            self.table.remove(&evicted);
        }
        self.table.insert(address, Owner { mac, heard: now });
    }

    /// Forgets the owners that are gone.
    pub(crate) fn prune(&mut self, fabric: &Fabric, now: Instant) {
        self.table.retain(|_, owner| fabric.is_held(owner.mac, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SwitchAddr;
    use crate::fabric::HELD_FOR;
    use crate::wire::Claim;

    const GATEWAY: MacAddr = [0x52, 0x55, 10, 0, 2, 2];
    const A: PortId = PortId(1);
    const B: PortId = PortId(2);

    struct Net {
        fabric: Fabric,
        owners: Owners,
        now: Instant,
    }

    fn mac(last: u8) -> MacAddr {
        [2, 0, 0, 0, 0, last]
    }

    fn ip(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 2, last)
    }

    fn net() -> Net {
        let mut config = Config::new(SwitchAddr::Unix("unused".into()));
        config.reservations = vec![(mac(9), ip(99))];
        Net { fabric: Fabric::new(GATEWAY), owners: Owners::new(&config), now: Instant::now() }
    }

    fn arp(operation: u8, source: MacAddr, at: MacAddr, address: Ipv4Addr) -> Vec<u8> {
        let header = [8, 6, 0, 1, 8, 0, 6, 4, 0, operation];
        [&[0xff; 6][..], &source, &header, &at, &address.octets(), &[0; 6], &address.octets()].concat()
    }

    impl Net {
        fn sends(&mut self, from: PortId, frame: &[u8]) -> Result<(), &'static str> {
            assert_ne!(self.fabric.switch(from, frame, self.now).1, crate::fabric::Learned::Refused);
            self.owners.admit(&self.fabric, from, frame, self.now)
        }
    }

    #[test]
    fn no_guest_speaks_for_another_or_for_the_gateway_however_it_says_it() {
        let mut net = net();
        assert_eq!(net.sends(A, &arp(1, mac(1), mac(1), ip(15))), Ok(()));
        for operation in [1, 2] {
            let frame = arp(operation, mac(2), mac(2), ip(15));
            assert_eq!(net.sends(B, &frame), Err("another guest"));
            let tagged = [&frame[..12], &[0x81, 0, 0, 0], &frame[12..]].concat();
            assert_eq!(net.sends(B, &tagged), Err("another guest"), "Linux looks behind VLAN 0");
            assert_eq!(net.sends(B, &arp(operation, mac(2), mac(2), ip(2))), Err("the gateway"));
            assert_eq!(net.sends(B, &arp(operation, mac(2), mac(1), ip(16))), Err("another MAC"));
            let reserved = net.sends(B, &arp(operation, mac(2), mac(2), ip(99)));
            assert!(reserved.is_err_and(|who| who.contains("reserved")));
        }
        let mut packet = [&GATEWAY[..], &mac(2), &[8, 0, 0x45], &[0; 19]].concat();
        packet[26..30].copy_from_slice(&ip(15).octets());
        assert_eq!(net.sends(B, &packet), Err("another guest"));
        packet[26..30].copy_from_slice(&ip(16).octets());
        packet[23] = 17;
        packet.extend([0, 67, 0, 68]);
        assert_eq!(net.sends(B, &packet), Err("the DHCP server"));
        assert_eq!(net.sends(B, &arp(1, mac(2), mac(2), Ipv4Addr::UNSPECIFIED)), Ok(()), "a probe");
        assert_eq!(net.sends(B, &arp(1, mac(2), mac(2), ip(16))), Ok(()));
    }

    #[test]
    fn an_address_is_free_when_its_port_is_gone_unless_a_failover_may_be_under_way() {
        let mut net = net();
        net.sends(A, &arp(1, mac(1), mac(1), ip(15))).unwrap();
        net.fabric.port_gone(A, net.now);
        assert_eq!(net.sends(B, &arp(1, mac(2), mac(2), ip(15))), Ok(()));

        let claim = Claim { generation: 1, instance: [0; 8], mac: mac(3), vm: b"vm".to_vec() };
        net.fabric.claim(PortId(3), claim);
        net.sends(PortId(3), &arp(1, mac(3), mac(3), ip(17))).unwrap();
        net.fabric.port_gone(PortId(3), net.now);
        assert_eq!(net.sends(B, &arp(1, mac(2), mac(2), ip(17))), Err("another guest"));
        net.now += HELD_FOR;
        assert_eq!(net.sends(B, &arp(1, mac(2), mac(2), ip(17))), Ok(()));
    }

    #[test]
    fn a_port_has_several_addresses_and_a_bounded_number_of_them() {
        let mut net = net();
        for last in 0..200 {
            net.now += std::time::Duration::from_millis(1);
            net.sends(A, &arp(1, mac(1), mac(1), Ipv4Addr::new(10, 0, 2, 20 + last % 60))).unwrap();
            assert!(net.owners.table.len() <= PER_PORT_MAX);
        }
        assert_eq!(net.owners.table.len(), PER_PORT_MAX);
        net.fabric.port_gone(A, net.now);
        net.owners.prune(&net.fabric, net.now);
        assert!(net.owners.table.is_empty());
    }
}
