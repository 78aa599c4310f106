//! Snapshots: a fixed raw header, then sections `(kind, version, length, checksum)` (LAYOUT).
//!
//! ```text
//!   0  8 bytes  "PLXSNAP\0"           per section, back to back:
//!   8  u16      format version         0  u16  kind
//!  10  u16      number of sections     2  u16  version of the kind
//!  12  u32      CRC32C of 0..12        4  u32  CRC32C of the bytes
//!                                      8  u64  length, then the bytes
//! ```
//!
//! A reader takes the sections that it knows; one that is left over is an error, and so is a byte behind the last.

use crate::crc32c;
use alloc::vec::Vec;

const MAGIC: [u8; 8] = *b"PLXSNAP\0";
/// The format version that this build writes and reads.
pub const FORMAT: u16 = 1;
const HEADER_BYTES: usize = 16;
const SECTION_BYTES: usize = 16;

/// Why a snapshot's container cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ContainerError {
    /// Not a snapshot.
    #[error("this is not a snapshot of Pollux")]
    Magic,
    /// Somebody else's version.
    #[error("snapshot format {found}, this build reads {FORMAT}; use the version of Pollux that wrote it")]
    Format {
        /// Which.
        found: u16,
    },
    /// The header has changed.
    #[error("the snapshot's header is damaged")]
    Header,
    /// It ends too early.
    #[error("the snapshot is cut off after {bytes} bytes, in section {index} of {count}")]
    Truncated {
        /// Its length.
        bytes: usize,
        /// The section that is not whole.
        index: u16,
        /// How many there should be.
        count: u16,
    },
    /// A section has changed.
    #[error("section {kind:#06x} of the snapshot is damaged: its checksum does not match")]
    Checksum {
        /// Which.
        kind: u16,
    },
    /// There is more than there should be.
    #[error("{bytes} bytes follow the snapshot's last section")]
    Trailing {
        /// How many.
        bytes: usize,
    },
}

/// Lays sections into a container.
#[must_use]
pub fn encode<'a>(sections: impl ExactSizeIterator<Item = (u16, u16, &'a [u8])>) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&(sections.len() as u16).to_le_bytes());
    bytes.extend_from_slice(&crc32c(&bytes).to_le_bytes());
    for (kind, version, section) in sections {
        bytes.extend_from_slice(&kind.to_le_bytes());
        bytes.extend_from_slice(&version.to_le_bytes());
        bytes.extend_from_slice(&crc32c(section).to_le_bytes());
        bytes.extend_from_slice(&(section.len() as u64).to_le_bytes());
        bytes.extend_from_slice(section);
    }
    bytes
}

/// The sections of a container, `(kind, version, bytes)`, all checksums checked.
pub fn decode(snapshot: &[u8]) -> Result<Vec<(u16, u16, &[u8])>, ContainerError> {
    let bytes = snapshot.len();
    let present = bytes.min(MAGIC.len());
    if snapshot[..present] != MAGIC[..present] || bytes == 0 {
        return Err(ContainerError::Magic);
    }
    let Some((header, mut rest)) = snapshot.split_first_chunk::<HEADER_BYTES>() else {
        return Err(ContainerError::Truncated { bytes, index: 0, count: 0 });
    };
    let half = |b: &[u8], at: usize| u16::from_le_bytes([b[at], b[at + 1]]);
    let word = |b: &[u8], at: usize| u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
    let found = half(header, 8);
    if found != FORMAT {
        return Err(ContainerError::Format { found });
    }
    if word(header, 12) != crc32c(&header[..12]) {
        return Err(ContainerError::Header);
    }
    let count = half(header, 10);
    let mut sections = Vec::new();
    for index in 0..count {
        let truncated = ContainerError::Truncated { bytes, index, count };
        let Some((head, body)) = rest.split_first_chunk::<SECTION_BYTES>() else { return Err(truncated) };
        let mut length = [0; 8];
        length.copy_from_slice(&head[8..16]);
        let Some((section, left)) =
            usize::try_from(u64::from_le_bytes(length)).ok().and_then(|n| body.split_at_checked(n))
        else {
            return Err(truncated);
        };
        let kind = half(head, 0);
        if crc32c(section) != word(head, 4) {
            return Err(ContainerError::Checksum { kind });
        }
        sections.push((kind, half(head, 2), section));
        rest = left;
    }
    if rest.is_empty() { Ok(sections) } else { Err(ContainerError::Trailing { bytes: rest.len() }) }
}
