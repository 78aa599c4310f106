//! Tests only: a guest that sends whatever it likes. Seeded, so that a failure comes back with its seed.
//!
//! Two kinds of malice: bytes that are no packets, or nearly (`mangled`), and packets that are right in
//! every checksum and wrong in everything else (`forged`), aimed at connections that are really open.
//! Nothing here may leave the machine: the first runs with NAT off, the second calls the loopback only.

#[path = "../../../../tests/chance.rs"]
mod chance;

use super::*;
use crate::config::SwitchAddr;
use crate::poller::Token;
use chance::Xorshift;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr,
    IpAddress, Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};
use std::collections::VecDeque;
use std::net::TcpListener;

const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const GUEST_MAC: MacAddr = [0x52, 0x54, 0, 0, 0, 1];
const GUEST_PORT: u16 = 80;

/// Good enough to be nasty, and the same everywhere.
struct Dice(Xorshift);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        (self.0.next() >> 33) as usize % n.max(1)
    }
    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.0.next() as u8).collect()
    }
}

fn gateway(nat: bool) -> (Gateway, Poller, Instant) {
    let mut config = Config::new(SwitchAddr::Unix("unused".into()));
    (config.nat, config.dns_upstream) = (nat, None);
    (config.dns, config.tcp_flows_max, config.tcp_buffer_bytes) = (None, 32, 4096);
    let now = Instant::now();
    (Gateway::seeded(config, Stats::default(), 1, now), Poller::new().unwrap(), now)
}

/// A TCP frame from the guest, right in form.
fn tcp_frame<'a>(
    to: (Ipv4Addr, u16),
    from: u16,
    control: TcpControl,
    change: impl FnOnce(&mut TcpRepr<'a>),
) -> Vec<u8> {
    let mut tcp = TcpRepr {
        src_port: from,
        dst_port: to.1,
        control,
        seq_number: TcpSeqNumber(1),
        ack_number: None,
        window_len: 4096,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    change(&mut tcp);
    let ip = Ipv4Repr {
        src_addr: GUEST,
        dst_addr: to.0,
        next_header: IpProtocol::Tcp,
        payload_len: tcp.buffer_len(),
        hop_limit: 64,
    };
    let mut bytes = vec![0; 34 + tcp.buffer_len()];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes[..]);
    let (dst_addr, src_addr) =
        (EthernetAddress(mac_of(Ipv4Addr::new(10, 0, 2, 2))), EthernetAddress(GUEST_MAC));
    EthernetRepr { dst_addr, src_addr, ethertype: EthernetProtocol::Ipv4 }.emit(&mut frame);
    let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
    let checksums = ChecksumCapabilities::default();
    ip.emit(&mut packet, &checksums);
    let (source, destination) = (IpAddress::Ipv4(ip.src_addr), IpAddress::Ipv4(ip.dst_addr));
    tcp.emit(&mut TcpPacket::new_unchecked(packet.payload_mut()), &source, &destination, &checksums);
    bytes
}

fn dhcp_frame(dice: &mut Dice) -> Vec<u8> {
    let kinds = [DhcpMessageType::Discover, DhcpMessageType::Request, DhcpMessageType::Decline];
    let address = |dice: &mut Dice| Ipv4Addr::new(10, 0, 2, dice.0.next() as u8);
    let mac = [2, 0, 0, 0, dice.below(8) as u8, dice.0.next() as u8];
    let repr = DhcpRepr {
        message_type: kinds[dice.below(3)],
        transaction_id: dice.0.next() as u32,
        secs: 0,
        client_hardware_address: EthernetAddress(mac),
        client_ip: if dice.one_in(2) { Ipv4Addr::UNSPECIFIED } else { address(dice) },
        your_ip: Ipv4Addr::UNSPECIFIED,
        server_ip: Ipv4Addr::UNSPECIFIED,
        router: None,
        subnet_mask: None,
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: dice.one_in(2),
        requested_ip: Some(address(dice)),
        client_identifier: None,
        server_identifier: None,
        parameter_request_list: Some(&[1, 3, 6]),
        dns_servers: None,
        max_size: None,
        lease_duration: None,
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    };
    let mut payload = vec![0; repr.buffer_len()];
    repr.emit(&mut DhcpPacket::new_unchecked(&mut payload[..])).unwrap();
    let mut queues = stack::Queues::default();
    let from = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, dhcp::CLIENT_PORT);
    let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, dhcp::SERVER_PORT);
    packet::emit_udp(&mut queues, ([0xff; 6], mac), from, to, &payload);
    queues.next_outward().unwrap()
}

/// Something that is no packet, or no longer one.
fn mangled(dice: &mut Dice) -> Vec<u8> {
    let gateway = Ipv4Addr::new(10, 0, 2, 2);
    let own = mac_of(gateway);
    let mut frame = match dice.below(7) {
        0 => {
            let length = dice.below(200);
            return dice.bytes(length);
        }
        1 => {
            let (ethertype, length) =
                ([[8, 0], [8, 6], [0x80, 0x35], [0x86, 0xdd]][dice.below(4)], dice.below(1600));
            let payload = dice.bytes(length);
            [&own[..], &GUEST_MAC, &ethertype, &payload].concat()
        }
        2 => dhcp_frame(dice),
        3 => packet::arp_reply((GUEST_MAC, GUEST), (own, gateway)),
        4 => tcp_frame((gateway, 80), dice.0.next() as u16, TcpControl::Syn, |_| {}),
        5 => {
            // One of a datagram's pieces; few identifications, so that pieces of different ones meet.
            let mut queues = stack::Queues::default();
            let (from, to) = (SocketAddrV4::new(GUEST, 9), SocketAddrV4::new(gateway, 9));
            let (length, ident) = (1473 + dice.below(4000), dice.below(64) as u16);
            packet::emit_udp_in_pieces(&mut queues, (own, GUEST_MAC), from, to, &vec![7; length], ident);
            let mut pieces: Vec<_> = std::iter::from_fn(|| queues.next_outward()).collect();
            pieces.swap_remove(dice.below(pieces.len()))
        }
        _ => {
            let mut queues = stack::Queues::default();
            let (from, to) = (SocketAddrV4::new(GUEST, dice.0.next() as u16), SocketAddrV4::new(gateway, 9));
            packet::emit_udp(&mut queues, (own, GUEST_MAC), from, to, &dice.bytes(40));
            queues.next_outward().unwrap()
        }
    };
    for _ in 0..dice.below(4) {
        let at = dice.below(frame.len());
        frame[at] = dice.0.next() as u8;
    }
    if dice.one_in(4) {
        let length = dice.below(frame.len() + 1);
        frame.truncate(length);
    }
    frame
}

#[test]
fn no_bytes_from_a_guest_can_upset_the_gateway() {
    let (mut gateway, poller, mut now) = gateway(false);
    let mut dice = Dice(Xorshift(0x9e37_79b9_7f4a_7c15));
    for round in 0..100_000u32 {
        gateway.handle_frame(&poller, PortId(1), &mangled(&mut dice), now);
        if round % 16 == 0 {
            now += Duration::from_millis(dice.below(100) as u64);
            gateway.work(now);
            gateway.idle_for(now);
            while let Some(frame) = gateway.next_frame() {
                assert!(frame.len() <= stack::FRAME_BYTES, "round {round}");
                gateway.recycle(frame);
            }
            assert!(gateway.neighbors.len() <= NEIGHBORS_MAX);
        }
    }
    assert!(gateway.stats.snapshot().gateway.refused > 10_000);
}

/// What the guest has seen of a connection: the gateway's port, and where its sequence numbers are.
type Seen = (u16, i32, Option<i32>);

/// Remembers the last segment that the gateway sent from any port.
fn watch(frame: &[u8], seen: &mut Vec<Seen>) {
    let Ok(frame) = EthernetFrame::new_checked(frame) else { return };
    let Ok(packet) = Ipv4Packet::new_checked(frame.payload()) else { return };
    let Ok(segment) = TcpPacket::new_checked(packet.payload()) else { return };
    let next = segment.seq_number().0.wrapping_add(segment.segment_len() as i32);
    let ack = segment.ack().then(|| segment.ack_number().0);
    seen.retain(|(port, ..)| *port != segment.src_port());
    seen.push((segment.src_port(), next, ack));
    if seen.len() > 16 {
        seen.remove(0);
    }
}

/// A segment that might belong to a connection the guest has seen.
fn forged(dice: &mut Dice, seen: &[Seen], server: u16) -> Vec<u8> {
    let gateway = Ipv4Addr::new(10, 0, 2, 2);
    let controls = [TcpControl::None, TcpControl::Psh, TcpControl::Fin, TcpControl::Syn, TcpControl::Rst];
    let length = if dice.one_in(2) { 0 } else { dice.below(1400) };
    let payload = dice.bytes(length);
    let near = |dice: &mut Dice| if dice.one_in(4) { dice.below(9000) as i32 - 4500 } else { 0 };
    let known = seen.get(dice.below(seen.len())).copied();
    let Some((port, next, ack)) = known.filter(|_| !dice.one_in(8)) else {
        let from = 1000 + dice.below(40) as u16;
        let control = if dice.one_in(2) { TcpControl::Syn } else { controls[dice.below(5)] };
        return tcp_frame((gateway, server), from, control, |tcp| tcp.window_len = dice.0.next() as u16);
    };
    // Resets and wrong SYNs are rare, else nothing lives long enough to be attacked.
    let control = if ack.is_none() && !dice.one_in(8) {
        TcpControl::Syn
    } else {
        controls[if dice.one_in(40) { dice.below(5) } else { dice.below(2) }]
    };
    let from = if port == server { 1000 + dice.below(40) as u16 } else { GUEST_PORT };
    tcp_frame((gateway, port), from, control, |tcp| {
        tcp.seq_number = TcpSeqNumber(ack.unwrap_or(77).wrapping_add(near(dice)));
        tcp.ack_number = (!dice.one_in(8)).then(|| TcpSeqNumber(next.wrapping_add(near(dice))));
        tcp.window_len = if dice.one_in(4) { 0 } else { dice.0.next() as u16 };
        if control == TcpControl::Syn {
            tcp.window_scale = Some(dice.below(15) as u8);
            tcp.max_seg_size = (!dice.one_in(4)).then(|| dice.below(3000) as u16 + 1);
        } else {
            tcp.payload = &payload;
        }
    })
}

#[test]
fn no_segment_from_a_guest_can_upset_the_gateways_connections() {
    let (mut gateway, poller, mut now) = gateway(true);
    let mut dice = Dice(Xorshift(0xd1b5_4a32_d192_ed03));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let (mut clients, mut seen, mut events) = (VecDeque::new(), Vec::new(), Vec::new());
    for round in 0..30_000u32 {
        if round % 100 == 0 {
            // A client of a forward that keeps writing; the gateway calls the guest for it.
            let client = TcpStream::connect(address).unwrap();
            client.set_nonblocking(true).unwrap();
            let _ = io::Write::write(&mut &client, &[7; 20_000]);
            clients.push_back(client);
            if clients.len() > 20 {
                clients.pop_front();
            }
            let accepted = listener.accept().unwrap().0;
            gateway.accepted(&poller, accepted, SocketAddrV4::new(GUEST, GUEST_PORT), now);
        }
        gateway.handle_frame(&poller, PortId(1), &forged(&mut dice, &seen, address.port()), now);
        if round % 4 != 0 {
            continue;
        }
        now += Duration::from_millis(dice.below(30) as u64);
        poller.wait(Some(Duration::ZERO), &mut events).unwrap();
        for &event in &events {
            if let Token::TcpFlow(id) = event.token {
                gateway.handle_tcp_event(id, event, now);
            }
        }
        gateway.work(now);
        gateway.idle_for(now);
        while let Some(frame) = gateway.next_frame() {
            assert!(frame.len() <= stack::FRAME_BYTES, "round {round}");
            watch(&frame, &mut seen);
            gateway.recycle(frame);
        }
        // Connections that the gateway made for guests arrive at the listener too.
        while let Ok((server, _)) = listener.accept() {
            server.set_nonblocking(true).unwrap();
            let _ = io::Write::write(&mut &server, &[9; 2000]);
            clients.push_back(server);
        }
        clients.truncate(40);
    }
    let counters = gateway.stats.snapshot().gateway;
    assert!(counters.tcp_opened > 50 && counters.tcp_failed > 50, "the attack was real: {counters:?}");
}
