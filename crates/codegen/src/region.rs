//! Finding what to translate: a region is the blocks that an entry reaches without leaving its page.
//!
//! A block is instructions up to the first that may go elsewhere. Every block's beginning is an entry: no host
//! register carries anything over it but what `state` says. Jumps between blocks of a page are direct, for a page is
//! translated and forgotten as a whole; jumps to other pages ask the table of jump targets, because only the page
//! tables know what lies there.

use crate::asm::{Alu, Asm, Cond, Fixup, R15, RAX, W};
use crate::cold::Cold;
use crate::groups::{Plan, plan};
use crate::guard::{SKIPPED_MAX, is_branch, is_cheap};
use crate::homes::{Homes, insts};
use crate::inner_loop::LOOKS_MAX;
use crate::state::StepInfo;
use crate::straddle::Behind;
use crate::thunks::{Thunks, lookup};
use crate::tlb::{Groups, OtherPage};
use crate::xmm::{Copies, Held};
use alloc::vec::Vec;
use core::cell::Cell;
use pollux_isa::{Inst, Opcode, decode, decode_compressed, is_compressed};

const PAGE: u16 = 4096;
/// Where an instruction may begin that ends in the next page.
pub(crate) const LAST_HALF: u16 = PAGE - 2;
/// Instructions in a block: what an interrupt may have to wait for the interpreter, and what fits into a byte.
const BLOCK_MAX: usize = 100;
/// Where loops begin: the host fetches aligned pieces of code.
const LOOP_ALIGNMENT: u32 = 32;
/// Instructions in a region, about.
const REGION_MAX: usize = 1000;

/// So many bytes, at most, either part of a translation has.
pub const REGION_BYTES_MAX: usize = 1 << 20;

/// What the host can do that not every x86-64 can. Results never depend on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Features {
    /// FMA3: fused multiply-add.
    pub fma: bool,
    /// `popcnt`.
    pub popcnt: bool,
}

/// A jump that leaves its region for a block of the same page that is not translated yet. Until it is patched
/// ([`crate::jump_to`]) it leaves translated code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// Where in the page it leads.
    pub target: u16,
    /// Where its displacement lies.
    pub place: u32,
}

/// A translated region.
#[derive(Debug)]
pub struct Region {
    /// Its code.
    pub bytes: Vec<u8>,
    /// What of its code is rarely needed, so that the rest lies close together.
    pub cold: Vec<u8>,
    /// Entries: where in the page, and where in code memory.
    pub entries: Vec<(u16, u32)>,
    /// Jumps to be patched when their targets are translated.
    pub links: Vec<Link>,
    /// The pieces of the page that were read: first byte, and one past the last.
    pub ranges: Vec<(u16, u16)>,
}

/// A block that its last branch repeats.
#[derive(Clone, Copy)]
struct Loop {
    offset: u16,
    steps: u16,
    /// Where it begins once its registers are lent.
    body: u32,
}

/// An instruction and where it is.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) inst: Inst,
    pub(crate) offset: u16,
}

impl Place {
    /// Where the next instruction is.
    pub(crate) fn next(self) -> u16 {
        self.offset + u16::from(self.inst.len)
    }

    /// Where a direct jump leads, from the page's beginning.
    pub(crate) fn target(self) -> i32 {
        i32::from(self.offset) + self.inst.imm
    }
}

pub(crate) struct Translator<'a> {
    pub(crate) asm: Asm,
    pub(crate) features: Features,
    page: &'a [u8; PAGE as usize],
    pub(crate) thunks: &'a Thunks,
    known: &'a dyn Fn(u16) -> Option<u32>,
    pub(crate) behind: Option<Behind>,
    entries: Vec<(u16, u32)>,
    /// Jumps to blocks of this page whose place is not known yet.
    waiting: Vec<(u16, Fixup)>,
    pending: Vec<u16>,
    pub(crate) cold: Vec<Cold>,
    ranges: Vec<(u16, u16)>,
    instructions: usize,
    /// Whether accesses may share checks.
    grouped: bool,
    /// Of the present instruction.
    pub(crate) plan: Plan,
    /// In the present block: floating-point registers in host registers.
    pub(crate) copies: Copies,
    /// What the hart is owed where the present instruction begins.
    pub(crate) owed: Vec<Held>,
    /// Of the present instruction: its way to the TLB.
    pub(crate) other_page: Option<OtherPage>,
    /// Of the present instruction: where what it does for an access begins.
    pub(crate) start: u32,
    /// In the present block: whether floating point has been found to be on.
    pub(crate) float_checked: bool,
    /// Of the present block.
    pub(crate) homes: Homes,
    /// Of all blocks in which registers are lent.
    pub(crate) lent: Vec<Homes>,
    /// Of the present block, if registers are lent in it and it repeats itself.
    repeats: Option<Loop>,
    /// The half of the address space that the code is likely to lie in.
    pub(crate) half_of_space: usize,
    /// Instructions that may still be looked at for the sake of [`Translator::is_likely_to_stay`].
    pub(crate) looks: Cell<u32>,
    /// The loop without calls that was found last: where it begins and ends.
    pub(crate) inner_loop: Cell<(u16, u16)>,
    /// Whether the present block is likely to access few pages.
    pub(crate) stays: bool,
    /// By how much its registers' words for remembered pages are moved.
    pub(crate) rotation: u8,
    /// Of the present block.
    pub(crate) groups_of_tlb: Groups,
    /// The engine word that rax holds, if it holds one of those that are added to addresses.
    pub(crate) addend_in_rax: Option<usize>,
}

/// What a translation is to be like. Results never depend on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Manner {
    /// What of the host it may use.
    pub features: Features,
    /// Accesses may share checks. Without, each proves its own address, which is what code needs that is entered in the
    /// middle of a block because such a check failed.
    pub grouped: bool,
    /// The half of the address space in which the code, and so most of what it accesses, is likely to lie: the upper one.
    pub upper: bool,
}

/// Translates the region of `page` that begins at offset `entry`, to be placed at the offsets `bases` of code memory, its
/// [`Region::bytes`] and its [`Region::cold`]. `known` says where blocks of the page that were translated before begin;
/// `behind`, if the entry is the page's last halfword, what follows there: without, an instruction that ends in the next
/// page is a step.
#[must_use]
pub fn translate(
    page: &[u8; PAGE as usize],
    entry: u16,
    bases: (u32, u32),
    thunks: &Thunks,
    manner: Manner,
    known: &dyn Fn(u16) -> Option<u32>,
    behind: Option<Behind>,
) -> Region {
    let mut translator = Translator {
        asm: Asm::new(bases.0),
        features: manner.features,
        page,
        thunks,
        known,
        behind,
        entries: Vec::new(),
        waiting: Vec::new(),
        pending: alloc::vec![entry],
        cold: Vec::new(),
        ranges: Vec::new(),
        instructions: 0,
        grouped: manner.grouped,
        plan: Plan::ALONE,
        copies: Copies::default(),
        owed: Vec::new(),
        other_page: None,
        start: 0,
        float_checked: false,
        homes: Homes::default(),
        lent: Vec::new(),
        repeats: None,
        half_of_space: usize::from(manner.upper),
        looks: Cell::new(LOOKS_MAX),
        inner_loop: Cell::new((0, 0)),
        stays: false,
        rotation: 0,
        groups_of_tlb: Groups::default(),
        addend_in_rax: None,
    };
    while let Some(offset) = translator.pending.pop() {
        let is_for_later = offset != entry && translator.ends_in_next_page(offset);
        if translator.entry(offset).is_none() && translator.has_room() && !is_for_later {
            translator.chain(offset);
        }
    }
    translator.asm.go_on_at(bases.1);
    translator.emit_cold();
    let links = translator.connect();
    let Translator { asm, entries, ranges, .. } = translator;
    let (bytes, cold) = asm.finish();
    Region { bytes, cold, entries, links, ranges }
}

/// How a block ends.
enum End {
    /// In the middle of nothing: the next block begins at this offset, which may be that of the next page.
    Fall(u16),
    /// At a branch or a jump.
    Jump(Place),
    /// At something only the interpreter does, of this length; it hardly ever goes on behind it.
    Step { offset: u16, len: u16, opcode: Option<Opcode> },
}

impl Translator<'_> {
    fn has_room(&self) -> bool {
        self.instructions < REGION_MAX
    }

    fn entry(&self, offset: u16) -> Option<u32> {
        let mine = self.entries.iter().find(|(known, _)| *known == offset).map(|&(_, place)| place);
        mine.or_else(|| (self.known)(offset))
    }

    /// A halfword of the page.
    pub(crate) fn half(&self, offset: u16) -> Option<u16> {
        let at = usize::from(offset);
        Some(u16::from_le_bytes([*self.page.get(at)?, *self.page.get(at + 1)?]))
    }

    /// Decodes an instruction; or says how long it is for the interpreter.
    pub(crate) fn place(&self, offset: u16) -> Result<Place, u16> {
        let low = self.half(offset).ok_or(2u16)?;
        let inst = if is_compressed(low) {
            decode_compressed(low)
        } else if let Some(high) = self.half(offset + 2) {
            decode(u32::from(low) | u32::from(high) << 16)
        } else {
            // Its second half is another page's.
            return Err(4);
        };
        inst.map(|inst| Place { inst, offset }).ok_or(2)
    }

    /// The few instructions that a branch may skip, if they compute one register and no more.
    fn skipped(&self, branch: Place) -> Option<Vec<Place>> {
        let target = branch.target();
        let mut skipped: Vec<Place> = Vec::new();
        let mut at = branch.next();
        while i32::from(at) < target && target < i32::from(PAGE) && skipped.len() < SKIPPED_MAX {
            let place = self.place(at).ok()?;
            if !is_cheap(place.inst) || skipped.first().is_some_and(|first| first.inst.rd != place.inst.rd) {
                return None;
            }
            skipped.push(place);
            at = place.next();
        }
        (i32::from(at) == target && !skipped.is_empty()).then_some(skipped)
    }

    /// Decodes a block.
    fn block(&self, mut offset: u16) -> (Vec<Place>, End) {
        let mut places = Vec::new();
        loop {
            if offset >= PAGE
                || places.len() >= BLOCK_MAX
                || (!places.is_empty() && self.entry(offset).is_some())
            {
                return (places, End::Fall(offset));
            }
            let place = match self.place(offset) {
                Ok(place) => place,
                Err(_) if offset == LAST_HALF && !places.is_empty() => return (places, End::Fall(offset)),
                Err(len) => return (places, End::Step { offset, len, opcode: None }),
            };
            let inst = place.inst;
            match inst.opcode {
                Opcode::Jal | Opcode::Jalr => return (places, End::Jump(place)),
                opcode if is_branch(opcode) => match self.skipped(place) {
                    Some(skipped) => {
                        places.push(place);
                        places.extend(skipped);
                        offset += inst.imm as u16;
                        continue;
                    }
                    None => return (places, End::Jump(place)),
                },
                Opcode::Ecall | Opcode::Ebreak | Opcode::Mret | Opcode::Sret | Opcode::Wfi => {
                    let len = u16::from(inst.len);
                    return (places, End::Step { offset, len, opcode: Some(inst.opcode) });
                }
                _ => places.push(place),
            }
            offset = place.next();
        }
    }

    /// Translates blocks from `offset` for as long as each leads to the next.
    fn chain(&mut self, mut offset: u16) {
        loop {
            if offset >= PAGE {
                return self.go_far(i32::from(offset));
            }
            if let Some(place) = self.entry(offset) {
                let jump = self.asm.jmp();
                return self.asm.bind(jump, place);
            }
            // Only when an instruction executes that ends in the next page, it is known what that is.
            let is_for_later = !self.entries.is_empty() && self.ends_in_next_page(offset);
            if is_for_later || !self.has_room() {
                let jump = self.asm.jmp();
                return self.waiting.push((offset, jump));
            }
            match self.one_block(offset) {
                Some(next) => offset = next,
                None => return,
            }
        }
    }

    /// Translates the block at `offset`; returns where to go on.
    fn one_block(&mut self, offset: u16) -> Option<u16> {
        if offset == LAST_HALF
            && let Some((place, behind)) = self.straddling()
        {
            self.begin_block(offset, PAGE, 1);
            return self.straddle(place, behind);
        }
        let (places, end) = self.block(offset);
        let steps = places.len() as u16 + u16::from(!matches!(end, End::Fall(_)));
        let last = match end {
            End::Fall(next) => next,
            End::Jump(place) => place.next(),
            End::Step { offset, len, .. } => offset + len,
        };
        let repeats = matches!(end, End::Jump(place) if is_branch(place.inst.opcode) && place.target() == i32::from(offset));
        let homes = self.choose_homes(&places, &end, repeats);
        if repeats && homes.are_plain() {
            self.asm.align(LOOP_ALIGNMENT);
        }
        self.begin_block(offset, last, steps);
        let plans = if self.grouped { plan(&places, &|inst| self.is_step(inst)) } else { Vec::new() };
        self.lend(homes, repeats.then_some(offset), steps);
        let mut done = 0;
        while let Some(&place) = places.get(done) {
            if is_branch(place.inst.opcode) {
                let target = place.target();
                let behind = &places[done + 1..];
                let skipped = behind.iter().take_while(|place| i32::from(place.offset) < target).count();
                self.guard(place, &behind[..skipped]);
                done += 1 + skipped;
                continue;
            }
            if let Some(&next) = places.get(done + 1)
                && self.fuse(place, next)
            {
                done += 2;
                continue;
            }
            let plan = plans.get(done).copied().unwrap_or(Plan::ALONE);
            self.next_instruction(place, plan, steps - done as u16);
            done += 1;
        }
        self.settle_all();
        match end {
            End::Fall(next) => {
                self.take_back();
                Some(next)
            }
            End::Jump(place) => self.jump(place),
            End::Step { offset, len, opcode } => {
                self.take_back();
                opcode.into_iter().for_each(|opcode| self.trap(opcode, offset));
                self.step_here(StepInfo { offset, len, unexecuted: 1, needs_float: false, comes_back: true });
                self.go_far(i32::from(offset + len));
                None
            }
        }
    }

    /// A block of so many steps begins, which takes them off the budget, or does not begin.
    fn begin_block(&mut self, offset: u16, end: u16, steps: u16) {
        self.ranges.push((offset, end.min(PAGE)));
        self.entries.push((offset, self.asm.here()));
        self.instructions += usize::from(steps);
        self.float_checked = false;
        self.groups_of_tlb = Groups::default();
        self.stays = self.is_likely_to_stay(offset, steps);
        self.rotation = if self.stays { self.rotation_at(offset, steps) } else { 0 };
        self.copies.clear();
        self.asm.alu_imm(Alu::Sub, W::Q, R15, i32::from(steps));
        let from = self.asm.jcc(Cond::L as u8);
        self.cold.push(Cold::Short { from, offset, steps, lent: None });
        self.addend_in_rax = None;
        self.repeats = None;
    }

    /// Translates an instruction of the present block that is no jump.
    pub(crate) fn next_instruction(&mut self, place: Place, plan: Plan, unexecuted: u16) {
        if let Some(guest) = self.copies.begin() {
            self.settle(guest);
        }
        self.owed = self.copies.owed().collect();
        self.plan = plan;
        self.instruction(place, unexecuted);
    }

    /// Which registers the block lends, which is none if something is always interpreted in it.
    fn choose_homes(&self, places: &[Place], end: &End, repeats: bool) -> Homes {
        if places.iter().any(|place| self.is_step(place.inst)) {
            return Homes::default();
        }
        let jump = if let End::Jump(place) = *end { Some(place) } else { None };
        Homes::choose(insts(places, jump), repeats)
    }

    /// Lets the block's registers borrow; it repeats itself from `first`, if it does.
    fn lend(&mut self, homes: Homes, first: Option<u16>, steps: u16) {
        self.homes = homes;
        if self.homes.are_plain() {
            return;
        }
        self.homes.lend(&mut self.asm);
        self.lent.push(self.homes.clone());
        if let Some(offset) = first {
            self.asm.align(LOOP_ALIGNMENT);
            self.repeats = Some(Loop { offset, steps, body: self.asm.here() });
        }
    }

    /// The branch back to the block's own beginning: its registers stay lent.
    fn repeat(&mut self, cond: u8, Loop { offset, steps, body }: Loop) {
        let out = self.asm.jcc(cond ^ 1);
        self.asm.alu_imm(Alu::Sub, W::Q, R15, i32::from(steps));
        let again = self.asm.jcc(Cond::Ge as u8);
        self.asm.bind(again, body);
        let from = self.asm.jmp();
        self.cold.push(Cold::Short { from, offset, steps, lent: self.lent() });
        self.asm.bind_here(out);
        self.take_back();
    }

    /// Which of the blocks in which registers are lent this one is.
    pub(crate) fn lent(&self) -> Option<usize> {
        (!self.homes.are_plain()).then(|| self.lent.len() - 1)
    }

    /// The block ends. Flags and rax, rcx and rdx stay as they are.
    fn take_back(&mut self) {
        core::mem::take(&mut self.homes).take_back(&mut self.asm);
    }

    /// The jump that ends a block; returns where to go on.
    pub(crate) fn jump(&mut self, place: Place) -> Option<u16> {
        let inst = place.inst;
        let target = place.target();
        match inst.opcode {
            Opcode::Jal => {
                self.link_register(place);
                self.take_back();
                if (0..i32::from(PAGE)).contains(&target) {
                    return Some(target as u16);
                }
                self.go_far(target);
                None
            }
            Opcode::Jalr => {
                self.jump_target(place);
                self.take_back();
                lookup(&mut self.asm, self.thunks.find);
                None
            }
            _ => {
                let cond = self.compare(inst);
                if let Some(repeats) = self.repeats {
                    self.repeat(cond, repeats);
                    return Some(place.next());
                }
                self.take_back();
                let from = self.asm.jcc(cond);
                if !(0..i32::from(PAGE)).contains(&target) {
                    self.cold.push(Cold::Far { from, offset: target });
                } else if let Some(place) = self.entry(target as u16) {
                    self.asm.bind(from, place);
                } else {
                    self.waiting.push((target as u16, from));
                    self.pending.push(target as u16);
                }
                Some(place.next())
            }
        }
    }

    /// Goes to an address by its offset from the beginning of this page.
    pub(crate) fn go_far(&mut self, offset: i32) {
        self.address(RAX, offset);
        lookup(&mut self.asm, self.thunks.find);
    }

    pub(crate) fn call(&mut self, place: u32) {
        let call = self.asm.call();
        self.asm.bind(call, place);
    }

    /// Leaves translated code for an instruction of this page.
    pub(crate) fn leave_at(&mut self, offset: u16) {
        self.address(RAX, i32::from(offset));
        let jump = self.asm.jmp();
        self.asm.bind(jump, self.thunks.leave_at);
    }

    /// Lets the waiting jumps lead to their blocks; those that have none leave, and are returned.
    fn connect(&mut self) -> Vec<Link> {
        let mut links: Vec<Link> = Vec::new();
        let mut stubs: Vec<(u16, u32)> = Vec::new();
        for (target, fixup) in core::mem::take(&mut self.waiting) {
            if let Some(place) = self.entry(target) {
                self.asm.bind(fixup, place);
                continue;
            }
            let known = stubs.iter().find(|(stub, _)| *stub == target).map(|&(_, place)| place);
            let stub = known.unwrap_or_else(|| {
                let place = self.asm.here();
                self.leave_at(target);
                stubs.push((target, place));
                place
            });
            self.asm.bind(fixup, stub);
            links.push(Link { target, place: fixup.0 });
        }
        links
    }
}
