//! The container of a machine's state: sections behind a fixed raw header (LAYOUT, "Live types never
//! serialise themselves").
//!
//! Invariant: damage and other versions are refused before any content is believed. Magic, version and length
//! come first, in raw bytes; every section has a CRC32C over its header and one over its content.
//!
//! A snapshot can be written without being held ([`header`], [`section_header`]) and read as it comes ([`Reader`]).
//!
//! Layout: `docs/wire.md`, "Snapshot". Not here: what the sections mean. Their owner takes those that it knows,
//! checks their versions, and treats one that is left over as an error (`pollux-riscv`'s `snapshot`).

mod reader;

use crate::crc::crc32c;
use crate::varint::Cursor;
use alloc::vec::Vec;
pub use reader::{Item, Reader};

/// The first eight bytes of every snapshot.
pub const MAGIC: [u8; 8] = *b"POLLUXSN";
/// The version of the container that this build writes, and the only one it reads.
pub const FORMAT: u16 = 1;
/// Bytes before the first section.
pub const HEADER_BYTES: usize = 28;
/// Bytes before a section's content.
pub const SECTION_BYTES: usize = 20;

/// Why a snapshot was refused. Offsets count bytes from the snapshot's start.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ContainerError {
    /// not a Pollux snapshot: it starts with other bytes
    #[error("not a Pollux snapshot: it starts with {found:02x?}; check which file or stream was given")]
    NotASnapshot {
        /// The first bytes, as many as there are of eight.
        found: Vec<u8>,
    },
    /// the snapshot's container has a version that this build does not read
    #[error(
        "the snapshot's format version is {found}, this build reads {FORMAT}; use the version of Pollux that wrote it"
    )]
    UnknownFormat {
        /// The version found.
        found: u16,
    },
    /// the snapshot ends early
    #[error("the snapshot is truncated: it ends at byte {at} of {expected}; copy it again")]
    Truncated {
        /// Where it ends.
        at: u64,
        /// Where it should.
        expected: u64,
    },
    /// there are bytes after the snapshot's end
    #[error("{extra} bytes follow the snapshot's end at byte {at}; it was not written by Pollux like this")]
    TrailingBytes {
        /// The end.
        at: u64,
        /// How many bytes follow.
        extra: u64,
    },
    /// the header is damaged
    #[error("the snapshot's header is damaged (checksum mismatch in bytes 0 to 27); copy it again")]
    HeaderDamaged,
    /// a section's header is damaged or reaches past the end
    #[error("the snapshot's section at byte {at} is damaged: {what}; copy it again")]
    SectionDamaged {
        /// Where the section starts.
        at: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// a section's content is damaged
    #[error("checksum mismatch in section {kind:#06x} at byte {at}: the snapshot is damaged; copy it again")]
    Checksum {
        /// Which section.
        kind: u16,
        /// Where its content starts.
        at: u64,
    },
    /// two sections of one kind
    #[error("section {kind:#06x} occurs twice; the snapshot was not written by Pollux")]
    Duplicate {
        /// Which section.
        kind: u16,
    },
}

/// A section: its kind, its version, its content.
pub type Section<'a> = (u16, u16, &'a [u8]);

/// Lays sections into a container. Give each kind once: a second one makes the snapshot unreadable.
#[must_use]
pub fn encode<'a>(sections: impl IntoIterator<Item = Section<'a>>) -> Vec<u8> {
    let mut writer = Writer::default();
    for (kind, version, bytes) in sections {
        writer.section(kind, version, |out| out.extend_from_slice(bytes));
    }
    writer.finish()
}

/// What a container of `total` bytes with so many sections begins with.
#[must_use]
pub fn header(total: u64, sections: u32) -> [u8; HEADER_BYTES] {
    let mut out = [0; HEADER_BYTES];
    out[0..8].copy_from_slice(&MAGIC);
    out[8..10].copy_from_slice(&FORMAT.to_le_bytes());
    // Bytes 10 and 11 are reserved and zero.
    out[12..20].copy_from_slice(&total.to_le_bytes());
    out[20..24].copy_from_slice(&sections.to_le_bytes());
    let crc = crc32c(&out[..HEADER_BYTES - 4]);
    out[24..28].copy_from_slice(&crc.to_le_bytes());
    out
}

/// What stands before a section's content of `len` bytes, whose CRC32C is `crc`.
#[must_use]
pub fn section_header(kind: u16, version: u16, len: u64, crc: u32) -> [u8; SECTION_BYTES] {
    let mut out = [0; SECTION_BYTES];
    out[0..2].copy_from_slice(&kind.to_le_bytes());
    out[2..4].copy_from_slice(&version.to_le_bytes());
    out[4..12].copy_from_slice(&len.to_le_bytes());
    out[12..16].copy_from_slice(&crc.to_le_bytes());
    let header_crc = crc32c(&out[..SECTION_BYTES - 4]);
    out[16..20].copy_from_slice(&header_crc.to_le_bytes());
    out
}

/// Writes a container section by section, each where it is to be.
#[derive(Debug)]
pub struct Writer {
    out: Vec<u8>,
    count: u32,
}

impl Default for Writer {
    fn default() -> Self {
        Self { out: alloc::vec![0; HEADER_BYTES], count: 0 }
    }
}

impl Writer {
    /// Appends a section, of which `content` appends the bytes. Give each kind once.
    pub fn section(&mut self, kind: u16, version: u16, content: impl FnOnce(&mut Vec<u8>)) {
        let start = self.out.len();
        let begin = start + SECTION_BYTES;
        self.out.resize(begin, 0);
        content(&mut self.out);
        let bytes = &self.out[begin..];
        let header = section_header(kind, version, bytes.len() as u64, crc32c(bytes));
        self.out[start..begin].copy_from_slice(&header);
        self.count += 1;
    }

    /// The container.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        let Self { mut out, count } = self;
        let header = header(out.len() as u64, count);
        out[..HEADER_BYTES].copy_from_slice(&header);
        out
    }
}

/// The sections of a container in the order of the file, all checksums checked.
pub fn decode(snapshot: &[u8]) -> Result<Vec<Section<'_>>, ContainerError> {
    let count = check_header(snapshot)?;
    let mut cursor = Cursor::new(snapshot);
    let mut sections: Vec<Section<'_>> = Vec::new();
    // The header is known to be there.
    cursor.take(HEADER_BYTES);
    while cursor.remaining() > 0 {
        let section = next_section(&mut cursor)?;
        if sections.iter().any(|other| other.0 == section.0) {
            return Err(ContainerError::Duplicate { kind: section.0 });
        }
        if sections.len() as u64 >= u64::from(count) {
            let at = (cursor.position() - section.2.len() - SECTION_BYTES) as u64;
            return Err(ContainerError::SectionDamaged { at, what: "it is more than the header counts" });
        }
        sections.push(section);
    }
    if sections.len() as u64 != u64::from(count) {
        let at = snapshot.len() as u64;
        return Err(ContainerError::SectionDamaged { at, what: "it is missing, says the header's count" });
    }
    Ok(sections)
}

/// Checks the header of a snapshot that is all there. Returns how many sections it promises.
fn check_header(snapshot: &[u8]) -> Result<u32, ContainerError> {
    let len = snapshot.len() as u64;
    let (total, count) = parse_header(snapshot)?;
    if total > len {
        return Err(ContainerError::Truncated { at: len, expected: total });
    }
    if total < len {
        return Err(ContainerError::TrailingBytes { at: total, extra: len - total });
    }
    Ok(count)
}

/// How many bytes and sections the header at the beginning of `bytes` promises.
fn parse_header(bytes: &[u8]) -> Result<(u64, u32), ContainerError> {
    let len = bytes.len() as u64;
    let magic = &bytes[..bytes.len().min(MAGIC.len())];
    if magic != &MAGIC[..magic.len()] || magic.is_empty() {
        return Err(ContainerError::NotASnapshot { found: magic.to_vec() });
    }
    let truncated = ContainerError::Truncated { at: len, expected: HEADER_BYTES as u64 };
    let mut cursor = Cursor::new(bytes);
    let version = cursor.take(MAGIC.len()).and_then(|_| cursor.u16()).ok_or_else(|| truncated.clone())?;
    if version != FORMAT {
        return Err(ContainerError::UnknownFormat { found: version });
    }
    let mut fields = || Some((cursor.u16()?, cursor.u64()?, cursor.u32()?, cursor.u32()?));
    let (reserved, total, count, crc) = fields().ok_or(truncated)?;
    if crc32c(&bytes[..HEADER_BYTES - 4]) != crc || reserved != 0 || total < HEADER_BYTES as u64 {
        return Err(ContainerError::HeaderDamaged);
    }
    Ok((total, count))
}

/// A section's header: kind, version, length and checksum of the content. `at`: where the section starts.
fn parse_section_header(header: &[u8], at: u64) -> Result<(u16, u16, u64, u32), ContainerError> {
    let damaged = |what| ContainerError::SectionDamaged { at, what };
    let mut fields = Cursor::new(header);
    let mut parse = || Some((fields.u16()?, fields.u16()?, fields.u64()?, fields.u32()?, fields.u32()?));
    let (kind, version, len, crc, header_crc) = parse().ok_or(damaged("its header is cut off"))?;
    if crc32c(&header[..SECTION_BYTES - 4]) != header_crc {
        return Err(damaged("its header's checksum does not match"));
    }
    Ok((kind, version, len, crc))
}

fn next_section<'a>(cursor: &mut Cursor<'a>) -> Result<Section<'a>, ContainerError> {
    let at = cursor.position() as u64;
    let damaged = |what| ContainerError::SectionDamaged { at, what };
    let header = cursor.take(SECTION_BYTES).ok_or(damaged("its header is cut off"))?;
    let (kind, version, len, crc) = parse_section_header(header, at)?;
    let content_at = cursor.position() as u64;
    let len = usize::try_from(len).map_err(|_| damaged("it reaches past the end"))?;
    let bytes = cursor.take(len).ok_or(damaged("it reaches past the end"))?;
    if crc32c(bytes) != crc {
        return Err(ContainerError::Checksum { kind, at: content_at });
    }
    Ok((kind, version, bytes))
}
