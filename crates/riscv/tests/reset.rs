//! A guest that reboots (`guests/reboot`): the machine begins again in place, the same everywhere and however it is run.

mod world;

use pollux_riscv::{Boot, Computer, Config, DeviceConfig, Machine, OnPanic, OnReset, Stop};
use pollux_vocab::{DiskOp, DiskStatus, Icount, Input, Output};
use std::collections::BTreeMap;
use world::Random;

const REBOOT: &[u8] = include_bytes!("../../../guests/reboot/reboot.elf");
const TINY: &[u8] = include_bytes!("../../../guests/tiny/tiny.elf");

fn config() -> Config {
    let disk = DeviceConfig::Block { bytes: 1 << 20, read_only: false, serial: String::new() };
    let devices = vec![disk, DeviceConfig::Rng];
    Config { ram_bytes: 8 << 20, devices, on_reset: OnReset::Restart, ..Config::default() }
}

fn start(config: &Config, image: &[u8]) -> Computer {
    Computer::new(config, Boot::Kernel { image, initrd: None, command_line: "" }).expect("a machine")
}

/// What is around a machine: a disk that answers at the next stop, and what the guest has said.
#[derive(Default)]
struct World {
    disk: BTreeMap<u64, Vec<u8>>,
    asked: Vec<(u64, DiskOp)>,
    said: String,
    ended: Option<Output>,
}

impl World {
    fn listen(&mut self, machine: &mut Computer) {
        while let Some(output) = machine.take_output() {
            match output {
                Output::Console { bytes, .. } => self.said += &String::from_utf8_lossy(&bytes),
                Output::Disk(request) => self.asked.push((request.request, request.op)),
                other => self.ended = Some(other),
            }
        }
    }

    fn answer(&mut self, machine: &mut Computer) {
        for (request, op) in core::mem::take(&mut self.asked) {
            let data = match op {
                DiskOp::Write { offset, data } => {
                    self.disk.insert(offset, data);
                    Vec::new()
                }
                DiskOp::Read { offset, len } => {
                    self.disk.get(&offset).cloned().unwrap_or_else(|| vec![0; len as usize])
                }
                _ => Vec::new(),
            };
            machine.apply(&Input::DiskDone { slot: 0, request, status: DiskStatus::Ok, data });
        }
    }

    /// Runs to `until`, looking at the world every `piece` steps at most; the disk answers at multiples of 10,000.
    fn run(&mut self, machine: &mut Computer, until: u64, mut piece: impl FnMut() -> u64) {
        while machine.icount().0 < until && self.ended.is_none() {
            let answers = (machine.icount().0 / 10_000 + 1) * 10_000;
            let end = (machine.icount().0 + piece()).min(answers).min(until);
            let stop = machine.run(Icount(end));
            self.listen(machine);
            assert!(!matches!(stop, Stop::Idle { .. }), "it never sleeps: {}", self.said);
            if machine.icount().0 == answers {
                self.answer(machine);
            }
        }
    }

    fn lives(&self) -> Vec<&str> {
        self.said.lines().filter(|line| line.starts_with("reboot: life")).collect()
    }
}

/// Enough for about twenty lives of 2 ms, at ten nanoseconds a step.
const TWENTY_LIVES: u64 = 20 * 230_000;

#[test]
fn a_guest_that_reboots_begins_again_in_place_and_finds_nothing_that_an_earlier_life_has_left() {
    let (mut machine, mut world) = (start(&config(), REBOOT), World::default());
    world.run(&mut machine, TWENTY_LIVES, || 1 << 20);
    assert_eq!(world.ended, None, "{}", world.said);
    let lives = world.lives();
    assert!(lives.len() > 15 && machine.restarts() >= lives.len() as u64 - 1, "{}", world.said);
    assert!(!world.said.contains("left"), "{}", world.said);
    // Its count is on the disk, and each life has a seed of its own.
    let numbers = lives.iter().zip(1..).all(|(line, n)| line.starts_with(&format!("reboot: life {n} seed ")));
    let seeds: std::collections::BTreeSet<_> =
        lives.iter().filter_map(|line| line.split(' ').nth(4)).collect();
    assert!(numbers && seeds.len() == lives.len(), "{}", world.said);
    assert_eq!(machine.icount(), Icount(TWENTY_LIVES), "counting goes on");
}

#[test]
fn a_reset_happens_at_the_same_step_whatever_the_pieces_and_wherever_a_snapshot_is_taken() {
    let (mut whole, mut world) = (start(&config(), REBOOT), World::default());
    world.run(&mut whole, TWENTY_LIVES, || 1 << 20);
    let mut random = Random(7);
    let (mut pieces, mut other) = (start(&config(), REBOOT), World::default());
    for end in (1..=8).map(|n| n * TWENTY_LIVES / 8) {
        other.run(&mut pieces, end, || 1 + random.next() % 3000);
        if end == TWENTY_LIVES {
            break;
        }
        // A digest, or a copy, in between never shows.
        pieces.digest();
        let snapshot = pieces.snapshot();
        pieces = Computer::restore(&snapshot).expect("its own snapshot");
    }
    assert_eq!(world.said, other.said);
    assert_eq!(whole.restarts(), pieces.restarts());
    let (a, b) = (whole.digest(), pieces.digest());
    assert_eq!((a.harts, a.devices, a.ram), (b.harts, b.devices, b.ram));
    assert_eq!(whole.snapshot(), pieces.snapshot());
}

#[test]
fn a_machine_just_loaded_has_each_page_in_its_snapshot_once() {
    let kept = start(&config(), REBOOT).snapshot().len();
    let stops = Config { on_reset: OnReset::Stop, ..config() };
    let bare = start(&stops, REBOOT).snapshot().len();
    assert!(kept < bare + 4096, "{kept} bytes with what a reset finds, {bare} without");
}

#[test]
fn a_snapshot_without_what_a_reset_finds_or_with_nonsense_for_it_is_refused() {
    use pollux_codec::snapshot as container;
    let snapshot = start(&config(), REBOOT).snapshot();
    let sections = container::decode(&snapshot).expect("its own");
    let without: Vec<_> = sections.iter().filter(|s| s.0 != 0xff04).copied().collect();
    assert!(Computer::restore(&container::encode(without)).is_err());
    let boot = sections.iter().find(|s| s.0 == 0xff04).expect("an image").2;
    // A page twice, a page outside of RAM, half a page, no places.
    let entry = &boot[boot.len() - 4100..];
    let outside = [&boot[..boot.len() - 4100], &u32::MAX.to_le_bytes(), &entry[4..]].concat();
    for nonsense in [[boot, entry].concat(), outside, boot[..boot.len() - 1].to_vec(), vec![]] {
        let forged =
            sections.iter().map(|s| if s.0 == 0xff04 { (s.0, s.1, nonsense.as_slice()) } else { *s });
        assert!(Computer::restore(&container::encode(forged.collect::<Vec<_>>())).is_err());
    }
    let stops = Config { on_reset: OnReset::Stop, ..config() };
    let other = start(&stops, REBOOT).snapshot();
    let forged = container::decode(&other).expect("its own").into_iter().chain([(0xff04, 1, boot)]);
    assert!(Computer::restore(&container::encode(forged.collect::<Vec<_>>())).is_err());
}

#[test]
fn a_reset_or_a_failure_ends_a_machine_that_is_told_to_stop() {
    let stops = Config { on_reset: OnReset::Stop, ..config() };
    let (mut machine, mut world) = (start(&stops, REBOOT), World::default());
    world.run(&mut machine, TWENTY_LIVES, || 1 << 20);
    assert_eq!((world.lives().len(), world.ended), (1, Some(Output::Reset)));
}

#[test]
fn a_guest_that_fails_begins_again_if_it_is_told_to_and_else_ends_with_its_status() {
    let fails = |on_panic| {
        let config = Config { ram_bytes: 8 << 20, on_panic, ..Config::default() };
        let mut machine = start(&config, TINY);
        let mut world = World::default();
        for icount in (1..200).map(|n| n * 100_000) {
            loop {
                let stop = machine.run(Icount(icount));
                world.listen(&mut machine);
                match stop {
                    Stop::Idle { wake: Some(time) } => {
                        machine.apply(&Input::Clock { time, rate: pollux_vocab::ClockRate::default() });
                    }
                    Stop::Until if machine.icount().0 >= icount => break,
                    Stop::Halted | Stop::Idle { wake: None } => return (machine.restarts(), world.ended),
                    _ => {}
                }
                if machine.restarts() > 0 {
                    return (machine.restarts(), world.ended);
                }
            }
            if icount == 5_000_000 {
                let console = pollux_vocab::ConsoleId::Uart;
                machine.apply(&Input::Console { console, bytes: b"fail 5\r".to_vec() });
            }
        }
        panic!("it runs on: {}", world.said)
    };
    assert_eq!(fails(OnPanic::Restart), (1, None));
    assert_eq!(fails(OnPanic::Stop), (0, Some(Output::PowerOff { status: 5 })));
}

#[test]
fn a_large_image_is_loaded_in_portions_between_which_the_machine_is_as_it_was() {
    let initrd = vec![0x5a; 20 << 20];
    let config = Config { ram_bytes: 64 << 20, ..config() };
    let boot = || Boot::Kernel { image: REBOOT, initrd: Some(&initrd), command_line: "" };
    let start = || Computer::new(&config, boot()).expect("a machine");
    let reach = |machine: &mut Computer, world: &mut World| {
        while !world.said.ends_with('\n') {
            world.run(machine, machine.icount().0 + 10_000, || 10_000);
        }
    };
    let (mut machine, mut world) = (start(), World::default());
    reach(&mut machine, &mut world);
    // Just before it resets; the step at which it does is looked for.
    let mut returns = 0;
    while machine.restarts() == 0 {
        let before = machine.icount();
        let digest = if returns == 1 { Some(machine.digest()) } else { None };
        machine.run(before.after(100));
        world.listen(&mut machine);
        world.answer(&mut machine);
        if machine.icount() == before {
            returns += 1;
            if let Some(digest) = digest {
                let now = machine.digest();
                assert_eq!((digest.harts, digest.devices, digest.ram), (now.harts, now.devices, now.ram));
                machine = Computer::restore(&machine.snapshot()).expect("its own snapshot");
            }
        }
    }
    assert!(returns >= 4, "{returns} portions");
    assert!(!world.said.contains("left"), "{}", world.said);
}
