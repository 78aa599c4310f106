//! Random code: what a translator gets wrong, in a mixture that every seed weighs differently.
//!
//! Registers have roles, so that programs live long: addresses, counters of loops, values for `satp`. Code keeps to
//! them, mostly; what it does to itself need not.
//!
//! Not here: control registers, page tables, code that changes (`privileged`, `tangled`).

use super::asm::{Fields, word};
use super::boot::World;
use super::layout::*;
use super::rng::Rng;
use pollux_isa::{Format, Inst, OPCODES, Opcode as Op, OpcodeInfo, decode, decode_compressed};

/// Registers that point near pages' ends; the translator keeps some in host registers, and others not.
pub const BASES: [u8; 8] = [2, 8, 9, 10, 15, 18, 20, 21];
/// Registers that count loops, one for each depth.
const COUNTERS: [u8; 2] = [7, 13];
/// Registers that hold what `satp` is for each address space.
pub const SATP_REGISTERS: [u8; 2] = [26, 27];

const CODE_BYTES: usize = (CODE_PAGES * PAGE) as usize;

/// An address near the end of a page of the program's window, however it is mapped.
pub fn base_address(rng: &mut Rng, world: World) -> u64 {
    let bare = rng.percent(if world == World::Machine { 95 } else { 4 });
    let window = match rng.below(20) {
        _ if bare => CODE,
        0 => LARGE + (CODE - RESET),
        1 if world == World::Supervisor => high(CODE),
        1..4 => VIRTUAL + SECOND * PAGE,
        _ => VIRTUAL,
    };
    let page = if rng.percent(94) {
        CODE_PAGES + 1 + rng.below(DATA_PAGES)
    } else if bare {
        rng.below(CODE_PAGES)
    } else {
        rng.pick(&[
            0,
            1,
            2,
            3,
            TABLE_PAGES,
            TABLE_PAGES + 1,
            DEVICE_PAGES,
            DEVICE_PAGES + 1,
            DEVICE_PAGES + 3,
        ])
    };
    let near = match rng.below(8) {
        0 => rng.between(-8, 8),
        1 => rng.between(-2048, 2047),
        2 => 0,
        3 => 8 * rng.between(-256, 255),
        _ => 8 * rng.between(-40, 20),
    };
    (window + page * PAGE).wrapping_add(near as u64)
}

/// The kinds of things that programs consist of; in the order of [`WEIGHTS`].
#[derive(Clone, Copy, Debug)]
enum Kind {
    Compute,
    Float,
    Access,
    Atomic,
    MoveBase,
    Branch,
    Jump,
    FarJump,
    Loop,
    Compressed,
    Control,
    Status,
    System,
    Rewrite,
    Remap,
    Raw,
    Busy,
    Pair,
    Poke,
    Edge,
    Entry,
    Island,
    Toggle,
    Calculate,
    Cross,
    Wait,
}

const WEIGHTS: [(Kind, u64); 26] = [
    (Kind::Compute, 30),
    (Kind::Float, 14),
    (Kind::Access, 16),
    (Kind::Atomic, 4),
    (Kind::MoveBase, 7),
    (Kind::Branch, 8),
    (Kind::Jump, 1),
    (Kind::FarJump, 2),
    (Kind::Loop, 8),
    (Kind::Compressed, 8),
    (Kind::Control, 3),
    (Kind::Status, 1),
    (Kind::System, 1),
    (Kind::Rewrite, 2),
    (Kind::Remap, 1),
    (Kind::Raw, 1),
    (Kind::Busy, 3),
    (Kind::Pair, 4),
    (Kind::Poke, 1),
    (Kind::Edge, 1),
    (Kind::Entry, 1),
    (Kind::Island, 1),
    (Kind::Toggle, 1),
    (Kind::Calculate, 3),
    (Kind::Cross, 2),
    (Kind::Wait, 1),
];

pub struct Program<'r> {
    pub(super) rng: &'r mut Rng,
    pub(super) world: World,
    calm: bool,
    weights: [u64; WEIGHTS.len()],
    pub(super) code: Vec<u8>,
    starts: Vec<u64>,
    /// Where in the code doublewords are that are meant as page-table entries.
    pub(super) islands: Vec<u64>,
    /// Jumps whose targets are chosen when all is written.
    jumps: Vec<(usize, Op, Fields)>,
    pub(super) integer: Vec<&'static OpcodeInfo>,
    float: Vec<&'static OpcodeInfo>,
    atomic: Vec<&'static OpcodeInfo>,
    loops: usize,
    /// The base register that is used most, for a while.
    favourite: u8,
}

/// Random code for the code pages, and where its instructions begin.
/// A `calm` program does little that traps, so that much of it runs translated, and often.
pub fn program(rng: &mut Rng, world: World, calm: bool) -> (Vec<u8>, Vec<u64>) {
    let of = |extensions: &[&str]| -> Vec<&'static OpcodeInfo> {
        OPCODES.iter().filter(|info| extensions.contains(&info.extension)).collect()
    };
    let mut integer = of(&["I", "M", "Zimop", "Zicond", "Zba", "Zbb", "Zbc", "Zbs", "Zbkb"]);
    integer.retain(|info| {
        use Format::{B, Bare, Fence, J, Load, Store};
        !matches!(info.format, J | B | Bare | Fence | Load | Store)
    });
    let (float, atomic) = (of(&["F", "D", "Zfhmin", "Zfa"]), of(&["A", "Zacas"]));
    let weights = WEIGHTS.map(|(kind, weight)| {
        use Kind::{Control, Edge, Entry, Island, Raw, Remap, Status, System};
        let traps = matches!(kind, Control | Status | System | Remap | Raw | Edge | Entry | Island);
        if world == World::Machine && matches!(kind, Entry | Island) && rng.percent(80) {
            return 0;
        }
        if calm && traps { rng.below(2) } else { weight * rng.pick(&[0, 2, 2, 2, 2, 8, 20]) }
    });
    let (code, starts, islands, jumps) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (loops, favourite) = (0, BASES[0]);
    let mut program = Program {
        rng,
        world,
        calm,
        weights,
        code,
        starts,
        islands,
        jumps,
        integer,
        float,
        atomic,
        loops,
        favourite,
    };
    // No seed is without integers and accesses.
    program.weights[0] += 10;
    program.weights[2] += 16;
    while program.code.len() < CODE_BYTES - 8 {
        program.thing();
        program.straddle();
    }
    // What is written beyond is cut off. Programs hardly ever run into the data.
    program.code.truncate(CODE_BYTES - 4);
    program.starts.retain(|&start| start < CODE_BYTES as u64 - 4);
    program.jumps.retain(|(at, ..)| *at <= CODE_BYTES - 8);
    program.jump(Op::Jal, Fields::default());
    program.choose_targets();
    let Program { mut code, starts, .. } = program;
    code.truncate(CODE_BYTES);
    (code, starts)
}

/// The integer register that an instruction writes.
fn written(inst: Inst) -> u8 {
    use Format as F;
    match inst.opcode.info().map(|info| info.format) {
        Some(F::U | F::J | F::I | F::Load | F::Shift | F::ShiftW | F::R | F::Unary | F::Csr | F::CsrI) => {
            inst.rd
        }
        Some(F::Lr | F::Amo | F::FCompare | F::FToIntRound | F::FToInt) => inst.rd,
        _ => 0,
    }
}

fn has_role(register: u8) -> bool {
    BASES.contains(&register) || COUNTERS.contains(&register) || SATP_REGISTERS.contains(&register)
}

impl Program<'_> {
    pub(super) fn half(&mut self, half: u16) {
        self.starts.push(self.code.len() as u64);
        self.code.extend(half.to_le_bytes());
    }

    pub(super) fn word(&mut self, word: u32) {
        self.starts.push(self.code.len() as u64);
        self.code.extend(word.to_le_bytes());
    }

    /// Takes back what was written from an offset on.
    pub(super) fn forget_from(&mut self, offset: usize) {
        self.code.truncate(offset);
        while self.starts.last().is_some_and(|&start| start >= offset as u64) {
            self.starts.pop();
        }
    }

    pub(super) fn emit(&mut self, op: Op, rd: u8, rs1: u8, rs2: u8, imm: i32) {
        self.word(word(op, Fields { rd, rs1, rs2, imm }));
    }

    /// A register without a role.
    pub(super) fn any(&mut self) -> u8 {
        loop {
            let register = self.rng.below(32) as u8;
            if !has_role(register) {
                return register;
            }
        }
    }

    pub(super) fn base(&mut self) -> u8 {
        if self.rng.percent(8) {
            self.favourite = self.rng.pick(&BASES);
        }
        if self.rng.percent(70) { self.favourite } else { self.rng.pick(&BASES) }
    }

    /// A random instruction of a row, which writes no register with a role.
    pub(super) fn of(&mut self, info: &OpcodeInfo) {
        let word = info.value | self.rng.next() as u32 & !info.mask;
        let Some(inst) = decode(word) else { return };
        let rd =
            if has_role(written(inst)) && (self.calm || self.rng.percent(98)) { self.any() } else { inst.rd };
        self.word(word & !(31 << 7) | u32::from(if written(inst) == 0 { inst.rd } else { rd }) << 7);
    }

    pub(super) fn thing(&mut self) {
        match WEIGHTS[self.rng.weighted(&self.weights)].0 {
            Kind::Compute => {
                let info = self.rng.pick(&self.integer);
                self.of(info);
            }
            Kind::Float => self.float(),
            Kind::Access => self.accesses(),
            Kind::Atomic => self.atomic(),
            Kind::MoveBase => self.move_base(),
            Kind::Branch => {
                let op = self.rng.pick(&[Op::Beq, Op::Bne, Op::Blt, Op::Bge, Op::Bltu, Op::Bgeu]);
                let (rs1, rs2) = (self.rng.below(32) as u8, self.rng.below(32) as u8);
                self.jump(op, Fields { rs1, rs2, ..Fields::default() });
            }
            Kind::Jump => {
                let rd = if self.rng.percent(50) { 0 } else { self.any() };
                self.jump(Op::Jal, Fields { rd, ..Fields::default() });
            }
            Kind::FarJump => self.far_jump(),
            Kind::Loop => self.a_loop(),
            Kind::Compressed => self.compressed(),
            Kind::Control => self.control(),
            Kind::Status => self.status(),
            Kind::System => self.system(),
            Kind::Rewrite => self.rewrite(),
            Kind::Remap => self.remap(),
            Kind::Busy => self.busy(),
            Kind::Pair => self.pair(),
            Kind::Poke => self.poke(),
            Kind::Edge => self.edge(),
            Kind::Entry => self.entry(),
            Kind::Island => self.island(),
            Kind::Toggle => self.toggle(),
            Kind::Calculate => self.calculations(),
            Kind::Cross => self.crossings(),
            Kind::Wait => self.wait(),
            Kind::Raw => {
                let any = self.rng.next() as u32;
                if self.rng.percent(50) { self.half(any as u16) } else { self.word(any | 3) }
            }
        }
    }

    fn jump(&mut self, op: Op, fields: Fields) {
        self.jumps.push((self.code.len(), op, fields));
        self.word(0);
    }

    /// Jumps lead to instructions, mostly to near ones.
    fn choose_targets(&mut self) {
        for (at, op, fields) in std::mem::take(&mut self.jumps) {
            let reach = self.rng.pick(&[24, 80, 80, 400, 400, 3900]);
            let last = (CODE_PAGES * PAGE) as i64 - 2;
            let wanted = (at as i64 + self.rng.between(-reach / 4, reach)).clamp(0, last) as u64;
            let near = self.starts.partition_point(|&start| start < wanted).min(self.starts.len() - 1);
            let target = if self.rng.percent(97) { self.starts[near] } else { wanted & !1 };
            let imm = (target as i64 - at as i64) as i32;
            let word = word(op, Fields { imm, ..fields });
            self.code[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
    }

    /// Puts a number into a floating-point register: without that, nearly all would soon be NaN.
    fn refresh(&mut self) {
        let double = self.rng.percent(50);
        let rd = self.rng.below(16) as u8 + if double { 16 } else { 0 };
        let op = match self.rng.below(4) {
            0 if double => Op::FmvDX,
            0 => Op::FmvWX,
            1 if double => Op::FcvtDW,
            _ if double => Op::FcvtDL,
            1 => Op::FcvtSW,
            _ => Op::FcvtSL,
        };
        let from = if self.rng.percent(40) { 0 } else { self.rng.below(32) as u8 };
        let nearest = u32::from(op != Op::FmvDX && op != Op::FmvWX) * (7 << 12);
        self.word(word(op, Fields { rd, rs1: from, ..Fields::default() }) | nearest);
        if self.rng.percent(40) {
            let negate = if double { Op::FsgnjnD } else { Op::FsgnjnS };
            self.emit(negate, rd, rd, rd, 0);
        }
    }

    pub(super) fn float(&mut self) {
        if self.rng.percent(15) {
            return self.refresh();
        }
        let info = self.rng.pick(&self.float);
        if matches!(info.format, Format::FLoad | Format::FStore) {
            let base = self.base();
            let imm = self.offset();
            return self.access(info.opcode, base, imm);
        }
        // Singles live in the lower half of the registers, doubles in the upper, mostly.
        let double = info.name.contains(".d") && !info.name.starts_with("fcvt.s.d");
        let mut word = info.value | self.rng.next() as u32 & !info.mask;
        if self.rng.percent(90) {
            let upper = if double { 16 } else { 0 };
            let mut fix = |field: u32| {
                if info.mask >> field & 31 == 0 {
                    word = word & !(16 << field) | upper << field;
                }
            };
            let to_float = !matches!(info.format, Format::FCompare | Format::FToIntRound | Format::FToInt);
            let from_float = !matches!(info.format, Format::FFromIntRound | Format::FFromInt);
            if to_float {
                fix(7);
            }
            if from_float {
                fix(15);
                fix(20);
            }
            if info.format == Format::F4 {
                fix(27);
            }
        }
        if info.mask >> 12 & 7 == 0 && self.rng.percent(if self.calm { 100 } else { 92 }) {
            let mode = self.rng.pick(&[7, 7, 7, 7, 0, 1, 2, 3, 4]);
            word = word & !(7 << 12) | mode << 12;
        }
        if decode(word).is_some_and(|inst| has_role(written(inst))) {
            word = word & !(31 << 7) | u32::from(self.any()) << 7;
        }
        self.word(word);
    }

    /// An offset from a base register.
    fn offset(&mut self) -> i32 {
        let offset = match self.rng.below(10) {
            0..5 => 8 * self.rng.between(-8, 16),
            5 => 4 * self.rng.between(-16, 16),
            6 => self.rng.between(-20, 20),
            7 => 8 * self.rng.between(-256, 255),
            8 => self.rng.pick(&[1024, -1024, 1016, 1032, -2048, 2040, 520]),
            _ => self.rng.between(-2048, 2047),
        };
        offset as i32
    }

    /// A load or store.
    fn access(&mut self, op: Op, base: u8, imm: i32) {
        let value = self.rng.below(32) as u8;
        let chases = !self.calm && self.rng.percent(1);
        let float = op >= Op::Flw;
        let rd = if float || !has_role(value) || chases { value } else { self.any() };
        self.emit(op, rd, base, value, imm);
    }

    /// Accesses through one register to two pages, the first one again behind the second.
    fn stretch(&mut self) {
        let base = self.base();
        let end = (base_address(self.rng, self.world) + PAGE / 2) & !(PAGE - 1);
        let before = 8 * self.rng.between(1, 12) as u64;
        self.load_address(base, end - before);
        let ops = self.rng.pick(&[[Op::Ld, Op::Lw, Op::Fld], [Op::Sd, Op::Sw, Op::Fsd]]);
        for far in [false, true, false, false] {
            let op = self.rng.pick(&ops);
            let imm = 8 * if far { self.rng.between(129, 255) } else { self.rng.between(-8, 8) };
            self.access(op, base, imm as i32);
        }
    }

    /// Accesses that may share a check, with other things in between.
    fn accesses(&mut self) {
        if self.rng.percent(10) {
            return self.stretch();
        }
        const OPS: [Op; 15] = [
            Op::Lb,
            Op::Lbu,
            Op::Lh,
            Op::Lhu,
            Op::Lw,
            Op::Lwu,
            Op::Ld,
            Op::Sb,
            Op::Sh,
            Op::Sw,
            Op::Sd,
            Op::Flw,
            Op::Fld,
            Op::Fsw,
            Op::Fsd,
        ];
        let bases = [self.base(), self.base()];
        if self.rng.percent(if self.calm { 40 } else { 15 }) {
            self.emit(Op::Andi, bases[0], bases[0], 0, -8);
        }
        for _ in 0..self.rng.between(1, 7) {
            let base = bases[usize::from(self.rng.percent(20))];
            let op = self.rng.pick(&OPS);
            let op = if self.rng.percent(40) { self.rng.pick(&[Op::Ld, Op::Sd]) } else { op };
            let imm = self.offset();
            self.access(op, base, imm);
            match self.rng.below(12) {
                0 | 1 => {
                    let info = self.rng.pick(&self.integer);
                    self.of(info);
                }
                2 => self.float(),
                3 => {
                    let step = self.rng.pick(&[8, -8, 16, -16, 8, -8, 1, -2, 512, -512, 1032]);
                    self.emit(Op::Addi, base, base, 0, step);
                }
                4 => self.compressed(),
                6 if self.rng.percent(40) => {
                    let address = base_address(self.rng, self.world) & !7;
                    self.load_address(base, address);
                }
                5 if self.rng.percent(20) => self.control(),
                5 if self.rng.percent(20) => self.status(),
                _ => {}
            }
        }
    }

    fn atomic(&mut self) {
        let base = self.base();
        if self.rng.percent(70) {
            self.emit(Op::Andi, base, base, 0, -8);
        }
        if self.rng.percent(30) {
            let (load, store) = self.rng.pick(&[(Op::LrW, Op::ScW), (Op::LrD, Op::ScD), (Op::LrD, Op::ScW)]);
            let (value, success) = (self.any(), self.any());
            self.emit(load, value, base, 0, 0);
            match self.rng.below(8) {
                0..4 => self.thing(),
                4 => self.between_lr_and_sc(),
                _ => {}
            }
            return self.emit(store, success, base, value, 0);
        }
        let info = self.rng.pick(&self.atomic);
        let at = self.code.len();
        self.of(info);
        if let Some(&[a, b, c, d]) = self.code.get(at..at + 4) {
            let word = u32::from_le_bytes([a, b, c, d]) & !(31 << 15) | u32::from(base) << 15;
            self.code[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
    }

    fn move_base(&mut self) {
        let base = self.base();
        if self.rng.percent(60) {
            let step = self.rng.pick(&[8, -8, 16, -16, 64, -64, 8, -8, 1, -2, 4, 512, -512]);
            return self.emit(Op::Addi, base, base, 0, step);
        }
        let address = base_address(self.rng, self.world);
        self.load_address(base, address);
    }

    /// Loads an address below 4 GiB, or as far from the upper end.
    pub(super) fn load_address(&mut self, rd: u8, address: u64) {
        let high = (address as i32).wrapping_add(0x800) >> 12;
        self.emit(Op::Lui, rd, 0, 0, high);
        self.emit(Op::Addi, rd, rd, 0, address as i32 - (high << 12));
        if address >> 31 == 1 {
            self.emit(Op::AddUw, rd, rd, 0, 0);
        }
    }

    /// Goes to a register's address: in this code, often in another page of it, or by the other way it is mapped.
    fn far_jump(&mut self) {
        let (register, link) = (self.any(), self.any());
        let from = self.code.len() as i64;
        let target = self.rng.below(CODE_PAGES * PAGE - 2) as i64 & !1;
        let start = self.starts.partition_point(|&start| (start as i64) < target);
        let target = self.starts.get(start).map_or(target, |&start| start as i64);
        let distance = (target - from) as i32;
        let high = distance.wrapping_add(0x800) >> 12;
        let other = if self.world != World::Machine && self.rng.percent(10) {
            self.rng.pick(&[SECOND as i32, -(SECOND as i32)])
        } else {
            0
        };
        self.emit(Op::Auipc, register, 0, 0, high + other);
        let link = if self.rng.percent(50) { 0 } else { link };
        self.emit(Op::Jalr, link, register, 0, distance - (high << 12));
    }

    fn a_loop(&mut self) {
        let Some(&counter) = COUNTERS.get(self.loops) else { return };
        self.loops += 1;
        let rounds = self.rng.between(2, 30) as i32;
        self.emit(Op::Addi, counter, 0, 0, rounds);
        let start = self.code.len();
        for _ in 0..self.rng.between(1, 10) {
            self.thing();
        }
        self.emit(Op::Addi, counter, counter, 0, -1);
        let imm = start as i32 - self.code.len() as i32;
        if imm > -4000 {
            self.emit(Op::Bne, 0, counter, 0, imm);
        }
        self.loops -= 1;
    }

    fn compressed(&mut self) {
        for _ in 0..20 {
            let half = self.rng.next() as u16;
            let Some(inst) = decode_compressed(half) else { continue };
            let wild = match inst.opcode {
                Op::Jalr | Op::Ebreak => u64::from(!self.calm),
                Op::Jal => 10,
                _ if COUNTERS.contains(&written(inst)) => 2,
                Op::Addi if inst.rs1 == inst.rd || inst.rs1 == 2 => 100,
                _ if has_role(written(inst)) => 2 * u64::from(!self.calm),
                Op::Lw | Op::Ld | Op::Sw | Op::Sd | Op::Fld | Op::Fsd if !BASES.contains(&inst.rs1) => {
                    5 * u64::from(!self.calm)
                }
                _ => 100,
            };
            if self.rng.percent(wild) {
                return self.half(half);
            }
        }
    }
}
