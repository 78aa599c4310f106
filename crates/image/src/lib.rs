//! Builds Debian guests: unmodified packages, fetched and verified by the host's own apt, put together without root.
//!
//! ```text
//!   sources  ─► apt (private state, riscv64) ─► .deb files ─► staging tree ─► kernel, initrd, disk.img
//! ```
//!
//! Nothing of a package is changed and no maintainer script is run on the host. There are two kinds of guest: with a
//! fast boot of our own (`assemble`: no script of a package ever runs, the few files in `guest/` tie the system
//! together), and with systemd (`system`: the packages install themselves, inside the machine). Every result is made under a temporary name and renamed, so what has
//! its name is whole; a build that was interrupted goes on where it was.

mod apt;
mod assemble;
mod bootconfig;
pub mod cache;
mod copy;
mod import;
mod initramfs;
mod module;
mod plan;
mod stage2;
mod system;
mod tools;

pub use copy::fresh_disk_copy;
pub use import::{import, resize};
pub use stage2::{Boot, Runner};
pub use system::{Access, System};
pub use tools::{interrupt, is_interrupted};

use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Changes whenever the same options give another image.
const RECIPE: u32 = 2;

/// What kind of guest to build.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct BuildOptions {
    /// Packages beside the base system.
    pub packages: Vec<String>,
    /// Size of the root disk in bytes.
    pub size_bytes: u64,
    /// Where images and downloads are kept; `None`: the user's cache folder.
    #[serde(skip)]
    pub cache_dir: Option<PathBuf>,
    /// A folder whose content is laid over the root file system.
    pub overlay: Option<PathBuf>,
    /// A Debian mirror, if the host's apt has no Debian source.
    pub mirror: Option<String>,
    /// The keyring that goes with it.
    pub keyring: Option<PathBuf>,
    /// What the guest's first process is, and with it what kind of system this is.
    #[serde(skip)]
    pub init: Init,
}

/// The first process of a guest.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Init {
    /// sysvinit and a few lines of shell: no package's script ever runs. The fastest boot.
    #[default]
    Minimal,
    /// systemd, on a system whose packages have installed themselves.
    Systemd(Box<System>),
}

impl Default for BuildOptions {
    fn default() -> Self {
        Self {
            packages: vec!["redis-server".into()],
            size_bytes: 1 << 30,
            cache_dir: None,
            overlay: None,
            mirror: None,
            keyring: None,
            init: Init::Minimal,
        }
    }
}

/// A guest that is ready to start.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Image {
    /// Linux `Image`.
    pub kernel: PathBuf,
    /// Initial RAM disk.
    pub initrd: PathBuf,
    /// Root file system, ext4 in a raw image. Copy it ([`fresh_disk_copy`]) before a VM writes to it.
    pub disk: PathBuf,
    /// The kernel command line that goes with it.
    pub command_line: String,
    /// Packages in it, as `name_version_architecture`.
    pub packages: Vec<String>,
}

/// Told how a build goes.
pub trait Progress {
    /// A step begins: its name, its number from 1, and how many there are.
    fn step(&mut self, name: &str, index: usize, total: usize);
    /// The step has come this far.
    fn advance(&mut self, done: u64, total: u64);
    /// Something that a user may want to know.
    fn note(&mut self, text: &str) {
        let _ = text;
    }
    /// All steps are done.
    fn finish(&mut self);
}

/// Says nothing.
impl Progress for () {
    fn step(&mut self, _name: &str, _index: usize, _total: usize) {}
    fn advance(&mut self, _done: u64, _total: u64) {}
    fn finish(&mut self) {}
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A program is missing.
    #[error(
        "{tool} is not on this host (Debian's package {package} has it); without it, give a kernel and a disk of your own with --kernel and --disk"
    )]
    Tool {
        /// The program.
        tool: &'static str,
        /// Where it comes from.
        package: &'static str,
    },
    /// The host's apt knows no Debian archive.
    #[error(
        "this host's apt has no Debian source to take packages from; name one with --mirror URI and its keys with --keyring FILE (Debian's package debian-archive-keyring has them)"
    )]
    NoSource,
    /// The keys that the archive's signatures are checked with are not there.
    #[error(
        "the keyring {path} is not on this host; install Debian's package debian-archive-keyring, or name a keyring with --keyring FILE"
    )]
    NoKeyring {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The archive's signature is missing, bad, or made by a key that this host does not have.
    #[error(
        "the archive's signature could not be checked, so nothing was taken from it. If this host's debian-archive-keyring is older than Debian 13 (trixie), update that package or name a newer keyring with --keyring FILE. apt said:\n{output}"
    )]
    Signature {
        /// The end of what apt said.
        output: String,
    },
    /// The mirror lacks Debian's updates, or they cannot be fetched.
    #[error(
        "the mirror's {suite} cannot be fetched, so the guest would lack security updates; try again later, name another mirror with --mirror URI, or do without with --no-updates. apt said:\n{output}"
    )]
    NoUpdates {
        /// Which suite.
        suite: String,
        /// The end of what apt said.
        output: String,
    },
    /// The packages' own installation, in the machine, has failed.
    #[error(
        "the packages' installation in the guest failed ({what}); all that it said is in {log}:\n{output}"
    )]
    SecondStage {
        /// How it ended.
        what: String,
        /// All that the guest said.
        log: PathBuf,
        /// The end of that.
        output: String,
    },
    /// [`interrupt`] was called.
    #[error("interrupted; what was half made has been removed, what was downloaded is kept")]
    Interrupted,
    /// An option that cannot be used.
    #[error("{0}")]
    Unusable(String),
    /// Somebody builds.
    #[error("an image is being built in this cache; try again when that has ended")]
    Building,
    /// Debian has no such package.
    #[error("Debian 13 (trixie) has no package {name} for riscv64")]
    NoPackage {
        /// Its name.
        name: String,
    },
    /// The packages do not fit on the root disk.
    #[error("the root disk is too small for the packages; give a larger --size")]
    TooSmall,
    /// The host's disk is full.
    #[error(
        "{what}: no space is left on this host's disk; what was downloaded is kept, free some and try again"
    )]
    HostFull {
        /// What was being done.
        what: String,
    },
    /// A program failed.
    #[error("{what} failed:\n{output}")]
    Failed {
        /// What was being done.
        what: String,
        /// The end of what the program said.
        output: String,
    },
    /// A file could not be read or written.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// A package does not contain what it should.
    #[error("the packages contain no {0}; has Debian changed its layout?")]
    Missing(&'static str),
    /// Ownership cannot be set without root.
    #[error(
        "cannot give the image's files to root: neither `unshare -r` (user namespaces) nor `fakeroot` works here; install fakeroot, or run as root"
    )]
    Ownership,
}

pub(crate) fn io_error<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> ImageError + 'a {
    move |source| ImageError::Io { what, path: path.into(), source }
}

/// Builds the image with the fast boot that `options` describe, or finds it in the cache.
pub fn build(options: &BuildOptions, progress: &mut dyn Progress) -> Result<Image, ImageError> {
    let cache = options.cache_dir.clone().unwrap_or_else(default_cache);
    find_or_make(&cache, &key(options), progress, |folder, progress| {
        let apt = apt::Apt::prepare(&cache.join("apt"), options, "")?;
        progress.step("asking Debian's archive for its packages", 1, 5);
        apt.update()?;
        progress.step("downloading packages", 2, 5);
        let debs = apt.download(options, progress)?;
        assemble::assemble(options, &debs, folder, progress)
    })
}

/// Builds any image; `runner` starts the machine in which packages install themselves.
pub fn build_with(
    options: &BuildOptions,
    runner: &mut dyn Runner,
    progress: &mut dyn Progress,
) -> Result<Image, ImageError> {
    match &options.init {
        Init::Minimal => build(options, progress),
        Init::Systemd(system) => system::build(options, system, runner, progress),
    }
}

/// The image that has `key` as its name in the cache; made if it is not there.
fn find_or_make(
    cache: &Path,
    key: &str,
    progress: &mut dyn Progress,
    make: impl FnOnce(&Path, &mut dyn Progress) -> Result<Image, ImageError>,
) -> Result<Image, ImageError> {
    let folder = cache.join("images").join(key);
    if let Ok(image) = Image::open(&folder) {
        cache::mark_used(&folder);
        progress.finish();
        return Ok(image);
    }
    tools::check()?;
    fs::create_dir_all(cache).map_err(io_error("cannot make the cache folder", cache))?;
    let lock_path = cache.join("lock");
    let lock = File::create(&lock_path).map_err(io_error("cannot create", &lock_path))?;
    // Somebody else may be building the same image: then it is there afterwards.
    wait_for_lock(&lock, progress).map_err(|e| io_error("cannot lock", &lock_path)(e.into()))?;
    if is_interrupted() {
        return Err(ImageError::Interrupted);
    }
    if let Ok(image) = Image::open(&folder) {
        cache::mark_used(&folder);
        progress.finish();
        return Ok(image);
    }
    let made = make(&folder, progress);
    progress.finish();
    made.map_err(|error| clear_away(&folder, error))
}

/// Waits until no other build goes on here, or this process is told to end.
fn wait_for_lock(lock: &File, progress: &mut dyn Progress) -> rustix::io::Result<()> {
    const LOOK: std::time::Duration = std::time::Duration::from_millis(200);
    let mut told = false;
    loop {
        match rustix::fs::flock(lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) if !is_interrupted() => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(()),
            other => return other,
        }
        if !told {
            progress.note("another build goes on with this cache; waiting for its end");
            told = true;
        }
        std::thread::sleep(LOOK);
    }
}

/// Removes what a failed build has left beside the folder that it was to become, but for the log that `error` names.
fn clear_away(folder: &Path, mut error: ImageError) -> ImageError {
    let staging = folder.with_extension("new");
    if is_interrupted() {
        error = ImageError::Interrupted;
    }
    if let ImageError::SecondStage { log, .. } = &mut error {
        let kept = folder.with_extension("log");
        if fs::rename(&*log, &kept).is_ok() {
            *log = kept;
        }
    }
    let _ = fs::remove_dir_all(staging);
    error
}

fn key(options: &BuildOptions) -> String {
    let text =
        format!("{RECIPE} {} {}", serde_json::to_string(options).unwrap_or_default(), assemble::recipe());
    name_of(&(text + &options.overlay.as_deref().map(fingerprint).unwrap_or_default()))
}

/// The name in the cache of an image that `text` describes.
fn name_of(text: &str) -> String {
    let hash =
        text.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    format!("trixie-riscv64-{hash:016x}")
}

/// What tells one content of a folder from another: names, sizes, modes and times.
fn fingerprint(folder: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    let mut paths: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    paths.sort();
    let one = |path: PathBuf| {
        let Ok(meta) = path.symlink_metadata() else { return String::new() };
        let (size, mode) = (meta.size(), meta.mode());
        let line = format!("{} {size} {mode} {}.{}\n", path.display(), meta.mtime(), meta.mtime_nsec());
        if meta.is_dir() { line + &fingerprint(&path) } else { line }
    };
    paths.into_iter().map(one).collect()
}

/// Where images are kept if nothing else is said: the user's cache folder.
pub fn default_cache() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    base.unwrap_or_else(std::env::temp_dir).join("pollux")
}

/// Writes an initial RAM disk that holds one static program, which is the guest's init.
pub fn write_program_initramfs(to: &Path, program: &[u8]) -> Result<(), ImageError> {
    initramfs::write_program(to, program).map_err(io_error("cannot write", to))
}

impl Image {
    /// The image in `folder`, if it is whole.
    pub fn open(folder: &Path) -> Result<Self, ImageError> {
        let path = folder.join("manifest.json");
        let text = fs::read_to_string(&path).map_err(io_error("cannot read", &path))?;
        let mut image: Self =
            serde_json::from_str(&text).map_err(|e| io_error("cannot understand", &path)(e.into()))?;
        // A folder that was moved or copied to another host is still an image.
        for part in [&mut image.kernel, &mut image.initrd, &mut image.disk] {
            *part = folder.join(part.file_name().unwrap_or_default());
        }
        for part in [&image.kernel, &image.initrd, &image.disk] {
            File::open(part).map_err(io_error("cannot open", part))?;
        }
        Ok(image)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_options_are_another_image_and_a_half_built_one_is_none() {
        let other = BuildOptions { size_bytes: 2 << 30, ..BuildOptions::default() };
        assert_ne!(key(&other), key(&BuildOptions::default()));
        let folder = tempfile::tempdir().expect("a folder");
        assert!(Image::open(folder.path()).is_err());
    }

    #[test]
    fn a_changed_overlay_is_another_image() {
        let folder = tempfile::tempdir().expect("a folder");
        let options = BuildOptions { overlay: Some(folder.path().into()), ..BuildOptions::default() };
        let before = key(&options);
        fs::create_dir(folder.path().join("etc")).expect("room");
        fs::write(folder.path().join("etc/motd"), "hello").expect("room");
        assert_ne!(key(&options), before);
        assert_eq!(key(&options), key(&options));
    }

    #[test]
    fn a_moved_image_is_still_an_image() {
        let folder = tempfile::tempdir().expect("a folder");
        let (here, there) = (folder.path().join("a"), folder.path().join("b"));
        fs::create_dir(&here).expect("room");
        for name in ["kernel", "initrd", "disk.img"] {
            fs::write(here.join(name), "").expect("room");
        }
        let image = Image {
            kernel: here.join("kernel"),
            initrd: here.join("initrd"),
            disk: here.join("disk.img"),
            command_line: "quiet".into(),
            packages: Vec::new(),
        };
        fs::write(here.join("manifest.json"), serde_json::to_string(&image).expect("plain")).expect("room");
        assert_eq!(Image::open(&here).expect("whole"), image);
        fs::rename(&here, &there).expect("ours");
        assert_eq!(Image::open(&there).expect("whole").disk, there.join("disk.img"));
        fs::remove_file(there.join("initrd")).expect("ours");
        assert!(Image::open(&there).is_err(), "a part is missing");
    }
}
