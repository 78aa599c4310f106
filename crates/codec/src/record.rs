//! A batch of log records as bytes: the payload of a Records frame.
//!
//! Compact, because a log is mostly small records close to each other: varints, and steps instead of LSNs,
//! icounts and times. Each kind of record has a tag of its own, written down here and nowhere derived, so
//! that a change to `pollux-vocab` cannot change the wire behind anybody's back.
//!
//! Invariant: what decodes is in order. LSNs rise and icounts do not fall within a batch; a batch that says
//! otherwise is refused.
//!
//! Layout: `docs/wire.md`, "Batch of records".

use crate::varint::{self, Cursor, unzigzag, zigzag};
use alloc::vec::Vec;
use pollux_vocab::{
    ClockRate, ConsoleId, Control, Digest, DiskStatus, Icount, Input, Lsn, PageHash, Record, RecordBody,
    VirtTime,
};

/// The version of the batch that this build writes, and the only one it reads.
pub const BATCH_VERSION: u8 = 1;
/// Most records in a batch: bounds the memory that a frame of the smallest records can ask for.
pub const BATCH_RECORDS_MAX: usize = 65_536;
/// A batch that has reached this many bytes takes no further record.
const BATCH_BYTES: usize = 1 << 20;

/// Tags, in the low seven bits of a record's first byte.
mod tag {
    pub(super) const MARK: u8 = 0;
    pub(super) const PROGRESS: u8 = 1;
    pub(super) const DISK_LOCAL_OK: u8 = 2;
    pub(super) const DISK_LOCAL_ERROR: u8 = 3;
    pub(super) const PACKET: u8 = 4;
    pub(super) const DISK_OK: u8 = 5;
    pub(super) const DISK_ERROR: u8 = 6;
    pub(super) const CONSOLE_UART: u8 = 7;
    pub(super) const CONSOLE_VIRTIO: u8 = 8;
    pub(super) const ENTROPY: u8 = 9;
    pub(super) const CLOCK: u8 = 10;
    pub(super) const POWER_BUTTON: u8 = 11;
    pub(super) const STOP: u8 = 12;
    pub(super) const DIGEST: u8 = 13;
    /// Bit: the LSN is not the predecessor's next; the step follows.
    pub(super) const LSN_STEP: u8 = 0x80;
}

/// Why a batch of records was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordError {
    /// a batch of another version
    #[error(
        "a batch of records of version {found}, this build reads {BATCH_VERSION}; use the version of Pollux that wrote it"
    )]
    Version {
        /// The version found.
        found: u8,
    },
    /// more records than a batch may have
    #[error("a batch of {count} records, more than the {BATCH_RECORDS_MAX} allowed")]
    TooMany {
        /// How many.
        count: u64,
    },
    /// a record that does not hold what it should
    #[error(
        "record {index} of a batch does not hold what it should (byte {at} of the batch); the writer is faulty"
    )]
    Malformed {
        /// Which record, from 0.
        index: usize,
        /// Where in the batch.
        at: usize,
    },
    /// a record out of order
    #[error("record {index} of a batch is out of order: LSN {lsn} at icount {icount}; the writer is faulty")]
    Disorder {
        /// Which record, from 0.
        index: usize,
        /// Its LSN.
        lsn: Lsn,
        /// Its icount.
        icount: Icount,
    },
    /// bytes after the last record
    #[error("{extra} bytes follow the last record of a batch; the writer is faulty")]
    TrailingBytes {
        /// How many.
        extra: usize,
    },
}

/// What a record is written relative to: its predecessors in the batch.
#[derive(Default)]
struct Context {
    lsn: u64,
    icount: u64,
    time: u64,
    rate: u64,
}

/// Encodes as many of `records` as one batch takes (at least one, if there is one); returns the batch and the
/// records that are left. Records are in order: LSNs rise, icounts do not fall.
#[must_use]
pub fn encode(released: Lsn, records: &[Record]) -> (Vec<u8>, &[Record]) {
    let mut context = Context::default();
    let mut bodies = Vec::new();
    let mut count = 0;
    for record in records.iter().take(BATCH_RECORDS_MAX) {
        put_record(&mut bodies, &mut context, record);
        count += 1;
        if bodies.len() >= BATCH_BYTES {
            break;
        }
    }
    let mut out = Vec::with_capacity(bodies.len() + 1 + 2 * varint::VARINT_BYTES_MAX);
    out.push(BATCH_VERSION);
    varint::put(&mut out, released.0);
    varint::put(&mut out, count as u64);
    out.append(&mut bodies);
    (out, &records[count..])
}

/// The inverse of [`encode`]: the released LSN and the records.
pub fn decode(batch: &[u8]) -> Result<(Lsn, Vec<Record>), RecordError> {
    let mut cursor = Cursor::new(batch);
    let malformed = |index, at| RecordError::Malformed { index, at };
    match cursor.u8() {
        Some(BATCH_VERSION) => {}
        Some(found) => return Err(RecordError::Version { found }),
        None => return Err(malformed(0, 0)),
    }
    let mut head = || Some((cursor.varint()?, cursor.varint()?));
    let (released, count) = head().ok_or(malformed(0, 1))?;
    if count > BATCH_RECORDS_MAX as u64 {
        return Err(RecordError::TooMany { count });
    }
    let mut context = Context::default();
    let mut records: Vec<Record> = Vec::new();
    for index in 0..count as usize {
        let at = cursor.position();
        let record = record(&mut cursor, &mut context).ok_or(malformed(index, at))?;
        let in_order =
            records.last().is_none_or(|last| last.lsn < record.lsn && last.icount <= record.icount);
        if !in_order {
            return Err(RecordError::Disorder { index, lsn: record.lsn, icount: record.icount });
        }
        records.push(record);
    }
    match cursor.remaining() {
        0 => Ok((Lsn(released), records)),
        extra => Err(RecordError::TrailingBytes { extra }),
    }
}

fn put_record(out: &mut Vec<u8>, context: &mut Context, record: &Record) {
    let step = record.lsn.0.wrapping_sub(context.lsn);
    let tag = tag_of(&record.body);
    if step == 1 {
        out.push(tag);
    } else {
        out.push(tag | tag::LSN_STEP);
        varint::put(out, step);
    }
    varint::put(out, record.icount.0.wrapping_sub(context.icount));
    context.lsn = record.lsn.0;
    context.icount = record.icount.0;
    put_body(out, context, &record.body);
}

const fn tag_of(body: &RecordBody) -> u8 {
    match body {
        RecordBody::Mark => tag::MARK,
        RecordBody::Progress => tag::PROGRESS,
        RecordBody::DiskDoneLocal { status: DiskStatus::Ok, .. } => tag::DISK_LOCAL_OK,
        RecordBody::DiskDoneLocal { status: DiskStatus::IoError, .. } => tag::DISK_LOCAL_ERROR,
        RecordBody::Input(Input::Packet { .. }) => tag::PACKET,
        RecordBody::Input(Input::DiskDone { status: DiskStatus::Ok, .. }) => tag::DISK_OK,
        RecordBody::Input(Input::DiskDone { status: DiskStatus::IoError, .. }) => tag::DISK_ERROR,
        RecordBody::Input(Input::Console { console: ConsoleId::Uart, .. }) => tag::CONSOLE_UART,
        RecordBody::Input(Input::Console { console: ConsoleId::Virtio(_), .. }) => tag::CONSOLE_VIRTIO,
        RecordBody::Input(Input::Entropy { .. }) => tag::ENTROPY,
        RecordBody::Input(Input::Clock { .. }) => tag::CLOCK,
        RecordBody::Input(Input::PowerButton) => tag::POWER_BUTTON,
        RecordBody::Control(Control::Stop) => tag::STOP,
        RecordBody::Digest(_) => tag::DIGEST,
    }
}

fn put_body(out: &mut Vec<u8>, context: &mut Context, body: &RecordBody) {
    match body {
        RecordBody::Mark | RecordBody::Progress | RecordBody::Control(Control::Stop) => {}
        RecordBody::DiskDoneLocal { slot, request, status: _ } => {
            out.push(*slot);
            varint::put(out, *request);
        }
        RecordBody::Digest(digest) => put_digest(out, digest),
        RecordBody::Input(input) => put_input(out, context, input),
    }
}

fn put_input(out: &mut Vec<u8>, context: &mut Context, input: &Input) {
    match input {
        Input::Packet { slot, frame } => {
            out.push(*slot);
            varint::put_bytes(out, frame);
        }
        Input::DiskDone { slot, request, status: _, data: bytes }
        | Input::Entropy { slot, request, bytes } => {
            out.push(*slot);
            varint::put(out, *request);
            varint::put_bytes(out, bytes);
        }
        Input::Console { console, bytes } => {
            if let ConsoleId::Virtio(slot) = console {
                out.push(*slot);
            }
            varint::put_bytes(out, bytes);
        }
        Input::Clock { time, rate } => {
            varint::put(out, zigzag(context.time, time.0));
            varint::put(out, zigzag(context.rate, rate.0));
            context.time = time.0;
            context.rate = rate.0;
        }
        Input::PowerButton => {}
    }
}

fn record(cursor: &mut Cursor<'_>, context: &mut Context) -> Option<Record> {
    let first = cursor.u8()?;
    let step = if first & tag::LSN_STEP == 0 { 1 } else { cursor.varint()? };
    context.lsn = context.lsn.wrapping_add(step);
    context.icount = context.icount.wrapping_add(cursor.varint()?);
    let (lsn, icount) = (Lsn(context.lsn), Icount(context.icount));
    Some(Record { lsn, icount, body: body(cursor, context, first & !tag::LSN_STEP)? })
}

fn body(cursor: &mut Cursor<'_>, context: &mut Context, tag: u8) -> Option<RecordBody> {
    let status = |error| if tag == error { DiskStatus::IoError } else { DiskStatus::Ok };
    Some(match tag {
        tag::MARK => RecordBody::Mark,
        tag::PROGRESS => RecordBody::Progress,
        tag::DISK_LOCAL_OK | tag::DISK_LOCAL_ERROR => RecordBody::DiskDoneLocal {
            slot: cursor.u8()?,
            request: cursor.varint()?,
            status: status(tag::DISK_LOCAL_ERROR),
        },
        tag::PACKET => {
            RecordBody::Input(Input::Packet { slot: cursor.u8()?, frame: cursor.bytes()?.to_vec() })
        }
        tag::DISK_OK | tag::DISK_ERROR => RecordBody::Input(Input::DiskDone {
            slot: cursor.u8()?,
            request: cursor.varint()?,
            status: status(tag::DISK_ERROR),
            data: cursor.bytes()?.to_vec(),
        }),
        tag::CONSOLE_UART => {
            let bytes = cursor.bytes()?.to_vec();
            RecordBody::Input(Input::Console { console: ConsoleId::Uart, bytes })
        }
        tag::CONSOLE_VIRTIO => RecordBody::Input(Input::Console {
            console: ConsoleId::Virtio(cursor.u8()?),
            bytes: cursor.bytes()?.to_vec(),
        }),
        tag::ENTROPY => RecordBody::Input(Input::Entropy {
            slot: cursor.u8()?,
            request: cursor.varint()?,
            bytes: cursor.bytes()?.to_vec(),
        }),
        tag::CLOCK => {
            context.time = unzigzag(context.time, cursor.varint()?);
            context.rate = unzigzag(context.rate, cursor.varint()?);
            RecordBody::Input(Input::Clock { time: VirtTime(context.time), rate: ClockRate(context.rate) })
        }
        tag::POWER_BUTTON => RecordBody::Input(Input::PowerButton),
        tag::STOP => RecordBody::Control(Control::Stop),
        tag::DIGEST => RecordBody::Digest(digest(cursor)?),
        _ => return None,
    })
}

/// Appends a digest.
pub(crate) fn put_digest(out: &mut Vec<u8>, digest: &Digest) {
    for hashes in [&digest.harts, &digest.devices] {
        varint::put(out, hashes.len() as u64);
        hashes.iter().for_each(|hash| out.extend_from_slice(&hash.to_le_bytes()));
    }
    out.extend_from_slice(&digest.ram.to_le_bytes());
    varint::put(out, digest.changed.len() as u64);
    let mut previous = 0;
    for &PageHash { page, hash } in &digest.changed {
        varint::put(out, zigzag(previous, page));
        out.extend_from_slice(&hash.to_le_bytes());
        previous = page;
    }
}

/// The inverse of [`put_digest`].
pub(crate) fn digest(cursor: &mut Cursor<'_>) -> Option<Digest> {
    let harts = hashes(cursor)?;
    let devices = hashes(cursor)?;
    let ram = cursor.u64()?;
    let count = cursor.count(1 + 8)?;
    let mut changed = Vec::with_capacity(count);
    let mut previous = 0;
    for _ in 0..count {
        previous = unzigzag(previous, cursor.varint()?);
        changed.push(PageHash { page: previous, hash: cursor.u64()? });
    }
    Some(Digest { harts, devices, ram, changed })
}

fn hashes(cursor: &mut Cursor<'_>) -> Option<Vec<u64>> {
    let count = cursor.count(8)?;
    (0..count).map(|_| cursor.u64()).collect()
}
