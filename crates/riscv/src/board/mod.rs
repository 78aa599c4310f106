//! The board: QEMU's `virt` memory map, so that the same kernels, firmware and bare-metal programs run on both.
//!
//! `read` and `write` are what a hart sees outside of RAM; `apply` is what the world does to the devices; what the
//! devices say to the world collects in `outputs`.

mod fdt;
mod image;
mod load;
pub(crate) mod state;

pub use load::{BootError, ResetState, load};

use crate::config::{Config, DeviceConfig, OnPanic, OnReset, SLOTS};
use crate::device::clint::{self, Clint};
use crate::device::finisher;
use crate::device::plic::{self, Plic};
use crate::device::rtc::{self, Rtc};
use crate::device::uart::{self, Uart};
use crate::hart::csr::irq;
use crate::ram::Ram;
use crate::snapshot::SnapshotError;
use crate::state::{Fields, Saved, UNFIT, decode as decode_state, encode};
use crate::virtio::mmio::{self, Slot};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use pollux_vocab::{ConsoleId, Input, Output, SlotId, VirtTime};
use serde::Serialize;

/// Reset code (QEMU's `VIRT_MROM`).
pub const ROM_BASE: u64 = 0x1000;
/// Test finisher.
pub const FINISHER_BASE: u64 = 0x10_0000;
/// Real-time clock.
pub const RTC_BASE: u64 = 0x10_1000;
/// CLINT.
pub const CLINT_BASE: u64 = 0x200_0000;
/// PLIC.
pub const PLIC_BASE: u64 = 0xc00_0000;
/// UART.
pub const UART_BASE: u64 = 0x1000_0000;
/// First virtio-mmio slot; the others follow.
pub const VIRTIO_BASE: u64 = 0x1000_1000;
/// PLIC source of the UART.
pub const UART_SOURCE: usize = 10;
/// PLIC source of the real-time clock.
pub const RTC_SOURCE: usize = 11;

/// The slot of the power button: behind those that QEMU's `virt` has.
const BUTTON: usize = SLOTS;

/// Section kinds of the board's state.
mod kind {
    pub(super) const CLINT: u16 = 1;
    pub(super) const PLIC: u16 = 2;
    pub(super) const UART: u16 = 3;
    pub(super) const RTC: u16 = 4;
    pub(super) const MISC: u16 = 5;
    pub(super) const SLOTS: u16 = 6;
}
const V1: u16 = 1;
/// Of the UART, of what belongs to no device, and of the slots.
const V2: u16 = 2;

/// What belongs to no device.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Misc {
    halted: bool,
    rom: Vec<u8>,
    /// The guest has asked for a new life, and it has not begun.
    restart: bool,
    /// How many lives came before this one.
    restarts: u64,
}

/// All devices.
pub struct Board {
    /// What the machine says to the world, oldest first.
    pub outputs: VecDeque<Output>,
    clint: Clint,
    plic: Plic,
    uart: Uart,
    rtc: Rtc,
    slots: Vec<Slot>,
    misc: Misc,
    /// The configuration's: not saved with the board.
    on_reset: OnReset,
    on_panic: OnPanic,
}

impl Board {
    /// The board at reset.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            outputs: VecDeque::new(),
            clint: Clint::new(config.harts),
            plic: Plic::new(config.harts),
            uart: Uart::default(),
            rtc: Rtc::new(config.rtc_base_ns),
            slots: (0..=BUTTON).map(|slot| Slot::new(device_at(config, slot))).collect(),
            misc: Misc::default(),
            on_reset: config.on_reset,
            on_panic: config.on_panic,
        }
    }

    /// A hart reads `bytes` (1, 2, 4 or 8) at `addr`. `None`: access fault.
    pub fn read(&mut self, _ram: &mut Ram, now: VirtTime, addr: u64, bytes: u8) -> Option<u64> {
        let (device, offset) = decode(addr)?;
        let value = match device {
            Device::Rom => self.read_rom(offset, bytes),
            Device::Finisher => 0,
            Device::Rtc => self.rtc.read(now, offset),
            Device::Clint => self.clint.read(now, offset, bytes)?,
            Device::Plic => {
                let value = self.plic.read(offset, bytes)?;
                if plic::is_claim(offset) && value == UART_SOURCE as u64 {
                    self.uart.handle_claim();
                    self.raise_lines(Device::Uart);
                }
                value
            }
            Device::Uart => u64::from(self.uart.read(offset)),
            Device::Virtio(slot) => self.slots.get(slot)?.read(offset, bytes)?,
        };
        self.raise_lines(device);
        Some(value)
    }

    /// A hart writes. `None`: access fault.
    pub fn write(&mut self, ram: &mut Ram, now: VirtTime, addr: u64, bytes: u8, value: u64) -> Option<()> {
        let (device, offset) = decode(addr)?;
        match device {
            Device::Rom => return None,
            Device::Finisher => {
                if let Some(output) = finisher::output_of(offset, value) {
                    self.end(output);
                }
            }
            Device::Rtc => self.rtc.write(now, offset, value),
            Device::Clint => self.clint.write(offset, bytes, value)?,
            Device::Plic => self.plic.write(offset, bytes, value)?,
            Device::Uart => {
                if let Some(byte) = self.uart.write(offset, value as u8) {
                    self.say(&[byte]);
                }
            }
            Device::Virtio(slot) => {
                self.slots.get_mut(slot)?.write(
                    slot as SlotId,
                    offset,
                    bytes,
                    value,
                    ram,
                    &mut self.outputs,
                )?;
            }
        }
        self.raise_lines(device);
        Some(())
    }

    /// Something happened outside.
    pub fn apply(&mut self, ram: &mut Ram, _now: VirtTime, input: &Input) {
        match input {
            Input::Console { console: ConsoleId::Uart, bytes } => {
                self.uart.receive(bytes);
                self.raise_lines(Device::Uart);
            }
            Input::Packet { slot, .. }
            | Input::DiskDone { slot, .. }
            | Input::Entropy { slot, .. }
            | Input::Console { console: ConsoleId::Virtio(slot), .. } => {
                if let Some(device) = self.slots.get_mut(usize::from(*slot)) {
                    device.handle_input(*slot, input, ram, &mut self.outputs);
                    self.raise_lines(Device::Virtio(usize::from(*slot)));
                }
            }
            Input::PowerButton => self.press_button(ram),
            Input::Clock { .. } => {}
        }
    }

    /// Tells the guest, or, if no driver listens, does what a button does that nobody else takes care of.
    fn press_button(&mut self, ram: &mut Ram) {
        match self.slots.get_mut(BUTTON) {
            Some(button) if button.is_live() => {
                button.handle_input(BUTTON as SlotId, &Input::PowerButton, ram, &mut self.outputs);
                self.raise_lines(Device::Virtio(BUTTON));
            }
            _ => self.end(Output::PowerOff { status: 0 }),
        }
    }

    /// The machine's last word, or that of one of its lives.
    pub(crate) fn end(&mut self, output: Output) {
        if self.misc.halted || self.misc.restart {
            return;
        }
        let again = match output {
            Output::Reset => self.on_reset == OnReset::Restart,
            Output::PowerOff { status } => status != 0 && self.on_panic == OnPanic::Restart,
            _ => false,
        };
        if again {
            self.misc.restart = true;
        } else {
            self.misc.halted = true;
            self.outputs.push_back(output);
        }
    }

    /// Whether a new life is to begin before the next step.
    #[must_use]
    pub fn is_restarting(&self) -> bool {
        self.misc.restart
    }

    /// How many lives came before this one.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.misc.restarts
    }

    /// All devices as reset finds them. What the world still does for them stays counted, and the real-time clock keeps
    /// its time; what was said and not taken is still to be.
    pub(crate) fn restart(&mut self, config: &Config) {
        self.clint = Clint::new(config.harts);
        self.plic = Plic::new(config.harts);
        self.uart = Uart::default();
        self.slots.iter_mut().for_each(Slot::power_on);
        self.misc.restart = false;
        self.misc.restarts += 1;
    }

    /// There is nothing to begin again from.
    pub(crate) fn give_up_restart(&mut self) {
        self.misc.restart = false;
        self.misc.halted = true;
        self.outputs.push_back(Output::Reset);
    }

    /// Shows bytes on the UART's terminal.
    pub(crate) fn say(&mut self, bytes: &[u8]) {
        // Bytes of one instant leave as one output.
        if let Some(Output::Console { console: ConsoleId::Uart, bytes: said }) = self.outputs.back_mut() {
            said.extend_from_slice(bytes);
        } else {
            self.outputs.push_back(Output::Console { console: ConsoleId::Uart, bytes: bytes.to_vec() });
        }
    }

    /// A byte typed at the UART, for the SBI's console calls.
    pub(crate) fn heard(&mut self) -> Option<u8> {
        let byte = self.uart.take_typed();
        self.raise_lines(Device::Uart);
        byte
    }

    fn raise_lines(&mut self, device: Device) {
        match device {
            Device::Uart => self.plic.set_level(UART_SOURCE, self.uart.interrupts()),
            Device::Virtio(slot) => {
                let high = self.slots.get(slot).is_some_and(Slot::interrupts);
                self.plic.set_level(slot + 1, high);
            }
            _ => {}
        }
    }

    fn read_rom(&self, offset: u64, bytes: u8) -> u64 {
        let byte = |i: u64| self.misc.rom.get((offset + i) as usize).copied().unwrap_or(0);
        (0..u64::from(bytes)).fold(0, |value, i| value | u64::from(byte(i)) << (8 * i))
    }

    /// The bits of a hart's `mip` that the board drives: MSIP, SEIP, MEIP.
    #[must_use]
    pub fn interrupts(&self, hart: usize) -> u64 {
        let (machine, supervisor) = self.plic.interrupts(hart);
        let bit = |on: bool, bit: u64| if on { bit } else { 0 };
        bit(self.clint.msip(hart), irq::MSI) | bit(supervisor, irq::SEI) | bit(machine, irq::MEI)
    }

    /// When a hart's machine timer goes off, in ticks.
    #[must_use]
    pub fn mtimecmp(&self, hart: usize) -> u64 {
        self.clint.mtimecmp(hart)
    }

    /// Whether the guest has reset or powered off.
    #[must_use]
    pub fn halted(&self) -> bool {
        self.misc.halted
    }

    /// Whether a packet would find a receive buffer.
    #[must_use]
    pub fn packet_room(&self, ram: &Ram, slot: SlotId) -> bool {
        self.slots.get(usize::from(slot)).is_some_and(|device| device.packet_room(ram))
    }

    /// How much typed input would be taken.
    #[must_use]
    pub fn console_room(&self, console: ConsoleId) -> usize {
        match console {
            ConsoleId::Uart => self.uart.room(),
            ConsoleId::Virtio(slot) => self.slots.get(usize::from(slot)).map_or(0, Slot::console_room),
        }
    }

    /// What the devices have asked the world for and not been answered.
    #[must_use]
    pub fn pending(&self) -> Vec<Output> {
        self.slots
            .iter()
            .enumerate()
            .flat_map(|(slot, device)| device.chip().pending(slot as SlotId))
            .collect()
    }

    /// What a section of [`Board::save`] is of, for people.
    #[must_use]
    pub const fn section_name(kind: u16) -> Option<&'static str> {
        Some(match kind {
            kind::CLINT => "clint",
            kind::PLIC => "plic",
            kind::UART => "uart",
            kind::RTC => "rtc",
            kind::MISC => "board",
            kind::SLOTS => "virtio",
            _ => return None,
        })
    }

    /// The state, in sections.
    #[must_use]
    pub fn save(&self) -> Vec<(u16, u16, Vec<u8>)> {
        fn section<T: Saved<State: Serialize>>(kind: u16, live: &T) -> (u16, u16, Vec<u8>) {
            (kind, version_of(kind), encode(&live.save()))
        }
        alloc::vec![
            section(kind::CLINT, &self.clint),
            section(kind::PLIC, &self.plic),
            section(kind::UART, &self.uart),
            section(kind::RTC, &self.rtc),
            section(kind::MISC, &self.misc),
            section(kind::SLOTS, &self.slots),
        ]
    }

    /// The board that sections are of. All of them must be the board's, and all of the board's must be there.
    pub fn restore(config: &Config, sections: Vec<(u16, u16, Vec<u8>)>) -> Result<Self, SnapshotError> {
        let mut rest = sections;
        let board = Self {
            on_reset: config.on_reset,
            on_panic: config.on_panic,
            outputs: VecDeque::new(),
            clint: take(&mut rest, kind::CLINT, |c: &Clint| c.fits(config.harts))?,
            plic: take(&mut rest, kind::PLIC, |p: &Plic| p.fits(config.harts))?,
            uart: take(&mut rest, kind::UART, Uart::is_sound)?,
            rtc: take(&mut rest, kind::RTC, |_: &Rtc| true)?,
            misc: take(&mut rest, kind::MISC, |_: &Misc| true)?,
            slots: take(&mut rest, kind::SLOTS, |slots: &Vec<Slot>| {
                slots.len() == SLOTS + 1
                    && slots.iter().enumerate().all(|(i, slot)| slot.fits(device_at(config, i)))
            })?,
        };
        match rest.first() {
            None => Ok(board),
            Some((kind, ..)) => Err(SnapshotError::Unknown { kind: *kind }),
        }
    }
}

/// The version of a section that this code writes, and the only one it reads.
pub(crate) const fn version_of(kind: u16) -> u16 {
    if matches!(kind, kind::UART | kind::MISC | kind::SLOTS) { V2 } else { V1 }
}

fn take<T: Saved<State: Fields>>(
    sections: &mut Vec<(u16, u16, Vec<u8>)>,
    kind: u16,
    fits: impl FnOnce(&T) -> bool,
) -> Result<T, SnapshotError> {
    let at = sections.iter().position(|section| section.0 == kind).ok_or(SnapshotError::Missing { kind })?;
    let (_, version, bytes) = sections.remove(at);
    if version != version_of(kind) {
        return Err(SnapshotError::Version { kind, version });
    }
    let malformed = |field| SnapshotError::Malformed { kind, field };
    let live = T::revive(decode_state(&bytes).map_err(malformed)?);
    if fits(&live) { Ok(live) } else { Err(malformed(UNFIT)) }
}

fn device_at(config: &Config, slot: usize) -> &DeviceConfig {
    if slot == BUTTON {
        return &DeviceConfig::Button;
    }
    config.devices.get(slot).unwrap_or(&DeviceConfig::Empty)
}

#[derive(Clone, Copy)]
enum Device {
    Rom,
    Finisher,
    Rtc,
    Clint,
    Plic,
    Uart,
    Virtio(usize),
}

/// Which device answers at an address, and where in it.
fn decode(addr: u64) -> Option<(Device, u64)> {
    const MAP: [(u64, u64, Device); 6] = [
        (ROM_BASE, 0xf000, Device::Rom),
        (FINISHER_BASE, finisher::BYTES, Device::Finisher),
        (RTC_BASE, rtc::BYTES, Device::Rtc),
        (CLINT_BASE, clint::BYTES, Device::Clint),
        (PLIC_BASE, plic::BYTES, Device::Plic),
        (UART_BASE, uart::BYTES, Device::Uart),
    ];
    if let Some(offset) = addr.checked_sub(VIRTIO_BASE)
        && offset < mmio::BYTES * (BUTTON as u64 + 1)
    {
        return Some((Device::Virtio((offset / mmio::BYTES) as usize), offset % mmio::BYTES));
    }
    let within = |&&(base, bytes, _): &&(u64, u64, Device)| addr.checked_sub(base).is_some_and(|o| o < bytes);
    MAP.iter().find(within).map(|&(base, _, device)| (device, addr - base))
}
