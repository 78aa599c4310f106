//! `pollux image list` and `prune`: the images that were built here, and how they are got rid of.

use anyhow::{Result, ensure};
use clap::Args;
use pollux_image::cache::{self, Prune};
use std::path::PathBuf;
use std::time::Duration;

const DAY_S: u64 = 24 * 3600;
const MIB: f64 = 1_048_576.0;

#[derive(Args, Debug)]
pub struct ListArgs {
    /// Where images are kept [default: the user's cache folder]
    #[arg(long, value_name = "FOLDER")]
    cache: Option<PathBuf>,
    /// One JSON object an image, one a line
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub struct PruneArgs {
    /// Where images are kept [default: the user's cache folder]
    #[arg(long, value_name = "FOLDER")]
    cache: Option<PathBuf>,
    /// Remove images that nobody has asked for in so many days
    #[arg(long, value_name = "DAYS", default_value_t = 7)]
    older_than: u64,
    /// Remove all that nothing uses, and the downloaded packages
    #[arg(long, conflicts_with = "older_than")]
    all: bool,
    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,
}

fn folder(cache: Option<PathBuf>) -> PathBuf {
    cache.unwrap_or_else(pollux_image::default_cache)
}

pub fn list(args: ListArgs) -> Result<u8> {
    let folder = folder(args.cache);
    let entries = cache::list(&folder)?;
    if args.json {
        for entry in &entries {
            println!("{}", serde_json::to_string(entry)?);
        }
        return Ok(0);
    }
    println!("{:<34} {:>9} {:>9} {:>12}  STATE", "IMAGE", "MiB", "PACKAGES", "UNUSED days");
    for entry in &entries {
        let state = match (entry.whole, entry.in_use) {
            (false, _) => "not whole",
            (true, true) => "in use",
            (true, false) => "",
        };
        let (mib, days) = (entry.bytes as f64 / MIB, entry.unused_s as f64 / DAY_S as f64);
        println!("{:<34} {mib:>9.1} {:>9} {days:>12.1}  {state}", entry.name, entry.packages);
    }
    let total: u64 = entries.iter().map(|entry| entry.bytes).sum();
    println!("{:.1} MiB in {}", total as f64 / MIB, folder.display());
    Ok(0)
}

pub fn prune(args: PruneArgs) -> Result<u8> {
    ensure!(args.older_than <= 36_500, "--older-than is in days, at most 36500");
    let unused = Duration::from_secs(if args.all { 0 } else { args.older_than * DAY_S });
    let what = Prune { unused, downloads: args.all, dry_run: args.dry_run };
    let pruned = cache::prune(&folder(args.cache), what)?;
    let verb = if args.dry_run { "would be removed" } else { "removed" };
    for name in &pruned.removed {
        println!("{name} {verb}");
    }
    println!("{:.1} MiB {verb}", pruned.bytes as f64 / MIB);
    Ok(0)
}
