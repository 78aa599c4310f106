//! A frozen image: its stream is what a snapshot of that instant says, while the machine runs on; and a machine is built
//! of it as it comes.

mod world;

use pollux_codec::snapshot as container;
use pollux_machine::{Build, Freeze, Inspect, Memory, MemorySource, OwnMemory, Pieces, Restore};
use pollux_riscv::snapshot::SnapshotError;
use pollux_riscv::{Boot, Computer, Config, Machine, OnReset, RAM_BASE, Stop};
use pollux_vocab::{GuestAddr, Input};
use std::cell::Cell;
use std::rc::Rc;
use world::frames::udp;
use world::{NET, Random};

const REBOOT: &[u8] = include_bytes!("../../../guests/reboot/reboot.elf");
/// Stores to every page of RAM from the sixteenth on, again and again, each time something else.
const WRITER: [u32; 8] = [
    0x00010297, // auipc t0, 0x10: where it begins
    0x007f0317, // auipc t1, 0x7f0: where it ends
    0x00001e37, // lui t3, 1: a page
    0x0072b023, // sd t2, 0(t0)
    0x00138393, // addi t2, t2, 1
    0x01c282b3, // add t0, t0, t3
    0xfe62eae3, // bltu t0, t1, -12
    0xfe5ff06f, // j -28: again
];
const RAM_BYTES: u64 = 8 << 20;

fn writer() -> Computer {
    let image: Vec<u8> = WRITER.iter().flat_map(|word| word.to_le_bytes()).collect();
    let config = Config { ram_bytes: RAM_BYTES, ..Config::default() };
    let boot = Boot::Firmware { image: &image, kernel: None, initrd: None, command_line: "" };
    Computer::new(&config, boot).expect("a machine")
}

fn run(machine: &mut Computer, steps: u64) {
    let until = machine.icount().after(steps);
    assert_eq!(machine.run(until), Stop::Until);
}

fn measured(machine: &mut Computer) -> u64 {
    machine.measure_frozen(usize::MAX).expect("all of it")
}

/// All that is left of a frozen image's stream.
fn rest(machine: &mut Computer, pages_max: usize) -> Vec<u8> {
    let mut stream = Vec::new();
    while machine.read_frozen(pages_max, &mut stream) {}
    stream
}

fn built(bytes: &[u8], piece: usize) -> Result<Computer, SnapshotError> {
    let mut builder = Computer::builder(Box::new(OwnMemory));
    bytes.chunks(piece).try_for_each(|piece| builder.push(piece))?;
    builder.finish()
}

#[test]
fn the_stream_of_a_frozen_image_is_the_snapshot_of_its_instant_while_the_guest_writes_everywhere() {
    let (mut machine, mut undisturbed) = (writer(), writer());
    for steps in [0, 1_000, 20_000, 33_333] {
        run(&mut machine, steps);
        let snapshot = machine.snapshot();
        machine.freeze();
        run(&mut machine, 2_000);
        while machine.measure_frozen(100).is_none() {
            run(&mut machine, 500);
        }
        assert_eq!(measured(&mut machine), snapshot.len() as u64);
        let mut stream = Vec::new();
        while machine.read_frozen(7, &mut stream) {
            run(&mut machine, 100);
        }
        assert!(stream == snapshot, "after {steps} steps");
        assert!(machine.snapshot() != snapshot, "it has run on");
        machine.thaw();
    }
    let until = machine.icount();
    undisturbed.run(until);
    assert!(machine.snapshot() == undisturbed.snapshot(), "and has not noticed");
    assert_eq!(machine.digest().ram, undisturbed.digest().ram);
}

#[test]
fn a_busy_machine_streams_the_same_bytes_and_works_on() {
    let mut world = world::busy("");
    let snapshot = world.machine.snapshot();
    world.machine.freeze();
    world.send(Input::Packet { slot: NET, frame: udp("GET 1 2\n") });
    assert!(world.run_until(|world| world.frames.iter().any(|frame| frame.windows(3).any(|w| w == b"1 2"))));
    assert_eq!(measured(&mut world.machine), snapshot.len() as u64);
    assert!(rest(&mut world.machine, 1) == snapshot);
}

#[test]
fn the_pieces_of_a_machine_that_stands_still_are_its_snapshot_and_build_it_again() {
    let mut machine = world::busy("").machine;
    let snapshot = machine.snapshot();
    let mut pieces = Pieces::of(&mut machine);
    assert_eq!(pieces.bytes(), snapshot.len() as u64);
    let mut builder = Computer::builder(Box::new(OwnMemory));
    let mut all = Vec::new();
    for piece in pieces.by_ref() {
        assert!(!piece.is_empty() && piece.len() <= (1 << 20) + 4096, "bounded");
        builder.push(&piece).expect("its own");
        all.extend(piece);
    }
    assert!(all == snapshot);
    drop(pieces);
    assert_eq!(machine.frozen_at(), None, "the image is let go");
    assert!(builder.finish().expect("its own").snapshot() == snapshot);
    for piece in [61, 4096, 100_003] {
        assert!(built(&snapshot, piece).expect("its own").snapshot() == snapshot, "in pieces of {piece}");
    }
}

#[test]
fn a_snapshot_that_comes_cut_off_damaged_or_out_of_order_builds_no_machine() {
    let snapshot = world::busy("").machine.snapshot();
    let mut random = Random(0xc07);
    for _ in 0..100 {
        let cut = random.below(snapshot.len() as u64) as usize;
        assert!(matches!(built(&snapshot[..cut], 5_000), Err(SnapshotError::Container(_))), "{cut} bytes");
        let mut damaged = snapshot.clone();
        damaged[cut] ^= 1 + random.below(255) as u8;
        assert!(built(&damaged, 5_000).is_err(), "byte {cut}");
    }
    assert!(built(&[&snapshot[..], b"x"].concat(), 5_000).is_err());
    let mut sections = container::decode(&snapshot).expect("whole");
    let last = sections.len() - 1;
    sections.swap(last, last - 1);
    let shuffled = container::encode(sections.iter().copied());
    assert!(Computer::restore(&shuffled).is_ok(), "at once, order is nothing");
    assert!(built(&shuffled, 5_000).is_err());
    sections.remove(last - 1);
    let bare = container::encode(sections);
    assert_eq!(built(&bare, 5_000).err(), Some(SnapshotError::Missing { kind: 0xff03 }));
}

#[test]
fn an_image_outlives_the_reboots_of_its_guest() {
    let config = Config { ram_bytes: RAM_BYTES, on_reset: OnReset::Restart, ..Config::default() };
    let boot = Boot::Kernel { image: REBOOT, initrd: None, command_line: "" };
    let mut machine = Computer::new(&config, boot).expect("a machine");
    let go_on = |machine: &mut Computer, restarts: u64| {
        for _ in 0..10_000 {
            if machine.restarts() >= restarts {
                return;
            }
            machine.run(machine.icount().after(1_000));
            while machine.take_output().is_some() {}
            for output in machine.pending() {
                if let pollux_vocab::Output::Disk(request) = output {
                    let len = match request.op {
                        pollux_vocab::DiskOp::Read { len, .. } => len as usize,
                        _ => 0,
                    };
                    let (slot, request, data) = (request.slot, request.request, vec![0; len]);
                    let status = pollux_vocab::DiskStatus::Ok;
                    machine.apply(&Input::DiskDone { slot, request, status, data });
                }
            }
        }
        panic!("it does not reboot");
    };
    go_on(&mut machine, 1);
    let snapshot = machine.snapshot();
    machine.freeze();
    go_on(&mut machine, 3);
    assert_eq!(measured(&mut machine), snapshot.len() as u64);
    go_on(&mut machine, 4);
    assert!(rest(&mut machine, 3) == snapshot);
    machine.thaw();
    go_on(&mut machine, 6);
}

#[test]
fn who_looks_into_a_frozen_image_sees_its_instant() {
    let mut machine = writer();
    assert!(!machine.inspect_memory(GuestAddr(RAM_BASE), &mut [0; 8]), "there is no image");
    run(&mut machine, 50_000);
    let there = GuestAddr(RAM_BASE + 0x20_0ffc);
    let mut then = [0; 8];
    machine.ram().read(there, &mut then).expect("RAM");
    let (icount, harts) = (machine.icount(), machine.describe_hart(0));
    machine.freeze();
    run(&mut machine, 50_000);
    let (mut now, mut seen) = ([0; 8], [0; 8]);
    machine.ram().read(there, &mut now).expect("RAM");
    assert!(machine.inspect_memory(there, &mut seen));
    assert!(seen == then && seen != now, "{then:?} then, {seen:?} seen, {now:?} now");
    assert_eq!((machine.frozen_at(), machine.inspect_harts()), (Some(icount), vec![harts]));
    let names: Vec<_> = machine.inspect_devices().iter().map(|device| device.name).collect();
    assert_eq!(names, ["clint", "plic", "uart", "rtc", "board", "virtio"]);
    assert!(!machine.inspect_memory(GuestAddr(RAM_BASE + RAM_BYTES - 4), &mut seen), "that is no RAM");
    while machine.read_frozen(100, &mut Vec::new()) {}
    assert!(!machine.inspect_memory(there, &mut seen), "what was read is let go");
}

/// Memory from a host that counts.
struct Counting(Rc<Cell<(usize, usize)>>);

impl MemorySource for Counting {
    fn give(&mut self, bytes: usize) -> Option<Memory> {
        let (given, back) = self.0.get();
        self.0.set((given + 1, back));
        Some(Memory::Lent(Box::leak(vec![0; bytes].into_boxed_slice())))
    }

    fn take_back(&mut self, memory: Memory) {
        assert_eq!(memory.len() as u64, RAM_BYTES);
        let (given, back) = self.0.get();
        self.0.set((given, back + 1));
    }
}

#[test]
fn a_machine_lives_in_the_memory_that_its_host_lends_and_gives_it_back_when_its_guest_begins_again() {
    let config = Config { ram_bytes: RAM_BYTES, on_reset: OnReset::Restart, ..Config::default() };
    let boot = Boot::Kernel { image: REBOOT, initrd: None, command_line: "" };
    let counts = Rc::new(Cell::new((0, 0)));
    let mut lent = Computer::new_in(&config, boot, Box::new(Counting(counts.clone()))).expect("a machine");
    let mut own = Computer::new(&config, boot).expect("a machine");
    for machine in [&mut lent, &mut own] {
        while machine.restarts() < 2 && machine.icount().0 < 10_000_000 {
            machine.run(machine.icount().after(10_000));
            while machine.take_output().is_some() {}
        }
    }
    assert_eq!(
        (lent.restarts(), counts.get()),
        (own.restarts(), (own.restarts() as usize + 1, own.restarts() as usize))
    );
    assert!(lent.snapshot() == own.snapshot(), "whose memory it is does not show");
    let mut builder = Computer::builder(Box::new(Counting(counts.clone())));
    builder.push(&lent.snapshot()).expect("its own");
    assert!(builder.finish().expect("its own").snapshot() == own.snapshot());
}

struct Nothing;

impl MemorySource for Nothing {
    fn give(&mut self, _bytes: usize) -> Option<Memory> {
        None
    }
}

#[test]
fn a_host_without_memory_builds_no_machine() {
    let mut builder = Computer::builder(Box::new(Nothing));
    let refused = builder.push(&writer().snapshot());
    assert_eq!(refused, Err(SnapshotError::NoMemory { bytes: RAM_BYTES }));
}
