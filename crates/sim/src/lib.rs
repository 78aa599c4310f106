//! Pollux without hosts: the shipped protocol in virtual time, under faults that are chosen and not suffered.
//!
//! Invariant: what is judged here is the code that ships. No rule of the protocol or of the arbiter is written down a
//! second time.
#![forbid(unsafe_code)]

#[cfg(feature = "model")]
pub mod model;
