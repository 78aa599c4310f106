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
    shrink_while(plan.faults.len(), |kept| run(&plan.only(kept), prepared, false).violation.is_some())
}

/// The same of `count` faults, whatever failing means.
fn shrink_while(count: usize, mut fails: impl FnMut(&[usize]) -> bool) -> Vec<usize> {
    let mut kept: Vec<usize> = (0..count).collect();
    let mut at = 0;
    while at < kept.len() {
        let mut fewer = kept.clone();
        fewer.remove(at);
        if fails(&fewer) {
            (kept, at) = (fewer, 0);
        } else {
            at += 1;
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_what_the_failure_needs() {
        let needs = |kept: &[usize]| kept.contains(&1) && (kept.contains(&3) || kept.contains(&4));
        assert_eq!(shrink_while(6, needs), [1, 4]);
        assert_eq!(shrink_while(6, |_| true), [0; 0], "it fails without any fault");
        assert_eq!(shrink_while(3, |kept| kept.len() == 3), [0, 1, 2]);
    }
}
