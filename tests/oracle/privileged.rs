//! The second suite: CSRs, traps, delegation, interrupts, paging and PMP, from all three modes.
//!
//! Every case starts from random CSRs, page tables and PMP entries and mixes accesses through them with CSR
//! accesses, environment calls, returns and fences. Instructions are four bytes long, and control goes forward.
//! Registers have roles: x8 to x15 hold addresses, x16 to x23 values, x28 to x31 what templates need.
//!
//! What is left out, because QEMU and Pollux may rightly differ: see `amend` and the comments on values.

mod memory;

use memory::{DATA_PAGES, ROOT39, legal_protection};

use crate::random::Random;
use crate::record::{Batch, CODE, Case, END, ENTRY, F, FCSR, LOG_TRAPS, Placed, SKIP, STUB, TRAPS_MAX};
use pollux_isa::csr::{self as number};
use pollux_isa::{Opcode, code};

const PAGE: u64 = 4096;
/// Bytes of a case: the record, four data pages, page tables.
pub(crate) const STRIDE: usize = 16 * 4096;
/// Offset in every data page of an instruction that returns to the code.
const LANDING: u64 = 0x800;
/// Most instructions.
const CODE_MAX: usize = 24;

const MIE: u64 = 1 << 3;
const MPRV: u64 = 1 << 17;
/// UXL and SXL as they are. QEMU takes others, in vain or worse.
const XL: u64 = 0xa << 32;
const SUPERVISOR_INTERRUPTS: u64 = 0x222;

/// Exceptions that both machines delegate. QEMU lets an `ecall` from M-mode (11) be delegated, in vain, and
/// has bits of extensions that are not there (10).
const MEDELEG: u64 = 0xb3ff;

/// STCE of `menvcfg`.
const STCE: u64 = 1 << 63;
/// Bits of `menvcfg` that both machines have. QEMU also has some of extensions that are not there.
const ENVIRONMENT: u64 = STCE | RULES | 0xf1;
/// ADUE and PBMTE of `menvcfg`. QEMU forgets no translation when they change, so that they stay what they are.
const RULES: u64 = 3 << 61;

/// The privilege mode that a case starts in, as in `mstatus.MPP`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    User = 0,
    Supervisor = 1,
    Machine = 3,
}

struct Writer<'a> {
    case: Case,
    random: &'a mut Random,
    mode: Mode,
    /// Where data accesses go: the window's virtual address, or the data pages' physical one.
    window: u64,
    /// Whether the code leaves alone what decides about interrupts and the handler.
    calm: bool,
    /// Whether `wfi` is sure to end.
    may_wait: bool,
    /// Whether `satp` translates, for modes that it concerns.
    paged: bool,
    /// Whether accesses may cross the end of a page.
    crosses: bool,
    /// Whether there are pages of memory that does not exist. Then accesses do not cross pages, for QEMU
    /// translates both first and Pollux goes page by page; nor are there AMOs, as under PMP: QEMU takes them
    /// for a load first, and has the load's physical fault outrank the store's page fault.
    beyond: bool,
    /// Whether PMP has anything to say.
    protects: bool,
    /// Whether `menvcfg.STCE` is set.
    timer: bool,
    /// Which of [`RULES`] hold.
    rules: u64,
    /// The interrupt that is pending.
    pending: u64,
    x: [u64; 32],
}

/// Case `index` of the suite under `seed`, at its place in a batch.
pub(crate) fn case(seed: u64, index: usize, place: usize) -> Case {
    let mut random = Random::of_case(!seed, index);
    let mode = random.pick(&[Mode::User, Mode::User, Mode::Supervisor, Mode::Supervisor, Mode::Machine]);
    let case = Case::new(Batch::base(place, STRIDE), STRIDE);
    let calm = random.chance(50);
    let paged = random.chance(60);
    let beyond = random.chance(30);
    let crosses = !beyond && random.chance(50);
    let protects = random.chance(30);
    let timer = random.chance(30);
    let (window, may_wait, pending, x) = (0, false, 0, [0; 32]);
    let mut writer = Writer {
        window,
        case,
        random: &mut random,
        mode,
        calm,
        may_wait,
        paged,
        crosses,
        beyond,
        protects,
        timer,
        rules: 0,
        pending,
        x,
    };
    writer.trap_state();
    writer.memory();
    writer.registers();
    let count = 2 + writer.random.below(8);
    while writer.case.code.len() < count {
        writer.step();
    }
    writer.finish()
}

impl Writer<'_> {
    fn page(&self, index: u64) -> u64 {
        self.case.base + index * PAGE
    }

    /// `mstatus`, delegation, interrupts, environment configuration.
    fn trap_state(&mut self) {
        let r = &mut *self.random;
        let fields = r.next() & (0x7e_0000 | 0x6000 | 0xa0 | 0x122) & !MPRV;
        let status = if r.chance(60) { fields & 0x0c_01a2 | 0x6000 } else { fields };
        // Fetch faults and the handler's own ecall stay with the machine: a supervisor that cannot be entered
        // would trap for ever.
        let mut medeleg = if r.chance(60) { r.next() & MEDELEG } else { 0 } & !(1 << 9 | 1 << 1 | 1);
        if !self.calm || r.chance(70) {
            medeleg &= !(1 << 12);
        }
        // The end is a breakpoint.
        if r.chance(85) {
            medeleg &= !(1 << 3);
        }
        // One at a time: without AIA, QEMU takes the lowest-numbered of several, whatever their priority.
        // With STCE, STIP is not software's.
        let mip = if r.chance(25) { r.pick(&[2, 0x200, if self.timer { 2 } else { 0x20 }]) } else { 0 };
        let mie = if r.chance(50) { r.next() & 0xaaa } else { 0 };
        let mideleg = r.next() & if r.chance(50) { 0xffff } else { 0 };
        let mut environment =
            || if r.chance(50) { 0xf1 } else { legal_environment(r.next() & ENVIRONMENT & !STCE & !RULES) };
        let (menvcfg, senvcfg) = (environment() | if self.timer { STCE } else { 0 }, environment());
        self.rules = if r.chance(60) { RULES } else { r.next() & RULES };
        let menvcfg = menvcfg | self.rules;
        let counters = [r.next() & 7, r.next() & 7];
        let plain = [r.integer(), r.integer() & !1, r.integer(), r.integer()];
        self.pending = mip;
        self.may_wait = mip & mie != 0 && self.calm;
        let vectored = u64::from(self.random.chance(20));
        let case = &mut self.case;
        case.set_csr("mstatus", XL | status | (self.mode as u64) << 11);
        case.set_csr("medeleg", medeleg);
        case.set_csr("mip", mip);
        case.set_csr("mie", mie);
        case.set_csr("mideleg", mideleg & SUPERVISOR_INTERRUPTS);
        case.set_csr("menvcfg", menvcfg);
        case.set_csr("senvcfg", senvcfg);
        case.set_csr("mcounteren", counters[0]);
        case.set_csr("scounteren", counters[1]);
        case.set_csr("stvec", STUB | vectored);
        for (name, value) in ["sscratch", "sepc", "scause", "stval"].into_iter().zip(plain) {
            case.set_csr(name, value);
        }
    }

    fn registers(&mut self) {
        for r in 1..32 {
            self.x[r] = self.random.integer();
        }
        for r in 8..16 {
            // Without translation a window is no larger than the data.
            let pages = if self.paged { 16 } else { DATA_PAGES };
            let page = self.window.wrapping_add(self.random.next() % pages * PAGE);
            let offset = match self.random.below(8) {
                // Across the end of the page, and anywhere.
                0 if self.crosses => PAGE - 1 - self.random.next() % 8,
                1 => self.random.next() % 0x700,
                _ => (self.random.next() % 0x700) & !7,
            };
            self.x[r] = page.wrapping_add(offset);
            if self.random.chance(2) {
                self.x[r] ^= 1 << (40 + self.random.below(23));
            }
        }
        self.x[14] &= !63;
        self.x[15] = self.x[15] & !(PAGE - 1) | LANDING;
        // No locks: they last until reset. No machine interrupts to come, no time to pass.
        self.x[30] = legal_protection(self.x[30]);
        // QEMU has bits for the interrupts of extensions that are not there.
        self.x[17] &= 0xaaa;
        // Any mode, any address space, but a table.
        self.x[18] = self.x[18] & !0xfff_ffff_ffff | self.page(ROOT39) >> 12;
        self.x[19] = legal_environment(self.x[19] & ENVIRONMENT) & !RULES | self.rules;
        if self.pending == 0x20 {
            // What becomes of software's STIP while STCE is set is anybody's choice.
            self.x[19] &= !STCE;
        }
        // QEMU keeps all 64 bits of `pmpaddr`.
        self.x[20] &= (1 << 54) - 1;
        self.x[21] &= !1;
        self.x[23] &= MEDELEG;
        // QEMU keeps the hypervisor's bits.
        self.x[22] = self.x[22] & 0x888 | self.pending;
        self.x[28] = self.x[28] & !MIE & !(3 << 11) & !(0xf << 32) | XL | self.random.pick(&[0, 1, 3]) << 11;
    }

    fn put(&mut self, word: u32) {
        let at = self.case.code.len() * 4;
        self.case.code.push(Placed { at, word, len: 4, certain: true });
    }

    fn result(&mut self) -> u32 {
        self.random.pick(&[0, 1, 2, 3, 4, 5, 6, 7, 24, 25, 26, 27])
    }

    /// One instruction or template.
    fn step(&mut self) {
        match self.random.below(24) {
            0..8 => self.access(),
            8 => self.land(),
            9..15 if !self.calm => self.csr(),
            15 => self.counter(),
            16 if !self.calm || self.mode == Mode::User => self.go_back(),
            17 => self.odd(),
            18 if self.mode == Mode::Machine => self.machine_access(),
            18 => self.put(0x73),
            19 => self.put(0x0010_0073),
            20 => self.fence(),
            21 => {
                let rm = 7 << 12;
                let rd = self.random.next() as u32 & 31;
                self.put(word_of(Opcode::FaddD, rd, 1, 2) | rm);
            }
            // Under PMP, QEMU checks no more than the first bytes of a block.
            22 if !self.protects => {
                let op = [Opcode::CboZero, Opcode::CboClean, Opcode::CboFlush, Opcode::CboInval];
                let op = self.random.pick(&op);
                self.put(word_of(op, 0, 14, 0));
            }
            _ if self.may_wait || (self.calm && self.mode == Mode::User) => self.put(0x1050_0073),
            _ => self.access(),
        }
    }

    fn access(&mut self) {
        let rs1 = 8 + self.random.next() as u32 % 7;
        let atomic = self.x[rs1 as usize].is_multiple_of(8) && !self.beyond && !self.protects;
        let op = self.random.pick(&[
            Opcode::Lb,
            Opcode::Lhu,
            Opcode::Lw,
            Opcode::Ld,
            Opcode::Ld,
            Opcode::Sb,
            Opcode::Sh,
            Opcode::Sw,
            Opcode::Sd,
            Opcode::Sd,
            Opcode::Fld,
            Opcode::Fsd,
            // Aligned ones: for others QEMU has the wrong cause.
            if atomic { Opcode::AmoaddD } else { Opcode::Ld },
            if atomic { Opcode::AmoswapW } else { Opcode::Sd },
            Opcode::LrD,
        ]);
        let rd = self.result();
        let rs2 = 16 + self.random.next() as u32 % 8;
        let (load, atomic) = (op as u8 <= code::Lhu || op == Opcode::Ld, op as u8 >= code::LrW);
        self.put(match op {
            Opcode::LrD | Opcode::Fld => word_of(op, rd, rs1, 0),
            _ if load => word_of(op, rd, rs1, 0),
            _ if atomic && op as u8 <= code::AmomaxuD => word_of(op, rd, rs1, rs2),
            _ => word_of(op, 0, rs1, rs2),
        });
    }

    /// Executes the landing of a data page and comes back.
    fn land(&mut self) {
        self.put(word_of(Opcode::Jalr, 31, 15, 0));
    }

    /// In M-mode: an access as if from the mode in MPP.
    fn machine_access(&mut self) {
        self.x[29] = MPRV;
        self.put(csr_word(Opcode::Csrrs, 0, number::MSTATUS, 29));
        self.access();
        self.put(csr_word(Opcode::Csrrc, 0, number::MSTATUS, 29));
    }

    /// Writes a CSR, reads it back, and restores it; or just reads one.
    fn csr(&mut self) {
        let mut csr = csr_number(self.random, self.mode);
        // In QEMU `stimecmp` acts upon STIP even if STCE says that it does not.
        if csr == number::STIMECMP && self.mode == Mode::Machine && !self.timer {
            csr = number::SSCRATCH;
        }
        // After a trap QEMU may have lost what an illegal instruction looked like.
        if matches!(csr, number::STVAL | number::MTVAL) && !self.case.code.is_empty() {
            csr = number::SEPC;
        }
        if self.random.chance(15) {
            // In modes that may not, for the trap.
            let anything = csr_number(self.random, Mode::Machine);
            let rd = self.result();
            let rd = if is_value_ours(anything) { 0 } else { rd };
            self.put(csr_word(Opcode::Csrrs, rd, anything, 0));
            return;
        }
        let value = match csr {
            number::PMPCFG0 | number::PMPCFG2 => 30,
            number::MEDELEG => 23,
            number::MIE | number::SIE | number::MIDELEG => 17,
            number::SATP => 18,
            number::MENVCFG | number::SENVCFG => 19,
            number::PMPADDR0..=number::PMPADDR15 => 20,
            number::STIMECMP => 0,
            number::MSTATUS | number::SSTATUS => 28,
            number::MIP | number::SIP => 22,
            // QEMU lets bit 0 stick.
            number::MEPC | number::SEPC => 21,
            _ => 16,
        };
        let op = if value == 0 || value >= 17 {
            Opcode::Csrrw
        } else {
            self.random.pick(&[
                Opcode::Csrrw,
                Opcode::Csrrw,
                Opcode::Csrrs,
                Opcode::Csrrc,
                Opcode::Csrrwi,
                Opcode::Csrrsi,
                Opcode::Csrrci,
            ])
        };
        // What the handler depends upon must be restored, whatever traps: the first of the three does or
        // none does.
        let old = self.random.pick(&[24, 25, 26, 27]);
        self.put(csr_word(op, old, csr, value));
        let rd = self.random.pick(&[1, 2, 3, 4, 5, 6, 7]);
        self.put(csr_word(Opcode::Csrrs, rd, csr, 0));
        self.put(csr_word(Opcode::Csrrw, 0, csr, old));
    }

    fn counter(&mut self) {
        let csr = self.random.pick(&[number::CYCLE, number::TIME, number::INSTRET]);
        self.put(csr_word(Opcode::Csrrs, 0, csr, 0));
    }

    /// `mret` or `sret` to the instruction after it, in whatever mode the status says.
    fn go_back(&mut self) {
        let machine = self.mode == Mode::Machine && self.random.chance(60);
        let (csr, op) = if machine { (number::MEPC, Opcode::Mret) } else { (number::SEPC, Opcode::Sret) };
        if self.mode == Mode::Machine {
            self.put(csr_word(Opcode::Csrrw, 0, number::MSTATUS, 28));
        }
        let after = self.case.code.len() as u64 * 4 + 8;
        self.x[29] = self.case.base + CODE as u64 + after;
        self.put(csr_word(Opcode::Csrrw, 0, csr, 29));
        self.put(word_of(op, 0, 0, 0));
    }

    /// Something illegal.
    fn odd(&mut self) {
        let op = self.random.pick(&[Opcode::Mret, Opcode::Sret, Opcode::Wfi]);
        let word = if self.mode == Mode::User && (op != Opcode::Wfi || self.calm) {
            word_of(op, 0, 0, 0)
        } else {
            self.random.pick(&[0xffff_ffff, 0x0000_007f, 0xf000_0073, 0x8000_4033])
        };
        self.put(word);
    }

    fn fence(&mut self) {
        let word = self.random.pick(&[
            word_of(Opcode::SfenceVma, 0, 0, 0),
            word_of(Opcode::SfenceVma, 0, 8, 0),
            word_of(Opcode::SfenceVma, 0, 9, 16),
            // Not `sfence.w.inval` and `sfence.inval.ir`: QEMU lets them pass in U-mode.
            word_of(Opcode::SinvalVma, 0, 8, 16),
            word_of(Opcode::FenceI, 0, 0, 0),
            word_of(Opcode::Fence, 0, 0, 0) | 0xff << 20,
        ]);
        self.put(word);
    }

    fn finish(mut self) -> Case {
        assert!(self.case.code.len() < CODE_MAX * 4, "the code has outgrown its room");
        let end = self.case.code_base + 4 * self.case.code.len() as u64;
        self.put(0x0010_0073);
        self.case.write_code(CODE);
        self.case.set(ENTRY, self.case.code_base);
        self.case.set(END, end);
        self.case.set(SKIP, 4);
        self.case.set(TRAPS_MAX, LOG_TRAPS as u64);
        self.case.set(FCSR, 0);
        for r in 1..32 {
            self.case.set(8 * r, self.x[r]);
            let float = self.random.float();
            self.case.set(F + 8 * r, float);
        }
        self.case
    }
}

/// `menvcfg` or `senvcfg` without CBIE's reserved encoding, which QEMU keeps.
fn legal_environment(config: u64) -> u64 {
    if config & 0x30 == 0x20 { config & !0x30 } else { config }
}

/// A word of the table with these registers.
fn word_of(op: Opcode, rd: u32, rs1: u32, rs2: u32) -> u32 {
    op.info().map_or(0, |info| info.value | rd << 7 | rs1 << 15 | rs2 << 20)
}

fn csr_word(op: Opcode, rd: u32, csr: u16, rs1: u32) -> u32 {
    word_of(op, rd, rs1, 0) | u32::from(csr) << 20
}

/// Registers whose value is the implementation's own affair, or time's.
fn is_value_ours(csr: u16) -> bool {
    matches!(csr, number::MVENDORID | number::MARCHID | number::MIMPID | number::MCYCLE | number::MINSTRET)
        || csr >> 8 == 0xc
}

/// A CSR that the mode may write.
fn csr_number(random: &mut Random, mode: Mode) -> u16 {
    let user = [number::FFLAGS, number::FRM, number::FCSR];
    let supervisor = [
        number::SSTATUS,
        number::SIE,
        number::STVEC,
        number::SCOUNTEREN,
        number::SENVCFG,
        number::SSCRATCH,
        number::SEPC,
        number::SCAUSE,
        number::STVAL,
        number::SIP,
        number::SATP,
        number::STIMECMP,
    ];
    let machine = [
        number::MSTATUS,
        number::MISA,
        number::MEDELEG,
        number::MIDELEG,
        number::MIE,
        number::MTVEC,
        number::MCOUNTEREN,
        number::MENVCFG,
        number::MSCRATCH,
        number::MEPC,
        number::MCAUSE,
        number::MTVAL,
        number::MIP,
        number::PMPCFG0,
        number::PMPCFG2,
        number::PMPADDR0,
        number::PMPADDR0 + 7,
        number::PMPADDR15,
        number::MHARTID,
        number::MCONFIGPTR,
        number::MVENDORID,
    ];
    match (mode, random.below(10)) {
        (Mode::Machine, 0..6) => random.pick(&machine),
        (Mode::Machine | Mode::Supervisor, 0..9) => random.pick(&supervisor),
        _ => random.pick(&user),
    }
}
