//! Files that Pollux writes over: opened only when they are what they should be, so that a wrong word on a command
//! line destroys nothing.
//!
//! Invariant: an existing file keeps every byte until it has been shown to be empty or a former one of the same kind,
//! to be none of the files that this process reads, and to be in no other process's use.

use crate::lock::lock_soon;
use rustix::fs::FlockOperation;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Bytes of a former file that are looked at.
const LOOKED_AT_BYTES: usize = 4096;

/// What a file holds, and what it must hold already to be written over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// What a console said: no file whose beginning has zero bytes, as disks, kernels and programs do.
    Text,
    /// A recording.
    Recording,
    /// A snapshot.
    Snapshot,
    /// Lines of socket addresses.
    Addresses,
}

impl Content {
    fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Recording => "a recording",
            Self::Snapshot => "a snapshot",
            Self::Addresses => "a list of addresses",
        }
    }

    fn fits(self, beginning: &[u8]) -> bool {
        let is_address = |line: &str| line.parse::<std::net::SocketAddr>().is_ok();
        match self {
            _ if beginning.is_empty() => true,
            Self::Text => !beginning.contains(&0) && !is_binary(beginning),
            Self::Recording => beginning.starts_with(&pollux_codec::logfile::MAGIC),
            Self::Snapshot => beginning.starts_with(&pollux_codec::snapshot::MAGIC),
            Self::Addresses => {
                std::str::from_utf8(beginning).is_ok_and(|text| text.lines().next().is_some_and(is_address))
            }
        }
    }
}

/// Short files of a known kind may have no zero byte in them.
fn is_binary(beginning: &[u8]) -> bool {
    const MAGICS: [&[u8]; 4] = [b"\x7fELF", b"QFI\xfb", &[0x1f, 0x8b], b"\xfd7zXZ"];
    MAGICS.iter().any(|magic| beginning.starts_with(magic))
        || beginning.starts_with(&pollux_codec::snapshot::MAGIC)
        || beginning.starts_with(&pollux_codec::logfile::MAGIC)
}

/// Why a file is not written.
#[derive(Debug, thiserror::Error)]
pub enum OutFileError {
    /// The host will not.
    #[error("cannot write {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// No file to write over.
    #[error("{path} is {what}; it is left as it is. Name another file")]
    Kind {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// It holds something else.
    #[error(
        "{path} exists and is not {wanted}; it is left as it is. Name another file, or remove this one first"
    )]
    Content {
        /// The file.
        path: PathBuf,
        /// What it should be.
        wanted: &'static str,
    },
    /// It is read by this very process.
    #[error("{path} is also the {what}; it is left as it is. Name another file")]
    Input {
        /// The file.
        path: PathBuf,
        /// What it is read as.
        what: String,
    },
    /// Another process writes it.
    #[error("{path} is in use by another process; it is left as it is. Name another file")]
    InUse {
        /// The file.
        path: PathBuf,
    },
}

/// The files that a process reads, by what they are and not by how they are named.
#[derive(Clone, Debug, Default)]
pub struct Inputs(Vec<(String, u64, u64)>);

impl Inputs {
    /// Adds a file that is read as `what`. One that is not there is nothing that could be lost.
    pub fn add(&mut self, what: &str, path: &Path) {
        if let Ok(found) = std::fs::metadata(path) {
            self.0.push((what.into(), found.dev(), found.ino()));
        }
    }

    /// Refuses `path` if it is one of them.
    pub fn refuse(&self, path: &Path) -> Result<(), OutFileError> {
        let Ok(found) = std::fs::metadata(path) else { return Ok(()) };
        match self.0.iter().find(|(_, dev, ino)| (*dev, *ino) == (found.dev(), found.ino())) {
            Some((what, ..)) => Err(OutFileError::Input { path: path.into(), what: what.clone() }),
            None => Ok(()),
        }
    }
}

/// Opens `path`, empty, for writing `content` over it. Call it last, when nothing else can fail.
pub fn create(path: &Path, content: Content) -> Result<File, OutFileError> {
    let file = open(path, content)?;
    empty(&file).map_err(|source| OutFileError::Io { path: path.into(), source })?;
    Ok(file)
}

/// Forgets what an open file held.
pub fn empty(file: &File) -> io::Result<()> {
    if file.metadata()?.is_file() { file.set_len(0) } else { Ok(()) }
}

/// Opens `path` for writing `content` over it, and leaves it as it is until [`empty`].
pub fn open(path: &Path, content: Content) -> Result<File, OutFileError> {
    let fault = |source| OutFileError::Io { path: path.into(), source };
    let kind = |what| OutFileError::Kind { path: path.into(), what };
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => return Err(kind("a folder")),
        Ok(found) if found.file_type().is_block_device() => return Err(kind("a block device")),
        Ok(found) if found.file_type().is_socket() => return Err(kind("a socket")),
        // A pipe or a terminal has nothing that could be lost.
        Ok(found) if !found.is_file() => return OpenOptions::new().write(true).open(path).map_err(fault),
        _ => {}
    }
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    let file = opened.map_err(fault)?;
    if !file.metadata().map_err(fault)?.is_file() {
        return Err(kind("no regular file"));
    }
    // A file system without locks is no reason to refuse.
    if lock_soon(&file, FlockOperation::NonBlockingLockExclusive) == Err(rustix::io::Errno::WOULDBLOCK) {
        return Err(OutFileError::InUse { path: path.into() });
    }
    let mut beginning = [0; LOOKED_AT_BYTES];
    let found = file.read_at(&mut beginning, 0).map_err(fault)?;
    if !content.fits(&beginning[..found]) {
        return Err(OutFileError::Content { path: path.into(), wanted: content.name() });
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_something_else_keeps_every_byte() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x");
        let all = [Content::Text, Content::Recording, Content::Snapshot, Content::Addresses];
        let disk = [&[0; 1024][..], b"a file system"].concat();
        for bytes in [&b"\x7fELF\x02\x01"[..], b"QFI\xfb", b"MZ\0\0", &disk] {
            for content in all {
                std::fs::write(&path, bytes).expect("room");
                let refused = create(&path, content).expect_err("something else").to_string();
                assert!(refused.contains("left as it is"), "{refused}");
                assert_eq!(std::fs::read(&path).expect("there"), bytes);
            }
        }
        std::fs::write(&path, "notes\n").expect("room");
        for content in [Content::Recording, Content::Snapshot, Content::Addresses] {
            assert!(create(&path, content).is_err(), "{content:?}");
        }
        assert_eq!(std::fs::read(&path).expect("there"), b"notes\n");
        assert!(create(folder.path(), Content::Text).is_err());
    }

    #[test]
    fn a_former_file_of_the_same_kind_is_written_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x");
        let recording = pollux_codec::logfile::encode_header(0);
        let mut snapshot = pollux_codec::snapshot::MAGIC.to_vec();
        snapshot.extend([0; 20]);
        let cases: [(Content, &[u8]); 4] = [
            (Content::Text, b"login: "),
            (Content::Recording, &recording),
            (Content::Snapshot, &snapshot),
            (Content::Addresses, b"127.0.0.1:80\n"),
        ];
        for (content, bytes) in cases {
            std::fs::write(&path, bytes).expect("room");
            create(&path, content).expect("the same kind");
            assert_eq!(std::fs::metadata(&path).expect("there").len(), 0, "{content:?}");
        }
    }

    #[test]
    fn a_file_that_somebody_writes_is_not_written_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x");
        let _first = create(&path, Content::Text).expect("free");
        std::fs::write(&path, "what the first has written").expect("room");
        assert!(matches!(create(&path, Content::Text), Err(OutFileError::InUse { .. })));
        assert!(std::fs::metadata(&path).expect("there").len() > 0);
    }

    #[test]
    fn an_input_is_known_by_whatever_name_it_is_given() {
        let folder = tempfile::tempdir().expect("a folder");
        let (disk, other) = (folder.path().join("disk"), folder.path().join("other"));
        std::fs::write(&disk, "text").expect("room");
        std::fs::hard_link(&disk, &other).expect("a link");
        let mut inputs = Inputs::default();
        inputs.add("disk", &disk);
        let refused = inputs.refuse(&other).expect_err("the same file").to_string();
        assert!(refused.contains("is also the disk"), "{refused}");
        assert!(inputs.refuse(&folder.path().join("new")).is_ok());
    }
}
