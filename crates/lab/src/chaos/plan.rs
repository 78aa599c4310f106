//! What a round does to its pair, drawn from a seed. The choice is the seed's alone; when exactly a fault hits depends on
//! the hosts' clocks, as it must with real processes.

use pollux_sim::Random;
use serde::Serialize;
use std::fmt;

/// Where the protocol is when the fault hits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The clients say nothing.
    Idle,
    /// In the middle of writes.
    Writes,
    /// When the next state digest is due.
    Digest,
    /// A second fault while the first is dealt with: detection, claim, replay, going live.
    GoLive,
}

/// What may decide who runs on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Blow {
    /// SIGKILL of the primary: its sockets are closed, the backup hears of it.
    KillPrimary,
    /// The primary's host dies: link cut, then SIGKILL; the backup hears nothing.
    CrashPrimary,
    /// SIGSTOP of the primary, and SIGCONT.
    StopPrimary,
    /// SIGKILL of the backup.
    KillBackup,
    /// SIGSTOP of the backup, and SIGCONT.
    StopBackup,
    /// No frame gets through.
    CutBoth,
    /// None from primary to backup.
    CutToBackup,
    /// None from backup to primary.
    CutToPrimary,
}

/// What a pair should bear.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trouble {
    /// Every frame on the replication link takes longer.
    Delay {
        /// At least.
        ms: u64,
        /// And up to so much more.
        jitter_ms: u64,
    },
    /// Frames on the replication link are lost.
    Loss {
        /// In a thousand.
        permille: u64,
    },
    /// The link is cut for less than the failure timeout.
    ShortCut {
        /// For so long.
        ms: u64,
    },
    /// SIGSTOP of the primary for less than the failure timeout.
    ShortStopPrimary {
        /// For so long.
        ms: u64,
    },
    /// SIGSTOP of the backup for less than the failure timeout.
    ShortStopBackup {
        /// For so long.
        ms: u64,
    },
    /// The primary's disk answers nothing for less than a disk may.
    HangPrimaryDisk {
        /// For so long.
        ms: u64,
    },
    /// The backup's disk answers nothing for less than a disk may.
    HangBackupDisk {
        /// For so long.
        ms: u64,
    },
    /// The backup's disk takes 20 ms longer over every request.
    SlowBackupDisk {
        /// For so long.
        ms: u64,
    },
}

/// All of a round.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Plan {
    /// Its number; with the seed it names the plan.
    pub round: u64,
    /// Harts of the guest.
    pub harts: u32,
    /// Whether it boots in the pair, or starts from a snapshot of one that has.
    pub boots: bool,
    /// Between two digests.
    pub digest_ms: u64,
    /// Traffic before the blow.
    pub before_ms: u64,
    /// What comes before.
    pub troubles: Vec<Trouble>,
    /// When the blow falls.
    pub phase: Phase,
    /// The blow.
    pub blow: Blow,
    /// From the blow until what can return returns: the stopped process, the link.
    pub back_ms: u64,
    /// With [`Phase::GoLive`], of a primary that is gone: from the blow to a stop of the backup, and for how long.
    pub second: Option<(u64, u64)>,
}

/// Failovers are wanted most, so most blows are such that the backup can win.
const BLOWS: [(Blow, u64); 8] = [
    (Blow::KillPrimary, 30),
    (Blow::CrashPrimary, 25),
    (Blow::StopPrimary, 20),
    (Blow::KillBackup, 3),
    (Blow::StopBackup, 4),
    (Blow::CutBoth, 6),
    (Blow::CutToBackup, 8),
    (Blow::CutToPrimary, 4),
];

/// Harts of the guest, each as likely.
const HARTS: [u32; 4] = [1, 1, 1, 2];
/// Rounds, of a thousand, whose guest boots in the pair.
const BOOTS_PERMILLE: u64 = 60;

impl Blow {
    /// Whether it needs a link that can be cut.
    pub fn is_of_link(self) -> bool {
        matches!(self, Self::CrashPrimary | Self::CutBoth | Self::CutToBackup | Self::CutToPrimary)
    }

    /// The stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::KillPrimary => "SIGKILL of the primary",
            Self::CrashPrimary => "host crash of the primary",
            Self::StopPrimary => "SIGSTOP of the primary",
            Self::KillBackup => "SIGKILL of the backup",
            Self::StopBackup => "SIGSTOP of the backup",
            Self::CutBoth => "link cut in both directions",
            Self::CutToBackup => "link cut towards the backup",
            Self::CutToPrimary => "link cut towards the primary",
        }
    }
}

impl Trouble {
    /// The stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Delay { .. } => "delay on the link",
            Self::Loss { .. } => "loss on the link",
            Self::ShortCut { .. } => "short cut of the link",
            Self::ShortStopPrimary { .. } => "short SIGSTOP of the primary",
            Self::ShortStopBackup { .. } => "short SIGSTOP of the backup",
            Self::HangPrimaryDisk { .. } => "hang of the primary's disk",
            Self::HangBackupDisk { .. } => "hang of the backup's disk",
            Self::SlowBackupDisk { .. } => "slow disk of the backup",
        }
    }

    fn draw(random: &mut Random, has_link: bool) -> Self {
        // Below the failure timeout of 300 ms, with room for a host that is slow itself.
        let ms = random.between(10, 180);
        // A disk may take 5 s.
        let disk_ms = random.between(10, 1500);
        match random.below(if has_link { 8 } else { 5 }) {
            0 => Self::ShortStopPrimary { ms },
            1 => Self::ShortStopBackup { ms },
            2 => Self::HangPrimaryDisk { ms: disk_ms },
            3 => Self::HangBackupDisk { ms: disk_ms },
            4 => Self::SlowBackupDisk { ms: disk_ms },
            5 => Self::ShortCut { ms },
            6 => Self::Delay { ms: random.between(1, 20), jitter_ms: random.below(15) },
            _ => Self::Loss { permille: random.between(2, 50) },
        }
    }
}

impl Plan {
    /// What round number `round` of `seed` does.
    pub fn draw(seed: u64, round: u64, has_link: bool) -> Self {
        let mut random = Random::new(seed, &format!("chaos round {round}"));
        let troubles = (0..random.below(3)).map(|_| Trouble::draw(&mut random, has_link)).collect();
        let blows = BLOWS.iter().filter(|(blow, _)| has_link || !blow.is_of_link());
        let mut dice = random.below(blows.clone().map(|(_, weight)| weight).sum());
        let mut chosen = Blow::KillPrimary;
        for (blow, weight) in blows {
            if dice < *weight {
                chosen = *blow;
                break;
            }
            dice -= weight;
        }
        let phase = random.pick(&[Phase::Idle, Phase::Writes, Phase::Writes, Phase::Digest, Phase::GoLive]);
        // What returns during a takeover returns about when the failure timeout of 300 ms is over.
        let at_live = random.between(240, 420);
        let later = random.between(500, 1300);
        let back_ms = if phase == Phase::GoLive { at_live } else { later };
        let second = match (phase, chosen) {
            (Phase::GoLive, Blow::KillPrimary) => Some((random.below(40), random.between(10, 150))),
            (Phase::GoLive, Blow::CrashPrimary) => Some((random.between(250, 340), random.between(10, 150))),
            _ => None,
        };
        Self {
            round,
            harts: random.pick(&HARTS),
            boots: random.chance(BOOTS_PERMILLE),
            digest_ms: random.pick(&[1000, 200, 50]),
            before_ms: random.between(200, 1500),
            troubles,
            phase,
            blow: chosen,
            back_ms,
            second,
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = match self.phase {
            Phase::Idle => "while idle",
            Phase::Writes => "during writes",
            Phase::Digest => "at a digest",
            Phase::GoLive => "and again at the takeover",
        };
        write!(f, "{} {phase}", self.blow.name())?;
        for trouble in &self.troubles {
            write!(f, ", {}", trouble.name())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_and_a_number_name_a_plan_and_all_kinds_occur() {
        let plans: Vec<_> = (0..300).map(|round| Plan::draw(7, round, true)).collect();
        assert_eq!(plans[17], Plan::draw(7, 17, true));
        assert_ne!(plans[17].blow.name(), "");
        for (blow, _) in BLOWS {
            assert!(plans.iter().any(|plan| plan.blow == blow), "{blow:?}");
        }
        let troubles = [
            "delay",
            "loss",
            "short cut",
            "short SIGSTOP of the p",
            "short SIGSTOP of the b",
            "hang of the p",
            "hang of the b",
            "slow disk",
        ];
        for name in troubles {
            assert!(
                plans.iter().flat_map(|plan| &plan.troubles).any(|t| t.name().starts_with(name)),
                "{name}"
            );
        }
    }

    #[test]
    fn without_a_link_nothing_happens_to_it() {
        for round in 0..300 {
            let plan = Plan::draw(3, round, false);
            assert!(!plan.blow.is_of_link(), "{plan:?}");
            assert!(plan.troubles.iter().all(|t| !t.name().contains("link")), "{plan:?}");
        }
    }
}
