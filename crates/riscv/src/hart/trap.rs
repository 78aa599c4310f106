//! Exceptions and interrupts: who takes them, and the way back (privileged specification, "Trap Handling",
//! `mret`/`sret`).
//!
//! Invariant: an interrupt is taken between two steps and costs none; an exception ends its step without
//! retiring. Both lose the LR reservation.

use super::csr::{irq, status};
use super::{Hart, Mode, NO_RESERVATION};

/// Exception codes (privileged specification, table "mcause values after trap").
pub(crate) mod cause {
    pub(crate) const FETCH_ACCESS: u64 = 1;
    pub(crate) const ILLEGAL: u64 = 2;
    pub(crate) const BREAKPOINT: u64 = 3;
    pub(crate) const LOAD_MISALIGNED: u64 = 4;
    pub(crate) const LOAD_ACCESS: u64 = 5;
    pub(crate) const STORE_MISALIGNED: u64 = 6;
    pub(crate) const STORE_ACCESS: u64 = 7;
    pub(crate) const ECALL_U: u64 = 8;
    pub(crate) const FETCH_PAGE: u64 = 12;
    pub(crate) const LOAD_PAGE: u64 = 13;
    pub(crate) const STORE_PAGE: u64 = 15;
    pub(crate) const INTERRUPT: u64 = 1 << 63;
}

/// A synchronous exception.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Exception {
    pub(crate) cause: u64,
    pub(crate) tval: u64,
}

impl Exception {
    /// An illegal instruction with these bits.
    pub(crate) fn illegal(bits: u32) -> Self {
        Self { cause: cause::ILLEGAL, tval: u64::from(bits) }
    }
}

/// Interrupts, highest priority first (privileged specification, 3.1.9).
const PRIORITY: [u64; 6] = [irq::MEI, irq::MSI, irq::MTI, irq::SEI, irq::SSI, irq::STI];

/// The interrupt to take before the next instruction, if any: its number and the mode that takes it.
pub(crate) fn due(hart: &Hart, lines: u64) -> Option<(u64, Mode)> {
    let c = &hart.csrs;
    let pending = (c.mip | lines) & c.mie;
    if pending == 0 {
        return None;
    }
    let machine = pending & !c.mideleg;
    if machine != 0 && (hart.mode < Mode::Machine || c.mstatus & status::MIE != 0) {
        return highest(machine).map(|number| (number, Mode::Machine));
    }
    let supervisor = pending & c.mideleg;
    let enabled = hart.mode == Mode::Supervisor && c.mstatus & status::SIE != 0;
    if supervisor != 0 && (hart.mode < Mode::Supervisor || enabled) {
        return highest(supervisor).map(|number| (number, Mode::Supervisor));
    }
    None
}

fn highest(pending: u64) -> Option<u64> {
    PRIORITY.iter().find(|&&bit| pending & bit != 0).map(|bit| u64::from(bit.trailing_zeros()))
}

/// Takes an interrupt that [`due`] has named.
pub(crate) fn interrupt(hart: &mut Hart, number: u64, mode: Mode) {
    enter(hart, cause::INTERRUPT | number, 0, mode);
}

/// Takes an exception raised by the instruction at `hart.pc`.
pub(crate) fn exception(hart: &mut Hart, exception: Exception) {
    let delegated = hart.mode < Mode::Machine && hart.csrs.medeleg >> exception.cause & 1 != 0;
    let mode = if delegated { Mode::Supervisor } else { Mode::Machine };
    hart.trapped = hart.trapped.wrapping_add(1);
    enter(hart, exception.cause, exception.tval, mode);
}

fn enter(hart: &mut Hart, cause: u64, tval: u64, mode: Mode) {
    let from = hart.mode;
    let c = &mut hart.csrs;
    let s = &mut c.mstatus;
    let vector = if mode == Mode::Machine {
        c.mcause = cause;
        c.mepc = hart.pc;
        c.mtval = tval;
        *s =
            *s & !(status::MPIE | status::MPP) | (*s & status::MIE) << 4 | (from as u64) << status::MPP_SHIFT;
        *s &= !status::MIE;
        c.mtvec
    } else {
        c.scause = cause;
        c.sepc = hart.pc;
        c.stval = tval;
        *s = *s & !(status::SPIE | status::SPP) | (*s & status::SIE) << 4;
        if from == Mode::Supervisor {
            *s |= status::SPP;
        }
        *s &= !status::SIE;
        c.stvec
    };
    let vectored = vector & 1 != 0 && cause & cause::INTERRUPT != 0;
    hart.pc = (vector & !3).wrapping_add(if vectored { (cause & 63) * 4 } else { 0 });
    hart.mode = mode;
    hart.reservation = NO_RESERVATION;
    hart.refresh_contexts();
}

/// `mret`: back to where `mepc` and `mstatus.MPP` say.
pub(crate) fn return_machine(hart: &mut Hart) {
    let s = &mut hart.csrs.mstatus;
    let to = Mode::from_bits(*s >> status::MPP_SHIFT);
    *s = *s & !status::MIE | (*s & status::MPIE) >> 4;
    *s |= status::MPIE;
    *s &= !status::MPP;
    if to != Mode::Machine {
        *s &= !status::MPRV;
    }
    hart.pc = hart.csrs.mepc;
    leave(hart, to);
}

/// `sret`: back to where `sepc` and `mstatus.SPP` say.
pub(crate) fn return_supervisor(hart: &mut Hart) {
    let s = &mut hart.csrs.mstatus;
    let to = if *s & status::SPP != 0 { Mode::Supervisor } else { Mode::User };
    *s = *s & !status::SIE | (*s & status::SPIE) >> 4;
    *s |= status::SPIE;
    *s &= !(status::SPP | status::MPRV);
    hart.pc = hart.csrs.sepc;
    leave(hart, to);
}

fn leave(hart: &mut Hart, to: Mode) {
    hart.mode = to;
    hart.reservation = NO_RESERVATION;
    hart.refresh_contexts();
}
