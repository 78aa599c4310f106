//! What a round does to its pair, drawn from a seed. The choice is the seed's alone; when exactly a fault hits depends on
//! the hosts' clocks, as it must with real processes.

use super::pair::{BACKUP, PRIMARY};
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
    /// The primary's disk answers nothing any more.
    HangPrimaryDisk,
    /// The primary's disk has no room for any write.
    FullPrimaryDisk,
    /// The backup's disk answers nothing any more.
    HangBackupDisk,
    /// The backup's disk has no room for any write.
    FullBackupDisk,
    /// The primary's host loses the network that clients are in, and keeps the link to the backup.
    CutService,
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
    /// From here on nobody reads what a side says on standard error, a pipe that is full.
    StalledLog {
        /// Whose: 0 for the primary.
        side: usize,
    },
    /// The link between the hosts is slow.
    SlowLink {
        /// KiB a second, each way.
        kib_per_s: u64,
    },
}

/// The arbiter's storage cannot be reached for a while.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct ArbiterLoss {
    /// For so long.
    pub ms: u64,
    /// By whom; `None`: by nobody.
    pub side: Option<usize>,
}

impl ArbiterLoss {
    /// The stable name.
    pub fn name(self) -> &'static str {
        match self.side {
            None => "without the arbiter",
            Some(PRIMARY) => "the primary without the arbiter",
            Some(_) => "the backup without the arbiter",
        }
    }
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
    /// The arbiter's storage is lost right before the blow, and back after a while.
    pub arbiter_loss: Option<ArbiterLoss>,
}

/// Failovers are wanted most, so most blows are such that the backup can win.
const BLOWS: [(Blow, u64); 13] = [
    (Blow::KillPrimary, 30),
    (Blow::CrashPrimary, 25),
    (Blow::StopPrimary, 20),
    (Blow::KillBackup, 3),
    (Blow::StopBackup, 4),
    (Blow::CutBoth, 6),
    (Blow::CutToBackup, 8),
    (Blow::CutToPrimary, 4),
    (Blow::HangPrimaryDisk, 8),
    (Blow::FullPrimaryDisk, 8),
    (Blow::HangBackupDisk, 4),
    (Blow::FullBackupDisk, 4),
    (Blow::CutService, 8),
];

/// Harts of the guest, each as likely.
const HARTS: [u32; 4] = [1, 1, 1, 2];
/// Rounds, of a thousand, whose guest boots in the pair.
const BOOTS_PERMILLE: u64 = 60;
/// Rounds, of a thousand, that lose the arbiter for a while when it is needed.
const ARBITER_AWAY_PERMILLE: u64 = 150;

impl Blow {
    /// Whether it needs a link that can be cut.
    pub fn is_of_link(self) -> bool {
        matches!(
            self,
            Self::CrashPrimary | Self::CutBoth | Self::CutToBackup | Self::CutToPrimary | Self::CutService
        )
    }

    /// Whose disk does what from then on (`pollux_host::disk_fault`), if it is a blow at a disk.
    pub fn at_disk(self) -> Option<(usize, &'static str)> {
        match self {
            Self::HangPrimaryDisk => Some((0, "hang")),
            Self::FullPrimaryDisk => Some((0, "full")),
            Self::HangBackupDisk => Some((1, "hang")),
            Self::FullBackupDisk => Some((1, "full")),
            _ => None,
        }
    }

    /// Whether a primary that lives gives the VM away.
    pub fn is_handed_over(self) -> bool {
        matches!(self, Self::HangPrimaryDisk | Self::FullPrimaryDisk | Self::CutService)
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
            Self::HangPrimaryDisk => "primary's disk hangs for good",
            Self::FullPrimaryDisk => "primary's disk full",
            Self::HangBackupDisk => "backup's disk hangs for good",
            Self::FullBackupDisk => "backup's disk full",
            Self::CutService => "service network of the primary lost",
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
            Self::StalledLog { side: 0 } => "stalled log of the primary",
            Self::StalledLog { .. } => "stalled log of the backup",
            Self::SlowLink { .. } => "slow link",
        }
    }

    fn draw(random: &mut Random, has_link: bool) -> Self {
        // Below the failure timeout of 300 ms, with room for a host that is slow itself.
        let ms = random.between(10, 180);
        // A disk may take 5 s.
        let disk_ms = random.between(10, 1500);
        match random.below(if has_link { 10 } else { 6 }) {
            0 => Self::ShortStopPrimary { ms },
            1 => Self::ShortStopBackup { ms },
            2 => Self::HangPrimaryDisk { ms: disk_ms },
            3 => Self::HangBackupDisk { ms: disk_ms },
            4 => Self::SlowBackupDisk { ms: disk_ms },
            5 => Self::StalledLog { side: random.below(2) as usize },
            6 => Self::ShortCut { ms },
            7 => Self::SlowLink { kib_per_s: random.between(256, 4096) },
            8 => Self::Delay { ms: random.between(1, 20), jitter_ms: random.below(15) },
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
        // A primary whose backup does not take what it is handed within two seconds goes on as it is.
        let longest_ms = if chosen.is_handed_over() { 700 } else { 2000 };
        let arbiter_loss = random.chance(ARBITER_AWAY_PERMILLE).then(|| ArbiterLoss {
            ms: random.between(200, longest_ms),
            side: random.pick(&[None, Some(PRIMARY), Some(BACKUP)]),
        });
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
            arbiter_loss,
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
        if let Some(loss) = self.arbiter_loss {
            write!(f, ", {}", loss.name())?;
        }
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
            "stalled log of the p",
            "stalled log of the b",
            "slow link",
        ];
        for name in troubles {
            assert!(
                plans.iter().flat_map(|plan| &plan.troubles).any(|t| t.name().starts_with(name)),
                "{name}"
            );
        }
    }

    #[test]
    fn the_arbiter_is_lost_to_all_and_to_each_side_alone_and_not_for_long_in_a_handover() {
        let plans: Vec<_> = (0..600).map(|round| Plan::draw(7, round, true)).collect();
        let losses = || plans.iter().filter_map(|plan| Some((plan, plan.arbiter_loss?)));
        for side in [None, Some(PRIMARY), Some(BACKUP)] {
            assert!(losses().any(|(_, loss)| loss.side == side), "{side:?}");
        }
        assert!(losses().any(|(plan, _)| plan.blow.is_handed_over()));
        assert!(losses().all(|(plan, loss)| loss.ms <= 700 || !plan.blow.is_handed_over()));
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
