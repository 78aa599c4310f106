//! Recordings: a header, the snapshot that the log starts from, then frames of records.
//!
//! ```text
//!   0  8 bytes  "PLXLOG\0\0"      12  u32  CRC32C of 0..12 and 16..24     24  the snapshot
//!   8  u16      format version    16  u64  length of the snapshot             then frames (see `frame`)
//!  10  u16      zero
//! ```
//!
//! A recording that was written to its end closes with an `End` frame. One that was cut off (the process was killed,
//! the disk was full) is good up to its last whole frame: [`Tail::Truncated`] says where that is.

use crate::frame::{FrameDecoder, FrameError};
use crate::message::Wire;
use alloc::vec::Vec;
use pollux_vocab::{Generation, Lsn, Record};

const MAGIC: [u8; 8] = *b"PLXLOG\0\0";
/// The format version that this build writes and reads.
pub const FORMAT: u16 = 1;
/// Bytes before the snapshot.
pub const HEADER_BYTES: usize = 24;

/// Why a recording cannot be read (on).
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LogError {
    /// Not a recording.
    #[error("this is not a recording of Pollux")]
    Magic,
    /// Somebody else's version.
    #[error("recording format {found}, this build reads {FORMAT}; use the version of Pollux that wrote it")]
    Format {
        /// Which.
        found: u16,
    },
    /// The header has changed or is cut off.
    #[error("the recording's header is damaged or cut off")]
    Header,
    /// A frame cannot be read.
    #[error("recording: {0}")]
    Frame(#[from] FrameError),
    /// A frame that belongs elsewhere.
    #[error("a {name} message has no place in a recording (byte {offset})")]
    Unexpected {
        /// What it is.
        name: &'static str,
        /// Where.
        offset: u64,
    },
    /// Records are missing.
    #[error("the recording ends after {found} records and says that it has {said}")]
    Missing {
        /// How many there are.
        found: u64,
        /// How many there should be.
        said: u64,
    },
}

/// The first bytes of a recording; the snapshot follows.
#[must_use]
pub fn encode_header(snapshot_bytes: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..10].copy_from_slice(&FORMAT.to_le_bytes());
    header[16..24].copy_from_slice(&snapshot_bytes.to_le_bytes());
    let crc = header_checksum(&header);
    header[12..16].copy_from_slice(&crc.to_le_bytes());
    header
}

fn header_checksum(header: &[u8; HEADER_BYTES]) -> u32 {
    let mut digest = crate::CRC32C.digest();
    digest.update(&header[..12]);
    digest.update(&header[16..]);
    digest.finalize()
}

/// Reads the first bytes of a recording: the length of the snapshot that follows.
pub fn decode_header(bytes: &[u8]) -> Result<u64, LogError> {
    let present = bytes.len().min(MAGIC.len());
    if bytes[..present] != MAGIC[..present] || bytes.is_empty() {
        return Err(LogError::Magic);
    }
    let Some((header, _)) = bytes.split_first_chunk::<HEADER_BYTES>() else { return Err(LogError::Header) };
    let found = u16::from_le_bytes([header[8], header[9]]);
    if found != FORMAT {
        return Err(LogError::Format { found });
    }
    if header[12..16] != header_checksum(header).to_le_bytes() {
        return Err(LogError::Header);
    }
    let mut length = [0; 8];
    length.copy_from_slice(&header[16..]);
    Ok(u64::from_le_bytes(length))
}

/// Frames of records for a recording.
#[must_use]
pub fn encode_records(records: Vec<Record>) -> Vec<u8> {
    Wire::Records { generation: Generation(0), released: Lsn(0), records }.encode()
}

/// The frame that closes a recording of `records` records.
#[must_use]
pub fn encode_end(records: u64) -> Vec<u8> {
    Wire::End { records }.encode()
}

/// How a recording ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tail {
    /// In good order.
    Closed,
    /// It was cut off; all before this offset (behind the snapshot) is good.
    Truncated {
        /// Offset of the first byte that is not.
        offset: u64,
    },
}

/// Reads the part of a recording behind the snapshot.
#[derive(Debug, Default)]
pub struct LogReader {
    decoder: FrameDecoder,
    read: u64,
    closed: bool,
}

impl LogReader {
    /// Takes the next bytes of the file.
    pub fn push(&mut self, bytes: &[u8]) {
        self.decoder.push(bytes);
    }

    /// The next batch of records; `None` until more bytes are pushed.
    pub fn poll(&mut self) -> Result<Option<Vec<Record>>, LogError> {
        let offset = self.decoder.offset();
        match self.decoder.poll()? {
            None => Ok(None),
            Some(wire) if self.closed => Err(LogError::Unexpected { name: wire.name(), offset }),
            Some(Wire::Records { records, .. }) => {
                self.read += records.len() as u64;
                Ok(Some(records))
            }
            Some(Wire::End { records }) if records == self.read => {
                self.closed = true;
                Ok(None)
            }
            Some(Wire::End { records }) => Err(LogError::Missing { found: self.read, said: records }),
            Some(other) => Err(LogError::Unexpected { name: other.name(), offset }),
        }
    }

    /// How the recording ends, once all its bytes have been pushed and polled.
    #[must_use]
    pub fn tail(&self) -> Tail {
        if self.closed && self.decoder.pending() == 0 {
            Tail::Closed
        } else {
            Tail::Truncated { offset: self.decoder.offset() }
        }
    }
}
