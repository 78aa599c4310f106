//! The log's entries (DESIGN 4): at once replication stream, recording and audit trail.

use crate::digest::Digest;
use crate::io::{DiskStatus, Input, RequestId, SlotId};
use crate::units::{Icount, Lsn};
use serde::{Deserialize, Serialize};

/// One entry of the log. Records are totally ordered by `lsn`, and their `icount`s never decrease.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Its place in the log.
    pub lsn: Lsn,
    /// The instant it belongs to: a replayer runs to exactly here, then applies it.
    pub icount: Icount,
    /// What happens there.
    pub body: RecordBody,
}

/// What a [`Record`] says.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum RecordBody {
    /// An event to apply to the machine.
    Input(Input),
    /// A disk request finished; every replica performs it on its own image and applies its own data
    /// (replicated disks, DESIGN 6). With shared disks the data travels in an [`Input::DiskDone`] instead.
    DiskDoneLocal {
        /// The disk.
        slot: SlotId,
        /// The request.
        request: RequestId,
        /// How it went on the primary. A replica where it went otherwise leaves the pair.
        status: DiskStatus,
    },
    /// Output mark: outputs were made up to this icount. Whoever goes live replays through the last mark it
    /// holds, first (Scales et al. 2010, 2.2).
    Mark,
    /// Nothing happened up to here: the backup may run this far.
    Progress,
    /// Something an operator did.
    Control(Control),
    /// What the state was here.
    Digest(Digest),
}

/// Operations on the VM that both sides do at the same instant.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Control {
    /// End the VM here, on both sides.
    Stop,
}
