//! Datagrams longer than a guest's frame: there and back through the gateway, in pieces on the guest's side.
//!
//! The guest here speaks in frames of the test's own making, so that it can cut its datagrams as no stack would.
mod common;

use common::{ECHO_PORT, GATEWAY, GATEWAY_MAC, GUEST, Guest, Port, Running, gratuitous_arp, port, start};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpAddress, Ipv4Packet, UdpPacket, UdpRepr};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(5);
const MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
/// What of a datagram fits a frame: 1500 bytes less the IPv4 header.
const ROOM: usize = 1480;
/// Beyond one frame, many frames, and the longest that there is.
const LENGTHS: [usize; 4] = [1473, 4000, 60_000, 65_507];

fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32).map(|i| (i ^ (i >> 8)) as u8 ^ 0x5a).collect()
}

/// A UDP datagram of the guest's, with its header.
fn datagram(from: u16, to: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let repr = UdpRepr { src_port: from, dst_port: to.1 };
    let mut bytes = vec![0; 8 + payload.len()];
    repr.emit(
        &mut UdpPacket::new_unchecked(&mut bytes[..]),
        &IpAddress::Ipv4(GUEST),
        &IpAddress::Ipv4(to.0),
        payload.len(),
        |room| room.copy_from_slice(payload),
        &ChecksumCapabilities::default(),
    );
    bytes
}

/// A frame with bytes `range` of a datagram.
fn piece(to: Ipv4Addr, ident: u16, datagram: &[u8], range: std::ops::Range<usize>) -> Vec<u8> {
    let more = range.end < datagram.len();
    let mut frame = [&GATEWAY_MAC[..], &MAC, &[8, 0], &[0; 20]].concat();
    frame.extend_from_slice(&datagram[range.clone()]);
    let mut packet = Ipv4Packet::new_unchecked(&mut frame[14..]);
    packet.set_version(4);
    packet.set_header_len(20);
    packet.set_total_len(20 + range.len() as u16);
    packet.set_ident(ident);
    packet.set_more_frags(more);
    packet.set_frag_offset(range.start as u16);
    packet.set_hop_limit(64);
    packet.set_next_header(smoltcp::wire::IpProtocol::Udp);
    packet.set_src_addr(GUEST);
    packet.set_dst_addr(to);
    packet.fill_checksum();
    frame
}

fn pieces(to: Ipv4Addr, ident: u16, datagram: &[u8]) -> Vec<Vec<u8>> {
    let starts = (0..datagram.len()).step_by(ROOM);
    starts.map(|at| piece(to, ident, datagram, at..datagram.len().min(at + ROOM))).collect()
}

/// A guest that has its address, and speaks by hand from now on.
fn guest(switch: &Running) -> Port {
    let mut port = Guest::up(1, port(switch.connect())).detach().unwrap();
    send(&mut port, &[gratuitous_arp(MAC, GUEST)]);
    port
}

fn send(port: &mut Port, frames: &[Vec<u8>]) {
    for frame in frames {
        port.sender.send(frame).unwrap();
    }
    port.sender.flush().unwrap();
}

/// The next datagram for the guest, however many frames it comes in: its sender, ports, identification, and payload.
fn hear(port: &Port) -> ((Ipv4Addr, u16), u16, u16, Vec<u8>) {
    let mut bytes = Vec::new();
    let mut first = None;
    loop {
        let frame = port.frames.recv_timeout(SOON).expect("a frame of the datagram");
        assert!(frame.len() <= 1514, "a frame of {} bytes", frame.len());
        if frame[..6] != MAC || frame[12..14] != [8, 0] {
            continue;
        }
        let packet = Ipv4Packet::new_checked(&frame[14..]).unwrap();
        assert!(packet.verify_checksum());
        assert_eq!(usize::from(packet.frag_offset()), bytes.len(), "the pieces come in order");
        let is_whole = !packet.more_frags() && packet.frag_offset() == 0;
        assert_eq!(packet.dont_frag(), is_whole);
        assert_eq!(*first.get_or_insert(packet.ident()), packet.ident(), "one identification for all pieces");
        bytes.extend_from_slice(packet.payload());
        if packet.more_frags() {
            assert_eq!(packet.payload().len() % 8, 0);
            continue;
        }
        let from = packet.src_addr();
        let udp = UdpPacket::new_checked(&bytes[..]).unwrap();
        assert!(udp.verify_checksum(&IpAddress::Ipv4(from), &IpAddress::Ipv4(GUEST)));
        return ((from, udp.src_port()), udp.dst_port(), packet.ident(), udp.payload().to_vec());
    }
}

fn host_socket() -> (UdpSocket, u16) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut bytes = vec![0; 65_536];
    let (n, from) = socket.recv_from(&mut bytes).expect("the datagram arrives");
    bytes.truncate(n);
    (bytes, from)
}

#[test]
fn a_datagram_beyond_one_frame_goes_from_a_guest_to_a_host_and_back() {
    let switch = start(|_| {});
    let mut port = guest(&switch);
    let (server, at) = host_socket();
    let mut idents = Vec::new();
    for (ident, length) in LENGTHS.into_iter().enumerate() {
        let sent = pattern(length);
        send(&mut port, &pieces(GATEWAY, ident as u16, &datagram(5000, (GATEWAY, at), &sent)));
        let (arrived, from) = receive(&server);
        assert!(arrived == sent, "{} of {length} bytes", arrived.len());
        server.send_to(&sent, from).unwrap();
        let (sender, to, ident, back) = hear(&port);
        assert_eq!((sender, to), ((GATEWAY, at), 5000));
        assert!(back == sent, "{} of {length} bytes came back", back.len());
        assert!(!idents.contains(&ident), "an identification is used once");
        idents.push(ident);
    }
    let gateway = switch.stats.snapshot().gateway;
    assert_eq!((gateway.udp_datagrams, gateway.refused), (2 * LENGTHS.len() as u64, 0), "{gateway:?}");
}

#[test]
fn a_datagram_beyond_one_frame_goes_through_a_forward_and_back() {
    let forward = format!("udp:127.0.0.1:0-:{ECHO_PORT}");
    let switch = start(|config| config.forwards = vec![forward.parse().unwrap()]);
    let mut port = guest(&switch);
    let (client, _) = host_socket();
    for (ident, length) in LENGTHS.into_iter().enumerate() {
        let sent = pattern(length);
        client.send_to(&sent, switch.bound.forwards[0]).unwrap();
        let (from, to, _, arrived) = hear(&port);
        assert_eq!(to, ECHO_PORT);
        assert!(arrived == sent, "{} of {length} bytes", arrived.len());
        send(&mut port, &pieces(GATEWAY, ident as u16, &datagram(ECHO_PORT, from, &sent)));
        let (back, by) = receive(&client);
        assert_eq!(by, switch.bound.forwards[0]);
        assert!(back == sent, "{} of {length} bytes came back", back.len());
    }
}

#[test]
fn pieces_arrive_in_any_order_and_twice() {
    let switch = start(|_| {});
    let mut port = guest(&switch);
    let (server, at) = host_socket();
    let sent = pattern(10_000);
    let mut frames = pieces(GATEWAY, 7, &datagram(5000, (GATEWAY, at), &sent));
    frames.reverse();
    frames.swap(1, 4);
    let last = frames.pop().unwrap();
    let twice: Vec<_> = frames.iter().flat_map(|frame| [frame.clone(), frame.clone()]).collect();
    send(&mut port, &twice);
    send(&mut port, &[last]);
    assert!(receive(&server).0 == sent);
}

#[test]
fn a_datagram_whose_pieces_overlap_is_dropped_whole_and_the_next_one_arrives() {
    let switch = start(|_| {});
    let mut port = guest(&switch);
    let (server, at) = host_socket();
    let bad = datagram(5000, (GATEWAY, at), &pattern(4000));
    let range = |from, to| piece(GATEWAY, 1, &bad, from..to);
    send(&mut port, &[range(0, 1480), range(1472, 2960), range(1480, 2960), range(2960, 4008)]);
    let good = pattern(3000);
    send(&mut port, &pieces(GATEWAY, 2, &datagram(5000, (GATEWAY, at), &good)));
    assert!(receive(&server).0 == good);
    assert_eq!(switch.stats.snapshot().gateway.refused, 3, "each piece from the contradiction on");
}

#[test]
fn a_flood_of_first_pieces_stops_nobodys_datagrams() {
    let switch = start(|_| {});
    let mut port = guest(&switch);
    let (server, at) = host_socket();
    let long = datagram(5000, (GATEWAY, at), &pattern(4000));
    for ident in 0..5000 {
        send(&mut port, &[piece(GATEWAY, ident, &long, 0..1480)]);
    }
    let sent = pattern(3000);
    send(&mut port, &pieces(GATEWAY, 6000, &datagram(5000, (GATEWAY, at), &sent)));
    assert!(receive(&server).0 == sent);
}

#[test]
fn pieces_between_two_guests_pass_untouched_whatever_bytes_they_begin_with() {
    let switch = start(|_| {});
    let mut one = guest(&switch);
    let other = Guest::up(2, port(switch.connect())).detach().unwrap();
    other.frames.try_iter().for_each(drop);
    // The bytes where a whole datagram names its sender's port: here data, and not the DHCP server's port.
    let long = [&datagram(5000, (GATEWAY, 9), &[0; 1472])[..], &[0, 67, 0, 68], &[9; 100]].concat();
    let mut frames = pieces(Ipv4Addr::new(10, 0, 2, 16), 1, &long);
    frames.iter_mut().for_each(|frame| frame[..6].copy_from_slice(&[0x52, 0x54, 0, 0, 0, 2]));
    send(&mut one, &frames);
    for frame in &frames {
        assert!(other.frames.recv_timeout(SOON).expect("it passes") == *frame);
    }
    let mut forged = datagram(5000, (GATEWAY, 9), &[0; 1472]);
    forged[..2].copy_from_slice(&[0, 67]);
    send(&mut one, &[piece(GATEWAY, 2, &[forged, vec![0; 100]].concat(), 0..1480)]);
    let forged = || switch.stats.snapshot().ports[0].forged;
    while forged() == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(forged(), 1, "a first piece names its sender");
}
