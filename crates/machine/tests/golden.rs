//! A snapshot of a busy machine, committed: it loads for ever, means what it meant, and is written as it was written.
//!
//! Who changes what a section holds without giving the section a new version fails here, and not at a user's who
//! restores a snapshot of last month. Then: a new version of that section, an arm that reads the old one, and a second
//! golden file (`POLLUX_WRITE_GOLDEN=1 cargo test -p pollux-machine --test golden` writes the newest). The old files
//! stay and are read.

mod world;

use pollux_codec::snapshot as container;
use pollux_machine::{Computer, Machine, Stop};
use pollux_vocab::{ClockRate, Input};
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

#[test]
fn a_snapshot_of_every_version_loads_and_goes_on_as_it_did_and_the_newest_is_written_unchanged() {
    let (file, said) = (folder().join("busy.snapshot"), folder().join("busy.digest"));
    if std::env::var_os("POLLUX_WRITE_GOLDEN").is_some() {
        let snapshot = busy().snapshot();
        let restored = Computer::restore(&snapshot).expect("what was just saved");
        std::fs::create_dir_all(folder()).expect("room");
        std::fs::write(&file, &snapshot).expect("room");
        std::fs::write(&said, digest_after_steps(restored) + "\n").expect("room");
    }
    let golden = std::fs::read(&file).expect("the golden snapshot is committed");
    let restored = Computer::restore(&golden).expect("this build reads what an older one wrote");
    assert!(restored.snapshot() == golden, "a section holds something else under the same version");
    assert_eq!(
        sections(&busy().snapshot()),
        sections(&golden),
        "a new version wants a golden file of its own"
    );
    assert_eq!(digest_after_steps(restored), std::fs::read_to_string(said).expect("a digest").trim());
}
