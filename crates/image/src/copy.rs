//! Copies of disks. A copy has its name when all of it is there: it is made beside, and renamed.
//!
//! Invariant: until then, and for ever if the copy fails, a file of that name is what it was.

use crate::is_interrupted;
use rustix::fs::{FlockOperation, SeekFrom, flock, ioctl_ficlone, seek};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Bytes that are copied between two looks at whether to go on.
const PIECE_BYTES: u64 = 64 << 20;
/// Bytes of the buffer where the kernel does not copy by itself.
const BUFFER_BYTES: usize = 1 << 20;

/// A copy of a disk for one VM: shares blocks where the file system can, keeps holes where it cannot. A file of this
/// name is replaced at the end, if it is a regular one, another one, and in nobody's use.
pub fn fresh_disk_copy(from: &Path, to: &Path) -> io::Result<()> {
    let source = File::open(from)?;
    may_be_replaced(&source, to)?;
    let beside = name_beside(to);
    let made = copy(&source, &beside).and_then(|()| {
        // Whoever has begun to use the file in the meantime keeps it.
        may_be_replaced(&source, to)?;
        fs::rename(&beside, to)
    });
    if made.is_err() {
        let _ = fs::remove_file(&beside);
    }
    made
}

/// Whether a file may be replaced by a copy of `source`, or is not there.
fn may_be_replaced(source: &File, to: &Path) -> io::Result<()> {
    let refuse =
        |what: &str| Err(io::Error::other(format!("it is {what}, and is left as it is; name another file")));
    let found = match fs::metadata(to) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let original = source.metadata()?;
    if !found.is_file() {
        return refuse("no regular file");
    }
    if (found.dev(), found.ino()) == (original.dev(), original.ino()) {
        return refuse("the very file that is to be copied");
    }
    // VMs lock their disks. Not every file system has locks.
    match flock(&File::open(to)?, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => refuse("in use by another process"),
        _ => Ok(()),
    }
}

fn name_beside(to: &Path) -> PathBuf {
    let mut name = to.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    name.into()
}

fn copy(source: &File, to: &Path) -> io::Result<()> {
    let target = File::create_new(to)?;
    if ioctl_ficlone(&target, source).is_ok() {
        return Ok(());
    }
    let length = source.metadata()?.len();
    target.set_len(length)?;
    let mut offset = 0;
    while let Ok(data) = seek(source, SeekFrom::Data(offset)) {
        let end = seek(source, SeekFrom::Hole(data)).unwrap_or(length);
        let (mut from_at, mut to_at) = (data, data);
        while from_at < end {
            if is_interrupted() {
                return Err(io::Error::other("interrupted"));
            }
            let chunk = (end - from_at).min(PIECE_BYTES) as usize;
            let copied =
                rustix::fs::copy_file_range(source, Some(&mut from_at), &target, Some(&mut to_at), chunk);
            match copied {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(_) => {
                    // Across file systems that cannot: read and write.
                    let mut buffer = vec![0; chunk.min(BUFFER_BYTES)];
                    source.read_exact_at(&mut buffer, from_at)?;
                    target.write_all_at(&buffer, to_at)?;
                    from_at += buffer.len() as u64;
                    to_at += buffer.len() as u64;
                }
            }
        }
        offset = end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copied_disk_has_the_same_content_and_keeps_its_holes() {
        let folder = tempfile::tempdir().expect("a folder");
        let (from, to) = (folder.path().join("a"), folder.path().join("b"));
        let file = File::create(&from).expect("room");
        file.set_len(64 << 20).expect("a hole");
        file.write_all_at(b"middle", 32 << 20).expect("room");
        fs::write(&to, "a former one").expect("room");
        fresh_disk_copy(&from, &to).expect("copied");
        assert_eq!(fs::read(&from).expect("there"), fs::read(&to).expect("there"));
        assert!(fs::metadata(&to).expect("there").blocks() * 512 < 8 << 20, "the holes are kept");
        assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 2, "and nothing beside");
    }

    #[test]
    fn a_copy_that_fails_leaves_what_had_its_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let (from, to) = (folder.path().join("a"), folder.path().join("b"));
        fs::write(&from, "new").expect("room");
        fs::write(&to, "precious").expect("room");
        // A folder opens, but cannot be copied.
        assert!(fresh_disk_copy(folder.path(), &to).is_err());
        assert_eq!(fs::read(&to).expect("there"), b"precious");
        let refused = fresh_disk_copy(&from, &from).expect_err("itself").to_string();
        assert!(refused.contains("left as it is"), "{refused}");
        assert_eq!(fs::read(&from).expect("there"), b"new");
        assert!(fresh_disk_copy(&from, Path::new("/dev/null")).is_err(), "a device is no file");
        let used = File::open(&to).expect("there");
        flock(&used, FlockOperation::NonBlockingLockExclusive).expect("free");
        let refused = fresh_disk_copy(&from, &to).expect_err("in use").to_string();
        assert!(refused.contains("in use"), "{refused}");
        assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 2, "nothing is left beside");
    }
}
