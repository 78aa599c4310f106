//! Ports: switching between them, moving, and what happens to those that misbehave.
mod common;

use common::cable::Cable;
use common::{GATEWAY_MAC, Guest, Port, gratuitous_arp, port, start};
use pollux_switch::{
    BEAT_EVERY, Claim, Config, FRAME_BYTES_MAX, PortClient, PortError, SILENCE_MAX, Switch, SwitchAddr,
    SwitchError,
};
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

const A: [u8; 6] = [2, 0, 0, 0, 0, 1];
const B: [u8; 6] = [2, 0, 0, 0, 0, 2];
const SOON: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_millis(50);

fn frame(to: [u8; 6], from: [u8; 6], length: usize) -> Vec<u8> {
    let mut frame = [&to[..], &from[..], &[0x88, 0xb5]].concat(); // The EtherType for experiments.
    frame.resize(length, 0x5a);
    frame
}

fn send(port: &mut Port, frame: &[u8]) {
    port.sender.send(frame).unwrap();
    port.sender.flush().unwrap();
}

/// Three ports, each heard of by a broadcast of the first two.
fn three_ports(switch: &common::Running) -> [Port; 3] {
    let mut ports = [port(switch.connect()), port(switch.connect()), port(switch.connect())];
    for (sender, mac) in [(0, A), (1, B)] {
        let hello = frame([0xff; 6], mac, 60);
        // A port takes part once the switch has read its hello, which connecting does not wait for.
        let deadline = Instant::now() + SOON;
        loop {
            send(&mut ports[sender], &hello);
            let others = (0..3).filter(|&other| other != sender);
            if others.map(|other| ports[other].frames.recv_timeout(SILENCE)).all(|got| got.is_ok()) {
                break;
            }
            assert!(Instant::now() < deadline);
        }
    }
    std::thread::sleep(SILENCE);
    ports.iter().for_each(|port| port.frames.try_iter().for_each(drop));
    ports
}

#[test]
fn frames_go_to_the_port_that_has_the_address_and_follow_it_when_it_moves() {
    let switch = start(|_| {});
    let [mut a, mut b, mut c] = three_ports(&switch);
    for length in [14, 60, 1514, 9000, FRAME_BYTES_MAX] {
        let sent = frame(A, B, length);
        send(&mut b, &sent);
        assert_eq!(a.frames.recv_timeout(SOON).unwrap(), sent);
    }
    assert!(c.frames.recv_timeout(SILENCE).is_err(), "a known address is not flooded");
    // The VM behind A is taken over by C, which announces it; B's next frame goes there. Without a newer generation C
    // gets nothing.
    let claim =
        |generation| Claim { generation, instance: [generation as u8; 8], mac: A, vm: b"vm".to_vec() };
    a.sender.claim(&claim(1));
    send(&mut a, &frame(B, A, 60));
    assert_eq!(b.frames.recv_timeout(SOON).unwrap(), frame(B, A, 60));
    send(&mut c, &gratuitous_arp(A, Ipv4Addr::new(10, 0, 2, 15)));
    assert!(b.frames.recv_timeout(SILENCE).is_err(), "a MAC that lives elsewhere is refused");
    c.sender.claim(&claim(2));
    send(&mut c, &gratuitous_arp(A, Ipv4Addr::new(10, 0, 2, 15)));
    a.frames.recv_timeout(SOON).unwrap();
    b.frames.recv_timeout(SOON).unwrap();
    send(&mut b, &frame(A, B, 100));
    assert_eq!(c.frames.recv_timeout(SOON).unwrap(), frame(A, B, 100));
    assert!(a.frames.recv_timeout(SILENCE).is_err(), "the old place hears no more");
    assert_eq!(switch.stats.snapshot().gateway.moves, 1);
    // C dies: until somebody has the address again, frames to it go everywhere.
    drop(c);
    while switch.stats.snapshot().ports.len() == 3 {
        std::thread::sleep(Duration::from_millis(1));
    }
    send(&mut b, &frame(A, B, 101));
    assert_eq!(a.frames.recv_timeout(SOON).unwrap(), frame(A, B, 101));
    let ports = switch.stats.snapshot().ports;
    assert!(
        ports.iter().all(|port| port.drops == 0 && port.frames_in > 0 && port.bytes_out > 0),
        "{ports:?}"
    );
    send(&mut a, &frame(GATEWAY_MAC, A, 60));
}

#[test]
fn a_port_that_does_not_read_loses_frames_and_delays_nobody() {
    let switch = start(|config| config.port_queue_bytes = 256 * 1024);
    let [mut a, b, c] = three_ports(&switch);
    let mut deaf = UnixStream::connect(match &switch.bound.listen {
        SwitchAddr::Unix(path) => path,
        SwitchAddr::Tcp(_) => unreachable!(),
    })
    .unwrap();
    deaf.write_all(b"PLXP\x03\0\0\0").unwrap();
    std::thread::sleep(SILENCE);
    for _ in 0..2000 {
        send(&mut a, &frame([0xff; 6], A, 1514));
        // Those that listen are read as fast as they are sent to, so they lose nothing.
        for listener in [&b, &c] {
            listener.frames.recv_timeout(SOON).unwrap();
        }
    }
    let ports = switch.stats.snapshot().ports;
    assert!(ports[3].drops > 0, "{ports:?}");
    assert!(ports[..3].iter().all(|port| port.drops == 0), "{ports:?}");
    // What it did get is still whole frames.
    deaf.set_read_timeout(Some(SILENCE)).unwrap();
    let mut stream = Vec::new();
    let _ = deaf.read_to_end(&mut stream);
    let mut rest = &stream[8..];
    while rest.len() >= 4 + 1514 {
        if rest[..4] == [0; 4] {
            rest = &rest[4..]; // A sign of life.
            continue;
        }
        assert_eq!(rest[..4], 1514u32.to_le_bytes());
        rest = &rest[4 + 1514..];
    }
}

#[test]
fn whoever_does_not_speak_the_protocol_is_disconnected_and_the_rest_goes_on() {
    let switch = start(|config| config.listen = SwitchAddr::Tcp("127.0.0.1:0".into()));
    let SwitchAddr::Tcp(address) = &switch.bound.listen else { unreachable!() };
    let hello = b"PLXP\x03\0\0\0";
    let oversize = [&hello[..], &(FRAME_BYTES_MAX as u32 + 1).to_le_bytes()].concat();
    let giant = [&hello[..], &u32::MAX.to_le_bytes(), &[0; 1000]].concat();
    let runt = [&hello[..], &13u32.to_le_bytes(), &[0; 13]].concat();
    let garbage: Vec<u8> = (0..100_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let next_version = b"PLXP\x04\0\0\0";
    for bytes in [&oversize[..], &giant, &runt, &garbage, b"GET / HTTP/1.1\r\n\r\n", next_version] {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let ended = stream.read_to_end(&mut answer);
        assert!(ended.is_ok() || ended.unwrap_err().kind() == std::io::ErrorKind::ConnectionReset);
        assert!(answer.len() <= hello.len());
    }
    let guest = Guest::up(1, port(switch.connect()));
    assert_eq!(guest.address, Some(common::GUEST));
    assert_eq!(switch.stats.snapshot().ports.len(), 1);
}

#[test]
fn a_client_refuses_to_send_what_is_no_frame_and_learns_that_the_switch_is_gone() {
    let switch = start(|_| {});
    let (mut sender, mut receiver) = switch.connect().split();
    assert!(matches!(sender.send(&[0; 13]), Err(PortError::FrameLength(13))));
    assert!(matches!(sender.send(&vec![0; FRAME_BYTES_MAX + 1]), Err(PortError::FrameLength(_))));
    let listen = switch.bound.listen.clone();
    drop(switch);
    assert!(matches!(receiver.recv(&mut Vec::new()), Err(PortError::Closed)));
    let started = Instant::now();
    let error = PortClient::connect(&listen, Duration::from_millis(100)).unwrap_err();
    assert!(matches!(error, PortError::Connect { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(1));
}

/// Waits for what the switch's thread brings about.
fn eventually(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    while !done() {
        if started.elapsed() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

#[test]
fn a_cut_that_closes_nothing_is_noticed_at_both_ends_and_a_quiet_port_is_not_taken_for_one() {
    let switch = start(|config| config.listen = SwitchAddr::Tcp("127.0.0.1:0".into()));
    let cable = Cable::to(&switch.bound.listen);
    let (_sender, mut receiver) = PortClient::connect(&cable.addr, Duration::from_secs(5)).unwrap().split();
    let ended = std::thread::spawn(move || receiver.recv(&mut Vec::new()));
    let ports = || switch.stats.snapshot().ports.len();
    assert!(eventually(Duration::from_secs(2), || ports() == 1));
    std::thread::sleep(SILENCE_MAX + 2 * BEAT_EVERY);
    assert!(!ended.is_finished() && ports() == 1, "nobody has anything to say, and both live");
    cable.set_cut(true);
    let cut = Instant::now();
    // Five times what is promised: the machine may be busy with other things.
    assert!(eventually(5 * SILENCE_MAX, || ended.is_finished() && ports() == 0), "the cut is not noticed");
    assert!(cut.elapsed() + BEAT_EVERY * 2 > SILENCE_MAX, "too soon");
    assert!(matches!(ended.join().unwrap(), Err(PortError::Silent)));
    cable.set_cut(false);
    let back = PortClient::connect(&cable.addr, Duration::from_secs(5));
    assert!(back.is_ok() && eventually(Duration::from_secs(2), || ports() == 1));
}

#[test]
fn a_peer_that_speaks_another_version_is_told_so_by_its_own_end() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = SwitchAddr::Tcp(listener.local_addr().unwrap().to_string());
    let old = std::thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        stream.write_all(b"PLXP\x01\0\0\0").unwrap();
        stream
    });
    let error = PortClient::connect(&addr, Duration::from_secs(5)).unwrap_err();
    assert!(error.to_string().contains("version 1 is not spoken here"), "{error}");
    drop(old.join());
}

#[test]
fn one_host_cannot_take_all_ports() {
    let switch = start(|config| {
        config.listen = SwitchAddr::Tcp("127.0.0.1:0".into());
        (config.ports_max, config.ports_per_peer_max) = (3, 2);
    });
    let SwitchAddr::Tcp(addr) = switch.bound.listen.clone() else { panic!() };
    let greedy: Vec<_> = (0..3).map(|_| std::net::TcpStream::connect(&addr).unwrap()).collect();
    assert!(eventually(Duration::from_secs(2), || switch.stats.snapshot().ports.len() == 2));
    // From another address of this host there is still room.
    let other = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None);
    let other = other.unwrap();
    rustix::net::bind(&other, &"127.0.0.2:0".parse::<std::net::SocketAddrV4>().unwrap()).unwrap();
    rustix::net::connect(&other, &addr.parse::<std::net::SocketAddrV4>().unwrap()).unwrap();
    assert!(eventually(Duration::from_secs(2), || switch.stats.snapshot().ports.len() == 3));
    drop(greedy);
}

#[test]
fn a_closed_port_wakes_its_receiver() {
    let switch = start(|_| {});
    let client = switch.connect();
    let closer = client.closer();
    let (_sender, mut receiver) = client.split();
    let waiting = std::thread::spawn(move || receiver.recv(&mut Vec::new()));
    closer.close();
    assert!(waiting.join().unwrap().is_err());
}

#[test]
fn a_socket_left_by_a_dead_switch_is_replaced_and_a_living_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("switch");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "the standard library leaves the socket's file behind");
    let config = Config::new(SwitchAddr::Unix(path.clone()));
    let switch = Switch::bind(config.clone()).unwrap();
    assert!(matches!(Switch::bind(config.clone()), Err(SwitchError::Bind { .. })));
    drop(switch);
    assert!(!path.exists());
    std::fs::write(&path, "somebody's file").unwrap();
    assert!(matches!(Switch::bind(config), Err(SwitchError::Bind { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), b"somebody's file");
}
