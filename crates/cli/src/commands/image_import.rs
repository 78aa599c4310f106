//! `pollux image import` and `resize`: disk images that others have made.

use super::image::{Bar, print};
use crate::config::parse_size;
use anyhow::{Context, Result};
use clap::Args;
use std::path::PathBuf;

#[derive(Args, Debug)]
pub struct ImportArgs {
    /// A raw or qcow2 disk image with a kernel inside; it is copied, not changed
    file: PathBuf,
    /// The new folder with kernel, initial RAM disk and disk [default: FILE without its ending]
    #[arg(long, value_name = "FOLDER")]
    into: Option<PathBuf>,
    /// Size of the new disk, if it is to be larger
    #[arg(long)]
    size: Option<String>,
    /// Print the paths as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub struct ResizeArgs {
    /// A raw disk image that no VM uses
    disk: PathBuf,
    /// Its new size, e.g. 8G
    size: String,
}

pub fn import(args: ImportArgs) -> Result<u8> {
    let into = args.into.unwrap_or_else(|| args.file.with_extension(""));
    let into = std::path::absolute(&into).with_context(|| format!("cannot find {}", into.display()))?;
    let size = args.size.as_deref().map(parse_size).transpose()?;
    let image = pollux_image::import(&args.file, &into, &mut Bar::default())?;
    if let Some(bytes) = size {
        pollux_image::resize(&image.disk, bytes)?;
    }
    print(&image, args.json)?;
    Ok(0)
}

pub fn resize(args: &ResizeArgs) -> Result<u8> {
    let bytes = parse_size(&args.size)?;
    if !pollux_image::resize(&args.disk, bytes)? {
        eprintln!(
            "the disk is larger; its partition and file system are the guest's to enlarge (growpart, resize2fs; cloud-init does both)"
        );
    }
    Ok(0)
}
