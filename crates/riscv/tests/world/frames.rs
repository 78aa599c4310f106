//! Ethernet frames as a client makes and reads them: ARP, ICMP echo, UDP.

pub const GUEST_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
pub const GUEST_IP: [u8; 4] = [10, 0, 2, 15];
pub const CLIENT_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 2];
pub const CLIENT_IP: [u8; 4] = [10, 0, 2, 2];
const SERVICE_PORT: u16 = 7000;
const CLIENT_PORT: u16 = 40_000;

fn checksum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0];
    header[2..4].copy_from_slice(&(20 + payload.len() as u16).to_be_bytes());
    header.extend_from_slice(&CLIENT_IP);
    header.extend_from_slice(&GUEST_IP);
    let sum = checksum(&[&header]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    [&GUEST_MAC[..], &CLIENT_MAC, &[8, 0], &header, payload].concat()
}

/// A request to the service.
pub fn udp(text: &str) -> Vec<u8> {
    let len = 8 + text.len() as u16;
    let mut datagram =
        [CLIENT_PORT.to_be_bytes(), SERVICE_PORT.to_be_bytes(), len.to_be_bytes(), [0; 2]].concat();
    datagram.extend_from_slice(text.as_bytes());
    let sum = checksum(&[&CLIENT_IP, &GUEST_IP, &[0, 17], &len.to_be_bytes(), &datagram]);
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    ipv4(17, &datagram)
}

/// The text of an answer from the service, if the frame is one and all its checksums are right.
pub fn udp_text(frame: &[u8]) -> Option<String> {
    let (ip, datagram) = (frame.get(14..34)?, frame.get(34..)?);
    let ours = frame[..6] == CLIENT_MAC && frame[6..12] == GUEST_MAC && frame[12..14] == [8, 0];
    if !ours || ip[9] != 17 || ip[12..16] != GUEST_IP || ip[16..20] != CLIENT_IP || datagram.len() < 8 {
        return None;
    }
    let len = datagram[4..6].to_owned();
    assert_eq!(usize::from(len[0]) << 8 | usize::from(len[1]), datagram.len(), "UDP length");
    assert_eq!(checksum(&[ip]), 0, "IP checksum");
    assert_eq!(checksum(&[&ip[12..20], &[0, 17], &len, datagram]), 0, "UDP checksum");
    assert_eq!(datagram[2..4], CLIENT_PORT.to_be_bytes());
    Some(String::from_utf8_lossy(&datagram[8..]).into_owned())
}

/// Who has the guest's address?
pub fn arp_request() -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, 1];
    [&[0xff; 6][..], &CLIENT_MAC, &[8, 6], &head, &CLIENT_MAC, &CLIENT_IP, &[0; 6], &GUEST_IP].concat()
}

/// What the guest answers to that.
pub fn arp_reply() -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, 2];
    [&CLIENT_MAC[..], &GUEST_MAC, &[8, 6], &head, &GUEST_MAC, &GUEST_IP, &CLIENT_MAC, &CLIENT_IP].concat()
}

/// What the guest says when its network comes up: who it is.
pub fn gratuitous_arp() -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, 1];
    [&[0xff; 6][..], &GUEST_MAC, &[8, 6], &head, &GUEST_MAC, &GUEST_IP, &[0; 6], &GUEST_IP].concat()
}

/// A ping with a payload.
pub fn ping(payload: &[u8]) -> Vec<u8> {
    let mut message = [&[8, 0, 0, 0, 0x12, 0x34, 0, 1], payload].concat();
    let sum = checksum(&[&message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    ipv4(1, &message)
}

/// The payload of a pong whose checksums are right.
pub fn pong_payload(frame: &[u8]) -> Option<&[u8]> {
    let message =
        frame.get(34..).filter(|message| frame[23] == 1 && message.len() >= 8 && message[0] == 0)?;
    assert_eq!((checksum(&[&frame[14..34]]), checksum(&[message])), (0, 0));
    Some(&message[8..])
}
