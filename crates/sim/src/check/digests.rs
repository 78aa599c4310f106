//! The replicas are equal: the digests that both sides take are compared a second time, by somebody who is neither.

use super::Broken;
use pollux_vocab::{Digest, Icount};
use xxhash_rust::xxh3::xxh3_64;

/// The digests of the primary, in order, and how many the backup has taken of the same.
#[derive(Debug, Default)]
pub(crate) struct Digests {
    primary: Vec<(Icount, u64)>,
    pub(crate) compared: usize,
}

impl Digests {
    /// The first primary has taken one.
    pub(crate) fn handle_primary(&mut self, icount: Icount, digest: &Digest) {
        self.primary.push((icount, print(digest)));
    }

    /// The backup has taken the next one, where the log told it to.
    pub(crate) fn handle_backup(&mut self, icount: Icount, digest: &Digest) -> Result<(), Broken> {
        let theirs = self.primary.get(self.compared);
        self.compared += 1;
        if theirs == Some(&(icount, print(digest))) {
            return Ok(());
        }
        let what = format!(
            "digest {} differs: the backup is at icount {icount}, the primary {theirs:?}",
            self.compared
        );
        Err(Broken("replicas are equal", what))
    }
}

fn print(digest: &Digest) -> u64 {
    let words: Vec<u8> = digest
        .harts
        .iter()
        .chain(&digest.devices)
        .chain([&digest.ram])
        .flat_map(|word| word.to_le_bytes())
        .collect();
    xxh3_64(&words)
}
