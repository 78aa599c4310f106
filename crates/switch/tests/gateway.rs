//! The gateway with a real stack on each side: a guest behind a port, and the host's own sockets.
mod common;

use common::{ECHO_PORT, GATEWAY, GATEWAY_MAC, GUEST, Guest, gratuitous_arp, port, start};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::{icmp, tcp, udp};
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, IpEndpoint};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(5);

fn forward(config: &mut pollux_switch::Config) {
    config.forwards = vec![format!("tcp:127.0.0.1:0-:{ECHO_PORT}").parse().unwrap()];
}

/// Runs `guest` until the thread is done, and gives what it returned.
fn run_with<T>(guest: &mut Guest, host: JoinHandle<T>) -> T {
    assert!(guest.run_until(Duration::from_secs(10), |_| host.is_finished()), "the host side hangs");
    host.join().unwrap()
}

/// Connects as soon as the forward is open.
fn client(address: SocketAddr) -> TcpStream {
    let begun = Instant::now();
    let stream = loop {
        match TcpStream::connect(address) {
            Ok(stream) => break stream,
            Err(error) => assert!(begun.elapsed() < SOON, "{error}"),
        }
        thread::sleep(Duration::from_millis(10));
    };
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

#[test]
fn the_first_guest_gets_its_address_its_router_and_its_resolver_by_dhcp() {
    let switch = start(|config| config.dns_upstream = Some("127.0.0.1:9".parse().unwrap()));
    let first = Guest::up(1, port(switch.connect()));
    assert_eq!((first.address, first.dns), (Some(GUEST), Some(Ipv4Addr::new(10, 0, 2, 3))));
    let second = Guest::up(2, port(switch.connect()));
    assert_eq!(second.address, Some(Ipv4Addr::new(10, 0, 2, 16)));
    drop(first);
    let again = Guest::up(1, port(switch.connect()));
    assert_eq!(again.address, Some(GUEST));
}

#[test]
fn a_guest_can_ping_the_gateway_but_nothing_beyond_it() {
    let switch = start(|_| {});
    let mut guest = Guest::up(1, port(switch.connect()));
    let handle = guest.add_icmp(77);
    for (target, answers) in [(GATEWAY, true), (Ipv4Addr::new(192, 0, 2, 1), false)] {
        let socket = guest.sockets.get_mut::<icmp::Socket>(handle);
        let repr = Icmpv4Repr::EchoRequest { ident: 77, seq_no: 1, data: b"pollux" };
        let payload = socket.send(repr.buffer_len(), target.into()).unwrap();
        repr.emit(&mut Icmpv4Packet::new_unchecked(payload), &ChecksumCapabilities::default());
        let limit = if answers { SOON } else { Duration::from_millis(100) };
        let answered =
            guest.run_until(limit, |guest| guest.sockets.get_mut::<icmp::Socket>(handle).can_recv());
        assert_eq!(answered, answers, "{target}");
        let _ = guest.sockets.get_mut::<icmp::Socket>(handle).recv();
    }
}

#[test]
fn bytes_cross_a_forward_both_ways_and_an_end_follows_an_end() {
    let switch = start(forward);
    let mut guest = Guest::up(1, port(switch.connect()));
    let address = switch.bound.forwards[0];
    let host = thread::spawn(move || {
        let mut stream = client(address);
        let bytes: Vec<u8> = (0..3_000_000u32).map(|i| (i ^ (i >> 9)) as u8).collect();
        let mut writer = stream.try_clone().unwrap();
        let sent = bytes.clone();
        let writing = thread::spawn(move || {
            writer.write_all(&sent).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut echoed = Vec::new();
        stream.read_to_end(&mut echoed).unwrap();
        writing.join().unwrap();
        assert!(echoed == bytes, "{} of {} bytes came back", echoed.len(), bytes.len());
    });
    run_with(&mut guest, host);
    let gateway = switch.stats.snapshot().gateway;
    assert_eq!((gateway.tcp_opened, gateway.tcp_failed), (1, 0), "{gateway:?}");
}

#[test]
fn many_connections_at_once_do_not_mix() {
    let switch = start(forward);
    let mut guest = Guest::up(1, port(switch.connect()));
    let address = switch.bound.forwards[0];
    let host = thread::spawn(move || {
        for round in 0..8u8 {
            let mut streams: Vec<TcpStream> = (0..4).map(|_| client(address)).collect();
            for (i, stream) in streams.iter_mut().enumerate() {
                stream.write_all(&[round, i as u8, 3]).unwrap();
            }
            for (i, stream) in streams.iter_mut().enumerate() {
                let mut back = [0; 3];
                stream.read_exact(&mut back).unwrap();
                assert_eq!(back, [round, i as u8, 3]);
                stream.shutdown(Shutdown::Write).unwrap();
                assert_eq!(stream.read(&mut back).unwrap(), 0);
            }
        }
    });
    run_with(&mut guest, host);
}

#[test]
fn a_reset_is_passed_on_in_both_directions() {
    let switch = start(|config| {
        config.forwards = vec!["tcp:127.0.0.1:0-:9000".parse().unwrap()];
    });
    let mut guest = Guest::up(1, port(switch.connect()));
    let handle = guest.connect((GATEWAY, 1), 1); // Any socket: it is put to another use.
    let address = switch.bound.forwards[0];
    for guest_resets in [true, false] {
        guest.tcp(handle).abort();
        guest.run_until(Duration::from_millis(20), |_| false);
        guest.tcp(handle).listen(9000).unwrap();
        let host = thread::spawn(move || {
            let mut stream = client(address);
            stream.write_all(b"x").unwrap();
            if guest_resets {
                return stream.read(&mut [0; 8]).map_err(|error| error.kind());
            }
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
            Ok(0)
        });
        assert!(guest.run_until(SOON, |guest| guest.tcp(handle).can_recv()));
        if guest_resets {
            guest.tcp(handle).abort();
        } else {
            guest.tcp(handle).send_slice(b"y").unwrap();
        }
        let read = run_with(&mut guest, host);
        if guest_resets {
            assert_eq!(read, Err(ErrorKind::ConnectionReset));
        } else {
            // Back to listening, or closed: in either case the connection is no more.
            let reset = guest.run_until(SOON, |guest| !guest.tcp(handle).is_active());
            assert!(reset, "{}", guest.tcp(handle).state());
        }
    }
}

#[test]
fn a_client_of_a_guest_that_answers_no_more_is_reset_in_time_and_the_next_one_is_refused() {
    let switch = start(|config| {
        forward(config);
        config.connect_timeout = Duration::from_millis(300);
    });
    let address = switch.bound.forwards[0];
    let mut guest = Guest::up(1, port(switch.connect()));
    let open = || TcpStream::connect(address).is_ok();
    assert!(guest.run_until(SOON, |_| open()));
    // From here on the guest's port is there, and the guest stands still.
    let started = Instant::now();
    let mut stream = client(address);
    let error = stream.read(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!((250..2000).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
    // It is asked once more, and has a second for its answer.
    thread::sleep(Duration::from_millis(1500));
    assert!(!open(), "the forward is closed until the guest answers again");
    assert!(guest.run_until(SOON, |_| open()));
}

#[test]
fn a_guest_that_refuses_one_client_is_still_there_for_the_next_one() {
    let switch = start(forward);
    let address = switch.bound.forwards[0];
    let mut guest = Guest::up(1, port(switch.connect()));
    assert!(guest.run_until(SOON, |_| TcpStream::connect(address).is_ok()));
    guest.run_until(Duration::from_millis(100), |_| false);
    let mut refused = client(address);
    thread::sleep(Duration::from_millis(50));
    guest.refuse_what_has_come();
    assert_eq!(refused.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    for _ in 0..20 {
        TcpStream::connect(address).expect("the forward is open");
        guest.run_until(Duration::from_millis(10), |_| false);
    }
}

#[test]
fn a_client_is_refused_while_nobody_answers_behind_the_forward() {
    let switch = start(|config| {
        forward(config);
        config.connect_timeout = Duration::from_millis(700);
    });
    let address = switch.bound.forwards[0];
    let refused = || TcpStream::connect(address).is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused);
    assert!(refused(), "there is no guest");
    let mut guest = Guest::new(1, port(switch.connect()));
    thread::sleep(Duration::from_millis(300));
    assert!(refused(), "the guest boots");
    assert!(guest.run_until(SOON, |guest| guest.address.is_some()));
    assert!(guest.run_until(SOON, |_| !refused()), "it serves");
    // The call that was just tried has ended; from here on nobody calls.
    guest.run_until(Duration::from_millis(100), |_| false);
    let host = thread::spawn(move || {
        let mut stream = client(address);
        stream.write_all(b"early").unwrap();
        let mut back = [0; 5];
        stream.read_exact(&mut back).unwrap();
        back
    });
    assert_eq!(&run_with(&mut guest, host), b"early");
    drop(guest.detach());
    let begun = Instant::now();
    while !refused() {
        assert!(begun.elapsed() < SOON, "the guest is gone and clients are still accepted");
        thread::sleep(Duration::from_millis(50));
    }
    assert!(begun.elapsed() >= Duration::from_millis(600), "a failover has its time: {:?}", begun.elapsed());
}

#[test]
fn what_asks_for_a_guests_server_is_no_connection_to_it() {
    let switch = start(forward);
    let mut guest = Guest::up(1, port(switch.connect()));
    let frames = || switch.stats.snapshot().gateway.frames_out;
    let before = frames();
    guest.run_until(Duration::from_millis(500), |_| false);
    // Asked once, answered, and reset; and no more after that.
    let asked = frames() - before;
    assert!((1..=4).contains(&asked), "{asked} frames");
    assert!(!guest.was_called, "the server has seen a connection");
    let address = switch.bound.forwards[0];
    let host = thread::spawn(move || {
        let mut stream = client(address);
        stream.write_all(b"x").and_then(|()| stream.read_exact(&mut [0])).unwrap();
    });
    run_with(&mut guest, host);
    assert!(guest.was_called, "a client is one");
}

#[test]
fn a_guest_reaches_a_server_of_the_hosts_and_learns_when_there_is_none() {
    let switch = start(|_| {});
    let mut guest = Guest::up(1, port(switch.connect()));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap().port();
    let host = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = Vec::new();
        stream.read_to_end(&mut asked).unwrap();
        stream.write_all(b"and an answer").unwrap();
        asked
    });
    let handle = guest.connect((GATEWAY, to), 40_000);
    assert!(guest.run_until(SOON, |guest| guest.tcp(handle).may_send()));
    guest.tcp(handle).send_slice(b"a question").unwrap();
    guest.tcp(handle).close();
    assert_eq!(run_with(&mut guest, host), b"a question");
    assert!(guest.run_until(SOON, |guest| guest.tcp(handle).recv_queue() == 13));
    // The listener is gone with its thread: the next call is refused, at once.
    let started = Instant::now();
    let refused = guest.connect((GATEWAY, to), 40_001);
    let forbidden = guest.connect((Ipv4Addr::new(10, 0, 2, 99), 80), 40_002);
    assert!(guest.run_until(SOON, |guest| guest.tcp(refused).state() == tcp::State::Closed));
    assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
    assert!(!guest.run_until(Duration::from_millis(50), |guest| guest.tcp(forbidden).may_send()));
}

#[test]
fn datagrams_find_their_way_out_and_back() {
    let upstream = UdpSocket::bind("127.0.0.1:0").unwrap();
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let dns_at = upstream.local_addr().unwrap();
    let switch = start(|config| config.dns_upstream = Some(dns_at));
    let mut guest = Guest::up(1, port(switch.connect()));
    let handle = guest.add_udp(5000);
    let to_server = IpEndpoint::new(GATEWAY.into(), server.local_addr().unwrap().port());
    let to_dns = IpEndpoint::new(guest.dns.unwrap().into(), 53);
    for (socket, to) in [(&server, to_server), (&upstream, to_dns)] {
        socket.set_nonblocking(true).unwrap();
        guest.udp(handle).send_slice(b"ping", to).unwrap();
        let mut bytes = [0; 64];
        let mut received = None;
        assert!(guest.run_until(SOON, |_| {
            received = socket.recv_from(&mut bytes).ok();
            received.is_some()
        }));
        let (n, from_switch) = received.unwrap();
        assert_eq!(&bytes[..n], b"ping");
        socket.send_to(b"pong", from_switch).unwrap();
        assert!(guest.run_until(SOON, |guest| guest.udp(handle).can_recv()));
        let (payload, from): (&[u8], udp::UdpMetadata) = guest.udp(handle).recv().unwrap();
        assert_eq!((payload, from.endpoint), (&b"pong"[..], to));
    }
}

#[test]
fn datagrams_to_a_forward_reach_the_guest_and_its_answers_the_right_client() {
    let switch = start(|config| {
        config.forwards = vec![format!("udp:127.0.0.1:0-:{ECHO_PORT}").parse().unwrap()];
    });
    let mut guest = Guest::up(1, port(switch.connect()));
    let address = switch.bound.forwards[0];
    let host = thread::spawn(move || {
        let clients: Vec<UdpSocket> = (0..3).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        for (i, client) in clients.iter().enumerate() {
            client.set_read_timeout(Some(SOON)).unwrap();
            client.send_to(&[i as u8; 9], address).unwrap();
        }
        for (i, client) in clients.iter().enumerate() {
            let mut bytes = [0; 64];
            let (n, from) = client.recv_from(&mut bytes).unwrap();
            assert_eq!((&bytes[..n], from), (&[i as u8; 9][..], address));
        }
    });
    run_with(&mut guest, host);
}

/// How the guest comes back after the outage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Return {
    /// At another port, with an announcement, while the old process still holds its port.
    Elsewhere,
    /// The same, but the old process died and its port was closed.
    AfterDeath,
    /// At another port, where it speaks without having been announced.
    Unannounced,
    /// Where it was: the network had failed, not the host.
    Here,
}

/// A client that asks and waits for each answer, while the guest is away for `outage`.
/// Returns the longest wait, and how long the first answer took after the guest's return.
fn outage_felt(how: Return, outage: Duration) -> (Duration, Duration) {
    let switch = start(forward);
    let mut guest = Guest::up(1, port(switch.connect()));
    let mut backup = port(switch.connect());
    let address = switch.bound.forwards[0];
    let (tell, answers) = channel();
    let host = thread::spawn(move || {
        let mut stream = client(address);
        let mut longest = Duration::ZERO;
        let started = Instant::now();
        for round in 0u32.. {
            let asked = Instant::now();
            stream.write_all(&round.to_le_bytes()).unwrap();
            let mut back = [0; 4];
            stream.read_exact(&mut back).unwrap();
            assert_eq!(back, round.to_le_bytes());
            longest = longest.max(asked.elapsed());
            let _ = tell.send(Instant::now());
            if started.elapsed() > outage + Duration::from_millis(500) {
                break;
            }
        }
        longest
    });
    guest.run_until(Duration::from_millis(200), |_| false);
    let old = guest.detach().unwrap();
    let old = if how == Return::AfterDeath { None } else { Some(old) };
    thread::sleep(outage);
    answers.try_iter().for_each(drop);
    let back = Instant::now();
    match (how, old) {
        (Return::Here, Some(old)) => guest.resume(old),
        (Return::Unannounced, _) => {
            backup.sender.claim(&guest.claim(2));
            guest.resume(backup);
            // Any frame does: the guest asks for something of its own.
            guest.connect((GATEWAY, 1), 33_333);
        }
        _ => guest.attach(backup),
    }
    let mut first = None;
    guest.run_until(SOON, |_| {
        first = first.or_else(|| answers.try_recv().ok());
        host.is_finished()
    });
    let longest = host.join().expect("the connection survives");
    (longest, first.expect("an answer after the failover") - back)
}

#[test]
fn a_connection_outlives_a_failover_and_goes_on_at_once() {
    for how in [Return::Elsewhere, Return::AfterDeath, Return::Unannounced] {
        // Retransmissions at 200 ms and 600 ms are lost; the next would come 750 ms after the outage.
        let outage = Duration::from_millis(650);
        let (longest, after) = outage_felt(how, outage);
        println!(
            "{how:?}: outage {outage:?}: longest wait {longest:?}, first answer {after:?} after its end"
        );
        assert!(longest >= outage / 2, "the outage was felt: {longest:?}");
        assert!(longest < Duration::from_secs(2), "{longest:?}");
        assert!(after < Duration::from_millis(400), "{after:?}");
    }
}

#[test]
fn an_outage_without_a_failover_ends_with_the_next_retransmission() {
    let outage = Duration::from_millis(300);
    let (longest, after) = outage_felt(Return::Here, outage);
    println!("outage {outage:?}: longest wait {longest:?}, first answer {after:?} after its end");
    // The timeout is 200 ms at first, then 400 ms: what is repeated at 200 ms is lost, at 600 ms it arrives.
    assert!(longest < Duration::from_millis(1500), "{longest:?}");
}

#[test]
fn clients_beyond_the_bound_wait_in_the_backlog_and_are_served_when_a_place_is_free() {
    let switch = start(|config| {
        forward(config);
        config.tcp_flows_max = 1;
    });
    let mut guest = Guest::up(1, port(switch.connect()));
    let address = switch.bound.forwards[0];
    let host = thread::spawn(move || {
        let mut first = client(address);
        let mut second = client(address);
        let mut byte = [0];
        first.write_all(b"1").and_then(|()| first.read_exact(&mut byte)).unwrap();
        second.write_all(b"2").unwrap();
        second.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let waits = second.read_exact(&mut byte).unwrap_err().kind();
        assert!(matches!(waits, ErrorKind::WouldBlock | ErrorKind::TimedOut), "{waits}: not reset");
        drop(first);
        second.set_read_timeout(Some(SOON)).unwrap();
        second.read_exact(&mut byte).unwrap();
        byte
    });
    assert_eq!(run_with(&mut guest, host), *b"2");
}

#[test]
fn another_machine_at_an_address_is_found_by_the_first_call_that_nobody_answers() {
    let switch = start(forward);
    let mut old = Guest::up(1, port(switch.connect()));
    let address = switch.bound.forwards[0];
    let echo = move || {
        let mut stream = client(address);
        let mut byte = [0];
        stream.write_all(b"x").and_then(|()| stream.read_exact(&mut byte)).unwrap();
    };
    run_with(&mut old, thread::spawn(echo));
    drop(old.detach());
    // A static address, and not a word before somebody asks.
    let mut new = Guest::new(9, port(switch.connect()));
    new.adopt(GUEST, GATEWAY);
    let started = Instant::now();
    run_with(&mut new, thread::spawn(echo));
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}

#[test]
fn a_guest_that_speaks_for_another_or_for_the_gateway_takes_nobodys_traffic() {
    let switch = start(forward);
    let mut guest = Guest::up(1, port(switch.connect()));
    let mut attacker = port(switch.connect());
    let [own, victim] = [[0x52, 0x54, 0, 0, 0, 66], guest.mac];
    let forgeries = [
        gratuitous_arp(own, GUEST),
        gratuitous_arp(victim, GUEST),
        gratuitous_arp(own, GATEWAY),
        [&GATEWAY_MAC[..], &victim, &[0x88, 0xb5, 0]].concat(),
    ];
    let address = switch.bound.forwards[0];
    for frame in &forgeries {
        attacker.sender.send(frame).and_then(|()| attacker.sender.flush()).unwrap();
        attacker.frames.recv_timeout(Duration::from_millis(50)).ok();
        attacker.frames.try_iter().for_each(drop);
        let host = thread::spawn(move || {
            let mut stream = client(address);
            let mut byte = [0];
            stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            stream.write_all(b"x").and_then(|()| stream.read_exact(&mut byte)).unwrap();
        });
        run_with(&mut guest, host);
    }
    let to_attacker = |frame: &Vec<u8>| frame[..6] != [0xff; 6];
    assert_eq!(attacker.frames.try_iter().filter(to_attacker).count(), 0, "it heard what was not its own");
    let ports = switch.stats.snapshot().ports;
    assert_eq!(ports.iter().map(|port| port.forged).collect::<Vec<_>>(), [0, forgeries.len() as u64]);
}

#[test]
fn an_idle_switch_sleeps_whatever_state_its_connections_are_in() {
    let switch = start(forward);
    let mut guest = Guest::up(1, port(switch.connect()));
    let address = switch.bound.forwards[0];
    let host = thread::spawn(move || {
        let idle = client(address);
        // One whose client sends without reading until no buffer between it and itself has room.
        let full = client(address);
        full.set_nonblocking(true).unwrap();
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(400) {
            if (&full).write(&[0; 65_536]).is_err() {
                thread::sleep(Duration::from_millis(5));
            }
        }
        let half_closed = client(address);
        half_closed.shutdown(Shutdown::Write).unwrap();
        assert_eq!((&half_closed).read(&mut [0]).unwrap(), 0);
        (idle, full, half_closed)
    });
    let streams = run_with(&mut guest, host);
    let turns = || switch.stats.snapshot().turns;
    guest.run_until(Duration::from_millis(200), |_| false);
    let before = turns();
    guest.run_until(Duration::from_millis(500), |_| false);
    let with_guest = turns() - before;
    // The guest freezes: what is unacknowledged is repeated, but not in a hurry.
    thread::sleep(Duration::from_millis(500));
    let without_guest = turns() - before - with_guest;
    println!("turns in 500 ms: {with_guest} with a guest that polls, {without_guest} with a frozen one");
    assert!(with_guest < 200 && without_guest < 50, "{with_guest} {without_guest}");
    drop(streams);
}
