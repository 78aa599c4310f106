//! Prints what the switch costs on this machine: latency and throughput between ports, and through a forward
//! to a guest. Numbers to look at, not a test: `cargo run --release -p pollux-switch --example measure`.

#[path = "../tests/common/mod.rs"]
mod common;

use common::{ECHO_PORT, GATEWAY_MAC, Guest, port, start};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

const A: [u8; 6] = [2, 0, 0, 0, 0, 1];
const B: [u8; 6] = [2, 0, 0, 0, 0, 2];
const ROUND_TRIPS: usize = 5000;
const BULK_FRAMES: usize = 200_000;
const BULK_BYTES: usize = 100_000_000;

fn main() {
    println!("a system call pair between two threads, for comparison:");
    bare_socket();
    println!("two ports (two hops, one each way):");
    port_latency();
    port_throughput();
    println!("client - gateway - guest and back, the guest a stack in a thread:");
    forward();
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |part: usize| times[times.len() * part / 1000];
    println!("  {what}: median {:?}, 99% {:?}, 99.9% {:?}", at(500), at(990), at(999));
}

fn ping_pong(mut once: impl FnMut()) -> Vec<Duration> {
    let timed = |once: &mut dyn FnMut()| {
        let started = Instant::now();
        once();
        started.elapsed()
    };
    (0..ROUND_TRIPS / 10).for_each(|_| once());
    (0..ROUND_TRIPS).map(|_| timed(&mut once)).collect()
}

fn bare_socket() {
    let (mut near, mut far) = std::os::unix::net::UnixStream::pair().unwrap();
    thread::spawn(move || {
        let mut bytes = [0; 64];
        while far.read_exact(&mut bytes).is_ok() && far.write_all(&bytes).is_ok() {}
    });
    let times = ping_pong(|| {
        near.write_all(&[1; 64]).unwrap();
        near.read_exact(&mut [0; 64]).unwrap();
    });
    report("round trip", times);
}

fn frame(to: [u8; 6], from: [u8; 6], length: usize) -> Vec<u8> {
    let mut frame = [&to[..], &from[..], &[0x88, 0xb5]].concat();
    frame.resize(length, 0);
    frame
}

fn port_latency() {
    let switch = start(|_| {});
    let (mut near, mut near_in) = switch.connect().split();
    let (mut far, mut far_in) = switch.connect().split();
    for (sender, mac) in [(&mut near, A), (&mut far, B)] {
        sender.send(&frame(GATEWAY_MAC, mac, 60)).unwrap();
        sender.flush().unwrap();
    }
    thread::sleep(Duration::from_millis(50));
    thread::spawn(move || {
        let mut bytes = Vec::new();
        while far_in.recv(&mut bytes).is_ok() {
            far.send(&frame(A, B, 100)).unwrap();
            far.flush().unwrap();
        }
    });
    let mut bytes = Vec::new();
    let times = ping_pong(|| {
        near.send(&frame(B, A, 100)).unwrap();
        near.flush().unwrap();
        near_in.recv(&mut bytes).unwrap();
    });
    report("round trip", times);
}

fn port_throughput() {
    let switch = start(|config| config.port_queue_bytes = 64 << 20);
    let (mut near, _near_in) = switch.connect().split();
    let (mut far, mut far_in) = switch.connect().split();
    far.send(&frame(GATEWAY_MAC, B, 60)).unwrap();
    far.flush().unwrap();
    thread::sleep(Duration::from_millis(50));
    let started = Instant::now();
    thread::spawn(move || {
        let full = frame(B, A, 1514);
        for sent in 0..BULK_FRAMES {
            near.send(&full).unwrap();
            if sent % 32 == 31 {
                near.flush().unwrap();
            }
        }
        near.send(&frame(B, A, 14)).unwrap();
        near.flush().unwrap();
        thread::sleep(Duration::from_secs(1));
    });
    let (mut bytes, mut frames) = (Vec::new(), 0);
    while bytes.len() != 14 {
        far_in.recv(&mut bytes).unwrap();
        frames += 1;
    }
    let took = started.elapsed().as_secs_f64();
    let rate = frames as f64 / took;
    println!(
        "  one way: {rate:.0} frames/s of 1514 bytes, {:.2} Gbit/s, {frames} of {}",
        rate * 1514.0 * 8e-9,
        BULK_FRAMES + 1
    );
}

fn forward() {
    let switch = start(|config| {
        config.forwards = vec![format!("tcp:127.0.0.1:0-:{ECHO_PORT}").parse().unwrap()];
    });
    let mut guest = Guest::up(1, port(switch.connect()));
    let address = switch.bound.forwards[0];
    let client = thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        let times = ping_pong(|| {
            stream.write_all(&[1; 64]).unwrap();
            stream.read_exact(&mut [0; 64]).unwrap();
        });
        report("request and answer", times);
        let mut writer = stream.try_clone().unwrap();
        let started = Instant::now();
        thread::spawn(move || {
            let chunk = vec![0; 65_536];
            (0..BULK_BYTES / chunk.len()).for_each(|_| writer.write_all(&chunk).unwrap());
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let (mut chunk, mut bytes) = (vec![0; 65_536], 0);
        loop {
            match stream.read(&mut chunk).unwrap() {
                0 => break,
                n => bytes += n,
            }
        }
        let rate = bytes as f64 * 8e-9 / started.elapsed().as_secs_f64();
        println!("  echoed: {rate:.2} Gbit/s each way, {bytes} bytes");
    });
    guest.run_until(Duration::from_secs(60), |_| client.is_finished());
    client.join().unwrap();
    println!("  {:?}", switch.stats.snapshot().gateway);
}
