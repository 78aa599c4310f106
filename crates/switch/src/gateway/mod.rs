//! The gateway: the host that guests see at 10.0.2.2, made of host sockets and a TCP/IP stack.
//!
//! Every frame for it goes through [`Gateway::handle_frame`], which decides who deals with it: smoltcp
//! (`stack`: ARP, ping, TCP), the DHCP server (`dhcp`), the UDP mappings (`udp`, once `fragments` has put together what
//! came in pieces), or nobody. TCP flows (`tcp`) join smoltcp's sockets to host sockets.
//!
//! Invariants: what a guest sends is believed only if its source is an address of the subnet that is not the
//! gateway's own; a guest reaches the host's loopback only through the gateway's address, and only if the
//! configuration says so; nothing here waits.
//!
//! Not here: who gets the frames that leave (`fabric`), sleeping (`switch`).

mod dhcp;
mod fragments;
#[cfg(test)]
mod hostile;
mod packet;
mod reach;
mod stack;
mod tcp;
mod udp;

use crate::config::{Config, MacAddr};
use crate::fabric::{Fabric, PortId, addresses, is_group};
use crate::owners::Owners;
use crate::poller::{Event, Poller};
use crate::stats::{Stats, count};
use dhcp::DhcpServer;
use fragments::{Idents, Key, Reassembly};
use packet::{Arp, Fragment, Kind, Packet};
use reach::Reach;
use smoltcp::wire::IpProtocol;
use stack::Stack;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::time::{Duration, Instant};
use tcp::TcpFlows;
use tracing::{debug, info};
use udp::{Names, ToGuest, UdpFlows};

/// Guests whose MAC is remembered; as many as smoltcp remembers (its feature in `Cargo.toml`).
const NEIGHBORS_MAX: usize = 64;
/// The least time between two nudges of the stack.
const NUDGE_QUIET: Duration = Duration::from_millis(50);
/// How often a guest that does not answer is asked for anew.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How often idle UDP mappings are looked for.
const EXPIRE_EVERY: Duration = Duration::from_secs(10);
/// Turns of moving bytes and polling smoltcp before other descriptors get theirs.
const TURNS: usize = 4;
const DNS_PORT: u16 = 53;

/// The gateway and all connections through it.
#[derive(Debug)]
pub(crate) struct Gateway {
    config: Config,
    mac: MacAddr,
    /// The guests' resolver, if they have one: our address for it, and where it is.
    dns: Option<(Ipv4Addr, SocketAddr)>,
    stack: Stack,
    neighbors: BTreeMap<Ipv4Addr, MacAddr>,
    dhcp: Option<DhcpServer>,
    /// Who may speak for which address.
    pub(crate) owners: Owners,
    tcp: TcpFlows,
    /// Which of the TCP forwards have a guest that answers.
    pub(crate) reach: Reach,
    udp: UdpFlows,
    /// Guests' datagrams of which pieces are missing.
    partial: Reassembly,
    idents: Idents,
    stats: Stats,
    expire_at: Instant,
    ask_at: Instant,
    /// Whether the last turns left something to move.
    busy: bool,
}

/// The gateway's MAC: locally administered, and its IPv4 address, as in QEMU's user network.
pub(crate) fn mac_of(gateway: Ipv4Addr) -> MacAddr {
    let [a, b, c, d] = gateway.octets();
    [0x52, 0x55, a, b, c, d]
}

impl Gateway {
    /// The gateway of a checked configuration.
    pub(crate) fn new(config: Config, stats: Stats, now: Instant) -> Self {
        // The standard library's own random keys: initial sequence numbers must not be guessable.
        Self::seeded(config, stats, RandomState::new().hash_one(0u64), now)
    }

    fn seeded(config: Config, stats: Stats, seed: u64, now: Instant) -> Self {
        let mac = mac_of(config.gateway);
        let upstream =
            config.dns_upstream.or_else(|| resolver(&std::fs::read_to_string("/etc/resolv.conf").ok()?));
        let dns = config.dns.zip(upstream).filter(|_| config.nat);
        let names = Names { gateway: config.gateway, dns: dns.map(|(address, _)| address) };
        Self {
            mac,
            dns,
            stack: Stack::new(mac, config.gateway, config.subnet.prefix, seed, now),
            neighbors: BTreeMap::new(),
            dhcp: DhcpServer::new(&config, names.dns),
            owners: Owners::new(&config),
            tcp: TcpFlows::new(&config),
            reach: Reach::new(config.connect_timeout, seed, now),
            udp: UdpFlows::new(names, config.udp_flows_max),
            partial: Reassembly::default(),
            idents: Idents::new(),
            stats,
            expire_at: now + EXPIRE_EVERY,
            ask_at: now,
            busy: false,
            config,
        }
    }

    /// The next frame that leaves the gateway; give it back to [`Gateway::recycle`].
    pub(crate) fn next_frame(&mut self) -> Option<Vec<u8>> {
        let frame = self.stack.queues.next_outward()?;
        count(&self.stats.gateway().frames_out, 1);
        Some(frame)
    }

    pub(crate) fn recycle(&mut self, frame: Vec<u8>) {
        self.stack.queues.recycle(frame);
    }

    /// How long the gateway can be left alone.
    pub(crate) fn idle_for(&mut self, now: Instant) -> Option<Duration> {
        if self.busy {
            return Some(Duration::ZERO);
        }
        let until = |at: Instant| at.saturating_duration_since(now);
        let udp = (!self.udp.is_empty()).then(|| until(self.expire_at));
        let ask = self.tcp.is_calling().then(|| until(self.ask_at));
        let reach = self.reach.due().map(until);
        let partial = self.partial.due().map(until);
        let dues = [self.stack.idle_for(now), self.tcp.due().map(until), udp, ask, reach, partial];
        dues.into_iter().flatten().min()
    }

    /// Asks for the guests of forwards, among those who are at the ports of `fabric`; `ports`: there are some.
    pub(crate) fn ask_for_guests(&mut self, fabric: &Fabric, ports: bool, now: Instant) {
        for guest in self.tcp.take_failed_calls() {
            self.reach.failed(guest, now);
        }
        let (own, at_port) = ((self.mac, self.config.gateway), |mac| fabric.port_of(mac).is_some());
        self.reach.work(&mut self.stack, own, &self.neighbors, at_port, ports, now);
    }

    /// Moves bytes between host sockets and the stack, and lets the stack work.
    pub(crate) fn work(&mut self, now: Instant) {
        for turn in 0..TURNS {
            self.busy = self.tcp.pump(&mut self.stack, self.stats.gateway(), now);
            if turn > 0 && !self.busy {
                break;
            }
            self.stack.poll(now);
        }
        self.ask_again(now);
        count(&self.stats.gateway().refused, self.partial.expire(now));
        if now >= self.expire_at {
            self.expire_at = now + EXPIRE_EVERY;
            self.udp.expire(now);
        }
    }

    /// Handles a frame for the gateway, or one for everybody.
    pub(crate) fn handle_frame(&mut self, poller: &Poller, from: PortId, frame: &[u8], now: Instant) {
        count(&self.stats.gateway().frames_in, 1);
        let handled = match (packet::parse(frame), addresses(frame)) {
            (Some(Kind::Arp(arp)), _) => self.handle_arp(arp, frame, now),
            (Some(Kind::Ipv4(packet)), Some((_, source))) => {
                self.handle_ipv4(poller, packet, (from, source), frame, now)
            }
            (Some(Kind::Fragment(fragment)), Some((_, source))) => {
                self.handle_fragment(poller, fragment, (from, source), frame, now)
            }
            (Some(Kind::Rarp), _) => {
                self.reach.hurry(now);
                self.nudge(now);
                true
            }
            (Some(Kind::Other), _) => true, // IPv6 and whatever else floods past: not for us.
            _ => false,
        };
        if !handled {
            count(&self.stats.gateway().refused, 1);
        }
    }

    /// Whether `address` can be a guest's.
    fn is_guest(&self, address: Ipv4Addr) -> bool {
        self.config.subnet.has_host(address) && !self.is_own(address)
    }

    fn is_own(&self, address: Ipv4Addr) -> bool {
        address == self.config.gateway || self.dns.is_some_and(|(dns, _)| dns == address)
    }

    fn handle_arp(&mut self, arp: Arp, frame: &[u8], now: Instant) -> bool {
        if !self.is_guest(arp.sender) {
            // An address probe (RFC 5227, 2.1.1) has no sender; it only concerns us if it is for our address,
            // which DHCP never gives out.
            return arp.sender.is_unspecified();
        }
        self.learn(arp.sender, arp.sender_mac, now);
        if arp.sender == arp.target {
            // A gratuitous ARP (RFC 5227, 3): somebody announces itself, after a failover for example.
            self.nudge(now);
        } else if self.is_own(arp.target) {
            self.stack.push(frame);
        }
        true
    }

    fn handle_ipv4(
        &mut self,
        poller: &Poller,
        packet: Packet<'_>,
        sender: (PortId, MacAddr),
        frame: &[u8],
        now: Instant,
    ) -> bool {
        if packet.protocol == IpProtocol::Udp
            && let Some((_, dhcp::SERVER_PORT, payload)) = packet::parse_udp(&packet)
            && (packet.destination.is_broadcast() || packet.destination == self.config.gateway)
        {
            return self.handle_dhcp(sender, payload, now);
        }
        if !self.is_guest(packet.source) {
            return false;
        }
        self.learn(packet.source, sender.1, now);
        match packet.protocol {
            IpProtocol::Tcp if is_unicast(packet.destination) => {
                self.handle_tcp(poller, packet, frame, now);
                true
            }
            IpProtocol::Udp if is_unicast(packet.destination) => self.handle_udp(poller, packet, now),
            IpProtocol::Icmp if self.is_own(packet.destination) => {
                self.stack.push(frame);
                true
            }
            // Broadcasts and multicasts (mDNS, IGMP) are the guests' own affair.
            _ => !is_unicast(packet.destination) || self.config.subnet.broadcast() == packet.destination,
        }
    }

    /// Keeps a piece of a datagram; the one that makes it whole has it handled as if it had come at once.
    fn handle_fragment(
        &mut self,
        poller: &Poller,
        fragment: Fragment<'_>,
        sender: (PortId, MacAddr),
        frame: &[u8],
        now: Instant,
    ) -> bool {
        let Fragment { packet, ident, piece } = fragment;
        let Packet { source, destination, protocol, .. } = packet;
        let subnet = self.config.subnet;
        if !is_unicast(destination) || destination == subnet.broadcast() {
            return true; // The guests' own affair, as whole ones are.
        }
        // Nothing is kept that would be refused as a whole.
        let may_go = self.is_own(destination) || (self.config.nat && !subnet.contains(destination));
        if protocol != IpProtocol::Udp || !self.is_guest(source) || !may_go {
            return false;
        }
        let key = Key { mac: sender.1, source, destination, ident };
        match self.partial.take(sender.0, key, piece, now) {
            Ok(None) => true,
            Ok(Some(payload)) => {
                let packet = Packet { payload: &payload, ..packet };
                self.handle_ipv4(poller, packet, sender, frame, now)
            }
            Err(reason) => {
                debug!(guest = %source, to = %destination, ident, "a piece of a datagram is dropped: {reason}");
                false
            }
        }
    }

    fn handle_tcp(&mut self, poller: &Poller, packet: Packet<'_>, frame: &[u8], now: Instant) {
        match packet::parse_syn(&packet) {
            Some((from, to)) => {
                let tuple =
                    (SocketAddrV4::new(packet.source, from), SocketAddrV4::new(packet.destination, to));
                let server = self.outside(tuple.1);
                self.tcp.handle_syn(&mut self.stack, poller, tuple, frame, server, now);
            }
            None => {
                if let Some((from, reach::PROBE_PORT, answer)) = packet::parse_answer(&packet)
                    && packet.destination == self.config.gateway
                {
                    self.reach.answered(SocketAddrV4::new(packet.source, from), answer, now);
                }
                self.stack.push(frame);
            }
        }
    }

    fn handle_udp(&mut self, poller: &Poller, packet: Packet<'_>, now: Instant) -> bool {
        let Some((from, to, payload)) = packet::parse_udp(&packet) else { return false };
        let (guest, to) = (SocketAddrV4::new(packet.source, from), SocketAddrV4::new(packet.destination, to));
        let server = self.outside(to);
        match self.udp.carry_out(poller, (guest, to), server, payload, now) {
            Ok(()) => {
                count(&self.stats.gateway().udp_datagrams, 1);
                true
            }
            Err(error) => {
                debug!(%guest, %to, %error, "a datagram is dropped");
                false
            }
        }
    }

    fn handle_dhcp(&mut self, sender: (PortId, MacAddr), payload: &[u8], now: Instant) -> bool {
        let Self { dhcp: Some(dhcp), owners, .. } = self else { return true };
        let taken = |address, mac| owners.is_anothers(address, mac);
        let Some(reply) = dhcp.handle(payload, sender, taken, now) else { return false };
        let from = SocketAddrV4::new(self.config.gateway, dhcp::SERVER_PORT);
        let to = SocketAddrV4::new(reply.address, dhcp::CLIENT_PORT);
        packet::emit_udp(&mut self.stack.queues, (reply.mac, self.mac), from, to, &reply.payload);
        if let Some((guest, mac)) = reply.bound {
            self.owners.grant(guest, mac, now);
            self.learn(guest, mac, now);
        }
        true
    }

    /// Where the host finds what a guest calls `to`; `None`: a guest may not go there.
    fn outside(&self, to: SocketAddrV4) -> Option<SocketAddr> {
        let address = *to.ip();
        if !self.config.nat || to.port() == 0 {
            return None;
        }
        if let Some((dns, upstream)) = self.dns
            && dns == address
        {
            return (to.port() == DNS_PORT).then_some(upstream);
        }
        if address == self.config.gateway {
            let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, to.port()));
            return self.config.host_loopback.then_some(loopback);
        }
        let reachable =
            is_unicast(address) && !address.is_loopback() && !self.config.subnet.contains(address);
        reachable.then_some(SocketAddr::V4(to))
    }

    /// Remembers where a guest is, and tells smoltcp, which would otherwise have to ask, and learns of a
    /// guest's new place only from an answer to a question.
    fn learn(&mut self, guest: Ipv4Addr, mac: MacAddr, now: Instant) {
        if is_group(mac) || mac == self.mac || self.neighbors.get(&guest) == Some(&mac) {
            return;
        }
        if self.neighbors.len() >= NEIGHBORS_MAX && !self.neighbors.contains_key(&guest) {
            self.neighbors.pop_first();
        }
        let known = self.neighbors.insert(guest, mac).is_some();
        self.reach.guest_seen(guest, now);
        self.tell(guest, mac);
        if known {
            // Another machine has the address now: what waits for the old one goes to it at once.
            self.stack.nudge(now, Duration::ZERO);
        }
    }

    /// Asks anew where the guests are that have not answered a call. What is known of them may be of a machine that
    /// is gone, and smoltcp would believe it for a minute.
    fn ask_again(&mut self, now: Instant) {
        if now < self.ask_at {
            return;
        }
        self.ask_at = now + ASK_EVERY;
        for guest in self.tcp.unanswered(now) {
            packet::emit_arp_request(&mut self.stack.queues, self.mac, self.config.gateway, guest);
        }
    }

    fn tell(&mut self, guest: Ipv4Addr, mac: MacAddr) {
        self.stack.push(&packet::arp_reply((mac, guest), (self.mac, self.config.gateway)));
    }

    /// A guest runs elsewhere: what it has missed leaves again at once.
    pub(crate) fn guest_moved(&mut self, mac: MacAddr, now: Instant) {
        count(&self.stats.gateway().moves, 1);
        let guest = self.neighbors.iter().find(|&(_, &known)| known == mac).map(|(guest, _)| guest);
        info!(mac = ?MacHex(mac), guest = ?guest, "a guest moved to another port");
        self.reach.hurry(now);
        self.nudge(now);
    }

    fn nudge(&mut self, now: Instant) {
        if self.stack.nudge(now, NUDGE_QUIET) {
            for (guest, mac) in self.neighbors.clone() {
                self.tell(guest, mac);
            }
        }
    }

    /// Whether one more client can be taken.
    pub(crate) fn has_room(&self) -> bool {
        self.tcp.has_room()
    }

    /// A client was accepted on a TCP forward to `guest`.
    pub(crate) fn accepted(&mut self, poller: &Poller, client: TcpStream, guest: SocketAddrV4, now: Instant) {
        let ends = (self.config.gateway, guest);
        if let Err(error) = self.tcp.open_forward(&mut self.stack, poller, client, ends, now) {
            debug!(%guest, %error, "a forwarded connection is refused");
            count(&self.stats.gateway().tcp_failed, 1);
        }
    }

    pub(crate) fn add_udp_forward(
        &mut self,
        poller: &Poller,
        index: usize,
        socket: UdpSocket,
        guest: SocketAddrV4,
    ) -> io::Result<()> {
        self.udp.add_forward(poller, index, socket, guest)
    }

    pub(crate) fn handle_tcp_event(&mut self, id: u64, event: Event, now: Instant) {
        self.tcp.handle_event(&mut self.stack, id, event, now);
    }

    pub(crate) fn handle_udp_event(&mut self, id: u64, now: Instant) {
        let Self { udp, stack, neighbors, idents, stats, mac, config, .. } = self;
        let too_long = udp.receive_outward(id, now, |datagram| {
            deliver((stack, idents), neighbors, stats, (*mac, config.gateway), datagram);
        });
        count(&stats.gateway().refused, too_long);
    }

    pub(crate) fn handle_udp_forward_event(&mut self, index: usize, now: Instant) {
        let Self { udp, stack, neighbors, idents, stats, mac, config, .. } = self;
        let too_long = udp.receive_forward(index, now, |datagram| {
            deliver((stack, idents), neighbors, stats, (*mac, config.gateway), datagram);
        });
        count(&stats.gateway().refused, too_long);
    }
}

/// Sends a datagram to a guest, or asks where the guest is: the next datagram will find it.
fn deliver(
    (stack, idents): (&mut Stack, &mut Idents),
    neighbors: &BTreeMap<Ipv4Addr, MacAddr>,
    stats: &Stats,
    own: (MacAddr, Ipv4Addr),
    datagram: ToGuest<'_>,
) {
    match neighbors.get(datagram.to.ip()) {
        Some(&guest) => {
            let (queues, macs) = (&mut stack.queues, (guest, own.0));
            let ToGuest { from, to, payload } = datagram;
            if payload.len() <= packet::UDP_PAYLOAD_WHOLE_MAX {
                packet::emit_udp(queues, macs, from, to, payload);
            } else {
                let ident = idents.next(*from.ip(), *to.ip());
                packet::emit_udp_in_pieces(queues, macs, from, to, payload, ident);
            }
            count(&stats.gateway().udp_datagrams, 1);
        }
        None => packet::emit_arp_request(&mut stack.queues, own.0, own.1, *datagram.to.ip()),
    }
}

fn is_unicast(address: Ipv4Addr) -> bool {
    // 0.0.0.0/8 is "this network", 240.0.0.0/4 is reserved, the last of it the broadcast (RFC 6890).
    !address.is_multicast() && address.octets()[0] != 0 && address.octets()[0] < 240
}

/// The first usable `nameserver` of a resolv.conf(5).
fn resolver(resolv_conf: &str) -> Option<SocketAddr> {
    let servers = resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let address = servers.filter_map(|rest| rest.trim().parse::<IpAddr>().ok()).next()?;
    Some(SocketAddr::new(address, DNS_PORT))
}

/// A MAC address as people write it.
pub(crate) struct MacHex(pub(crate) MacAddr);

impl std::fmt::Debug for MacHex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_usable_nameserver_is_taken() {
        let text = "# comment\nsearch x\nnameserver fe80::1%eth0\nnameserver 192.0.2.1\nnameserver ::1\n";
        assert_eq!(resolver(text), Some("192.0.2.1:53".parse().unwrap()));
        assert_eq!(resolver("options ndots:1"), None);
    }

    #[test]
    fn a_guest_reaches_the_loopback_only_by_the_gateways_address() {
        let mut config = Config::new(crate::SwitchAddr::Unix("unused".into()));
        config.dns_upstream = Some("127.0.0.53:53".parse().unwrap());
        let gateway = |config: &Config| Gateway::new(config.clone(), Stats::default(), Instant::now());
        let outside = |config: &Config, to: &str| gateway(config).outside(to.parse().unwrap());
        assert_eq!(outside(&config, "10.0.2.2:80"), None, "off unless asked for");
        config.host_loopback = true;
        assert_eq!(outside(&config, "10.0.2.2:80"), Some("127.0.0.1:80".parse().unwrap()));
        assert_eq!(outside(&config, "10.0.2.3:53"), Some("127.0.0.53:53".parse().unwrap()));
        assert_eq!(outside(&config, "192.0.2.7:80"), Some("192.0.2.7:80".parse().unwrap()));
        for closed in [
            "127.0.0.1:80",
            "10.0.2.3:80",
            "10.0.2.15:80",
            "0.0.0.0:80",
            "224.0.0.1:80",
            "255.255.255.255:80",
        ] {
            assert_eq!(outside(&config, closed), None, "{closed}");
        }
        config.host_loopback = false;
        assert_eq!(outside(&config, "10.0.2.2:80"), None);
        config.nat = false;
        assert_eq!(outside(&config, "192.0.2.7:80"), None);
        assert_eq!(outside(&config, "10.0.2.3:53"), None);
    }
}
