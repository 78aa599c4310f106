//! From a plan to bytes. An [`Emitter`] emits one block: it reads the block's plan, appends to what the region has so far
//! ([`Output`]), and keeps the little that depends on what has been emitted: which floating-point registers are in xmm
//! registers, what rax holds, and the slow path of the present instruction.
//!
//! `registers` are operands, and where x0 is kept zero; `integer`, `bits`, `float`, `convert`, `atomic`, `system`,
//! `float_csr`, `clock`, `memory` emit instructions, `select` branches over a few; `tlb` is how loads and stores ask it,
//! `float_cache` floating-point registers within a block; `straddle` checks the next page, `exits` go elsewhere; `slow` is
//! what is rarely needed, out of line.

mod atomic;
mod bits;
mod clock;
mod convert;
mod exits;
mod float;
mod float_cache;
mod float_csr;
mod integer;
mod memory;
mod registers;
mod select;
mod slow;
mod straddle;
mod system;
mod tlb;

use crate::asm::{Alu, Asm, Cond, Fixup, R15, Reg, W};
use crate::block::native::{is_atomic, is_csr, is_float_compute};
use crate::block::{Block, Kind, Next, Planned, Work};
use crate::region::{Link, Region};
use crate::state::{self, word};
use crate::stubs::Stubs;
use alloc::vec::Vec;
use float_cache::FloatCache;
use pollux_isa::Opcode as Op;
use slow::{Pending, SlowPath};

/// Where loops begin: the host fetches aligned pieces of code.
const LOOP_ALIGNMENT: u32 = 32;

/// What is the same for all blocks of a region.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) stubs: &'a Stubs,
    /// The half of the address space that the code is likely to lie in.
    pub(crate) half: usize,
}

/// What a region has so far.
pub(crate) struct Output<'p> {
    asm: Asm,
    entries: Vec<(u16, u32)>,
    /// Jumps to blocks of this page.
    jumps: Vec<(u16, Fixup)>,
    slow_paths: Vec<SlowPath<'p>>,
    /// Empty between blocks; which xmm register is the next goes on.
    floats: FloatCache,
}

/// A block, as far as it is emitted.
pub(crate) struct Emitter<'o, 'p> {
    target: Target<'p>,
    block: &'p Block,
    asm: &'o mut Asm,
    jumps: &'o mut Vec<(u16, Fixup)>,
    slow_paths: &'o mut Vec<SlowPath<'p>>,
    /// Floating-point registers in xmm registers.
    floats: &'o mut FloatCache,
    /// Whether floating point has been found to be on.
    float_checked: bool,
    /// The engine word that rax holds, if it holds one of those that are added to addresses.
    addend_in_rax: Option<usize>,
    /// A guest register that is in another host register for the moment.
    aside: Option<(u8, Reg)>,
    /// The slow path of the present instruction.
    pending: Pending,
}

/// Emits a region, at two places of code memory. `known` says where the blocks are that were translated before.
pub(crate) fn region(
    blocks: &[Block],
    bases: (u32, u32),
    target: Target<'_>,
    known: &dyn Fn(u16) -> Option<u32>,
) -> Region {
    let mut output = Output {
        asm: Asm::new(bases.0),
        entries: Vec::with_capacity(blocks.len()),
        jumps: Vec::new(),
        slow_paths: Vec::new(),
        floats: FloatCache::default(),
    };
    for block in blocks {
        if block.repeats && block.allocation.is_default() {
            output.asm.align(LOOP_ALIGNMENT);
        }
        output.entries.push((block.offset, output.asm.here()));
        Emitter::new(&mut output, target, block).block();
    }
    let Output { mut asm, entries, jumps, slow_paths, .. } = output;
    asm.go_on_at(bases.1);
    slow::emit(&mut asm, target.stubs, slow_paths);
    let place_of = |target: u16| {
        let mine = entries.iter().find(|(offset, _)| *offset == target).map(|&(_, place)| place);
        mine.or_else(|| known(target))
    };
    let links = connect(&mut asm, target.stubs, jumps, &place_of);
    let ranges = blocks.iter().map(|block| (block.offset, block.end)).collect();
    let (bytes, cold) = asm.finish();
    Region { bytes, cold, entries, links, ranges }
}

/// Lets jumps lead to their blocks; those that have none leave translated code, and are returned.
fn connect(
    asm: &mut Asm,
    stubs: &Stubs,
    jumps: Vec<(u16, Fixup)>,
    place_of: &dyn Fn(u16) -> Option<u32>,
) -> Vec<Link> {
    let mut links: Vec<Link> = Vec::new();
    let mut exits: Vec<(u16, u32)> = Vec::new();
    for (target, jump) in jumps {
        if let Some(place) = place_of(target) {
            asm.bind(jump, place);
            continue;
        }
        let known = exits.iter().find(|(exit, _)| *exit == target).map(|&(_, place)| place);
        let exit = known.unwrap_or_else(|| {
            let place = asm.here();
            exits::leave_at(asm, stubs, target);
            exits.push((target, place));
            place
        });
        asm.bind(jump, exit);
        links.push(Link { target, place: jump.0 });
    }
    links
}

impl<'o, 'p> Emitter<'o, 'p> {
    fn new(output: &'o mut Output<'p>, target: Target<'p>, block: &'p Block) -> Self {
        let Output { asm, jumps, slow_paths, floats, .. } = output;
        floats.clear();
        Self {
            target,
            block,
            asm,
            jumps,
            slow_paths,
            floats,
            float_checked: false,
            addend_in_rax: None,
            aside: None,
            pending: Pending::default(),
        }
    }

    /// The whole block: it takes its steps off the budget, or does not begin.
    fn block(&mut self) {
        let block = self.block;
        self.asm.alu_imm(Alu::Sub, W::Q, R15, i32::from(block.steps));
        let from = self.asm.jcc(Cond::L as u8);
        let (offset, steps) = (block.offset, block.steps);
        self.slow_paths.push(SlowPath::Short { from, offset, steps, allocation: None });
        if let Some(behind) = block.behind {
            self.check_next_page(behind);
        }
        registers::assign(self.asm, &block.allocation);
        if block.repeats && !block.allocation.is_default() {
            self.asm.align(LOOP_ALIGNMENT);
        }
        let body = self.asm.here();
        for work in &block.work {
            match work {
                Work::One(planned) => self.one(planned),
                Work::Fused(fused) => self.fused_pair(*fused),
                Work::Select { branch, first, skipped, instructions } => {
                    self.select(*branch, *first, skipped, *instructions);
                }
            }
        }
        self.write_back_all();
        self.terminate(body);
        match block.next {
            Next::Following(_) | Next::Nowhere => {}
            Next::Block(target) => {
                let jump = self.asm.jmp();
                self.jumps.push((target, jump));
            }
            Next::Far(offset) => exits::go_far(self.asm, self.target.stubs, offset),
        }
    }

    /// An instruction of the block that is no jump.
    fn one(&mut self, planned: &Planned) {
        if let Some(guest) = self.floats.begin() {
            self.write_back(guest);
        }
        self.pending = Pending::new(self.floats.dirty().collect(), planned.is_spanned);
        self.instruction(planned);
    }

    /// Emits one instruction that is no jump.
    fn instruction(&mut self, planned: &Planned) {
        let inst = planned.place.inst;
        if !self.leaves_rax(inst) {
            self.addend_in_rax = None;
        }
        match planned.kind {
            Kind::Nothing => {}
            Kind::Step => self.step(planned),
            Kind::Native => self.native(planned),
        }
    }

    fn native(&mut self, planned: &Planned) {
        let inst = planned.place.inst;
        match inst.opcode {
            Op::Lb => self.load(planned, 1, true),
            Op::Lh => self.load(planned, 2, true),
            Op::Lw => self.load(planned, 4, true),
            Op::Lbu => self.load(planned, 1, false),
            Op::Lhu => self.load(planned, 2, false),
            Op::Lwu => self.load(planned, 4, false),
            Op::Ld => self.load(planned, 8, false),
            Op::Sb => self.store(planned, 1),
            Op::Sh => self.store(planned, 2),
            Op::Sw => self.store(planned, 4),
            Op::Sd => self.store(planned, 8),
            Op::Flw => self.load_float(planned, false),
            Op::Fld => self.load_float(planned, true),
            Op::Fsw => self.store_float(planned, false),
            Op::Fsd => self.store_float(planned, true),
            Op::Pause | Op::WrsNto | Op::WrsSto => self.pause(planned),
            Op::SfenceVma => self.fence_translations(planned),
            opcode if is_float_compute(opcode) => self.float(planned),
            opcode if is_atomic(opcode) => self.atomic(planned),
            opcode if is_csr(opcode) => self.csr(planned),
            _ => {
                let done = self.base(planned.place) || self.multiply(inst) || self.bits(inst);
                debug_assert!(done, "{inst:?} is neither translated nor a step");
            }
        }
    }

    /// One interpreted step, whatever happens.
    fn step(&mut self, planned: &Planned) {
        self.write_back_all();
        exits::step(self.asm, self.target.stubs, planned.info());
        self.float_checked = false;
        self.floats.clear();
    }

    /// `pause` and its like: other harts get the rest of the turn, if there are any.
    fn pause(&mut self, planned: &Planned) {
        self.asm.cmp_byte(word(state::ALONE), 0);
        self.slow_if(Cond::E);
        self.end_fast_path(planned, false);
        self.float_checked = false;
    }

    /// Whether what is emitted for an instruction leaves rax alone, or sees itself to what becomes of it.
    fn leaves_rax(&self, inst: pollux_isa::Inst) -> bool {
        match inst.opcode {
            Op::Lb | Op::Lh | Op::Lw | Op::Lbu | Op::Lhu | Op::Lwu | Op::Ld => true,
            Op::Sb | Op::Sh | Op::Sw | Op::Sd | Op::Flw | Op::Fld | Op::Fsw | Op::Fsd => true,
            Op::Addi => self.home(inst.rd).is_some(),
            _ => false,
        }
    }
}
