//! Reading files that a person names: they may be missing, endless, or larger than this host.

use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Reads a regular file of at most `max` bytes. Anything else (a device, a pipe) may have no end.
pub fn read_file(path: &Path, what: &str, max: u64) -> Result<Vec<u8>> {
    read_and_keep_open(path, what, max).map(|(bytes, _)| bytes)
}

/// The same; also gives the file that was read, for whoever locks it.
pub fn read_and_keep_open(path: &Path, what: &str, max: u64) -> Result<(Vec<u8>, File)> {
    let cannot = || format!("cannot read the {what} {}", path.display());
    let found = std::fs::metadata(path).with_context(cannot)?;
    if !found.is_file() {
        bail!("the {what} {} is no regular file", path.display());
    }
    let length = found.len();
    if length > max {
        bail!("the {what} {} has {length} bytes; that is no {what}, {max} are the most", path.display());
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length as usize).with_context(|| {
        format!("the {what} {} has {length} bytes, which this host has not got to give", path.display())
    })?;
    // A file that grows meanwhile is cut off, not followed.
    let file = File::open(path).with_context(cannot)?;
    (&file).take(length).read_to_end(&mut bytes).with_context(cannot)?;
    Ok((bytes, file))
}
