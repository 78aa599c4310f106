//! Frames: how messages lie in a byte stream or a file.
//!
//! Twelve bytes of header, little-endian, then the payload:
//!
//! ```text
//!   0  u16  magic 0x4c50 ("PL")     4  u32  payload length, at most 64 MiB
//!   2  u8   protocol version        8  u32  CRC32C of bytes 0..8 and the payload
//!   3  u8   kind
//! ```
//!
//! The version stands in every header, before anything that a version could have changed, so that two versions
//! that meet always say so. There is no resynchronisation: after damage nothing that follows can be trusted.

use crate::message::Wire;
use alloc::vec::Vec;

/// "PL".
pub const MAGIC: u16 = 0x4c50;
/// The version of the protocol that this build speaks.
pub const VERSION: u8 = 1;
/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 12;
/// The longest payload.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 20;
/// Consumed bytes are cut off the buffer once there are this many.
const COMPACT_BYTES: usize = 1 << 20;

/// Why a stream of frames cannot be read on.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// There is no frame.
    #[error("no frame at byte {offset}: this is not a stream of Pollux, or it is damaged")]
    Magic {
        /// Where.
        offset: u64,
    },
    /// Somebody else's version.
    #[error("protocol version {found} at byte {offset}, this build speaks {VERSION}; run the same version of Pollux on both sides")]
    Version {
        /// Where.
        offset: u64,
        /// Which.
        found: u8,
    },
    /// A frame longer than any.
    #[error("a frame of {bytes} bytes at byte {offset}; frames have at most {PAYLOAD_BYTES_MAX}")]
    TooLong {
        /// Where.
        offset: u64,
        /// How long it says it is.
        bytes: u32,
    },
    /// Bits have changed.
    #[error("damaged frame at byte {offset}: its checksum does not match")]
    Checksum {
        /// Where.
        offset: u64,
    },
    /// The frame is whole, but says nothing that this build understands.
    #[error("frame of kind {kind} at byte {offset} does not hold what it should")]
    Malformed {
        /// Where.
        offset: u64,
        /// Which kind.
        kind: u8,
    },
}

fn checksum(header: &[u8], payload: &[u8]) -> u32 {
    let mut digest = crate::CRC32C.digest();
    digest.update(header);
    digest.update(payload);
    digest.finalize()
}

/// Lays a payload into a frame. A payload longer than [`PAYLOAD_BYTES_MAX`] is a bug of the caller's.
#[must_use]
pub fn encode(kind: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() <= PAYLOAD_BYTES_MAX, "the caller splits what is longer");
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
    bytes.extend_from_slice(&MAGIC.to_le_bytes());
    bytes.extend_from_slice(&[VERSION, kind]);
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    let crc = checksum(&bytes, payload);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Finds frames in a stream, whatever pieces it arrives in.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    buffer: Vec<u8>,
    start: usize,
    /// Offset in the stream of `buffer[start]`.
    offset: u64,
}

impl FrameDecoder {
    /// A decoder at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start >= COMPACT_BYTES || self.start == self.buffer.len() {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next message, if it has arrived whole.
    pub fn poll(&mut self) -> Result<Option<Wire>, FrameError> {
        let offset = self.offset;
        let Some((kind, payload, length)) = self.peek()? else { return Ok(None) };
        let wire = Wire::decode(kind, payload).ok_or(FrameError::Malformed { offset, kind })?;
        self.start += length;
        self.offset += length as u64;
        Ok(Some(wire))
    }

    fn peek(&self) -> Result<Option<(u8, &[u8], usize)>, FrameError> {
        let offset = self.offset;
        let bytes = &self.buffer[self.start..];
        // What is there of the magic must be right: garbage is not waited for.
        let magic = MAGIC.to_le_bytes();
        if bytes.iter().zip(&magic).any(|(a, b)| a != b) {
            return Err(FrameError::Magic { offset });
        }
        if let Some(&found) = bytes.get(2)
            && found != VERSION
        {
            return Err(FrameError::Version { offset, found });
        }
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let length = word(4);
        if length as usize > PAYLOAD_BYTES_MAX {
            return Err(FrameError::TooLong { offset, bytes: length });
        }
        let Some(payload) = rest.get(..length as usize) else { return Ok(None) };
        if checksum(&header[..8], payload) != word(8) {
            return Err(FrameError::Checksum { offset });
        }
        Ok(Some((header[3], payload, HEADER_BYTES + length as usize)))
    }

    /// Offset in the stream of the next frame.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes of an unfinished frame.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// Gives the unread bytes back and starts a new stream.
    pub fn take_rest(&mut self) -> Vec<u8> {
        let rest = self.buffer.split_off(self.start);
        *self = Self::default();
        rest
    }
}
