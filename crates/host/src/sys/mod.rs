//! System calls that have no safe binding: the only `unsafe` of this crate.

pub mod tap;
