//! Snapshots of a busy machine, and of one whose power button is pressed, committed: they load for ever, mean what they
//! meant, and are written as they were.
//!
//! Who changes what a section holds without giving the section a new version fails here, and not at a user's who
//! restores a snapshot of last month. Then: a new version of that section, an arm that reads the old one, and a second
//! golden file (`POLLUX_WRITE_GOLDEN=1 cargo test -p pollux-riscv --test golden` writes the newest). The old files
//! stay and are read.

mod world;

use pollux_codec::snapshot as container;
use pollux_machine::{Build, OwnMemory, Restore};
use pollux_riscv::{Boot, Computer, Config, Machine, Stop};
use pollux_vocab::{ClockRate, GuestAddr, Input};
use std::path::{Path, PathBuf};
use world::NET;
use world::frames::udp;

/// Steps that a restored machine takes, to see that it does what it did.
const STEPS: u64 = 200_000;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

/// A busy machine with a frame waiting.
fn busy() -> Computer {
    let mut world = world::busy("golden");
    world.send(Input::Packet { slot: NET, frame: udp("GET 1 2\n") });
    world.machine
}

/// Addresses and what is stored there, until the address is 0; then the hart waits. The table follows the code.
const STORER: [u32; 10] = [
    0x0000_0297, // auipc t0, 0
    0x0282_8293, // addi t0, t0, 40: the table
    0x0002_e303, // lwu t1, 0(t0)
    0x0003_0a63, // beqz t1, 20
    0x0042_a383, // lw t2, 4(t0)
    0x0073_2023, // sw t2, 0(t1)
    0x0082_8293, // addi t0, t0, 8
    0xfedf_f06f, // j -20
    0x1050_0073, // wfi
    0xffdf_f06f, // j -4
];
/// What a driver of the power button stores: it accepts version 1, sets both queues up, gives buffers for three of the
/// four events of a press, and selects the button's name. Registers as in virtio 1.2, 4.2.2.
const BUTTON: [(u32, u32); 31] = {
    const AT: u32 = 0x1000_9000;
    const TABLE: u32 = 0x8010_0000;
    const AVAIL: u32 = 0x8010_1000;
    const USED: u32 = 0x8010_2000;
    [
        (AT + 0x70, 3),
        (AT + 0x24, 1),
        (AT + 0x20, 1),
        (AT + 0x70, 11),
        // Descriptors: a buffer of 8 bytes each, for the device to write.
        (TABLE, 0x8010_3000),
        (TABLE + 8, 8),
        (TABLE + 12, 2),
        (TABLE + 16, 0x8010_3008),
        (TABLE + 24, 8),
        (TABLE + 28, 2),
        (TABLE + 32, 0x8010_3010),
        (TABLE + 40, 8),
        (TABLE + 44, 2),
        (AVAIL, 3 << 16),
        (AVAIL + 4, 1 << 16),
        (AVAIL + 8, 2),
        (AT + 0x38, 16),
        (AT + 0x80, TABLE),
        (AT + 0x90, AVAIL),
        (AT + 0xa0, USED),
        (AT + 0x44, 1),
        (AT + 0x30, 1),
        (AT + 0x38, 16),
        (AT + 0x80, TABLE + 0x4000),
        (AT + 0x90, AVAIL + 0x4000),
        (AT + 0xa0, USED + 0x4000),
        (AT + 0x44, 1),
        (AT + 0x70, 15),
        (AT + 0x50, 0),
        (AT + 0x100, 1),
        (0, 0),
    ]
};

/// A machine whose power button is pressed, and whose driver has been told three of the four events of that.
fn button() -> Computer {
    let stores = BUTTON.iter().flat_map(|(addr, value)| [*addr, *value]);
    let image: Vec<u8> = STORER.into_iter().chain(stores).flat_map(u32::to_le_bytes).collect();
    let config = Config { ram_bytes: 4 << 20, ..Config::default() };
    let boot = Boot::Firmware { image: &image, kernel: None, initrd: None, command_line: "" };
    let mut computer = Computer::new(&config, boot).expect("a machine");
    assert_eq!(computer.run(computer.icount().after(1_000)), Stop::Idle { wake: None });
    computer.apply(&Input::PowerButton);
    let mut told = [0; 4];
    computer.ram().read(GuestAddr(0x8010_2000), &mut told).expect("RAM");
    assert_eq!(told, [0, 0, 3, 0], "events that are told");
    computer
}

/// Runs on, alone; idle times are skipped.
fn digest_after_steps(mut computer: Computer) -> String {
    let until = computer.icount().after(STEPS);
    loop {
        match computer.run(until) {
            Stop::Output => while computer.take_output().is_some() {},
            Stop::Idle { wake: Some(time) } => {
                computer.apply(&Input::Clock { time, rate: ClockRate::default() })
            }
            Stop::Idle { wake: None } | Stop::Until | Stop::Halted => break,
        }
    }
    format!("{:?} at {:?}", computer.digest(), computer.icount())
}

/// Kinds and versions, and the lengths of all but the last, RAM: the guest may change, the machine may not.
fn sections(snapshot: &[u8]) -> Vec<(u16, u16, usize)> {
    const RAM: u16 = 0xff03;
    let sections = container::decode(snapshot).expect("a whole snapshot");
    let told = |(kind, version, bytes): &(u16, u16, &[u8])| {
        (*kind, *version, if *kind == RAM { 0 } else { bytes.len() })
    };
    sections.iter().map(told).collect()
}

/// Makes a machine with something in every part of it.
type Make = fn() -> Computer;

#[test]
fn a_snapshot_of_every_version_loads_and_goes_on_as_it_did_and_the_newest_is_written_unchanged() {
    let machines: [(&str, Make); 2] = [("busy", busy), ("button", button)];
    for (name, machine) in machines {
        let file = folder().join(format!("{name}.snapshot"));
        let said = folder().join(format!("{name}.digest"));
        if std::env::var_os("POLLUX_WRITE_GOLDEN").is_some() && !file.exists() {
            let snapshot = machine().snapshot();
            let restored = Computer::restore(&snapshot).expect("what was just saved");
            std::fs::create_dir_all(folder()).expect("room");
            std::fs::write(&file, &snapshot).expect("room");
            std::fs::write(&said, digest_after_steps(restored) + "\n").expect("room");
        }
        let golden = std::fs::read(&file).expect("the golden snapshot is committed");
        let restored = Computer::restore(&golden).expect("this build reads what an older one wrote");
        assert!(
            restored.snapshot() == golden,
            "{name}: a section holds something else under the same version"
        );
        assert_eq!(
            sections(&machine().snapshot()),
            sections(&golden),
            "{name}: a new version wants a golden file of its own"
        );
        let mut builder = Computer::builder(Box::new(OwnMemory));
        golden.chunks(1_000).try_for_each(|piece| builder.push(piece)).expect("it is read as it comes, too");
        assert!(builder.finish().expect("whole").snapshot() == golden);
        let digest = std::fs::read_to_string(said).expect("a digest");
        assert_eq!(digest_after_steps(restored), digest.trim(), "{name}");
    }
}
