//! Loads and stores that ask the TLB in line.

use crate::asm::{Alu, Cond, Mem, RAX, RCX, RDX, Shift, W, at, at2};
use crate::memory::{OtherPage, addend_word, tag_word};
use crate::region::Translator;
use crate::state::{self, part, word};
use crate::thunks::TLB_ENTRY_SHIFT;
use pollux_machine::engine::layout;

const SP: u8 = 2;
const GP: u8 = 3;
const TP: u8 = 4;

/// What an access has to prove, relative to its base register.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    pub(crate) low: i32,
    pub(crate) high: i32,
    pub(crate) align: u8,
    /// Whether others follow.
    pub(crate) leads: bool,
}

impl Translator<'_> {
    pub(crate) fn set_indexed(&mut self, base: u8, store: bool, value: bool) {
        let bit = 1u64 << (u32::from(base) + 32 * u32::from(store));
        self.indexed = if value { self.indexed | bit } else { self.indexed & !bit };
    }

    /// The engine word of what is added to the addresses of a group.
    pub(crate) fn proved_addend(&self, base: u8, store: bool) -> usize {
        if self.indexed >> (u32::from(base) + 32 * u32::from(store)) & 1 != 0 {
            group_word(base, store)
        } else {
            addend_word(base, store)
        }
    }

    pub(crate) fn wanders(&self, base: u8) -> bool {
        !self.stays && !matches!(base, SP | GP | TP)
    }

    /// The host memory at `base` + `imm`, of which rax has the base register's value unless that has a home.
    pub(crate) fn ask_tlb(&mut self, base: u8, imm: i32, span: Span, store: bool) -> Mem {
        let Span { low, high, align, leads } = span;
        let home = self.homes.of(base);
        let register = home.unwrap_or(RAX);
        let half = self.half_of_space;
        let (tlb, context) = (
            if store { layout::TLB_WRITE } else { layout::TLB_READ },
            part(layout::DATA_CONTEXTS + 8 * half),
        );
        self.asm.lea(RDX, at(register, low));
        self.asm.mov32(RCX, RDX);
        self.asm.alu(Alu::Xor, W::D, RCX, part(layout::DATA_MIXES + 8 * half));
        self.asm.shift_imm(Shift::Shr, W::D, RCX, 12 - TLB_ENTRY_SHIFT);
        self.asm.alu_imm(Alu::And, W::D, RCX, (layout::TLB_ENTRIES as i32 - 1) << TLB_ENTRY_SHIFT);
        self.asm.alu(Alu::Add, W::Q, RCX, part(tlb));
        self.asm.alu_imm(Alu::And, W::Q, RDX, -4096 | i32::from(align - 1));
        self.asm.alu(Alu::Or, W::Q, RDX, context);
        self.asm.alu(Alu::Cmp, W::Q, RDX, at(RCX, 0));
        let from = self.asm.jcc(Cond::Ne as u8);
        let across = (high > low).then(|| {
            self.asm.lea(RDX, at(register, high));
            self.asm.alu_imm(Alu::And, W::Q, RDX, -4096);
            self.asm.alu(Alu::Or, W::Q, RDX, context);
            self.asm.alu(Alu::Cmp, W::Q, RDX, at(RCX, 0));
            self.asm.jcc(Cond::Ne as u8)
        });
        self.asm.load(W::Q, RCX, at(RCX, 8));
        let mut flagged = None;
        if store {
            self.asm.lea(RDX, at2(RCX, register, low));
            self.asm.shift_imm(Shift::Shr, W::Q, RDX, 12);
            self.asm.alu(Alu::Add, W::Q, RDX, word(state::FLAGS));
            self.asm.cmp_byte(at(RDX, 0), 0);
            flagged = Some(self.asm.jcc(Cond::Ne as u8));
        }
        self.asm.alu(Alu::Add, W::Q, RCX, word(state::RAM));
        if leads {
            self.asm.store(W::Q, word(group_word(base, store)), RCX);
            self.set_indexed(base, store, true);
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
        self.other_page = Some(OtherPage {
            from,
            base: home,
            low,
            tag: tag_word(base, store),
            store,
            aligned: false,
            back: 0,
            added: self.asm.here(),
            across,
            flagged,
            indexed: true,
            group: leads.then(|| (high, group_word(base, store))),
        });
        to
    }
}

fn group_word(base: u8, store: bool) -> usize {
    state::GROUP_ADDENDS + usize::from(base) + 32 * usize::from(store)
}
