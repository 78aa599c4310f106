//! How loads and stores ask the TLB: in line, if their base register is likely to point to another page each time, or
//! out of line, when the page in the register's inline cache is another.
//!
//! In line it costs more instructions, and the address waits for them; but a branch that nobody can predict costs more
//! still. A group's leader keeps what is added to addresses in an engine word of its own (`state::GROUP_ADDENDS`),
//! so that the register's inline cache stays right.
//!
//! The context that an address is looked up with is that of the half of the address space in which the code lies. If the
//! address lies in the other half, no entry has its page with this context, for a context's number stands for one half of
//! one address space, or for both where both have it: it is looked up again, out of line, with the right one.

use super::Emitter;
use crate::asm::{Alu, Asm, Cond, Fixup, Mem, RAX, RCX, RDX, Reg, Shift, W, at, at2};
use crate::state::{self, part, word, word_offset};
use crate::stubs::{NO_CONTEXT, Stubs, entry_of_tlb};
use alloc::vec::Vec;
use pollux_riscv::engine::layout;

const SP: u8 = 2;
const GP: u8 = 3;
const TP: u8 = 4;

/// Where an access goes on once its page has been found out of line.
#[derive(Clone, Copy)]
pub(crate) enum Resume {
    /// With what else it has to prove; the page is in its register's inline cache now.
    Proving(u32),
    /// With the access. What is to be added to the address is in rax, or has been added to rax if there is no base.
    Accessing(u32),
    /// The same, if the byte at the offset `high` lies in the page, too. `group` is the engine word for what is added.
    Leading { at: u32, high: i32, group: usize },
}

/// An access that did not find its page in line: it is not the one in its register's inline cache, or, of one that asks the
/// TLB in line, not there.
#[derive(Clone)]
pub(crate) struct Miss {
    pub(crate) from: Fixup,
    /// The access is to (at least) this host register plus `low`; to rax plus `low` if there is none.
    pub(crate) base: Option<Reg>,
    pub(crate) low: i32,
    /// The engine word of the register's tag.
    pub(crate) tag: usize,
    pub(crate) store: bool,
    /// Whether it must be aligned.
    pub(crate) aligned: bool,
    /// Whether the access has asked the TLB in line: the tag has a context.
    pub(crate) in_line: bool,
    pub(crate) resume: Resume,
    /// Taken if not all that it proves lies in one page, or if the page has a flag set.
    pub(crate) fails: Vec<Fixup>,
}

/// What an access has to prove, relative to its base register.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    pub(crate) low: i32,
    pub(crate) high: i32,
    pub(crate) align: u8,
    /// Whether others follow.
    pub(crate) leads: bool,
    /// Whether one of them stores, or this one does.
    pub(crate) store: bool,
}

impl Emitter<'_, '_> {
    /// The engine word of what is added to the addresses of a group: its leader has asked the TLB in line, or used the page
    /// that is cached for the register.
    pub(super) fn proved_addend(&self, base: u8, store: bool) -> usize {
        if self.wanders(base) { group_word(base, store) } else { self.addend_word(base, store) }
    }

    /// Whether a register is likely to point to another page each time.
    pub(super) fn wanders(&self, base: u8) -> bool {
        !self.block.locality.is_local && !matches!(base, SP | GP | TP)
    }

    /// The host memory at `base` + `imm`, of which rax has the base register's value unless that has a home.
    pub(super) fn ask_tlb(&mut self, base: u8, imm: i32, span: Span) -> Mem {
        let Span { low, high, align, leads, store } = span;
        let home = self.home(base);
        let register = home.unwrap_or(RAX);
        let half = self.target.half;
        let (tlb, context) = (
            if store { layout::TLB_WRITE } else { layout::TLB_READ },
            part(layout::DATA_CONTEXTS + 8 * half),
        );
        self.asm.lea(RDX, at(register, low));
        self.asm.mov32(RCX, RDX);
        self.asm.alu(Alu::Xor, W::D, RCX, part(layout::DATA_MIXES + 8 * half));
        entry_of_tlb(self.asm, RCX, tlb);
        self.asm.alu_imm(Alu::And, W::Q, RDX, -4096 | i32::from(align - 1));
        self.asm.alu(Alu::Or, W::Q, RDX, context);
        self.asm.alu(Alu::Cmp, W::Q, RDX, at(RCX, 0));
        let from = self.asm.jcc(Cond::Ne as u8);
        let mut fails = Vec::new();
        if high > low {
            self.asm.lea(RDX, at(register, high));
            self.asm.alu_imm(Alu::And, W::Q, RDX, -4096);
            self.asm.alu(Alu::Or, W::Q, RDX, context);
            self.asm.alu(Alu::Cmp, W::Q, RDX, at(RCX, 0));
            fails.push(self.asm.jcc(Cond::Ne as u8));
        }
        self.asm.load(W::Q, RCX, at(RCX, 8));
        if store {
            self.asm.lea(RDX, at2(RCX, register, low));
            self.asm.shift_imm(Shift::Shr, W::Q, RDX, 12);
            self.asm.alu(Alu::Add, W::Q, RDX, word(state::FLAGS));
            self.asm.cmp_byte(at(RDX, 0), 0);
            fails.push(self.asm.jcc(Cond::Ne as u8));
        }
        self.asm.alu(Alu::Add, W::Q, RCX, word(state::RAM));
        if leads {
            self.asm.store(W::Q, word(group_word(base, store)), RCX);
        }
        let to = match home {
            Some(reg) => {
                self.asm.mov(RAX, RCX);
                self.addend_in_rax = leads.then(|| group_word(base, store));
                at2(RAX, reg, imm)
            }
            None => {
                self.asm.alu(Alu::Add, W::Q, RAX, RCX);
                at(RAX, imm)
            }
        };
        let at = self.asm.here();
        let resume = match leads {
            true => Resume::Leading { at, high, group: group_word(base, store) },
            false => Resume::Accessing(at),
        };
        let tag = self.tag_word(base, store);
        self.pending.miss =
            Some(Miss { from, base: home, low, tag, store, aligned: false, in_line: true, resume, fails });
        to
    }
}

impl Miss {
    /// Asks the TLB, out of line. What it does not know jumps to the step, with one of `failures`.
    pub(super) fn emit(&self, asm: &mut Asm, stubs: &Stubs, failures: &mut Vec<Fixup>) {
        let &Self { from, tag, store, aligned, low, base, in_line, resume, .. } = self;
        asm.bind_here(from);
        match base {
            Some(base) => asm.lea(RAX, at(base, low)),
            None if low != 0 => asm.lea(RAX, at(RAX, low)),
            None => {}
        }
        if in_line {
            asm.alu_imm(Alu::And, W::Q, RDX, NO_CONTEXT);
        }
        asm.mov_imm(RCX, word_offset(tag) as u64);
        asm.call(match (store, aligned) {
            (false, false) => stubs.refill_load,
            (false, true) => stubs.refill_load_aligned,
            (true, false) => stubs.refill_store,
            (true, true) => stubs.refill_store_aligned,
        });
        if base.is_none() && low != 0 {
            asm.lea(RAX, at(RAX, -low));
        }
        failures.push(asm.jcc(Cond::Ne as u8));
        if let Resume::Leading { high, group, .. } = resume {
            asm.lea(RCX, at(base.unwrap_or(RAX), high));
            asm.alu_imm(Alu::And, W::Q, RCX, -4096);
            asm.alu(Alu::Xor, W::Q, RCX, word(tag));
            asm.alu_imm(Alu::And, W::Q, RCX, -4096);
            failures.push(asm.jcc(Cond::Ne as u8));
            asm.store(W::Q, word(group), RDX);
        }
        let found = match resume {
            Resume::Proving(place) => place,
            Resume::Accessing(place) | Resume::Leading { at: place, .. } => {
                match base {
                    Some(_) => asm.mov(RAX, RDX),
                    None => asm.alu(Alu::Add, W::Q, RAX, RDX),
                }
                place
            }
        };
        asm.jmp_to(found);
    }
}

fn group_word(base: u8, store: bool) -> usize {
    state::GROUP_ADDENDS + usize::from(base) + 32 * usize::from(store)
}
