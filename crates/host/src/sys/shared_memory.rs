//! Memory for a machine that another process can map, to read: a sealed memfd for each of the guest's lives.
//!
//! Invariants: in this process the machine has the mapping alone; no other process can write to it, shrink it or grow
//! it, for the file is sealed as soon as the mapping is there.
//!
//! Source: memfd_create(2), `F_SEAL_FUTURE_WRITE`.

use pollux_machine::{Memory, MemorySource};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

/// A memory that was given and not taken back.
#[derive(Debug)]
struct Given {
    file: OwnedFd,
    /// Where it is mapped.
    at: usize,
}

/// Gives memory, and the files that it is. Clones speak of the same memory.
#[derive(Clone, Debug, Default)]
pub struct SharedMemory(Arc<Mutex<Vec<Given>>>);

impl SharedMemory {
    /// The memory that the machine lives in, for another process to map. If the guest is about to begin again, that is
    /// the life that has not ended; while an image is frozen, the one that the image is of.
    pub fn file(&self) -> io::Result<Option<File>> {
        let given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        given.first().map(|given| given.file.try_clone().map(File::from)).transpose()
    }

    fn map(&self, bytes: usize) -> io::Result<&'static mut [u8]> {
        let file = memfd_create("pollux-ram", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&file, bytes as u64)?;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address that the kernel chooses overlaps nothing that this process has.
        let at = unsafe { mmap(std::ptr::null_mut(), bytes, access, MapFlags::SHARED, &file, 0) }?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL;
        if let Err(error) = fcntl_add_seals(&file, seals) {
            // SAFETY: the mapping was made above, has this length, and nobody has been told of it.
            let _ = unsafe { munmap(at, bytes) };
            return Err(error.into());
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Given { file, at: at as usize });
        // SAFETY: the mapping is of `bytes` readable and writable bytes, page-aligned, zero at first, and stays until
        // `take_back` is handed the slice again; the file is sealed, so it cannot get shorter below the mapping, and
        // nobody else can write to it. It is given out once.
        Ok(unsafe { std::slice::from_raw_parts_mut(at.cast(), bytes) })
    }
}

impl MemorySource for SharedMemory {
    fn give(&mut self, bytes: usize) -> Option<Memory> {
        match self.map(bytes) {
            Ok(memory) => Some(Memory::Lent(memory)),
            Err(error) => {
                tracing::error!(%error, bytes, "this host has not got the memory to give");
                None
            }
        }
    }

    fn take_back(&mut self, memory: Memory) {
        let Memory::Lent(bytes) = memory else { return };
        let (at, len) = (bytes.as_mut_ptr(), bytes.len());
        let mut given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(index) = given.iter().position(|given| given.at == at as usize) else { return };
        given.remove(index);
        // SAFETY: this is a mapping that `map` has made, of this length; the only reference to it was handed in, and is
        // not used any more.
        let _ = unsafe { munmap(at.cast(), len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pollux_machine::Machine;
    use pollux_riscv::{Boot, Computer, Config};
    use std::os::unix::fs::FileExt;

    const BYTES: usize = 8 << 20;

    #[test]
    fn what_a_guest_writes_is_seen_through_the_file_and_nobody_else_writes_there() {
        // lui t0, 0x12345; auipc t1, 1; sw t0, 0(t1); j .
        let words: [u32; 4] = [0x1234_52b7, 0x0000_1317, 0x0053_2023, 0x0000_006f];
        let image: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let config = Config { ram_bytes: BYTES as u64, ..Config::default() };
        let boot = Boot::Firmware { image: &image, kernel: None, initrd: None, command_line: "" };
        let memory = SharedMemory::default();
        let mut machine = Computer::new_in(&config, boot, Box::new(memory.clone())).expect("a machine");
        let file = memory.file().expect("a descriptor").expect("given");
        assert_eq!(file.metadata().expect("a file").len(), BYTES as u64);
        let word = || {
            let mut word = [0; 4];
            file.read_exact_at(&mut word, 0x1004).expect("RAM");
            u32::from_le_bytes(word)
        };
        assert_eq!(word(), 0);
        machine.run(machine.icount().after(100));
        assert_eq!(word(), 0x1234_5000);
        assert!(file.write_at(&[1], 0x1004).is_err(), "it is sealed");
        assert!(file.set_len(0).is_err(), "it is sealed");
    }

    #[test]
    fn memory_that_is_given_back_is_unmapped_and_the_next_is_zero() {
        let mut memory = SharedMemory::default();
        let mut first = memory.give(BYTES).expect("room");
        first[5] = 1;
        let second = memory.give(BYTES).expect("room");
        assert!(second.iter().all(|byte| *byte == 0));
        let mut byte = [0];
        memory.file().expect("a descriptor").expect("given").read_exact_at(&mut byte, 5).expect("RAM");
        assert_eq!(byte, [1], "the life that has not ended");
        memory.take_back(first);
        memory.file().expect("a descriptor").expect("given").read_exact_at(&mut byte, 5).expect("RAM");
        assert_eq!(byte, [0]);
        memory.take_back(second);
        assert!(memory.file().expect("a descriptor").is_none());
    }
}
