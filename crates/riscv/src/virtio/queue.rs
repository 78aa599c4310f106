//! Split virtqueues (virtio 1.2, 2.7): the walk through guest memory.
//!
//! Nothing found there is believed: indices, addresses, lengths and links are checked, a chain has at most as many
//! descriptors as [`CHAIN_MAX`], and a loop is therefore an error and not a hang. Rings may overlap in memory, so
//! giving a chain back can make another available: chips take at most [`QUEUE_SIZE_MAX`] of them at an instant.

pub(crate) mod state;

use crate::ram::{BadAddress, Ram};
use alloc::vec::Vec;
use pollux_vocab::GuestAddr;

/// Entries that a queue may have.
pub const QUEUE_SIZE_MAX: u16 = 256;
/// Descriptors that one chain may have, indirect ones included.
pub const CHAIN_MAX: usize = 512;
const DESC_BYTES: u64 = 16;
const F_NEXT: u16 = 1;
const F_WRITE: u16 = 2;
const F_INDIRECT: u16 = 4;
const AVAIL_F_NO_INTERRUPT: u16 = 1;

/// The driver has put something into the queue that makes no sense.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QueueError {
    /// A ring, table or buffer is not in RAM.
    Address(BadAddress),
    /// More entries are available than the queue has.
    Index,
    /// A descriptor's number is outside of its table.
    Descriptor,
    /// A chain that is too long, or runs in a circle.
    TooLong,
    /// An indirect table in an indirect table, or one of a crooked length.
    Indirect,
    /// A readable descriptor behind a writable one.
    Order,
    /// A request that the device cannot answer: it has no room for the answer.
    Shape,
}

impl From<BadAddress> for QueueError {
    fn from(error: BadAddress) -> Self {
        Self::Address(error)
    }
}

/// A piece of guest memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Where.
    pub addr: GuestAddr,
    /// How many bytes.
    pub len: u32,
}

/// What the driver has made available with one head: buffers to read, then buffers to write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chain {
    /// Identifies it when it is given back.
    pub head: u16,
    /// For the device to read.
    pub readable: Vec<Segment>,
    /// For the device to write.
    pub writable: Vec<Segment>,
}

/// One virtqueue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Queue {
    /// Entries; a power of two, at most [`QUEUE_SIZE_MAX`].
    pub size: u16,
    /// Whether the driver has put it into use.
    pub ready: bool,
    /// The descriptor table.
    pub desc: u64,
    /// The available ring.
    pub avail: u64,
    /// The used ring.
    pub used: u64,
    next_avail: u16,
    next_used: u16,
}

impl Default for Queue {
    fn default() -> Self {
        Self { size: QUEUE_SIZE_MAX, ready: false, desc: 0, avail: 0, used: 0, next_avail: 0, next_used: 0 }
    }
}

fn at(base: u64, offset: u64) -> GuestAddr {
    GuestAddr(base.wrapping_add(offset))
}

impl Queue {
    /// Whether the sizes and states make sense; for a queue that comes from a snapshot.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.size.is_power_of_two() && self.size <= QUEUE_SIZE_MAX
    }

    /// Chains that the driver has made available and nobody has taken.
    pub fn available(&self, ram: &Ram) -> Result<u16, QueueError> {
        if !self.ready {
            return Ok(0);
        }
        let count = ram.read_u16(at(self.avail, 2))?.wrapping_sub(self.next_avail);
        if count > self.size { Err(QueueError::Index) } else { Ok(count) }
    }

    /// The next available chain; it stays available.
    pub fn peek(&self, ram: &Ram) -> Result<Option<Chain>, QueueError> {
        if self.available(ram)? == 0 {
            return Ok(None);
        }
        let slot = u64::from(self.next_avail % self.size);
        let head = ram.read_u16(at(self.avail, 4 + 2 * slot))?;
        let mut chain = Chain { head, readable: Vec::new(), writable: Vec::new() };
        self.walk(ram, self.desc, u64::from(self.size), head, true, &mut chain)?;
        Ok(Some(chain))
    }

    /// Takes the next available chain.
    pub fn pop(&mut self, ram: &Ram) -> Result<Option<Chain>, QueueError> {
        let chain = self.peek(ram)?;
        if chain.is_some() {
            self.next_avail = self.next_avail.wrapping_add(1);
        }
        Ok(chain)
    }

    fn walk(
        &self,
        ram: &Ram,
        table: u64,
        entries: u64,
        first: u16,
        may_nest: bool,
        chain: &mut Chain,
    ) -> Result<(), QueueError> {
        let mut index = u64::from(first);
        loop {
            if index >= entries {
                return Err(QueueError::Descriptor);
            }
            if chain.readable.len() + chain.writable.len() >= CHAIN_MAX {
                return Err(QueueError::TooLong);
            }
            let desc = table.wrapping_add(index * DESC_BYTES);
            let addr = ram.read_u64(at(desc, 0))?;
            let len = ram.read_u32(at(desc, 8))?;
            let flags = ram.read_u16(at(desc, 12))?;
            if flags & F_INDIRECT != 0 {
                let entries = u64::from(len) / DESC_BYTES;
                if !may_nest
                    || flags & F_NEXT != 0
                    || entries == 0
                    || !u64::from(len).is_multiple_of(DESC_BYTES)
                {
                    return Err(QueueError::Indirect);
                }
                return self.walk(ram, addr, entries, 0, false, chain);
            }
            let segment = Segment { addr: GuestAddr(addr), len };
            if ram.slice(segment.addr, u64::from(len)).is_none() {
                return Err(QueueError::Address(BadAddress { addr, len: u64::from(len) }));
            }
            if flags & F_WRITE != 0 {
                chain.writable.push(segment);
            } else if chain.writable.is_empty() {
                chain.readable.push(segment);
            } else {
                return Err(QueueError::Order);
            }
            if flags & F_NEXT == 0 {
                return Ok(());
            }
            index = u64::from(ram.read_u16(at(desc, 14))?);
        }
    }

    /// Gives a chain back. True if the driver wants to be interrupted for it.
    pub fn push(&mut self, ram: &mut Ram, head: u16, written: u32) -> Result<bool, QueueError> {
        if !self.ready {
            return Ok(false);
        }
        let slot = u64::from(self.next_used % self.size);
        ram.write_u32(at(self.used, 4 + 8 * slot), u32::from(head))?;
        ram.write_u32(at(self.used, 8 + 8 * slot), written)?;
        self.next_used = self.next_used.wrapping_add(1);
        ram.write_u16(at(self.used, 2), self.next_used)?;
        Ok(ram.read_u16(at(self.avail, 0))? & AVAIL_F_NO_INTERRUPT == 0)
    }
}

/// Bytes in all segments.
#[must_use]
pub fn total(segments: &[Segment]) -> u64 {
    segments.iter().map(|s| u64::from(s.len)).sum()
}

/// Copies out of guest memory, at most `max` bytes.
pub fn gather(ram: &Ram, segments: &[Segment], max: usize) -> Result<Vec<u8>, QueueError> {
    let mut bytes = Vec::with_capacity((total(segments) as usize).min(max));
    for segment in segments {
        let len = (segment.len as usize).min(max - bytes.len());
        let from = bytes.len();
        bytes.resize(from + len, 0);
        ram.read(segment.addr, &mut bytes[from..])?;
    }
    Ok(bytes)
}

/// Copies into guest memory as much of `bytes` as has room; returns how much.
pub fn scatter(ram: &mut Ram, segments: &[Segment], mut bytes: &[u8]) -> Result<u32, QueueError> {
    let mut written = 0;
    for segment in segments {
        let (now, later) = bytes.split_at(bytes.len().min(segment.len as usize));
        ram.write(segment.addr, now)?;
        written += now.len() as u32;
        bytes = later;
    }
    Ok(written)
}
