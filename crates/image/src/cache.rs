//! The cache of images: what is in it, and how it is made smaller.
//!
//! Invariant: what is in use stays: nothing is removed while a build runs, nor an image that a process holds (its disk
//! or its boot files are locked), nor one that was asked for within [`RECENT`]. An image loses its name before its
//! files, so that nobody finds half of one.

use crate::{Image, ImageError, io_error};
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// An image that was asked for so lately is about to be used, whatever else is said.
pub const RECENT: Duration = Duration::from_secs(3600);

/// An image in the cache.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Entry {
    /// Its name: that of its folder.
    pub name: String,
    /// Where it is.
    pub folder: PathBuf,
    /// Bytes that it takes on the host's disk.
    pub bytes: u64,
    /// Seconds since it was last built or asked for.
    pub unused_s: u64,
    /// Whether a process uses it.
    pub in_use: bool,
    /// Whether it is whole: a build that was interrupted leaves one that is not.
    pub whole: bool,
    /// How many packages are in it.
    pub packages: usize,
}

/// What [`prune`] may remove.
#[derive(Clone, Copy, Debug)]
pub struct Prune {
    /// Images that nobody has asked for in this time.
    pub unused: Duration,
    /// Package lists and downloaded packages, too.
    pub downloads: bool,
    /// Only say what would be removed.
    pub dry_run: bool,
}

/// What was removed.
#[derive(Clone, Debug, Default)]
pub struct Pruned {
    /// Names of images, and `apt`.
    pub removed: Vec<String>,
    /// Bytes that they took.
    pub bytes: u64,
}

/// The images in `cache`, by name.
pub fn list(cache: &Path) -> Result<Vec<Entry>, ImageError> {
    let images = cache.join("images");
    let mut found = Vec::new();
    if !images.exists() {
        return Ok(found);
    }
    for entry in fs::read_dir(&images).map_err(io_error("cannot read", &images))? {
        let folder = entry.map_err(io_error("cannot read", &images))?.path();
        if folder.is_dir() {
            found.push(look_at(folder));
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn look_at(folder: PathBuf) -> Entry {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // What is being made, or being removed, has another name than an image.
    let is_named = !name.starts_with('.') && folder.extension().is_none();
    let image = Image::open(&folder).ok().filter(|_| is_named);
    let marked = [folder.join("manifest.json"), folder.clone()];
    let used = marked.iter().find_map(|path| path.metadata().and_then(|meta| meta.modified()).ok());
    let unused = used.and_then(|used| SystemTime::now().duration_since(used).ok()).unwrap_or_default();
    Entry {
        name,
        bytes: size_of(&folder),
        unused_s: unused.as_secs(),
        in_use: image.as_ref().is_some_and(|image| hold(image).is_none()),
        whole: image.is_some(),
        packages: image.map_or(0, |image| image.packages.len()),
        folder,
    }
}

/// Says that the image in `folder` has been asked for.
pub(crate) fn mark_used(folder: &Path) {
    // A cache that may only be read is never pruned from here, either.
    let manifest = File::options().append(true).open(folder.join("manifest.json"));
    let _ = manifest.and_then(|file| file.set_modified(SystemTime::now()));
}

/// Removes what `what` names and nobody uses.
pub fn prune(cache: &Path, what: Prune) -> Result<Pruned, ImageError> {
    let mut pruned = Pruned::default();
    if !cache.exists() {
        return Ok(pruned);
    }
    let lock_path = cache.join("lock");
    let lock = File::create(&lock_path).map_err(io_error("cannot create", &lock_path))?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Err(ImageError::Building);
    }
    for entry in list(cache)? {
        let unused = Duration::from_secs(entry.unused_s);
        if entry.whole && (entry.in_use || unused < what.unused.max(RECENT)) {
            continue;
        }
        if !what.dry_run && !remove(&entry)? {
            continue;
        }
        pruned.bytes += entry.bytes;
        pruned.removed.push(entry.name);
    }
    let apt = cache.join("apt");
    if what.downloads && apt.exists() {
        pruned.bytes += size_of(&apt);
        pruned.removed.push("apt".into());
        if !what.dry_run {
            fs::remove_dir_all(&apt).map_err(io_error("cannot remove", &apt))?;
        }
    }
    Ok(pruned)
}

/// Removes an image, unless somebody has begun to use it. False: it stays.
fn remove(entry: &Entry) -> Result<bool, ImageError> {
    let held = match Image::open(&entry.folder).ok().filter(|_| entry.whole) {
        Some(image) => match hold(&image) {
            Some(held) => held,
            None => return Ok(false),
        },
        None => Vec::new(),
    };
    let nameless = entry.folder.with_file_name(format!(".{}", entry.name));
    fs::rename(&entry.folder, &nameless).map_err(io_error("cannot rename", &entry.folder))?;
    fs::remove_dir_all(&nameless).map_err(io_error("cannot remove", &nameless))?;
    drop(held);
    Ok(true)
}

/// Locks an image's files, as whoever uses them does; `None` if somebody does.
fn hold(image: &Image) -> Option<Vec<File>> {
    let lock = |path: &PathBuf| {
        let file = File::open(path).ok()?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
        Some(file)
    };
    [&image.kernel, &image.initrd, &image.disk].into_iter().map(lock).collect()
}

/// Bytes on the host's disk: images are sparse.
fn size_of(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(meta) = path.symlink_metadata() else { return 0 };
    let inside: u64 = match fs::read_dir(path) {
        Ok(entries) if meta.is_dir() => entries.flatten().map(|entry| size_of(&entry.path())).sum(),
        _ => 0,
    };
    meta.blocks() * 512 + inside
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn image(cache: &Path, name: &str, age: Duration) -> Image {
        let folder = cache.join("images").join(name);
        fs::create_dir_all(&folder).expect("room");
        let part = |part: &str| {
            fs::write(folder.join(part), vec![7; 8192]).expect("room");
            folder.join(part)
        };
        let image = Image {
            kernel: part("kernel"),
            initrd: part("initrd"),
            disk: part("disk.img"),
            command_line: String::new(),
            packages: vec!["redis_1_riscv64".into()],
        };
        let manifest = folder.join("manifest.json");
        fs::write(&manifest, serde_json::to_string(&image).expect("plain")).expect("room");
        let file = File::options().append(true).open(&manifest).expect("there");
        file.set_modified(SystemTime::now() - age).expect("ours");
        image
    }

    fn names(cache: &Path) -> Vec<String> {
        list(cache).expect("readable").into_iter().map(|entry| entry.name).collect()
    }

    #[test]
    fn what_a_build_or_a_vm_uses_is_never_pruned() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = folder.path();
        let used = image(cache, "used", 30 * DAY);
        let booted = image(cache, "booted", 30 * DAY);
        image(cache, "lately", Duration::from_secs(60));
        image(cache, "week", 6 * DAY);
        image(cache, "old", 8 * DAY);
        fs::create_dir_all(cache.join("images/half.new")).expect("room");
        let disk = File::open(&used.disk).expect("there");
        flock(&disk, FlockOperation::NonBlockingLockExclusive).expect("free");
        let kernel = File::open(&booted.kernel).expect("there");
        flock(&kernel, FlockOperation::NonBlockingLockShared).expect("free");
        let all = Prune { unused: Duration::ZERO, downloads: true, dry_run: false };
        let building = File::create(cache.join("lock")).expect("room");
        flock(&building, FlockOperation::LockExclusive).expect("free");
        assert!(matches!(prune(cache, all), Err(ImageError::Building)));
        drop(building);
        let week = Prune { unused: 7 * DAY, downloads: false, dry_run: true };
        let would = prune(cache, week).expect("no failure");
        assert_eq!((would.removed, names(cache).len()), (vec!["half.new".to_owned(), "old".to_owned()], 6));
        let pruned = prune(cache, Prune { dry_run: false, ..week }).expect("no failure");
        assert!(pruned.removed == ["half.new", "old"] && pruned.bytes >= 3 * 8192, "{pruned:?}");
        assert_eq!(prune(cache, all).expect("no failure").removed, ["week"]);
        assert_eq!(names(cache), ["booted", "lately", "used"]);
        drop((disk, kernel));
        assert_eq!(prune(cache, all).expect("no failure").removed, ["booted", "used"]);
    }

    #[test]
    fn an_image_that_is_asked_for_counts_as_used() {
        let folder = tempfile::tempdir().expect("a folder");
        image(folder.path(), "old", 30 * DAY);
        assert!(list(folder.path()).expect("readable")[0].unused_s > 29 * 24 * 3600);
        mark_used(&folder.path().join("images/old"));
        assert!(list(folder.path()).expect("readable")[0].unused_s < 3600);
    }
}
