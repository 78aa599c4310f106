//! The switch itself: binds everything, then one loop that sleeps in `epoll` and moves what is ready.
//!
//! Each turn: take what the kernel has (frames from ports, bytes from host sockets), let the gateway work,
//! hand out the frames that came of it, write every port once. A request that crosses the switch is handled
//! whole within one turn, with one write at its end.
//!
//! Invariant: no call in the loop blocks but the poller's; every list is worked off within a bounded turn.

use crate::config::{Config, Proto, SwitchAddr};
use crate::fabric::{Fabric, Learned, PortId, Verdict, addresses};
use crate::gateway::{self, Gateway};
use crate::poller::{Event, Poller, Token, Watch};
use crate::port::Port;
use crate::stats::Stats;
use crate::stream::Listener;
use crate::wire::Piece;
use rustix::event::{EventfdFlags, eventfd};
use rustix::net::{self, AddressFamily, SocketFlags, SocketType};
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// How long nobody is accepted after the system had no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A turn that comes so long after the last one (they come twice a [`BEAT_EVERY`] at least while there are ports) finds a
/// process that was not scheduled.
const STANDSTILL: Duration = Duration::from_secs(2);
/// Connections accepted from a listener before others get their turn.
const ACCEPTS_PER_TURN: usize = 64;

/// Why a switch could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// the configuration contradicts itself
    #[error("the switch's configuration: {0}")]
    Config(String),
    /// an address could not be bound
    #[error("cannot listen on {addr}: {source}")]
    Bind {
        /// The address asked for.
        addr: String,
        /// What the system said.
        source: io::Error,
    },
    /// the system refused something that the switch cannot do without
    #[error("the switch cannot go on: {0}")]
    Io(#[from] io::Error),
}

impl From<rustix::io::Errno> for SwitchError {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// Ends a running switch, from any thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Stopper {
    event: Arc<OwnedFd>,
}

impl Stopper {
    /// A stopper that has not been used yet.
    pub fn new() -> io::Result<Self> {
        Ok(Self { event: Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?) })
    }

    /// Makes every switch that runs with this stopper return. It stays used.
    pub fn stop(&self) {
        // The only failure is a counter that is full: then it has been said often enough.
        let _ = rustix::io::write(&*self.event, &1u64.to_ne_bytes());
    }
}

/// The addresses that a switch has bound: with port 0 in the configuration, the only way to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bound {
    /// Where ports connect to.
    pub listen: SwitchAddr,
    /// The host side of each forward, in the configuration's order.
    pub forwards: Vec<SocketAddr>,
}

/// A switch that has bound its addresses; [`Switch::run`] makes it work.
#[derive(Debug)]
pub struct Switch {
    bound: Bound,
    stats: Stats,
    poller: Poller,
    listener: Listener,
    forwards: Vec<TcpForward>,
    fabric: Fabric,
    gateway: Gateway,
    ports: BTreeMap<u64, Port>,
    next_port: u64,
    ports_max: usize,
    port_queue_bytes: usize,
    ports_per_peer_max: usize,
    /// When the loop was in its last turn.
    turned: Instant,
    /// Whether clients are left in their backlogs, for want of room.
    full: bool,
    /// Set while nobody is accepted, for want of descriptors.
    accept_again: Option<Instant>,
    /// Frames read from the port at hand, before they are switched; kept for its room.
    arrived: Arrived,
}

/// A forward has two sockets: one that keeps the address and never listens, so that clients are refused by the kernel,
/// and one that listens as long as the guest can be reached.
#[derive(Debug)]
struct TcpForward {
    index: usize,
    _kept: OwnedFd,
    host: SocketAddr,
    listener: Option<TcpListener>,
    guest: SocketAddrV4,
}

/// Frames end to end in one buffer.
#[derive(Debug, Default)]
struct Arrived {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Switch {
    /// Checks `config` and binds all its addresses. Ports can connect from then on.
    pub fn bind(config: Config) -> Result<Self, SwitchError> {
        config.check().map_err(SwitchError::Config)?;
        let now = Instant::now();
        let stats = Stats::default();
        let poller = Poller::new()?;
        let listener = Listener::bind(&config.listen)
            .map_err(|source| SwitchError::Bind { addr: config.listen.to_string(), source })?;
        poller.add(&listener, Token::Listener, Watch::Input)?;
        let mut gateway = Gateway::new(config.clone(), stats.clone(), now);
        let mut bound = Bound { listen: listener.bound()?, forwards: Vec::new() };
        let mut forwards = Vec::new();
        for (index, forward) in config.forwards.iter().enumerate() {
            let address = forward.guest.or(config.default_guest()).unwrap_or(Ipv4Addr::UNSPECIFIED);
            let guest = SocketAddrV4::new(address, forward.guest_port);
            let failed = |source| SwitchError::Bind { addr: forward.to_string(), source };
            let host = match forward.proto {
                Proto::Tcp => {
                    let (kept, host) = keep_address(forward.host).map_err(failed)?;
                    gateway.reach.add(index, guest, now);
                    forwards.push(TcpForward { index, _kept: kept, host, listener: None, guest });
                    host
                }
                Proto::Udp => {
                    let socket = UdpSocket::bind(forward.host).map_err(failed)?;
                    socket.set_nonblocking(true)?;
                    let host = socket.local_addr()?;
                    gateway.add_udp_forward(&poller, index, socket, guest)?;
                    host
                }
            };
            info!(%host, %guest, "forwarding");
            bound.forwards.push(host);
        }
        info!(listen = %bound.listen, gateway = %config.gateway, "the switch is ready");
        Ok(Self {
            bound,
            stats,
            poller,
            listener,
            forwards,
            fabric: Fabric::new(gateway::mac_of(config.gateway)),
            gateway,
            ports: BTreeMap::new(),
            next_port: PortId::GATEWAY.0 + 1,
            ports_max: config.ports_max,
            ports_per_peer_max: config.ports_per_peer_max,
            turned: now,
            full: false,
            port_queue_bytes: config.port_queue_bytes,
            accept_again: None,
            arrived: Arrived::default(),
        })
    }

    /// What was bound.
    #[must_use]
    pub fn bound(&self) -> &Bound {
        &self.bound
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats.clone()
    }

    /// Works until `stopper` is used.
    pub fn run(mut self, stopper: &Stopper) -> Result<(), SwitchError> {
        self.poller.add(&*stopper.event, Token::Stop, Watch::Input)?;
        let mut events = Vec::new();
        loop {
            let timeout = self.idle_for(Instant::now());
            self.wait(timeout, &mut events)?;
            if !self.turn(&events, Instant::now()) {
                info!("the switch stops");
                return Ok(());
            }
        }
    }

    /// Sleeps until a descriptor is ready, for `timeout` at most.
    pub(crate) fn wait(&self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        self.poller.wait(timeout, events)
    }

    /// Does everything that these events and the time ask for; `false`: it was told to stop.
    pub(crate) fn turn(&mut self, events: &[Event], now: Instant) -> bool {
        self.stats.turn();
        for &event in events {
            if event.token == Token::Stop {
                return false;
            }
            self.handle_event(event, now);
        }
        self.keep_deadlines(now);
        self.gateway.work(now);
        self.gateway.ask_for_guests(&self.fabric, !self.ports.is_empty(), now);
        self.open_and_close_forwards(now);
        self.take_waiting_clients();
        self.hand_out(now);
        self.flush_ports();
        true
    }

    /// How long nothing will be due.
    fn idle_for(&mut self, now: Instant) -> Option<Duration> {
        let port = self.ports.values().map(Port::due).min();
        let due = [port, self.accept_again].into_iter().flatten().min();
        let due = due.map(|due| due.saturating_duration_since(now));
        [due, self.gateway.idle_for(now)].into_iter().flatten().min()
    }

    fn handle_event(&mut self, event: Event, now: Instant) {
        match event.token {
            Token::Stop => {}
            Token::Listener => self.accept_ports(now),
            Token::Port(id) => self.port_event(id, event, now),
            Token::TcpForward(index) => self.accept_clients(index, now),
            Token::UdpForward(index) => self.gateway.handle_udp_forward_event(index, now),
            Token::TcpFlow(id) => self.gateway.handle_tcp_event(id, event, now),
            Token::UdpFlow(id) => self.gateway.handle_udp_event(id, now),
        }
    }

    fn accept_ports(&mut self, now: Instant) {
        for _ in 0..ACCEPTS_PER_TURN {
            let (stream, peer) = match self.listener.accept() {
                Ok(accepted) => accepted,
                Err(error) => return self.accept_failed(error, now),
            };
            if self.ports.len() >= self.ports_max {
                warn!(%peer, ports_max = self.ports_max, "a port is turned away: there are too many");
                continue;
            }
            let host = host_of(&peer);
            let same = self.ports.values().filter(|port| host_of(port.peer()) == host).count();
            if same >= self.ports_per_peer_max {
                warn!(%peer, max = self.ports_per_peer_max, "a port is turned away: its host has too many");
                continue;
            }
            let id = self.next_port;
            self.next_port += 1;
            let counters = self.stats.add_port(id, peer);
            let port = Port::new(stream, Token::Port(id), counters, self.port_queue_bytes, now);
            let watched = port.watch(&self.poller);
            self.ports.insert(id, port);
            if let Err(error) = watched {
                self.close_port(id, &error);
            }
        }
    }

    fn accept_clients(&mut self, index: usize, now: Instant) {
        for _ in 0..ACCEPTS_PER_TURN {
            if !self.gateway.has_room() {
                // They wait in the backlog until a connection ends.
                self.full = true;
                return self.watch_forwards(Watch::Nothing);
            }
            let Some(forward) = self.forwards.iter().find(|forward| forward.index == index) else { return };
            let Some(listener) = &forward.listener else { return };
            match listener.accept() {
                Ok((client, _)) => self.gateway.accepted(&self.poller, client, forward.guest, now),
                Err(error) => return self.accept_failed(error, now),
            }
        }
    }

    /// Out of descriptors (or memory) a listener would report again at once, for ever: it gets a rest.
    fn accept_failed(&mut self, error: io::Error, now: Instant) {
        use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, WouldBlock};
        if matches!(error.kind(), WouldBlock | Interrupted | ConnectionAborted | ConnectionReset) {
            return;
        }
        warn!(%error, "nobody is accepted for {} ms", ACCEPT_PAUSE.as_millis());
        self.accept_again = Some(now + ACCEPT_PAUSE);
        self.watch_listeners(Watch::Nothing);
    }

    fn watch_listeners(&self, watch: Watch) {
        if let Err(error) = self.poller.change(&self.listener, Token::Listener, watch) {
            warn!(%error, "the listener cannot be watched as it should");
        }
        self.watch_forwards(if self.full { Watch::Nothing } else { watch });
    }

    fn watch_forwards(&self, watch: Watch) {
        for TcpForward { index, listener, .. } in &self.forwards {
            let Some(listener) = listener else { continue };
            if let Err(error) = self.poller.change(listener, Token::TcpForward(*index), watch) {
                warn!(%error, "a forward's listener cannot be watched as it should");
            }
        }
    }

    /// Listens for the clients of forwards whose guests can be reached, and no longer for those of others.
    fn open_and_close_forwards(&mut self, now: Instant) {
        for (index, open) in self.gateway.reach.take_changes() {
            let rests = self.full || self.accept_again.is_some();
            let Some(forward) = self.forwards.iter_mut().find(|forward| forward.index == index) else {
                continue;
            };
            if !open {
                info!(host = %forward.host, guest = %forward.guest, "the guest does not answer: clients are refused");
                forward.listener = None;
                continue;
            }
            let watch = if rests { Watch::Nothing } else { Watch::Input };
            let listener = TcpListener::bind(forward.host).and_then(|listener| {
                listener.set_nonblocking(true)?;
                self.poller.add(&listener, Token::TcpForward(index), watch)?;
                Ok(listener)
            });
            match listener {
                Ok(listener) => {
                    info!(host = %forward.host, guest = %forward.guest, "the guest answers: clients are accepted");
                    forward.listener = Some(listener);
                }
                Err(error) => {
                    warn!(host = %forward.host, %error, "cannot listen for a forward's clients; tried again");
                    self.gateway.reach.not_opened(index, now);
                }
            }
        }
    }

    /// Clients that waited for room are taken again.
    fn take_waiting_clients(&mut self) {
        if self.full && self.gateway.has_room() {
            self.full = false;
            if self.accept_again.is_none() {
                self.watch_forwards(Watch::Input);
            }
        }
    }

    /// Reads a port and switches its frames.
    fn port_event(&mut self, id: u64, event: Event, now: Instant) {
        let Some(port) = self.ports.get_mut(&id) else { return };
        if event.writable {
            port.unblock(&self.poller);
        }
        if !event.readable {
            return;
        }
        let was_greeted = port.greeted();
        let mut arrived = std::mem::take(&mut self.arrived);
        let mut claimed = None;
        let read = port.read(now, |piece| match piece {
            Piece::Frame(frame) => arrived.push(frame),
            Piece::Claim(claim) => claimed = Some(claim),
        });
        if !was_greeted && port.greeted() {
            info!(port = id, peer = port.peer(), "a port connected");
        }
        if let Some(claim) = claimed {
            self.fabric.claim(PortId(id), claim);
        }
        let mut start = 0;
        for &end in &arrived.ends {
            self.switch_frame(PortId(id), &arrived.bytes[start..end], now);
            start = end;
        }
        arrived.clear();
        self.arrived = arrived;
        if let Err(reason) = read {
            self.close_port(id, &reason);
        }
    }

    fn switch_frame(&mut self, from: PortId, frame: &[u8], now: Instant) {
        let (verdict, learned) = self.fabric.switch(from, frame, now);
        if learned == Learned::Moved
            && let Some((_, source)) = addresses(frame)
        {
            self.gateway.guest_moved(source, now);
        }
        let admitted = match (from, learned) {
            (PortId::GATEWAY, _) => Ok(()),
            (_, Learned::Refused) => Err("a MAC that is not its own"),
            _ => self.gateway.owners.admit(&self.fabric, from, frame, now),
        };
        if let Err(whom) = admitted {
            return self.refuse(from, whom, frame, now);
        }
        match verdict {
            Verdict::To(PortId::GATEWAY) => self.gateway.handle_frame(&self.poller, from, frame, now),
            Verdict::To(PortId(to)) => {
                if let Some(port) = self.ports.get_mut(&to) {
                    port.queue(frame);
                }
            }
            Verdict::Flood { gateway } => {
                if gateway {
                    self.gateway.handle_frame(&self.poller, from, frame, now);
                }
                let others = self.ports.iter_mut().filter(|(id, port)| **id != from.0 && port.greeted());
                others.for_each(|(_, port)| port.queue(frame));
            }
            Verdict::Drop => {}
        }
    }

    /// A frame spoke for somebody else: it goes nowhere.
    fn refuse(&mut self, from: PortId, whom: &'static str, frame: &[u8], now: Instant) {
        let Some(port) = self.ports.get_mut(&from.0) else { return };
        if let Some(left_out) = port.forged(now) {
            let source = addresses(frame).map(|(_, source)| gateway::MacHex(source));
            warn!(
                port = from.0,
                peer = port.peer(),
                ?source,
                left_out,
                "a frame is dropped: it speaks for {whom}"
            );
        }
    }

    fn keep_deadlines(&mut self, now: Instant) {
        if self.accept_again.is_some_and(|at| now >= at) {
            self.accept_again = None;
            self.watch_listeners(Watch::Input);
        }
        let stood_still = now.saturating_duration_since(self.turned) >= STANDSTILL;
        self.turned = now;
        let mut silent = Vec::new();
        for (&id, port) in &mut self.ports {
            if stood_still {
                port.listen_first(now);
            }
            if let Err(reason) = port.keep_alive(now) {
                silent.push((id, reason));
            }
        }
        for (id, reason) in silent {
            self.close_port(id, &reason);
        }
    }

    /// Switches the frames that the gateway has made.
    fn hand_out(&mut self, now: Instant) {
        while let Some(frame) = self.gateway.next_frame() {
            self.switch_frame(PortId::GATEWAY, &frame, now);
            self.gateway.recycle(frame);
        }
    }

    fn flush_ports(&mut self) {
        let mut broken = Vec::new();
        for (&id, port) in &mut self.ports {
            if let Err(reason) = port.flush(&self.poller) {
                broken.push((id, reason));
            }
        }
        for (id, reason) in broken {
            self.close_port(id, &reason);
        }
    }

    fn close_port(&mut self, id: u64, reason: &dyn std::fmt::Display) {
        if let Some(port) = self.ports.remove(&id) {
            let now = Instant::now();
            self.fabric.port_gone(PortId(id), now);
            self.gateway.owners.prune(&self.fabric, now);
            self.stats.remove_port(id);
            if port.greeted() {
                info!(port = id, peer = port.peer(), %reason, "a port is gone");
            } else {
                warn!(peer = port.peer(), %reason, "a connection to the switch was no port");
            }
        }
    }
}

/// A socket that is bound to an address and does not listen, and the address that it has got. With `SO_REUSEADDR` on both,
/// another socket may listen there meanwhile.
fn keep_address(wanted: SocketAddr) -> io::Result<(OwnedFd, SocketAddr)> {
    let family = if wanted.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    net::sockopt::set_socket_reuseaddr(&socket, true)?;
    net::bind(&socket, &wanted)?;
    let got = SocketAddr::try_from(net::getsockname(&socket)?)?;
    // Whether somebody else listens there shows only to who listens.
    drop(TcpListener::bind(got)?);
    Ok((socket, got))
}

/// Which host a peer's name stands for: its address without the port.
fn host_of(peer: &str) -> &str {
    peer.rsplit_once(':').map_or(peer, |(host, _)| host)
}

impl Arrived {
    fn push(&mut self, frame: &[u8]) {
        self.bytes.extend_from_slice(frame);
        self.ends.push(self.bytes.len());
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

/// Binds and runs a switch until `stopper` is used. [`Switch::bind`] for who needs the bound addresses.
pub fn run(config: Config, stopper: &Stopper) -> Result<(), SwitchError> {
    Switch::bind(config)?.run(stopper)
}
