//! What enters the machine ([`Input`]) and what leaves it ([`Output`]). There is no third way.

use crate::units::{ClockRate, VirtTime};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Which virtio-mmio slot a device sits in: 0-based, at most 7; 8 is the power button's.
pub type SlotId = u8;
/// A device's own running number for what it has asked of the world; never reused within a VM's life.
pub type RequestId = u64;

/// Which console a byte belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum ConsoleId {
    /// The 16550 UART.
    Uart,
    /// The virtio console in this slot.
    Virtio(SlotId),
}

/// An event from outside, applied to the machine at an exact icount.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Input {
    /// An Ethernet frame (no virtio header, no FCS) arrived at the network device in `slot`.
    Packet {
        /// The network device.
        slot: SlotId,
        /// The frame, destination address first.
        frame: Vec<u8>,
    },
    /// A disk request has finished.
    DiskDone {
        /// The disk.
        slot: SlotId,
        /// The number its [`DiskRequest`] carried.
        request: RequestId,
        /// How it went.
        status: DiskStatus,
        /// What was read: exactly the bytes asked for on a read that went well, empty otherwise.
        data: Vec<u8>,
    },
    /// Somebody typed.
    Console {
        /// Where.
        console: ConsoleId,
        /// What.
        bytes: Vec<u8>,
    },
    /// Random bytes that the entropy device asked for.
    Entropy {
        /// The rng device.
        slot: SlotId,
        /// The number its [`Output::EntropyWanted`] carried.
        request: RequestId,
        /// The bytes; may be fewer than asked for.
        bytes: Vec<u8>,
    },
    /// The clock goes on from `time` (raised to the present if it lies in the past) at `rate`. Also how an
    /// idle wait ends: time jumps, the icount does not.
    Clock {
        /// New virtual time.
        time: VirtTime,
        /// New rate.
        rate: ClockRate,
    },
    /// Somebody pressed the power button: the guest is told, or, if no driver listens, the power is cut.
    PowerButton,
}

/// What became of a disk request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum DiskStatus {
    /// Done; for a flush: on stable storage.
    Ok,
    /// The host's disk failed it; the guest sees `VIRTIO_BLK_S_IOERR`.
    IoError,
}

/// One request to a disk. Data written is a copy taken when the guest kicked the queue (DESIGN 2.5).
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct DiskRequest {
    /// The disk.
    pub slot: SlotId,
    /// The device's number for it, rising by one.
    pub request: RequestId,
    /// What to do. In bounds of the disk: the device has already refused what is not.
    pub op: DiskOp,
}

/// What a disk is asked to do. Offsets and lengths in bytes, multiples of 512.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum DiskOp {
    /// Read `len` bytes at `offset`.
    Read {
        /// Byte offset.
        offset: u64,
        /// Byte count.
        len: u32,
    },
    /// Write `data` at `offset`.
    Write {
        /// Byte offset.
        offset: u64,
        /// The bytes.
        data: Vec<u8>,
    },
    /// Put everything that completed before this request on stable storage (`fdatasync`).
    Flush,
    /// Make zeros of a range: what is read there afterwards is the same on every host.
    Zero {
        /// Byte offset.
        offset: u64,
        /// Byte count.
        len: u64,
        /// The room may be given back.
        unmap: bool,
    },
}

/// An effect on the world outside.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Output {
    /// An Ethernet frame leaves the network device in `slot`.
    Packet {
        /// The network device.
        slot: SlotId,
        /// The frame, destination address first.
        frame: Vec<u8>,
    },
    /// A disk is asked for something; answered by [`Input::DiskDone`].
    Disk(DiskRequest),
    /// Bytes for somebody's terminal.
    Console {
        /// Where.
        console: ConsoleId,
        /// What.
        bytes: Vec<u8>,
    },
    /// The rng device wants up to `len` random bytes; answered by [`Input::Entropy`].
    EntropyWanted {
        /// The rng device.
        slot: SlotId,
        /// The device's number for it.
        request: RequestId,
        /// How many bytes at most.
        len: u32,
    },
    /// The guest asked for a reset. The machine has stopped.
    Reset,
    /// The guest powered off. The machine has stopped.
    PowerOff {
        /// 0 for an orderly power-off, else the code the guest gave the test finisher.
        status: i32,
    },
}
