//! A hart as it is saved.

use super::csr::Csrs;
use super::pmp::Pmp;
use super::pmp::state::PmpV1;
use super::{Activity, Hart, Mode, NO_RESERVATION};
use crate::state::{Saved, fields};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use pollux_isa::{freg_name, reg_name};

fields!(
    /// Version 1. CSRs are in the order of [`Csrs::NAMES`]; mode and activity are their numbers.
    HartV1 {
        x: [u64; 32],
        f: [u64; 32],
        pc: u64,
        mode: u8,
        activity: u8,
        csrs: Vec<u64>,
        pmp: PmpV1,
        reservation: Option<u64>,
        steps: u64,
        trapped: u64,
    }
);

impl HartV1 {
    pub(crate) fn of(hart: &Hart) -> Self {
        let mut x = [0; 32];
        x.copy_from_slice(&hart.x[..32]);
        Self {
            x,
            f: hart.f,
            pc: hart.pc,
            mode: hart.mode as u8,
            activity: hart.activity as u8,
            csrs: hart.csrs.values().to_vec(),
            pmp: hart.pmp.save(),
            reservation: (hart.reservation != NO_RESERVATION).then_some(hart.reservation),
            steps: hart.steps,
            trapped: hart.trapped,
        }
    }

    /// The registers by name.
    pub(crate) fn describe(&self) -> Vec<(String, u64)> {
        let pmp = Pmp::revive(self.pmp.clone());
        let mut all = alloc::vec![("pc".to_string(), self.pc)];
        all.extend((1..32u8).map(|i| (reg_name(i).to_string(), self.x[usize::from(i)])));
        all.extend((0..32u8).map(|i| (freg_name(i).to_string(), self.f[usize::from(i)])));
        all.extend(Csrs::NAMES.iter().zip(&self.csrs).map(|(name, value)| (name.to_string(), *value)));
        all.extend((0..2).map(|i| (alloc::format!("pmpcfg{}", 2 * i), pmp.cfg(8 * i))));
        all.extend((0..16).map(|i| (alloc::format!("pmpaddr{i}"), pmp.addr(i))));
        all.push(("mode".to_string(), u64::from(self.mode)));
        all.push(("activity".to_string(), u64::from(self.activity)));
        all.push(("reservation".to_string(), self.reservation.unwrap_or(NO_RESERVATION)));
        all.push(("steps".to_string(), self.steps));
        all.push(("trapped".to_string(), self.trapped));
        all
    }

    /// The hart this is the state of; `None` if it is no hart's state.
    pub(crate) fn revive(&self, id: u64) -> Option<Hart> {
        let mut hart = Hart::new(id);
        hart.x[1..32].copy_from_slice(&self.x[1..]);
        hart.f = self.f;
        hart.pc = self.pc & !1;
        hart.mode = match self.mode {
            0 => Mode::User,
            1 => Mode::Supervisor,
            3 => Mode::Machine,
            _ => return None,
        };
        hart.activity = match self.activity {
            0 => Activity::Running,
            1 => Activity::Waiting,
            2 => Activity::Stopped,
            _ => return None,
        };
        hart.csrs.set_values(self.csrs.as_slice().try_into().ok()?);
        hart.pmp = Pmp::revive(self.pmp.clone());
        hart.reservation = self.reservation.unwrap_or(NO_RESERVATION);
        hart.steps = self.steps;
        hart.trapped = self.trapped;
        hart.refresh_contexts();
        Some(hart)
    }
}
