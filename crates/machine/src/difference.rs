//! In what two machines, or a recording and its replay, differ first (DESIGN 2).
//!
//! Not here: how the first difference is found (`node`, `divergence`).

use alloc::string::String;
use core::fmt;
use pollux_vocab::PAGE_BYTES;

/// The first thing that differs. "Ours" is this side's, "theirs" the other's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Difference {
    /// The machines are made of other parts.
    Parts {
        /// Ours and theirs.
        harts: [usize; 2],
        /// Device sections, ours and theirs.
        devices: [usize; 2],
    },
    /// A page of memory.
    Page {
        /// Its number: guest physical address over the page's size.
        page: u64,
        /// Its hash here; `None` if it did not change here since the digest before.
        ours: Option<u64>,
        /// The same there.
        theirs: Option<u64>,
    },
    /// Memory, in pages that changed before the digest before, or in too many to name.
    Memory {
        /// Its hash here.
        ours: u64,
        /// Its hash there.
        theirs: u64,
    },
    /// The registers of a hart.
    Hart(usize),
    /// A device section, in the order of the digest.
    Device(usize),
    /// What happened: the log says what this machine's course rules out. In words.
    Course(String),
}

impl From<String> for Difference {
    fn from(what: String) -> Self {
        Self::Course(what)
    }
}

impl From<&str> for Difference {
    fn from(what: &str) -> Self {
        Self::Course(what.into())
    }
}

/// A page's hash, in words.
struct Hash(Option<u64>);

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(hash) => write!(f, "{hash:#018x}"),
            None => f.write_str("unchanged"),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parts { harts: [here, there], devices: [ours, theirs] } => write!(
                f,
                "the machines differ in kind: {here} harts and {ours} devices here, {there} and {theirs} there"
            ),
            Self::Page { page, ours, theirs } => write!(
                f,
                "page {page:#x} (guest address {:#x}) differs: {} here, {} there",
                page.saturating_mul(PAGE_BYTES),
                Hash(*ours),
                Hash(*theirs)
            ),
            Self::Memory { ours, theirs } => {
                write!(f, "RAM differs ({ours:#018x} here, {theirs:#018x} there) in pages changed earlier")
            }
            Self::Hart(hart) => write!(f, "the registers of hart {hart} differ"),
            Self::Device(device) => write!(f, "the state of device section {device} differs"),
            Self::Course(what) => f.write_str(what),
        }
    }
}
