//! Snapshots that are cut off, damaged, of another version or forged, of a machine in the middle of its work: refused, or
//! as good as any other machine. Never a panic.
//!
//! Damage that no checksum sees is made on purpose: contents are changed and sealed again. What a restored machine
//! does then is its own affair, but it does it without breaking its host.

mod world;

use pollux_codec::snapshot::{self as container, ContainerError};
use pollux_riscv::snapshot::SnapshotError;
use pollux_riscv::{Computer, Config, DeviceConfig, Machine, Stop};
use pollux_vocab::{ClockRate, Input, Output};
use world::frames::udp;
use world::{NET, Random};

const SLOTS: u16 = 6;
const CONFIG: u16 = 0xff00;
const MACHINE: u16 = 0xff01;
const HARTS: u16 = 0xff02;
const RAM: u16 = 0xff03;
const SECTIONS: [u16; 10] = [1, 2, 3, 4, 5, SLOTS, CONFIG, MACHINE, HARTS, RAM];

type Sections = Vec<(u16, u16, Vec<u8>)>;

/// A machine with a request in flight, and what it has asked for.
fn busy() -> Computer {
    world::busy("").machine
}

fn sections(snapshot: &[u8]) -> Sections {
    let all = container::decode(snapshot).expect("a whole snapshot");
    all.into_iter().map(|(kind, version, bytes)| (kind, version, bytes.to_vec())).collect()
}

fn sealed(sections: &Sections) -> Vec<u8> {
    container::encode(sections.iter().map(|(kind, version, bytes)| (*kind, *version, bytes.as_slice())))
}

fn section(sections: &mut Sections, kind: u16) -> &mut (u16, u16, Vec<u8>) {
    sections.iter_mut().find(|section| section.0 == kind).expect("every section is there")
}

/// Why a snapshot is refused.
fn refusal(snapshot: &[u8]) -> SnapshotError {
    let Err(error) = Computer::restore(snapshot) else { panic!("it was restored") };
    let text = error.to_string();
    assert!(text.len() > 10 && text.len() < 200, "{text}");
    error
}

/// Which section of it makes no sense.
fn malformed(snapshot: &[u8]) -> u16 {
    match refusal(snapshot) {
        SnapshotError::Malformed { kind, field } => {
            assert!(!field.is_empty());
            kind
        }
        other => panic!("{other}"),
    }
}

/// Lets a machine that cannot be trusted run, and the world answer it.
fn stir(mut computer: Computer) {
    for _ in 0..40 {
        let until = computer.icount().after(500);
        match computer.run(until) {
            Stop::Output => while computer.take_output().is_some() {},
            Stop::Idle { wake } => {
                let time = wake.unwrap_or(computer.time());
                computer.apply(&Input::Clock { time, rate: ClockRate::default() });
            }
            Stop::Until => {}
            Stop::Halted => break,
        }
        computer.apply(&Input::Packet { slot: NET, frame: udp("GET 1 2\n") });
        for output in computer.pending().into_iter().take(4) {
            if let Output::EntropyWanted { slot, request, len } = output {
                computer.apply(&Input::Entropy { slot, request, bytes: vec![1; len.min(4096) as usize] });
            } else if let Output::Disk(request) = output {
                let (slot, request, status) = (request.slot, request.request, pollux_vocab::DiskStatus::Ok);
                computer.apply(&Input::DiskDone { slot, request, status, data: vec![0; 512] });
            }
        }
    }
    computer.digest();
    let again = computer.snapshot();
    assert!(Computer::restore(&again).is_ok(), "what it came to can be saved and restored");
}

#[test]
fn every_truncation_is_refused() {
    let snapshot = busy().snapshot();
    let end = snapshot.len();
    for len in (0..4096).chain((4096..end).step_by(509)).chain(end - 64..end) {
        let error = refusal(&snapshot[..len]);
        let named = match &error {
            SnapshotError::Container(ContainerError::NotASnapshot { .. }) => len < 8,
            SnapshotError::Container(ContainerError::Truncated { at, .. }) => *at == len as u64,
            _ => false,
        };
        assert!(named, "{len} bytes: {error}");
    }
}

#[test]
fn bytes_behind_the_end_are_refused() {
    let snapshot = [&busy().snapshot()[..], b"x"].concat();
    assert!(matches!(
        refusal(&snapshot),
        SnapshotError::Container(ContainerError::TrailingBytes { extra: 1, .. })
    ));
}

#[test]
fn every_damaged_byte_is_noticed() {
    let snapshot = busy().snapshot();
    let mut random = Random(0xbad);
    for round in 0..2000 {
        // Headers are few among so many bytes: half of the damage goes to the front.
        let span = if round % 2 == 0 { 4096 } else { snapshot.len() as u64 };
        let at = random.below(span) as usize;
        let mut damaged = snapshot.clone();
        damaged[at] ^= 1 + random.below(255) as u8;
        assert!(matches!(refusal(&damaged), SnapshotError::Container(_)), "byte {at}");
    }
}

#[test]
fn other_versions_are_named() {
    let snapshot = busy().snapshot();
    let mut other = snapshot.clone();
    other[8] = 2;
    assert_eq!(refusal(&other), ContainerError::UnknownFormat { found: 2 }.into());
    for kind in SECTIONS {
        let mut all = sections(&snapshot);
        section(&mut all, kind).1 = 7;
        let error = refusal(&sealed(&all));
        assert_eq!(error, SnapshotError::Version { kind, version: 7 });
        assert!(error.to_string().contains("version 7"), "{error}");
    }
}

#[test]
fn a_machine_whose_harts_took_turns_of_another_length_is_refused() {
    let mut all = sections(&busy().snapshot());
    assert_eq!(section(&mut all, MACHINE).1, 2);
    section(&mut all, MACHINE).1 = 1;
    assert_eq!(refusal(&sealed(&all)), SnapshotError::Version { kind: MACHINE, version: 1 });
}

#[test]
fn missing_unknown_and_long_sections_are_named() {
    let snapshot = busy().snapshot();
    for kind in SECTIONS {
        let mut all = sections(&snapshot);
        all.retain(|section| section.0 != kind);
        assert_eq!(refusal(&sealed(&all)), SnapshotError::Missing { kind });
        let mut all = sections(&snapshot);
        section(&mut all, kind).2.push(0);
        assert_eq!(malformed(&sealed(&all)), kind);
        let mut all = sections(&snapshot);
        section(&mut all, kind).2.pop();
        assert_eq!(malformed(&sealed(&all)), kind);
    }
    let mut all = sections(&snapshot);
    all.push((0x77, 1, vec![]));
    assert_eq!(refusal(&sealed(&all)), SnapshotError::Unknown { kind: 0x77 });
}

#[test]
fn sections_of_another_machine_are_refused() {
    let snapshot = busy().snapshot();
    let devices = vec![DeviceConfig::Rng];
    let config = Config { ram_bytes: 4 << 20, harts: 1, devices, rtc_base_ns: 0, ..Config::default() };
    let boot = pollux_riscv::Boot::Firmware { image: b"x", kernel: None, initrd: None, command_line: "" };
    let other = sections(&Computer::new(&config, boot).expect("a machine").snapshot());
    // Clint, Plic, virtio slots, harts, RAM that lies beyond the end; the configuration itself.
    for kind in [1, 2, SLOTS, HARTS] {
        let mut all = sections(&snapshot);
        section(&mut all, kind).2 = other.iter().find(|s| s.0 == kind).unwrap().2.clone();
        assert_eq!(malformed(&sealed(&all)), kind);
    }
    let mut all = sections(&snapshot);
    section(&mut all, RAM).2[..4].copy_from_slice(&((8u32 << 20) / 4096).to_le_bytes());
    assert_eq!(malformed(&sealed(&all)), RAM);
    let mut all = sections(&snapshot);
    section(&mut all, CONFIG).2 = other.iter().find(|s| s.0 == CONFIG).unwrap().2.clone();
    refusal(&sealed(&all));
}

#[test]
fn a_board_has_all_its_slots_and_no_others() {
    let snapshot = busy().snapshot();
    let with = |count: u8, change: &dyn Fn(&mut Vec<u8>)| {
        let mut all = sections(&snapshot);
        let content = &mut section(&mut all, SLOTS).2;
        assert_eq!(content[0], 9, "their number comes first");
        content[0] = count;
        change(content);
        malformed(&sealed(&all))
    };
    // The last slot is empty: eight zeros, as postcard writes them.
    let short = with(8, &|content| content.truncate(content.len() - 8));
    let long = with(10, &|content| content.extend([0; 8]));
    assert_eq!([short, long], [SLOTS; 2]);
}

#[test]
fn impossible_configurations_are_refused_before_anything_is_built() {
    let snapshot = busy().snapshot();
    let good = Computer::restore(&snapshot).expect("its own snapshot").config().clone();
    let with = |ram_bytes: u64, harts: u32| {
        let mut all = sections(&snapshot);
        // RAM and harts come first.
        let beginning = postcard::to_allocvec(&(good.ram_bytes, good.harts)).unwrap().len();
        let content = &mut section(&mut all, CONFIG).2;
        content.splice(..beginning, postcard::to_allocvec(&(ram_bytes, harts)).unwrap());
        Computer::restore(&sealed(&all))
    };
    assert!(with(8 << 20, 2).is_ok());
    let sizes = [0, 4095, (8 << 20) + 1, (1 << 39) + 4096, 1 << 62, u64::MAX];
    let counts = [0, 9, u32::MAX];
    for (ram_bytes, harts) in
        sizes.map(|bytes| (bytes, 2)).into_iter().chain(counts.map(|harts| (8 << 20, harts)))
    {
        let error = with(ram_bytes, harts).err();
        assert!(
            matches!(error, Some(SnapshotError::Malformed { kind: CONFIG, .. })),
            "{ram_bytes} bytes, {harts} harts"
        );
    }
    // Possible, but not on every host: an error where it is one, and not the end of the process.
    assert!(matches!(with(1 << 39, 2), Ok(_) | Err(SnapshotError::NoMemory { .. })));
}

#[test]
fn damage_under_a_good_checksum_is_refused_or_harmless() {
    let all = sections(&busy().snapshot());
    let mut random = Random(0xf0e);
    let mut restored = 0;
    for round in 0..2000 {
        // All but RAM: what a program could have written there is no damage.
        let kind = SECTIONS[round % (SECTIONS.len() - 1)];
        let mut forged = all.clone();
        let content = &mut section(&mut forged, kind).2;
        let len = content.len() as u64;
        let from = random.below(len);
        let run = 1 + random.below(4) * random.below(4);
        let value = [0, 1, 0x7f, 0x80, 0xff, random.below(256) as u8][random.below(6) as usize];
        (from..len.min(from + run)).for_each(|at| content[at as usize] = value);
        if let Ok(computer) = Computer::restore(&sealed(&forged)) {
            restored += 1;
            stir(computer);
        }
    }
    assert!(restored > 500, "only {restored} were restored: nothing was tried");
}

#[test]
fn a_machine_at_the_end_of_all_counts_runs_on() {
    let all = sections(&busy().snapshot());
    let ends = [0, 1, u64::from(u32::MAX), 1 << 63, u64::MAX - 1000, u64::MAX];
    let mut random = Random(0xe4d);
    for _ in 0..300 {
        let mut any = || ends[random.below(6) as usize];
        // Clock: base icount, base time, rate. Then icount, whose turn it is, what is left of it, SBI.
        let machine = ((any(), any(), any()), any(), 0u32, any(), true);
        let mut forged = all.clone();
        section(&mut forged, MACHINE).2 = postcard::to_allocvec(&machine).unwrap();
        match Computer::restore(&sealed(&forged)) {
            Ok(computer) => stir(computer),
            Err(SnapshotError::Malformed { kind: MACHINE, .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_page_of_rubbish_in_ram_is_a_machine_like_any_other() {
    let all = sections(&busy().snapshot());
    let mut random = Random(0x9a9e);
    for _ in 0..100 {
        let mut forged = all.clone();
        let content = &mut section(&mut forged, RAM).2;
        let page = random.below(content.len() as u64 / 4100) as usize * 4100 + 4;
        content[page..page + 4096].iter_mut().for_each(|byte| *byte = random.below(256) as u8);
        stir(Computer::restore(&sealed(&forged)).expect("any content is content"));
    }
}

#[test]
fn a_restored_machine_is_the_same_machine() {
    let mut computer = busy();
    let snapshot = computer.snapshot();
    let mut twin = Computer::restore(&snapshot).expect("its own snapshot");
    assert_eq!(twin.snapshot(), snapshot, "and says so in the same bytes");
    let (ours, theirs) = (computer.digest(), twin.digest());
    assert_eq!((ours.harts, ours.devices, ours.ram), (theirs.harts, theirs.devices, theirs.ram));
    assert_eq!((computer.pending(), computer.config()), (twin.pending(), twin.config()));
}
