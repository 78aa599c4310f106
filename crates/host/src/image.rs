//! Disk images as raw files: what may be one, and what a request does to it.
//!
//! Invariant: a write to a *shared* image that has completed is in the image, for whoever reads it, on whichever host,
//! also after this host has lost its power: the VM goes on over there, and never learns that a cache was lost. Hence
//! direct I/O and `O_DSYNC`, and no page of the image is ever in this host's cache. A replicated image is this host's
//! own, which is out of the pair with the host: what is not flushed may stay in the cache.
//!
//! Invariant: what was discarded or zeroed reads back as zeros, on every file system and device, so that two replicas
//! read the same. Giving room back is what a file system does for that if it can.
//!
//! Not here: the thread that serves an image, the order of requests (`disk`).

use crate::lock::lock_soon;
use pollux_vocab::{DiskOp, SECTOR_BYTES};
use rustix::fs::{FallocateFlags, FlockOperation, OFlags, SeekFrom, fallocate};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

/// Where in memory direct I/O may begin, in bytes: no device asks for more.
const MEMORY_ALIGN: usize = 4096;
/// Units that direct I/O may have, in bytes, smallest first.
const BLOCKS: [u64; 2] = [512, 4096];
/// Bytes read at a time for a hash, and written at a time where a file system cannot zero.
const CHUNK: usize = 1 << 20;

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// It cannot be opened.
    #[error("cannot open disk image {path}: {source}; check that it exists and that you may {}", if *.read_only { "read it" } else { "read and write it" })]
    Open {
        /// The image.
        path: PathBuf,
        /// Whether writing was asked for.
        read_only: bool,
        /// The host's answer.
        source: io::Error,
    },
    /// Its size makes no disk.
    #[error(
        "disk image {path} has {bytes} bytes, which is not a positive multiple of {SECTOR_BYTES}; is it truncated, or not a raw image? (qemu-img convert -O raw makes one)"
    )]
    Size {
        /// The image.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// Somebody else uses it.
    #[error(
        "disk image {path} is in use by another process; two writers would destroy it. Give each replica an image of its own, or share it with mode = \"shared\""
    )]
    InUse {
        /// The image.
        path: PathBuf,
    },
    /// It looks like something other than a raw image.
    #[error(
        "disk image {path} is in {format} format; Pollux takes raw images: qemu-img convert -O raw {path} NEW"
    )]
    Format {
        /// The image.
        path: PathBuf,
        /// What it is.
        format: &'static str,
    },
    /// It cannot be read.
    #[error("cannot read disk image {path} at byte {offset}: {source}")]
    Read {
        /// The image.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// The host's answer.
        source: io::Error,
    },
    /// Its file system caches what it is told to write through.
    #[error(
        "disk image {path} cannot be shared: its file system takes no direct I/O ({source}), and what one host has cached the other would miss. Put it on a file system that does (ext4, XFS, NFS) or on a block device, or give each replica an image of its own"
    )]
    NotDirect {
        /// The image.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// Its last block is not whole.
    #[error(
        "disk image {path} cannot be shared: its size is {bytes} bytes, and its file system transfers blocks of {block}; grow it to a multiple (truncate -s %{block} {path})"
    )]
    Blocks {
        /// The image.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// Bytes transferred at a time.
        block: u64,
    },
}

/// An open image that no thread serves yet.
#[derive(Debug)]
pub struct Image {
    file: File,
    path: PathBuf,
    bytes: u64,
    shared: bool,
    /// The unit of direct I/O; `None` goes through the page cache.
    block: Option<u64>,
}

/// Memory that direct I/O takes.
struct Aligned {
    bytes: Vec<u8>,
    from: usize,
    len: usize,
}

impl Aligned {
    fn new(len: usize) -> Self {
        let bytes = vec![0; len + MEMORY_ALIGN];
        let from = bytes.as_ptr().align_offset(MEMORY_ALIGN).min(MEMORY_ALIGN);
        Self { bytes, from, len }
    }

    fn slice(&mut self) -> &mut [u8] {
        &mut self.bytes[self.from..][..self.len]
    }
}

impl Image {
    /// Opens a raw image. `exclusive` refuses an image that another exclusive user has open;
    /// without it, the image is one that both hosts reach: served behind a fence, and written through.
    pub fn open(path: &Path, read_only: bool, exclusive: bool) -> Result<Self, DiskError> {
        let through = !exclusive && !read_only;
        let fault = |source| DiskError::Open { path: path.into(), read_only, source };
        let file = match open(path, read_only, through) {
            Err(source) if through && source.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                return Err(DiskError::NotDirect { path: path.into(), source });
            }
            opened => opened.map_err(fault)?,
        };
        let length = |file: &File| {
            let end = rustix::fs::seek(file, SeekFrom::End(0))?;
            rustix::fs::seek(file, SeekFrom::Start(0))?;
            Ok::<u64, io::Error>(end)
        };
        let bytes = length(&file).map_err(fault)?;
        let mut image = Self { file, path: path.into(), bytes, shared: !exclusive, block: None };
        if through {
            image.block = Some(image.find_block()?);
        }
        image.refuse_formats()?;
        if bytes == 0 || !bytes.is_multiple_of(SECTOR_BYTES) {
            return Err(DiskError::Size { path: path.into(), bytes });
        }
        if let Some(block) = image.block.filter(|block| !bytes.is_multiple_of(*block)) {
            return Err(DiskError::Blocks { path: path.into(), bytes, block });
        }
        let lock = match (exclusive, read_only) {
            (true, false) => FlockOperation::NonBlockingLockExclusive,
            _ => FlockOperation::NonBlockingLockShared,
        };
        match lock_soon(&image.file, lock) {
            Err(Errno::WOULDBLOCK) => Err(DiskError::InUse { path: path.into() }),
            // A file system without locks is no reason to refuse.
            _ => Ok(image),
        }
    }

    /// The unit of direct I/O, found out by trying.
    fn find_block(&self) -> Result<u64, DiskError> {
        let mut refusal = io::Error::from(Errno::INVAL);
        for block in BLOCKS {
            match self.file.read_at(Aligned::new(block as usize).slice(), 0) {
                Ok(_) => return Ok(block),
                Err(error) => refusal = error,
            }
        }
        Err(DiskError::NotDirect { path: self.path.clone(), source: refusal })
    }

    fn refuse_formats(&self) -> Result<(), DiskError> {
        let mut start = Aligned::new(MEMORY_ALIGN);
        let magic = start.slice();
        let got = self.file.read_at(magic, 0).unwrap_or(0);
        let format = match &magic[..got.min(8)] {
            [b'Q', b'F', b'I', 0xfb, ..] => "qcow2",
            [b'K', b'D', b'M', b'V', ..] => "VMDK",
            b"conectix" => "VHD",
            b"vhdxfile" => "VHDX",
            _ => return Ok(()),
        };
        Err(DiskError::Format { path: self.path.clone(), format })
    }

    /// Size in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether another host reaches it, too.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.shared
    }

    /// A hash of the content, holes skipped, so that a pair can see that it starts from equal images.
    pub fn content_hash(&self) -> Result<u64, DiskError> {
        let mut hash = Xxh3::new();
        let mut offset = 0u64;
        while offset < self.bytes {
            let data = match rustix::fs::seek(&self.file, SeekFrom::Data(offset)) {
                Ok(data) => data,
                Err(Errno::NXIO) => break,
                Err(_) => offset,
            };
            // Whole chunks, so that where the file system puts its holes does not matter.
            offset = data / CHUNK as u64 * CHUNK as u64;
            let want = CHUNK.min((self.bytes - offset) as usize);
            let fault = |source| DiskError::Read { path: self.path.clone(), offset, source };
            let chunk = self.read(offset, want).map_err(fault)?;
            if chunk.iter().any(|b| *b != 0) {
                hash.update(&offset.to_le_bytes());
                hash.update(&chunk);
            }
            offset += want as u64;
        }
        Ok(hash.digest())
    }

    /// Does what a request asks for; returns what was read.
    pub(crate) fn perform(&self, op: &DiskOp) -> io::Result<Vec<u8>> {
        match op {
            DiskOp::Read { offset, len } => return self.read(*offset, *len as usize),
            DiskOp::Write { offset, data } => self.write(*offset, data)?,
            DiskOp::Flush => self.sync()?,
            DiskOp::Zero { offset, len, unmap } => self.zero(*offset, *len, *unmap)?,
        }
        Ok(Vec::new())
    }

    /// Everything that has completed is on stable storage when this returns.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Whole blocks around some bytes: where they start, and memory for them.
    fn around(&self, offset: u64, len: usize, block: u64) -> (u64, Aligned) {
        let start = offset / block * block;
        let end = (offset + len as u64).next_multiple_of(block);
        (start, Aligned::new((end - start) as usize))
    }

    fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let Some(block) = self.block else {
            let mut data = vec![0; len];
            self.file.read_exact_at(&mut data, offset)?;
            return Ok(data);
        };
        let (start, mut blocks) = self.around(offset, len, block);
        self.file.read_exact_at(blocks.slice(), start)?;
        Ok(blocks.slice()[(offset - start) as usize..][..len].to_vec())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let Some(block) = self.block else { return self.file.write_all_at(data, offset) };
        let (start, mut blocks) = self.around(offset, data.len(), block);
        if blocks.len > data.len() {
            // Parts of blocks. Nobody else writes to them: requests are served one by one, by whoever may run.
            self.file.read_exact_at(blocks.slice(), start)?;
        }
        blocks.slice()[(offset - start) as usize..][..data.len()].copy_from_slice(data);
        self.file.write_all_at(blocks.slice(), start)
    }

    /// Makes zeros of a range. `unmap`: its room may be given back.
    ///
    /// For a block device Linux discards only where zeros are promised (`blkdev_fallocate`), and else says so; then, and
    /// on a file system that cannot do it, zeros are written.
    fn zero(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let zero = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        for flags in [Some(punch).filter(|_| unmap), Some(zero)].into_iter().flatten() {
            match fallocate(&self.file, flags, offset, len) {
                Ok(()) if self.block.is_some() => return self.sync(),
                Ok(()) => return Ok(()),
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::NODEV | Errno::PERM) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.write_zeros(offset, len)
    }

    fn write_zeros(&self, offset: u64, len: u64) -> io::Result<()> {
        let zeros = vec![0; CHUNK.min(len as usize)];
        let (mut at, end) = (offset, offset + len);
        while at < end {
            let now = (end - at).min(CHUNK as u64);
            self.write(at, &zeros[..now as usize])?;
            at += now;
        }
        Ok(())
    }
}

fn open(path: &Path, read_only: bool, through: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(!read_only);
    if through {
        options.custom_flags((OFlags::DIRECT | OFlags::DSYNC).bits() as i32);
    }
    options.open(path)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::Write;

    pub(crate) fn image(bytes: usize) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(&vec![0u8; bytes]).expect("room for it");
        file
    }

    #[test]
    fn a_truncated_image_is_refused_with_its_size() {
        let file = image(1000);
        let error = Image::open(file.path(), false, true).expect_err("1000 bytes are no disk");
        assert!(error.to_string().contains("1000 bytes"), "{error}");
    }

    #[test]
    fn an_image_in_another_format_is_named() {
        let mut file = image(0);
        file.write_all(b"QFI\xfb").expect("room");
        file.write_all(&[0; 1020]).expect("room");
        let error = Image::open(file.path(), false, true).expect_err("qcow2");
        assert!(error.to_string().contains("qcow2"), "{error}");
    }

    #[test]
    fn a_second_writer_is_refused() {
        let file = image(4096);
        let _first = Image::open(file.path(), false, true).expect("free");
        let error = Image::open(file.path(), false, true).expect_err("taken");
        assert!(error.to_string().contains("in use"), "{error}");
    }

    #[test]
    fn equal_contents_hash_alike_wherever_the_holes_are() {
        let written = image(4 << 20);
        let sparse = tempfile::NamedTempFile::new().expect("a temporary file");
        sparse.as_file().set_len(4 << 20).expect("a hole");
        for file in [&written, &sparse] {
            file.as_file().write_all_at(b"something", 3 << 20).expect("room");
        }
        let hash = |f: &tempfile::NamedTempFile| {
            Image::open(f.path(), true, false).expect("fine").content_hash().expect("readable")
        };
        assert_eq!(hash(&written), hash(&sparse));
        written.as_file().write_all_at(b"else", 1 << 20).expect("room");
        assert_ne!(hash(&written), hash(&sparse));
    }

    /// A loop device over a file: the same bytes behind a page cache of its own, as on another host.
    struct Loop(std::path::PathBuf);

    impl Loop {
        /// `None`, and a loud word, where this test may not make one.
        fn over(file: &std::path::Path) -> Option<Self> {
            let made = std::process::Command::new("losetup").args(["--find", "--show"]).arg(file).output();
            let name = made.ok().filter(|made| made.status.success());
            if name.is_none() {
                eprintln!("SKIPPED: this test needs a loop device (root, losetup), and there is none");
            }
            name.map(|made| Self(String::from_utf8_lossy(&made.stdout).trim().into()))
        }
    }

    impl Drop for Loop {
        fn drop(&mut self) {
            let _ = std::process::Command::new("losetup").arg("--detach").arg(&self.0).status();
        }
    }

    #[test]
    fn a_survivor_reads_what_the_other_host_has_written_whatever_it_had_read_before() {
        let file = image(1 << 20);
        let Some(device) = Loop::over(file.path()) else { return };
        // Two hosts, each with its own page cache, and one disk: the survivor has looked at it before.
        let survivor = Image::open(&device.0, false, false).expect("fine");
        let first = DiskOp::Read { offset: 4096, len: 512 };
        assert_eq!(survivor.perform(&first).expect("readable"), [0; 512]);
        let primary = Image::open(file.path(), false, false).expect("fine");
        for sector in 0..64 {
            let op = DiskOp::Write { offset: sector * 512, data: vec![sector as u8 + 1; 512] };
            primary.perform(&op).expect("writable");
        }
        // The primary's host loses its power here: nothing is flushed, no cache is written back.
        for sector in 0..64 {
            let op = DiskOp::Read { offset: sector * 512, len: 512 };
            assert_eq!(survivor.perform(&op).expect("readable"), [sector as u8 + 1; 512], "sector {sector}");
        }
        // And back: what the survivor completes is in the image, not in its cache.
        survivor.perform(&DiskOp::Write { offset: 512, data: vec![99; 512] }).expect("writable");
        assert_eq!(primary.perform(&DiskOp::Read { offset: 512, len: 512 }).expect("readable"), [99; 512]);
    }

    #[test]
    fn a_shared_disk_is_opened_so_that_the_host_keeps_nothing_of_it_to_itself() {
        let file = image(4096);
        let flags = |read_only, exclusive| {
            let image = Image::open(file.path(), read_only, exclusive).expect("fine");
            rustix::fs::fcntl_getfl(&image.file).expect("open")
        };
        let through = OFlags::DIRECT | OFlags::DSYNC;
        assert!(flags(false, false).contains(through), "what completes is on stable storage");
        assert!(!flags(false, true).intersects(OFlags::DIRECT), "a replicated disk has a cache");
    }

    #[test]
    fn direct_requests_may_begin_and_end_within_a_block() {
        let file = image(64 << 10);
        let mut shared = Image::open(file.path(), false, false).expect("fine");
        for block in BLOCKS {
            shared.block = Some(block);
            let (offset, len) = (3 * 512, 9 * 512);
            shared.perform(&DiskOp::Write { offset: 0, data: vec![1; 64 << 10] }).expect("writable");
            shared.perform(&DiskOp::Write { offset, data: vec![2; len as usize] }).expect("writable");
            let all = shared.perform(&DiskOp::Read { offset: 0, len: 64 << 10 }).expect("readable");
            let wanted = |at: usize| 1 + u8::from((3 * 512..12 * 512).contains(&at));
            assert!(all.iter().enumerate().all(|(at, byte)| *byte == wanted(at)), "blocks of {block}");
            assert_eq!(
                shared.perform(&DiskOp::Read { offset, len }).expect("readable"),
                vec![2; len as usize]
            );
        }
    }

    fn blocks(file: &tempfile::NamedTempFile) -> u64 {
        use std::os::unix::fs::MetadataExt;
        file.as_file().sync_all().expect("room");
        file.as_file().metadata().expect("there").blocks()
    }

    #[test]
    fn what_is_discarded_reads_as_zeros_and_its_room_is_given_back() {
        for exclusive in [true, false] {
            let file = image(0);
            file.as_file().set_len(4 << 20).expect("a hole");
            let disk = Image::open(file.path(), false, exclusive).expect("fine");
            disk.perform(&DiskOp::Write { offset: 0, data: vec![7; 4 << 20] }).expect("writable");
            let full = blocks(&file);
            let (offset, len) = (512, 3 << 20);
            disk.perform(&DiskOp::Zero { offset, len, unmap: true }).expect("zeroed");
            let read = disk.perform(&DiskOp::Read { offset: 0, len: 4 << 20 }).expect("readable");
            let wanted = |at: usize| if (512..512 + (3 << 20)).contains(&at) { 0 } else { 7 };
            assert!(read.iter().enumerate().all(|(at, byte)| *byte == wanted(at)));
            assert!(blocks(&file) < full / 2, "{} of {full} blocks", blocks(&file));
        }
    }

    #[test]
    fn zeros_are_zeros_where_they_must_be_written_too() {
        let file = image(4 << 20);
        let disk = Image::open(file.path(), false, true).expect("fine");
        for by in [0, 1] {
            disk.perform(&DiskOp::Write { offset: 0, data: vec![7; 4 << 20] }).expect("writable");
            match by {
                0 => disk.perform(&DiskOp::Zero { offset: 512, len: 3 << 20, unmap: false }).map(drop),
                _ => disk.write_zeros(512, 3 << 20),
            }
            .expect("zeroed");
            let read = disk.perform(&DiskOp::Read { offset: 0, len: 4 << 20 }).expect("readable");
            assert_eq!(read.iter().filter(|byte| **byte == 0).count(), 3 << 20);
            assert_eq!((read[511], read[512], read[(3 << 20) + 512]), (7, 0, 7));
        }
    }

    #[test]
    fn a_block_device_is_discarded_to_zeros() {
        let file = image(4 << 20);
        let Some(device) = Loop::over(file.path()) else { return };
        let disk = Image::open(&device.0, false, true).expect("fine");
        disk.perform(&DiskOp::Write { offset: 0, data: vec![7; 4 << 20] }).expect("writable");
        disk.perform(&DiskOp::Zero { offset: 4096, len: 1 << 20, unmap: true }).expect("zeroed");
        let read = disk.perform(&DiskOp::Read { offset: 0, len: 4 << 20 }).expect("readable");
        assert_eq!(read.iter().filter(|byte| **byte == 0).count(), 1 << 20);
    }
}
