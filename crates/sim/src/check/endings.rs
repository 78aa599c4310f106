//! How a run may end, once nothing goes wrong any more: whoever holds the newest generation runs the VM, or has
//! died, or was ended; nobody waits for ever; and every replica that has given up had a reason that was a fault.
//!
//! Whether the VM then serves its clients is seen in the last questions that they ask (`client`).

use super::Broken;
use crate::fault::{HostId, NAMES};
use pollux_node::{HaltCause, Outcome};
use pollux_protocol::{HaltReason, Role};

/// What became of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Nothing was started on it.
    Idle,
    Runs(Role),
    Crashed,
    Finished(Outcome),
}

/// What became of a host, and what was done to it.
pub(crate) struct HostEnd<'a> {
    pub(crate) end: &'a End,
    /// With whom it was a pair at last.
    pub(crate) peer: Option<HostId>,
    /// An operator has told it to end.
    pub(crate) ordered: bool,
    /// It has been told to hand over.
    pub(crate) told: bool,
    /// Its disk hangs.
    pub(crate) hangs: bool,
    /// It has received a message.
    pub(crate) heard: bool,
    /// It had heard that it had won before it heard an operator's order.
    pub(crate) won_first: bool,
    /// Records to it were lost, and later ones were not.
    pub(crate) has_gap: bool,
}

/// The end of a run.
pub(crate) struct Ending<'a> {
    pub(crate) hosts: Vec<HostEnd<'a>>,
    /// Who holds the newest generation; `None` for the end of the VM.
    pub(crate) holder: Option<HostId>,
    /// A disk has failed a request.
    pub(crate) disk_failed: bool,
}

/// Whether the VM was ended there.
pub(crate) fn is_end_of_vm(end: &End) -> bool {
    matches!(end, End::Finished(Outcome::PoweredOff { .. } | Outcome::Reset))
}

impl Ending<'_> {
    pub(crate) fn judge(&self) -> Result<(), Broken> {
        for (host, at) in self.hosts.iter().enumerate() {
            if let End::Finished(Outcome::Halted(cause)) = at.end {
                self.judge_cause(host, cause)?;
            }
        }
        let Some(holder) = self.holder else { return Ok(()) };
        let (name, at) = (NAMES[holder], &self.hosts[holder]);
        let stuck = |what: String| Err(Broken("nobody waits for ever", what));
        match (at.end, self.other_than(holder)) {
            (End::Runs(Role::Solo), Some((other, role))) => {
                stuck(format!("{name} runs alone, and {} is {role}", NAMES[other]))
            }
            (End::Runs(Role::Solo), None) => Ok(()),
            (End::Runs(Role::Primary), Some((other, Role::Backup))) if at.peer == Some(other) => Ok(()),
            (End::Runs(role), _) => stuck(format!("{name} holds the VM, and is {role}")),
            (End::Crashed, Some((other, role))) => {
                stuck(format!("{name} held the VM and died, and {} is {role}", NAMES[other]))
            }
            (end, Some((other, role))) if is_end_of_vm(end) => {
                stuck(format!("the VM has ended on {name}, and {} is {role}", NAMES[other]))
            }
            // A disk fault and then the loss of the other host: it cannot know what the rest of the log was read from.
            (End::Finished(Outcome::Halted(HaltCause::DiskDiffers { .. })), _) if self.disk_failed => Ok(()),
            (End::Finished(Outcome::Halted(cause)), _) if !at.ordered || at.won_first => {
                Err(Broken("who has won runs", format!("{name} holds the VM, and has halted: {cause:?}")))
            }
            _ => Ok(()),
        }
    }

    /// Somebody else who runs; rather not the peer.
    fn other_than(&self, holder: HostId) -> Option<(HostId, Role)> {
        let peer = self.hosts[holder].peer;
        let others = self.hosts.iter().enumerate().filter(|(host, _)| *host != holder);
        let runs = others.filter_map(|(host, at)| match at.end {
            End::Runs(role) => Some((host, *role)),
            _ => None,
        });
        runs.min_by_key(|(host, _)| peer == Some(*host))
    }

    fn judge_cause(&self, host: HostId, cause: &HaltCause) -> Result<(), Broken> {
        let at = &self.hosts[host];
        let has_ended = at.peer.is_some_and(|peer| is_end_of_vm(self.hosts[peer].end));
        let justified = match cause {
            HaltCause::Diverged(_) => false,
            HaltCause::Protocol(HaltReason::PeerFault(_)) => at.has_gap,
            HaltCause::Protocol(HaltReason::Stalled) => at.hangs,
            HaltCause::DiskDiffers { .. } | HaltCause::DiskFault { .. } => self.disk_failed,
            HaltCause::Protocol(HaltReason::LostClaim(_)) => self.holder != Some(host),
            // A disk that fails is a reason to hand over, too.
            HaltCause::Protocol(HaltReason::HandedOver(_)) => {
                (at.told || self.disk_failed) && self.holder != Some(host)
            }
            HaltCause::Protocol(HaltReason::NeverHeard) => !at.heard,
            HaltCause::Protocol(HaltReason::PeerEnded) => has_ended,
            HaltCause::Protocol(HaltReason::Left | HaltReason::LeftClaiming(_)) => at.ordered,
        };
        if justified {
            return Ok(());
        }
        Err(Broken("who gives up has a reason", format!("{} has halted without one: {cause:?}", NAMES[host])))
    }
}
