//! Where a machine's memory comes from: its own, or what its host lends it, so that another process can map it.
//!
//! Invariant: whoever has the memory has it alone in this process. That other processes do not write to it is for the
//! host to see to.

use alloc::boxed::Box;
use alloc::vec;
use core::ops::{Deref, DerefMut};

/// The bytes of a machine's memory.
#[derive(Debug)]
pub enum Memory {
    /// This process's alone.
    Own(Box<[u8]>),
    /// The host's.
    Lent(&'static mut [u8]),
}

impl Deref for Memory {
    type Target = [u8];

    // Both have their bytes at the same place, so that this costs nothing.
    #[inline(always)]
    fn deref(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Lent(bytes) => bytes,
        }
    }
}

impl DerefMut for Memory {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Lent(bytes) => bytes,
        }
    }
}

/// Gives memory to a machine: when it is built, and again whenever its guest begins again in place.
pub trait MemorySource {
    /// `bytes` bytes, all zero; `None` if the host has not got them to give.
    fn give(&mut self, bytes: usize) -> Option<Memory>;

    /// The machine needs this no more.
    fn take_back(&mut self, _memory: Memory) {}
}

/// Memory of this process's own.
#[derive(Clone, Copy, Debug, Default)]
pub struct OwnMemory;

impl MemorySource for OwnMemory {
    fn give(&mut self, bytes: usize) -> Option<Memory> {
        // An allocation that fails ends the process: asked first.
        let mut probe = alloc::vec::Vec::<u8>::new();
        let is_given = probe.try_reserve_exact(bytes).is_ok();
        // An allocation that nobody looks at may be optimised away, and then succeeds.
        core::hint::black_box(&probe);
        drop(probe);
        is_given.then(|| Memory::Own(vec![0; bytes].into_boxed_slice()))
    }
}
