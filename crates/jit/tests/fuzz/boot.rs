//! What a guest starts with: reset code, trap handlers, page tables, registers.
//!
//! The handlers skip what faults, go on somewhere in the code after a wild jump, answer `ecall` by flipping something
//! in `mstatus`, `satp` or PMP, and set the timer anew. They clobber t4 to t6 and need nothing to have survived.

use super::asm::{Code, Jump};
use super::layout::*;
use super::program::{SATP_REGISTERS, base_address};
use super::rng::Rng;
use pollux_isa::{Opcode as Op, csr};

const T4: u8 = 29;
const T5: u8 = 30;
const T6: u8 = 31;

/// Which mode the program begins in; traps may change it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum World {
    Machine,
    Supervisor,
    User,
}

/// The control registers that reset sets, in this order.
const CONTROL: [u16; 13] = [
    csr::MTVEC,
    csr::STVEC,
    csr::PMPADDR0,
    csr::PMPADDR0 + 1,
    csr::PMPCFG0,
    csr::MCOUNTEREN,
    csr::SCOUNTEREN,
    csr::MENVCFG,
    csr::MEDELEG,
    csr::MIDELEG,
    csr::MIE,
    csr::SATP,
    csr::MSTATUS,
];
/// Where they are in what a hart starts with, behind its 32 integer and 32 floating-point registers.
const CONTROL_AT: u64 = 0x200;
const PC_AT: u64 = CONTROL_AT + 8 * CONTROL.len() as u64;
const MACHINE_HANDLER: u64 = RESET + 0x400;

/// The trap handlers' registers for one mode.
struct TrapCsrs {
    cause: u16,
    pc: u16,
    status: u16,
    cycle: u16,
    back: Op,
    flips: u64,
}

const MACHINE: TrapCsrs = TrapCsrs {
    cause: csr::MCAUSE,
    pc: csr::MEPC,
    status: csr::MSTATUS,
    cycle: csr::MCYCLE,
    back: Op::Mret,
    flips: FLIPS,
};
const SUPERVISED: TrapCsrs = TrapCsrs {
    cause: csr::SCAUSE,
    pc: csr::SEPC,
    status: csr::SSTATUS,
    cycle: csr::CYCLE,
    back: Op::Sret,
    flips: FLIPS + 64,
};

/// The image, with `code` in the code pages. `starts` are the offsets in it where instructions begin.
/// In a `calm` one, pages have the rights that the program needs.
pub fn image(rng: &mut Rng, world: World, calm: bool, code: &[u8], starts: &[u64]) -> Vec<u8> {
    let mut image = vec![0; IMAGE_BYTES as usize];
    put(&mut image, RESET, &words(&reset()));
    put(&mut image, MACHINE_HANDLER, &words(&handler(rng, &MACHINE, MACHINE_HANDLER)));
    put(&mut image, SUPERVISOR, &words(&handler(rng, &SUPERVISED, SUPERVISOR)));
    put(&mut image, CODE, code);
    for at in (DATA..DATA + DATA_PAGES * PAGE).step_by(8) {
        put64(&mut image, at, number(rng));
    }
    data_tables(rng, world, &mut image);
    (0..2).for_each(|space| tables(rng, world, calm, &mut image, space));
    let satps = [0, 1].map(|space| satp(space, rng.percent(30)));
    let pmp = protection(rng);
    (0..4).for_each(|hart| first(rng, world, &mut image, hart, starts, satps, pmp));
    for way in 0..WAYS {
        put64(&mut image, ENTRIES + 8 * way, entry(rng, world, starts));
    }
    // FS, SUM, MXR, MPRV, MPP, SPP, SPIE, MPIE.
    let flips = [0x2000, 0x4000, 0x6000, 0x4_0000, 0x8_0000, 0xc_0000, 0x2_0000, 0x1800, 0x800, 0x100, 0xa0];
    for index in 0..16 {
        put64(&mut image, FLIPS + 8 * index, rng.pick(&flips));
    }
    put64(&mut image, FLIPS + 128, satps[0] ^ satps[1]);
    let other = protection(rng);
    put64(&mut image, FLIPS + 136, pmp.0 ^ other.0);
    put64(&mut image, FLIPS + 144, pmp.1 ^ other.1);
    image
}

/// `pmpcfg0` and `pmpaddr0`: a first entry about some piece of memory, or none, and a second one about all of it.
fn protection(rng: &mut Rng) -> (u64, u64) {
    let rights = rng.pick(&[0, 1, 3, 3, 4, 5, 7]);
    let piece = rng.pick(&[
        CODE,
        DATA,
        DATA,
        DATA,
        leaf_table(0),
        leaf_table(1),
        TABLES,
        TABLES + PAGE,
        TOPS,
        HIGH_TABLE,
    ]);
    let page = if piece == DATA { DATA + rng.below(DATA_PAGES) * PAGE } else { piece };
    // Whole pages, and parts of them.
    let (matching, addr) = match rng.below(6) {
        0 | 1 => (0, 0),
        2 => (0x10, page + 8 * rng.below(512)),
        3 => (0x18, (page + 8 * rng.below(512)) | 0x1c),
        4 => (0x18, page | (0x7ffc >> rng.below(2))),
        _ => (0x18, page | 0x7fc),
    };
    (0x1f00 | if matching == 0 { 0 } else { matching | rights }, addr >> 2)
}

fn put(image: &mut [u8], at: u64, bytes: &[u8]) {
    let at = (at - RESET) as usize;
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

fn put64(image: &mut [u8], at: u64, value: u64) {
    put(image, at, &value.to_le_bytes());
}

fn words(code: &Code) -> Vec<u8> {
    code.words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Loads a hart's registers, control registers first, and returns from a trap that was none.
fn reset() -> Code {
    let mut code = Code::new(RESET);
    code.csrr(T4, csr::MHARTID);
    code.emit(Op::Slli, T5, T4, 0, 3);
    code.emit(Op::Lui, T6, 0, 0, 0x2004);
    code.emit(Op::Add, T6, T6, T5, 0);
    // mtimecmp = 1.
    code.addi(T5, 0, 1);
    code.emit(Op::Sd, 0, T6, T5, 0);
    code.emit(Op::Slli, T4, T4, 0, FIRST_BYTES.trailing_zeros() as i32);
    code.address(T6, FIRST);
    code.emit(Op::Add, T6, T6, T4, 0);
    for (index, number) in (0..).zip(CONTROL) {
        code.emit(Op::Ld, T5, T6, 0, CONTROL_AT as i32 + 8 * index);
        code.csrw(number, T5);
    }
    code.emit(Op::Ld, T5, T6, 0, PC_AT as i32);
    code.csrw(csr::MEPC, T5);
    (0..32).for_each(|f| code.emit(Op::Fld, f, T6, 0, 0x100 + 8 * i32::from(f)));
    (1..32).for_each(|x| code.emit(Op::Ld, x, T6, 0, 8 * i32::from(x)));
    code.emit(Op::Mret, 0, 0, 0, 0);
    assert!(code.words.len() < 0x100);
    code
}

fn handler(rng: &mut Rng, t: &TrapCsrs, base: u64) -> Code {
    let mut code = Code::new(base);
    let is_machine = t.back == Op::Mret;
    code.csrr(T6, t.cause);
    let interrupt = code.branch(Op::Blt, T6, 0);
    let wild: Vec<Jump> = [1, 12]
        .iter()
        .map(|&cause| {
            code.addi(T5, 0, cause);
            code.branch(Op::Beq, T6, T5)
        })
        .collect();
    code.addi(T5, T6, -8);
    code.emit(Op::Sltiu, T5, T5, 0, 4);
    let no_call = code.branch(Op::Beq, T5, 0);
    flip(&mut code, t);
    code.bind(no_call);
    code.csrr(T5, t.pc);
    code.addi(T5, T5, rng.pick(&[2, 4, 4]));
    code.csrw(t.pc, T5);
    code.emit(t.back, 0, 0, 0, 0);
    code.bind(interrupt);
    if is_machine {
        rearm_machine(&mut code, rng);
    }
    code.csrr(T5, csr::TIME);
    code.addi(T5, T5, rng.between(1, 40) as i32);
    code.csrw(csr::STIMECMP, T5);
    code.emit(Op::Csrrci, 0, 2, 0, i32::from(if is_machine { csr::MIP } else { csr::SIP }));
    // Now and then the program is stuck in a loop.
    code.csrr(T5, t.cycle);
    code.emit(Op::Andi, T5, T5, 0, 0x30);
    let stuck = code.branch(Op::Beq, T5, 0);
    code.emit(t.back, 0, 0, 0, 0);
    wild.into_iter().for_each(|jump| code.bind(jump));
    code.bind(stuck);
    code.csrr(T5, t.cycle);
    code.emit(Op::Slli, T5, T5, 0, 3);
    code.emit(Op::Andi, T5, T5, 0, 8 * (WAYS as i32 - 1));
    code.address(T4, ENTRIES);
    code.emit(Op::Add, T4, T4, T5, 0);
    code.emit(Op::Ld, T5, T4, 0, 0);
    code.csrw(t.pc, T5);
    code.emit(t.back, 0, 0, 0, 0);
    assert!(code.words.len() < 0x100);
    code
}

/// Flips what the cycle counter says.
fn flip(code: &mut Code, t: &TrapCsrs) {
    code.csrr(T6, t.cycle);
    code.emit(Op::Andi, T5, T6, 0, 0x38);
    code.address(T4, t.flips);
    code.emit(Op::Add, T4, T4, T5, 0);
    code.emit(Op::Ld, T5, T4, 0, 0);
    code.csrr(T4, t.status);
    code.emit(Op::Xor, T5, T5, T4, 0);
    code.csrw(t.status, T5);
    code.emit(Op::Andi, T6, T6, 0, 3);
    let same_space = code.branch(Op::Bne, T6, 0);
    code.address(T4, FLIPS + 128);
    code.emit(Op::Ld, T5, T4, 0, 0);
    code.csrr(T4, csr::SATP);
    code.emit(Op::Xor, T5, T5, T4, 0);
    code.csrw(csr::SATP, T5);
    code.bind(same_space);
    if t.back == Op::Mret {
        let registers = [csr::PMPCFG0, csr::PMPADDR0];
        code.csrr(T6, t.cycle);
        code.emit(Op::Andi, T6, T6, 0, 12);
        let same_protection = code.branch(Op::Bne, T6, 0);
        code.address(T4, FLIPS + 136);
        for (offset, number) in (0..).step_by(8).zip(registers) {
            code.emit(Op::Ld, T5, T4, 0, offset);
            code.csrr(T6, number);
            code.emit(Op::Xor, T5, T5, T6, 0);
            code.csrw(number, T5);
        }
        code.bind(same_protection);
    }
}

/// Clears the hart's software interrupt and sets its `mtimecmp` anew.
fn rearm_machine(code: &mut Code, rng: &mut Rng) {
    code.csrr(T5, csr::MHARTID);
    code.emit(Op::Slli, T4, T5, 0, 2);
    code.emit(Op::Lui, T6, 0, 0, 0x2000);
    code.emit(Op::Add, T4, T4, T6, 0);
    code.emit(Op::Sw, 0, T4, 0, 0);
    code.emit(Op::Slli, T4, T5, 0, 3);
    code.emit(Op::Lui, T6, 0, 0, 0x2004);
    code.emit(Op::Add, T4, T4, T6, 0);
    code.csrr(T5, csr::TIME);
    // Ten steps to the tick, as the clock begins.
    let ticks = rng.pick(&[7, 13, 37, 90, 211, 400]);
    code.addi(T5, T5, ticks + rng.between(0, 5) as i32);
    code.emit(Op::Sd, 0, T4, T5, 0);
}

/// One address space: the program's window in small pages, twice; RAM as one large and one huge page.
fn tables(rng: &mut Rng, world: World, calm: bool, image: &mut [u8], space: u64) {
    let root = TABLES + space * SPACE_BYTES;
    let pointer = |to: u64| to >> 12 << 10 | 1;
    put64(image, root + 8 * (VIRTUAL >> 30), pointer(root + PAGE));
    // All rights but the user's, so that the handlers are always there.
    put64(image, root + 8 * (RESET >> 30), RESET >> 12 << 10 | 0xef);
    // The upper half: mostly through one table in both, as kernels do it.
    let is_shared = rng.percent(85);
    put64(image, HIGH_TABLE, RESET >> 12 << 10 | 0xef);
    let giant = RESET >> 12 << 10 | rng.pick(&[0x2f, 0xef]);
    put64(image, root + 8 * (HIGH >> 30 & 511), if is_shared { pointer(HIGH_TABLE) } else { giant });
    put64(image, root + PAGE, pointer(root + 2 * PAGE));
    // One level more.
    let top = TOPS + space * PAGE;
    put64(image, top, pointer(root));
    put64(image, top + 8 * 511, pointer(if is_shared { HIGH_MIDDLE } else { root }));
    put64(image, HIGH_MIDDLE + 8 * (HIGH >> 30 & 511), pointer(HIGH_TABLE));
    let user = if world == World::User { 0x10 } else { 0 };
    put64(image, root + PAGE + 8, RESET >> 12 << 10 | 0xcf | user);
    let tangled = (0..CODE_PAGES).map(|page| CODE + page * PAGE).chain(DATA_TABLES);
    for (index, page) in ((TANGLED - VIRTUAL) / LARGE_BYTES..).zip(tangled) {
        put64(image, root + PAGE + 8 * index, pointer(page));
    }
    put64(image, root + 8 * (FAR >> 30), pointer(DATA_MIDDLE));
    let leaf = leaf_table(space);
    let rights = Rights::new(rng, world, calm);
    let mut pages: Vec<u64> = (0..SHARED_PAGES).collect();
    if space == 1 || rng.percent(50) {
        shuffle(rng, &mut pages[..CODE_PAGES as usize]);
    }
    shuffle(rng, &mut pages[CODE_PAGES as usize..]);
    for page in 0..SHARED_PAGES {
        let moved = pages[page as usize];
        put64(image, leaf + 8 * page, rights.entry(rng, CODE + moved * PAGE));
        let any = if page < CODE_PAGES { page ^ 1 } else { rng.below(SHARED_PAGES) };
        put64(image, leaf + 8 * (SECOND + page), rights.entry(rng, CODE + any * PAGE));
    }
    for other in 0..2 {
        put64(image, leaf + 8 * (TABLE_PAGES + other), leaf_table(other) >> 12 << 10 | 0xc7 | user);
    }
    for (index, device) in (0..).zip(DEVICES) {
        put64(image, leaf + 8 * (DEVICE_PAGES + index), device >> 12 << 10 | 0xc7 | user);
    }
}

/// Fills the data pages that also are tables: every other doubleword is an entry, mostly.
fn data_tables(rng: &mut Rng, world: World, image: &mut [u8]) {
    let table = |page: u64| page >> 12 << 10 | 1;
    for index in 0..512 {
        for page in DATA_TABLES {
            if rng.percent(50) {
                put64(image, page + 8 * index, entry_in_data(rng, world));
            }
        }
        let next = rng.pick(&[DATA_TABLES[0], DATA_TABLES[1], leaf_table(0), CODE, CODE + PAGE]);
        let large = RESET >> 12 << 10 | rng.pick(&[0x0f, 0xcf, 0xdf, 0x1f]);
        let entry = if rng.percent(70) { table(next) } else { large };
        if index < 8 || rng.percent(20) {
            put64(image, DATA_MIDDLE + 8 * index, entry);
        }
    }
}

/// A leaf entry with any rights, for some page of code, data or tables.
pub fn entry_in_data(rng: &mut Rng, world: World) -> u64 {
    let page = match rng.below(10) {
        0..3 => CODE + rng.below(CODE_PAGES) * PAGE,
        3..9 => DATA + rng.below(DATA_PAGES) * PAGE,
        _ => leaf_table(rng.below(2)),
    };
    let user = if world == World::User { 0x10 } else { 0 };
    let rights = rng.pick(&[0xc7, 0xcf, 0x07, 0x0f, 0x47, 0x43, 0x03, 0x4b, 0x49, 0x09, 0x17, 0xd7, 0x01, 0]);
    page >> 12 << 10 | rights | user
}

fn shuffle(rng: &mut Rng, pages: &mut [u64]) {
    for last in (1..pages.len()).rev() {
        pages.swap(last, rng.below(last as u64 + 1) as usize);
    }
}

/// How likely a leaf entry has each of its bits, V to D.
struct Rights([u64; 8]);

impl Rights {
    fn new(rng: &mut Rng, world: World, calm: bool) -> Self {
        if calm {
            return Self([100, 100, 97, 40, if world == World::User { 100 } else { 0 }, 20, 95, 95]);
        }
        let user = if world == World::User { 93 } else { rng.pick(&[5, 50, 50]) };
        Self([97, rng.pick(&[97, 97, 60]), rng.pick(&[90, 90, 60]), 40, user, 20, 90, 75])
    }

    /// A leaf entry. Code is mostly executable.
    fn entry(&self, rng: &mut Rng, physical: u64) -> u64 {
        let mut chances = self.0;
        if physical < DATA {
            chances[3] = 97;
            chances[4] = if self.0[4] == 50 { 5 } else { self.0[4] };
        }
        (0..)
            .zip(chances)
            .fold(physical >> 12 << 10, |entry, (bit, chance)| entry | u64::from(rng.percent(chance)) << bit)
    }
}

/// Somewhere in the code.
fn entry(rng: &mut Rng, world: World, starts: &[u64]) -> u64 {
    let translated = [VIRTUAL, VIRTUAL, VIRTUAL + SECOND * PAGE, LARGE + (CODE - RESET)];
    let home = match world {
        World::Machine => 90,
        World::Supervisor => 25,
        World::User => 5,
    };
    let window = if rng.percent(home) { CODE } else { rng.pick(&translated) };
    let is_high = world == World::Supervisor && window == CODE && rng.percent(50);
    (if is_high { high(window) } else { window }) + rng.pick(starts)
}

fn first(
    rng: &mut Rng,
    world: World,
    image: &mut [u8],
    hart: u64,
    starts: &[u64],
    satps: [u64; 2],
    pmp: (u64, u64),
) {
    let at = FIRST + hart * FIRST_BYTES;
    for x in 1..32 {
        let value = if rng.percent(30) { base_address(rng, world) } else { number(rng) };
        put64(image, at + 8 * x, value);
    }
    for &x in &super::program::BASES {
        put64(image, at + 8 * u64::from(x), base_address(rng, world));
    }
    for (satp, &x) in satps.into_iter().zip(&SATP_REGISTERS) {
        put64(image, at + 8 * u64::from(x), satp);
    }
    (0..32).for_each(|f| put64(image, at + 0x100 + 8 * f, number(rng)));
    let (mode, interrupts) = match world {
        World::Machine => (3, 0x80 * rng.below(2)),
        World::Supervisor => (1, 0x80 | 0x22),
        World::User => (0, 0x80 | 0x22),
    };
    let fs = if rng.percent(80) { 3 } else { rng.below(4) };
    // FS must be on while the registers are loaded.
    let status = mode << 11 | interrupts | fs.max(1) << 13 | rng.below(4) << 18;
    let some = rng.next() & 0xb3ff;
    let delegated = rng.pick(&[0, 0xb3ff, 0xb3ff, some]);
    let lines = rng.pick(&[0x88, 0xaa]);
    let control = [
        MACHINE_HANDLER,
        if rng.percent(60) { high(SUPERVISOR) } else { SUPERVISOR },
        pmp.1,
        u64::MAX,
        pmp.0,
        7,
        rng.pick(&[7, 7, 2]),
        1 << 63 | 0xf0,
        if world == World::Machine { 0 } else { delegated },
        rng.pick(&[0, 0x222]),
        lines,
        if world == World::Machine && rng.percent(70) { 0 } else { rng.pick(&satps) },
        status,
    ];
    for (index, value) in (0..).zip(control) {
        put64(image, at + CONTROL_AT + 8 * index, value);
    }
    let window = if world == World::Machine { CODE } else { VIRTUAL };
    put64(image, at + PC_AT, window + rng.pick(starts));
}

/// Doubles that are not like others: zeros, the least, ones, the largest, infinities, NaNs.
const DOUBLES: [u64; 12] = [
    0,
    0,
    1 << 63,
    1 << 63,
    1,
    0x3ff0_0000_0000_0000,
    0xbff0_0000_0000_0000,
    0x7fef_ffff_ffff_ffff,
    0x7ff0_0000_0000_0000,
    0xfff0_0000_0000_0000,
    0x7ff8_0000_0000_0000,
    0x7ff4_0000_0000_0001,
];

/// A number worth computing with, as an integer or as one or two floating-point numbers.
fn number(rng: &mut Rng) -> u64 {
    let single = |rng: &mut Rng| {
        let special = [
            0,
            0,
            0x8000_0000,
            0x8000_0000,
            1,
            0x7f_ffff,
            0x80_0000,
            0x3f80_0000,
            0xbf80_0000,
            0x4f00_0000,
            0x5f00_0000,
            0x7f7f_ffff,
            0x7f80_0000,
            0xff80_0000,
            0x7fc0_0000,
            0x7fa0_0000,
            0xffc0_1234,
            0x3fc0_0000,
        ];
        let any = rng.next() as u32 & 0x83ff_ffff | 0x3c00_0000;
        u64::from(if rng.percent(50) { rng.pick(&special) } else { any })
    };
    match rng.below(10) {
        0 => rng.next(),
        1 => rng.below(64),
        2 => rng.between(-40, 40) as u64,
        3 => 1 << rng.below(64),
        4 => (rng.next() as i64 >> rng.below(64)) as u64,
        5..7 => u64::from(u32::MAX) << 32 | single(rng),
        7 if rng.percent(30) => single(rng),
        7 => rng.pick(&DOUBLES),
        8 => f64::from(f32::from_bits(single(rng) as u32)).to_bits(),
        _ => rng.next() & 0x800f_ffff_ffff_ffff | (0x3f0 + rng.below(32)) << 52,
    }
}
