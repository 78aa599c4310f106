//! Writes the code of a case: random instructions from the tables of `pollux-isa`, made harmless.
//!
//! Harmless means: control goes forward only and lands on instructions; memory is touched only in the case's
//! scratch area, or so far outside that the access faults. To know where an access goes the writer follows
//! which registers still hold the value they started with. Everything else is left to chance, reserved
//! encodings included.

use crate::random::Random;
use crate::record::{CODE_BYTES, Case, Placed, SCRATCH, SCRATCH_BYTES};
use pollux_isa::compressed::{COMPRESSED, CompressedInfo, expand};
use pollux_isa::{Format, Inst, OPCODES, Opcode, OpcodeInfo, decode, decode_compressed};

/// From here on nothing is mapped on the board.
const WILD: u64 = 1 << 48;
/// Bytes that an access at an address may touch.
const ACCESS_BYTES: u64 = 8;

/// How an instruction's immediate, or a register, is completed once its target's place is known.
#[derive(Clone, Copy)]
enum Patch {
    /// B-type branch.
    Branch,
    /// `jal`.
    Jump,
    /// `jalr` off a register with this value.
    JumpVia(u64),
    /// `c.beqz`, `c.bnez`.
    CompressedBranch,
    /// `c.j`.
    CompressedJump,
    /// The register is to hold the target's address.
    Register(usize),
}

/// What one row of the tables asks for.
#[derive(Clone, Copy)]
pub(crate) enum Row {
    Full(&'static OpcodeInfo),
    Half(&'static CompressedInfo),
}

impl Row {
    /// Its mnemonic.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Row::Full(info) => info.name,
            Row::Half(info) => info.name,
        }
    }
}

/// Writes one case.
pub(crate) struct Writer<'a> {
    pub(crate) case: Case,
    pub(crate) random: &'a mut Random,
    /// Values of integer registers as far as they are known.
    known: [Option<u64>; 32],
    /// Initial values, of registers that are patched later.
    initial: [u64; 32],
    /// Registers whose initial value something already relies upon.
    relied: u32,
    hot: [u32; 6],
    at: usize,
    patches: Vec<(usize, Patch, usize)>,
    /// Instructions before this one may be jumped over, and will be by the next if it aims there.
    uncertain_until: usize,
    skipping_to: usize,
    /// Whether there has been an `lr`.
    reserved: bool,
}

/// Whether the row's instruction belongs to the unprivileged suite.
pub(crate) fn is_unprivileged(info: &OpcodeInfo) -> bool {
    !matches!(info.opcode, Opcode::Wfi | Opcode::Mret | Opcode::Sret)
}

impl<'a> Writer<'a> {
    pub(crate) fn new(case: Case, random: &'a mut Random) -> Self {
        let hot = [0; 6].map(|_| random.below(32) as u32);
        let (known, initial) = ([Some(0); 32], [0; 32]);
        let mut writer = Self {
            case,
            random,
            known,
            initial,
            relied: 0,
            hot,
            at: 0,
            patches: Vec::new(),
            uncertain_until: 0,
            skipping_to: 0,
            reserved: false,
        };
        writer.registers();
        writer
    }

    /// Chooses initial registers: integers, pointers into the scratch area, one pointer to the code.
    fn registers(&mut self) {
        let scratch = self.case.base + SCRATCH as u64;
        for r in 1..32 {
            let likely = if r == 2 || (8..16).contains(&r) { 55 } else { 20 };
            let value = if self.random.chance(likely) {
                let align = self.random.pick(&[0, 0, 0, 0, 0, 0, 8, 8, 8, 16, 4, 2, 1]);
                // Most pointers leave room for the compressed forms' positive offsets.
                let offset = self.random.below(SCRATCH_BYTES / if align == 0 { 4 } else { 1 });
                scratch + (offset & !7 | align & self.random.below(16)) as u64
            } else {
                self.random.integer()
            };
            self.known[r] = Some(value);
            self.initial[r] = value;
        }
        let r = 1 + self.random.below(31);
        self.known[r] = Some(self.case.code_base);
        self.initial[r] = self.case.code_base;
    }

    /// Whether an access at `address` is harmless.
    fn harmless(&self, address: u64) -> bool {
        let scratch = self.case.base + SCRATCH as u64;
        let inside = scratch..=scratch + SCRATCH_BYTES as u64 - ACCESS_BYTES;
        inside.contains(&address) || (WILD..=u64::MAX - 4096).contains(&address)
    }

    /// QEMU lets a misaligned `sc` without a reservation fail quietly, where the specification wants a trap.
    /// And what an `sc` does that does not match the `lr` before it, the specification leaves open.
    fn is_judged(&self, info: &OpcodeInfo, address: u64) -> bool {
        match info.opcode {
            Opcode::ScW => address.is_multiple_of(4) && !self.reserved,
            Opcode::ScD => address.is_multiple_of(8) && !self.reserved,
            _ => true,
        }
    }

    /// The address that `inst` accesses: `None` if none, `Some(None)` if it cannot be known.
    fn access(&self, inst: &Inst) -> Option<Option<u64>> {
        let base = self.known[usize::from(inst.rs1)];
        let offset = i64::from(inst.imm) as u64;
        match inst.opcode.info()?.format {
            Format::Load if inst.opcode == Opcode::Jalr => None,
            Format::Load | Format::Store | Format::FLoad | Format::FStore => {
                Some(base.map(|base| base.wrapping_add(offset)))
            }
            Format::Lr | Format::Amo => Some(base),
            // A cache block is 64 bytes, and so is the scratch area's alignment.
            Format::Cbo => Some(base),
            _ => None,
        }
    }

    /// QEMU's compare-and-swap into x0 writes its zero itself, and what reads that later goes wrong.
    fn away_from_zero(word: u32, len: usize) -> u32 {
        let swaps = [Opcode::AmocasW, Opcode::AmocasD, Opcode::AmocasQ];
        let inst = if len == 4 { decode(word) } else { None };
        let into_zero = inst.is_some_and(|inst| swaps.contains(&inst.opcode) && inst.rd == 0);
        if into_zero { word | 10 << 7 } else { word }
    }

    /// Puts an instruction down.
    fn place(&mut self, word: u32, len: usize) {
        let word = Self::away_from_zero(word, len);
        let certain = self.case.code.len() >= self.uncertain_until;
        self.case.code.push(Placed { at: self.at, word, len, certain });
        self.uncertain_until = self.uncertain_until.max(core::mem::take(&mut self.skipping_to));
        self.at += len;
        let inst = if len == 4 { decode(word) } else { decode_compressed(word as u16) };
        let Some((inst, format)) = inst.and_then(|inst| Some((inst, inst.opcode.info()?.format))) else {
            return;
        };
        let writes_none = matches!(
            format,
            Format::B
                | Format::Store
                | Format::FStore
                | Format::Fence
                | Format::SFence
                | Format::Cbo
                | Format::Bare
        );
        let writes_float = matches!(
            format,
            Format::FLoad
                | Format::F4
                | Format::FRound2
                | Format::FRound1
                | Format::F2
                | Format::FFromIntRound
                | Format::FFromInt
                | Format::FConstant
        );
        self.reserved |= format == Format::Lr;
        if self.access(&inst).is_some() {
            self.relied |= 1 << inst.rs1;
        }
        if !writes_none && !writes_float && inst.rd != 0 {
            self.known[usize::from(inst.rd)] = None;
            if inst.opcode == Opcode::AmocasQ {
                self.known[usize::from(inst.rd | 1)] = None;
            }
        }
    }

    /// Makes the next instruction's target one of the few after it.
    fn aim(&mut self, patch: Patch) {
        let here = self.case.code.len();
        let target = here + 1 + self.random.below(4);
        self.skipping_to = target;
        self.patches.push((here, patch, target));
    }

    /// Replaces register fields that are free by registers that this case favours.
    fn favour(&mut self, mut word: u32, info: &OpcodeInfo) -> u32 {
        for shift in [7, 15, 20] {
            if info.mask >> shift & 31 == 0 && self.random.chance(60) {
                word = word & !(31 << shift) | self.random.pick(&self.hot) << shift;
            }
        }
        let rounds = matches!(
            info.format,
            Format::F4 | Format::FRound2 | Format::FRound1 | Format::FToIntRound | Format::FFromIntRound
        );
        if rounds && self.random.chance(85) {
            word = word & !(7 << 12) | self.random.pick(&[0, 1, 2, 3, 4, 7, 7, 7]) << 12;
        }
        word
    }

    /// A register in `choices` that nothing relies upon and that still holds its initial value.
    fn fresh(&mut self) -> Option<usize> {
        let free: Vec<usize> =
            (1..32).filter(|&r| self.known[r].is_some() && self.relied & 1 << r == 0).collect();
        if free.is_empty() { None } else { Some(self.random.pick(&free)) }
    }

    /// Writes one instruction of `row`, if this case's registers permit.
    pub(crate) fn emit(&mut self, row: Row) -> bool {
        match row {
            Row::Full(info) => self.emit_full(info),
            Row::Half(info) => self.emit_half(info),
        }
    }

    fn emit_full(&mut self, info: &'static OpcodeInfo) -> bool {
        let word = info.value | self.random.next() as u32 & !info.mask;
        let mut word = self.favour(word, info);
        match info.format {
            Format::B => self.aim(Patch::Branch),
            Format::J => self.aim(Patch::Jump),
            Format::Load if info.opcode == Opcode::Jalr => return self.emit_jalr(word),
            Format::Csr | Format::CsrI => {
                // Floating-point CSRs, and now and then one that does not exist.
                let csr = self.random.pick(&[1, 2, 3, 1, 2, 3, 1, 2, 3, 0x7c0]);
                word = word & 0xf_ffff | csr << 20;
            }
            _ if decode(word).is_some_and(|inst| self.access(&inst).is_some()) => {
                return self.emit_access(info, word);
            }
            _ => {}
        }
        self.place(word, 4);
        true
    }

    /// A load, store, atomic or cache-block operation.
    fn emit_access(&mut self, info: &OpcodeInfo, word: u32) -> bool {
        for _ in 0..64 {
            let base = self.random.below(32);
            let Some(value) = self.known[base] else { continue };
            let mut word = word & !(31 << 15) | (base as u32) << 15;
            let scratch = self.case.base + SCRATCH as u64;
            let offset = self.random.below(SCRATCH_BYTES - 8) as u64;
            let align = self.random.pick(&[7, 7, 7, 3, 1, 0]);
            let imm = (scratch + (offset & !align)).wrapping_sub(value) as u32;
            if value >> 32 == scratch >> 32 && self.random.chance(95) {
                word = match info.format {
                    Format::Load | Format::FLoad => word & 0xf_ffff | imm << 20,
                    Format::Store | Format::FStore => {
                        word & !0xfe00_0f80 | (imm & 31) << 7 | (imm >> 5 & 127) << 25
                    }
                    _ => word,
                };
            } else if self.random.chance(80) {
                continue;
            }
            let address = decode(word).and_then(|inst| self.access(&inst)).flatten();
            if address.is_some_and(|address| self.harmless(address) && self.is_judged(info, address)) {
                self.place(word, 4);
                return true;
            }
        }
        false
    }

    fn emit_jalr(&mut self, word: u32) -> bool {
        let code = self.case.code_base;
        let Some(base) = (1..32).find(|&r| self.known[r] == Some(code)) else { return false };
        self.relied |= 1 << base;
        self.aim(Patch::JumpVia(code));
        self.place(word & !(31 << 15) | (base as u32) << 15, 4);
        true
    }

    fn emit_half(&mut self, info: &'static CompressedInfo) -> bool {
        for _ in 0..400 {
            let half = info.value | self.random.next() as u16 & !info.mask;
            let Some(inst) =
                expand(half).filter(|(row, _)| row.name == info.name).and(decode_compressed(half))
            else {
                // Reserved, or another row's: rare enough to be welcome as it is.
                if expand(half).is_none() && self.random.chance(2) {
                    self.place(half.into(), 2);
                    return true;
                }
                continue;
            };
            match inst.opcode {
                Opcode::Beq | Opcode::Bne => self.aim(Patch::CompressedBranch),
                Opcode::Jal => self.aim(Patch::CompressedJump),
                Opcode::Jalr => {
                    let Some(r) = self.fresh() else { return false };
                    self.relied |= 1 << r;
                    self.known[r] = None;
                    self.aim(Patch::Register(r));
                    self.place(u32::from(half & !(31 << 7)) | (r as u32) << 7, 2);
                    return true;
                }
                _ => {
                    if let Some(address) = self.access(&inst)
                        && !address.is_some_and(|address| self.harmless(address))
                    {
                        continue;
                    }
                }
            }
            self.place(half.into(), 2);
            return true;
        }
        false
    }

    /// Whatever the bits say, as long as it is reserved or computes.
    pub(crate) fn emit_noise(&mut self) {
        let word = match self.random.below(3) {
            0 => self.random.next() as u32 | 3,
            _ => {
                let info = self.random.pick(OPCODES);
                (info.value | self.random.next() as u32 & !info.mask) ^ 1 << (2 + self.random.below(30))
            }
        };
        let harmless = match decode(word) {
            None => true,
            Some(inst) => {
                let format = inst.opcode.info().map(|info| info.format);
                let steers = matches!(
                    format,
                    Some(Format::B | Format::J | Format::Csr | Format::CsrI | Format::Bare | Format::SFence)
                );
                inst.opcode != Opcode::Jalr && !steers && self.access(&inst).is_none()
            }
        };
        if harmless {
            self.place(word, 4);
        }
    }

    /// `lr` and `sc` on one address, with a little in between.
    pub(crate) fn emit_reservation(&mut self) {
        if self.case.code.len() < self.uncertain_until {
            return;
        }
        let double = self.random.chance(50);
        let (lr, sc) = if double { (Opcode::LrD, Opcode::ScD) } else { (Opcode::LrW, Opcode::ScW) };
        let scratch = self.case.base + SCRATCH as u64;
        let inside = scratch..scratch + SCRATCH_BYTES as u64 - 8;
        let bases: Vec<usize> = (1..32)
            .filter(|&r| self.known[r].is_some_and(|v| v.is_multiple_of(8) && inside.contains(&v)))
            .collect();
        let (Some(lr), Some(sc), false) = (lr.info(), sc.info(), bases.is_empty()) else { return };
        let base = self.random.pick(&bases) as u32;
        // Neither rd may be the base, or its value would be lost.
        let mut rd = || (base + 1 + self.random.below(31) as u32) & 31;
        let (lr_rd, sc_rd) = (rd(), rd());
        self.place(lr.value | lr_rd << 7 | base << 15, 4);
        if self.random.chance(50)
            && let Some(addi) = Opcode::Addi.info()
        {
            self.place(addi.value | lr_rd << 7 | lr_rd << 15 | 0x123 << 20, 4);
        }
        let rs2 = self.random.below(32) as u32;
        self.place(sc.value | sc_rd << 7 | base << 15 | rs2 << 20, 4);
    }

    /// Overwrites the instruction after next and executes it.
    pub(crate) fn emit_self_modification(&mut self) {
        let Some(pointer) = self.fresh() else { return };
        self.relied |= 1 << pointer;
        self.known[pointer] = None;
        let Some(value) = self.fresh() else { return };
        self.relied |= 1 << value;
        self.known[value] = None;
        let (Some(sw), Some(fence), Some(addi), Some(xori)) =
            (Opcode::Sw.info(), Opcode::FenceI.info(), Opcode::Addi.info(), Opcode::Xori.info())
        else {
            return;
        };
        let rd = self.random.pick(&self.hot);
        let fields = rd << 7 | self.random.pick(&self.hot) << 15 | (self.random.next() as u32) << 20;
        self.initial[value] = (xori.value | fields).into();
        let here = self.case.code.len();
        self.patches.push((here, Patch::Register(pointer), here + 2));
        self.place(sw.value | (pointer as u32) << 15 | (value as u32) << 20, 4);
        self.place(fence.value, 4);
        self.place(addi.value | fields, 4);
    }

    /// Room for another instruction or template, the end included.
    pub(crate) fn has_room(&self) -> bool {
        self.at + 24 <= CODE_BYTES
    }

    /// Ends the code, completes what was left open, and returns the case with the place where it ends.
    pub(crate) fn finish(mut self) -> (Case, u64) {
        let end = self.case.code_base + self.at as u64;
        let last = self.case.code.len();
        if let Some(ebreak) = Opcode::Ebreak.info() {
            self.case.code.push(Placed { at: self.at, word: ebreak.value, len: 4, certain: true });
        }
        for (from, patch, to) in core::mem::take(&mut self.patches) {
            let target = self.case.code[to.min(last)].at;
            let distance = (target - self.case.code[from].at) as u32;
            let code_base = self.case.code_base;
            let word = &mut self.case.code[from].word;
            match patch {
                Patch::Branch => *word = *word & 0x01ff_f07f | branch_bits(distance),
                Patch::Jump => *word = *word & 0xfff | jump_bits(distance),
                Patch::JumpVia(base) => {
                    let imm = (code_base + target as u64 - base) as u32;
                    // Bit 0 is cleared by the jump: set it as often as not.
                    *word = *word & 0xf_ffff | (imm | self.random.next() as u32 & 1) << 20;
                }
                Patch::CompressedBranch => {
                    let bits = (distance & 6) << 2 | (distance & 0x18) << 7 | (distance & 0x20) >> 3;
                    *word = *word & 0xe383 | bits;
                }
                Patch::CompressedJump => {
                    let bits = (distance & 0xe) << 2 | (distance & 0x10) << 7 | (distance & 0x20) >> 3;
                    *word = *word & 0xe003 | bits;
                }
                Patch::Register(r) => self.initial[r] = code_base + target as u64,
            }
        }
        for r in 1..32 {
            self.case.set(8 * r, self.initial[r]);
        }
        (self.case, end)
    }
}

fn branch_bits(distance: u32) -> u32 {
    (distance & 0x1e) << 7 | (distance >> 5 & 0x3f) << 25 | (distance >> 11 & 1) << 7
}

fn jump_bits(distance: u32) -> u32 {
    (distance & 0x7fe) << 20 | (distance >> 11 & 1) << 20 | distance & 0xf_f000
}

/// Every row of both tables that suits `wanted`.
pub(crate) fn rows(wanted: impl Fn(&OpcodeInfo) -> bool) -> Vec<Row> {
    let full = OPCODES.iter().filter(|info| wanted(info)).map(Row::Full);
    full.chain(COMPRESSED.iter().map(Row::Half)).collect()
}
