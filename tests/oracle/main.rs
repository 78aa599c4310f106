//! The instruction oracle: a third party, QEMU, judges the computer.
//!
//! Random cases run as one bare-metal image on QEMU's `virt` board and, in this process, on Pollux; every
//! register, CSR, trap and byte of memory must be the same afterwards. A mismatch prints the seed, the case,
//! its disassembly and both results.
//!
//! `ORACLE_CASES` (how many), `ORACLE_FIRST` (from which on) and `ORACLE_SEED` choose what runs;
//! `ORACLE_ONLY=N` runs a single case.
//! Without QEMU the tests say so and pass, but fail where `CI=true`.

mod amend;
mod compare;
mod computer;
mod coverage;
mod generate;
mod privileged;
mod qemu;
mod random;
mod record;
mod unprivileged;

use computer::Manner;
use coverage::Coverage;
use record::{Batch, Case};
use std::env;
use std::io::Write;

/// Cases of the unprivileged suite when nothing else is said; of the privileged one a quarter. Seconds, with
/// optimisation.
const CASES: u64 = 80_000;
/// Most reports that a failing suite prints.
const REPORTS_MAX: usize = 6;

fn setting(name: &str, default: u64) -> u64 {
    let given = env::var(name).ok();
    given.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// Says something that is heard whether the test passes or not: only what macros print is held back.
fn tell(text: &str) {
    writeln!(std::io::stderr(), "{text}").expect("standard error can be written to");
}

/// Whether there is a judge. In CI there must be.
fn is_judge_there() -> bool {
    if qemu::is_there() {
        return true;
    }
    assert!(env::var("CI").as_deref() != Ok("true"), "no qemu-system-riscv64: run .ci/install-tools");
    tell("SKIPPED: no qemu-system-riscv64, so nobody judged the instructions; run .ci/install-tools");
    false
}

/// Runs `count` cases of a suite, in batches.
fn judge(name: &str, count: usize, stride: usize, case: impl Fn(u64, usize, usize) -> Case) -> Coverage {
    let seed = setting("ORACLE_SEED", 1);
    let only = env::var("ORACLE_ONLY").ok().map(|_| setting("ORACLE_ONLY", 0) as usize);
    let first = setting("ORACLE_FIRST", 0) as usize;
    let indices: Vec<usize> = only.map_or_else(|| (first..first + count).collect(), |index| vec![index]);
    let mut coverage = Coverage::default();
    let mut reports = Vec::new();
    for indices in indices.chunks(Batch::cases_max(stride).min(10_000)) {
        let cases = indices.iter().enumerate().map(|(place, &index)| case(seed, index, place)).collect();
        let batch = Batch { cases, stride };
        let image = batch.image();

        let (theirs, ours) = std::thread::scope(|scope| {
            let theirs = scope.spawn(|| qemu::run(&image));
            let ours = computer::run(&image, Manner::Straight);
            (theirs.join().expect("QEMU ran"), ours)
        });
        for manner in [Manner::Forgetful, Manner::TranslatedForgetful, Manner::TranslatedPlainly] {
            if indices[0] == 0 && computer::run(&image, manner) != ours {
                reports.push(format!("{manner:?}: not the same memory as from the interpreter in one go"));
            }
        }
        let translated = computer::run(&image, Manner::Translated);
        if translated != ours {
            tell("The JIT and the interpreter differ; for QEMU's result read the interpreter's");
            let found =
                compare::batch(seed, indices[0], &batch, &ours, &translated, &mut Coverage::default());
            reports.push(format!("the JIT left other memory in {} cases", found.len()));
            reports.extend(found);
        }
        let finished = [Batch::finished(&theirs), Batch::finished(&ours)];
        if finished != [indices.len() as u64; 2] {
            let stuck = finished[0].min(finished[1]) as usize;
            let case = &batch.cases[stuck];
            let (theirs, ours) = (batch.result(&theirs, stuck), batch.result(&ours, stuck));
            let report = compare::report(seed, indices[stuck], case, theirs, ours);
            reports.push(format!(
                "QEMU and Pollux finished {finished:?} of {} cases; then came {report}",
                indices.len()
            ));
        }
        reports.extend(compare::batch(seed, indices[0], &batch, &theirs, &ours, &mut coverage));
    }
    tell(&format!("{name}: {} cases, {} mismatches, seed {seed}", indices.len(), reports.len()));
    for report in reports.iter().take(REPORTS_MAX) {
        println!("{report}");
    }
    assert!(reports.is_empty(), "{name}: {} of {} cases differ", reports.len(), indices.len());
    coverage
}

#[test]
fn every_unprivileged_instruction_does_what_qemu_does() {
    if !is_judge_there() {
        return;
    }
    let rows = unprivileged::table();
    let count = setting("ORACLE_CASES", CASES) as usize;
    let coverage = judge("unprivileged", count, record::RECORD_BYTES, |seed, index, place| {
        unprivileged::case(seed, index, place, &rows)
    });
    println!("{}", coverage.table());
    let expected = rows.iter().map(|row| row.name());
    let missing = coverage.missing(expected);
    assert!(missing.is_empty() || env::var("ORACLE_ONLY").is_ok(), "never compared: {missing:?}");
}

#[test]
fn every_privileged_rule_is_what_qemu_takes_it_for() {
    if !is_judge_there() {
        return;
    }
    let count = setting("ORACLE_CASES", CASES) as usize / 4;
    let coverage = judge("privileged", count, privileged::STRIDE, privileged::case);
    println!("{}", coverage.table());
    let missing = coverage.missing(["mret", "sret", "wfi", "sfence.vma", "ecall", "csrrw"].into_iter());
    assert!(missing.is_empty() || env::var("ORACLE_ONLY").is_ok(), "never compared: {missing:?}");
}
