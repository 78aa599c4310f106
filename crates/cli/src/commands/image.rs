//! `pollux image`: Debian guests, built with the host's own apt and no root.

use crate::config::parse_size;
use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use pollux_image::{BuildOptions, Image, Progress};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Args, Debug)]
pub struct ImageArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Build a Debian 13 riscv64 guest (kernel, initial RAM disk, root disk); cached
    Build(BuildArgs),
}

#[derive(Args, Debug)]
struct BuildArgs {
    /// Debian packages beside the base system
    #[arg(long, value_delimiter = ',', default_value = "redis-server")]
    packages: Vec<String>,
    /// Size of the root disk
    #[arg(long, default_value = "1G")]
    size: String,
    /// Where images are kept [default: the user's cache folder]
    #[arg(long, value_name = "FOLDER")]
    cache: Option<PathBuf>,
    /// A folder whose content is laid over the root file system
    #[arg(long, value_name = "FOLDER")]
    overlay: Option<PathBuf>,
    /// A Debian mirror, for hosts whose apt has no Debian source
    #[arg(long, value_name = "URI")]
    mirror: Option<String>,
    /// The keyring that the mirror's signatures are checked with
    #[arg(long, value_name = "FILE")]
    keyring: Option<PathBuf>,
    /// Copy the root disk to this file, and name the copy: the cached one stays as it is
    #[arg(long, value_name = "FILE")]
    copy: Option<PathBuf>,
    /// Print the paths as JSON
    #[arg(long)]
    json: bool,
}

/// A progress bar on standard error.
#[derive(Debug)]
pub struct Bar(ProgressBar);

impl Default for Bar {
    fn default() -> Self {
        let bar = ProgressBar::new(0);
        let style = ProgressStyle::with_template("{spinner} {msg} {wide_bar} {percent}% {elapsed}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }
}

impl Progress for Bar {
    fn step(&mut self, name: &str, index: usize, total: usize) {
        self.0.set_length(0);
        self.0.set_position(0);
        self.0.set_message(format!("[{index}/{total}] {name}"));
        if self.0.is_hidden() {
            eprintln!("[{index}/{total}] {name}");
        }
    }

    fn advance(&mut self, done: u64, total: u64) {
        self.0.set_length(total);
        self.0.set_position(done);
    }

    fn finish(&mut self) {
        self.0.finish_and_clear();
    }
}

pub fn run(args: ImageArgs) -> Result<u8> {
    let Action::Build(args) = args.action;
    let options = BuildOptions {
        packages: args.packages,
        size_bytes: parse_size(&args.size)?,
        cache_dir: args.cache,
        overlay: args.overlay,
        mirror: args.mirror,
        keyring: args.keyring,
    };
    let mut image: Image = pollux_image::build(&options, &mut Bar::default())?;
    if let Some(copy) = args.copy {
        pollux_image::fresh_disk_copy(&image.disk, &copy)
            .with_context(|| format!("cannot copy the disk to {}", copy.display()))?;
        image.disk = copy.canonicalize().unwrap_or(copy);
    } else if !args.json {
        println!("# the disk below is the cached one: copy it (--copy FILE) before a VM writes to it");
    }
    if args.json {
        println!("{}", serde_json::to_string(&image)?);
    } else {
        println!("kernel = \"{}\"", image.kernel.display());
        println!("initrd = \"{}\"", image.initrd.display());
        println!("append = \"{}\"", image.command_line);
        println!("[[disk]]\npath = \"{}\"", image.disk.display());
    }
    Ok(0)
}
