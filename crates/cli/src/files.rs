//! Reading files that a person names: they may be missing, endless, or larger than this host.

use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Bytes read at a time.
const PIECE_BYTES: usize = 1 << 20;

/// Reads a regular file of at most `max` bytes. Anything else (a device, a pipe) may have no end.
pub fn read_file(path: &Path, what: &str, max: u64) -> Result<Vec<u8>> {
    read_and_keep_open(path, what, max).map(|(bytes, _)| bytes)
}

/// The same, without holding it: gives `take` one piece after the other.
pub fn read_pieces(
    path: &Path,
    what: &str,
    max: u64,
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let cannot = || format!("cannot read the {what} {}", path.display());
    let (file, length) = open(path, what, max)?;
    let (mut file, mut piece) = (file.take(length), vec![0; PIECE_BYTES]);
    loop {
        let got = file.read(&mut piece).with_context(cannot)?;
        if got == 0 {
            return Ok(());
        }
        take(&piece[..got])?;
    }
}

/// Opens a regular file of at most `max` bytes; also says how many it has. One that grows meanwhile is cut off, not
/// followed.
fn open(path: &Path, what: &str, max: u64) -> Result<(File, u64)> {
    let cannot = || format!("cannot read the {what} {}", path.display());
    let found = std::fs::metadata(path).with_context(cannot)?;
    if !found.is_file() {
        bail!("the {what} {} is no regular file", path.display());
    }
    let length = found.len();
    if length > max {
        bail!("the {what} {} has {length} bytes; that is no {what}, {max} are the most", path.display());
    }
    Ok((File::open(path).with_context(cannot)?, length))
}

/// The same as [`read_file`]; also gives the file that was read, for whoever locks it.
pub fn read_and_keep_open(path: &Path, what: &str, max: u64) -> Result<(Vec<u8>, File)> {
    let (file, length) = open(path, what, max)?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length as usize).with_context(|| {
        format!("the {what} {} has {length} bytes, which this host has not got to give", path.display())
    })?;
    let read = (&file).take(length).read_to_end(&mut bytes);
    read.with_context(|| format!("cannot read the {what} {}", path.display()))?;
    Ok((bytes, file))
}
