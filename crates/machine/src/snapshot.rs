//! The whole state as bytes and back (LAYOUT, "Live types never serialise themselves").
//!
//! Invariant: a restored machine goes on exactly as the saved one would have; caches, host resources and
//! digests are left out. Every section carries its version; what is not understood is refused.

use crate::computer::Computer;
use crate::hart::csr::Csrs;
use crate::hart::pmp::Pmp;
use crate::hart::{Activity, Hart, Mode};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use pollux_isa::{freg_name, reg_name};
use pollux_vocab::Clock;
use serde::{Deserialize, Serialize};

/// Version 1 of a hart's state.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct HartV1 {
    x: [u64; 32],
    f: [u64; 32],
    pc: u64,
    mode: u8,
    activity: u8,
    /// In the order of [`Csrs::NAMES`].
    csrs: Vec<u64>,
    pmp: Pmp,
    reservation: Option<u64>,
    steps: u64,
    trapped: u64,
}

/// Version 1 of what belongs to no hart and no device.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct MachineV1 {
    clock: Clock,
    icount: u64,
    current: u32,
    quantum_left: u64,
    builtin_sbi: bool,
}

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
            pmp: hart.pmp.clone(),
            reservation: hart.reservation,
            steps: hart.steps,
            trapped: hart.trapped,
        }
    }
}

impl MachineV1 {
    pub(crate) fn of(computer: &Computer) -> Self {
        Self {
            clock: computer.clock,
            icount: computer.icount,
            current: computer.current as u32,
            quantum_left: computer.quantum_left,
            builtin_sbi: computer.builtin_sbi,
        }
    }
}

impl Computer {
    pub(crate) fn save(&self) -> Vec<u8> {
        Vec::new()
    }
}
