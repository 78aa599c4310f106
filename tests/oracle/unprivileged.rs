//! The first suite: every instruction that computes, in random sequences, in machine mode with nothing in
//! the way. Traps are logged and stepped over.

use crate::generate::{Row, Writer, is_unprivileged, rows};
use crate::random::Random;
use crate::record::{
    Batch, CODE, Case, END, ENTRY, F, FCSR, LOG_TRAPS, RECORD_BYTES, SCRATCH, SCRATCH_BYTES, TRAPS_MAX,
};

const MPP_MACHINE: u64 = 3 << 11;
const MPIE: u64 = 1 << 7;

/// Case `index` of the suite under `seed`, at its place in a batch.
pub(crate) fn case(seed: u64, index: usize, place: usize, rows: &[Row]) -> Case {
    let mut random = Random::of_case(seed, index);
    let case = Case::new(Batch::base(place, RECORD_BYTES), RECORD_BYTES);
    let mut writer = Writer::new(case, &mut random);
    // Every row has its turn, then chance decides.
    writer.emit(rows[index % rows.len()]);
    let count = 3 + writer.random.below(9);
    while writer.case.code.len() < count && writer.has_room() {
        match writer.random.below(40) {
            0 => writer.emit_noise(),
            1 => writer.emit_reservation(),
            2 => writer.emit_self_modification(),
            _ => {
                let row = writer.random.pick(rows);
                writer.emit(row);
            }
        }
    }
    let (mut case, end) = writer.finish();
    case.write_code(CODE);
    state(&mut case, end, &mut random);
    case
}

/// Fills in what is not code.
fn state(case: &mut Case, end: u64, random: &mut Random) {
    let fs = if random.chance(93) { 3 } else { random.next() & 3 };
    case.set_csr("mstatus", MPP_MACHINE | fs << 13 | if random.chance(50) { MPIE } else { 0 });
    case.set(ENTRY, case.code_base);
    case.set(END, end);
    case.set(TRAPS_MAX, LOG_TRAPS as u64);
    let frm = if random.chance(90) { random.next() % 5 } else { random.next() & 7 };
    case.set(FCSR, frm << 5 | random.next() & 31);
    for f in 0..32 {
        case.set(F + 8 * f, random.float());
    }
    for at in (SCRATCH..SCRATCH + SCRATCH_BYTES).step_by(8) {
        let value = if random.chance(50) { random.integer() } else { random.float() };
        case.set(at, value);
    }
}

/// The rows of the suite.
pub(crate) fn table() -> Vec<Row> {
    rows(is_unprivileged)
}
