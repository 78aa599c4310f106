//! The guest: Debian with the packages that are timed, or one kernel with our own program as its init.

use super::system::System;
use super::{BenchArgs, Plan, say};
use crate::bar::Bar;
use anyhow::{Context, Result};
use pollux_image::{BuildOptions, Image};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The guest's half of the benchmark.
pub const DRIVER: &str = include_str!("guest/driver");
/// Our workloads, built by `guests/workloads/build.sh`.
const WORKLOADS_ELF: &[u8] =
    include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../guests/workloads/workloads.elf"));
/// What is timed of Debian's.
const PACKAGES: [&str; 7] = ["openssl", "python3-minimal", "mawk", "gron", "gcc", "sqlite3", "redis-server"];
/// Room for them.
const DISK_BYTES: u64 = 1 << 30;
/// The redis of the image starts when its turn comes, not at every boot.
const NO_SERVICE: &str = "# Not executable: the benchmark's driver starts redis itself.\n";

/// What every system boots.
#[derive(Debug, Default)]
pub struct Guest {
    /// Linux `Image`.
    pub kernel: PathBuf,
    /// Initial RAM disk.
    pub initrd: PathBuf,
    /// Root disk, to be copied for each VM; our own programs need none.
    pub disk: Option<PathBuf>,
    /// The kernel's command line, with what the driver is told.
    pub command_line: String,
    /// Packages in it, as `name_version_architecture`.
    pub packages: Vec<String>,
    /// Holds the initial RAM disk of our own, and goes with this value.
    pub _folder: Option<TempDir>,
}

impl Guest {
    /// Builds it, or finds it in the cache.
    pub fn find(args: &BenchArgs, plan: &Plan) -> Result<Self> {
        if plan.systems == [System::Native] {
            return Ok(Self::default());
        }
        let names: Vec<_> = plan.workloads.iter().map(|w| w.name).collect();
        let told = format!("pollux.run={} pollux.repeats={}", names.join(","), plan.repeats);
        if let Some(kernel) = &args.kernel {
            let folder = tempfile::tempdir().context("cannot make a working folder")?;
            let initrd = folder.path().join("initrd");
            pollux_image::write_program_initramfs(&initrd, WORKLOADS_ELF)?;
            return Ok(Self {
                kernel: kernel.clone(),
                initrd,
                disk: None,
                command_line: format!("console=ttyS0 quiet {told}"),
                packages: Vec::new(),
                _folder: Some(folder),
            });
        }
        let cache = args.cache.clone().unwrap_or_else(pollux_image::default_cache);
        let overlay = cache.join("bench-overlay");
        lay_out(&overlay)?;
        say("looking for the Debian image (the first time it is built: a few minutes)");
        let options = BuildOptions {
            packages: PACKAGES.map(str::to_owned).to_vec(),
            size_bytes: DISK_BYTES,
            cache_dir: Some(cache),
            overlay: Some(overlay),
            mirror: args.mirror.clone(),
            keyring: args.keyring.clone(),
            init: pollux_image::Init::Minimal,
        };
        let image: Image = pollux_image::build(&options, &mut Bar::default()).context(
            "cannot build the Debian guest; `pollux bench --kernel FILE` needs none, and times Pollux's own workloads alone",
        )?;
        Ok(Self {
            kernel: image.kernel,
            initrd: image.initrd,
            disk: Some(image.disk),
            command_line: format!("{} {told}", image.command_line),
            packages: image.packages,
            _folder: None,
        })
    }

    /// Versions of the packages that are timed.
    pub fn timed_packages(&self) -> Vec<&str> {
        let is_timed = |package: &&String| {
            PACKAGES.iter().any(|name| package.starts_with(&format!("{name}_")))
                || package.starts_with("linux-image-")
        };
        self.packages.iter().filter(is_timed).map(String::as_str).collect()
    }
}

/// Lays out what comes over Debian's files. What is as it should be is left alone: the image's name depends on times.
fn lay_out(overlay: &Path) -> Result<()> {
    const SOURCE: &[u8] = super::native::SOURCE.as_bytes();
    let files: [(&str, &[u8], u32); 9] = [
        ("etc/inittab", include_bytes!("guest/inittab"), 0o644),
        ("etc/pollux/services/redis", NO_SERVICE.as_bytes(), 0o644),
        ("bench/driver", DRIVER.as_bytes(), 0o755),
        ("bench/workloads", WORKLOADS_ELF, 0o755),
        ("bench/workloads.c", SOURCE, 0o644),
        ("bench/libm.awk", include_bytes!("guest/libm.awk"), 0o644),
        ("bench/document.awk", include_bytes!("guest/document.awk"), 0o644),
        ("bench/work.py", include_bytes!("guest/work.py"), 0o644),
        ("bench/work.sql", include_bytes!("guest/work.sql"), 0o644),
    ];
    for (name, content, mode) in files {
        let path = overlay.join(name);
        if fs::read(&path).is_ok_and(|there| there == content) {
            continue;
        }
        let write = || -> std::io::Result<()> {
            fs::create_dir_all(path.parent().unwrap_or(overlay))?;
            fs::write(&path, content)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))
        };
        write().with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_file_of_the_overlay_that_is_right_is_not_written_again() {
        let folder = tempfile::tempdir().expect("a folder");
        lay_out(folder.path()).expect("room");
        let inode_and_time = |name: &str| {
            let meta = fs::metadata(folder.path().join(name)).expect("there");
            (meta.ino(), meta.mtime_nsec(), meta.mode() & 0o777)
        };
        let before = inode_and_time("bench/driver");
        assert_eq!(before.2, 0o755);
        fs::write(folder.path().join("etc/inittab"), "other").expect("ours");
        lay_out(folder.path()).expect("room");
        assert_eq!(inode_and_time("bench/driver"), before);
        assert_ne!(fs::read(folder.path().join("etc/inittab")).expect("there"), b"other");
    }
}
