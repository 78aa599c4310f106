//! A snapshot is a stream over a frozen image, not a block of bytes: the machine may run on while it is read.
//!
//! Invariants: the stream says what the machine was when it was frozen, whatever the machine does meanwhile; what is
//! held besides the machine is one portion of the stream, and of memory what the guest has overwritten and nobody has
//! read yet, each page at most once.
//!
//! Order of the stream: all state but memory, then memory page by page, rising, each with its number; pages of zeros are
//! left out. What a machine's bytes are is its own: they are a versioned, checksummed snapshot (`pollux_codec::snapshot`).

use crate::Machine;
use alloc::string::String;
use alloc::vec::Vec;
use pollux_vocab::{GuestAddr, Icount};

/// Pages in one of [`Pieces`]: a mebibyte, and the pages' numbers.
const PIECE_PAGES: usize = 256;

/// A machine of which an image can be frozen, one at a time.
pub trait Freeze: Machine {
    /// Freezes an image of the whole state, here and now; caches and resources are left out, and so are outputs that
    /// nobody has taken. An earlier image is let go. Costs no time to speak of.
    fn freeze(&mut self);

    /// Looks at up to `pages_max` more pages of the image. `Some`: all have been looked at, and this is how many bytes
    /// its snapshot has.
    fn measure_frozen(&mut self, pages_max: usize) -> Option<u64>;

    /// Appends the next bytes of the image's snapshot: state, or up to `pages_max` pages, which are let go. False: there
    /// are no more. The image must have been measured.
    fn read_frozen(&mut self, pages_max: usize, out: &mut Vec<u8>) -> bool;

    /// Lets the image go.
    fn thaw(&mut self);
}

/// Looks into a frozen image. What [`Freeze::read_frozen`] has let go is not there any more.
pub trait Inspect: Freeze {
    /// The instant of the image; `None` if there is none, and then there is nothing else.
    fn frozen_at(&self) -> Option<Icount>;

    /// Copies memory at a guest physical address. False: not all of it is memory of the image.
    #[must_use]
    fn inspect_memory(&self, addr: GuestAddr, to: &mut [u8]) -> bool;

    /// Every hart's registers by name.
    fn inspect_harts(&self) -> Vec<Vec<(String, u64)>>;

    /// The device sections, as a snapshot has them.
    fn inspect_devices(&self) -> Vec<DeviceState>;
}

/// The state of a device, or of several of a kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceState {
    /// Its name, for people.
    pub name: &'static str,
    /// The version of what it holds.
    pub version: u16,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// The snapshot of a machine that stands still, piece by piece.
#[derive(Debug)]
pub struct Pieces<'a, M: Freeze> {
    machine: &'a mut M,
    bytes: u64,
}

impl<'a, M: Freeze> Pieces<'a, M> {
    /// Freezes the machine and measures the image.
    pub fn of(machine: &'a mut M) -> Self {
        machine.freeze();
        let bytes = loop {
            if let Some(bytes) = machine.measure_frozen(usize::MAX) {
                break bytes;
            }
        };
        Self { machine, bytes }
    }

    /// Bytes of all pieces together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The machine that the snapshot is of.
    pub fn machine(&mut self) -> &mut M {
        self.machine
    }
}

impl<M: Freeze> Iterator for Pieces<'_, M> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut piece = Vec::new();
        while self.machine.read_frozen(PIECE_PAGES, &mut piece) {
            if !piece.is_empty() {
                return Some(piece);
            }
        }
        None
    }
}

impl<M: Freeze> Drop for Pieces<'_, M> {
    fn drop(&mut self) {
        self.machine.thaw();
    }
}
