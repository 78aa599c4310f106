//! Memory that holds translated code: one file mapped twice, once to write and once to execute, so that no address
//! is ever both (W^X).

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};
use std::io;

/// A large page of x86-64.
const LARGE_PAGE_BYTES: usize = 2 << 20;

/// The memory. Offsets in it are what `pollux-codegen` speaks of.
#[derive(Debug)]
pub(crate) struct CodeMemory {
    /// Where it is written, and where it executes.
    writable: usize,
    executable: usize,
    len: usize,
}

impl CodeMemory {
    /// `len` bytes of it; the host provides pages on first use.
    pub(crate) fn new(len: usize) -> io::Result<Self> {
        let file = memfd_create("pollux-code", MemfdFlags::CLOEXEC)?;
        ftruncate(&file, len as u64)?;
        let map = |prot| {
            // SAFETY: a fresh mapping at an address of the kernel's choice overlaps nothing.
            unsafe { mmap(std::ptr::null_mut(), len, prot, MapFlags::SHARED, &file, 0) }
        };
        let writable = map(ProtFlags::READ | ProtFlags::WRITE)? as usize;
        let executable = match map(ProtFlags::READ | ProtFlags::EXEC) {
            Ok(address) => address as usize,
            Err(error) => {
                // SAFETY: mapped above, and nobody has its address yet.
                unsafe { munmap(writable as *mut _, len)? };
                return Err(error.into());
            }
        };
        Ok(Self { writable, executable, len })
    }

    /// Its size.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Writes code at an offset. Nothing of what is written over may be executing but a jump's displacement.
    pub(crate) fn write(&mut self, offset: u32, bytes: &[u8]) {
        let end = offset as usize + bytes.len();
        assert!(end <= self.len, "code memory ends at {} and not at {end}", self.len);
        // SAFETY: the range lies in the writable mapping, which is this value's alone, and no Rust reference to it
        // exists anywhere.
        unsafe {
            std::ptr::copy_nonoverlapping(
                bytes.as_ptr(),
                (self.writable + offset as usize) as *mut u8,
                bytes.len(),
            );
        }
    }

    /// The address at which the code at an offset executes.
    pub(crate) fn address(&self, offset: u32) -> u64 {
        (self.executable + offset as usize) as u64
    }
}

/// Asks the host for large pages for a guest's RAM. Whether it gives any does not show.
pub(crate) fn prefer_large_pages(ram: *mut u8, len: usize) {
    let first = ram as usize;
    let (first, end) = (first.next_multiple_of(LARGE_PAGE_BYTES), first + len);
    if let Some(len) = end.checked_sub(first) {
        // SAFETY: advice changes neither content nor protection of the range, which lies within the guest's RAM.
        let _ = unsafe { madvise(first as *mut _, len & !(LARGE_PAGE_BYTES - 1), Advice::LinuxHugepage) };
    }
}

impl Drop for CodeMemory {
    fn drop(&mut self) {
        for address in [self.writable, self.executable] {
            // SAFETY: mapped by `new` with this length and not unmapped since; translated code runs only while its
            // engine, which owns this value, is borrowed.
            let unmapped = unsafe { munmap(address as *mut _, self.len) };
            debug_assert!(unmapped.is_ok(), "a mapping of our own can be unmapped");
        }
    }
}
