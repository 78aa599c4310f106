//! The switch's packet path against hostile guests: the port protocol, the fabric, and the gateway with its DHCP, UDP
//! and TCP, which smoltcp does. The switch is the real one, with real sockets; two ports hang on it, and the fuzzer
//! says what they send. Frames are sealed (lengths and checksums are right) unless the fuzzer decides otherwise.
//!
//! Held true: no panic; frames that come out are whole and within bounds; nobody is sent what he sent himself; the gateway's address
//! stays the gateway's. Nothing leaves the host: of what a guest may call outside, only the target's own sockets are let
//! through. The sources are the switch's, compiled here as they are.
#![no_main]
#![allow(dead_code, unreachable_pub, reason = "the sources have more than is fuzzed")]

#[path = "../../crates/switch/src/config.rs"]
mod config;
#[path = "../../crates/switch/src/fabric.rs"]
mod fabric;
#[path = "../../crates/switch/src/gateway/mod.rs"]
mod gateway;
#[path = "../../crates/switch/src/owners.rs"]
mod owners;
#[path = "../../crates/switch/src/poller.rs"]
mod poller;
#[path = "../../crates/switch/src/port.rs"]
mod port;
#[path = "../../crates/switch/src/stats.rs"]
mod stats;
#[path = "../../crates/switch/src/stream.rs"]
mod stream;
#[path = "../../crates/switch/src/switch.rs"]
mod switch;
#[path = "../../crates/switch/src/wire.rs"]
mod wire;

use config::{Config, SwitchAddr};
use libfuzzer_sys::fuzz_target;
use pollux_fuzz::{Choices, packet};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use switch::Switch;

/// Deeds of one story.
const DEEDS_MAX: usize = 120;
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const GATEWAY_MAC: [u8; 6] = [0x52, 0x55, 10, 0, 2, 2];
/// Where the gateway's forward leads, and ports that guests call from.
const GUEST_PORT: u16 = 80;

/// The target's own sockets, which guests may call.
struct Outside {
    listener: TcpListener,
    sink: UdpSocket,
}

impl Outside {
    fn ports(&self) -> [u16; 2] {
        let port = |address: std::io::Result<SocketAddr>| address.expect("bound").port();
        [port(self.listener.local_addr()), port(self.sink.local_addr())]
    }
}

fn outside() -> &'static Outside {
    static OUTSIDE: OnceLock<Outside> = OnceLock::new();
    OUTSIDE.get_or_init(|| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let sink = UdpSocket::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a listener");
        sink.set_nonblocking(true).expect("a socket");
        Outside { listener, sink }
    })
}

/// No TIME-WAIT: thousands of these are made every second.
fn abort_on_close(stream: TcpStream) -> TcpStream {
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).expect("an option");
    stream.set_nonblocking(true).expect("a stream");
    stream
}

/// The guest's end of a port.
struct Guest {
    stream: UnixStream,
    heard: Vec<u8>,
    hostile: bool,
}

struct Story<'a> {
    choices: Choices<'a>,
    switch: Switch,
    now: Instant,
    guests: Vec<Guest>,
    clients: Vec<TcpStream>,
    /// TCP as the guests have seen it: ports, and where the sequence numbers are.
    seen: Vec<packet::Seen>,
    /// Room to read into, kept for its zeros' price.
    buffer: Vec<u8>,
}

impl<'a> Story<'a> {
    fn new(mut choices: Choices<'a>) -> Self {
        let how = choices.u8();
        let path = std::env::temp_dir().join(format!("pollux-fuzz-{}", std::process::id()));
        let mut config = Config::new(SwitchAddr::Unix(path.clone()));
        let [_, sink] = outside().ports();
        config.dns_upstream = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, sink)));
        config.nat = how & 1 == 0;
        config.forwards = vec![format!("tcp::0-:{GUEST_PORT}").parse().expect("a forward")];
        (config.tcp_flows_max, config.udp_flows_max, config.tcp_buffer_bytes) = (4, 4, 4096);
        config.port_queue_bytes = if how & 2 == 0 { 1 << 20 } else { 3000 };
        let switch = Switch::bind(config).expect("a switch");
        let plug = |_| {
            let mut stream = UnixStream::connect(&path).expect("the switch listens");
            stream.set_nonblocking(true).expect("a stream");
            stream.write_all(&wire::HELLO).expect("room");
            Guest { stream, heard: Vec::new(), hostile: false }
        };
        let guests = (0..2).map(plug).collect();
        Self {
            choices,
            switch,
            now: Instant::now(),
            guests,
            clients: Vec::new(),
            seen: Vec::new(),
            buffer: vec![0; 65_536],
        }
    }

    fn play(&mut self) {
        self.turn();
        for _ in 0..DEEDS_MAX {
            if self.choices.is_empty() {
                break;
            }
            let deed = self.choices.u8();
            let who = usize::from(deed >> 7);
            match deed & 15 {
                0..10 if deed & 0x30 == 0x30 => self.send_pieces(who),
                0..10 => self.send_frame(who),
                10 => self.send_bytes(who),
                11 => self.call_forward(),
                12 => self.client_deed(),
                13 => self.now += Duration::from_millis(u64::from(self.choices.u16())),
                14 => self.answer_outside(),
                _ => self.claim(who),
            }
            if deed & 0x40 == 0 {
                self.turn();
            }
        }
        self.turn();
        self.turn();
    }

    fn turn(&mut self) {
        self.now += Duration::from_millis(1);
        for guest in &mut self.guests {
            // Signs of life: a port that gives none is closed, and the story is over.
            if !guest.hostile && guest.stream.write(&wire::BEAT).is_ok_and(|n| n < wire::BEAT.len()) {
                guest.hostile = true;
            }
        }
        let mut events = Vec::new();
        self.switch.wait(Some(Duration::ZERO), &mut events).expect("epoll");
        assert!(self.switch.turn(&events, self.now));
        for index in 0..self.guests.len() {
            self.hear(index);
        }
        while let Ok((client, _)) = outside().listener.accept() {
            self.clients.push(abort_on_close(client));
        }
    }

    /// Reads a port dry; every frame must make sense.
    fn hear(&mut self, index: usize) {
        let guest = &mut self.guests[index];
        while let Ok(n @ 1..) = guest.stream.read(&mut self.buffer) {
            guest.heard.extend_from_slice(&self.buffer[..n]);
        }
        let mut at = 0;
        if guest.heard.len() >= 8 && guest.heard.starts_with(&wire::HELLO) {
            at = 8;
        }
        while let Some(prefix) = guest.heard[at..].first_chunk::<4>() {
            let len = u32::from_le_bytes(*prefix) as usize;
            if len == 0 {
                at += 4; // A sign of life.
                continue;
            }
            assert!((14..=wire::FRAME_BYTES_MAX).contains(&len), "a frame of {len} bytes");
            let Some(frame) = guest.heard.get(at + 4..at + 4 + len) else { break };
            if frame[6..12] == GATEWAY_MAC {
                assert!(len <= 1514, "the gateway sends a frame of {len} bytes");
                packet::watch(frame, &mut self.seen);
            }
            at += 4 + len;
        }
        guest.heard.drain(..at);
    }

    /// A frame of the fuzzer's that may be sent.
    fn frame(&mut self, who: usize) -> Option<Vec<u8>> {
        let plan = packet::Plan {
            gateway: (GATEWAY_MAC, GATEWAY),
            outside: outside().ports(),
            guest_port: GUEST_PORT,
        };
        let frame = packet::frame(&mut self.choices, who as u8, &plan, &self.seen);
        let is_frame = (14..=wire::FRAME_BYTES_MAX).contains(&frame.len());
        (is_frame && packet::stays_inside(&frame, &plan) && !self.guests[who].hostile).then_some(frame)
    }

    fn send_frame(&mut self, who: usize) {
        let Some(frame) = self.frame(who) else { return };
        let mut bytes = Vec::new();
        wire::push_frame(&mut bytes, &frame);
        self.write(who, &bytes);
    }

    /// A packet in pieces, some of them missing, doubled or shifted over others. Where it leads stands in the first
    /// piece, which is the same as the checked frame's beginning.
    fn send_pieces(&mut self, who: usize) {
        let Some(mut frame) = self.frame(who) else { return };
        let how = self.choices.u8();
        let head = 14 + 4 * usize::from(frame.get(14).map_or(0, |first| first & 15));
        if frame.get(12..14) != Some(&[8, 0]) || head < 34 || frame.len() <= head + 8 {
            return;
        }
        let mut room = 8 * (1 + usize::from(how & 31));
        if how & 0x20 != 0 {
            // Longer than its frame: up to the longest that there is, and beyond.
            frame.resize(head + usize::from(self.choices.u16()).max(9), how);
            packet::seal(&mut frame);
            room = 1480;
        }
        let (head, body) = frame.split_at(head);
        let mut pieces: Vec<_> = body.chunks(room).enumerate().map(|(n, bytes)| (n * room, bytes)).collect();
        if how & 0x40 != 0 {
            pieces.reverse();
        }
        let mut bytes = Vec::new();
        for (offset, piece) in pieces {
            let more = offset + piece.len() < body.len();
            let (offsets, count) = match self.choices.u8() {
                0..0xc0 => ([offset; 2], 1),
                0xc0..0xd8 => ([offset; 2], 0),
                0xd8..0xf0 => ([offset; 2], 2),
                _ => ([offset, offset + 8], 2),
            };
            for &offset in &offsets[..count] {
                wire::push_frame(&mut bytes, &piece_frame(head, how >> 6, offset, more, piece));
            }
        }
        self.write(who, &bytes);
    }

    /// A process says whose MAC speaks here: guest 1's moves with it, or does not.
    fn claim(&mut self, who: usize) {
        let how = self.choices.u8();
        if self.guests[who].hostile {
            return;
        }
        let mac = [0x52, 0x54, 0, 0, 0, 1 + (how >> 7)];
        let vm = vec![b'v'; usize::from(how >> 6 & 1)];
        let claim = wire::Claim { generation: u64::from(how & 15), instance: [who as u8; 8], mac, vm };
        let mut bytes = Vec::new();
        claim.push(&mut bytes);
        self.write(who, &bytes);
    }

    fn write(&mut self, who: usize, bytes: &[u8]) {
        // A port that was closed, or is full, takes nothing: the guest's loss.
        if self.guests[who].stream.write(bytes).is_ok_and(|n| n < bytes.len()) {
            self.guests[who].hostile = true;
        }
    }

    /// Bytes that are no frames: from then on this guest's stream has no meaning to us.
    fn send_bytes(&mut self, who: usize) {
        let bytes = self.choices.piece();
        // What looks like a frame is held to the same rule: a length of one ends the connection.
        let mut ended = vec![1, 0, 0, 0];
        ended.extend_from_slice(bytes);
        let bytes = if self.choices.one_in(2) { &ended[..] } else { &bytes[..bytes.len().min(3)] };
        self.guests[who].hostile = true;
        self.write(who, bytes);
    }

    /// A client from outside, through the forward.
    fn call_forward(&mut self) {
        if self.clients.len() < 4
            && let Ok(client) = TcpStream::connect(self.switch.bound().forwards[0])
        {
            self.clients.push(abort_on_close(client));
        }
    }

    fn client_deed(&mut self) {
        let how = self.choices.u8();
        let count = self.clients.len();
        if count == 0 {
            return;
        }
        let at = usize::from(how) % count;
        match how >> 6 {
            0 => _ = self.clients[at].write(&[how; 3000]),
            1 => _ = self.clients[at].read(&mut [0; 4096]),
            2 => _ = self.clients[at].shutdown(std::net::Shutdown::Write),
            _ => drop(self.clients.swap_remove(at)),
        }
    }

    /// An answer to whoever has called the sink.
    fn answer_outside(&mut self) {
        if let Ok((n, from)) = outside().sink.recv_from(&mut self.buffer) {
            // Seldom one that must be cut into pieces.
            let wish = usize::from(self.choices.u16());
            let len = n.max(if wish >= 0xf000 { wish.min(65_507) } else { wish % 2048 });
            // It may be gone.
            let _ = outside().sink.send_to(&self.buffer[..len], from);
        }
    }
}

/// A frame with one piece of a packet whose headers are `head`.
fn piece_frame(head: &[u8], ident: u8, offset: usize, more: bool, piece: &[u8]) -> Vec<u8> {
    let mut frame = [head, piece].concat();
    let total = (frame.len() - 14) as u16;
    let word = (offset / 8) as u16 & 0x1fff | u16::from(more) << 13;
    frame[16..18].copy_from_slice(&total.to_be_bytes());
    frame[18..20].copy_from_slice(&[0, ident]);
    frame[20..22].copy_from_slice(&word.to_be_bytes());
    frame[24..26].fill(0);
    let words = frame[14..head.len()].chunks(2);
    let sum: u32 = words.map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    frame
}

fuzz_target!(|bytes: &[u8]| {
    let mut story = Story::new(Choices(bytes));
    story.play();
    if std::env::var_os("POLLUX_FUZZ_STATS").is_some() {
        eprintln!("{:?}", story.switch.stats().snapshot().gateway);
    }
    drop(story);
    // What was said to the sink is the next story's no more.
    while outside().sink.recv_from(&mut [0; 16]).is_ok() {}
    while let Ok((client, _)) = outside().listener.accept() {
        drop(abort_on_close(client));
    }
});
