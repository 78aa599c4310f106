//! Case by case: are the two results the same, and how a mismatch is told.

use crate::amend::amend;
use crate::coverage::Coverage;
use crate::record::{
    Batch, CODE, CSR, CSRS, Case, F, FCSR, LOG, LOG_WORDS, RECORD_BYTES, SCRATCH, TRAPS, traps, word,
};
use pollux_isa::{disasm, freg_name, reg_name};
use std::fmt::Write;

/// Words of a mismatch that are told.
const DIFFERENCES_MAX: usize = 12;

/// Compares a batch; returns the reports of the mismatches.
pub(crate) fn batch(
    seed: u64,
    first: usize,
    batch: &Batch,
    judge: &[u8],
    ours: &[u8],
    coverage: &mut Coverage,
) -> Vec<String> {
    let mut reports = Vec::new();
    for (place, case) in batch.cases.iter().enumerate() {
        let (mut theirs, mine) = (batch.result(judge, place).to_vec(), batch.result(ours, place));
        amend(case, &mut theirs, mine);
        if theirs == mine {
            coverage.count(case, mine);
        } else {
            reports.push(report(seed, first + place, case, &theirs, mine));
        }
    }
    reports
}

/// What the word at `at` of a record is.
fn name_of(at: usize, base: u64) -> String {
    let index = |start: usize| (at - start) / 8;
    match at {
        0..F => reg_name(index(0) as u8).to_string(),
        F..FCSR => freg_name(index(F) as u8).to_string(),
        FCSR => "fcsr".into(),
        TRAPS => "number of traps".into(),
        CSR..LOG => CSRS[index(CSR)].into(),
        LOG..CODE => {
            let field = ["by", "cause", "epc", "tval", "mstatus"][index(LOG) % LOG_WORDS];
            format!("trap {} {field}", index(LOG) / LOG_WORDS)
        }
        SCRATCH..RECORD_BYTES => format!("scratch[{:#x}] at {:#x}", at - SCRATCH, base + at as u64),
        _ => format!("memory at {:#x}", base + at as u64),
    }
}

/// Words in which the results differ.
fn differences(judge: &[u8], ours: &[u8]) -> Vec<usize> {
    (0..judge.len()).step_by(8).filter(|&at| judge[at..at + 8] != ours[at..at + 8]).collect()
}

/// A mismatch as people want to see it.
pub(crate) fn report(seed: u64, index: usize, case: &Case, judge: &[u8], ours: &[u8]) -> String {
    let mut text = format!("case {index} (ORACLE_SEED={seed} ORACLE_ONLY={index})\n");
    for inst in &case.code {
        let pc = case.code_base + inst.at as u64;
        let decoded = inst.decode();
        let written = decoded.map_or_else(|| "reserved".into(), |inst| disasm(&inst));
        let digits = inst.len * 2;
        let _ = writeln!(text, "  {pc:#x}: {:0digits$x}{:pad$} {written}", inst.word, "", pad = 8 - digits);
    }
    // Initial values of whatever registers the code may mean.
    let used = case.code.iter().filter_map(|inst| inst.decode());
    let mut used: Vec<u8> = used.flat_map(|inst| [inst.rs1, inst.rs2, inst.rs3]).collect();
    used.sort_unstable();
    used.dedup();
    for r in used {
        let (x, f) = (word(&case.bytes, 8 * usize::from(r)), word(&case.bytes, F + 8 * usize::from(r)));
        let _ = writeln!(text, "  before: {}={x:#x} {}={f:#x}", reg_name(r), freg_name(r));
    }
    let _ =
        writeln!(text, "  before: fcsr={:#x} mstatus={:#x}", word(&case.bytes, FCSR), word(&case.bytes, CSR));
    for (who, result) in [("QEMU", judge), ("Pollux", ours)] {
        for [tag, cause, epc, tval, mstatus] in traps(result) {
            let to = if tag == 1 { 'S' } else { 'M' };
            let _ = write!(text, "  {who}: trap to {to}, cause {cause:#x}, epc {epc:#x}, tval {tval:#x}");
            let _ = writeln!(text, ", mstatus {mstatus:#x}");
        }
    }
    for at in differences(judge, ours).into_iter().take(DIFFERENCES_MAX) {
        let [before, theirs, mine] = [&case.bytes, judge, ours].map(|record| word(record, at));
        let name = name_of(at, case.base);
        let _ = writeln!(text, "  {name}: before {before:#x}, QEMU {theirs:#x}, Pollux {mine:#x}");
    }
    text
}
