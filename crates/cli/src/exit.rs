//! Exit statuses: stable, so that scripts and supervisors may rely on them.

pub use pollux_host::exit::{DISK, DIVERGED, FAILED, HALTED, RESET};
use pollux_node::{DiskFault, HaltCause, Outcome};
use pollux_protocol::HaltReason;

/// Another replica holds the VM: it must not be started here.
#[derive(Debug)]
pub struct HeldElsewhere(pub String);

impl std::fmt::Display for HeldElsewhere {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for HeldElsewhere {}

/// The status of a command that failed.
pub fn of_error(error: &anyhow::Error) -> u8 {
    if error.downcast_ref::<HeldElsewhere>().is_some() { HALTED } else { FAILED }
}

/// The status of a trial (`demo`, `bench`, `chaos`): did it find what it should have?
pub fn of_trial(passed: bool) -> u8 {
    if passed { 0 } else { FAILED }
}

/// Shown at the end of `--help`.
pub const HELP: &str = "Exit status: 0 orderly end; 1 failure; 2 wrong usage; 70 halted (another replica holds the VM); \
71 divergence; 72 disk failure on one side; 73 guest reset (with --on-reset stop); a guest that ends through the test finisher sets its own.";

/// The status of a finished node, after saying what it means.
pub fn report(outcome: &Outcome) -> u8 {
    match outcome {
        Outcome::PoweredOff { status } => {
            tracing::info!(status, "the VM has ended");
            // Like a process: the low eight bits, but never a failure shown as success.
            match (*status & 0xff) as u8 {
                0 if *status != 0 => FAILED,
                low => low,
            }
        }
        Outcome::Reset => {
            tracing::warn!(
                "the guest asked for a reset, and the VM is told to stop at that; start it again with the same command"
            );
            RESET
        }
        Outcome::Halted(HaltCause::Protocol(
            reason @ (HaltReason::PeerEnded | HaltReason::Left | HaltReason::HandedOver(_)),
        )) => {
            tracing::info!("{reason}");
            0
        }
        Outcome::Halted(HaltCause::Protocol(reason @ HaltReason::Stalled)) => {
            tracing::error!("halted: {reason}");
            DISK
        }
        Outcome::Halted(HaltCause::Protocol(reason)) => {
            tracing::error!("halted: {reason}");
            HALTED
        }
        Outcome::Halted(HaltCause::Diverged(d)) => {
            tracing::error!("the replicas differ at icount {}: {}", d.icount, d.what);
            DIVERGED
        }
        Outcome::Halted(HaltCause::DiskDiffers { slot, request, here, there }) => {
            tracing::error!(
                "request {request} of disk {slot} ended as {here:?} on this host and as {there:?} on the primary; this backup leaves the pair"
            );
            DISK
        }
        Outcome::Halted(HaltCause::DiskFault { slot, fault: DiskFault::Hangs }) => {
            tracing::error!(
                "disk {slot} of this host does not answer (--disk-hang-ms); this backup leaves the pair"
            );
            DISK
        }
    }
}
