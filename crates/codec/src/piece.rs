//! Long frames in pieces: what is short may be said between two of them, and the receiver of a slow link sees a whole
//! frame often.
//!
//! A piece's payload is the next bytes of a whole Records frame, header and all; behind the last one the frame is
//! complete. Invariant: a receiver holds no more than it was sent, and never more than one frame may have.
//!
//! Layout: `docs/wire.md`, "Pieces". Not here: what may be sent between pieces, and when (`pollux-host`).

use crate::frame::{self, Frame, FrameError, HEADER_BYTES, Packing};
use crate::message::kind;
use alloc::vec::Vec;
use pollux_vocab::Generation;

/// Most bytes in a piece: at 1 Mbit/s half of the shortest failure timeout that makes sense there.
pub const PIECE_BYTES_MAX: usize = 16 << 10;

/// Appends `frames` (whole ones) with every Records frame that is longer than a piece cut into such.
pub(crate) fn cut(out: &mut Vec<u8>, frames: &[u8]) {
    let mut rest = frames;
    while let Some(len) = frame::whole_bytes(rest) {
        let (whole, behind) = rest.split_at(len.min(rest.len()));
        if whole.len() > HEADER_BYTES + PIECE_BYTES_MAX && frame::kind_of(whole) == Some(kind::RECORDS) {
            let generation = frame::generation_of(whole).unwrap_or(Generation(0));
            for piece in whole.chunks(PIECE_BYTES_MAX) {
                frame::encode(out, kind::PIECE, generation, piece, Packing::Plain);
            }
        } else {
            out.extend_from_slice(whole);
        }
        rest = behind;
    }
}

/// A frame that comes in pieces.
#[derive(Clone, Debug, Default)]
pub(crate) struct Assembly {
    bytes: Vec<u8>,
    /// Where the first piece starts in the stream.
    offset: u64,
}

impl Assembly {
    /// Whether a frame has begun and is not whole yet.
    pub(crate) fn is_open(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// Takes the next piece; gives the frame once it is whole.
    pub(crate) fn push(&mut self, piece: &Frame) -> Result<Option<Frame>, FrameError> {
        let offset = piece.offset;
        let wrong = |what| FrameError::Piece { offset, what };
        if piece.payload.is_empty() || piece.payload.len() > PIECE_BYTES_MAX {
            return Err(wrong("has no bytes, or more than a piece may have"));
        }
        if !self.is_open() {
            self.offset = offset;
        }
        self.bytes.extend_from_slice(&piece.payload);
        let Some(head) = self.bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(wrong("is the first one and shorter than a frame's header"));
        };
        let header = frame::header(head, self.offset)?;
        if header.kind != kind::RECORDS || header.generation != piece.generation {
            return Err(wrong("is not of a batch of records of its own generation"));
        }
        let whole = HEADER_BYTES + header.stored_bytes;
        if self.bytes.len() > whole {
            return Err(wrong("goes on behind the end of its frame"));
        }
        if self.bytes.len() < whole {
            return Ok(None);
        }
        let bytes = core::mem::take(&mut self.bytes);
        frame::open(&header, &bytes[HEADER_BYTES..], self.offset).map(Some)
    }
}
