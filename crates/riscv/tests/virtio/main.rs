//! The virtio devices, driven by a driver that is no guest: what the specification asks of them, and what becomes of
//! requests that make no sense. Random nonsense is in `hostile.rs`.

#[path = "../world/mod.rs"]
mod world;

mod blk;
mod button;
mod console;
mod foreign;
mod net;
mod queue;
mod rng;
mod transport;

use pollux_riscv::DeviceConfig;

const DISK: u8 = 0;
const NET: u8 = 1;
const RNG: u8 = 2;
const TERMINAL: u8 = 3;
const READ_ONLY: u8 = 4;
const NOTHING: u8 = 7;
const BUTTON: u8 = 8;
const DISK_SECTORS: u64 = 100_000;
const MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];

fn bench() -> world::driver::Bench {
    let disk =
        |read_only| DeviceConfig::Block { bytes: DISK_SECTORS * 512, read_only, serial: "a serial".into() };
    world::driver::Bench::new(vec![
        disk(false),
        DeviceConfig::Net { mac: MAC },
        DeviceConfig::Rng,
        DeviceConfig::Console,
        disk(true),
    ])
}
