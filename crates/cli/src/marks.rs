//! The marks of a VM's disk images around its start (`pollux_host::mark`): compared before, written when the VM has a
//! generation, taken away when it is to run without an arbiter.

use crate::config::DiskSpec;
use crate::exit::HeldElsewhere;
use crate::tenure::Tenure;
use anyhow::{Context, Result};
use pollux_host::mark::{self, Mark, MarkError, MarkName, Marker, Start};
use std::path::Path;
use std::time::Duration;

/// How long a start waits for its marks: they are small, and a disk that is slower hangs.
const PATIENCE: Duration = Duration::from_secs(5);

/// Images that may be written to. Others never grow old.
fn images(disks: &[(u8, DiskSpec)]) -> impl Iterator<Item = &Path> {
    disks.iter().filter(|(_, spec)| !spec.readonly).map(|(_, spec)| spec.path.as_path())
}

/// Refuses images that are another VM's, or not their VM's newest.
pub fn compare(disks: &[(u8, DiskSpec)], start: Start<'_>, ignored: &[MarkName]) -> Result<()> {
    images(disks).try_for_each(|image| match mark::check(image, start, ignored) {
        // Another replica may hold the VM, and with it the newest image.
        Err(refused @ MarkError::Refused { .. }) => Err(HeldElsewhere(refused.to_string()).into()),
        checked => Ok(checked?),
    })
}

/// Before a VM starts that no arbiter knows of: compares, and takes away the marks that are ignored, for from here on
/// the images are nobody else's.
pub fn begin_alone(disks: &[(u8, DiskSpec)], ignored: &[MarkName]) -> Result<()> {
    compare(disks, Start::Alone, ignored)?;
    Ok(images(disks).try_for_each(mark::remove)?)
}

/// Before a VM runs in the generation of `tenure`: marks the images, and gives what marks them again later.
pub fn begin(disks: &[(u8, DiskSpec)], tenure: &Tenure) -> Result<Marker> {
    let id = tenure.arbiter.id().to_string();
    let first = Mark::new(&tenure.vm, tenure.generation, &id, &tenure.folder);
    let marker = Marker::start(images(disks).map(Path::to_owned).collect(), first);
    let marker = marker.context("cannot start the thread that marks disk images")?;
    marker.mark(tenure.generation);
    if !marker.wait(tenure.generation, PATIENCE) {
        tracing::warn!(
            "the disk images are not marked yet, after {PATIENCE:?}: nothing keeps them from being started without the arbiter"
        );
    }
    Ok(marker)
}
