//! TCP through the gateway: each connection is two, one of the host's and one of smoltcp's with the guest,
//! and bytes are moved between the two socket buffers with nothing in between.
//!
//! ```text
//!  forward:  client ── host socket ═ flow ═ smoltcp ── guest      the client is accepted first, then the
//!                                                                 guest is called; refused: the client is reset
//!  outward:  server ── host socket ═ flow ═ smoltcp ── guest      the guest's SYN waits until the server has
//!                                                                 accepted; refused: the SYN is let through to
//!                                                                 smoltcp, which knows no such socket: RST
//! ```
//!
//! Invariants: bytes wait only in the two sockets' bounded buffers, so each side feels the other's
//! back-pressure; an end of one direction is passed on as such (half-close), a reset as a reset; a flow lasts as long
//! as both ends want, however long the guest is silent. That is what carries a connection over a failover. Ends that
//! are gone without a word are found by probes: the host's TCP probes its end, and smoltcp the guest once a direction
//! is closed ([`PROBE_EVERY`], [`PROBE_PATIENCE`]).

use crate::config::Config;
use crate::gateway::stack::Stack;
use crate::poller::{Event, Poller, Token, Watch};
use crate::stats::{GatewayCounters, count};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::wire::{IpEndpoint, IpListenEndpoint};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};
use tracing::debug;

/// How long the host may take to reach a server for a guest.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a guest is asked whether it still knows a connection of which one direction is closed, and how long it
/// may owe the answer: longer than any outage that is not the guest's end.
const PROBE_EVERY: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(30);
const PROBE_PATIENCE: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(900);
/// When the host's TCP asks a silent client or server, how often, and how many questions may stay open.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_PROBES: u32 = 10;
/// How long a guest that is called may be silent before it is looked for anew.
const UNANSWERED_AFTER: Duration = Duration::from_secs(1);
/// The gateway's own ports for forwarded connections. Many, so that one comes round again only after the
/// guest's TIME-WAIT.
const FIRST_PORT: u16 = 10_000;

/// The first address in the order of addresses.
const LOWEST: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);

/// A guest's end of a connection, and the end that it believes to talk to.
type Tuple = (SocketAddrV4, SocketAddrV4);

#[derive(Debug)]
enum Phase {
    /// The host is calling the server that the guest wants; the guest's SYN waits here.
    Dialing { syn: Vec<u8>, due: Instant },
    /// smoltcp and the guest are shaking hands.
    Opening { handle: SocketHandle, due: Instant },
    /// Bytes flow.
    Open { handle: SocketHandle },
}

/// How a flow came to be, and what must be forgotten with it.
#[derive(Clone, Copy, Debug)]
enum Origin {
    /// Opened by a guest.
    Guest(Tuple),
    /// Opened by a client of a forward, from this port of the gateway's, to this guest.
    Forward(u16, SocketAddrV4),
}

#[derive(Debug)]
struct Flow {
    host: TcpStream,
    phase: Phase,
    origin: Origin,
    /// What the poller said last and no call has contradicted since.
    readable: bool,
    writable: bool,
    /// The peer's end was announced: a short read does not mean that reading is over.
    ended: bool,
    error: bool,
    /// The host's direction has been passed on to its end, and the guest's.
    host_over: bool,
    guest_over: bool,
    begun: Instant,
    /// Whether bytes or an end moved since the last pump.
    stirred: bool,
}

/// What became of a flow when it was pumped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Lives,
    /// Both directions came to their end.
    Done,
    /// It failed: the end that does not know yet is told with a reset.
    Failed(&'static str),
}

/// All TCP connections through the gateway.
#[derive(Debug)]
pub(crate) struct TcpFlows {
    flows: BTreeMap<u64, Flow>,
    by_tuple: BTreeMap<Tuple, u64>,
    ports: BTreeSet<u16>,
    /// smoltcp's sockets that have one more segment (a reset) to send before they go.
    dying: Vec<SocketHandle>,
    /// Guests that have refused a client of a forward, or not answered, since somebody asked.
    failed_calls: Vec<SocketAddrV4>,
    next_id: u64,
    next_port: u16,
    flows_max: usize,
    per_guest_max: usize,
    buffer_bytes: usize,
    connect_timeout: Duration,
    due: Option<Instant>,
    /// Whether the last pump found a guest that has not answered a call yet.
    calling: bool,
}

impl TcpFlows {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            flows: BTreeMap::new(),
            by_tuple: BTreeMap::new(),
            ports: BTreeSet::new(),
            dying: Vec::new(),
            failed_calls: Vec::new(),
            next_id: 0,
            next_port: FIRST_PORT,
            flows_max: config.tcp_flows_max,
            per_guest_max: config.tcp_flows_per_guest_max,
            buffer_bytes: config.tcp_buffer_bytes,
            connect_timeout: config.connect_timeout,
            due: None,
            calling: false,
        }
    }

    /// Whether one more flow is possible.
    pub(crate) fn has_room(&self) -> bool {
        self.flows.len() < self.flows_max
    }

    /// Whether a guest is being called.
    pub(crate) fn is_calling(&self) -> bool {
        self.calling
    }

    /// The guests that have been called for [`UNANSWERED_AFTER`] and have not answered.
    pub(crate) fn unanswered(&self, now: Instant) -> BTreeSet<Ipv4Addr> {
        let late = |flow: &Flow| now.saturating_duration_since(flow.begun) >= UNANSWERED_AFTER;
        let called = |flow: &Flow| match (&flow.phase, flow.origin) {
            (Phase::Opening { .. }, Origin::Forward(_, guest)) if late(flow) => Some(*guest.ip()),
            _ => None,
        };
        self.flows.values().filter_map(called).collect()
    }

    /// The guests that have refused a client of a forward, or not answered, since the last call.
    pub(crate) fn take_failed_calls(&mut self) -> Vec<SocketAddrV4> {
        std::mem::take(&mut self.failed_calls)
    }

    /// When a flow has to be looked at though nothing happened.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// A client was accepted on a forward to `guest`: calls the guest from `gateway`'s address.
    pub(crate) fn open_forward(
        &mut self,
        stack: &mut Stack,
        poller: &Poller,
        host: TcpStream,
        ends: (Ipv4Addr, SocketAddrV4),
        now: Instant,
    ) -> io::Result<()> {
        let (gateway, guest) = ends;
        if self.flows.len() >= self.flows_max {
            reset(&host);
            return Err(io::Error::other("too many TCP connections: the client is reset"));
        }
        host.set_nonblocking(true)?;
        host.set_nodelay(true)?;
        keep_alive(&host)?;
        let id = self.next_id;
        poller.add(&host, Token::TcpFlow(id), Watch::Edges)?;
        let port = self.free_port();
        let handle = stack.sockets.add(new_socket(self.buffer_bytes));
        let (sockets, context) = stack.parts();
        let from = IpListenEndpoint { addr: Some(gateway.into()), port };
        let called = sockets.get_mut::<Socket>(handle).connect(context, endpoint(guest), from);
        if called.is_err() {
            sockets.remove(handle);
            reset(&host);
            return Err(io::Error::other("the guest cannot be called"));
        }
        self.ports.insert(port);
        let phase = Phase::Opening { handle, due: now + self.connect_timeout };
        self.insert(Flow::new(host, phase, Origin::Forward(port, guest), now));
        Ok(())
    }

    /// A guest wants to open a connection: `frame` holds its SYN. `server` is where the host shall call;
    /// `None`: nowhere, the guest is refused.
    pub(crate) fn handle_syn(
        &mut self,
        stack: &mut Stack,
        poller: &Poller,
        tuple: Tuple,
        frame: &[u8],
        server: Option<SocketAddr>,
        now: Instant,
    ) {
        if let Some(flow) = self.by_tuple.get(&tuple).and_then(|id| self.flows.get(id)) {
            // A repeated SYN: while the server is being called there is nothing to say to it.
            if !matches!(flow.phase, Phase::Dialing { .. }) {
                stack.push(frame);
            }
            return;
        }
        let Some(server) = server else { return stack.push(frame) };
        let guest = *tuple.0.ip();
        let its =
            self.by_tuple.range((SocketAddrV4::new(guest, 0), LOWEST)..).map(|(tuple, _)| *tuple.0.ip());
        if !self.has_room() || its.take_while(|ip| *ip == guest).count() >= self.per_guest_max {
            // No answer: the guest asks again, and finds room when a connection has ended.
            return;
        }
        let id = self.next_id;
        let dialed = dial(server).and_then(|host| {
            poller.add(&host, Token::TcpFlow(id), Watch::Edges)?;
            Ok(host)
        });
        match dialed {
            Ok(host) => {
                let phase = Phase::Dialing { syn: frame.to_vec(), due: now + DIAL_TIMEOUT };
                self.by_tuple.insert(tuple, id);
                self.insert(Flow::new(host, phase, Origin::Guest(tuple), now));
            }
            Err(error) => {
                debug!(%server, %error, "a guest's connection is refused");
                stack.push(frame);
            }
        }
    }

    fn insert(&mut self, flow: Flow) {
        self.flows.insert(self.next_id, flow);
        self.next_id += 1;
    }

    fn free_port(&mut self) -> u16 {
        loop {
            let port = self.next_port;
            self.next_port = port.checked_add(1).unwrap_or(FIRST_PORT);
            // Ends: there are more ports than flows (`Config::check`).
            if !self.ports.contains(&port) {
                return port;
            }
        }
    }

    /// The poller has something to say about a flow's host socket.
    pub(crate) fn handle_event(&mut self, stack: &mut Stack, id: u64, event: Event, now: Instant) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        flow.readable |= event.readable;
        flow.writable |= event.writable;
        flow.ended |= event.ended;
        flow.error |= event.error;
        if matches!(flow.phase, Phase::Dialing { .. }) && (event.writable || event.error) {
            self.dialed(stack, id, now);
        }
    }

    /// The host's call went through or failed: lets the guest's SYN in, to a listener or to nobody.
    fn dialed(&mut self, stack: &mut Stack, id: u64, now: Instant) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let (Phase::Dialing { syn, .. }, Origin::Guest(tuple)) = (&mut flow.phase, flow.origin) else {
            return;
        };
        let syn = std::mem::take(syn);
        let connected = matches!(sockopt::socket_error(&flow.host), Ok(Ok(())));
        let handle = connected.then(|| {
            let handle = stack.sockets.add(new_socket(self.buffer_bytes));
            // A fresh socket and a port that is not 0: it listens.
            let _ = stack.sockets.get_mut::<Socket>(handle).listen(endpoint(tuple.1));
            handle
        });
        stack.push(&syn);
        let Some(handle) = handle else { return self.forget(id) };
        // At once, so that no other SYN for the same server can take this listener.
        stack.poll(now);
        flow.phase = Phase::Opening { handle, due: now + self.connect_timeout };
        let taken_by = stack.sockets.get_mut::<Socket>(handle).remote_endpoint();
        if taken_by != Some(endpoint(tuple.0)) {
            self.fail(stack, id, "the guest's SYN is invalid");
        }
    }

    fn forget(&mut self, id: u64) {
        match self.flows.remove(&id).map(|flow| flow.origin) {
            Some(Origin::Guest(tuple)) => {
                self.by_tuple.remove(&tuple);
            }
            Some(Origin::Forward(port, _)) => {
                self.ports.remove(&port);
            }
            None => {}
        }
    }

    /// Resets both ends of a flow and forgets it.
    fn fail(&mut self, stack: &mut Stack, id: u64, reason: &'static str) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        debug!(origin = ?flow.origin, reason, "a TCP connection failed");
        if let (Phase::Opening { .. }, Origin::Forward(_, guest)) = (&flow.phase, flow.origin)
            && !flow.error
        {
            self.failed_calls.push(guest);
        }
        reset(&flow.host);
        match &mut flow.phase {
            // No socket of smoltcp's yet: the SYN itself fetches the reset.
            Phase::Dialing { syn, .. } => stack.push(syn),
            Phase::Opening { handle, .. } | Phase::Open { handle } => {
                stack.sockets.get_mut::<Socket>(*handle).abort();
                self.dying.push(*handle);
            }
        }
        self.forget(id);
    }

    /// Moves what can be moved. Whether anything was: then smoltcp wants to be polled again.
    pub(crate) fn pump(&mut self, stack: &mut Stack, counters: &GatewayCounters, now: Instant) -> bool {
        for handle in self.dying.drain(..) {
            stack.sockets.remove(handle);
        }
        let mut moved = false;
        let mut over = Vec::new();
        (self.due, self.calling) = (None, false);
        for (&id, flow) in &mut self.flows {
            self.calling |= matches!(flow.phase, Phase::Opening { .. });
            let fate = flow.pump(stack, counters, now);
            moved |= std::mem::take(&mut flow.stirred) || fate != Fate::Lives;
            match fate {
                Fate::Lives => self.due = [self.due, flow.due()].into_iter().flatten().min(),
                _ => over.push((id, fate)),
            }
        }
        for (id, fate) in over {
            match fate {
                Fate::Failed(reason) => {
                    count(&counters.tcp_failed, 1);
                    self.fail(stack, id, reason);
                }
                _ => {
                    if let Some(Phase::Open { handle }) = self.flows.get(&id).map(|flow| &flow.phase) {
                        stack.sockets.remove(*handle);
                    }
                    self.forget(id);
                }
            }
        }
        moved
    }
}

impl Flow {
    fn new(host: TcpStream, phase: Phase, origin: Origin, now: Instant) -> Self {
        Self {
            host,
            phase,
            origin,
            readable: false,
            writable: false,
            ended: false,
            error: false,
            host_over: false,
            guest_over: false,
            begun: now,
            stirred: false,
        }
    }

    fn stir(&mut self) {
        self.stirred = true;
    }

    fn due(&self) -> Option<Instant> {
        match self.phase {
            Phase::Dialing { due, .. } | Phase::Opening { due, .. } => Some(due),
            Phase::Open { .. } => None,
        }
    }

    fn pump(&mut self, stack: &mut Stack, counters: &GatewayCounters, now: Instant) -> Fate {
        if self.due().is_some_and(|due| now >= due) {
            return Fate::Failed("nothing happened for too long");
        }
        let handle = match self.phase {
            Phase::Dialing { .. } => return Fate::Lives,
            Phase::Opening { handle, .. } => match stack.sockets.get_mut::<Socket>(handle).state() {
                State::SynSent | State::SynReceived if self.error => return Fate::Failed("the client left"),
                State::SynSent | State::SynReceived => return Fate::Lives,
                State::Closed | State::Listen => return Fate::Failed("the guest refused it"),
                _ => {
                    count(&counters.tcp_opened, 1);
                    self.phase = Phase::Open { handle };
                    handle
                }
            },
            Phase::Open { handle } => handle,
        };
        let socket = stack.sockets.get_mut::<Socket>(handle);
        if self.error {
            return Fate::Failed("the host's end was reset");
        }
        let pumped = self.feed_host(socket).and_then(|()| self.feed_guest(socket));
        if pumped.is_err() {
            return Fate::Failed("the host's end was reset");
        }
        match (socket.state(), self.host_over && self.guest_over) {
            (State::Closed | State::TimeWait, true) => Fate::Done,
            (State::Closed | State::Listen | State::TimeWait, false) if !socket.can_recv() => {
                Fate::Failed("the guest reset it")
            }
            _ => Fate::Lives,
        }
    }

    /// From smoltcp's receive buffer into the host's socket.
    fn feed_host(&mut self, socket: &mut Socket<'static>) -> io::Result<()> {
        while self.writable && socket.can_recv() {
            let host = &mut &self.host;
            let written = socket.recv(|bytes| match host.write(bytes) {
                Ok(n) => (n, Ok(n)),
                Err(error) => (0, Err(error)),
            });
            match written {
                Ok(Ok(_)) => self.stir(),
                Ok(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => break,
            }
        }
        let said_all =
            matches!(socket.state(), State::CloseWait | State::Closing | State::LastAck | State::TimeWait);
        if said_all && !socket.can_recv() && !self.guest_over {
            self.guest_over = true;
            self.stir();
            probe(socket);
            // If the client is gone already there is nobody left to tell.
            let _ = self.host.shutdown(std::net::Shutdown::Write);
        }
        Ok(())
    }

    /// From the host's socket into smoltcp's send buffer.
    fn feed_guest(&mut self, socket: &mut Socket<'static>) -> io::Result<()> {
        while self.readable && !self.host_over && socket.can_send() {
            let host = &mut &self.host;
            let read = socket.send(|room| match host.read(room) {
                Ok(n) => (n, Ok((n, room.len()))),
                Err(error) => (0, Err(error)),
            });
            match read {
                Ok(Ok((0, _))) => {
                    self.host_over = true;
                    self.stir();
                    socket.close();
                    probe(socket);
                }
                Ok(Ok((n, room))) => {
                    self.stir();
                    // epoll(7), question 9: a short read says that the stream is dry, its end excepted.
                    self.readable = n == room || self.ended;
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => break,
            }
        }
        Ok(())
    }
}

/// A socket of smoltcp's that sends what it has at once, acknowledges at once and never gives up by itself:
/// who gives up is decided here, in real time.
fn new_socket(buffer_bytes: usize) -> Socket<'static> {
    let buffer = || SocketBuffer::new(vec![0; buffer_bytes]);
    let mut socket = Socket::new(buffer(), buffer());
    socket.set_nagle_enabled(false);
    socket.set_ack_delay(None);
    socket.set_timeout(None);
    socket
}

fn endpoint(address: SocketAddrV4) -> IpEndpoint {
    IpEndpoint::new((*address.ip()).into(), address.port())
}

/// Makes closing `host` a reset instead of an orderly end.
fn reset(host: &TcpStream) {
    // If it cannot be set the peer sees an end instead of a reset; the flow is over either way.
    let _ = sockopt::set_socket_linger(host, Some(Duration::ZERO));
}

/// Starts calling `server` without waiting.
fn dial(server: SocketAddr) -> io::Result<TcpStream> {
    let family = if server.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &server) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
        Err(errno) => return Err(errno.into()),
    }
    let host = TcpStream::from(socket);
    host.set_nodelay(true)?;
    keep_alive(&host)?;
    Ok(host)
}

/// Lets the host's TCP find out that its peer is gone without a word.
fn keep_alive(host: &TcpStream) -> io::Result<()> {
    sockopt::set_socket_keepalive(host, true)?;
    sockopt::set_tcp_keepidle(host, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(host, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(host, KEEPALIVE_PROBES)?;
    Ok(())
}

/// Lets smoltcp find out that the guest has forgotten a connection of which one direction is closed.
fn probe(socket: &mut Socket<'static>) {
    socket.set_keep_alive(Some(PROBE_EVERY));
    socket.set_timeout(Some(PROBE_PATIENCE));
}
