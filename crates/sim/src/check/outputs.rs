//! No output is contradicted, and none is missing: what was released before a takeover is the beginning of what the
//! survivor's machine has said, and the survivor's own releases go on from there, with repetitions but no gaps.
//!
//! That is asked of each run of the VM from its reset to its end, over all processes that took part in it, in the order
//! in which they joined: a backup follows its primary.

use super::Broken;
use crate::fault::{HostId, NAMES};
use crate::machines::Tally;
use pollux_vocab::Icount;
use std::cell::RefCell;
use std::rc::Rc;

const NAME: &str = "no output is contradicted";

/// Fingerprints of outputs, run by run.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    runs: Vec<Vec<Member>>,
}

/// A process that took part in a run.
#[derive(Debug)]
struct Member {
    host: HostId,
    /// What the world has seen.
    released: Vec<u64>,
    /// What its machine has said, with the instants.
    tally: Rc<RefCell<Tally>>,
}

impl Outputs {
    /// The VM starts from its reset.
    pub(crate) fn handle_run(&mut self) {
        self.runs.push(Vec::new());
    }

    /// A process joins the newest run.
    pub(crate) fn handle_start(&mut self, host: HostId, tally: Rc<RefCell<Tally>>) {
        if let Some(run) = self.runs.last_mut() {
            run.push(Member { host, released: Vec::new(), tally });
        }
    }

    /// The newest process on this host has released an output; says which one of its own that is.
    pub(crate) fn handle_release(&mut self, host: HostId, print: u64) -> usize {
        let mut members = self.runs.iter_mut().flatten();
        let Some(member) = members.rfind(|member| member.host == host) else { return 0 };
        member.released.push(print);
        member.released.len() - 1
    }

    /// How many were released.
    pub(crate) fn count(&self) -> u64 {
        self.runs.iter().flatten().map(|member| member.released.len() as u64).sum()
    }

    /// Judges everything.
    pub(crate) fn judge(&self) -> Result<(), Broken> {
        self.runs.iter().try_for_each(|run| judge_run(run))
    }
}

/// Judges one run of the VM.
fn judge_run(run: &[Member]) -> Result<(), Broken> {
    // What the world was told, in the order of the machine's outputs.
    let mut told: Vec<u64> = Vec::new();
    for Member { host, released, tally } in run {
        let made = &tally.borrow().made;
        if released.is_empty() {
            continue;
        }
        // Whoever took over must have said everything that was released before it.
        follows(&told, made, 0, *host)?;
        if told.is_empty() {
            follows(released, made, 0, *host)?;
        }
        let start = (0..=told.len()).find(|start| follows(released, made, *start, *host).is_ok());
        let Some(start) = start else {
            let (before, after, name) = (told.len(), released.len(), NAMES[*host]);
            let what = format!(
                "after {before} outputs {name} released {after} that do not go on from there without a gap"
            );
            return Err(Broken(NAME, what));
        };
        let repeated = told.len() - start;
        told.extend(released.iter().skip(repeated));
    }
    Ok(())
}

/// Whether `released` is what a machine has `made`, from number `start` on.
fn follows(released: &[u64], made: &[(Icount, u64)], start: usize, host: HostId) -> Result<(), Broken> {
    let name = NAMES[host];
    let Some(made) = made.get(start..).filter(|made| made.len() >= released.len()) else {
        let (released, made) = (released.len(), made.len());
        let what = format!("{released} outputs were released, the machine of {name} has made only {made}");
        return Err(Broken(NAME, what));
    };
    let unequal = released.iter().zip(made).position(|(released, (_, made))| released != made);
    match unequal {
        None => Ok(()),
        Some(index) => {
            let icount = made[index].0;
            let what = format!(
                "output {} was released, and the machine of {name} said something else (at icount {icount})",
                start + index
            );
            Err(Broken(NAME, what))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of each process: what it released, and what its machine made.
    fn judge(processes: &[(&[u64], &[u64])]) -> bool {
        let mut outputs = Outputs::default();
        outputs.handle_run();
        for (host, (released, made)) in processes.iter().enumerate() {
            let made = made.iter().map(|print| (Icount(0), *print)).collect();
            outputs.handle_start(host, Rc::new(RefCell::new(Tally { steps: 0, made })));
            released.iter().for_each(|print| {
                outputs.handle_release(host, *print);
            });
        }
        outputs.judge().is_ok()
    }

    #[test]
    fn repetitions_are_fine_and_gaps_and_contradictions_are_not() {
        assert!(judge(&[(&[1, 2], &[1, 2, 3]), (&[], &[])]));
        assert!(judge(&[(&[1, 2], &[1, 2, 9]), (&[2, 3], &[1, 2, 3])]), "only held outputs may differ");
        assert!(judge(&[(&[1, 2], &[1, 2]), (&[3], &[1, 2, 3])]), "no repetition");
        assert!(!judge(&[(&[1, 2], &[1, 2]), (&[4], &[1, 2, 3, 4])]), "a gap");
        assert!(!judge(&[(&[1, 2], &[1, 2]), (&[3], &[1, 7, 3])]), "contradicted");
        assert!(!judge(&[(&[1, 2], &[1, 2]), (&[9], &[1])]), "the survivor stands before what was released");
    }

    #[test]
    fn a_third_survivor_goes_on_from_what_the_first_two_released() {
        let two = [(&[1, 2][..], &[1, 2][..]), (&[2, 3], &[1, 2, 3, 4])];
        assert!(judge(&[two[0], two[1], (&[4], &[1, 2, 3, 4])]));
        assert!(!judge(&[two[0], two[1], (&[5], &[1, 2, 3, 4, 5])]), "a gap behind the second");
        assert!(!judge(&[two[0], two[1], (&[2], &[1, 2, 9])]), "the second is contradicted");
    }

    #[test]
    fn a_vm_that_starts_anew_begins_with_its_first_output() {
        let mut outputs = Outputs::default();
        for (host, made) in [(0, [1, 2]), (2, [7, 8])] {
            outputs.handle_run();
            let made = made.map(|print| (Icount(0), print)).to_vec();
            outputs.handle_start(host, Rc::new(RefCell::new(Tally { steps: 0, made })));
            assert_eq!(outputs.handle_release(host, if host == 0 { 1 } else { 7 }), 0);
        }
        assert!(outputs.judge().is_ok());
        outputs.handle_release(2, 9);
        assert!(outputs.judge().is_err());
    }
}
