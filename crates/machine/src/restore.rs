//! A machine from a snapshot that comes in pieces, so that nobody holds it twice.

use crate::{Machine, MemorySource};
use alloc::boxed::Box;
use pollux_vocab::SlotId;

/// A machine that can be built from a snapshot.
pub trait Restore: Machine + Sized {
    /// Which kind of machine this is, by the name that two hosts agree on.
    const KIND: &'static str;

    /// What takes a snapshot in.
    type Builder: Build<Machine = Self>;

    /// A builder of a machine with memory from `memory`.
    fn builder(memory: Box<dyn MemorySource>) -> Self::Builder;

    /// What the machine is made of, as far as its host must know.
    fn parts(&self) -> Parts;
}

/// Takes a snapshot in.
pub trait Build {
    /// What comes of it.
    type Machine;
    /// Why it is refused.
    type Error: core::error::Error + Send + Sync + 'static;

    /// Takes the next bytes.
    fn push(&mut self, bytes: &[u8]) -> Result<(), Self::Error>;

    /// That was all: the machine.
    fn finish(self) -> Result<Self::Machine, Self::Error>;
}

/// What a host must know of a machine to run it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parts {
    /// Harts.
    pub harts: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Its disks.
    pub disks: alloc::vec::Vec<DiskPart>,
}

/// A disk of a machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskPart {
    /// Where it is plugged in.
    pub slot: SlotId,
    /// Its size in bytes.
    pub bytes: u64,
    /// Whether the guest may not write to it.
    pub read_only: bool,
}
