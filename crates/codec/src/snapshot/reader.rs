//! Reads a container as its bytes come, so that nobody need hold it.
//!
//! Invariant: what is said of a section's beginning has been checked; its content is as good as checked only when
//! [`Item::End`] says so. Nothing is kept but the header under way.

use super::{ContainerError, HEADER_BYTES, MAGIC, SECTION_BYTES, parse_header, parse_section_header};
use crate::crc::Crc32c;
use alloc::vec::Vec;

/// What comes next in a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Item<'a> {
    /// A section begins.
    Begin {
        /// Its kind.
        kind: u16,
        /// The version of its kind.
        version: u16,
        /// Bytes of its content.
        len: u64,
    },
    /// The next bytes of its content.
    Content(&'a [u8]),
    /// The section has ended, and its checksum is right.
    End,
}

/// Where the reader is.
#[derive(Debug)]
enum Stage {
    Header,
    Sections,
    Content {
        kind: u16,
        /// Where the content starts.
        at: u64,
        left: u64,
        sum: Crc32c,
        expected: u32,
    },
}

/// A snapshot being read.
#[derive(Debug)]
pub struct Reader {
    stage: Stage,
    /// The beginning of a header.
    begun: Vec<u8>,
    /// Bytes taken.
    at: u64,
    total: u64,
    count: u32,
    kinds: Vec<u16>,
}

impl Default for Reader {
    fn default() -> Self {
        Self { stage: Stage::Header, begun: Vec::new(), at: 0, total: 0, count: 0, kinds: Vec::new() }
    }
}

impl Reader {
    /// Takes from the front of `bytes` what makes up the next item; `None`: there is no whole one yet, give more bytes.
    /// After an error there is nothing more to read.
    pub fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Item<'a>>, ContainerError> {
        if let Stage::Header = self.stage {
            if !self.gather(bytes, HEADER_BYTES) {
                let magic = self.begun.len().min(MAGIC.len());
                let foreign = self.begun[..magic] != MAGIC[..magic];
                return if foreign { parse_header(&self.begun).map(|_| None) } else { Ok(None) };
            }
            (self.total, self.count) = parse_header(&self.begun)?;
            self.begun.clear();
            self.stage = Stage::Sections;
        }
        match self.stage {
            Stage::Content { .. } => self.next_of_content(bytes),
            _ => self.next_section(bytes),
        }
    }

    fn next_section<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Item<'a>>, ContainerError> {
        let start = self.at - self.begun.len() as u64;
        let damaged = |what| ContainerError::SectionDamaged { at: start, what };
        let left = self.total.saturating_sub(start);
        if left == 0 {
            if self.kinds.len() as u64 != u64::from(self.count) {
                return Err(damaged("it is missing, says the header's count"));
            }
            let extra = bytes.len() as u64;
            return if extra == 0 {
                Ok(None)
            } else {
                Err(ContainerError::TrailingBytes { at: start, extra })
            };
        }
        if left < SECTION_BYTES as u64 {
            return Err(damaged("its header is cut off"));
        }
        if !self.gather(bytes, SECTION_BYTES) {
            return Ok(None);
        }
        let (kind, version, len, expected) = parse_section_header(&self.begun, start)?;
        self.begun.clear();
        if len > self.total.saturating_sub(self.at) {
            return Err(damaged("it reaches past the end"));
        }
        if self.kinds.contains(&kind) {
            return Err(ContainerError::Duplicate { kind });
        }
        if self.kinds.len() as u64 >= u64::from(self.count) {
            return Err(damaged("it is more than the header counts"));
        }
        self.kinds.push(kind);
        self.stage = Stage::Content { kind, at: self.at, left: len, sum: Crc32c::new(), expected };
        Ok(Some(Item::Begin { kind, version, len }))
    }

    fn next_of_content<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Item<'a>>, ContainerError> {
        let Stage::Content { kind, at, left, sum, expected } = &mut self.stage else { return Ok(None) };
        if *left == 0 {
            if core::mem::take(sum).finish() != *expected {
                return Err(ContainerError::Checksum { kind: *kind, at: *at });
            }
            self.stage = Stage::Sections;
            return Ok(Some(Item::End));
        }
        let len = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
        if len == 0 {
            return Ok(None);
        }
        let (content, rest) = bytes.split_at(len);
        *bytes = rest;
        sum.update(content);
        *left -= len as u64;
        self.at += len as u64;
        Ok(Some(Item::Content(content)))
    }

    /// Whether `begun` has `len` bytes, after taking what is missing from `bytes`.
    fn gather(&mut self, bytes: &mut &[u8], len: usize) -> bool {
        let missing = len.saturating_sub(self.begun.len()).min(bytes.len());
        let (head, rest) = bytes.split_at(missing);
        *bytes = rest;
        self.begun.extend_from_slice(head);
        self.at += missing as u64;
        self.begun.len() == len
    }

    /// Whether the snapshot was whole. Ask when all that there is of it has been read.
    pub fn finish(&self) -> Result<(), ContainerError> {
        if let Stage::Header = self.stage {
            parse_header(&self.begun)?;
        }
        if self.at < self.total {
            return Err(ContainerError::Truncated { at: self.at, expected: self.total });
        }
        match self.stage {
            Stage::Sections if self.kinds.len() as u64 == u64::from(self.count) => Ok(()),
            _ => Err(ContainerError::SectionDamaged {
                at: self.at,
                what: "it is missing, says the header's count",
            }),
        }
    }
}
