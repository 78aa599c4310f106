//! A recording: a header that says what it is of, the snapshot that it starts from, and frames of records.
//!
//! Sans-I/O: [`LogHeader::encode`], [`encode_records`] and [`encode_end`] give the bytes to write, [`LogReader`]
//! takes bytes as they are read. Append-safe: a frame is whole or it is not there, so a writer may die at any
//! byte.
//!
//! Invariant: three ends are told apart. A recording that was written to its end is *closed* by an End frame
//! that counts its records. One that was *cut* (the process was killed, the disk was full, the host lost power
//! and the filesystem left zeros) is good up to its last whole frame, and that position is reported. Everything
//! else is *corruption*, an error that names the byte.
//!
//! Layout: `docs/wire.md`, "Log file". Not here: files; how records are replayed.

use crate::crc::crc32c;
use crate::frame::{FrameDecoder, FrameError};
use crate::message::{Wire, put_records};
use crate::varint::Cursor;
use alloc::string::String;
use alloc::vec::Vec;
use pollux_vocab::{Generation, Icount, Lsn, Record};

/// The first eight bytes of every log file.
pub const MAGIC: [u8; 8] = *b"POLLUXLG";
/// The version of the file that this build writes, and the only one it reads.
pub const FORMAT: u16 = 1;
/// Longest VM name, in bytes.
pub const VM_NAME_BYTES_MAX: usize = 255;
/// Largest configuration, in bytes.
pub const CONFIG_BYTES_MAX: usize = 1 << 20;
/// Bytes of the header's fixed part.
const FIXED_BYTES: usize = 40;

/// What a recording is of.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LogHeader {
    /// The generation that started it; 0 if nobody said.
    pub generation: Generation,
    /// The VM's name; empty if nobody said.
    pub vm: String,
    /// What its writer wants to remember of the VM, in the writer's encoding; may be empty.
    pub config: Vec<u8>,
    /// Bytes of the snapshot that follows the header. A snapshot carries its own checksums.
    pub snapshot_bytes: u64,
}

impl LogHeader {
    /// The first bytes of a recording; the snapshot follows. Names and configurations longer than
    /// [`VM_NAME_BYTES_MAX`] and [`CONFIG_BYTES_MAX`] make a file that readers refuse.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let whole = FIXED_BYTES + self.vm.len() + self.config.len() + 4;
        let mut out = Vec::with_capacity(whole);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&(whole as u32).to_le_bytes());
        out.extend_from_slice(&self.generation.0.to_le_bytes());
        out.extend_from_slice(&self.snapshot_bytes.to_le_bytes());
        out.extend_from_slice(&(self.vm.len() as u32).to_le_bytes());
        out.extend_from_slice(&(self.config.len() as u32).to_le_bytes());
        out.extend_from_slice(self.vm.as_bytes());
        out.extend_from_slice(&self.config);
        let crc = crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }
}

/// The first bytes of a recording of a VM that nobody has named.
#[must_use]
pub fn encode_header(snapshot_bytes: u64) -> Vec<u8> {
    LogHeader { snapshot_bytes, ..LogHeader::default() }.encode()
}

/// Frames of records for a recording; none for no records.
#[must_use]
pub fn encode_records(records: impl AsRef<[Record]>) -> Vec<u8> {
    let mut out = Vec::new();
    if !records.as_ref().is_empty() {
        put_records(&mut out, Generation(0), Lsn(0), records.as_ref());
    }
    out
}

/// The frame that closes a recording of `records` records.
#[must_use]
pub fn encode_end(records: u64) -> Vec<u8> {
    Wire::End { records }.encode()
}

/// Why a log file cannot be read (on). Offsets count bytes from the file's start.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LogError {
    /// not a Pollux log
    #[error("not a Pollux log: it starts with {found:02x?}; check which file was given")]
    NotALog {
        /// The first bytes.
        found: [u8; 8],
    },
    /// a log of another version
    #[error(
        "the log's format version is {found}, this build reads {FORMAT}; use the version of Pollux that wrote it"
    )]
    UnknownFormat {
        /// The version found.
        found: u16,
    },
    /// the header is damaged
    #[error("the log's header is damaged: {what}; restore the file from a copy")]
    HeaderDamaged {
        /// What is wrong with it.
        what: &'static str,
    },
    /// the log ends before its first record could be
    #[error("the log is cut off in its {part}, at byte {at}: nothing in it can be replayed")]
    NoStart {
        /// Header or snapshot.
        part: &'static str,
        /// The end.
        at: u64,
    },
    /// the frames are damaged
    #[error("the log is corrupt: {0}; what comes before that byte can be replayed")]
    Corrupt(FrameError),
    /// a frame that does not belong into a log
    #[error("the log is corrupt: a {name} message at byte {at}, where only records belong")]
    Foreign {
        /// Where.
        at: u64,
        /// What.
        name: &'static str,
    },
    /// records are missing
    #[error("the log is corrupt: it has {found} records and says at its end that it has {said}")]
    Missing {
        /// How many there are.
        found: u64,
        /// How many there should be.
        said: u64,
    },
    /// records that do not follow the ones before
    #[error(
        "the log is corrupt: the records at byte {at} (LSN {lsn}, icount {icount}) do not follow LSN {last_lsn} at icount {last_icount}"
    )]
    Disorder {
        /// Where.
        at: u64,
        /// The first record's LSN.
        lsn: Lsn,
        /// Its icount.
        icount: Icount,
        /// The record's before.
        last_lsn: Lsn,
        /// The record's before.
        last_icount: Icount,
    },
}

/// What comes out of a log file, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LogItem {
    /// First, once.
    Header(LogHeader),
    /// A piece of the snapshot.
    Snapshot {
        /// Its place in the snapshot, in bytes.
        offset: u64,
        /// The piece.
        bytes: Vec<u8>,
    },
    /// Consecutive records.
    Records(Vec<Record>),
}

/// How a log file ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogEnd {
    /// In good order: nothing is missing.
    Closed,
    /// It was cut. Everything before `good_bytes` is good and can be replayed; to go on writing, truncate the
    /// file there and append.
    Cut {
        /// Where the last whole frame ends, in bytes from the file's start.
        good_bytes: u64,
        /// How many bytes of an incomplete frame, or zeros, follow.
        torn_bytes: u64,
    },
}

#[derive(Clone, Debug)]
enum Stage {
    Header,
    Snapshot {
        bytes: u64,
        done: u64,
    },
    Frames,
    /// Behind the End frame: nothing may follow.
    Closed,
    /// Zeros where a frame should start: nothing but zeros may follow.
    Zeros {
        closed: bool,
    },
    Failed(LogError),
}

/// Takes a log file apart. Push bytes as they are read, poll until `None`; at the end of the file, `finish`.
#[derive(Clone, Debug)]
pub struct LogReader {
    stage: Stage,
    /// Header and snapshot; frames go to `frames`.
    buffer: Vec<u8>,
    frames: FrameDecoder,
    /// Bytes pushed in all.
    pushed: u64,
    /// Records polled so far, and the last one's place.
    records: u64,
    last: Option<(Lsn, Icount)>,
}

impl LogReader {
    /// At the start of a file.
    #[must_use]
    pub fn new() -> Self {
        Self {
            stage: Stage::Header,
            buffer: Vec::new(),
            frames: FrameDecoder::new(),
            pushed: 0,
            records: 0,
            last: None,
        }
    }

    /// Takes the next bytes of the file.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pushed = self.pushed.saturating_add(bytes.len() as u64);
        match self.stage {
            Stage::Header | Stage::Snapshot { .. } => self.buffer.extend_from_slice(bytes),
            Stage::Frames | Stage::Closed => self.frames.push(bytes),
            Stage::Zeros { .. } => self.check_zeros(bytes),
            Stage::Failed(_) => {}
        }
    }

    /// The next item; `None` until more is pushed. An error is final.
    pub fn poll(&mut self) -> Result<Option<LogItem>, LogError> {
        let item = match &self.stage {
            Stage::Header => self.poll_header(),
            &Stage::Snapshot { bytes, done } => self.poll_snapshot(bytes, done),
            Stage::Frames | Stage::Closed => self.poll_frames(),
            Stage::Zeros { .. } => Ok(None),
            Stage::Failed(error) => return Err(error.clone()),
        };
        item.inspect_err(|error| {
            self.stage = Stage::Failed(error.clone());
            self.buffer = Vec::new();
        })
    }

    /// How the file ends. Call it when all has been pushed and polled.
    pub fn finish(&self) -> Result<LogEnd, LogError> {
        let at = self.pushed;
        match &self.stage {
            Stage::Header => Err(LogError::NoStart { part: "header", at }),
            Stage::Snapshot { .. } => Err(LogError::NoStart { part: "snapshot", at }),
            Stage::Failed(error) => Err(error.clone()),
            Stage::Zeros { closed: true } => Ok(LogEnd::Closed),
            Stage::Closed => self.check_nothing_follows(),
            Stage::Frames | Stage::Zeros { closed: false } => {
                let good_bytes = self.frames.offset();
                Ok(LogEnd::Cut { good_bytes, torn_bytes: at.saturating_sub(good_bytes) })
            }
        }
    }

    fn poll_header(&mut self) -> Result<Option<LogItem>, LogError> {
        let Some((header, len)) = parse_header(&self.buffer)? else { return Ok(None) };
        self.buffer.drain(..len);
        let bytes = header.snapshot_bytes;
        self.frames = FrameDecoder::of_file((len as u64).saturating_add(bytes));
        self.stage = Stage::Snapshot { bytes, done: 0 };
        Ok(Some(LogItem::Header(header)))
    }

    fn poll_snapshot(&mut self, bytes: u64, done: u64) -> Result<Option<LogItem>, LogError> {
        let left = bytes - done;
        if left == 0 {
            self.frames.push(&core::mem::take(&mut self.buffer));
            self.stage = Stage::Frames;
            return self.poll_frames();
        }
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
        let rest = self.buffer.split_off(len);
        let piece = core::mem::replace(&mut self.buffer, rest);
        self.stage = Stage::Snapshot { bytes, done: done + len as u64 };
        Ok((len > 0).then_some(LogItem::Snapshot { offset: done, bytes: piece }))
    }

    fn poll_frames(&mut self) -> Result<Option<LogItem>, LogError> {
        let pending = self.frames.pending();
        if pending.starts_with(&[0; 4]) {
            let pending = pending.to_vec();
            self.stage = Stage::Zeros { closed: matches!(self.stage, Stage::Closed) };
            self.check_zeros(&pending);
            return if let Stage::Failed(error) = &self.stage { Err(error.clone()) } else { Ok(None) };
        }
        let at = self.frames.offset();
        let Some(wire) = self.frames.poll().map_err(LogError::Corrupt)? else { return Ok(None) };
        match wire {
            Wire::Records { records, .. } if matches!(self.stage, Stage::Frames) => {
                self.check_order(at, &records)?;
                self.records += records.len() as u64;
                Ok(Some(LogItem::Records(records)))
            }
            Wire::End { records } if matches!(self.stage, Stage::Frames) => {
                if records != self.records {
                    return Err(LogError::Missing { found: self.records, said: records });
                }
                self.stage = Stage::Closed;
                // A frame behind the end is found at once.
                self.poll_frames()
            }
            other => Err(LogError::Foreign { at, name: other.name() }),
        }
    }

    /// LSNs rise and icounts never fall.
    fn check_order(&mut self, at: u64, records: &[Record]) -> Result<(), LogError> {
        if let (Some(first), Some((last_lsn, last_icount))) = (records.first(), self.last)
            && (first.lsn <= last_lsn || first.icount < last_icount)
        {
            let (lsn, icount) = (first.lsn, first.icount);
            return Err(LogError::Disorder { at, lsn, icount, last_lsn, last_icount });
        }
        self.last = records.last().map(|last| (last.lsn, last.icount)).or(self.last);
        Ok(())
    }

    /// Behind the End frame; [`LogReader::poll`] has seen to it that no whole frame follows.
    fn check_nothing_follows(&self) -> Result<LogEnd, LogError> {
        if self.frames.pending().iter().all(|&byte| byte == 0) {
            return Ok(LogEnd::Closed);
        }
        Err(LogError::Foreign { at: self.frames.offset(), name: "cut-off" })
    }

    fn check_zeros(&mut self, bytes: &[u8]) {
        if bytes.iter().any(|&byte| byte != 0) {
            let error = FrameError::NotAFrame { offset: self.frames.offset(), found: [0; 4] };
            self.stage = Stage::Failed(LogError::Corrupt(error));
        }
    }
}

impl Default for LogReader {
    fn default() -> Self {
        Self::new()
    }
}

/// The header and its length; `None` if it is not all there yet.
fn parse_header(bytes: &[u8]) -> Result<Option<(LogHeader, usize)>, LogError> {
    let mut cursor = Cursor::new(bytes);
    let Some(magic) = bytes.first_chunk::<8>() else { return Ok(None) };
    if *magic != MAGIC {
        return Err(LogError::NotALog { found: *magic });
    }
    cursor.take(MAGIC.len());
    let Some(version) = cursor.u16() else { return Ok(None) };
    if version != FORMAT {
        return Err(LogError::UnknownFormat { found: version });
    }
    let mut fixed = || {
        let (reserved, len) = (cursor.u16()?, cursor.u32()?);
        Some((reserved, len, cursor.u64()?, cursor.u64()?, cursor.u32()?, cursor.u32()?))
    };
    let Some((reserved, len, generation, snapshot_bytes, name_len, config_len)) = fixed() else {
        return Ok(None);
    };
    let damaged = |what| LogError::HeaderDamaged { what };
    // The lengths are not yet checked by the CRC: bound them before waiting for that many bytes.
    let (name_len, config_len) = (name_len as usize, config_len as usize);
    if name_len > VM_NAME_BYTES_MAX || config_len > CONFIG_BYTES_MAX {
        return Err(damaged("a length is out of bounds"));
    }
    let whole = FIXED_BYTES + name_len + config_len + 4;
    if len as usize != whole || reserved != 0 {
        return Err(damaged("its length does not add up"));
    }
    let mut rest = || Some((cursor.take(name_len)?, cursor.take(config_len)?, cursor.u32()?));
    let Some((name, config, crc)) = rest() else { return Ok(None) };
    if crc32c(&bytes[..whole - 4]) != crc {
        return Err(damaged("its checksum does not match"));
    }
    let vm = core::str::from_utf8(name).map_err(|_| damaged("the VM's name is not UTF-8"))?.into();
    let generation = Generation(generation);
    Ok(Some((LogHeader { generation, vm, config: config.to_vec(), snapshot_bytes }, whole)))
}
