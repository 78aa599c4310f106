//! Makes the schedule of a failing run smaller: takes faults out for as long as the run still fails.
//!
//! Any violation counts, not only the first one's property: a smaller schedule that breaks something else is at
//! least as good a report. The result is minimal in that no single fault can be taken out of it.

use crate::machines::guest::Prepared;
use crate::plan::Plan;
use crate::run::run;

/// The numbers of the faults in the smallest schedule found, for [`Plan::only`]. `plan` must fail.
#[must_use]
pub fn shrink(plan: &Plan, prepared: &Prepared) -> Vec<usize> {
    let mut kept: Vec<usize> = (0..plan.faults.len()).collect();
    let mut at = 0;
    while at < kept.len() {
        let mut fewer = kept.clone();
        fewer.remove(at);
        if run(&plan.only(&fewer), prepared, false).violation.is_some() {
            (kept, at) = (fewer, 0);
        } else {
            at += 1;
        }
    }
    kept
}
