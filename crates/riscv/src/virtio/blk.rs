//! The disk (virtio 1.2, 5.2).
//!
//! A request's data is copied at the kick; what was read is copied in when its completion is applied (DESIGN 2.5).
//! Requests that overlap and of which one writes are never in flight together: the later one waits in here, so
//! every replica's disk sees them in the same order (DESIGN 2.6). A flush waits for the writes before it.
//!
//! Invariant: what the world still does is counted here, whatever the guest does to its device. A reset forgets who
//! waits for a request that has been issued, never the request: it takes up its room, and its place in the order,
//! until the world has answered.

pub(crate) mod state;

use super::Context;
use super::queue::{Chain, QueueError, Segment, gather, scatter, total};
use crate::virtio::queue::QUEUE_SIZE_MAX;
use alloc::collections::VecDeque;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use pollux_vocab::{DiskOp, DiskRequest, DiskStatus, GuestAddr, Output, RequestId, SECTOR_BYTES, SlotId};

/// Data segments that a request may have.
pub const SEG_MAX: u32 = 126;
/// Data bytes that a request may have.
pub const REQUEST_BYTES_MAX: u64 = 16 << 20;
/// Data bytes in flight at which no further request is taken: what a guest can make the host hold is this and one
/// request more.
pub const IN_FLIGHT_BYTES_MAX: u64 = 64 << 20;
/// Bytes that one request may discard or make zeros of. A file system that cannot writes so many.
pub const ZERO_BYTES_MAX: u64 = 64 << 20;
const BLOCK_BYTES: u32 = 512;
const SERIAL_BYTES: usize = 20;
const HEADER_BYTES: usize = 16;
/// `struct virtio_blk_discard_write_zeroes`, of which a request has one.
const ZERO_SEGMENT_BYTES: usize = 16;

const F_SEG_MAX: u64 = 1 << 2;
const F_RO: u64 = 1 << 5;
const F_BLK_SIZE: u64 = 1 << 6;
const F_FLUSH: u64 = 1 << 9;
const F_DISCARD: u64 = 1 << 13;
const F_WRITE_ZEROES: u64 = 1 << 14;

const T_IN: u32 = 0;
const T_OUT: u32 = 1;
const T_FLUSH: u32 = 4;
const T_GET_ID: u32 = 8;
const T_DISCARD: u32 = 11;
const T_WRITE_ZEROES: u32 = 13;
/// A write of zeros may give the room back.
const ZERO_UNMAP: u32 = 1;

const S_OK: u8 = 0;
const S_IOERR: u8 = 1;
const S_UNSUPP: u8 = 2;

/// A request that has not been answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct InFlight {
    request: RequestId,
    head: u16,
    op: DiskOp,
    /// Where the data that is read goes, then the status byte. Empty: a reset came between, and nobody waits.
    answer: Vec<Segment>,
    /// Whether the world knows of it; if not, it waits for an earlier one.
    issued: bool,
}

/// The chip.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Blk {
    bytes: u64,
    read_only: bool,
    serial: String,
    next_request: RequestId,
    in_flight: VecDeque<InFlight>,
}

/// Whether `later` may not be in flight beside `earlier`.
fn conflict(earlier: &DiskOp, later: &DiskOp) -> bool {
    let range = |op: &DiskOp| match op {
        DiskOp::Read { offset, len } => (*offset, u64::from(*len), false),
        DiskOp::Write { offset, data } => (*offset, data.len() as u64, true),
        DiskOp::Zero { offset, len, .. } => (*offset, *len, true),
        DiskOp::Flush => (0, u64::MAX, true),
    };
    match (earlier, later) {
        // A flush is about the writes before it, and holds nothing up behind it.
        (DiskOp::Flush, _) | (DiskOp::Read { .. }, DiskOp::Flush) => false,
        _ => {
            let (a, a_len, a_writes) = range(earlier);
            let (b, b_len, b_writes) = range(later);
            (a_writes || b_writes) && a < b.saturating_add(b_len) && b < a.saturating_add(a_len)
        }
    }
}

/// Bytes that a request moves.
fn moved(op: &DiskOp) -> u64 {
    match op {
        DiskOp::Read { len, .. } => u64::from(*len),
        DiskOp::Write { data, .. } => data.len() as u64,
        DiskOp::Flush | DiskOp::Zero { .. } => 0,
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let byte = |i: usize| u32::from(bytes.get(at + i).copied().unwrap_or(0)) << (8 * i);
    byte(0) | byte(1) | byte(2) | byte(3)
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from(word(bytes, at)) | u64::from(word(bytes, at + 4)) << 32
}

impl Blk {
    /// A disk of `bytes` bytes.
    #[must_use]
    pub fn new(bytes: u64, read_only: bool, serial: &str) -> Self {
        Self { bytes, read_only, serial: serial.to_string(), next_request: 0, in_flight: VecDeque::new() }
    }

    /// Whether this is `fresh` with a past.
    pub(crate) fn fits(&self, fresh: &Self) -> bool {
        let same =
            (self.bytes, self.read_only, &self.serial) == (fresh.bytes, fresh.read_only, &fresh.serial);
        let sane = |f: &InFlight| match &f.op {
            DiskOp::Read { offset, len } => self.holds(*offset, u64::from(*len), REQUEST_BYTES_MAX),
            DiskOp::Write { offset, data } => self.holds(*offset, data.len() as u64, REQUEST_BYTES_MAX),
            DiskOp::Zero { offset, len, .. } => self.holds(*offset, *len, ZERO_BYTES_MAX),
            DiskOp::Flush => true,
        };
        same && self.in_flight.len() <= usize::from(QUEUE_SIZE_MAX)
            && self.in_flight.iter().all(sane)
            && self.in_flight_bytes() < IN_FLIGHT_BYTES_MAX + REQUEST_BYTES_MAX
    }

    /// What it offers.
    #[must_use]
    pub fn features(&self) -> u64 {
        let zeroing = F_DISCARD | F_WRITE_ZEROES;
        F_SEG_MAX | F_BLK_SIZE | F_FLUSH | if self.read_only { F_RO } else { zeroing }
    }

    /// `struct virtio_blk_config` (5.2.4) up to `write_zeroes_may_unmap`.
    #[must_use]
    pub fn config_space(&self) -> Vec<u8> {
        let zero_sectors = (ZERO_BYTES_MAX / SECTOR_BYTES) as u32;
        let mut space = Vec::with_capacity(60);
        space.extend_from_slice(&(self.bytes / SECTOR_BYTES).to_le_bytes());
        space.extend_from_slice(&0u32.to_le_bytes());
        space.extend_from_slice(&SEG_MAX.to_le_bytes());
        space.extend_from_slice(&[0; 4]);
        space.extend_from_slice(&BLOCK_BYTES.to_le_bytes());
        // No topology, no choice of a cache, one queue.
        space.extend_from_slice(&[0; 12]);
        // Discard: most sectors, segments a request, and the alignment in sectors; then the same for zeros.
        for word in [zero_sectors, 1, 1, zero_sectors, 1] {
            space.extend_from_slice(&word.to_le_bytes());
        }
        space.extend_from_slice(&[1, 0, 0, 0]);
        space
    }

    /// Forgets what the world has not been told of, and who waits for the rest.
    pub(crate) fn reset(&mut self) {
        self.in_flight.retain(|f| f.issued);
        self.in_flight.iter_mut().for_each(|f| f.answer = Vec::new());
    }

    /// The world is done with a request, and holds nothing for it any more.
    fn settle(&mut self, request: RequestId) -> Option<InFlight> {
        let index = self.in_flight.iter().position(|f| f.issued && f.request == request)?;
        self.in_flight.remove(index)
    }

    /// The world is done with a request, and there is no driver to be told.
    pub(crate) fn handle_unheard(&mut self, request: RequestId) {
        self.settle(request);
    }

    pub(crate) fn handle_kick(&mut self, context: &mut Context<'_>) -> Result<(), QueueError> {
        for _ in 0..QUEUE_SIZE_MAX {
            if self.is_full() {
                break;
            }
            let Some(chain) = context.pop(0)? else { break };
            self.begin(chain, context)?;
        }
        self.issue(context);
        Ok(())
    }

    /// Whether requests have to wait in the queue for now.
    fn is_full(&self) -> bool {
        self.in_flight.len() >= usize::from(QUEUE_SIZE_MAX) || self.in_flight_bytes() >= IN_FLIGHT_BYTES_MAX
    }

    fn in_flight_bytes(&self) -> u64 {
        self.in_flight.iter().map(|f| moved(&f.op)).fold(0, u64::saturating_add)
    }

    fn begin(&mut self, chain: Chain, context: &mut Context<'_>) -> Result<(), QueueError> {
        // Somewhere behind the data there must be a byte for the status.
        if total(&chain.writable) == 0 || total(&chain.readable) < HEADER_BYTES as u64 {
            return Err(QueueError::Shape);
        }
        let room = total(&chain.writable) - 1;
        let payload = total(&chain.readable) - HEADER_BYTES as u64;
        let header = gather(context.ram, &chain.readable, HEADER_BYTES)?;
        let sector = long(&header, 8);
        let op = match word(&header, 0) {
            T_IN => self
                .in_bounds(sector, room)
                .map(|offset| DiskOp::Read { offset, len: room as u32 })
                .ok_or(S_IOERR),
            T_OUT if self.read_only => Err(S_IOERR),
            T_OUT => match self.in_bounds(sector, payload) {
                Some(offset) => {
                    let mut data = gather(context.ram, &chain.readable, HEADER_BYTES + payload as usize)?;
                    data.drain(..HEADER_BYTES);
                    Ok(DiskOp::Write { offset, data })
                }
                None => Err(S_IOERR),
            },
            T_FLUSH => Ok(DiskOp::Flush),
            kind @ (T_DISCARD | T_WRITE_ZEROES) if payload == ZERO_SEGMENT_BYTES as u64 => {
                let request = gather(context.ram, &chain.readable, HEADER_BYTES + ZERO_SEGMENT_BYTES)?;
                self.zero(kind, &request[HEADER_BYTES..])
            }
            T_DISCARD | T_WRITE_ZEROES => Err(S_IOERR),
            T_GET_ID => {
                let mut serial = [0; SERIAL_BYTES];
                let bytes = self.serial.as_bytes();
                let len = bytes.len().min(SERIAL_BYTES).min(room as usize);
                serial[..len].copy_from_slice(&bytes[..len]);
                let answer = &serial[..SERIAL_BYTES.min(room as usize)];
                return answer_chain(context, chain.head, &chain.writable, answer, S_OK);
            }
            _ => Err(S_UNSUPP),
        };
        match op {
            Ok(op) => {
                let request = self.next_request;
                self.next_request = self.next_request.wrapping_add(1);
                let (head, answer) = (chain.head, chain.writable);
                self.in_flight.push_back(InFlight { request, head, op, answer, issued: false });
                Ok(())
            }
            Err(status) => answer_chain(context, chain.head, &chain.writable, &[], status),
        }
    }

    /// What a segment of `kind` asks for (5.2.6). A discard is zeros, too: what is read afterwards is not left to hosts.
    fn zero(&self, kind: u32, segment: &[u8]) -> Result<DiskOp, u8> {
        let unmap = match (kind, word(segment, 12)) {
            (T_DISCARD, 0) | (T_WRITE_ZEROES, ZERO_UNMAP) => true,
            (T_WRITE_ZEROES, 0) => false,
            _ => return Err(S_UNSUPP),
        };
        let len = u64::from(word(segment, 8)) * SECTOR_BYTES;
        let offset = long(segment, 0).checked_mul(SECTOR_BYTES).ok_or(S_IOERR)?;
        let allowed = !self.read_only && self.holds(offset, len, ZERO_BYTES_MAX);
        if allowed { Ok(DiskOp::Zero { offset, len, unmap }) } else { Err(S_IOERR) }
    }

    /// The byte offset of an access that lies on the disk and is no longer than one may be.
    fn in_bounds(&self, sector: u64, len: u64) -> Option<u64> {
        sector.checked_mul(SECTOR_BYTES).filter(|offset| self.holds(*offset, len, REQUEST_BYTES_MAX))
    }

    fn holds(&self, offset: u64, len: u64, len_max: u64) -> bool {
        let whole = offset.is_multiple_of(SECTOR_BYTES) && len.is_multiple_of(SECTOR_BYTES);
        let on_disk = offset.checked_add(len).is_some_and(|end| end <= self.bytes);
        whole && on_disk && (1..=len_max).contains(&len)
    }

    /// Tells the world of every request that no earlier one stands in the way of.
    fn issue(&mut self, context: &mut Context<'_>) {
        for index in 0..self.in_flight.len() {
            let (earlier, this) = (self.in_flight.iter().take(index), &self.in_flight[index]);
            if this.issued || earlier.into_iter().any(|e| conflict(&e.op, &this.op)) {
                continue;
            }
            self.in_flight[index].issued = true;
            let InFlight { request, op, .. } = &self.in_flight[index];
            let request = DiskRequest { slot: context.slot, request: *request, op: op.clone() };
            context.outputs.push_back(Output::Disk(request));
        }
    }

    pub(crate) fn handle_done(
        &mut self,
        request: RequestId,
        status: DiskStatus,
        data: &[u8],
        context: &mut Context<'_>,
    ) -> Result<(), QueueError> {
        let Some(done) = self.settle(request) else { return Ok(()) };
        let wanted = match done.op {
            DiskOp::Read { len, .. } => len as usize,
            DiskOp::Write { .. } | DiskOp::Flush | DiskOp::Zero { .. } => 0,
        };
        let (data, status) = match status {
            DiskStatus::Ok if data.len() == wanted => (data, S_OK),
            _ => (&[][..], S_IOERR),
        };
        if !done.answer.is_empty() {
            answer_chain(context, done.head, &done.answer, data, status)?;
        }
        // Room in here: the driver may have queued more than could be taken.
        self.handle_kick(context)
    }

    /// Requests that the world knows of; those, too, that nobody waits for any more.
    #[must_use]
    pub fn pending(&self, slot: SlotId) -> Vec<Output> {
        let issued = self.in_flight.iter().filter(|f| f.issued);
        issued.map(|f| Output::Disk(DiskRequest { slot, request: f.request, op: f.op.clone() })).collect()
    }
}

/// Data from the front of the chain's writable part, the status in its last byte.
fn answer_chain(
    context: &mut Context<'_>,
    head: u16,
    writable: &[Segment],
    data: &[u8],
    status: u8,
) -> Result<(), QueueError> {
    let written = scatter(context.ram, writable, data)?;
    if let Some(last) = writable.iter().rev().find(|segment| segment.len > 0) {
        let addr = GuestAddr(last.addr.0.wrapping_add(u64::from(last.len) - 1));
        context.ram.write(addr, &[status])?;
    }
    context.push(0, head, written + 1)
}
