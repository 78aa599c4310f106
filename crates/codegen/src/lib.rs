//! From guest instructions to x86-64: bytes, and tables of where they are entered. It executes none of them.
//!
//! The contract between translated code and whoever runs it (`pollux-jit`):
//!
//! - Code memory is one range. [`stubs`] makes what lies at its beginning, [`translate`] what is added to it. All
//!   positions are offsets in it.
//! - A translation is of one *region* of one page: instructions reached from an entry without leaving the page. It
//!   knows its page by the physical bytes, and its virtual address by [`state::PAGE_BASE`], so that one translation
//!   serves every address space.
//! - [`state`] says which host registers hold what, and what the engine's words in the hart mean.
//! - Translated code does the frequent things. For all else it calls the *step* stub, which lets the interpreter
//!   execute that one instruction and goes on if that was all that happened.
//!
//! Invariant (DESIGN 2.3): the budget in [`state::BUDGET`] is exact wherever something outside could look: each block
//! takes its instructions off at its beginning, or does not begin; a step inside a block knows how many of them have
//! not been executed.
//!
//! Map: `asm` the assembler; [`state`] registers and words; `stubs` what all translations share; `region` translates: `block`
//! finds blocks and makes an immutable plan of each, `emit` makes bytes of the plan. Nothing in `block` knows of bytes, and
//! nothing in `emit` changes a plan.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;
#[cfg(test)]
extern crate std;

mod asm;
mod block;
mod emit;
mod region;
pub mod state;
mod stubs;

#[cfg(test)]
mod step_tests;

pub use block::find::Behind;
pub use region::{Features, Link, Manner, REGION_BYTES_MAX, Region, translate};
pub use stubs::{Stubs, stubs};

/// The bytes that, written at `place`, make the jump there lead to `target`; both are offsets in code memory.
#[must_use]
pub fn jump_to(place: u32, target: u32) -> [u8; 4] {
    asm::displacement(place, target)
}
