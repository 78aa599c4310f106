//! What Pollux needs of a machine, whatever kind of machine it is (DESIGN 1).
//!
//! Replication, recording and observation are written against these traits, so that none of them drags a kind of
//! machine along.
//!
//! Map: [`Machine`] is what replication drives; [`Difference`] says in what two of them differ.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

mod difference;
mod machine;

pub use difference::Difference;
pub use machine::{Machine, Stop};
