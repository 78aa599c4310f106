//! How long a VM may stand still: what each fault allows, so that a round can be held to it.
//!
//! A client's longest wait is compared with the sum of what the round's faults allow, for they may fall into one wait.
//! What a fault allows follows from the settings of the pair. A wait that an outage begins ends with TCP's next
//! retransmission, which comes at the latest when as much time has passed again: hence [`RETRANSMITTED`].

use super::plan::{Blow, Plan, Trouble};

/// The pair's failure timeout, which is the default.
const FAILURE_MS: u64 = 300;
/// How long a disk of the pair may take over one request (`--disk-hang-ms`).
pub const DISK_HANG_MS: u64 = 2500;
/// How long a port of the switch may be silent until it counts as lost, and how long a primary bears that.
const SERVICE_LOST_MS: u64 = 3000 + 1000;
/// How long a handover may take.
const HANDOVER_MS: u64 = 2000;
/// How long an arbiter that is back may stay unasked.
const ASKED_AGAIN_MS: u64 = 500;
/// Claim, replay, going live, and whatever this machine does to processes beside that.
const SLACK_MS: u64 = 1500;
/// A lost segment of TCP is sent again after 200 ms, 400 ms, 800 ms.
const LOST_THRICE_MS: u64 = 1400;
/// Round trips that one request and its answer may need between the hosts.
const ROUND_TRIPS: u64 = 5;
/// An outage of T is felt for up to 2T.
const RETRANSMITTED: u64 = 2;

/// What a blow allows, milliseconds.
fn of_blow(blow: Blow) -> u64 {
    match blow {
        Blow::KillPrimary | Blow::KillBackup => 0,
        Blow::CrashPrimary
        | Blow::StopPrimary
        | Blow::StopBackup
        | Blow::CutBoth
        | Blow::CutToBackup
        | Blow::CutToPrimary => RETRANSMITTED * FAILURE_MS,
        Blow::HangPrimaryDisk => DISK_HANG_MS + HANDOVER_MS,
        Blow::FullPrimaryDisk => HANDOVER_MS,
        // A backup that cannot go on holds the primary back, until it leaves.
        Blow::HangBackupDisk => DISK_HANG_MS + FAILURE_MS,
        Blow::FullBackupDisk => FAILURE_MS,
        Blow::CutService => RETRANSMITTED * (SERVICE_LOST_MS + HANDOVER_MS),
    }
}

/// What a trouble allows, milliseconds.
fn of_trouble(trouble: &Trouble) -> u64 {
    match *trouble {
        Trouble::Delay { ms, jitter_ms } => ROUND_TRIPS * 2 * (ms + jitter_ms),
        Trouble::Loss { .. } => LOST_THRICE_MS,
        Trouble::ShortCut { ms } => RETRANSMITTED * ms + LOST_THRICE_MS,
        Trouble::ShortStopPrimary { ms } | Trouble::ShortStopBackup { ms } => RETRANSMITTED * ms,
        // The guest waits for its own disk; a backup that falls behind holds the primary back.
        Trouble::HangPrimaryDisk { ms } | Trouble::HangBackupDisk { ms } | Trouble::SlowBackupDisk { ms } => {
            ms
        }
        Trouble::StalledLog { .. } => 0,
        // The router before a slow link keeps frames for 100 ms, and loses what it cannot keep.
        Trouble::SlowLink { .. } => LOST_THRICE_MS,
    }
}

/// The longest that a client of this round may wait for an answer, milliseconds; `quiet_ms`: the longest that one waited
/// before any fault, in any round, for which this machine alone is to blame.
pub fn allowed_ms(plan: &Plan, quiet_ms: f64) -> f64 {
    let troubles: u64 = plan.troubles.iter().map(of_trouble).sum();
    // A second fault falls into the takeover.
    let second = plan.second.map_or(0, |(at_ms, for_ms)| at_ms + RETRANSMITTED * (for_ms + FAILURE_MS));
    let back = if plan.second.is_none() && plan.blow != Blow::KillPrimary {
        plan.back_ms.min(FAILURE_MS)
    } else {
        0
    };
    let arbiter = plan.arbiter_loss.map_or(0, |loss| RETRANSMITTED * (loss.ms + ASKED_AGAIN_MS));
    (SLACK_MS + of_blow(plan.blow) + troubles + second + back + arbiter) as f64 + quiet_ms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_has_a_bound_below_what_counts_as_a_service_that_is_gone() {
        let mut longest = 0.0f64;
        for round in 0..2000 {
            let plan = Plan::draw(3, round, true);
            let allowed = allowed_ms(&plan, 0.0);
            assert!(allowed >= SLACK_MS as f64, "{plan:?}");
            longest = longest.max(allowed);
        }
        assert!(longest < 20_000.0, "{longest} ms");
    }

    #[test]
    fn a_fault_that_the_pair_should_not_feel_allows_nothing() {
        let plan = |troubles| Plan { troubles, second: None, arbiter_loss: None, ..Plan::draw(3, 0, true) };
        let bare = allowed_ms(&plan(vec![]), 0.0);
        let felt = [Trouble::StalledLog { side: 0 }, Trouble::StalledLog { side: 1 }];
        assert!((allowed_ms(&plan(felt.to_vec()), 0.0) - bare).abs() < 0.5);
        assert!(allowed_ms(&plan(vec![Trouble::HangPrimaryDisk { ms: 900 }]), 0.0) > bare + 800.0);
    }
}
