//! One hardware thread: its registers, and in the submodules how it executes.
//!
//! Map: `execute` the interpreter's inner loop; `code` its decoded instructions; `fetch`, `memory`, `amo` the
//! paths that translate; `system` and `csr` the privileged half; `trap` exceptions and interrupts; `pmp`;
//! `float` the F and D extensions over the pure functions of [`fp`]; `shortcut` single instructions for an engine.
//!
//! Invariant: everything in [`Hart`] is state except `tlb`, its contexts, `upper`, `views` and `engine`, which never show.

mod amo;
pub(crate) mod code;
mod compute;
pub(crate) mod csr;
pub(crate) mod execute;
pub(crate) mod fetch;
mod float;
pub mod fp;
pub(crate) mod memory;
pub(crate) mod pmp;
pub(crate) mod shortcut;
pub(crate) mod state;
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

/// Bits of a context's key besides the mode.
const SUM: u8 = 1 << 2;
const MXR: u8 = 1 << 3;

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
    /// Not state: the contexts of U-mode, of S-mode, and of S-mode's loads and stores under SUM, all with MXR clear.
    pub(crate) views: [Contexts; 3],
    /// Not state: when they were found out ([`Tlb::changes`]), and for which `satp` and upper half.
    views_of: (u64, u64, u64),
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
            views: [Contexts::default(); 3],
            views_of: (u64::MAX, 0, 0),
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
        let sum = data_mode == Mode::Supervisor && self.csrs.mstatus & status::SUM != 0;
        let mxr = data_mode != Mode::Machine && self.csrs.mstatus & status::MXR != 0;
        loop {
            let (satp, upper) = (self.csrs.satp, self.upper_for(self.csrs.satp));
            let changes = self.tlb.changes();
            if self.views_of != (changes, satp, upper) {
                let user = self.contexts(Mode::User, Mode::User as u8);
                let supervisor = self.contexts(Mode::Supervisor, Mode::Supervisor as u8);
                let reaching = self.contexts(Mode::Supervisor, Mode::Supervisor as u8 | SUM);
                self.views = [user, supervisor, reaching];
            }
            self.fetches = match self.mode {
                Mode::Machine => self.contexts(Mode::Machine, Mode::Machine as u8),
                mode => self.views[mode as usize],
            };
            self.data = match data_mode {
                Mode::Machine => self.contexts(Mode::Machine, Mode::Machine as u8),
                mode if mxr => self.contexts(mode, mode as u8 | if sum { SUM } else { 0 } | MXR),
                mode => self.views[mode as usize + usize::from(sum)],
            };
            // Numbering one may have taken another one's number away.
            if self.tlb.changes() == changes {
                self.views_of = (changes, satp, upper);
                return;
            }
        }
    }

    /// What stands for `satp` where the upper half is translated.
    fn upper_for(&self, satp: u64) -> u64 {
        if satp == self.upper.0 { self.upper.1 } else { satp }
    }

    fn contexts(&mut self, mode: Mode, bits: u8) -> Contexts {
        let satp = self.satp_for(mode);
        let lower = self.tlb.context(ContextKey { satp, bits });
        let upper = self.upper_for(satp);
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
