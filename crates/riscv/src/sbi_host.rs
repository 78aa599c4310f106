//! The machine as its own SBI implementation: what [`sbi`] needs of it, and the state that a supervisor finds
//! itself in where firmware would have prepared one.

use crate::computer::Computer;
use crate::hart::csr::{envcfg, irq, status};
use crate::hart::pmp::Pmp;
use crate::hart::{Activity, Hart, Mode};
use crate::sbi::{self, End, Host};
use pollux_vocab::{GuestAddr, Output};

/// Exceptions that firmware delegates: every one that a supervisor or its user programs can raise, but for the
/// supervisor's own `ecall`.
const DELEGATED: u64 = 0xb1ff;
/// `cycle`, `time` and `instret` are the supervisor's to read.
const COUNTERS: u64 = 7;

/// Puts a hart into S-mode at `pc` as firmware would: everything delegated, memory open, counters readable, the
/// supervisor's own timer (Sstc) and cache-block operations on.
pub(crate) fn enter_supervisor(hart: &mut Hart, pc: u64, opaque: u64) {
    hart.mode = Mode::Supervisor;
    hart.pc = pc & !1;
    hart.x[10] = hart.csrs.hart_id;
    hart.x[11] = opaque;
    hart.pmp = Pmp::open();
    let c = &mut hart.csrs;
    c.medeleg = DELEGATED;
    c.mideleg = irq::DELEGABLE;
    c.mcounteren = COUNTERS;
    // As OpenSBI leaves it: Linux counts on user programs being able to read the time.
    c.scounteren = COUNTERS;
    c.menvcfg = envcfg::CBIE | envcfg::CBCFE | envcfg::CBZE | envcfg::AT_RESET | envcfg::STCE;
    c.satp = 0;
    c.mstatus &= !status::SIE;
    hart.refresh_contexts();
}

impl Computer {
    /// Answers the `ecall` that the current hart has just executed.
    pub(crate) fn sbi_call(&mut self) {
        let hart = self.current;
        let x = &self.harts[hart].x;
        let (eid, fid) = (x[17], x[16]);
        let args = [x[10], x[11], x[12], x[13], x[14], x[15]];
        let answer = sbi::handle(self, hart, eid, fid, args);
        let x = &mut self.harts[hart].x;
        x[10] = answer.error as u64;
        if !answer.legacy {
            x[11] = answer.value;
        }
    }
}

impl Host for Computer {
    fn hart_count(&self) -> u64 {
        self.harts.len() as u64
    }

    fn set_timer(&mut self, hart: usize, ticks: u64) {
        self.harts[hart].csrs.stimecmp = ticks;
    }

    fn raise_software_interrupt(&mut self, hart: usize) {
        if let Some(hart) = self.harts.get_mut(hart) {
            hart.csrs.mip |= irq::SSI;
        }
    }

    fn is_stopped(&self, hart: usize) -> bool {
        self.harts.get(hart).is_some_and(|hart| hart.activity == Activity::Stopped)
    }

    fn start(&mut self, hart: usize, addr: u64, opaque: u64) {
        if let Some(hart) = self.harts.get_mut(hart) {
            enter_supervisor(hart, addr, opaque);
            hart.activity = Activity::Running;
        }
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
        self.board.say(bytes);
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
