//! The DHCP server: which guest gets which address. Pure: a request in, a reply out.
//!
//! An address belongs to a MAC for as long as the switch runs and addresses last, so a guest that restarts, or
//! fails over, finds itself where it was; the first guest gets the first address. After a restart of the
//! switch a guest that asks for its old address gets it, if nobody else has.
//!
//! Invariant: one address per MAC, one MAC per address, as many leases as there are addresses (at most
//! [`LEASES_MAX`]).
//! Source: RFC 2131, 4.3 (server behaviour), RFC 2132 (options).

use crate::config::{Config, MacAddr, Subnet};
use smoltcp::wire::{DhcpMessageType as Message, DhcpPacket, DhcpRepr, EthernetAddress};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// The server's and the client's UDP ports.
pub(crate) const SERVER_PORT: u16 = 67;
pub(crate) const CLIENT_PORT: u16 = 68;
/// What a lease is said to last, in seconds: a day. The server never takes it back by itself.
const LEASE_S: u32 = 24 * 3600;
/// Leases at a time. Beyond that, and beyond the end of the subnet, nobody new is served.
const LEASES_MAX: usize = 1024;
/// BOOTP's length; some clients take nothing shorter (RFC 1542, 2.1).
const MESSAGE_BYTES_MIN: usize = 300;

/// A reply: the datagram's payload and where it goes.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) mac: MacAddr,
    pub(crate) address: Ipv4Addr,
    pub(crate) payload: Vec<u8>,
    /// Who has which address from now on, if the reply says so.
    pub(crate) bound: Option<(Ipv4Addr, MacAddr)>,
}

/// The server and its leases.
#[derive(Debug)]
pub(crate) struct DhcpServer {
    subnet: Subnet,
    gateway: Ipv4Addr,
    dns: Option<Ipv4Addr>,
    first: Ipv4Addr,
    reserved: BTreeMap<MacAddr, Ipv4Addr>,
    by_mac: BTreeMap<MacAddr, Ipv4Addr>,
    /// `None`: a client said that somebody else uses the address (DHCPDECLINE).
    by_address: BTreeMap<Ipv4Addr, Option<MacAddr>>,
}

impl DhcpServer {
    /// The server that `config` asks for; `None` if DHCP is off.
    pub(crate) fn new(config: &Config, dns: Option<Ipv4Addr>) -> Option<Self> {
        Some(Self {
            subnet: config.subnet,
            gateway: config.gateway,
            dns,
            first: config.dhcp_first?,
            reserved: config.reservations.iter().copied().collect(),
            by_mac: BTreeMap::new(),
            by_address: BTreeMap::new(),
        })
    }

    /// Handles the payload of a datagram to the server's port.
    pub(crate) fn handle(&mut self, payload: &[u8]) -> Option<Reply> {
        let packet = DhcpPacket::new_checked(payload).ok()?;
        let request = DhcpRepr::parse(&packet).ok()?;
        let mac = request.client_hardware_address.0;
        if !EthernetAddress(mac).is_unicast() {
            return None;
        }
        match request.message_type {
            Message::Discover => {
                let address = self.address_for(mac, request.requested_ip)?;
                Some(self.reply(&request, Message::Offer, Some(address)))
            }
            Message::Request => self.request(&request, mac),
            Message::Inform => Some(self.reply(&request, Message::Ack, None)),
            Message::Decline => {
                self.decline(mac, request.requested_ip);
                None
            }
            // A released address stays reserved: the guest will want it back.
            _ => None,
        }
    }

    /// RFC 2131, 4.3.2: the client takes an offer, or asks to keep or to get back an address.
    fn request(&mut self, request: &DhcpRepr<'_>, mac: MacAddr) -> Option<Reply> {
        if request.server_identifier.is_some_and(|server| server != self.gateway) {
            return None;
        }
        let wanted = request.requested_ip.unwrap_or(request.client_ip);
        match self.address_for(mac, Some(wanted)) {
            Some(address) if address == wanted => Some(self.reply(request, Message::Ack, Some(address))),
            _ => Some(self.reply(request, Message::Nak, None)),
        }
    }

    /// The address of `mac`: the one it has, its reservation, the one it wishes for if that is free, or the
    /// first free one.
    fn address_for(&mut self, mac: MacAddr, wish: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
        if let Some(&address) = self.by_mac.get(&mac) {
            return Some(address);
        }
        if self.by_address.len() >= LEASES_MAX {
            return None;
        }
        let reserved = self.reserved.get(&mac).copied().filter(|a| !self.by_address.contains_key(a));
        let wish = wish.filter(|&address| address >= self.first && self.is_free(address));
        let address = reserved.or(wish).or_else(|| self.first_free())?;
        self.by_mac.insert(mac, address);
        self.by_address.insert(address, Some(mac));
        Some(address)
    }

    fn first_free(&self) -> Option<Ipv4Addr> {
        let pool = self.first.to_bits()..self.subnet.broadcast().to_bits();
        pool.map(Ipv4Addr::from).find(|&address| self.is_free(address))
    }

    fn is_free(&self, address: Ipv4Addr) -> bool {
        let own = address == self.gateway || Some(address) == self.dns;
        let reserved = self.reserved.values().any(|&reserved| reserved == address);
        self.subnet.has_host(address) && !own && !reserved && !self.by_address.contains_key(&address)
    }

    fn decline(&mut self, mac: MacAddr, address: Option<Ipv4Addr>) {
        if let Some(address) = address
            && self.by_mac.get(&mac) == Some(&address)
        {
            self.by_mac.remove(&mac);
            self.by_address.insert(address, None);
        }
    }

    /// RFC 2131, table 3 and 4.1: what is in a reply, and where it is sent.
    fn reply(&self, request: &DhcpRepr<'_>, message: Message, address: Option<Ipv4Addr>) -> Reply {
        let refused = message == Message::Nak;
        let repr = DhcpRepr {
            message_type: message,
            transaction_id: request.transaction_id,
            secs: 0,
            client_hardware_address: request.client_hardware_address,
            client_ip: if refused { Ipv4Addr::UNSPECIFIED } else { request.client_ip },
            your_ip: address.unwrap_or(Ipv4Addr::UNSPECIFIED),
            server_ip: Ipv4Addr::UNSPECIFIED,
            router: (!refused).then_some(self.gateway),
            subnet_mask: (!refused).then(|| self.subnet.mask()),
            relay_agent_ip: Ipv4Addr::UNSPECIFIED,
            broadcast: request.broadcast,
            requested_ip: None,
            client_identifier: request.client_identifier,
            server_identifier: Some(self.gateway),
            parameter_request_list: None,
            dns_servers: self.dns.filter(|_| !refused).map(|dns| std::iter::once(dns).collect()),
            max_size: None,
            lease_duration: address.map(|_| LEASE_S),
            renew_duration: None,
            rebind_duration: None,
            additional_options: &[],
        };
        let mut payload = vec![0; repr.buffer_len().max(MESSAGE_BYTES_MIN)];
        // The buffer was made for it; were it too small, the client would see an unfinished message.
        let _ = repr.emit(&mut DhcpPacket::new_unchecked(&mut payload[..]));
        let mac = request.client_hardware_address.0;
        let bound = address.filter(|_| message == Message::Ack).map(|address| (address, mac));
        let unicast = if request.client_ip.is_unspecified() { address } else { Some(request.client_ip) };
        match unicast.filter(|_| !refused && !request.broadcast) {
            Some(address) => Reply { mac, address, payload, bound },
            None => Reply { mac: [0xff; 6], address: Ipv4Addr::BROADCAST, payload, bound },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SwitchAddr;

    fn server(change: impl FnOnce(&mut Config)) -> DhcpServer {
        let mut config = Config::new(SwitchAddr::Unix("unused".into()));
        change(&mut config);
        DhcpServer::new(&config, config.dns).unwrap()
    }

    fn ask(
        server: &mut DhcpServer,
        message: Message,
        last: u8,
        wish: Option<Ipv4Addr>,
    ) -> Option<(Message, Ipv4Addr)> {
        let repr = DhcpRepr {
            message_type: message,
            transaction_id: 7,
            secs: 0,
            client_hardware_address: EthernetAddress([2, 0, 0, 0, 0, last]),
            client_ip: Ipv4Addr::UNSPECIFIED,
            your_ip: Ipv4Addr::UNSPECIFIED,
            server_ip: Ipv4Addr::UNSPECIFIED,
            router: None,
            subnet_mask: None,
            relay_agent_ip: Ipv4Addr::UNSPECIFIED,
            broadcast: false,
            requested_ip: wish,
            client_identifier: None,
            server_identifier: None,
            parameter_request_list: None,
            dns_servers: None,
            max_size: None,
            lease_duration: None,
            renew_duration: None,
            rebind_duration: None,
            additional_options: &[],
        };
        let mut bytes = vec![0; repr.buffer_len()];
        repr.emit(&mut DhcpPacket::new_unchecked(&mut bytes[..])).unwrap();
        let reply = server.handle(&bytes)?;
        assert!(reply.payload.len() >= MESSAGE_BYTES_MIN);
        let packet = DhcpPacket::new_checked(&reply.payload[..]).unwrap();
        let repr = DhcpRepr::parse(&packet).unwrap();
        assert_eq!(repr.transaction_id, 7);
        Some((repr.message_type, repr.your_ip))
    }

    fn ip(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 2, last)
    }

    #[test]
    fn the_first_guest_gets_the_first_address_and_keeps_it() {
        let mut server = server(|_| {});
        assert_eq!(ask(&mut server, Message::Discover, 1, None), Some((Message::Offer, ip(15))));
        assert_eq!(ask(&mut server, Message::Discover, 2, None), Some((Message::Offer, ip(16))));
        assert_eq!(ask(&mut server, Message::Request, 1, Some(ip(15))), Some((Message::Ack, ip(15))));
        assert_eq!(ask(&mut server, Message::Discover, 1, Some(ip(77))), Some((Message::Offer, ip(15))));
    }

    #[test]
    fn somebody_elses_address_is_refused_and_a_free_one_given_back() {
        let mut server = server(|_| {});
        ask(&mut server, Message::Discover, 1, None);
        let refused = Some((Message::Nak, Ipv4Addr::UNSPECIFIED));
        assert_eq!(ask(&mut server, Message::Request, 2, Some(ip(15))), refused);
        assert_eq!(ask(&mut server, Message::Request, 3, Some(ip(40))), Some((Message::Ack, ip(40))));
        for own in [0, 2, 3, 255] {
            assert_eq!(ask(&mut server, Message::Request, 4, Some(ip(own))), refused);
        }
    }

    #[test]
    fn a_reservation_is_for_its_guest_alone() {
        let mut server = server(|config| config.reservations = vec![([2, 0, 0, 0, 0, 9], ip(15))]);
        assert_eq!(ask(&mut server, Message::Discover, 1, Some(ip(15))), Some((Message::Offer, ip(16))));
        assert_eq!(ask(&mut server, Message::Discover, 9, None), Some((Message::Offer, ip(15))));
    }

    #[test]
    fn a_declined_address_is_not_offered_again() {
        let mut server = server(|_| {});
        ask(&mut server, Message::Discover, 1, None);
        assert_eq!(ask(&mut server, Message::Decline, 1, Some(ip(15))), None);
        assert_eq!(ask(&mut server, Message::Discover, 1, None), Some((Message::Offer, ip(16))));
    }

    #[test]
    fn a_full_subnet_serves_nobody_new() {
        let mut server = server(|config| config.subnet.prefix = 27);
        for guest in 1..=16 {
            assert_eq!(
                ask(&mut server, Message::Discover, guest, None),
                Some((Message::Offer, ip(14 + guest)))
            );
        }
        assert_eq!(ask(&mut server, Message::Discover, 17, None), None);
    }
}
