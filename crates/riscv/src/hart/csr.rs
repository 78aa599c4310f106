//! Control and status registers: what they hold, who may touch them, which writes stick.
//!
//! Choices where the specification leaves one (all WARL): `misa`, `mcountinhibit` and the hardware performance
//! counters are read-only; `mcycle` counts the machine's steps (so `cycle` is the icount, plus what software
//! wrote), `minstret` the hart's retired instructions; `satp` ignores a write with an unsupported mode;
//! `mtvec`/`stvec` ignore a write with a reserved mode; accessed/dirty bits are the walker's (`mmu::walk`)
//! if `menvcfg.ADUE` says so, as it does at reset.
//! Source: privileged specification, chapters "Machine-Level CSRs", "Supervisor CSRs"; Sstc; CMO.

use super::{Hart, Mode, trap};
use crate::mmu::walk::{SATP_SV39, SATP_SV48};
use pollux_isa::csr as number;
use pollux_vocab::VirtTime;

/// `mstatus` fields.
pub(crate) mod status {
    pub(crate) const SIE: u64 = 1 << 1;
    pub(crate) const MIE: u64 = 1 << 3;
    pub(crate) const SPIE: u64 = 1 << 5;
    pub(crate) const MPIE: u64 = 1 << 7;
    pub(crate) const SPP: u64 = 1 << 8;
    pub(crate) const MPP_SHIFT: u32 = 11;
    pub(crate) const MPP: u64 = 3 << MPP_SHIFT;
    pub(crate) const FS: u64 = 3 << 13;
    pub(crate) const MPRV: u64 = 1 << 17;
    pub(crate) const SUM: u64 = 1 << 18;
    pub(crate) const MXR: u64 = 1 << 19;
    pub(crate) const TVM: u64 = 1 << 20;
    pub(crate) const TW: u64 = 1 << 21;
    pub(crate) const TSR: u64 = 1 << 22;
    /// UXL and SXL: 64 bits, fixed.
    pub(crate) const XL: u64 = 2 << 32 | 2 << 34;
    pub(crate) const UXL: u64 = 2 << 32;
    pub(crate) const SD: u64 = 1 << 63;
    pub(crate) const S_WRITABLE: u64 = SIE | SPIE | SPP | FS | SUM | MXR;
    pub(crate) const M_WRITABLE: u64 = S_WRITABLE | MIE | MPIE | MPP | MPRV | TVM | TW | TSR;
}

/// `mip`/`mie` bits.
pub(crate) mod irq {
    pub(crate) const SSI: u64 = 1 << 1;
    pub(crate) const MSI: u64 = 1 << 3;
    pub(crate) const STI: u64 = 1 << 5;
    pub(crate) const MTI: u64 = 1 << 7;
    pub(crate) const SEI: u64 = 1 << 9;
    pub(crate) const MEI: u64 = 1 << 11;
    pub(crate) const ALL: u64 = SSI | MSI | STI | MTI | SEI | MEI;
    pub(crate) const DELEGABLE: u64 = SSI | STI | SEI;
}

/// `menvcfg`/`senvcfg` bits.
pub(crate) mod envcfg {
    pub(crate) const FIOM: u64 = 1;
    pub(crate) const CBIE: u64 = 3 << 4;
    pub(crate) const CBCFE: u64 = 1 << 6;
    pub(crate) const CBZE: u64 = 1 << 7;
    /// The walk sets accessed and dirty bits (Svadu); without, it faults where one is missing (Svade).
    pub(crate) const ADUE: u64 = 1 << 61;
    /// Page-table entries may name memory types (Svpbmt).
    pub(crate) const PBMTE: u64 = 1 << 62;
    pub(crate) const STCE: u64 = 1 << 63;
    pub(crate) const SENVCFG: u64 = FIOM | CBIE | CBCFE | CBZE;
    pub(crate) const MENVCFG: u64 = SENVCFG | ADUE | PBMTE | STCE;
    /// What firmware that has never heard of it finds, as on QEMU's `virt` board.
    pub(crate) const AT_RESET: u64 = ADUE | PBMTE;
}

/// RV64 with A, B, C, D, F, I, M, S, U.
const MISA: u64 = 2 << 62 | 1 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 5 | 1 << 8 | 1 << 12 | 1 << 18 | 1 << 20;
/// Exceptions that may be delegated: all that exist but `ecall` from M-mode.
const MEDELEG: u64 = 0xb3ff;
/// `mcounteren`/`scounteren`: cycle, time, instret.
const COUNTEREN: u64 = 7;

/// Nanoseconds of virtual time per tick of the `time` register: 10 MHz, as on QEMU's `virt` board.
pub(crate) const NS_PER_TICK: u64 = 100;

macro_rules! csrs {
    ($($field:ident)*) => {
        /// The registers that hold something. Fields are as software reads them in M-mode, but for what is
        /// computed on reading (`mstatus.SD`, the lines in `mip`, counters).
        #[derive(Clone, PartialEq, Eq, Debug, Default)]
        pub(crate) struct Csrs { pub(crate) hart_id: u64, $(pub(crate) $field: u64,)* }

        impl Csrs {
            /// Names in the order of [`Csrs::values`].
            pub(crate) const NAMES: &[&str] = &[$(stringify!($field)),*];

            /// All values, in the order that snapshots have them.
            pub(crate) fn values(&self) -> [u64; Self::NAMES.len()] {
                [$(self.$field),*]
            }

            /// Sets all values.
            pub(crate) fn set_values(&mut self, values: &[u64; Self::NAMES.len()]) {
                let [$($field),*] = *values;
                $(self.$field = $field;)*
            }
        }
    };
}

csrs! {
    mstatus medeleg mideleg mie mip mtvec mcounteren menvcfg mscratch mepc mcause mtval
    stvec scounteren senvcfg sscratch sepc scause stval stimecmp satp
    fflags frm mcycle_offset minstret_offset
}

impl Csrs {
    pub(crate) fn new(hart_id: u64) -> Self {
        Self {
            hart_id,
            mstatus: status::XL,
            menvcfg: envcfg::AT_RESET,
            stimecmp: u64::MAX,
            ..Self::default()
        }
    }

    /// The timer interrupts that are pending at `time`: MTIP against the CLINT's `mtimecmp`, STIP against
    /// `stimecmp` (Sstc).
    pub(crate) fn timer_lines(&self, mtimecmp: u64, time: VirtTime) -> u64 {
        let ticks = time.0 / NS_PER_TICK;
        let machine = if ticks >= mtimecmp { irq::MTI } else { 0 };
        let sstc = self.menvcfg & envcfg::STCE != 0;
        machine | if sstc && ticks >= self.stimecmp { irq::STI } else { 0 }
    }

    /// `mstatus` as read: SD summarises FS.
    fn mstatus_read(&self) -> u64 {
        let dirty = self.mstatus & status::FS == status::FS;
        self.mstatus | if dirty { status::SD } else { 0 }
    }
}

/// What an instruction that reads a CSR needs to know of the world.
#[derive(Clone, Copy)]
pub(crate) struct Now {
    /// The machine's steps before this instruction.
    pub(crate) icount: u64,
    /// This hart's steps before this instruction.
    pub(crate) steps: u64,
    /// Virtual time.
    pub(crate) time: VirtTime,
    /// The interrupt lines into `mip`.
    pub(crate) lines: u64,
}

/// Illegal instruction: the register does not exist, or not for this mode, or is read-only.
pub(crate) struct Illegal;

/// What a write may have changed that the inner loop caches.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Effects {
    /// The hart's TLB contexts.
    pub(crate) contexts: bool,
    /// These, and the address space.
    pub(crate) space: bool,
    /// What is cached in the TLB at all.
    pub(crate) translations: bool,
    /// When the next timer interrupt is due.
    pub(crate) timers: bool,
}

impl Hart {
    /// Checks that the mode may access `csr` at all, and write it if `write`.
    fn csr_access(&self, csr: u16, write: bool) -> Result<(), Illegal> {
        let lowest = Mode::from_bits(u64::from(csr >> 8));
        let hypervisor = csr >> 8 & 3 == 2;
        if hypervisor || self.mode < lowest || (write && csr >> 10 == 3) {
            return Err(Illegal);
        }
        let allowed = match csr {
            number::FFLAGS..=number::FCSR => self.csrs.mstatus & status::FS != 0,
            number::CYCLE..=number::HPMCOUNTER31 => self.may_count(self.mode, csr),
            number::SATP => self.mode == Mode::Machine || self.csrs.mstatus & status::TVM == 0,
            number::STIMECMP => {
                self.mode == Mode::Machine
                    || (self.csrs.menvcfg & envcfg::STCE != 0 && self.csrs.mcounteren & 2 != 0)
            }
            _ => true,
        };
        if allowed { Ok(()) } else { Err(Illegal) }
    }

    /// Whether a mode may read a counter, from `cycle` to `hpmcounter31`.
    pub(crate) fn may_count(&self, mode: Mode, counter: u16) -> bool {
        let bit = 1 << (counter - number::CYCLE);
        (mode == Mode::Machine || self.csrs.mcounteren & bit != 0)
            && (mode != Mode::User || self.csrs.scounteren & bit != 0)
    }

    /// Reads a CSR for the current mode; `write` says that a write will follow.
    pub(crate) fn csr_read(&self, csr: u16, write: bool, now: &Now) -> Result<u64, Illegal> {
        self.csr_access(csr, write)?;
        let c = &self.csrs;
        Ok(match csr {
            number::FFLAGS => c.fflags,
            number::FRM => c.frm,
            number::FCSR => c.frm << 5 | c.fflags,
            number::CYCLE | number::MCYCLE => now.icount.wrapping_add(c.mcycle_offset),
            number::TIME => now.time.0 / NS_PER_TICK,
            number::INSTRET | number::MINSTRET => {
                now.steps.wrapping_sub(self.trapped).wrapping_add(c.minstret_offset)
            }
            number::SSTATUS => c.mstatus_read() & (status::S_WRITABLE | status::UXL | status::SD),
            number::SIE => c.mie & c.mideleg,
            number::SIP => (c.mip | now.lines) & c.mideleg,
            number::STVEC => c.stvec,
            number::SCOUNTEREN => c.scounteren,
            number::SENVCFG => c.senvcfg,
            number::SSCRATCH => c.sscratch,
            number::SEPC => c.sepc,
            number::SCAUSE => c.scause,
            number::STVAL => c.stval,
            number::STIMECMP => c.stimecmp,
            number::SATP => c.satp,
            number::MHARTID => c.hart_id,
            number::MVENDORID | number::MARCHID | number::MIMPID | number::MCONFIGPTR => 0,
            number::MSTATUS => c.mstatus_read(),
            number::MISA => MISA,
            number::MEDELEG => c.medeleg,
            number::MIDELEG => c.mideleg,
            number::MIE => c.mie,
            number::MIP => c.mip | now.lines,
            number::MTVEC => c.mtvec,
            number::MCOUNTEREN => c.mcounteren,
            number::MENVCFG => c.menvcfg,
            number::MSCRATCH => c.mscratch,
            number::MEPC => c.mepc,
            number::MCAUSE => c.mcause,
            number::MTVAL => c.mtval,
            number::PMPCFG0 | number::PMPCFG2 => self.pmp.cfg(usize::from(csr - number::PMPCFG0) * 4),
            0x3a4 | 0x3a6 | 0x3a8 | 0x3aa | 0x3ac | 0x3ae | 0x3c0..=0x3ef => 0,
            number::PMPADDR0..=number::PMPADDR15 => self.pmp.addr(usize::from(csr - number::PMPADDR0)),
            number::MCOUNTINHIBIT
            | number::HPMCOUNTER3..=number::HPMCOUNTER31
            | number::MHPMCOUNTER3..=number::MHPMCOUNTER31
            | number::MHPMEVENT3..=number::MHPMEVENT31 => 0,
            _ => return Err(Illegal),
        })
    }

    /// Writes a CSR that [`Hart::csr_read`] has allowed. Bits that do not stick are dropped.
    pub(crate) fn csr_write(&mut self, csr: u16, value: u64, now: &Now) -> Effects {
        let mut effects = Effects::default();
        let c = &mut self.csrs;
        match csr {
            number::FFLAGS | number::FRM | number::FCSR => self.fcsr_write(csr, value),
            number::SSTATUS => {
                c.mstatus = c.mstatus & !status::S_WRITABLE | value & status::S_WRITABLE;
                effects.contexts = true;
            }
            number::MSTATUS => {
                let mut new = c.mstatus & !status::M_WRITABLE | value & status::M_WRITABLE;
                if new & status::MPP == 2 << status::MPP_SHIFT {
                    new = new & !status::MPP | c.mstatus & status::MPP;
                }
                c.mstatus = new;
                effects.contexts = true;
            }
            number::SIE => c.mie = c.mie & !c.mideleg | value & c.mideleg,
            number::SIP => {
                let mask = irq::SSI & c.mideleg;
                c.mip = c.mip & !mask | value & mask;
            }
            number::MIE => c.mie = value & irq::ALL,
            number::MIP => {
                let timer = if c.menvcfg & envcfg::STCE == 0 { irq::STI } else { 0 };
                let mask = irq::SSI | irq::SEI | timer;
                c.mip = c.mip & !mask | value & mask;
            }
            number::SATP => {
                if matches!(value >> 60, 0 | SATP_SV39 | SATP_SV48) {
                    c.satp = value;
                    effects.space = true;
                }
            }
            number::PMPCFG0 | number::PMPCFG2 => {
                self.pmp.set_cfg(usize::from(csr - number::PMPCFG0) * 4, value);
                effects.translations = true;
            }
            number::PMPADDR0..=number::PMPADDR15 => {
                self.pmp.set_addr(usize::from(csr - number::PMPADDR0), value);
                effects.translations = true;
            }
            number::MENVCFG => {
                let old = c.menvcfg;
                self.csr_write_plain(csr, value);
                // What is cached was found under the old rules.
                let rules = envcfg::ADUE | envcfg::PBMTE;
                effects.translations = (old ^ self.csrs.menvcfg) & rules != 0;
            }
            number::MCYCLE => c.mcycle_offset = value.wrapping_sub(now.icount).wrapping_sub(1),
            number::MINSTRET => {
                let retired = now.steps.wrapping_sub(self.trapped);
                c.minstret_offset = value.wrapping_sub(retired).wrapping_sub(1);
            }
            _ => self.csr_write_plain(csr, value),
        }
        effects.timers =
            matches!(csr, number::STIMECMP | number::MENVCFG | number::MIE | number::SIE | number::MIP);
        effects
    }

    /// Registers that merely hold what they are given, masked.
    fn csr_write_plain(&mut self, csr: u16, value: u64) {
        let c = &mut self.csrs;
        match csr {
            number::STVEC if value & 3 < 2 => c.stvec = value,
            number::MTVEC if value & 3 < 2 => c.mtvec = value,
            number::SCOUNTEREN => c.scounteren = value & COUNTEREN,
            number::MCOUNTEREN => c.mcounteren = value & COUNTEREN,
            number::SENVCFG => c.senvcfg = legal_envcfg(c.senvcfg, value & envcfg::SENVCFG),
            number::MENVCFG => {
                c.menvcfg = legal_envcfg(c.menvcfg, value & envcfg::MENVCFG);
                if c.menvcfg & envcfg::STCE != 0 {
                    c.mip &= !irq::STI;
                }
            }
            number::SSCRATCH => c.sscratch = value,
            number::MSCRATCH => c.mscratch = value,
            number::SEPC => c.sepc = value & !1,
            number::MEPC => c.mepc = value & !1,
            number::SCAUSE => c.scause = value,
            number::MCAUSE => c.mcause = value,
            number::STVAL => c.stval = value,
            number::MTVAL => c.mtval = value,
            number::STIMECMP => c.stimecmp = value,
            number::MEDELEG => c.medeleg = value & MEDELEG,
            number::MIDELEG => c.mideleg = value & irq::DELEGABLE,
            _ => {}
        }
    }

    fn fcsr_write(&mut self, csr: u16, value: u64) {
        match csr {
            number::FFLAGS => self.csrs.fflags = value & 31,
            number::FRM => self.csrs.frm = value & 7,
            _ => {
                self.csrs.fflags = value & 31;
                self.csrs.frm = value >> 5 & 7;
            }
        }
        self.csrs.mstatus |= status::FS;
    }

    /// What a read-modify-write of `csr` starts from: as read, but without the external line in SEIP
    /// (privileged specification, "Machine Interrupt Registers").
    pub(crate) fn csr_modify_base(&self, csr: u16, read: u64) -> u64 {
        if csr == number::MIP { read & !irq::SEI | self.csrs.mip & irq::SEI } else { read }
    }

    /// Whether an interrupt would be taken before the next instruction.
    #[inline]
    pub(crate) fn interrupt_due(&self, lines: u64) -> bool {
        trap::due(self, lines).is_some()
    }
}

/// CBIE's encoding 2 is reserved: a write of it keeps the field.
fn legal_envcfg(old: u64, new: u64) -> u64 {
    if new & envcfg::CBIE == 2 << 4 { new & !envcfg::CBIE | old & envcfg::CBIE } else { new }
}
