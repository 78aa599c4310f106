//! The DHCP server: which guest gets which address, and for how long. Pure: a request and the time in, a reply out.
//!
//! ```text
//!  free ── offered ── leased ──► expired: free for others, but its MAC's as long as nobody else needs it
//!            └─ not taken ─────────►┘
//! ```
//!
//! A guest that restarts, or fails over, finds itself where it was; the first guest gets the first address. A pool that
//! is used up gives out what has expired, the oldest first, but nothing that another guest is using. After a restart
//! of the switch a guest that asks for its old address gets it, if nobody else has.
//!
//! Invariant: one address per MAC, one MAC per address, at most [`LEASES_MAX`] leases and [`PER_PORT_MAX`] of one port's
//! at a time; a client asks for its own MAC alone.
//! Source: RFC 2131, 4.3 (server behaviour), RFC 2132 (options).

use crate::config::{Config, MacAddr, Subnet};
use crate::fabric::PortId;
use smoltcp::wire::{DhcpMessageType as Message, DhcpPacket, DhcpRepr, EthernetAddress};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// The server's and the client's UDP ports.
pub(crate) const SERVER_PORT: u16 = 67;
pub(crate) const CLIENT_PORT: u16 = 68;
/// How long a lease lasts. A client renews it after half of that.
const LEASE: Duration = Duration::from_secs(3600);
/// How long an offer is kept for who asked.
const OFFER: Duration = Duration::from_secs(60);
/// How long an address is not given out after a client found somebody else at it.
const DECLINED: Duration = LEASE;
/// Leases remembered at a time, expired ones among them.
const LEASES_MAX: usize = 1024;
/// Leases of one port's that have not expired.
const PER_PORT_MAX: usize = 16;
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
    leases: BTreeMap<Ipv4Addr, Lease>,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    /// `None`: a client said that somebody else uses the address (DHCPDECLINE).
    mac: Option<MacAddr>,
    port: PortId,
    until: Instant,
}

/// Who asks, and what holds meanwhile.
struct Asking<'a> {
    mac: MacAddr,
    port: PortId,
    /// Whether somebody else uses an address.
    taken: &'a dyn Fn(Ipv4Addr, MacAddr) -> bool,
    now: Instant,
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
            leases: BTreeMap::new(),
        })
    }

    /// Handles the payload of a datagram to the server's port, which `sender` sent. `taken`: whether somebody else than
    /// a MAC uses an address.
    pub(crate) fn handle(
        &mut self,
        payload: &[u8],
        sender: (PortId, MacAddr),
        taken: impl Fn(Ipv4Addr, MacAddr) -> bool,
        now: Instant,
    ) -> Option<Reply> {
        let packet = DhcpPacket::new_checked(payload).ok()?;
        let request = DhcpRepr::parse(&packet).ok()?;
        let (port, mac) = sender;
        if request.client_hardware_address.0 != mac || !EthernetAddress(mac).is_unicast() {
            return None;
        }
        let asking = Asking { mac, port, taken: &taken, now };
        match request.message_type {
            Message::Discover => {
                let address = self.address_for(&asking, request.requested_ip, OFFER)?;
                Some(self.reply(&request, Message::Offer, Some(address)))
            }
            Message::Request => self.request(&request, &asking),
            Message::Inform => Some(self.reply(&request, Message::Ack, None)),
            Message::Decline => {
                self.decline(&asking, request.requested_ip);
                None
            }
            Message::Release => {
                // It will want it back; until then anybody may have it.
                if let Some(lease) = self.lease_of(mac).and_then(|address| self.leases.get_mut(&address)) {
                    lease.until = now;
                }
                None
            }
            _ => None,
        }
    }

    /// RFC 2131, 4.3.2: the client takes an offer, or asks to keep or to get back an address.
    fn request(&mut self, request: &DhcpRepr<'_>, asking: &Asking<'_>) -> Option<Reply> {
        if request.server_identifier.is_some_and(|server| server != self.gateway) {
            return None;
        }
        let wanted = request.requested_ip.unwrap_or(request.client_ip);
        match self.address_for(asking, Some(wanted), LEASE) {
            Some(address) if address == wanted => Some(self.reply(request, Message::Ack, Some(address))),
            _ => Some(self.reply(request, Message::Nak, None)),
        }
    }

    fn lease_of(&self, mac: MacAddr) -> Option<Ipv4Addr> {
        self.leases.iter().find(|(_, lease)| lease.mac == Some(mac)).map(|(&address, _)| address)
    }

    /// The address of the one who asks, for `time` at least: the one it has, its reservation, the one it wishes for if
    /// that is free, the first that nobody ever had, or the one that expired first.
    fn address_for(
        &mut self,
        asking: &Asking<'_>,
        wish: Option<Ipv4Addr>,
        time: Duration,
    ) -> Option<Ipv4Addr> {
        let Asking { mac, port, now, .. } = *asking;
        let until = now + time;
        let old = self.lease_of(mac);
        if let Some(address) = old
            && !(asking.taken)(address, mac)
            && let Some(lease) = self.leases.get_mut(&address)
        {
            (lease.port, lease.until) = (port, lease.until.max(until));
            return Some(address);
        }
        let others = |lease: &&Lease| lease.port == port && lease.until > now && lease.mac != Some(mac);
        if self.leases.values().filter(others).count() >= PER_PORT_MAX {
            return None;
        }
        let free = |address: &Ipv4Addr| self.is_free(asking, *address);
        let reserved = self.reserved.get(&mac).copied().filter(|address| {
            !(asking.taken)(*address, mac) && self.leases.get(address).is_none_or(|l| l.until <= now)
        });
        let wish = wish.filter(|address| *address >= self.first).filter(free);
        let address = reserved.or(wish).or_else(|| self.first_free(asking))?;
        if self.leases.len() >= LEASES_MAX && !self.leases.contains_key(&address) {
            let oldest = self.leases.iter().filter(|(_, lease)| lease.until <= now);
            let oldest = oldest.min_by_key(|(_, lease)| lease.until).map(|(&address, _)| address)?;
            self.leases.remove(&oldest);
        }
        if let Some(old) = old {
            self.leases.remove(&old);
        }
        self.leases.insert(address, Lease { mac: Some(mac), port, until });
        Some(address)
    }

    fn first_free(&self, asking: &Asking<'_>) -> Option<Ipv4Addr> {
        let pool = self.first.to_bits()..self.subnet.broadcast().to_bits();
        // Of a large subnet no more needs to be looked at than could be taken.
        let mut pool = pool.map(Ipv4Addr::from).take(2 * LEASES_MAX);
        let fresh = pool.find(|address| !self.leases.contains_key(address) && self.is_free(asking, *address));
        fresh.or_else(|| {
            let expired = self.leases.iter().filter(|(address, _)| self.is_free(asking, **address));
            expired.min_by_key(|(_, lease)| lease.until).map(|(&address, _)| address)
        })
    }

    fn is_free(&self, asking: &Asking<'_>, address: Ipv4Addr) -> bool {
        let own = address == self.gateway || Some(address) == self.dns;
        let reserved = self.reserved.values().any(|&reserved| reserved == address);
        let leased = self.leases.get(&address).is_some_and(|lease| lease.until > asking.now);
        self.subnet.has_host(address) && !own && !reserved && !leased && !(asking.taken)(address, asking.mac)
    }

    fn decline(&mut self, asking: &Asking<'_>, address: Option<Ipv4Addr>) {
        if let Some(lease) = address.and_then(|address| self.leases.get_mut(&address))
            && lease.mac == Some(asking.mac)
        {
            (lease.mac, lease.until) = (None, asking.now + DECLINED);
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
            lease_duration: address.map(|_| LEASE.as_secs() as u32),
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

    /// A server and its time.
    struct Timed {
        server: DhcpServer,
        now: Instant,
        /// An address that somebody uses without having asked.
        taken: Option<Ipv4Addr>,
    }

    fn server(change: impl FnOnce(&mut Config)) -> Timed {
        let mut config = Config::new(SwitchAddr::Unix("unused".into()));
        change(&mut config);
        let server = DhcpServer::new(&config, config.dns).unwrap();
        Timed { server, now: Instant::now(), taken: None }
    }

    /// Each guest at a port of its own.
    fn ask(
        timed: &mut Timed,
        message: Message,
        last: u8,
        wish: Option<Ipv4Addr>,
    ) -> Option<(Message, Ipv4Addr)> {
        ask_at(timed, PortId(last.into()), message, last, wish)
    }

    fn ask_at(
        Timed { server, now, taken }: &mut Timed,
        port: PortId,
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
        assert!(server.handle(&bytes, (port, [2; 6]), |_, _| false, *now).is_none(), "for another MAC");
        let is_taken = |address, _| Some(address) == *taken;
        let reply = server.handle(&bytes, (port, [2, 0, 0, 0, 0, last]), is_taken, *now)?;
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

    fn take(server: &mut Timed, guest: u8) -> Option<Ipv4Addr> {
        let (_, address) = ask(server, Message::Discover, guest, None)?;
        assert_eq!(ask(server, Message::Request, guest, Some(address)), Some((Message::Ack, address)));
        Some(address)
    }

    #[test]
    fn a_full_subnet_serves_nobody_new_until_a_lease_has_expired() {
        let mut server = server(|config| config.subnet.prefix = 27);
        for guest in 1..=16 {
            assert_eq!(take(&mut server, guest), Some(ip(14 + guest)));
        }
        assert_eq!(take(&mut server, 17), None);
        server.now += LEASE / 2;
        for guest in 2..=16 {
            let renewed = ask(&mut server, Message::Request, guest, Some(ip(14 + guest)));
            assert_eq!(renewed, Some((Message::Ack, ip(14 + guest))));
        }
        server.now += LEASE / 2;
        assert_eq!(take(&mut server, 17), Some(ip(15)), "the only one that was not renewed");
        assert_eq!(take(&mut server, 1), None);
    }

    #[test]
    fn an_expired_lease_is_its_guests_as_long_as_nobody_needs_the_address() {
        let mut server = server(|_| {});
        assert_eq!(take(&mut server, 1), Some(ip(15)));
        server.now += 2 * LEASE;
        assert_eq!(take(&mut server, 2), Some(ip(16)));
        assert_eq!(take(&mut server, 1), Some(ip(15)));
        assert_eq!(ask(&mut server, Message::Release, 1, None), None);
        assert_eq!(ask(&mut server, Message::Request, 3, Some(ip(15))), Some((Message::Ack, ip(15))));
    }

    #[test]
    fn an_address_that_a_guest_uses_is_given_to_no_other_whatever_the_lease_says() {
        let mut server = server(|config| config.subnet.prefix = 27);
        for guest in 1..=16 {
            take(&mut server, guest);
        }
        server.now += 2 * LEASE;
        server.taken = Some(ip(15));
        assert_eq!(take(&mut server, 17), Some(ip(16)));
        assert_eq!(ask(&mut server, Message::Request, 18, Some(ip(15))).unwrap().0, Message::Nak);
    }

    #[test]
    fn an_offer_that_is_not_taken_is_soon_free_and_one_port_cannot_take_the_pool() {
        let mut server = server(|_| {});
        for guest in 1..=PER_PORT_MAX as u8 {
            assert!(ask_at(&mut server, PortId(1), Message::Discover, guest, None).is_some());
        }
        assert_eq!(ask_at(&mut server, PortId(1), Message::Discover, 99, None), None);
        assert!(ask_at(&mut server, PortId(2), Message::Discover, 98, None).is_some());
        server.now += OFFER;
        assert!(ask_at(&mut server, PortId(1), Message::Discover, 99, None).is_some());
    }
}
