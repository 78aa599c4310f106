//! The platform-level interrupt controller: which device interrupts which hart.
//!
//! Source: RISC-V PLIC specification 1.0.0. Contexts as on QEMU's `virt`: for each hart M, then S. All sources of
//! this board are level-triggered. The outcome per context is computed when something changes, so that asking
//! for it ([`Plic::interrupts`]) costs nothing.

pub(crate) mod state;

use crate::config::HARTS_MAX;
use alloc::vec;
use alloc::vec::Vec;

/// Size of the register window, in bytes.
pub const BYTES: u64 = 0x60_0000;
/// Sources, with the number 0 that means none. As on QEMU's `virt`.
pub const SOURCES: usize = 96;
/// Highest priority.
const PRIORITY_MAX: u32 = 7;
const WORDS: usize = SOURCES / 32;
const PENDING: u64 = 0x1000;
const ENABLE: u64 = 0x2000;
const ENABLE_STRIDE: u64 = 0x80;
const CONTEXT: u64 = 0x20_0000;
const CONTEXT_STRIDE: u64 = 0x1000;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Context {
    enable: [u32; WORDS],
    threshold: u32,
}

/// Whether reading this register is a claim.
#[must_use]
pub const fn is_claim(offset: u64) -> bool {
    offset >= CONTEXT && (offset - CONTEXT) % CONTEXT_STRIDE == 4
}

/// The chip.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plic {
    priority: Vec<u32>,
    level: [u32; WORDS],
    pending: [u32; WORDS],
    claimed: [u32; WORDS],
    contexts: Vec<Context>,
    /// Bit per context: an interrupt is to be delivered. Follows from the rest.
    outcome: u32,
}

impl Plic {
    /// At reset: nothing enabled, all priorities zero.
    #[must_use]
    pub fn new(harts: u32) -> Self {
        let context = Context { enable: [0; WORDS], threshold: 0 };
        Self {
            priority: vec![0; SOURCES],
            level: [0; WORDS],
            pending: [0; WORDS],
            claimed: [0; WORDS],
            contexts: vec![context; 2 * harts.min(HARTS_MAX) as usize],
            outcome: 0,
        }
    }

    /// Whether this state belongs to a board with `harts` harts.
    #[must_use]
    pub fn fits(&self, harts: u32) -> bool {
        self.contexts.len() == 2 * harts as usize && self.priority.len() == SOURCES
    }

    /// A device's line.
    pub fn set_level(&mut self, source: usize, high: bool) {
        let (word, bit) = (source / 32, 1u32 << (source % 32));
        let Some(level) = self.level.get_mut(word) else { return };
        if (*level & bit != 0) == high {
            return;
        }
        *level ^= bit;
        // The gateway forwards one request at a time: a claimed source is looked at again when it completes. A
        // request once made is not taken back when the line falls (PLIC 1.0.0, chapter 2, "Interrupt Gateways").
        if high && self.claimed[word] & bit == 0 {
            self.pending[word] |= bit;
            self.decide();
        }
    }

    /// Whether M-mode, S-mode of this hart have an interrupt.
    #[must_use]
    pub fn interrupts(&self, hart: usize) -> (bool, bool) {
        let bits = self.outcome >> (2 * hart);
        (bits & 1 != 0, bits & 2 != 0)
    }

    fn best(&self, context: usize) -> Option<usize> {
        let context = self.contexts.get(context)?;
        let mut best: Option<(u32, usize)> = None;
        for word in 0..WORDS {
            let mut bits = self.pending[word] & context.enable[word];
            while bits != 0 {
                let source = word * 32 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                let priority = self.priority[source];
                // Ties go to the lowest number (PLIC 1.0.0, chapter 5), which comes first here.
                if priority > context.threshold && best.is_none_or(|(highest, _)| priority > highest) {
                    best = Some((priority, source));
                }
            }
        }
        best.map(|(_, source)| source)
    }

    fn decide(&mut self) {
        self.outcome = (0..self.contexts.len())
            .filter(|&context| self.best(context).is_some())
            .fold(0, |bits, c| bits | 1 << c);
    }

    fn claim(&mut self, context: usize) -> u32 {
        let Some(source) = self.best(context) else { return 0 };
        let (word, bit) = (source / 32, 1u32 << (source % 32));
        self.pending[word] &= !bit;
        self.claimed[word] |= bit;
        self.decide();
        source as u32
    }

    fn complete(&mut self, context: usize, source: u32) {
        let source = source as usize;
        let (word, bit) = (source / 32, 1u32 << (source % 32));
        let enabled =
            self.contexts.get(context).and_then(|c| c.enable.get(word)).is_some_and(|e| e & bit != 0);
        // A completion for a source that this context has not enabled is ignored (PLIC 1.0.0, chapter 9).
        if !enabled || self.claimed[word] & bit == 0 {
            return;
        }
        self.claimed[word] &= !bit;
        self.pending[word] |= self.level[word] & bit;
        self.decide();
    }

    /// Reads a register (4 bytes). Claiming is a read.
    pub fn read(&mut self, offset: u64, bytes: u8) -> Option<u64> {
        if bytes != 4 || !offset.is_multiple_of(4) {
            return None;
        }
        let value = match offset {
            0..PENDING => self.priority.get((offset / 4) as usize).copied(),
            PENDING..ENABLE => self.pending.get(((offset - PENDING) / 4) as usize).copied(),
            ENABLE..CONTEXT => {
                let at = offset - ENABLE;
                let context = self.contexts.get((at / ENABLE_STRIDE) as usize);
                context.and_then(|c| c.enable.get((at % ENABLE_STRIDE / 4) as usize)).copied()
            }
            _ => {
                let at = offset - CONTEXT;
                let context = (at / CONTEXT_STRIDE) as usize;
                match at % CONTEXT_STRIDE {
                    0 => self.contexts.get(context).map(|c| c.threshold),
                    4 => Some(self.claim(context)),
                    _ => None,
                }
            }
        };
        Some(u64::from(value.unwrap_or(0)))
    }

    /// Writes a register (4 bytes). Completing is a write.
    pub fn write(&mut self, offset: u64, bytes: u8, value: u64) -> Option<()> {
        if bytes != 4 || !offset.is_multiple_of(4) {
            return None;
        }
        let value = value as u32;
        match offset {
            0..PENDING => {
                let source = (offset / 4) as usize;
                if (1..SOURCES).contains(&source) {
                    self.priority[source] = value & PRIORITY_MAX;
                }
            }
            PENDING..ENABLE => {}
            ENABLE..CONTEXT => {
                let at = offset - ENABLE;
                let word = (at % ENABLE_STRIDE / 4) as usize;
                let context = self.contexts.get_mut((at / ENABLE_STRIDE) as usize);
                if let Some(enable) = context.and_then(|c| c.enable.get_mut(word)) {
                    // Source 0 does not exist.
                    *enable = if word == 0 { value & !1 } else { value };
                }
            }
            _ => {
                let at = offset - CONTEXT;
                let context = (at / CONTEXT_STRIDE) as usize;
                match at % CONTEXT_STRIDE {
                    0 => {
                        if let Some(c) = self.contexts.get_mut(context) {
                            c.threshold = value & PRIORITY_MAX;
                        }
                    }
                    4 => self.complete(context, value),
                    _ => {}
                }
            }
        }
        self.decide();
        Some(())
    }
}
