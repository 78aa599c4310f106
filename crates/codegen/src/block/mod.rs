//! What a region is going to be: its blocks found, and everything about them decided that does not depend on bytes.
//!
//! `find` decodes blocks; `native` says which instructions the host executes; `plan` follows a region's blocks and puts
//! each one's [`Block`] together: `registers` allocates host registers, `checks` lets accesses share address checks,
//! `locality` guesses whether few pages are accessed, `fuse` makes one operation of two instructions. Nothing changes a
//! plan once it is made; `emit` reads it.

pub(crate) mod checks;
pub(crate) mod find;
pub(crate) mod fuse;
pub(crate) mod locality;
pub(crate) mod native;
pub(crate) mod plan;
pub(crate) mod registers;

use crate::state::StepInfo;
use alloc::vec::Vec;
use checks::Check;
use find::Behind;
use fuse::Fused;
use locality::Locality;
use pollux_isa::{Inst, Opcode};
use registers::Allocation;

/// Bytes in a page.
pub(crate) const PAGE: u16 = 4096;
/// Where an instruction may begin that ends in the next page.
pub(crate) const LAST_HALF: u16 = PAGE - 2;

/// An instruction and where it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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

/// A block: instructions up to the first that may go elsewhere.
#[derive(Debug)]
pub(crate) struct Block {
    /// Where it begins.
    pub(crate) offset: u16,
    /// One past its last byte, in this page.
    pub(crate) end: u16,
    /// How many steps it takes off the budget.
    pub(crate) steps: u16,
    /// If it is one instruction that ends in the next page: what has to be there.
    pub(crate) behind: Option<Behind>,
    pub(crate) work: Vec<Work>,
    pub(crate) terminator: Terminator,
    pub(crate) next: Next,
    pub(crate) allocation: Allocation,
    /// Its last branch leads to its own beginning.
    pub(crate) repeats: bool,
    pub(crate) locality: Locality,
}

/// What a block does before it goes elsewhere.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Work {
    /// One instruction.
    One(Planned),
    /// Two instructions that are one operation.
    Fused(Fused),
    /// A branch over so many instructions that compute one register; the first one says which.
    Select { branch: Inst, first: Inst, skipped: Vec<Work>, instructions: u8 },
}

/// One instruction of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Planned {
    pub(crate) place: Place,
    pub(crate) kind: Kind,
    /// Instructions from it to the end of its block.
    pub(crate) unexecuted: u16,
    pub(crate) check: Check,
    /// Whether an access behind it relies on a check before it, or its own.
    pub(crate) is_spanned: bool,
}

impl Planned {
    /// For the slow path.
    pub(crate) fn info(self) -> StepInfo {
        StepInfo {
            offset: self.place.offset,
            len: u16::from(self.place.inst.len),
            unexecuted: self.unexecuted,
            needs_float: false,
            comes_back: true,
        }
    }
}

/// Who executes an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// The host, with a slow path to the interpreter where it needs one.
    Native,
    /// The interpreter, always.
    Step,
    /// Nobody: fences of one thread, and what only computes x0.
    Nothing,
}

/// How a block ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Terminator {
    /// In the middle of nothing.
    Fall,
    /// At a branch or a jump.
    Jump(Place),
    /// At something only the interpreter does; it hardly ever goes on behind it.
    Step { offset: u16, len: u16, opcode: Option<Opcode> },
}

/// Where a block goes on, unless its branch is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    /// With the next block of the plan, which begins there.
    Following(u16),
    /// At another block of this page.
    Block(u16),
    /// In another page: the offset from this one's beginning.
    Far(i32),
    /// Its end says where.
    Nowhere,
}
