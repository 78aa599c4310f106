//! The exit statuses of a process that runs a VM: stable, so that scripts and supervisors may rely on them.

/// Something went wrong before or outside of the guest; the message says what.
pub const FAILED: u8 = 1;
/// This replica must not run on: somebody else holds the VM's generation, or the peer said so.
pub const HALTED: u8 = 70;
/// The replicas, or the recording and its replay, differ.
pub const DIVERGED: u8 = 71;
/// This host's disk failed, or hangs, where the other's did not.
pub const DISK: u8 = 72;
/// The guest asked for a reset.
pub const RESET: u8 = 73;
