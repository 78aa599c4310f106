//! System calls that have no safe binding: the only `unsafe` of this crate.

pub mod shared_memory;
pub mod tap;
