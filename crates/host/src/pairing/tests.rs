//! Two hosts over real links, real proofs and real machines; the rules by themselves are `protocol/tests/pairing.rs`.

use super::line::{refuse, to_greeting};
use super::*;
use crate::events::{EventSender, inbox};
use crate::link::{self, LinkReader, LinkSender, Patience, memory};
use crate::memory::check_snapshot;
use crate::proof::{Side, prove};
use pollux_arbiter::Secret;
use pollux_codec::message::{DiskHello, Greet, Hello, Wire};
use pollux_machine::{Pieces, Restore};
use pollux_node::Event;
use pollux_protocol::Verdict;
use pollux_protocol::pairing::disks::check_disks;
use pollux_protocol::pairing::{Disk, HANDSHAKE_PATIENCE_NS};
use pollux_riscv::{Boot, Computer, Config, DeviceConfig};
use pollux_vocab::{Generation, SlotId};
use std::net::{TcpListener, TcpStream};
use std::slice::from_ref;
use std::time::{Duration, Instant};

const SECRET: Secret = Secret([9; 32]);
const HANDSHAKE_PATIENCE: Duration = Duration::from_nanos(HANDSHAKE_PATIENCE_NS);

fn greet() -> Greet {
    let (vm, holder) = ("vm".into(), "a".into());
    Greet { vm, generation: Generation(1), arbiter: [0; 16], holder, nonce: [0; 32] }
}

fn hello(ram_bytes: u64, snapshot_bytes: u64) -> Hello {
    Hello {
        software: String::new(),
        vm: "vm".into(),
        generation: Generation(1),
        harts: 1,
        ram_bytes,
        disks: Vec::new(),
        heartbeat_ns: 1,
        failure_ns: 2,
        snapshot_bytes,
        machine: Computer::KIND.into(),
    }
}

fn found() -> Found {
    Found { arbiter: [0; 16], holder: Some("a".into()), is_spent: false }
}

type End = (LinkSender, LinkReader);

fn connected() -> [End; 2] {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let near = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let (far, _) = listener.accept().expect("it connected");
    [near, far].map(|stream| link::split(stream).expect("a link"))
}

fn config(read_only: bool) -> Config {
    let disk = DeviceConfig::Block { bytes: 4096, read_only, serial: "d".into() };
    Config { ram_bytes: 16 << 20, harts: 1, devices: vec![disk], rtc_base_ns: 0, ..Config::default() }
}

/// A primary that has won, and reaches its backup at once.
struct Near(Option<End>, Vec<&'static str>);

impl PrimaryHost for Near {
    type Error = &'static str;

    fn connect(&mut self) -> Result<Option<End>, Self::Error> {
        Ok(self.0.take())
    }

    fn claim(&mut self, _: Generation) -> Result<Verdict, Self::Error> {
        self.1.push("claim");
        Ok(Verdict::Won)
    }

    fn mark(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }

    fn plug_in(&mut self, _: LinkSender, _: LinkReader) -> Result<(), Self::Error> {
        Ok(())
    }

    fn spend(&mut self, _: Generation) {
        self.1.push("spend");
    }
}

/// A backup with these disks.
struct Far(Vec<OwnDisk>);

impl BackupHost for Far {
    fn open_disks(&mut self) -> Result<Vec<OwnDisk>, String> {
        Ok(self.0.clone())
    }

    fn fit(&mut self, _: &Greet, _: &Hello) -> Result<(), String> {
        Ok(())
    }
}

fn meet_with((link, reader): End, secret: Option<Secret>) -> Result<Visit, PairingError> {
    meet(link, reader, Own::default(), |_| Ok((found(), secret)))
}

/// Starts a primary over `near`, and says how it went and what it asked the arbiter for.
fn offer(near: End, disk: Disk, read_only: bool, stop: &EventSender) -> (Result<(), PairingError>, Near) {
    let image = 0x0000_006fu32.to_le_bytes();
    let boot = Boot::Firmware { image: &image, kernel: None, initrd: None, command_line: "" };
    let mut machine = Computer::new(&config(read_only), boot).expect("a machine");
    let mut snapshot = Pieces::of(&mut machine);
    let Disk { slot, shared, bytes, content_hash } = disk;
    let disks = vec![DiskHello { slot, shared, bytes, content_hash }];
    let hello = Hello { disks, ..hello(16 << 20, snapshot.bytes()) };
    let offer = Offer { hello, snapshot: &mut snapshot };
    let mut host = Near(Some(near), Vec::new());
    let started = start((&greet(), SECRET), Some(offer), &mut host, stop);
    (started.map_err(|(why, _)| why), host)
}

/// A primary and a backup up to the point where the backup has the machine; `plugged_in`: how it goes on there.
fn paired(
    [near, far]: [End; 2],
    read_only: bool,
    own: &OwnDisk,
    plugged_in: Result<(), String>,
) -> [Result<(), PairingError>; 2] {
    let (stop, _inbox) = inbox();
    let (theirs, _) = disk(0, 4096, 7);
    std::thread::scope(|scope| {
        let backup = scope.spawn(|| {
            let mut visit = meet_with(far, Some(SECRET))?;
            let mut machine: Computer = visit.take(&mut Far(vec![own.clone()]), &stop)?;
            visit.ready(&mut machine, plugged_in, &stop).map(|_| ())
        });
        let (started, asked) = offer(near, theirs, read_only, &stop);
        let spent = asked.1.contains(&"spend");
        assert_eq!(spent, started.is_err(), "a start that fails spends what it has won: {:?}", asked.1);
        [started, backup.join().expect("no panic")]
    })
}

#[test]
fn a_backup_that_fails_before_it_is_ready_stops_the_start_of_the_primary() {
    let (_, own) = disk(0, 4096, 7);
    let [primary, _] = paired(connected(), false, &own, Err("no network card".into()));
    assert!(matches!(primary, Err(PairingError::Refused(why)) if why == "no network card"));
    let in_memory = memory::connected().map(|end| link::split(end).expect("a link"));
    for ends in [connected(), in_memory] {
        let [primary, backup] = paired(ends, false, &own, Ok(()));
        assert!(primary.is_ok() && backup.is_ok(), "{primary:?}, {backup:?}");
    }
}

#[test]
fn a_disk_that_only_one_side_may_write_makes_no_pair() {
    let (_, own) = disk(0, 4096, 7);
    for (there, here) in [(true, false), (false, true)] {
        let own = OwnDisk { read_only: here, ..own.clone() };
        let [primary, backup] = paired(connected(), there, &own, Ok(()));
        let (primary, backup) = (primary.expect_err("refused"), backup.expect_err("refused"));
        assert!(primary.to_string().contains("read-only"), "{primary}");
        assert!(backup.to_string().contains("disk 0 is"), "{backup}");
    }
}

/// What a primary says that has proven itself, up to this hello.
fn say_hello(link: &mut LinkSender, reader: &mut LinkReader, hello: Hello) {
    let patience = Patience::new(STRANGER_PATIENCE, None);
    link.send_within(&Wire::Greet(greet()), &patience).expect("sent");
    let challenge = reader.receive_within(&patience).expect("the same whoever asks");
    let Wire::Challenge { nonce, .. } = challenge else { panic!("{}", challenge.name()) };
    let proof = prove(&SECRET, Side::Primary, &greet(), &nonce);
    link.send_within(&Wire::Proof { proof }, &patience).expect("sent");
    link.send_within(&Wire::Hello(hello), &patience).expect("sent");
}

/// What a backup without disks answers to this hello, which it must refuse.
fn refused(hello: Hello) -> Wire {
    let [(mut near, mut near_reader), far] = connected();
    let (stop, _inbox) = inbox();
    let stop = &stop;
    std::thread::scope(|scope| {
        let backup = scope.spawn(move || {
            let taken = |mut visit: Visit| visit.take::<Computer>(&mut Far(Vec::new()), stop);
            meet_with(far, Some(SECRET)).and_then(taken).map(|_| ())
        });
        say_hello(&mut near, &mut near_reader, hello);
        assert!(matches!(backup.join().expect("no panic"), Err(PairingError::Unfit(_))));
    });
    near_reader.receive_within(&Patience::new(STRANGER_PATIENCE, None)).expect("an answer")
}

#[test]
fn a_snapshot_that_its_machine_could_not_have_or_this_host_could_not_hold_is_refused_before_it_is_taken() {
    assert_eq!(refused(hello(16 << 20, 6 << 30)).name(), "Refuse", "no Welcome before it");
    assert!(check_snapshot(&hello(16 << 20, 17 << 20), Some(1 << 30)).is_ok());
    assert!(check_snapshot(&hello(16 << 20, 17 << 20), None).is_ok());
    assert!(check_snapshot(&hello(8 << 30, 4 << 30), Some(6 << 30)).is_ok(), "it is held once");
    let small = check_snapshot(&hello(8 << 30, 4 << 30), Some(3 << 30)).expect_err("no room for it");
    assert!(small.contains("to give"), "{small}");
    assert!(check_snapshot(&hello(u64::MAX, u64::MAX), Some(6 << 30)).is_err());
}

#[test]
fn a_machine_of_another_kind_is_refused_by_name() {
    let answer = refused(Hello { machine: "pico-x86-64".into(), ..hello(16 << 20, 17 << 20) });
    let Wire::Refuse { reason } = answer else { panic!("{}", answer.name()) };
    assert!(reason.contains("\"pico-x86-64\"") && reason.contains("\"riscv-virt\""), "{reason}");
}

#[test]
fn a_peer_that_says_nothing_is_not_waited_for_for_ever() {
    let [(_near, _), (_, mut reader)] = connected();
    let error = reader.receive_within(&Patience::new(Duration::from_millis(1), None));
    assert!(matches!(error, Err(LinkError::TooLate)), "{error:?}");
}

#[test]
fn a_peer_that_drips_does_not_lengthen_its_step() {
    use std::io::Write;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut near = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let (_, mut reader) = link::split(listener.accept().expect("connected").0).expect("a link");
    let begun = Instant::now();
    let dripping = std::thread::spawn(move || {
        for byte in Wire::Greet(greet()).encode() {
            if near.write_all(&[byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let heard = reader.receive_within(&Patience::new(Duration::from_millis(300), None));
    assert!(matches!(heard, Err(LinkError::TooLate)), "{heard:?}");
    assert!(begun.elapsed() < Duration::from_secs(2), "whatever it drips");
    drop(reader);
    dripping.join().expect("no panic");
}

#[test]
fn a_peer_that_reads_nothing_holds_nobody_who_is_told_to_stop() {
    let [(mut near, _near_reader), _far] = connected();
    let (stop, _inbox) = inbox();
    let teller = stop.clone();
    let telling = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        teller.send(Event::Stop).expect("heard");
    });
    let bytes: Vec<u8> =
        (0..(1 << 20) / 8).flat_map(|i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect();
    let piece = Wire::State { offset: 0, bytes };
    let patience = Patience::new(HANDSHAKE_PATIENCE, Some(&stop));
    let sent = (0..64).try_for_each(|_| near.send_within(&piece, &patience));
    assert!(matches!(sent, Err(LinkError::Stopped)), "{sent:?}");
    let sent = near.send_within(&piece, &Patience::new(Duration::from_millis(1), None));
    assert!(matches!(sent, Err(LinkError::TooLate)), "{sent:?}");
    telling.join().expect("no panic");
}

#[test]
fn a_stranger_takes_over_no_backup_and_learns_nothing() {
    for (theirs, ours) in [(Secret([1; 32]), Some(SECRET)), (Secret::default(), None)] {
        let [(mut near, mut near_reader), far] = connected();
        let backup = std::thread::spawn(move || meet_with(far, ours));
        near.send_within(&Wire::Greet(greet()), &Patience::new(STRANGER_PATIENCE, None)).expect("sent");
        let patience = Patience::new(STRANGER_PATIENCE, None);
        let answer = near_reader.receive_within(&patience).expect("the same whoever asks");
        let Wire::Challenge { nonce, .. } = answer else { panic!("{}", answer.name()) };
        let proof = prove(&theirs, Side::Primary, &greet(), &nonce);
        near.send_within(&Wire::Proof { proof }, &patience).expect("sent");
        let refused = backup.join().expect("no panic");
        assert!(matches!(refused, Err(PairingError::Stranger(_))), "{refused:?}");
        assert!(near_reader.receive_within(&patience).is_err(), "not a word about why");
    }
}

#[test]
fn a_primary_says_nothing_of_its_machine_to_a_backup_that_does_not_know_the_secret() {
    let [near, far] = connected();
    let (stop, _inbox) = inbox();
    let backup = std::thread::spawn(move || {
        let (mut link, mut reader) = far;
        let patience = Patience::new(STRANGER_PATIENCE, None);
        let greet = reader.receive_within(&patience).expect("a greeting");
        let Wire::Greet(greet) = greet else { panic!("{}", greet.name()) };
        assert_eq!(to_greeting(&greet).vm, "vm");
        let proof = prove(&Secret([1; 32]), Side::Backup, &greet, &[0; 32]);
        link.send_within(&Wire::Challenge { nonce: [0; 32], proof }, &patience).expect("sent");
        reader.receive_within(&patience).map(|wire| wire.name())
    });
    let (refused, _) = offer(near, disk(0, 4096, 7).0, false, &stop);
    let error = refused.expect_err("a stranger");
    assert!(error.to_string().contains("same --arbiter folder"), "{error}");
    let more = backup.join().expect("no panic");
    assert!(more.is_err(), "{more:?}");
}

#[test]
fn a_visitor_without_a_place_is_told_that_this_side_is_busy() {
    let [(mut near, mut near_reader), far] = connected();
    let backup = std::thread::spawn(move || meet_with(far, Some(SECRET)).map(Visit::turn_away));
    say_hello(&mut near, &mut near_reader, hello(1, 1));
    let patience = Patience::new(STRANGER_PATIENCE, None);
    let said = near_reader.receive_within(&patience).expect("a word");
    assert!(matches!(&said, Wire::Refuse { reason } if reason.contains("busy")), "{said:?}");
    drop((near, near_reader));
    backup.join().expect("no panic").expect("met");
    let [(mut near, _), (_, mut reader)] = connected();
    refuse(&mut near, "not today");
    assert_eq!(reader.receive_within(&patience).expect("a word").name(), "Refuse");
}

#[test]
fn a_primary_cannot_leave_the_comparison_of_disks_out() {
    let (theirs, ours) = disk(0, 4096, 7);
    let silent = Disk { content_hash: None, ..theirs };
    let why = check_disks(from_ref(&silent), from_ref(&ours)).expect_err("it must be compared");
    assert!(why.contains("--trust-disks"), "{why}");
    let trusting = OwnDisk { content_hash: None, ..ours };
    assert_eq!(check_disks(&[silent], &[trusting]), Ok(()), "unless this side's operator says so");
}

fn disk(slot: SlotId, bytes: u64, hash: u64) -> (Disk, OwnDisk) {
    let content_hash = Some(hash);
    (
        Disk { slot, shared: false, bytes, content_hash },
        OwnDisk { slot, shared: false, read_only: false, bytes, content_hash },
    )
}

#[test]
fn equal_disks_make_a_pair_and_every_difference_is_named() {
    let (theirs, ours) = disk(0, 4096, 7);
    assert_eq!(check_disks(from_ref(&theirs), from_ref(&ours)), Ok(()));
    let missing = check_disks(from_ref(&theirs), &[]).expect_err("no disk");
    assert!(missing.contains("no --disk"), "{missing}");
    let extra = check_disks(&[], from_ref(&ours)).expect_err("one too many");
    assert!(extra.contains("does not have"), "{extra}");
    let size = check_disks(from_ref(&theirs), &[OwnDisk { bytes: 512, ..ours.clone() }]).expect_err("small");
    assert!(size.contains("512 here"), "{size}");
    let content = check_disks(from_ref(&theirs), &[OwnDisk { content_hash: Some(8), ..ours.clone() }]);
    assert!(content.expect_err("other bytes").contains("content"));
    let mode = check_disks(&[theirs], &[OwnDisk { shared: true, ..ours }]).expect_err("other mode");
    assert!(mode.contains("shared here"), "{mode}");
}
