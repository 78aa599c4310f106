//! What the tests share: a switch in a thread, and a guest made of another smoltcp stack over a port.
//!
//! The guest's stack stands apart from the port it speaks through, as a replicated VM's does: a failover is
//! [`Guest::detach`] and, later, [`Guest::attach`] to another port with everything else as it was.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part of what is public here")]

pub mod cable;

use pollux_switch::{
    Bound, Claim, Config, PortClient, PortCloser, PortSender, Stats, Stopper, Switch, SwitchAddr, SwitchError,
};
use smoltcp::iface::{Config as IfaceConfig, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::{dhcpv4, icmp, tcp, udp};
use smoltcp::time::Instant as StackInstant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};
use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
pub const GATEWAY_MAC: [u8; 6] = [0x52, 0x55, 10, 0, 2, 2];
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
pub const ECHO_PORT: u16 = 7;

/// A switch that works in a thread until it is dropped.
pub struct Running {
    pub bound: Bound,
    pub stats: Stats,
    stopper: Stopper,
    thread: Option<JoinHandle<Result<(), SwitchError>>>,
    _directory: tempfile::TempDir,
}

/// Starts a switch on a Unix socket of its own.
pub fn start(change: impl FnOnce(&mut Config)) -> Running {
    let directory = tempfile::tempdir().unwrap();
    let mut config = Config::new(SwitchAddr::Unix(directory.path().join("switch")));
    // The servers that guests call are on this host's loopback.
    config.host_loopback = true;
    change(&mut config);
    let switch = Switch::bind(config).unwrap();
    let (bound, stats, stopper) = (switch.bound().clone(), switch.stats(), Stopper::new().unwrap());
    let thread = std::thread::spawn({
        let stopper = stopper.clone();
        move || switch.run(&stopper)
    });
    Running { bound, stats, stopper, thread: Some(thread), _directory: directory }
}

impl Running {
    pub fn connect(&self) -> PortClient {
        PortClient::connect(&self.bound.listen, Duration::from_secs(5)).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stopper.stop();
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.expect("the switch does not panic").expect("the switch ends in order");
        }
    }
}

/// The sending half of a port, and what a thread has received from it.
pub struct Port {
    pub sender: PortSender,
    pub frames: Receiver<Vec<u8>>,
    pub closer: PortCloser,
}

pub fn port(client: PortClient) -> Port {
    let closer = client.closer();
    let (sender, mut receiver) = client.split();
    let (tell, frames) = channel();
    std::thread::spawn(move || {
        let mut frame = Vec::new();
        while receiver.recv(&mut frame).is_ok() && tell.send(frame.clone()).is_ok() {}
    });
    Port { sender, frames, closer }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.closer.close();
    }
}

#[derive(Default)]
struct Card {
    inward: VecDeque<Vec<u8>>,
    outward: Vec<Vec<u8>>,
}

pub struct Inward(Vec<u8>);
pub struct Outward<'a>(&'a mut Vec<Vec<u8>>);

impl RxToken for Inward {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl TxToken for Outward<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut frame = vec![0; length];
        let result = write(&mut frame);
        self.0.push(frame);
        result
    }
}

impl Device for Card {
    type RxToken<'a> = Inward;
    type TxToken<'a> = Outward<'a>;

    fn receive(&mut self, _: StackInstant) -> Option<(Inward, Outward<'_>)> {
        Some((Inward(self.inward.pop_front()?), Outward(&mut self.outward)))
    }
    fn transmit(&mut self, _: StackInstant) -> Option<Outward<'_>> {
        Some(Outward(&mut self.outward))
    }
    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

/// A guest: DHCP client, TCP and UDP echo servers on port 7, and whatever a test adds.
pub struct Guest {
    pub mac: [u8; 6],
    pub iface: Interface,
    pub sockets: SocketSet<'static>,
    card: Card,
    port: Option<Port>,
    started: Instant,
    /// None: its address is static.
    dhcp: Option<SocketHandle>,
    echoes: Vec<SocketHandle>,
    /// Whether the echo server ever had a connection.
    pub was_called: bool,
    udp_echo: SocketHandle,
    pub address: Option<Ipv4Addr>,
    pub dns: Option<Ipv4Addr>,
}

impl Guest {
    pub fn new(last: u8, port: Port) -> Self {
        let mac = [0x52, 0x54, 0, 0, 0, last];
        let mut card = Card::default();
        let mut config = IfaceConfig::new(HardwareAddress::Ethernet(EthernetAddress(mac)));
        config.random_seed = last.into();
        let iface = Interface::new(config, &mut card, StackInstant::ZERO);
        let mut sockets = SocketSet::new(Vec::new());
        let dhcp = Some(sockets.add(dhcpv4::Socket::new()));
        let echoes = (0..12).map(|_| sockets.add(tcp_socket())).collect();
        let mut echo = udp::Socket::new(packets(), packets());
        echo.bind(ECHO_PORT).unwrap();
        let udp_echo = sockets.add(echo);
        let started = Instant::now();
        let (address, dns) = (None, None);
        let port = Some(port);
        Self {
            mac,
            iface,
            sockets,
            card,
            port,
            started,
            dhcp,
            echoes,
            was_called: false,
            udp_echo,
            address,
            dns,
        }
    }

    /// A guest that has its address.
    pub fn up(last: u8, port: Port) -> Self {
        let mut guest = Self::new(last, port);
        assert!(guest.run_until(Duration::from_secs(5), |guest| guest.address.is_some()), "no DHCP lease");
        guest
    }

    /// The guest has this address by itself, and asks nobody.
    pub fn adopt(&mut self, address: Ipv4Addr, router: Ipv4Addr) {
        self.sockets.remove(self.dhcp.take().unwrap());
        self.address = Some(address);
        self.iface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(address.into(), 24)).unwrap();
        });
        self.iface.routes_mut().add_default_ipv4_route(router).unwrap();
    }

    pub fn now(&self) -> StackInstant {
        StackInstant::from_micros(self.started.elapsed().as_micros() as i64)
    }

    /// The process that held the guest stops: its frames go nowhere, though the port may stay open.
    pub fn detach(&mut self) -> Option<Port> {
        self.port.take()
    }

    /// What the process says that has won `generation` of this guest's VM.
    pub fn claim(&self, generation: u64) -> Claim {
        Claim { generation, instance: generation.to_le_bytes(), mac: self.mac, vm: b"vm".to_vec() }
    }

    /// The guest goes on at another port and announces itself, as a host does after a failover.
    pub fn attach(&mut self, mut port: Port) {
        port.sender.claim(&self.claim(2));
        let address = self.address.unwrap();
        port.sender.send(&gratuitous_arp(self.mac, address)).unwrap();
        port.sender.flush().unwrap();
        self.port = Some(port);
    }

    /// The guest goes on where it was, and nobody says so.
    pub fn resume(&mut self, port: Port) {
        port.frames.try_iter().for_each(drop);
        self.port = Some(port);
    }

    /// Lets the guest run until `done` or for `limit`; whether it was done.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            let now = self.now();
            self.iface.poll(now, &mut self.card, &mut self.sockets);
            self.serve();
            self.iface.poll(now, &mut self.card, &mut self.sockets);
            self.send();
            if done(self) {
                self.iface.poll(now, &mut self.card, &mut self.sockets);
                self.send();
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let delay = self.iface.poll_delay(now, &self.sockets);
            let delay = delay.map_or(left, |delay| Duration::from_micros(delay.total_micros()));
            self.wait(delay.min(left).min(Duration::from_millis(10)));
        }
    }

    /// Takes in what has come while no TCP server listens, and serves again after that.
    pub fn refuse_what_has_come(&mut self) {
        self.card.inward.extend(self.port.iter().flat_map(|port| port.frames.try_iter()));
        self.echoes.iter().for_each(|echo| self.sockets.get_mut::<tcp::Socket>(*echo).abort());
        self.iface.poll(self.now(), &mut self.card, &mut self.sockets);
        self.serve();
        self.send();
    }

    fn wait(&mut self, time: Duration) {
        let Some(port) = &self.port else { return std::thread::sleep(time) };
        if let Ok(frame) = port.frames.recv_timeout(time) {
            self.card.inward.push_back(frame);
            self.card.inward.extend(port.frames.try_iter());
        }
    }

    fn send(&mut self) {
        let frames = std::mem::take(&mut self.card.outward);
        if let Some(port) = &mut self.port {
            for frame in &frames {
                let _ = port.sender.send(frame);
            }
            let _ = port.sender.flush();
        }
    }

    fn serve(&mut self) {
        let event = self.dhcp.and_then(|dhcp| self.sockets.get_mut::<dhcpv4::Socket>(dhcp).poll());
        if let Some(dhcpv4::Event::Configured(lease)) = event {
            self.address = Some(lease.address.address());
            self.dns = lease.dns_servers.first().copied();
            let router = lease.router.unwrap();
            self.iface.update_ip_addrs(|addresses| {
                addresses.clear();
                addresses.push(IpCidr::Ipv4(lease.address)).unwrap();
            });
            self.iface.routes_mut().add_default_ipv4_route(router).unwrap();
        }
        for &handle in &self.echoes {
            self.was_called |= self.sockets.get::<tcp::Socket>(handle).state() == tcp::State::Established;
            echo(self.sockets.get_mut::<tcp::Socket>(handle));
        }
        let socket = self.sockets.get_mut::<udp::Socket>(self.udp_echo);
        while let Ok((payload, from)) = socket.recv().map(|(payload, from)| (payload.to_vec(), from)) {
            let _ = socket.send_slice(&payload, from.endpoint);
        }
    }

    /// Opens a connection from the guest.
    pub fn connect(&mut self, to: (Ipv4Addr, u16), from: u16) -> SocketHandle {
        let handle = self.sockets.add(tcp_socket());
        let socket = self.sockets.get_mut::<tcp::Socket>(handle);
        socket.connect(self.iface.context(), to, from).unwrap();
        handle
    }

    pub fn tcp(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    pub fn udp(&mut self, handle: SocketHandle) -> &mut udp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    pub fn add_udp(&mut self, port: u16) -> SocketHandle {
        let mut socket = udp::Socket::new(packets(), packets());
        socket.bind(port).unwrap();
        self.sockets.add(socket)
    }

    pub fn add_icmp(&mut self, ident: u16) -> SocketHandle {
        let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 8], vec![0; 4096]);
        let mut socket = icmp::Socket::new(buffer(), buffer());
        socket.bind(icmp::Endpoint::Ident(ident)).unwrap();
        self.sockets.add(socket)
    }
}

fn tcp_socket() -> tcp::Socket<'static> {
    let buffer = || tcp::SocketBuffer::new(vec![0; 65_536]);
    let mut socket = tcp::Socket::new(buffer(), buffer());
    socket.set_ack_delay(None);
    socket.set_nagle_enabled(false);
    socket
}

fn packets() -> udp::PacketBuffer<'static> {
    udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 16], vec![0; 16_384])
}

/// One step of an echo server's connection: what is there goes back; an end is answered with an end.
fn echo(socket: &mut tcp::Socket<'static>) {
    if !socket.is_open() || socket.state() == tcp::State::TimeWait {
        socket.abort();
        socket.listen(ECHO_PORT).unwrap();
    }
    while socket.can_recv() && socket.can_send() {
        let room = socket.send_capacity() - socket.send_queue();
        let mut bytes = vec![0; room.min(8192)];
        let n = socket.recv_slice(&mut bytes).unwrap();
        assert_eq!(socket.send_slice(&bytes[..n]).unwrap(), n);
    }
    if socket.state() == tcp::State::CloseWait && !socket.can_recv() {
        socket.close();
    }
}

/// The ARP request for one's own address with which a MAC is announced.
pub fn gratuitous_arp(mac: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    let ip = address.octets();
    let header = [0, 1, 8, 0, 6, 4, 0, 1];
    [&[0xff; 6][..], &mac, &[8, 6], &header, &mac, &ip, &[0; 6], &ip].concat()
}
