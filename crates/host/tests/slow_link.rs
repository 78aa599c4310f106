//! A link that carries little: a large record takes longer than the failure timeout, and nobody counts as dead.

use pollux_host::events::{Inbox, inbox};
use pollux_host::link::{self, LinkSender};
use pollux_node::{Event, PeerId, wire};
use pollux_protocol::{Backup, HostTime, Message, Primary, Role, Settings};
use pollux_vocab::{DiskStatus, Generation, Icount, Input, Lsn, RecordBody, VirtTime};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// What the link carries towards the backup.
const BYTES_PER_S: usize = 1 << 20;
/// A piece of that, and how long it takes.
const STEP_BYTES: usize = 16 << 10;
const STEP: Duration = Duration::from_micros((STEP_BYTES as u64 * 1_000_000) / BYTES_PER_S as u64);
/// The record takes five failure timeouts.
const RECORD_BYTES: usize = BYTES_PER_S * 3 / 2;
const GENERATION: Generation = Generation(1);

fn forward(mut from: TcpStream, mut to: TcpStream, pause: Duration) {
    let mut buffer = [0; STEP_BYTES];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        thread::sleep(pause * n as u32 / STEP_BYTES as u32);
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

/// The two ends of a link that is slow from the first to the second.
fn slow_link() -> [TcpStream; 2] {
    let [outer, inner] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    let near = TcpStream::connect(outer.local_addr().expect("bound")).expect("it listens");
    let a = outer.accept().expect("it connected").0;
    let b = TcpStream::connect(inner.local_addr().expect("bound")).expect("it listens");
    let far = inner.accept().expect("it connected").0;
    let (a2, b2) = (a.try_clone().expect("a descriptor"), b.try_clone().expect("a descriptor"));
    thread::spawn(move || forward(a, b, STEP));
    thread::spawn(move || forward(b2, a2, Duration::ZERO));
    [near, far]
}

fn end(stream: TcpStream) -> (LinkSender, Inbox) {
    let (sender, reader) = link::split(stream).expect("a link");
    let (events, inbox) = inbox();
    reader.spawn(PeerId(0), events).expect("a thread");
    (sender, inbox)
}

fn say(link: &mut LinkSender, message: Message) {
    link.send(&wire::to_wire(message));
}

#[test]
fn a_link_that_takes_longer_than_the_failure_timeout_over_a_large_record_is_no_dead_one() {
    let [(mut near, primary_hears), (mut far, backup_hears)] = slow_link().map(end);
    let began = Instant::now();
    let now = || HostTime(began.elapsed().as_nanos() as u64);
    let settings = Settings::default();
    let mut primary = Primary::new_protected(settings.clone(), GENERATION, now(), PeerId(0));
    let mut backup = Backup::new(settings.clone(), GENERATION, now(), PeerId(0));
    let data = (0..RECORD_BYTES as u64 / 8).flat_map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    let done = Input::DiskDone { slot: 0, request: 1, status: DiskStatus::Ok, data: data.collect() };
    primary.admit(Icount(1), RecordBody::Input(done));
    primary.flush(now(), Icount(1), VirtTime(0));
    let mut received = None;
    while received.is_none() && began.elapsed() < Duration::from_secs(8) {
        primary.handle_tick(now());
        while let Some(event) = primary_hears.try_next() {
            match event {
                Event::Message(from, message) => primary.handle_message(now(), from, message),
                Event::LinkBytes(from) => primary.handle_bytes(now(), from),
                other => panic!("{other:?}"),
            }
        }
        while let Some((_, message)) = primary.poll_message() {
            say(&mut near, message);
        }
        primary.handle_sent(now());
        near.pump();
        backup.handle_tick(now());
        while let Some(event) = backup_hears.try_next() {
            match event {
                Event::Message(from, message) => backup.handle_message(now(), from, message),
                Event::LinkBytes(from) => backup.handle_bytes(now(), from),
                other => panic!("{other:?}"),
            }
        }
        while let Some((_, message)) = backup.poll_message() {
            say(&mut far, message);
        }
        received = (backup.report().lsn == Lsn(1)).then(|| began.elapsed());
        let commands = (primary.poll_command(), backup.poll_command());
        assert_eq!(commands, (None, None), "after {:?}", began.elapsed());
        thread::sleep(Duration::from_millis(5));
    }
    let received = received.expect("it arrives");
    assert!(received.as_nanos() > u128::from(3 * settings.failure_after_ns), "{received:?} is no slow link");
    assert_eq!((primary.report().state, backup.report().state), (Role::Primary, Role::Backup));
}
