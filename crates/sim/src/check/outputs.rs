//! No output is contradicted, and none is missing: what the first primary released is the beginning of what the
//! survivor's machine has said, and the survivor's own releases go on from there, with repetitions but no gaps.

use super::Broken;
use crate::fault::NAMES;
use pollux_vocab::Icount;

const NAME: &str = "no output is contradicted";

/// Fingerprints of outputs. Index: host.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    /// What the world has seen.
    pub(crate) released: [Vec<u64>; 2],
}

impl Outputs {
    /// Judges the whole run. `made` is what each host's machine has said, with the instants.
    pub(crate) fn judge(&self, made: [&[(Icount, u64)]; 2]) -> Result<(), Broken> {
        let [first, second] = &self.released;
        follows(first, made[0], 0, 0)?;
        if second.is_empty() {
            return Ok(());
        }
        // Whoever took over must have said everything that was released before it.
        follows(first, made[1], 0, 1)?;
        let starts = (0..=first.len()).find(|start| follows(second, made[1], *start, 1).is_ok());
        if starts.is_none() {
            let (before, after) = (first.len(), second.len());
            return Err(Broken(
                NAME,
                format!(
                    "after {before} outputs of {}, {} released {after} that do not go on from there without a gap",
                    NAMES[0], NAMES[1]
                ),
            ));
        }
        Ok(())
    }
}

/// Whether `released` is what a machine has `made`, from number `start` on.
fn follows(released: &[u64], made: &[(Icount, u64)], start: usize, host: usize) -> Result<(), Broken> {
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

    fn judge(released: [&[u64]; 2], made: [&[u64]; 2]) -> bool {
        let at = |prints: &[u64]| prints.iter().map(|print| (Icount(0), *print)).collect::<Vec<_>>();
        let (first, second) = (at(made[0]), at(made[1]));
        let released = released.map(<[u64]>::to_vec);
        Outputs { released }.judge([&first, &second]).is_ok()
    }

    #[test]
    fn repetitions_are_fine_and_gaps_and_contradictions_are_not() {
        assert!(judge([&[1, 2], &[]], [&[1, 2, 3], &[]]));
        assert!(judge([&[1, 2], &[2, 3]], [&[1, 2, 9], &[1, 2, 3]]), "only held outputs may differ");
        assert!(judge([&[1, 2], &[3]], [&[1, 2], &[1, 2, 3]]), "no repetition");
        assert!(!judge([&[1, 2], &[4]], [&[1, 2], &[1, 2, 3, 4]]), "a gap");
        assert!(!judge([&[1, 2], &[3]], [&[1, 2], &[1, 7, 3]]), "contradicted");
        assert!(!judge([&[1, 2], &[9]], [&[1, 2], &[1]]), "the survivor stands before what was released");
    }
}
