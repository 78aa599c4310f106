//! Packets taken apart and put together, by smoltcp's wire module: what the gateway does without its stack.
//!
//! Invariant: everything here takes untrusted bytes and answers `None` to what is malformed.

use crate::config::MacAddr;
use crate::gateway::fragments::{Piece, cut};
use crate::gateway::stack::{FRAME_BYTES, Queues};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr,
    IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber, UdpPacket,
    UdpRepr,
};
use std::net::{Ipv4Addr, SocketAddrV4};

/// Bytes before an IPv4 packet's payload: Ethernet and IPv4 headers.
const IP_HEADERS: usize = 14 + 20;
/// Bytes before a UDP datagram's payload: Ethernet, IPv4 and UDP headers.
const UDP_HEADERS: usize = IP_HEADERS + 8;
/// The longest UDP payload that fits a guest's frame. Longer ones are fragmented.
pub(crate) const UDP_PAYLOAD_WHOLE_MAX: usize = FRAME_BYTES - UDP_HEADERS;
/// The longest UDP payload that fits an IPv4 packet.
pub(crate) const UDP_PAYLOAD_MAX: usize = 65_535 - 20 - 8;
/// EtherType of reverse ARP, with which hypervisors announce a MAC (RFC 903; QEMU sends the same).
const ETHERTYPE_RARP: u16 = 0x8035;
/// Hop limit of what the gateway sends.
const HOP_LIMIT: u8 = 64;

/// An ARP packet, as far as the gateway cares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Arp {
    pub(crate) request: bool,
    pub(crate) sender_mac: MacAddr,
    pub(crate) sender: Ipv4Addr,
    pub(crate) target: Ipv4Addr,
}

/// An IPv4 packet that is whole, not a fragment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet<'a> {
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
    pub(crate) protocol: IpProtocol,
    pub(crate) payload: &'a [u8],
}

/// A piece of an IPv4 packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fragment<'a> {
    /// The packet, as far as it is here.
    pub(crate) packet: Packet<'a>,
    pub(crate) ident: u16,
    pub(crate) piece: Piece<'a>,
}

/// What kind of frame came to the gateway.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind<'a> {
    Arp(Arp),
    Ipv4(Packet<'a>),
    Fragment(Fragment<'a>),
    /// Somebody says where a MAC is, and no more.
    Rarp,
    Other,
}

/// Classifies a frame; `None` if what it claims to be is malformed.
pub(crate) fn parse(frame: &[u8]) -> Option<Kind<'_>> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    match frame.ethertype() {
        EthernetProtocol::Arp => {
            let packet = ArpPacket::new_checked(frame.payload()).ok()?;
            let ArpRepr::EthernetIpv4 {
                operation,
                source_hardware_addr,
                source_protocol_addr,
                target_protocol_addr,
                ..
            } = ArpRepr::parse(&packet).ok()?
            else {
                return None;
            };
            Some(Kind::Arp(Arp {
                request: operation == ArpOperation::Request,
                sender_mac: source_hardware_addr.0,
                sender: source_protocol_addr,
                target: target_protocol_addr,
            }))
        }
        EthernetProtocol::Ipv4 => {
            let packet = Ipv4Packet::new_checked(frame.payload()).ok()?;
            // By hand: smoltcp's own summary knows whole packets only.
            if packet.version() != 4 || packet.header_len() < 20 || !packet.verify_checksum() {
                return None;
            }
            let (offset, more, bytes) = (packet.frag_offset(), packet.more_frags(), packet.payload());
            let whole = Packet {
                source: packet.src_addr(),
                destination: packet.dst_addr(),
                protocol: packet.next_header(),
                payload: bytes,
            };
            if !more && offset == 0 {
                return Some(Kind::Ipv4(whole));
            }
            let header = usize::from(packet.header_len());
            let piece = Piece { header, offset: usize::from(offset), more, bytes };
            Some(Kind::Fragment(Fragment { packet: whole, ident: packet.ident(), piece }))
        }
        EthernetProtocol::Unknown(ETHERTYPE_RARP) => Some(Kind::Rarp),
        _ => Some(Kind::Other),
    }
}

/// The ports and the payload of a UDP datagram whose checksum is right.
pub(crate) fn parse_udp<'a>(packet: &Packet<'a>) -> Option<(u16, u16, &'a [u8])> {
    let datagram = UdpPacket::new_checked(packet.payload).ok()?;
    let (source, destination) = (IpAddress::Ipv4(packet.source), IpAddress::Ipv4(packet.destination));
    let repr = UdpRepr::parse(&datagram, &source, &destination, &ChecksumCapabilities::default()).ok()?;
    Some((repr.src_port, repr.dst_port, datagram.payload()))
}

/// The ports of a TCP segment that opens a connection (SYN and nothing else that matters); the checksum is
/// smoltcp's business, which sees the segment later.
pub(crate) fn parse_syn(packet: &Packet<'_>) -> Option<(u16, u16)> {
    let segment = TcpPacket::new_checked(packet.payload).ok()?;
    let opens = segment.syn() && !segment.ack() && !segment.rst() && !segment.fin();
    (opens && segment.src_port() != 0 && segment.dst_port() != 0)
        .then(|| (segment.src_port(), segment.dst_port()))
}

/// What a guest says to a SYN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    /// SYN-ACK: somebody listens there.
    Taken,
    /// RST.
    Refused,
}

/// The ports of a TCP segment that answers a SYN, and what it says.
pub(crate) fn parse_answer(packet: &Packet<'_>) -> Option<(u16, u16, Answer)> {
    let segment = TcpPacket::new_checked(packet.payload).ok()?;
    let (source, destination) = (IpAddress::Ipv4(packet.source), IpAddress::Ipv4(packet.destination));
    let answer = match (segment.rst(), segment.syn() && segment.ack()) {
        (true, _) => Answer::Refused,
        (false, true) => Answer::Taken,
        (false, false) => return None,
    };
    let whole = segment.verify_checksum(&source, &destination);
    whole.then(|| (segment.src_port(), segment.dst_port(), answer))
}

/// Queues an IPv4 packet whose payload of `payload_bytes` is written by `fill`; `macs` are destination and source.
fn emit_ipv4(
    queues: &mut Queues,
    macs: (MacAddr, MacAddr),
    protocol: IpProtocol,
    (src_addr, dst_addr): (Ipv4Addr, Ipv4Addr),
    payload_bytes: usize,
    fill: impl FnOnce(&mut Ipv4Packet<&mut [u8]>),
) {
    let ip = Ipv4Repr {
        src_addr,
        dst_addr,
        next_header: protocol,
        payload_len: payload_bytes,
        hop_limit: HOP_LIMIT,
    };
    queues.emit(IP_HEADERS + payload_bytes, |bytes| {
        let mut frame = EthernetFrame::new_unchecked(bytes);
        ethernet(macs, EthernetProtocol::Ipv4).emit(&mut frame);
        let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
        ip.emit(&mut packet, &ChecksumCapabilities::default());
        fill(&mut packet);
    });
}

/// Queues the SYN of a connection that is not to come about.
pub(crate) fn emit_syn(
    queues: &mut Queues,
    macs: (MacAddr, MacAddr),
    from: SocketAddrV4,
    to: SocketAddrV4,
    sequence: u32,
) {
    let tcp = TcpRepr {
        src_port: from.port(),
        dst_port: to.port(),
        control: TcpControl::Syn,
        seq_number: TcpSeqNumber(sequence.cast_signed()),
        ack_number: None,
        window_len: u16::MAX,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    emit_ipv4(queues, macs, IpProtocol::Tcp, (*from.ip(), *to.ip()), tcp.buffer_len(), |packet| {
        let (source, destination) = (IpAddress::Ipv4(*from.ip()), IpAddress::Ipv4(*to.ip()));
        let mut segment = TcpPacket::new_unchecked(packet.payload_mut());
        tcp.emit(&mut segment, &source, &destination, &ChecksumCapabilities::default());
    });
}

/// Queues a UDP datagram; the caller has checked that the payload fits a frame.
pub(crate) fn emit_udp(
    queues: &mut Queues,
    macs: (MacAddr, MacAddr),
    from: SocketAddrV4,
    to: SocketAddrV4,
    payload: &[u8],
) {
    let bytes = UDP_HEADERS - IP_HEADERS + payload.len();
    emit_ipv4(queues, macs, IpProtocol::Udp, (*from.ip(), *to.ip()), bytes, |packet| {
        write_udp(packet.payload_mut(), from, to, payload);
    });
}

/// Queues a UDP datagram in pieces; the caller has checked that the payload fits an IPv4 packet.
pub(crate) fn emit_udp_in_pieces(
    queues: &mut Queues,
    macs: (MacAddr, MacAddr),
    from: SocketAddrV4,
    to: SocketAddrV4,
    payload: &[u8],
    ident: u16,
) {
    let mut datagram = vec![0; UDP_HEADERS - IP_HEADERS + payload.len()];
    write_udp(&mut datagram, from, to, payload);
    for (offset, more, bytes) in cut(&datagram, FRAME_BYTES - IP_HEADERS) {
        emit_ipv4(queues, macs, IpProtocol::Udp, (*from.ip(), *to.ip()), bytes.len(), |packet| {
            packet.set_ident(ident);
            packet.set_dont_frag(false);
            packet.set_more_frags(more);
            // Below 65,536, as the datagram is.
            packet.set_frag_offset(offset as u16);
            packet.fill_checksum();
            packet.payload_mut().copy_from_slice(bytes);
        });
    }
}

fn write_udp(room: &mut [u8], from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) {
    UdpRepr { src_port: from.port(), dst_port: to.port() }.emit(
        &mut UdpPacket::new_unchecked(room),
        &IpAddress::Ipv4(*from.ip()),
        &IpAddress::Ipv4(*to.ip()),
        payload.len(),
        |room| room.copy_from_slice(payload),
        &ChecksumCapabilities::default(),
    );
}

/// Queues an ARP request of the gateway's for `target`.
pub(crate) fn emit_arp_request(queues: &mut Queues, mac: MacAddr, sender: Ipv4Addr, target: Ipv4Addr) {
    let repr = arp(ArpOperation::Request, (mac, sender), ([0; 6], target));
    queues.emit(14 + repr.buffer_len(), |bytes| write_arp(bytes, ([0xff; 6], mac), &repr));
}

/// The ARP reply that would tell `to` that `who` is where it is.
pub(crate) fn arp_reply(who: (MacAddr, Ipv4Addr), to: (MacAddr, Ipv4Addr)) -> Vec<u8> {
    let repr = arp(ArpOperation::Reply, who, to);
    let mut bytes = vec![0; 14 + repr.buffer_len()];
    write_arp(&mut bytes, (to.0, who.0), &repr);
    bytes
}

fn arp(operation: ArpOperation, source: (MacAddr, Ipv4Addr), target: (MacAddr, Ipv4Addr)) -> ArpRepr {
    ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: EthernetAddress(source.0),
        source_protocol_addr: source.1,
        target_hardware_addr: EthernetAddress(target.0),
        target_protocol_addr: target.1,
    }
}

fn write_arp(bytes: &mut [u8], macs: (MacAddr, MacAddr), repr: &ArpRepr) {
    let mut frame = EthernetFrame::new_unchecked(bytes);
    ethernet(macs, EthernetProtocol::Arp).emit(&mut frame);
    repr.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
}

/// An Ethernet header; `macs` are destination and source, in the order of the frame.
fn ethernet(macs: (MacAddr, MacAddr), ethertype: EthernetProtocol) -> EthernetRepr {
    EthernetRepr { dst_addr: EthernetAddress(macs.0), src_addr: EthernetAddress(macs.1), ethertype }
}
