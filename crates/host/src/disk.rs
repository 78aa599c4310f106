//! Disk images as raw files.
//!
//! One thread a disk performs requests in the order in which the machine made them, so overlapping requests are
//! serialised alike on both hosts (DESIGN 2.6) whatever the kernel does. A flush is `fdatasync`; it is complete
//! only when that has returned (DESIGN 6).
//!
//! A shared image is written by whoever may run, and by nobody else: its thread works behind a [`Fence`], and what a
//! side that has lost had not begun is dropped. A replicated image is this host's own, and requests to it are
//! performed to the last.
//!
//! A short read or write, or any error of the host's, is reported to the guest as an I/O error and logged with
//! its cause.

use crate::events::EventSender;
use crate::fence::Fence;
use pollux_node::{DiskCompletion, Event};
use pollux_vocab::{DiskOp, DiskRequest, DiskStatus, SECTOR_BYTES, SlotId};
use rustix::fs::{FlockOperation, SeekFrom, flock};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use xxhash_rust::xxh3::Xxh3;

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
}

/// An open image that no thread serves yet.
#[derive(Debug)]
pub struct Image {
    file: File,
    path: PathBuf,
    bytes: u64,
    shared: bool,
}

impl Image {
    /// Opens a raw image. `exclusive` refuses an image that another exclusive user has open;
    /// without it, the image is one that both hosts reach, and served behind a [`Fence`].
    pub fn open(path: &Path, read_only: bool, exclusive: bool) -> Result<Self, DiskError> {
        let opened = OpenOptions::new().read(true).write(!read_only).open(path);
        let file = opened.map_err(|source| DiskError::Open { path: path.into(), read_only, source })?;
        let length = |file: &File| {
            let end = rustix::fs::seek(file, SeekFrom::End(0))?;
            rustix::fs::seek(file, SeekFrom::Start(0))?;
            Ok::<u64, io::Error>(end)
        };
        let bytes =
            length(&file).map_err(|source| DiskError::Open { path: path.into(), read_only, source })?;
        let image = Self { file, path: path.into(), bytes, shared: !exclusive };
        image.refuse_formats()?;
        if bytes == 0 || !bytes.is_multiple_of(SECTOR_BYTES) {
            return Err(DiskError::Size { path: path.into(), bytes });
        }
        let lock = match (exclusive, read_only) {
            (true, false) => FlockOperation::NonBlockingLockExclusive,
            _ => FlockOperation::NonBlockingLockShared,
        };
        match flock(&image.file, lock) {
            Err(rustix::io::Errno::WOULDBLOCK) => Err(DiskError::InUse { path: path.into() }),
            // A file system without locks is no reason to refuse.
            _ => Ok(image),
        }
    }

    fn refuse_formats(&self) -> Result<(), DiskError> {
        let mut magic = [0u8; 8];
        let got = self.file.read_at(&mut magic, 0).unwrap_or(0);
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

    /// A hash of the content, holes skipped, so that a pair can see that it starts from equal images.
    pub fn content_hash(&self) -> Result<u64, DiskError> {
        const CHUNK: usize = 1 << 20;
        let mut hash = Xxh3::new();
        let mut buffer = vec![0u8; CHUNK];
        let mut offset = 0u64;
        while offset < self.bytes {
            let data = match rustix::fs::seek(&self.file, SeekFrom::Data(offset)) {
                Ok(data) => data,
                Err(rustix::io::Errno::NXIO) => break,
                Err(_) => offset,
            };
            // Whole chunks, so that where the file system puts its holes does not matter.
            offset = data / CHUNK as u64 * CHUNK as u64;
            let want = CHUNK.min((self.bytes - offset) as usize);
            let chunk = &mut buffer[..want];
            let fault = |source| DiskError::Read { path: self.path.clone(), offset, source };
            self.file.read_exact_at(chunk, offset).map_err(fault)?;
            if chunk.iter().any(|b| *b != 0) {
                hash.update(&offset.to_le_bytes());
                hash.update(chunk);
            }
            offset += want as u64;
        }
        Ok(hash.digest())
    }

    /// Starts the thread that serves the image in `slot`; completions go to `events`.
    pub fn serve(self, slot: SlotId, events: EventSender) -> io::Result<DiskServer> {
        let (requests, inbox) = channel();
        let fence = self.shared.then(|| Arc::new(Fence::default()));
        let passed = fence.clone();
        let thread = std::thread::Builder::new()
            .name(format!("disk{slot}"))
            .spawn(move || serve(&self, passed.as_deref(), &inbox, &events))?;
        Ok(DiskServer { requests: Some(requests), fence, thread: Some(thread) })
    }

    fn perform(&self, op: &DiskOp) -> io::Result<Vec<u8>> {
        match op {
            DiskOp::Read { offset, len } => {
                let mut data = vec![0; *len as usize];
                self.file.read_exact_at(&mut data, *offset)?;
                Ok(data)
            }
            DiskOp::Write { offset, data } => {
                self.file.write_all_at(data, *offset)?;
                Ok(Vec::new())
            }
            DiskOp::Flush => {
                self.file.sync_data()?;
                Ok(Vec::new())
            }
        }
    }
}

fn serve(image: &Image, fence: Option<&Fence>, inbox: &Receiver<DiskRequest>, events: &EventSender) {
    while let Ok(DiskRequest { slot, request, op }) = inbox.recv() {
        if fence.is_some_and(|fence| !fence.pass()) {
            return;
        }
        let (status, data) = match image.perform(&op) {
            Ok(data) => (DiskStatus::Ok, data),
            Err(error) => {
                let (what, at) = match op {
                    DiskOp::Read { offset, .. } => ("read", offset),
                    DiskOp::Write { offset, .. } => ("write", offset),
                    DiskOp::Flush => ("flush", 0),
                };
                tracing::error!(path = %image.path.display(), at, %error, "disk {what} failed; the guest sees an I/O error");
                (DiskStatus::IoError, Vec::new())
            }
        };
        if events.send(Event::DiskDone(DiskCompletion { slot, request, status, data })).is_err() {
            return;
        }
    }
}

/// A disk being served. Dropping it finishes the requests already made of a replicated disk, and of a shared one
/// only the request in progress: by then somebody else may be writing.
#[derive(Debug)]
pub struct DiskServer {
    requests: Option<Sender<DiskRequest>>,
    fence: Option<Arc<Fence>>,
    thread: Option<JoinHandle<()>>,
}

impl DiskServer {
    /// Begins a request.
    pub fn submit(&self, request: DiskRequest) {
        if let Some(requests) = &self.requests {
            // The thread only ends when this end of the channel is dropped.
            let _ = requests.send(request);
        }
    }

    /// What stands before a shared disk; none before a replicated one.
    #[must_use]
    pub fn fence(&self) -> Option<&Fence> {
        self.fence.as_deref()
    }
}

impl Drop for DiskServer {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(fence) = &self.fence {
            fence.end();
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::inbox;
    use std::io::Write;
    use std::time::Duration;

    fn image(bytes: usize) -> tempfile::NamedTempFile {
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

    #[test]
    fn requests_are_served_in_order_and_failures_reported() {
        let file = image(8192);
        let (events, inbox) = inbox();
        let server = Image::open(file.path(), false, true).expect("fine").serve(3, events).expect("a thread");
        let ops = [
            DiskOp::Write { offset: 512, data: vec![7; 512] },
            DiskOp::Write { offset: 512, data: vec![8; 512] },
            DiskOp::Read { offset: 512, len: 512 },
            DiskOp::Flush,
            DiskOp::Read { offset: 8192, len: 512 },
        ];
        for (request, op) in ops.into_iter().enumerate() {
            server.submit(DiskRequest { slot: 3, request: request as u64, op });
        }
        drop(server);
        let done: Vec<_> = std::iter::from_fn(|| inbox.try_next()).collect();
        let Event::DiskDone(read) = &done[2] else { panic!("a completion") };
        assert_eq!((read.status, read.data.clone()), (DiskStatus::Ok, vec![8; 512]));
        let Event::DiskDone(beyond) = &done[4] else { panic!("a completion") };
        assert_eq!(beyond.status, DiskStatus::IoError);
    }

    fn write(request: u64, fill: u8) -> DiskRequest {
        DiskRequest { slot: 0, request, op: DiskOp::Write { offset: 0, data: vec![fill; 512] } }
    }

    #[test]
    fn a_side_that_has_lost_writes_nothing_more_to_a_shared_disk() {
        let file = image(4096);
        let (events, inbox) = inbox();
        let server =
            Image::open(file.path(), false, false).expect("fine").serve(0, events).expect("a thread");
        server.submit(write(1, 1));
        inbox.wait(Duration::from_secs(60)).expect("done");
        server.fence().expect("a shared disk has one").hold();
        for request in 2..100 {
            server.submit(write(request, 2));
        }
        drop(server);
        assert_eq!(inbox.try_next(), None, "none was performed");
        assert_eq!(std::fs::read(file.path()).expect("there")[..512], [1; 512]);
    }

    #[test]
    fn a_side_that_has_won_performs_what_was_held() {
        let file = image(4096);
        let (events, inbox) = inbox();
        let server =
            Image::open(file.path(), false, false).expect("fine").serve(0, events).expect("a thread");
        server.fence().expect("a shared disk has one").hold();
        server.submit(write(1, 3));
        server.submit(write(2, 4));
        server.fence().expect("a shared disk has one").open();
        for request in 1..=2 {
            let Event::DiskDone(done) = inbox.wait(Duration::from_secs(60)).expect("done") else {
                panic!("a completion")
            };
            assert_eq!((done.request, done.status), (request, DiskStatus::Ok));
        }
        assert_eq!(std::fs::read(file.path()).expect("there")[..512], [4; 512]);
    }
}
