//! The replicas are equal: the digests that both sides take are compared a second time, by somebody who is neither.

use super::Broken;
use crate::fault::HostId;
use pollux_vocab::{Digest, Icount};
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_64;

/// The digests that each host has taken, in order, and how many of them were compared.
#[derive(Debug, Default)]
pub(crate) struct Digests {
    taken: BTreeMap<HostId, Vec<(Icount, u64)>>,
    pub(crate) compared: usize,
}

impl Digests {
    /// A host has taken one. `primary`: whom it backs up; the log told it to take what the primary took.
    pub(crate) fn handle(
        &mut self,
        host: HostId,
        primary: Option<HostId>,
        icount: Icount,
        digest: &Digest,
    ) -> Result<(), Broken> {
        let own = (icount, print(digest));
        let number = self.taken.get(&host).map_or(0, Vec::len);
        self.taken.entry(host).or_default().push(own);
        let Some(primary) = primary else { return Ok(()) };
        self.compared += 1;
        let theirs = self.taken.get(&primary).and_then(|taken| taken.get(number));
        if theirs == Some(&own) {
            return Ok(());
        }
        let what =
            format!("digest {number} differs: the backup is at icount {icount}, the primary {theirs:?}");
        Err(Broken("replicas are equal", what))
    }

    /// A new process on this host has taken none.
    pub(crate) fn forget(&mut self, host: HostId) {
        self.taken.remove(&host);
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
