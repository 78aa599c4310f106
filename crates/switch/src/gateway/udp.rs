//! UDP through the gateway: guests' datagrams to the outside, the resolver, and forwards to guests.
//!
//! Outward, each UDP port of a guest gets a host socket of its own, whoever it talks to (endpoint-independent
//! mapping, RFC 4787, REQ-1), and one more for the resolver. Inward, each client of a forward gets a port of
//! the gateway's, so that the guest's answers find back.
//!
//! Invariants: mappings are bounded, the longest idle one makes room; idle ones end after [`IDLE_MAX`].
//! Not here: datagrams that do not fit the guest's MTU come and go whole (`fragments` takes care of their pieces).

use crate::gateway::packet::UDP_PAYLOAD_MAX;
use crate::poller::{Poller, Token, Watch};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

/// How long a mapping lives without traffic (RFC 4787, REQ-5, asks for two minutes or more).
const IDLE_MAX: Duration = Duration::from_secs(120);
/// The gateway's own ports for clients of forwards: the dynamic ones (RFC 6335).
const FIRST_PORT: u16 = 49_152;
/// Datagrams taken from a socket before others get their turn.
const TURN_DATAGRAMS: usize = 64;
/// Bytes of datagrams taken from a socket, all but the last one, before others get their turn.
const TURN_BYTES: usize = 256 * 1024;

/// A guest's port as seen from outside.
#[derive(Debug)]
struct Outward {
    key: (SocketAddrV4, bool),
    socket: UdpSocket,
    used: Instant,
}

/// A client of a forward.
#[derive(Clone, Copy, Debug)]
struct Inward {
    forward: usize,
    client: SocketAddr,
    used: Instant,
}

#[derive(Debug)]
struct UdpForward {
    socket: UdpSocket,
    guest: SocketAddrV4,
}

/// A datagram for a guest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ToGuest<'a> {
    pub(crate) from: SocketAddrV4,
    pub(crate) to: SocketAddrV4,
    pub(crate) payload: &'a [u8],
}

/// Where the addresses lie that mean something else outside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names {
    pub(crate) gateway: Ipv4Addr,
    pub(crate) dns: Option<Ipv4Addr>,
}

/// All UDP mappings.
#[derive(Debug)]
pub(crate) struct UdpFlows {
    names: Names,
    forwards: Vec<(usize, UdpForward)>,
    outward: BTreeMap<u64, Outward>,
    by_guest: BTreeMap<(SocketAddrV4, bool), u64>,
    inward: BTreeMap<u16, Inward>,
    by_client: BTreeMap<(usize, SocketAddr), u16>,
    next_id: u64,
    next_port: u16,
    flows_max: usize,
    /// Room for the longest datagram; one byte more than is delivered, so that one that is cut off (IPv6 has longer
    /// ones) can be told from one that fits.
    room: Vec<u8>,
}

impl UdpFlows {
    pub(crate) fn new(names: Names, flows_max: usize) -> Self {
        Self {
            names,
            forwards: Vec::new(),
            outward: BTreeMap::new(),
            by_guest: BTreeMap::new(),
            inward: BTreeMap::new(),
            by_client: BTreeMap::new(),
            next_id: 0,
            next_port: FIRST_PORT,
            // The forwards' clients need a port each.
            flows_max: flows_max.clamp(1, usize::from(u16::MAX - FIRST_PORT)),
            room: vec![0; UDP_PAYLOAD_MAX + 1],
        }
    }

    /// Adds forward number `index`, whose socket is bound and non-blocking.
    pub(crate) fn add_forward(
        &mut self,
        poller: &Poller,
        index: usize,
        socket: UdpSocket,
        guest: SocketAddrV4,
    ) -> io::Result<()> {
        poller.add(&socket, Token::UdpForward(index), Watch::Input)?;
        self.forwards.push((index, UdpForward { socket, guest }));
        Ok(())
    }

    /// A guest sent `payload` to `to`, which lies at `server`. Whether it was sent on.
    pub(crate) fn carry_out(
        &mut self,
        poller: &Poller,
        ends: (SocketAddrV4, SocketAddrV4),
        server: Option<SocketAddr>,
        payload: &[u8],
        now: Instant,
    ) -> io::Result<()> {
        let (guest, to) = ends;
        if *to.ip() == self.names.gateway
            && let Some(inward) = self.inward.get_mut(&to.port())
            && let Some((_, forward)) = self.forwards.iter().find(|(index, _)| *index == inward.forward)
            && forward.guest == guest
        {
            inward.used = now;
            return forward.socket.send_to(payload, inward.client).map(drop);
        }
        let server = server.ok_or(io::ErrorKind::AddrNotAvailable)?;
        let to_resolver = self.names.dns == Some(*to.ip());
        let id = match self.by_guest.get(&(guest, to_resolver)) {
            Some(&id) => id,
            None => self.map(poller, (guest, to_resolver), server, now)?,
        };
        let outward = self.outward.get_mut(&id).ok_or(io::ErrorKind::NotFound)?;
        outward.used = now;
        if to_resolver { outward.socket.send(payload) } else { outward.socket.send_to(payload, server) }
            .map(drop)
    }

    /// A host socket for a guest's port.
    fn map(
        &mut self,
        poller: &Poller,
        key: (SocketAddrV4, bool),
        server: SocketAddr,
        now: Instant,
    ) -> io::Result<u64> {
        if self.outward.len() >= self.flows_max
            && let Some(oldest) = self.outward.iter().min_by_key(|(_, o)| o.used).map(|(&id, _)| id)
        {
            self.unmap(oldest);
        }
        let any: IpAddr =
            if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0))?;
        socket.set_nonblocking(true)?;
        if key.1 {
            socket.connect(server)?;
        }
        let id = self.next_id;
        poller.add(&socket, Token::UdpFlow(id), Watch::Input)?;
        self.next_id += 1;
        self.by_guest.insert(key, id);
        self.outward.insert(id, Outward { key, socket, used: now });
        Ok(id)
    }

    fn unmap(&mut self, id: u64) {
        if let Some(outward) = self.outward.remove(&id) {
            self.by_guest.remove(&outward.key);
        }
    }

    /// Takes what has arrived on the socket of mapping `id`. Datagrams that are too long are not delivered;
    /// how many is returned.
    pub(crate) fn receive_outward(
        &mut self,
        id: u64,
        now: Instant,
        mut deliver: impl FnMut(ToGuest<'_>),
    ) -> u64 {
        let Some(outward) = self.outward.get_mut(&id) else { return 0 };
        let (guest, from_resolver) = outward.key;
        let names = self.names;
        receive(&outward.socket, &mut self.room, |sender, payload| {
            outward.used = now;
            let from = match (from_resolver, names.dns, sender) {
                (true, Some(dns), _) => SocketAddrV4::new(dns, 53),
                (false, _, SocketAddr::V4(sender)) if sender.ip().is_loopback() => {
                    SocketAddrV4::new(names.gateway, sender.port())
                }
                (false, _, SocketAddr::V4(sender)) => sender,
                _ => return,
            };
            deliver(ToGuest { from, to: guest, payload });
        })
    }

    /// Takes what has arrived on the socket of forward `index`, as [`UdpFlows::receive_outward`] does.
    pub(crate) fn receive_forward(
        &mut self,
        index: usize,
        now: Instant,
        mut deliver: impl FnMut(ToGuest<'_>),
    ) -> u64 {
        let Some(position) = self.forwards.iter().position(|(i, _)| *i == index) else { return 0 };
        let (_, forward) = self.forwards.remove(position);
        let mut room = std::mem::take(&mut self.room);
        let too_long = receive(&forward.socket, &mut room, |client, payload| {
            let port = self.port_for(index, client, now);
            let from = SocketAddrV4::new(self.names.gateway, port);
            deliver(ToGuest { from, to: forward.guest, payload });
        });
        self.room = room;
        self.forwards.insert(position, (index, forward));
        too_long
    }

    fn port_for(&mut self, forward: usize, client: SocketAddr, now: Instant) -> u16 {
        if let Some(&port) = self.by_client.get(&(forward, client)) {
            if let Some(inward) = self.inward.get_mut(&port) {
                inward.used = now;
            }
            return port;
        }
        if self.inward.len() >= self.flows_max
            && let Some(oldest) = self.inward.iter().min_by_key(|(_, i)| i.used).map(|(&port, _)| port)
        {
            self.forget_client(oldest);
        }
        let port = loop {
            let port = self.next_port;
            self.next_port = port.checked_add(1).unwrap_or(FIRST_PORT);
            // Ends: there are fewer mappings than ports.
            if !self.inward.contains_key(&port) {
                break port;
            }
        };
        self.inward.insert(port, Inward { forward, client, used: now });
        self.by_client.insert((forward, client), port);
        port
    }

    fn forget_client(&mut self, port: u16) {
        if let Some(inward) = self.inward.remove(&port) {
            self.by_client.remove(&(inward.forward, inward.client));
        }
    }

    /// Ends the mappings that have been idle for too long.
    pub(crate) fn expire(&mut self, now: Instant) {
        let idle = |used: Instant| now.saturating_duration_since(used) >= IDLE_MAX;
        let outward: Vec<u64> =
            self.outward.iter().filter(|(_, o)| idle(o.used)).map(|(&id, _)| id).collect();
        outward.into_iter().for_each(|id| self.unmap(id));
        let inward: Vec<u16> =
            self.inward.iter().filter(|(_, i)| idle(i.used)).map(|(&port, _)| port).collect();
        inward.into_iter().for_each(|port| self.forget_client(port));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.outward.is_empty() && self.inward.is_empty()
    }
}

/// Takes up to a turn's datagrams; how many were longer than an IPv4 packet takes.
fn receive(socket: &UdpSocket, room: &mut [u8], mut each: impl FnMut(SocketAddr, &[u8])) -> u64 {
    let (mut too_long, mut taken) = (0, 0);
    for _ in 0..TURN_DATAGRAMS {
        match socket.recv_from(room) {
            Ok((n, _)) if n > UDP_PAYLOAD_MAX => too_long += 1,
            Ok((n, sender)) => {
                each(sender, &room[..n]);
                taken += n;
                if taken >= TURN_BYTES {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            // An ICMP error for something sent earlier, for example: it is consumed by being read.
            Err(_) => {}
        }
    }
    too_long
}
