//! The machine as its own SBI implementation: what [`sbi`](crate::sbi) needs of it, and how reset enters the guest.

use crate::board::{self, Board, BootError};
use crate::computer::Computer;
use crate::config::{Boot, Config, DeviceConfig, HARTS_MAX, SLOTS};
use crate::hart::csr::{envcfg, irq, status};
use crate::hart::{Activity, Mode};
use crate::sbi::{self, End};
use pollux_vocab::{GuestAddr, Output, SECTOR_BYTES};

/// RAM is a multiple of this, so that large pages reach its end.
const RAM_ALIGN: u64 = 2 << 20;
/// The least RAM that anything runs in.
const RAM_BYTES_MIN: u64 = 4 << 20;
/// Exceptions that a supervisor handles itself: misaligned and faulting accesses, breakpoints, illegal instructions,
/// calls from user mode, page faults. As OpenSBI delegates, and what it would only redirect.
const DELEGATED: u64 = 0xb1ff;
/// A0 and A1, A6 and A7 by their numbers.
const A0: usize = 10;
const A1: usize = 11;
const A6: usize = 16;
const A7: usize = 17;

impl Computer {
    /// A machine at reset, with `boot` in its memory.
    pub fn new(config: &Config, boot: Boot<'_>) -> Result<Self, BootError> {
        check(config)?;
        let mut computer = Self::assemble(config, Board::new(config));
        let reset = board::load(config, &boot, &mut computer.ram, &mut computer.board)?;
        for index in 0..computer.harts.len() {
            computer.harts[index].pc = reset.pc;
            if reset.direct {
                computer.enter_supervisor(index, reset.pc, reset.fdt);
                if index > 0 {
                    computer.harts[index].activity = Activity::Stopped;
                }
            }
        }
        computer.builtin_sbi = reset.direct;
        Ok(computer)
    }

    /// S-mode as firmware hands it over: no translation, interrupts off, everything a supervisor may handle delegated.
    fn enter_supervisor(&mut self, index: usize, pc: u64, a1: u64) {
        let hart = &mut self.harts[index];
        hart.x[..32].fill(0);
        hart.x[A0] = index as u64;
        hart.x[A1] = a1;
        hart.pc = pc & !1;
        hart.mode = Mode::Supervisor;
        hart.activity = Activity::Running;
        hart.reservation = None;
        let csrs = &mut hart.csrs;
        csrs.mstatus = csrs.mstatus & !status::SIE | status::XL;
        csrs.satp = 0;
        csrs.medeleg = DELEGATED;
        csrs.mideleg = irq::DELEGABLE;
        csrs.mcounteren = 7;
        csrs.menvcfg = envcfg::STCE | envcfg::CBZE | envcfg::CBCFE | envcfg::CBIE;
        csrs.stimecmp = u64::MAX;
        hart.refresh_contexts();
    }

    /// Answers the `ecall` that the current hart has just executed.
    pub(crate) fn sbi_call(&mut self) {
        let index = self.current;
        let x = &self.harts[index].x;
        let (eid, fid) = (x[A7], x[A6]);
        let args = [x[A0], x[A1], x[12], x[13], x[14], x[15]];
        let answer = sbi::handle(self, index, eid, fid, args);
        let x = &mut self.harts[index].x;
        x[A0] = answer.error as u64;
        if !answer.legacy {
            x[A1] = answer.value;
        }
    }
}

impl sbi::Host for Computer {
    fn hart_count(&self) -> u64 {
        self.harts.len() as u64
    }

    fn set_timer(&mut self, hart: usize, ticks: u64) {
        self.harts[hart].csrs.stimecmp = ticks;
    }

    fn raise_software_interrupt(&mut self, hart: usize) {
        self.harts[hart].csrs.mip |= irq::SSI;
    }

    fn is_stopped(&self, hart: usize) -> bool {
        self.harts[hart].activity == Activity::Stopped
    }

    fn start(&mut self, hart: usize, addr: u64, opaque: u64) {
        self.enter_supervisor(hart, addr, opaque);
    }

    fn stop(&mut self, hart: usize) {
        self.harts[hart].activity = Activity::Stopped;
    }

    fn suspend(&mut self, hart: usize) {
        self.harts[hart].activity = Activity::Waiting;
    }

    fn is_ram(&self, addr: u64) -> bool {
        self.ram.slice(GuestAddr(addr), 2).is_some()
    }

    fn read_memory(&self, addr: u64, to: &mut [u8]) -> bool {
        self.ram.read(GuestAddr(addr), to).is_ok()
    }

    fn write_memory(&mut self, addr: u64, from: &[u8]) -> bool {
        self.ram.write(GuestAddr(addr), from).is_ok()
    }

    fn console_write(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.board.say(bytes);
        }
    }

    fn console_read(&mut self) -> Option<u8> {
        self.board.heard()
    }

    fn end(&mut self, how: End) {
        self.board.end(match how {
            End::PowerOff { failed } => Output::PowerOff { status: i32::from(failed) },
            End::Reset => Output::Reset,
        });
    }
}

/// Refuses a configuration that no machine can have.
fn check(config: &Config) -> Result<(), BootError> {
    if config.ram_bytes < RAM_BYTES_MIN || !config.ram_bytes.is_multiple_of(RAM_ALIGN) {
        return Err(BootError::Config("RAM is a multiple of 2 MiB, and at least 4 MiB"));
    }
    if !(1..=HARTS_MAX).contains(&config.harts) {
        return Err(BootError::Config("it has 1 to 8 harts"));
    }
    if config.devices.len() > SLOTS {
        return Err(BootError::Config("it has at most 8 devices"));
    }
    let crooked = |device: &DeviceConfig| match device {
        DeviceConfig::Block { bytes, .. } => *bytes == 0 || !bytes.is_multiple_of(SECTOR_BYTES),
        _ => false,
    };
    if config.devices.iter().any(crooked) {
        return Err(BootError::Config("a disk's size is a positive multiple of 512 bytes"));
    }
    Ok(())
}
