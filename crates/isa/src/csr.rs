//! Control and status registers: numbers and names, in the order of the privileged specification.
//!
//! Source: volume II (20240411), tables "Currently allocated RISC-V ... CSR addresses"; Sstc; envcfg.
//! Not here: which of them a hart has and what they hold (`pollux-riscv`'s `hart::csr`).

macro_rules! csrs {
    ($($constant:ident $number:literal $name:literal;)*) => {
        $(#[doc = concat!("`", $name, "`")] pub const $constant: u16 = $number;)*

        /// Numbers and names, rising within each privilege level.
        pub const CSRS: &[(u16, &str)] = &[$(($number, $name),)*];
    };
}

csrs! {
    FFLAGS 0x001 "fflags";
    FRM 0x002 "frm";
    FCSR 0x003 "fcsr";
    CYCLE 0xc00 "cycle";
    TIME 0xc01 "time";
    INSTRET 0xc02 "instret";
    SSTATUS 0x100 "sstatus";
    SIE 0x104 "sie";
    STVEC 0x105 "stvec";
    SCOUNTEREN 0x106 "scounteren";
    SENVCFG 0x10a "senvcfg";
    SSCRATCH 0x140 "sscratch";
    SEPC 0x141 "sepc";
    SCAUSE 0x142 "scause";
    STVAL 0x143 "stval";
    SIP 0x144 "sip";
    STIMECMP 0x14d "stimecmp";
    SATP 0x180 "satp";
    MVENDORID 0xf11 "mvendorid";
    MARCHID 0xf12 "marchid";
    MIMPID 0xf13 "mimpid";
    MHARTID 0xf14 "mhartid";
    MCONFIGPTR 0xf15 "mconfigptr";
    MSTATUS 0x300 "mstatus";
    MISA 0x301 "misa";
    MEDELEG 0x302 "medeleg";
    MIDELEG 0x303 "mideleg";
    MIE 0x304 "mie";
    MTVEC 0x305 "mtvec";
    MCOUNTEREN 0x306 "mcounteren";
    MENVCFG 0x30a "menvcfg";
    MCOUNTINHIBIT 0x320 "mcountinhibit";
    MSCRATCH 0x340 "mscratch";
    MEPC 0x341 "mepc";
    MCAUSE 0x342 "mcause";
    MTVAL 0x343 "mtval";
    MIP 0x344 "mip";
    PMPCFG0 0x3a0 "pmpcfg0";
    PMPCFG2 0x3a2 "pmpcfg2";
    PMPADDR0 0x3b0 "pmpaddr0";
    PMPADDR15 0x3bf "pmpaddr15";
    MCYCLE 0xb00 "mcycle";
    MINSTRET 0xb02 "minstret";
}

/// The first of `hpmcounter3` to `hpmcounter31`.
pub const HPMCOUNTER3: u16 = 0xc03;
/// The last of them.
pub const HPMCOUNTER31: u16 = 0xc1f;
/// The first of `mhpmcounter3` to `mhpmcounter31`.
pub const MHPMCOUNTER3: u16 = 0xb03;
/// The last of them.
pub const MHPMCOUNTER31: u16 = 0xb1f;
/// The first of `mhpmevent3` to `mhpmevent31`.
pub const MHPMEVENT3: u16 = 0x323;
/// The last of them.
pub const MHPMEVENT31: u16 = 0x33f;

/// The name of a CSR, if it has one here.
#[must_use]
pub fn name(number: u16) -> Option<&'static str> {
    CSRS.iter().find(|(n, _)| *n == number).map(|(_, name)| *name)
}
