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
    Runs(Role),
    Crashed,
    Finished(Outcome),
}

/// The end of a run.
pub(crate) struct Ending<'a> {
    pub(crate) hosts: [&'a End; 2],
    /// Who holds the newest generation, and which it is; `None` for the end of the VM.
    pub(crate) holder: Option<HostId>,
    /// An operator has told this host to end.
    pub(crate) ordered: [bool; 2],
    /// This host has been told to hand over.
    pub(crate) told: [bool; 2],
    /// This host's disk hangs.
    pub(crate) hangs: [bool; 2],
    /// A disk has failed a request.
    pub(crate) disk_failed: bool,
    /// This host has received a message.
    pub(crate) heard: [bool; 2],
    /// This host had heard that it had won before it heard an operator's order.
    pub(crate) won_first: [bool; 2],
    /// Records to this host were lost, and later ones were not.
    pub(crate) has_gap: [bool; 2],
}

impl Ending<'_> {
    pub(crate) fn judge(&self) -> Result<(), Broken> {
        for host in [0, 1] {
            if let End::Finished(Outcome::Halted(cause)) = self.hosts[host] {
                self.judge_cause(host, cause)?;
            }
        }
        let Some(holder) = self.holder else { return Ok(()) };
        let (name, other) = (NAMES[holder], NAMES[1 - holder]);
        let stuck = |what: String| Err(Broken("nobody waits for ever", what));
        match (self.hosts[holder], self.hosts[1 - holder]) {
            (End::Runs(Role::Solo), End::Runs(role)) => {
                stuck(format!("{name} runs alone, and {other} is {role}"))
            }
            (End::Runs(Role::Solo), _) | (End::Runs(Role::Primary), End::Runs(Role::Backup)) => Ok(()),
            (End::Runs(role), _) => stuck(format!("{name} holds the VM, and is {role}")),
            (End::Crashed, End::Runs(role)) => {
                stuck(format!("{name} held the VM and died, and {other} is {role}"))
            }
            (End::Finished(Outcome::PoweredOff { .. } | Outcome::Reset), End::Runs(role)) => {
                stuck(format!("the VM has ended on {name}, and {other} is {role}"))
            }
            // A disk fault and then the loss of the other host: it cannot know what the rest of the log was read from.
            (End::Finished(Outcome::Halted(HaltCause::DiskDiffers { .. })), _) if self.disk_failed => Ok(()),
            (End::Finished(Outcome::Halted(cause)), _) if !self.ordered[holder] || self.won_first[holder] => {
                Err(Broken("who has won runs", format!("{name} holds the VM, and has halted: {cause:?}")))
            }
            _ => Ok(()),
        }
    }

    fn judge_cause(&self, host: HostId, cause: &HaltCause) -> Result<(), Broken> {
        let other = 1 - host;
        let has_ended =
            matches!(self.hosts[other], End::Finished(Outcome::PoweredOff { .. } | Outcome::Reset));
        let justified = match cause {
            HaltCause::Diverged(_) => false,
            HaltCause::Protocol(HaltReason::PeerFault(_)) => self.has_gap[host],
            HaltCause::Protocol(HaltReason::Stalled) => self.hangs[host],
            HaltCause::DiskDiffers { .. } | HaltCause::DiskFault { .. } => self.disk_failed,
            HaltCause::Protocol(HaltReason::LostClaim(_)) => self.holder != Some(host),
            // A disk that fails is a reason to hand over, too.
            HaltCause::Protocol(HaltReason::HandedOver(_)) => {
                (self.told[host] || self.disk_failed) && self.holder != Some(host)
            }
            HaltCause::Protocol(HaltReason::NeverHeard) => !self.heard[host],
            HaltCause::Protocol(HaltReason::PeerEnded) => has_ended,
            HaltCause::Protocol(HaltReason::Left | HaltReason::LeftClaiming(_)) => self.ordered[host],
        };
        if justified {
            return Ok(());
        }
        Err(Broken("who gives up has a reason", format!("{} has halted without one: {cause:?}", NAMES[host])))
    }
}
