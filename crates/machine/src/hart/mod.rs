//! One hardware thread: its registers, and in the submodules how it executes.
//!
//! Map: `execute` the interpreter's inner loop; `code` its decoded instructions; `fetch`, `memory`, `amo` the
//! paths that translate; `system` and `csr` the privileged half; `trap` exceptions and interrupts; `pmp`;
//! `float` the F and D extensions over the pure functions of [`fp`].
//!
//! Invariant: everything in [`Hart`] is state except `tlb`, its contexts, `upper` and `engine`, which never show.

mod amo;
pub(crate) mod code;
pub(crate) mod csr;
pub(crate) mod execute;
pub(crate) mod fetch;
mod float;
pub mod fp;
pub(crate) mod memory;
pub(crate) mod pmp;
pub(crate) mod system;
pub(crate) mod trap;

use crate::mmu::{ContextKey, Contexts, Tlb, walk};
use crate::ram::{Ram, StaleTranslation};
use csr::{Csrs, status};
use pmp::Pmp;

/// A privilege mode, numbered as in `mstatus.MPP`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Mode {
    /// U.
    User = 0,
    /// S.
    Supervisor = 1,
    /// M.
    Machine = 3,
}

impl Mode {
    /// The mode numbered `bits`; the reserved 2 reads as U.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        match bits & 3 {
            1 => Self::Supervisor,
            3 => Self::Machine,
            _ => Self::User,
        }
    }
}

/// What a memory access is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    Fetch,
    Load,
    Store,
}

/// Whether a hart executes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Activity {
    /// It does.
    Running = 0,
    /// It sleeps in `wfi` until an interrupt that `mie` enables is pending.
    Waiting = 1,
    /// It is stopped until another hart starts it through the SBI.
    Stopped = 2,
}

/// What [`Hart::reservation`] is when there is none: no RAM is there.
pub(crate) const NO_RESERVATION: u64 = 0;

/// One hart. An engine finds its parts by `engine::layout`; the registers come first, so that they are near.
#[repr(C)]
pub(crate) struct Hart {
    /// Not state: words that belong to an engine.
    pub(crate) engine: [u64; crate::engine::layout::ENGINE_WORDS],
    /// Integer registers 0 to 31, and the sink for writes to x0 at 32. The rest is padding, so that an 8-bit
    /// register number needs no bounds check.
    pub(crate) x: [u64; 256],
    pub(crate) f: [u64; 32],
    pub(crate) pc: u64,
    pub(crate) mode: Mode,
    pub(crate) activity: Activity,
    pub(crate) csrs: Csrs,
    pub(crate) pmp: Pmp,
    /// Physical address of the doubleword that `lr` reserved, or [`NO_RESERVATION`]. Lost at every trap, trap return, `sc`, access
    /// to a device, input, and when another hart gets its turn: so no store needs to look at it.
    pub(crate) reservation: u64,
    /// Steps this hart has taken: instructions attempted.
    pub(crate) steps: u64,
    /// Steps that did not retire: exceptions.
    pub(crate) trapped: u64,
    /// Not state: the software TLB.
    pub(crate) tlb: Tlb,
    /// Not state: the TLB's contexts for fetches, and for loads and stores, as things are.
    pub(crate) fetches: Contexts,
    pub(crate) data: Contexts,
    /// Not state: a `satp`, and what stands for its upper half.
    upper: (u64, u64),
}

impl Hart {
    pub(crate) fn new(id: u64) -> Self {
        let mut hart = Self {
            engine: [0; _],
            x: [0; 256],
            f: [0; 32],
            pc: 0,
            mode: Mode::Machine,
            activity: Activity::Running,
            csrs: Csrs::new(id),
            pmp: Pmp::default(),
            reservation: NO_RESERVATION,
            steps: 0,
            trapped: 0,
            tlb: Tlb::new(),
            fetches: Contexts::default(),
            data: Contexts::default(),
            upper: (0, 0),
        };
        hart.refresh_contexts();
        hart
    }

    /// The privilege that loads and stores have (`mstatus.MPRV`).
    pub(crate) fn data_mode(&self) -> Mode {
        if self.mode == Mode::Machine && self.csrs.mstatus & status::MPRV != 0 {
            Mode::from_bits(self.csrs.mstatus >> status::MPP_SHIFT)
        } else {
            self.mode
        }
    }

    /// `satp` as it applies to a mode: machine mode is never translated.
    pub(crate) fn satp_for(&self, mode: Mode) -> u64 {
        if mode == Mode::Machine { 0 } else { self.csrs.satp }
    }

    /// Recomputes the TLB contexts: after anything that changes mode, `satp`, `mstatus` or what is cached.
    pub(crate) fn refresh_contexts(&mut self) {
        let data_mode = self.data_mode();
        let mut bits = data_mode as u8;
        if data_mode != Mode::Machine {
            bits |= u8::from(self.csrs.mstatus & status::SUM != 0) << 2;
            bits |= u8::from(self.csrs.mstatus & status::MXR != 0) << 3;
        }
        loop {
            let epoch = self.tlb.epoch();
            self.fetches = self.contexts(self.mode, self.mode as u8);
            self.data = self.contexts(data_mode, bits);
            // Numbering the later ones may have used the numbers up, and those of the earlier ones with them.
            if self.tlb.epoch() == epoch {
                return;
            }
        }
    }

    fn contexts(&mut self, mode: Mode, bits: u8) -> Contexts {
        let satp = self.satp_for(mode);
        let upper = if satp == self.upper.0 { self.upper.1 } else { satp };
        let lower = self.tlb.context(ContextKey { satp, bits });
        Contexts::new(lower, self.tlb.context(ContextKey { satp: upper, bits }))
    }

    /// Finds out what the upper half of the address space is: after anything that changes `satp`, PMP or that half.
    /// Without, an upper half is its address space's own.
    pub(crate) fn refresh_upper(&mut self, ram: &mut Ram) {
        let satp = self.csrs.satp;
        self.upper = (satp, self.tlb.upper(ram, &self.pmp, satp));
        self.refresh_contexts();
    }

    /// Drops some cached translations.
    pub(crate) fn forget(&mut self, ram: &mut Ram, stale: StaleTranslation) {
        match stale {
            StaleTranslation::Page { addr, is_executable } => {
                if self.tlb.forget_page(addr, is_executable) {
                    self.refresh_contexts();
                }
            }
            StaleTranslation::Space(root) => {
                let has_forgotten = self.tlb.forget_space(root);
                if has_forgotten || walk::root(self.csrs.satp) == Some(root) {
                    self.refresh_upper(ram);
                }
            }
        }
    }

    /// Drops every cached translation.
    pub(crate) fn forget_translations(&mut self, ram: &mut Ram) {
        self.tlb.forget();
        self.refresh_upper(ram);
    }
}
