//! The files of a guest that `demo` and `chaos` start: Debian from the cache or of the user's own, or the embedded guest.

use anyhow::{Context, Result, ensure};
use clap::Args;
use pollux_image::{BuildOptions, Image};
use std::path::PathBuf;
use std::time::Duration;

/// The longest that `--patience` may be, in seconds.
const PATIENCE_MAX_S: f64 = 3600.0;

/// Where Debian comes from, what it gets, and how long it may take.
#[derive(Args, Clone, Debug)]
pub struct GuestSource {
    /// RAM of the guest
    #[arg(long, default_value = "512M")]
    pub memory: String,
    /// How long the guest may take to answer after the start, in seconds
    #[arg(long, default_value_t = 180.0)]
    pub patience: f64,
    /// Where images are kept [default: the user's cache folder]
    #[arg(long, value_name = "FOLDER")]
    pub cache: Option<PathBuf>,
    /// Use this kernel, --initrd and --disk (with redis on port 6379) and build nothing
    #[arg(long, value_name = "FILE", requires = "disk")]
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk to go with --kernel
    #[arg(long, value_name = "FILE", requires = "kernel")]
    pub initrd: Option<PathBuf>,
    /// Raw disk image to go with --kernel; it is copied, not changed
    #[arg(long, value_name = "FILE", requires = "kernel")]
    pub disk: Option<PathBuf>,
    /// Kernel command line to go with --kernel
    #[arg(long, value_name = "TEXT", default_value = "console=ttyS0 root=/dev/vda rw quiet")]
    pub append: String,
}

impl GuestSource {
    /// How long the guest may take to answer after the start.
    pub fn patience(&self) -> Result<Duration> {
        ensure!(
            (1.0..=PATIENCE_MAX_S).contains(&self.patience),
            "--patience must be 1 to {PATIENCE_MAX_S} seconds"
        );
        Ok(Duration::from_secs_f64(self.patience))
    }
}

/// What the guest is made of.
pub struct GuestFiles {
    /// `None`: the embedded guest.
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// Copied for each side. `None`: an empty one.
    pub disk: Option<PathBuf>,
    /// The kernel's.
    pub command_line: String,
    /// How the switch leads clients to the service.
    pub forward: &'static str,
}

impl GuestFiles {
    /// Debian: the user's own files, or an image from the cache, built if it is not there.
    pub fn debian(source: &GuestSource, say: impl Fn(&str)) -> Result<Self> {
        let forward = "tcp:127.0.0.1:0-:6379";
        if let (Some(kernel), Some(disk)) = (&source.kernel, &source.disk) {
            let (kernel, disk, initrd) = (Some(kernel.clone()), Some(disk.clone()), source.initrd.clone());
            return Ok(Self { kernel, initrd, disk, command_line: source.append.clone(), forward });
        }
        say("looking for the Debian image (the first time it is built: a few minutes)");
        let options = BuildOptions { cache_dir: source.cache.clone(), ..BuildOptions::default() };
        let image: Image = pollux_image::build(&options, &mut crate::bar::Bar::default()).context(
            "cannot build the Debian guest; give one of your own with --kernel, --initrd and --disk, or try `pollux demo --guest tiny`, which needs no download",
        )?;
        Ok(Self {
            kernel: Some(image.kernel),
            initrd: Some(image.initrd),
            disk: Some(image.disk),
            command_line: image.command_line,
            forward,
        })
    }

    /// The embedded guest.
    pub fn tiny() -> Self {
        Self {
            kernel: None,
            initrd: None,
            disk: None,
            command_line: String::new(),
            forward: "udp:127.0.0.1:0-:7000",
        }
    }
}
