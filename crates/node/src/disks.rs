//! How each disk is shared between the replicas (DESIGN 6).

use alloc::vec::Vec;
use pollux_vocab::SlotId;

/// Who has the image, and so what a disk request is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DiskMode {
    /// Each host has its own image and performs every request on it. A write is no output.
    #[default]
    Replicated,
    /// One image that both hosts reach. Requests are outputs of the primary; data read travels in the log.
    Shared,
}

/// The mode of every disk.
#[derive(Clone, Debug)]
pub(crate) struct Disks(Vec<(SlotId, DiskMode)>);

impl Disks {
    pub(crate) fn new(modes: Vec<(SlotId, DiskMode)>) -> Self {
        Self(modes)
    }

    pub(crate) fn mode(&self, slot: SlotId) -> DiskMode {
        self.0.iter().find(|(s, _)| *s == slot).map_or(DiskMode::Replicated, |(_, mode)| *mode)
    }
}
