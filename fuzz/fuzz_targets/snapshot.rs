//! Snapshots, as files or peers may give them: the container, and the machine that is made of one.
//!
//! Held true of any bytes, as they are and with right checksums: no panic, neither in reading nor in running what
//! was read; a machine that was made of a snapshot makes one of itself that is read back as the same machine.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pollux_codec::snapshot;
use pollux_fuzz::seal;
use pollux_riscv::{Computer, Machine, Stop};
use pollux_vocab::{ClockRate, ConsoleId, DiskStatus, Input, Output};

/// Steps that a machine out of a snapshot is run for.
const STEPS: u64 = 2000;
/// Larger machines are not built: every one costs the fuzzer its size.
const RAM_BYTES_MAX: u64 = 8 << 20;

/// Answers what the machine waits for, as the node would after a takeover.
fn answer(machine: &mut Computer) {
    let empty = |output: Output| match output {
        Output::Disk(request) => Some(Input::DiskDone {
            slot: request.slot,
            request: request.request,
            status: DiskStatus::IoError,
            data: Vec::new(),
        }),
        Output::EntropyWanted { slot, request, .. } => Some(Input::Entropy { slot, request, bytes: vec![1] }),
        _ => None,
    };
    let answers: Vec<Input> = machine.pending().into_iter().filter_map(empty).collect();
    answers.iter().take(300).for_each(|input| machine.apply(input));
    for slot in 0..8 {
        machine.packet_room(slot);
        machine.apply(&Input::Packet { slot, frame: vec![7; 60] });
        machine.console_room(ConsoleId::Virtio(slot));
        machine.apply(&Input::Console { console: ConsoleId::Virtio(slot), bytes: vec![13] });
    }
    machine.apply(&Input::Console { console: ConsoleId::Uart, bytes: vec![13] });
}

fn live(machine: &mut Computer) {
    answer(machine);
    let until = machine.icount().after(STEPS);
    for _ in 0..16 {
        match machine.run(until) {
            Stop::Output => while machine.take_output().is_some() {},
            Stop::Idle { wake: Some(time) } => {
                machine.apply(&Input::Clock { time, rate: ClockRate::default() });
            }
            Stop::Idle { wake: None } | Stop::Until | Stop::Halted => break,
        }
    }
    machine.time();
    machine.digest();
}

/// How much RAM the snapshot wants: the configuration's first number.
fn ram_bytes(bytes: &[u8]) -> Option<u64> {
    let sections = snapshot::decode(bytes).ok()?;
    let config = sections.iter().find(|section| section.0 == 0xff00)?;
    pollux_codec::varint::Cursor::new(config.2).varint()
}

fn check(bytes: &[u8]) {
    if ram_bytes(bytes).is_some_and(|ram| ram > RAM_BYTES_MAX) {
        return;
    }
    let Ok(mut machine) = Computer::restore(bytes) else { return };
    let saved = machine.snapshot();
    let again = Computer::restore(&saved).expect("its own snapshot");
    assert!(saved == again.snapshot(), "a snapshot of a restored machine is another's");
    live(&mut machine);
    Computer::restore(&machine.snapshot()).expect("its own snapshot");
}

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    let mut sealed = bytes.to_vec();
    seal::snapshot(&mut sealed);
    check(&sealed);
});
