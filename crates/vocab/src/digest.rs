//! The state digest: what two replicas compare to prove that they are still the same machine (DESIGN 2).

use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// A digest of the whole machine at some icount. Equal digests: equal machines.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Digest {
    /// One hash per hart: registers, CSRs, privilege, reservation.
    pub harts: Vec<u64>,
    /// One hash per device section, in board order (the names are the board's).
    pub devices: Vec<u64>,
    /// All of RAM: the wrapping sum of its page hashes.
    pub ram: u64,
    /// The pages that changed since the previous digest, so that a divergence can be named; empty if there
    /// were more than the producer's bound.
    pub changed: Vec<PageHash>,
}

/// The hash of one page of RAM.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct PageHash {
    /// Guest physical page number (address / 4096).
    pub page: u64,
    /// Its hash; 0 for a page of zeros.
    pub hash: u64,
}
