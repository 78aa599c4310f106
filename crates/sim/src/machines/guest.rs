//! The real computer with the embedded guest, booted once and restored from its snapshot for every run.
//!
//! A pair starts from a snapshot in production, too (`pollux-host`, `pairing`); what is left out is the transport of it.

use super::{BLOCK, DISK, NET, frames};
use crate::machines::model::pattern;
use pollux_machine::{Machine, Stop};
use pollux_riscv::{Boot, Computer, Config, DeviceConfig};
use pollux_vocab::{ClockRate, ConsoleId, DiskOp, DiskRequest, DiskStatus, Icount, Input, Output};
use std::sync::Arc;

const TINY: &[u8] = include_bytes!("../../../../guests/tiny/tiny.elf");
/// Blocks of the guest's disk: one for its boot count, those of the clients, and 17 for its self-test.
pub(crate) const BLOCKS: u64 = 40;
/// The guest is linked to 2 MiB, and needs room for the device tree as well.
const RAM_BYTES: u64 = 8 << 20;
/// The guest is ready long before that, or never.
const BOOT_STEPS_MAX: u64 = 50_000_000;

/// A guest that waits for its first request.
#[derive(Clone, Debug)]
pub struct Prepared {
    snapshot: Arc<[u8]>,
    pub(crate) disk: Arc<[u8]>,
}

impl Prepared {
    /// Boots the guest in a world without faults.
    ///
    /// # Panics
    /// If the guest that comes with Pollux does not boot.
    #[must_use]
    pub fn boot() -> Self {
        let devices = vec![
            DeviceConfig::Block { bytes: BLOCKS * BLOCK as u64, read_only: false, serial: "sim".into() },
            DeviceConfig::Net { mac: frames::GUEST_MAC },
            DeviceConfig::Rng,
        ];
        let config = Config { ram_bytes: RAM_BYTES, harts: 1, devices, rtc_base_ns: 0, ..Config::default() };
        let boot = Boot::Kernel { image: TINY, initrd: None, command_line: "" };
        let mut machine = Computer::new(&config, boot).expect("the embedded guest fits");
        let mut disk = vec![0; BLOCK];
        disk.extend((1..BLOCKS).flat_map(|_| pattern(0)));
        let mut said = String::new();
        while !said.ends_with("net=ok\r\n") {
            assert!(machine.icount().0 < BOOT_STEPS_MAX, "the embedded guest does not boot: {said}");
            match machine.run(Icount(BOOT_STEPS_MAX)) {
                Stop::Output => {}
                Stop::Idle { wake: Some(time) } => {
                    machine.apply(&Input::Clock { time, rate: ClockRate::default() });
                }
                stop => panic!("the embedded guest does not boot: {stop:?}: {said}"),
            }
            while let Some(output) = machine.take_output() {
                match output {
                    Output::Console { console: ConsoleId::Uart, bytes } => {
                        said.push_str(&String::from_utf8_lossy(&bytes));
                    }
                    Output::Disk(request) => machine.apply(&serve(&mut disk, request)),
                    Output::EntropyWanted { slot, request, len } => {
                        machine.apply(&Input::Entropy { slot, request, bytes: vec![7; len as usize] });
                    }
                    _ => {}
                }
            }
        }
        Self { snapshot: machine.snapshot().into(), disk: disk.into() }
    }

    /// The machine.
    pub(crate) fn machine(&self) -> Computer {
        Computer::restore(&self.snapshot).expect("its own snapshot")
    }
}

fn serve(disk: &mut [u8], DiskRequest { request, op, .. }: DiskRequest) -> Input {
    let mut read = Vec::new();
    match op {
        DiskOp::Read { offset, len } => read = disk[offset as usize..][..len as usize].to_vec(),
        DiskOp::Write { offset, data } => disk[offset as usize..][..data.len()].copy_from_slice(&data),
        DiskOp::Zero { offset, len, .. } => disk[offset as usize..][..len as usize].fill(0),
        DiskOp::Flush => {}
    }
    Input::DiskDone { slot: DISK, request, status: DiskStatus::Ok, data: read }
}

const _: () = assert!(NET == 1 && DISK == 0, "the order of the devices above");
