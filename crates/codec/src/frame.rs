//! Frames: a payload in an envelope that shows damage before the payload is believed.
//!
//! The same frames make up the channel between replicas and the log file. Invariant: a frame that comes out
//! of [`FrameDecoder`] is one that was put in. Damage is an error that names the byte where it lies, and the
//! decoder stays at it: there is no search for a next frame, because records that follow a gap are worthless.
//!
//! The first four bytes (magic and version) keep their place in every version to come and are read before
//! anything that a version could have changed, so that two versions that meet always say so. The version
//! covers the frame and the messages in it. Layout: `docs/wire.md`, "Frame".
//!
//! Not here: what payloads mean ([`crate::message`], [`crate::record`]); frames in pieces ([`crate::piece`]).

use crate::crc::crc32c;
use crate::message::{Wire, kind};
use crate::piece::Assembly;
use crate::record::RecordError;
use crate::varint::Cursor;
use alloc::vec::Vec;
use pollux_vocab::Generation;

/// The first three bytes of every frame.
pub const MAGIC: [u8; 3] = *b"PLX";
/// The version of frames and messages that this build writes.
pub const VERSION: u8 = 3;
/// The oldest one that it reads: version 2 is version 3 with a Hello that names no machine, version 1 has no pieces
/// either.
pub const VERSION_OLDEST: u8 = 1;
/// Bytes before the payload.
pub const HEADER_BYTES: usize = 28;
/// Most bytes a payload may have, packed or not: 64 MiB.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 20;

/// Flag: the payload is its plain length (u32) and then one LZ4 block.
const FLAG_LZ4: u8 = 1;
/// Shorter payloads are not worth packing.
const PACK_BYTES_MIN: usize = 128;
/// An LZ4 block never expands to more than this many times its size (its format: 255 per length byte).
const LZ4_RATIO_MAX: usize = 255;

/// Why a stream of frames cannot be read on. Offsets count bytes from the stream's start.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// not a Pollux frame
    #[error(
        "byte {offset}: no Pollux frame starts with {found:02x?}; the peer or file is something else, or damaged"
    )]
    NotAFrame {
        /// Where the frame should start.
        offset: u64,
        /// What is there.
        found: [u8; 4],
    },
    /// a frame of another version
    #[error(
        "byte {offset}: a frame of version {found}, this build speaks version {VERSION}; run the same version of Pollux on both sides"
    )]
    Version {
        /// Where the frame starts.
        offset: u64,
        /// Its version.
        found: u8,
    },
    /// a damaged header
    #[error("byte {offset}: checksum mismatch in a frame's header; the stream is damaged from here on")]
    HeaderDamaged {
        /// Where the frame starts.
        offset: u64,
    },
    /// flags that this build does not know
    #[error(
        "byte {offset}: a frame with unknown flags {flags:#04x}; run the same version of Pollux on both sides"
    )]
    Flags {
        /// Where the frame starts.
        offset: u64,
        /// Its flags.
        flags: u8,
    },
    /// a frame that is too long
    #[error("byte {offset}: a frame of {bytes} bytes, more than the {PAYLOAD_BYTES_MAX} allowed")]
    TooLong {
        /// Where the frame starts.
        offset: u64,
        /// The length of its payload.
        bytes: u64,
    },
    /// a damaged payload
    #[error("byte {offset}: checksum mismatch in a frame's payload; the stream is damaged from here on")]
    PayloadDamaged {
        /// Where the frame starts.
        offset: u64,
    },
    /// a payload that does not unpack
    #[error("byte {offset}: a frame's payload does not unpack; its writer is faulty")]
    Unpackable {
        /// Where the frame starts.
        offset: u64,
    },
    /// a message that this build does not know
    #[error("byte {offset}: a message of unknown kind {kind}; run the same version of Pollux on both sides")]
    UnknownKind {
        /// Where its frame starts.
        offset: u64,
        /// Its kind.
        kind: u8,
    },
    /// a message that does not hold what it should
    #[error("byte {offset}: a {name} message does not hold what it should; its writer is faulty")]
    Malformed {
        /// Where its frame starts.
        offset: u64,
        /// Which message.
        name: &'static str,
    },
    /// a batch of records that does not hold what it should
    #[error("byte {offset}: {error}")]
    Records {
        /// Where its frame starts.
        offset: u64,
        /// What is wrong.
        error: RecordError,
    },
    /// a piece of a frame that does not fit
    #[error("byte {offset}: a piece of a frame {what}; its writer is faulty")]
    Piece {
        /// Where its own frame starts.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
}

impl FrameError {
    /// Where the damaged frame starts.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        match *self {
            Self::NotAFrame { offset, .. }
            | Self::Version { offset, .. }
            | Self::HeaderDamaged { offset }
            | Self::Flags { offset, .. }
            | Self::TooLong { offset, .. }
            | Self::PayloadDamaged { offset }
            | Self::Unpackable { offset }
            | Self::UnknownKind { offset, .. }
            | Self::Malformed { offset, .. }
            | Self::Records { offset, .. }
            | Self::Piece { offset, .. } => offset,
        }
    }
}

/// A frame, unpacked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Frame {
    /// Where it started in the stream, in bytes.
    pub(crate) offset: u64,
    /// The version that it was written in.
    pub(crate) version: u8,
    /// What the payload is.
    pub(crate) kind: u8,
    /// The sender's generation; 0 before there is one.
    pub(crate) generation: Generation,
    /// The content.
    pub(crate) payload: Vec<u8>,
}

/// Whether [`encode`] may pack a payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Packing {
    /// As it is.
    Plain,
    /// LZ4, if that makes it smaller by a sixteenth or more.
    Lz4,
}

/// Appends a frame. A payload of more than [`PAYLOAD_BYTES_MAX`] bytes makes a frame that decoders refuse.
pub fn encode(out: &mut Vec<u8>, kind: u8, generation: Generation, payload: &[u8], packing: Packing) {
    let packed = (packing == Packing::Lz4).then(|| pack(payload)).flatten();
    let stored = packed.as_deref().unwrap_or(payload);
    out.reserve(HEADER_BYTES + stored.len());
    let start = out.len();
    out.extend_from_slice(&MAGIC);
    out.push(VERSION);
    out.push(kind);
    out.push(if packed.is_some() { FLAG_LZ4 } else { 0 });
    out.extend_from_slice(&[0; 2]);
    // Longer than 32 bits is longer than allowed all the same.
    out.extend_from_slice(&u32::try_from(stored.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&generation.0.to_le_bytes());
    out.extend_from_slice(&crc32c(stored).to_le_bytes());
    let header_crc = crc32c(&out[start..]);
    out.extend_from_slice(&header_crc.to_le_bytes());
    out.extend_from_slice(stored);
}

/// The payload packed, if that is worth it.
fn pack(payload: &[u8]) -> Option<Vec<u8>> {
    if !(PACK_BYTES_MIN..=PAYLOAD_BYTES_MAX).contains(&payload.len()) {
        return None;
    }
    let mut packed = alloc::vec![0; 4 + lz4_flex::block::get_maximum_output_size(payload.len())];
    packed[..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    let len = 4 + lz4_flex::block::compress_into(payload, &mut packed[4..]).ok()?;
    packed.truncate(len);
    (len + payload.len() / 16 <= payload.len()).then_some(packed)
}

fn unpack(stored: &[u8]) -> Option<Vec<u8>> {
    let (len, block) = stored.split_first_chunk::<4>()?;
    let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
    if len > PAYLOAD_BYTES_MAX || len > block.len().saturating_mul(LZ4_RATIO_MAX) {
        return None;
    }
    let mut payload = alloc::vec![0; len];
    let written = lz4_flex::block::decompress_into(block, &mut payload).ok()?;
    (written == len).then_some(payload)
}

/// The first bytes of a frame, checked.
pub(crate) struct Header {
    version: u8,
    pub(crate) kind: u8,
    flags: u8,
    pub(crate) stored_bytes: usize,
    pub(crate) generation: Generation,
    payload_crc: u32,
}

/// How many bytes the frame at the start of `bytes` has, going by its header alone; `None` if that is not there.
#[must_use]
pub fn whole_bytes(bytes: &[u8]) -> Option<usize> {
    let stored = bytes.get(8..HEADER_BYTES)?.first_chunk::<4>()?;
    usize::try_from(u32::from_le_bytes(*stored)).ok()?.checked_add(HEADER_BYTES)
}

/// The kind of the frame at the start of `bytes`, unchecked.
pub(crate) fn kind_of(bytes: &[u8]) -> Option<u8> {
    bytes.get(4).copied()
}

/// Its generation, unchecked.
pub(crate) fn generation_of(bytes: &[u8]) -> Option<Generation> {
    Cursor::new(bytes.get(12..)?).u64().map(Generation)
}

const fn is_spoken(version: u8) -> bool {
    VERSION_OLDEST <= version && version <= VERSION
}

/// The frame with that header, of `stored` bytes.
pub(crate) fn open(header: &Header, stored: &[u8], offset: u64) -> Result<Frame, FrameError> {
    if crc32c(stored) != header.payload_crc {
        return Err(FrameError::PayloadDamaged { offset });
    }
    let payload = if header.flags & FLAG_LZ4 == 0 {
        stored.to_vec()
    } else {
        unpack(stored).ok_or(FrameError::Unpackable { offset })?
    };
    let Header { version, kind, generation, .. } = *header;
    Ok(Frame { offset, version, kind, generation, payload })
}

/// Checks a header, the parts that never move first.
pub(crate) fn header(bytes: &[u8; HEADER_BYTES], offset: u64) -> Result<Header, FrameError> {
    let [a, b, c, version, kind, flags, ..] = *bytes;
    if [a, b, c] != MAGIC {
        return Err(FrameError::NotAFrame { offset, found: [a, b, c, version] });
    }
    if !is_spoken(version) {
        return Err(FrameError::Version { offset, found: version });
    }
    let mut cursor = Cursor::new(&bytes[6..]);
    let mut parse = || Some((cursor.u16()?, cursor.u32()?, cursor.u64()?, cursor.u32()?, cursor.u32()?));
    let Some((reserved, stored, generation, payload_crc, header_crc)) = parse() else {
        return Err(FrameError::HeaderDamaged { offset });
    };
    if crc32c(&bytes[..HEADER_BYTES - 4]) != header_crc {
        return Err(FrameError::HeaderDamaged { offset });
    }
    if flags & !FLAG_LZ4 != 0 || reserved != 0 {
        return Err(FrameError::Flags { offset, flags });
    }
    let too_long = FrameError::TooLong { offset, bytes: u64::from(stored) };
    let stored_bytes = usize::try_from(stored).map_err(|_| too_long.clone())?;
    if stored_bytes > PAYLOAD_BYTES_MAX {
        return Err(too_long);
    }
    Ok(Header { version, kind, flags, stored_bytes, generation: Generation(generation), payload_crc })
}

/// Takes a stream apart into messages, whatever pieces it arrives in. Push bytes as they come, then poll until
/// nothing is left.
///
/// Holds what was pushed and not yet polled, at most one incomplete frame if polled after every push, and the pieces of
/// one more.
#[derive(Clone, Debug, Default)]
pub struct FrameDecoder {
    buffer: Vec<u8>,
    /// How much of `buffer` has been taken.
    taken: usize,
    /// Where `buffer[taken]` is in the stream.
    offset: u64,
    /// The pieces so far of a frame that comes in such.
    assembly: Assembly,
    /// Frames come whole: in a file, where nothing is urgent.
    only_whole: bool,
    failed: Option<FrameError>,
}

impl FrameDecoder {
    /// At the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// At `offset` of a file whose start somebody else has read. It holds no pieces.
    #[must_use]
    pub fn of_file(offset: u64) -> Self {
        Self { offset, only_whole: true, ..Self::default() }
    }

    /// Takes the next bytes of the stream. After an error they are ignored.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed.is_some() {
            return;
        }
        // Moving what is left to the front costs as much as what was taken: amortised, once per byte.
        if self.taken > 0 && self.taken >= self.buffer.len() / 2 {
            self.buffer.drain(..self.taken);
            self.taken = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message; `None` until more is pushed. An error is final: damage in a frame, or a whole
    /// frame that says nothing that this build understands.
    pub fn poll(&mut self) -> Result<Option<Wire>, FrameError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.next_message().inspect_err(|error| {
            self.failed = Some(error.clone());
            // Everything before the damage is good: the offset stays where the bad frame starts.
            self.offset = error.offset();
            self.buffer = Vec::new();
            self.assembly = Assembly::default();
            self.taken = 0;
        })
    }

    fn next_message(&mut self) -> Result<Option<Wire>, FrameError> {
        while let Some(frame) = self.next()? {
            let offset = frame.offset;
            let wrong = |what| Err(FrameError::Piece { offset, what });
            match frame.kind {
                kind::PIECE if self.only_whole => return wrong("stands in a file, where frames are whole"),
                kind::PIECE => {
                    if let Some(whole) = self.assembly.push(&frame)? {
                        return Wire::decode(whole).map(Some);
                    }
                }
                kind::HEARTBEAT | kind::ACK | kind::NETWORK => return Wire::decode(frame).map(Some),
                _ if self.assembly.is_open() => {
                    return wrong("is followed by another message than may overtake");
                }
                _ => return Wire::decode(frame).map(Some),
            }
        }
        Ok(None)
    }

    fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        let offset = self.offset;
        let bytes = &self.buffer[self.taken..];
        let Some(head) = bytes.first_chunk::<HEADER_BYTES>() else {
            return short(bytes, offset).map_or(Ok(None), Err);
        };
        let header = header(head, offset)?;
        let Some(stored) = bytes.get(HEADER_BYTES..HEADER_BYTES + header.stored_bytes) else {
            return Ok(None);
        };
        let frame = open(&header, stored, offset)?;
        let whole = HEADER_BYTES + header.stored_bytes;
        self.taken += whole;
        self.offset += whole as u64;
        Ok(Some(frame))
    }

    /// Where in the stream the next frame starts: everything before it has been polled, or taken as a piece, and is good.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes of an incomplete frame that wait for the rest. At the end of a stream: what was cut off.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.buffer.len() - self.taken
    }

    /// The bytes that wait.
    pub(crate) fn pending(&self) -> &[u8] {
        &self.buffer[self.taken..]
    }
}

/// What is wrong with the start of a header, if that can be told yet: a peer that speaks something else should
/// not be waited for.
fn short(bytes: &[u8], offset: u64) -> Option<FrameError> {
    let [a, b, c, version, ..] = *bytes else { return None };
    if [a, b, c] != MAGIC {
        return Some(FrameError::NotAFrame { offset, found: [a, b, c, version] });
    }
    (!is_spoken(version)).then_some(FrameError::Version { offset, found: version })
}
