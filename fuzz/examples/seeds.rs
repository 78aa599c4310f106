//! Writes the seeds that need a machine to make: `cargo run --release --example seeds` in `fuzz/`. The others are
//! golden files and guest programs that the repository has anyway (`.ci/fuzz` names them).

#[path = "../../tests/chance.rs"]
mod chance;

use pollux_codec::snapshot;
use pollux_riscv::{Boot, Computer, Config, DeviceConfig, Machine, Stop};
use pollux_vocab::{ClockRate, ConsoleId, DiskOp, DiskStatus, Icount, Input, Output};
use std::path::Path;

const TINY: &[u8] = include_bytes!("../../guests/tiny/tiny.elf");
/// `wfi`, and again.
const IDLE: &[u8] = &[0x73, 0x00, 0x50, 0x10, 0x6f, 0xf0, 0xdf, 0xff];

fn config(harts: u32) -> Config {
    let devices = vec![
        DeviceConfig::Block { bytes: 1 << 20, read_only: false, serial: "tiny".into() },
        DeviceConfig::Net { mac: [2; 6] },
        DeviceConfig::Rng,
        DeviceConfig::Console,
    ];
    Config { ram_bytes: 8 << 20, harts, devices, rtc_base_ns: 1, ..Config::default() }
}

fn put(target: &str, name: &str, bytes: &[u8]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join(name), bytes).expect("room");
    println!("{target}/{name}: {} bytes", bytes.len());
}

/// The same snapshot with its RAM empty: small, and what a fuzzer changes in it is state.
fn without_ram(bytes: &[u8]) -> Vec<u8> {
    let sections = snapshot::decode(bytes).expect("a snapshot");
    let empty = |(kind, version, content)| (kind, version, if kind == 0xff03 { &[][..] } else { content });
    snapshot::encode(sections.into_iter().map(empty))
}

/// Runs the tiny guest, answering only what `answers` lets through.
fn run(machine: &mut Computer, steps: u64, answers: usize) {
    let mut left = answers;
    loop {
        match machine.run(Icount(steps)) {
            Stop::Output => {
                while let Some(output) = machine.take_output() {
                    let input = match output {
                        Output::Disk(request) => {
                            let data = match request.op {
                                DiskOp::Read { len, .. } => vec![0; len as usize],
                                _ => Vec::new(),
                            };
                            let (slot, request) = (request.slot, request.request);
                            Input::DiskDone { slot, request, status: DiskStatus::Ok, data }
                        }
                        Output::EntropyWanted { slot, request, len } => {
                            Input::Entropy { slot, request, bytes: vec![3; len as usize] }
                        }
                        _ => continue,
                    };
                    if left > 0 {
                        left -= 1;
                        machine.apply(&input);
                    }
                }
            }
            Stop::Idle { wake: Some(time) } => {
                machine.apply(&Input::Clock { time, rate: ClockRate::default() });
                if machine.icount().0 >= steps || left == 0 {
                    return;
                }
                left -= 1;
            }
            _ => return,
        }
    }
}

/// Stories of the hostile guest, in the decisions of `guest::play`: the size of the rings, then deeds.
fn stories() {
    const LARGE: u8 = 8;
    // A read, a write and a flush; the world answers; the guest looks at its rings; all is saved in between.
    let request = |kind: u8, sector: u16| {
        let [low, high] = sector.to_le_bytes();
        vec![1, kind, 1, low, high, 0, 0x10, 0, 1, 2, 0]
    };
    let disk =
        [&[LARGE][..], &request(0, 3), &request(1, 3), &[12], &request(2, 0), &request(3, 0), &[2, 0, 0]];
    put("virtio_blk", "requests", &disk.concat());
    let tangle = [4, 6, 0, 1, 0, 0x40, 0, 1, 0, 0, 2, 0x10, 0, 7, 0, 0, 8, 2, 0, 0, 12, 13, 2];
    // Chains on both queues, packets and typing, entropy, a descriptor of the guest's own, a restart.
    let chain = |ring: u8, readable: u8| [0, ring, 1, readable, 0x40, 1, 0x40, 1];
    let both =
        [&[LARGE][..], &chain(0, 0), &[3, 60, 0, 7], &chain(1, 2), &[4, 9, 0, 12], &chain(0, 0), &[13, 4]];
    put("virtio_net", "chains", &both.concat());
    put("virtio_console", "chains", &both.concat());
    let one = |readable: u8| [0, 1, readable, 0x40, 0, 0x40, 0];
    let rng = [&[LARGE][..], &one(0), &[2, 0, 0], &one(0), &[12, 5, 1, 2, 3, 4], &one(1)];
    put("virtio_rng", "chains", &rng.concat());
    for target in ["virtio_blk", "virtio_net", "virtio_console", "virtio_rng"] {
        put(target, "tangle", &tangle);
    }
    // Every chip written, read and saved.
    let touch = |chip: u8| [chip << 5, 4, 0, 0, 0x83, chip << 5 | 4, 4, 0, 0, chip << 5 | 7, 0, 0];
    let chips: Vec<u8> = (0..8).flat_map(touch).collect();
    put("chips", "all", &[&[1, 0, 0, 0, 0, 0, 0, 0, 0][..], &chips].concat());
}

/// Stories of two guests on a switch, in the decisions of the target `switch` and of `packet`.
fn calls() {
    const MORE: u8 = 15;
    const CALL: u8 = 11;
    let arp = [0, 4, 0, 0, 0];
    // A segment on the connection that was seen: flags below 0x60 are an ACK, below 0x80 a SYN and ACK.
    let segment = |flags: u8| [0, 0, 0, flags, 0, 0, 0, 0];
    let data = [0, 0, 0x10, 0, 200, 0, 0, 0, 0, 0];
    let fin = segment(0x91);
    let client = |how: u8| [12, how];
    let forward = [
        &[0][..],
        &arp,
        &[CALL, MORE],
        &segment(0x60),
        &client(0),
        &segment(0),
        &data,
        &client(0x40),
        &client(0x80),
        &segment(0),
        &fin,
        &[MORE],
        &segment(0),
    ];
    put("switch", "forward", &forward.concat());
    // A SYN of the guest's own, the handshake's end, data both ways, an end.
    let syn = [0, 0, 0x40, 0, 0, 0, 0, 0];
    let outward = [
        &[0][..],
        &arp,
        &syn,
        &[MORE, MORE],
        &segment(0),
        &data,
        &client(0),
        &[MORE],
        &segment(0),
        &fin,
        &client(0xc0),
    ];
    put("switch", "outward", &outward.concat());
    let udp = |how: u8| [0, 2, how, 40, 0, 0, 0];
    let asked = [&[0][..], &arp, &udp(0), &[14, 60, 0], &udp(2), &[14, 9, 0], &[13, 0xff, 0xff], &udp(4)];
    put("switch", "udp", &asked.concat());
    let dhcp =
        |how: u8, options: &[u8]| [&[0, 3, how, 1, options.len() as u8][..], options, &[5, 0]].concat();
    let asked = [
        &[0][..],
        &dhcp(0, &[55, 3, 1, 3, 6]),
        &dhcp(0x10, &[50, 4, 10, 0, 2, 15]),
        &dhcp(0x30, &[1, 12, 2, 65, 66]),
    ];
    put("switch", "dhcp", &asked.concat());
    let ping = [0, 5, 0, 56, 0, 0, 0];
    let moved =
        [&[0][..], &arp, &ping, &[0x80, 0x84, 0, 0, 0], &[0x80, 5, 0, 56, 0, 0, 0], &[10, 2, 9, 9, 0], &ping];
    put("switch", "ping-and-move", &moved.concat());
}

/// Chance for programs in every mode, long enough for a whole program.
fn programs() {
    for (name, how, len) in
        [("machine", 0, 1500), ("supervisor", 4, 1500), ("user", 8, 1500), ("three-harts", 3, 700)]
    {
        let mut state = how;
        let chance = (0..len).map(|_| chance::splitmix(&mut state) as u8);
        let bytes: Vec<u8> = std::iter::once(how as u8).chain(chance).collect();
        put("jit", name, &bytes);
    }
}

fn main() {
    stories();
    programs();
    calls();
    let idle = Boot::Kernel { image: IDLE, initrd: None, command_line: "" };
    let machine = Computer::new(&config(1), idle).expect("a machine");
    put("snapshot", "idle", &machine.snapshot());
    let firmware = Boot::Firmware { image: IDLE, kernel: None, initrd: None, command_line: "" };
    let mut machine = Computer::new(&config(2), firmware).expect("a machine");
    machine.run(Icount(20));
    put("snapshot", "firmware-two-harts", &without_ram(&machine.snapshot()));
    for (name, steps, answers) in
        [("tiny-starting", 40_000, 0), ("tiny-asking", 3_000_000, 1), ("tiny-ready", 9_000_000, 64)]
    {
        let tiny = Boot::Kernel { image: TINY, initrd: None, command_line: "" };
        let mut machine = Computer::new(&config(1), tiny).expect("a machine");
        run(&mut machine, steps, answers);
        machine.apply(&Input::Packet { slot: 1, frame: vec![9; 60] });
        machine.apply(&Input::Console { console: ConsoleId::Uart, bytes: b"help".to_vec() });
        println!("{name}: {:?}, waits for {}", machine.icount(), machine.pending().len());
        put("snapshot", name, &without_ram(&machine.snapshot()));
    }
    for (name, how, program) in
        [("tiny-kernel", 0, TINY), ("flat-kernel", 1, IDLE), ("tiny-firmware", 4, TINY)]
    {
        put("boot", name, &[&[how], program].concat());
    }
    let mut linux = [0; 96];
    linux[8..16].copy_from_slice(&0x20_0000u64.to_le_bytes());
    linux[16..24].copy_from_slice(&0x1_0000u64.to_le_bytes());
    linux[56..60].copy_from_slice(b"RSC\x05");
    put("boot", "linux-with-initrd", &[&[2], &linux[..], &[5; 96]].concat());
    put("boot", "linux-under-firmware", &[&[6], &linux[..], &linux[..]].concat());
}
