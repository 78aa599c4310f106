//! The signals that end a command in good order.

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// SIGTERM, SIGINT, and SIGHUP unless whoever started this process has it ignored: that is what `nohup` asks for, and it
/// is asked for by those whose terminal, or whose shell, ends before their VM.
pub fn endings() -> Result<Signals> {
    let hangup = (!is_ignored(SIGHUP, &own_status())).then_some(SIGHUP);
    Signals::new([SIGTERM, SIGINT].into_iter().chain(hangup)).context("cannot catch signals")
}

fn own_status() -> String {
    std::fs::read_to_string("/proc/self/status").unwrap_or_default()
}

/// Whether a process whose `/proc/PID/status` is `status` ignores `signal` (proc_pid_status(5), `SigIgn`).
fn is_ignored(signal: i32, status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_is_ignored_is_seen_in_the_mask() {
        let status = "Name:\tpollux\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000001001\n";
        assert!(is_ignored(SIGHUP, status) && !is_ignored(SIGTERM, status));
        assert!(!is_ignored(SIGHUP, "") && !is_ignored(SIGHUP, "SigIgn:\tnonsense\n"));
        assert!(own_status().contains("SigIgn:"), "this kernel says it");
    }
}
