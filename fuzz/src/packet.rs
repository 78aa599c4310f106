//! Ethernet frames that a fuzzer decides on: a form, then fields, then damage, then (mostly) right lengths and checksums.
//!
//! Sources: RFC 826 (ARP), 791 (IPv4), 768 (UDP), 9293 (TCP), 792 (ICMP), 2131 (DHCP).

use crate::Choices;
use std::net::Ipv4Addr;

type Mac = [u8; 6];

/// Who is there.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The gateway.
    pub gateway: (Mac, Ipv4Addr),
    /// Ports at the gateway's address that lead to sockets of ours, over TCP and UDP.
    pub outside: [u16; 2],
    /// The port that clients are forwarded to.
    pub guest_port: u16,
}

/// A TCP segment of the gateway's: its port, the guest's, the sequence number behind it, its acknowledgement.
pub type Seen = (u16, u16, u32, u32);

fn be16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]))
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from(be16(bytes, at)) << 16 | u32::from(be16(bytes, at + 2))
}

/// Remembers the last segment on each pair of ports.
pub fn watch(frame: &[u8], seen: &mut Vec<Seen>) {
    if be16(frame, 12) != 0x800 || frame.get(23) != Some(&6) || frame.len() < 54 {
        return;
    }
    let flags = frame[47];
    let payload = usize::from(be16(frame, 16)).saturating_sub(20 + usize::from(frame[46] >> 4) * 4);
    let next =
        be32(frame, 38).wrapping_add(payload as u32 + u32::from(flags & 1) + u32::from(flags >> 1 & 1));
    let ports = (be16(frame, 34), be16(frame, 36));
    seen.retain(|other| (other.0, other.1) != ports);
    seen.push((ports.0, ports.1, next, be32(frame, 42)));
    if seen.len() > 8 {
        seen.remove(0);
    }
}

/// Whether a frame leads to nobody but the guests, the gateway, and sockets of ours. Stricter than the gateway.
pub fn stays_inside(frame: &[u8], plan: &Plan) -> bool {
    if be16(frame, 12) != 0x800 {
        return true;
    }
    let Some(to) = frame.get(30..34) else { return true };
    let protocol = frame[23];
    if !matches!(protocol, 6 | 17) || to[0] >= 224 || (to[..3] == [10, 0, 2] && to[3] != 2 && to[3] != 3) {
        return true;
    }
    let segment = 14 + 4 * usize::from(frame[14] & 15);
    // Only a SYN alone makes the gateway call anybody.
    if protocol == 6 && frame.get(segment + 13).is_none_or(|flags| flags & 0x17 != 2) {
        return true;
    }
    let port = be16(frame, segment + 2);
    to[..3] == [10, 0, 2] && (port == 67 || port == 53 || port == plan.outside[usize::from(protocol == 17)])
}

/// A frame of guest `who`.
pub fn frame(choices: &mut Choices<'_>, who: u8, plan: &Plan, seen: &[Seen]) -> Vec<u8> {
    let form = choices.u8();
    let own: Mac = [0x52, 0x54, 0, 0, 0, if form & 0x80 == 0 { who + 1 } else { 1 }];
    let address = Ipv4Addr::new(10, 0, 2, if form & 0x40 == 0 { 15 } else { choices.u8() });
    let from = (own, address);
    let mut frame = match form & 7 {
        0 | 1 => tcp(choices, from, plan, seen),
        2 => udp(choices, from, plan),
        3 => dhcp(choices, from, plan),
        4 => arp(choices, from, plan),
        5 => icmp(choices, from, plan),
        6 => udp(choices, from, plan),
        _ => return [&header(choices, from.0, plan, choices_type(form)), choices.piece()].concat(),
    };
    if form & 0x38 == 0x38 {
        return damaged(choices, frame);
    }
    if form & 8 != 0 {
        frame = damaged(choices, frame);
        seal(&mut frame);
    }
    frame
}

fn choices_type(form: u8) -> u16 {
    [0x800, 0x806, 0x8035, 0x86dd][usize::from(form >> 3 & 3)]
}

/// Up to four bytes changed; perhaps cut short, perhaps grown.
fn damaged(choices: &mut Choices<'_>, mut frame: Vec<u8>) -> Vec<u8> {
    let how = choices.u8();
    for _ in 0..how & 3 {
        let at = choices.below(frame.len().min(256) as u64) as usize;
        frame[at] = choices.u8();
    }
    match how >> 5 {
        0 => frame.truncate(usize::from(choices.u16()) % (frame.len() + 1)),
        1 => frame.resize(frame.len() + usize::from(choices.u16()) % 2000, how),
        _ => {}
    }
    frame
}

fn header(choices: &mut Choices<'_>, own: Mac, plan: &Plan, kind: u16) -> [u8; 14] {
    let to = match choices.below(8) {
        0..5 => plan.gateway.0,
        5 => [0xff; 6],
        6 => [0x52, 0x54, 0, 0, 0, choices.u8()],
        _ => [choices.u8(), 0, 0, 0, 0, 9],
    };
    let own = if choices.one_in(16) { plan.gateway.0 } else { own };
    let mut header = [0; 14];
    header[..6].copy_from_slice(&to);
    header[6..12].copy_from_slice(&own);
    header[12..].copy_from_slice(&kind.to_be_bytes());
    header
}

fn ipv4(
    choices: &mut Choices<'_>,
    from: (Mac, Ipv4Addr),
    to: Ipv4Addr,
    plan: &Plan,
    protocol: u8,
    body: &[u8],
) -> Vec<u8> {
    let mut frame = header(choices, from.0, plan, 0x800).to_vec();
    let len = (20 + body.len()) as u16;
    frame.extend_from_slice(&[0x45, 0]);
    frame.extend_from_slice(&len.to_be_bytes());
    frame.extend_from_slice(&[0, 0, 0, 0, 64, protocol, 0, 0]);
    frame.extend_from_slice(&from.1.octets());
    frame.extend_from_slice(&to.octets());
    frame.extend_from_slice(body);
    seal(&mut frame);
    frame
}

/// A segment of a connection that was seen, or of one to be; near to what it should be in every field.
fn tcp(choices: &mut Choices<'_>, from: (Mac, Ipv4Addr), plan: &Plan, seen: &[Seen]) -> Vec<u8> {
    let how = choices.u8();
    let known = seen.get(usize::from(how & 7)).copied().filter(|_| how & 0x40 == 0);
    let (to_port, own_port, ack, seq) = known.unwrap_or((plan.outside[0], 1000 + u16::from(how & 7), 0, 77));
    let near = |choices: &mut Choices<'_>| {
        if choices.one_in(4) { u32::from(choices.u16()).wrapping_sub(4000) } else { 0 }
    };
    let flags = match (known, choices.u8()) {
        (None, flags) if flags & 0x80 == 0 => 2,
        (Some(_), 0..0x60) => 0x10,
        (Some(_), 0x60..0x80) => 0x12,
        (_, flags) => flags & 0x3f,
    };
    let payload = if how & 0x10 == 0 { 0 } else { choices.u16() % 1461 };
    let options = if how & 0x20 == 0 { &[][..] } else { choices.take(12) };
    let mut body = Vec::new();
    body.extend_from_slice(&own_port.to_be_bytes());
    body.extend_from_slice(&to_port.to_be_bytes());
    body.extend_from_slice(&seq.wrapping_add(near(choices)).to_be_bytes());
    body.extend_from_slice(&ack.wrapping_add(near(choices)).to_be_bytes());
    let words = 5 + options.len().div_ceil(4);
    body.extend_from_slice(&[(words << 4) as u8, flags]);
    body.extend_from_slice(&if how & 0x80 == 0 { 8192 } else { choices.u16() }.to_be_bytes());
    body.extend_from_slice(&[0; 4]);
    body.extend_from_slice(options);
    body.resize(4 * words, 0);
    body.resize(4 * words + usize::from(payload), how);
    ipv4(choices, from, plan.gateway.1, plan, 6, &body)
}

fn udp_body(ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend_from_slice(&ports.0.to_be_bytes());
    body.extend_from_slice(&ports.1.to_be_bytes());
    body.extend_from_slice(&((8 + payload.len()) as u16).to_be_bytes());
    body.extend_from_slice(&[0; 2]);
    body.extend_from_slice(payload);
    body
}

fn udp(choices: &mut Choices<'_>, from: (Mac, Ipv4Addr), plan: &Plan) -> Vec<u8> {
    let how = choices.u8();
    let (to, port) = match how & 3 {
        0 | 1 => (plan.gateway.1, plan.outside[1]),
        2 => (Ipv4Addr::new(10, 0, 2, 3), 53),
        _ => (Ipv4Addr::new(10, 0, 2, choices.u8()), choices.u16()),
    };
    let payload = vec![how; usize::from(choices.u16()) % 1600];
    ipv4(choices, from, to, plan, 17, &udp_body((2000 + u16::from(how >> 2 & 15), port), &payload))
}

/// A request whose options are the fuzzer's.
fn dhcp(choices: &mut Choices<'_>, from: (Mac, Ipv4Addr), plan: &Plan) -> Vec<u8> {
    let how = choices.u8();
    let mut payload = vec![0; 240];
    payload[..3].copy_from_slice(&[1, 1, 6]);
    payload[10] = how & 0x80;
    if how & 0x40 != 0 {
        payload[12..16].copy_from_slice(&from.1.octets());
    }
    payload[28..34].copy_from_slice(&[2, 0, 0, 0, how & 7, choices.u8()]);
    payload[236..].copy_from_slice(&[99, 130, 83, 99]);
    payload.extend_from_slice(&[53, 1, 1 + (how >> 3 & 7)]);
    if how & 0x20 != 0 {
        payload.extend_from_slice(&[50, 4, 10, 0, 2, choices.u8()]);
    }
    payload.extend_from_slice(choices.piece());
    payload.push(255);
    let to = if how & 1 == 0 { Ipv4Addr::BROADCAST } else { plan.gateway.1 };
    let source = if how & 2 == 0 { Ipv4Addr::UNSPECIFIED } else { from.1 };
    ipv4(choices, (from.0, source), to, plan, 17, &udp_body((68, 67), &payload))
}

fn arp(choices: &mut Choices<'_>, from: (Mac, Ipv4Addr), plan: &Plan) -> Vec<u8> {
    let mut frame = header(choices, from.0, plan, 0x806).to_vec();
    let how = choices.u8();
    frame.extend_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1 + (how & 1)]);
    frame.extend_from_slice(&from.0);
    frame.extend_from_slice(&from.1.octets());
    frame.extend_from_slice(&[0; 6]);
    let target = if how & 2 == 0 { plan.gateway.1 } else { Ipv4Addr::new(10, 0, 2, choices.u8()) };
    frame.extend_from_slice(&target.octets());
    frame
}

fn icmp(choices: &mut Choices<'_>, from: (Mac, Ipv4Addr), plan: &Plan) -> Vec<u8> {
    let how = choices.u8();
    let mut body = vec![if how & 1 == 0 { 8 } else { how >> 1 }, 0, 0, 0];
    body.resize(4 + usize::from(choices.u16()) % 2000, how);
    ipv4(choices, from, plan.gateway.1, plan, 1, &body)
}

fn sum(bytes: &[u8], start: u32) -> u32 {
    bytes
        .chunks(2)
        .fold(start, |sum, pair| sum + (u32::from(pair[0]) << 8) + pair.get(1).map_or(0, |&b| u32::from(b)))
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Right checksums for an IPv4 packet and what is in it; its total length becomes what is there.
pub fn seal(frame: &mut [u8]) {
    if frame.len() < 34 || be16(frame, 12) != 0x800 {
        return;
    }
    let head = (4 * usize::from(frame[14] & 15)).clamp(20, frame.len() - 14);
    let packet = &mut frame[14..];
    let len = packet.len().min(0xffff);
    let packet = &mut packet[..len];
    packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    packet[10..12].fill(0);
    let crc = fold(sum(&packet[..head], 0));
    packet[10..12].copy_from_slice(&crc.to_be_bytes());
    let at = match packet[9] {
        6 => 16,
        17 => 6,
        1 => 2,
        _ => return,
    };
    let body = len - head;
    if body < at + 2 {
        return;
    }
    let pseudo = if packet[9] == 1 { 0 } else { sum(&packet[12..20], u32::from(packet[9]) + body as u32) };
    if packet[9] == 17 {
        packet[head + 4..head + 6].copy_from_slice(&(body as u16).to_be_bytes());
    }
    packet[head + at..head + at + 2].fill(0);
    let crc = match fold(sum(&packet[head..], pseudo)) {
        0 if packet[9] == 17 => 0xffff,
        crc => crc,
    };
    packet[head + at..head + at + 2].copy_from_slice(&crc.to_be_bytes());
}
