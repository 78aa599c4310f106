//! Rule: replicated disks start as equal copies, shared ones are one image, and each side has a disk for each slot.

use super::terms::{Disk, OwnDisk};
use alloc::format;
use alloc::string::String;
use pollux_vocab::SlotId;

/// Compares the primary's disks with this host's; why they do not fit.
pub fn check_disks(theirs: &[Disk], ours: &[OwnDisk]) -> Result<(), String> {
    for disk in theirs {
        let slot = disk.slot;
        let Some(own) = ours.iter().find(|own| own.slot == slot) else {
            return Err(format!(
                "the VM has a disk in slot {slot}, for which this backup was given no --disk"
            ));
        };
        check_disk(disk, own)?;
    }
    match ours.iter().find(|own| theirs.iter().all(|disk| disk.slot != own.slot)) {
        Some(OwnDisk { slot, .. }) => {
            Err(format!("this backup was given a disk for slot {slot}, which the VM does not have"))
        }
        None => Ok(()),
    }
}

fn check_disk(disk: &Disk, own: &OwnDisk) -> Result<(), String> {
    let slot = disk.slot;
    let word = |shared| if shared { "shared" } else { "replicated" };
    if own.shared != disk.shared {
        let (here, there) = (word(own.shared), word(disk.shared));
        return Err(format!("disk {slot} is {there} on the primary and {here} here"));
    }
    if own.bytes != disk.bytes {
        let (there, here) = (disk.bytes, own.bytes);
        return Err(format!(
            "disk {slot} has {there} bytes on the primary and {here} here; copy the primary's image"
        ));
    }
    // Rule: whether contents are compared is for this side to say: the peer cannot leave its hash out.
    match (disk.content_hash, own.content_hash) {
        (_, None) => Ok(()),
        _ if disk.shared => Ok(()),
        (Some(there), Some(here)) if there == here => Ok(()),
        (Some(_), Some(_)) => Err(format!(
            "disk {slot} differs in content from the primary's; replicated disks start as equal copies"
        )),
        (None, Some(_)) => Err(format!(
            "the primary does not say what disk {slot} holds, and only this backup's own --trust-disks makes that right"
        )),
    }
}

/// Compares which disks may be written, as far as the Hello does not tell: `theirs` are the slots with a disk of the
/// machine that came, and whether the guest only reads it.
pub fn check_read_only(theirs: &[(SlotId, bool)], ours: &[OwnDisk]) -> Result<(), String> {
    for (slot, read_only) in theirs {
        let own = ours.iter().find(|own| own.slot == *slot);
        if own.is_some_and(|own| own.read_only != *read_only) {
            let word = |read_only| if read_only { "read-only" } else { "writable" };
            let (there, here) = (word(*read_only), word(!*read_only));
            return Err(format!("disk {slot} is {there} on the primary and {here} here"));
        }
    }
    Ok(())
}
