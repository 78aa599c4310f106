//! Random programs for two machines that must agree.
//!
//! Map: `rng` chance from a seed, `choose` what is made of it; `asm` instructions as words; `layout` what lies where in the guest; `boot` reset and
//! trap handlers, tables and first registers; `program` the code, `straight` the part of it that is seen as a whole,
//! `privileged` the privileged half and `tangled` pages that are code, data and tables at once; `duel` the two machines and the search for the step at which they part, `trace` how
//! they came there.
//!
//! Not here: what an instruction should do. The interpreter says so; that it is right is `crates/riscv`'s to test.

#![allow(dead_code, unreachable_pub, reason = "every test file uses a part of this")]

pub mod asm;
pub mod boot;
mod choose;
pub mod duel;
pub mod layout;
mod numbers;
mod privileged;
pub mod program;
pub mod rng;
mod straight;
mod tangled;
mod trace;
