//! What was compared: how often each instruction was executed to its end, and how often it trapped.
//!
//! An instruction counts if control cannot but have reached it, in a case that both machines ended alike and
//! at its regular end.

use crate::record::{Case, END, MEPC, traps, word};
use pollux_isa::OPCODES;
use pollux_isa::compressed::{COMPRESSED, expand};
use std::collections::BTreeMap;
use std::fmt::Write;

/// How often each instruction was executed on both machines, and how often it trapped there.
#[derive(Default)]
pub(crate) struct Coverage {
    counts: BTreeMap<&'static str, (u64, u64)>,
}

impl Coverage {
    /// Counts the instructions of a case that control certainly reached.
    pub(crate) fn count(&mut self, case: &Case, result: &[u8]) {
        // A case that ended before its end did not execute all of its code.
        if word(result, MEPC) != word(&case.bytes, END) {
            return;
        }
        let traps = traps(result);
        for inst in case.code.iter().filter(|inst| inst.certain) {
            let at = case.code_base + inst.at as u64;
            let Some(decoded) = inst.decode() else { continue };
            let trapped = traps.iter().any(|trap| trap[2] == at);
            let mut bump = |name| {
                let count = self.counts.entry(name).or_default();
                if trapped { count.1 += 1 } else { count.0 += 1 }
            };
            bump(decoded.opcode.name());
            if inst.len == 2
                && let Some((row, _)) = expand(inst.word as u16)
            {
                bump(row.name);
            }
        }
    }

    /// The names in `expected` that were never executed to the end (or, if they do nothing but trap, never
    /// trapped).
    pub(crate) fn missing(&self, expected: impl Iterator<Item = &'static str>) -> Vec<&'static str> {
        let only_trap = ["ecall", "ebreak", "c.ebreak"];
        let covered = |name: &&str| {
            let (executed, trapped) = self.counts.get(name).copied().unwrap_or_default();
            executed > 0 || only_trap.contains(name) && trapped > 0
        };
        expected.filter(|name| !covered(name)).collect()
    }

    /// The table, four columns of "name executed/trapped".
    pub(crate) fn table(&self) -> String {
        let mut order: Vec<&str> = OPCODES.iter().map(|info| info.name).collect();
        order.extend(COMPRESSED.iter().map(|info| info.name));
        let mut text = String::new();
        for chunk in order.chunks(4) {
            for name in chunk {
                let (executed, trapped) = self.counts.get(name).copied().unwrap_or_default();
                let _ = write!(text, "{name:<13}{executed:>8}/{trapped:<7}");
            }
            text.push('\n');
        }
        text
    }
}
