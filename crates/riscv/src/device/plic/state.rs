//! The PLIC as it is saved.

use super::{Context, Plic, WORDS};
use crate::state::state;
use alloc::vec::Vec;

state!(
    /// A context: version 1.
    PlicContextV1 of Context { enable: [u32; WORDS], threshold: u32 }
);

state!(
    /// Version 1.
    PlicV1 of Plic {
        priority: Vec<u32>,
        level: [u32; WORDS],
        pending: [u32; WORDS],
        claimed: [u32; WORDS],
        contexts: Vec<Context>,
        outcome: u32,
    }
);
