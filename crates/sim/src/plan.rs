//! What a seed means: a deployment, and a schedule of faults. Everything that is drawn before the run.
//!
//! Invariant: a plan is a function of its seed; a run is a function of its plan. A schedule may be made smaller
//! ([`crate::shrink`]) without changing anything else of the plan.

use crate::fault::{DiskFault, Fault, FaultKind, HostId, Order, Way};
use crate::machines::MachineKind;
use crate::random::Random;
use std::fmt;

pub(crate) const US: u64 = 1_000;
pub(crate) const MS: u64 = 1_000_000;

/// Faults begin before this instant, and none lasts beyond [`HEALED_NS`].
const FAULTS_UNTIL_NS: u64 = 1_200 * MS;
/// From here on the world is as it should be.
pub(crate) const HEALED_NS: u64 = 1_800 * MS;
/// How many seeds in a thousand have a rare fault.
const RARE_PERMILLE: u64 = 150;
/// How many seeds in a thousand have close calls, and how many of them.
const CLOSE_PERMILLE: u64 = 150;
const CLOSE_CALLS: u64 = 6;
/// How many seeds in a thousand have naps, and how many of them.
const NAPS_PERMILLE: u64 = 150;
const NAPS: u64 = 6;
/// How many seeds in a thousand have a handover.
const HANDOVERS_PERMILLE: u64 = 200;
/// How many seeds in a thousand have a thin link and large records, and how many of these.
const THIN_PERMILLE: u64 = 100;
const LONG_FRAMES: u64 = 4;
/// What a thin link carries at least and at most, in bytes a second.
const THIN_BYTES_PER_S: (u64, u64) = (100_000, 1_000_000);
/// How many seeds in a thousand have one fault that never ends.
const LASTING_PERMILLE: u64 = 60;
/// For ever, in a run.
const FOR_EVER_NS: u64 = 100_000 * MS;
/// Hosts of a deployment that is a pair and no more.
const PAIR_HOSTS: usize = 2;
/// When a VM that is to start on a spare host has run for long enough to be ended.
const SPARE_FROM_NS: u64 = 100 * MS;
/// Faults that are drawn for a pair with a spare host; those that would come before it are not for it.
const SPARE_FAULTS: usize = 4;
/// Every how many seeds the machine is the real one.
pub const GUEST_EVERY: u64 = 8;

/// Two hosts that make a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) primary: HostId,
    pub(crate) backup: HostId,
}

impl Pair {
    /// One of them.
    fn either(self, random: &mut Random) -> HostId {
        if random.below(2) == 0 { self.primary } else { self.backup }
    }

    /// What this one of them sends to the other.
    fn way_from(self, host: HostId) -> Way {
        let out = Way { from: self.primary, to: self.backup };
        if host == self.primary { out } else { out.back() }
    }
}

/// A deployment and what will happen to it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where it all comes from.
    pub seed: u64,
    /// The machine.
    pub machine: MachineKind,
    /// Who starts the VM. Every other host is a spare: it has power, and nothing runs on it.
    pub(crate) pair: Pair,
    /// One image that all hosts reach; else each host has its own.
    pub shared_disk: bool,
    /// Protocol settings, as a VM file has them.
    pub(crate) failure_ns: u64,
    pub(crate) heartbeat_ns: u64,
    pub(crate) retry_max_ns: u64,
    pub(crate) window_bytes: u64,
    pub(crate) digest_every_ns: u64,
    /// What a thousand steps take on each host.
    pub(crate) ns_per_kstep: Vec<u64>,
    /// How much faster than the world each host's clock is, in parts per million; less than 0: slower.
    pub(crate) drift_ppm: Vec<i64>,
    /// One-way delay of the link between the hosts: shortest and longest.
    pub(crate) link_ns: (u64, u64),
    /// What a request to a disk takes at least and at most.
    pub(crate) disk_ns: (u64, u64),
    pub(crate) clients: u64,
    pub(crate) keys: u64,
    /// Longest time that a client thinks between two requests.
    pub(crate) think_ns: u64,
    /// The schedule, in order of time.
    pub faults: Vec<Fault>,
}

impl Plan {
    /// What `seed` means. `machine`: always this one, whatever the seed says.
    #[must_use]
    pub fn draw(seed: u64, machine: Option<MachineKind>) -> Self {
        let mut random = Random::new(seed, "plan");
        let own = if seed.is_multiple_of(GUEST_EVERY) { MachineKind::Guest } else { MachineKind::Model };
        let failure_ns = random.pick(&[60, 100, 200, 300]) * MS;
        let pair = Pair { primary: 0, backup: 1 };
        let hosts = 0..PAIR_HOSTS;
        let mut plan = Self {
            seed,
            machine: machine.unwrap_or(own),
            pair,
            shared_disk: random.chance(250),
            failure_ns,
            heartbeat_ns: failure_ns / 6,
            retry_max_ns: random.pick(&[100, 200, 400]) * MS,
            window_bytes: random.pick(&[8 << 10, 256 << 10, 64 << 20]),
            digest_every_ns: random.pick(&[20, 60, 150]) * MS,
            ns_per_kstep: hosts.clone().map(|_| speed(&mut random)).collect(),
            drift_ppm: hosts.map(|_| drift(&mut random)).collect(),
            link_ns: random.pick(&[(20 * US, 60 * US), (100 * US, 2 * MS), (5 * MS, 12 * MS)]),
            disk_ns: random.pick(&[(50 * US, 200 * US), (500 * US, 8 * MS)]),
            clients: random.between(2, 4),
            keys: random.between(1, 4),
            think_ns: random.pick(&[5, 20, 60]) * MS,
            faults: Vec::new(),
        };
        for _ in 0..random.between(1, 6) {
            plan.faults.push(fault(&mut random, pair, failure_ns));
        }
        let mut rare = Random::new(seed, "rare faults");
        if rare.chance(RARE_PERMILLE) {
            plan.draw_rare(&mut rare);
        }
        let mut close = Random::new(seed, "close calls");
        if close.chance(CLOSE_PERMILLE) {
            plan.draw_close(&mut close);
        }
        let mut naps = Random::new(seed, "naps");
        if naps.chance(NAPS_PERMILLE) {
            plan.draw_naps(&mut naps);
        }
        let mut handovers = Random::new(seed, "handovers");
        if handovers.chance(HANDOVERS_PERMILLE) {
            plan.draw_handover(&mut handovers);
        }
        let mut thin = Random::new(seed, "thin links");
        if thin.chance(THIN_PERMILLE) {
            plan.draw_thin(&mut thin);
        }
        let mut lasting = Random::new(seed, "lasting faults");
        if lasting.chance(LASTING_PERMILLE) {
            plan.draw_lasting(&mut lasting);
        }
        plan.faults.sort_by_key(|fault| fault.at_ns);
        plan
    }

    /// The same with one host more, a spare. An operator ends the VM, on whichever side it runs by then, and starts it on
    /// the spare, with one of the first two hosts as its backup; things go wrong there as well.
    #[must_use]
    pub fn draw_with_spare(seed: u64, machine: Option<MachineKind>) -> Self {
        let mut plan = Self::draw(seed, machine);
        let mut random = Random::new(seed, "spare");
        let spare = plan.hosts();
        plan.ns_per_kstep.push(speed(&mut random));
        plan.drift_ppm.push(drift(&mut random));
        let end_ns = random.between(SPARE_FROM_NS, FAULTS_UNTIL_NS / 2);
        let Pair { primary, backup } = plan.pair;
        plan.add(end_ns, FaultKind::Operator { host: primary, order: Order::Stop });
        // Where the primary is gone, its backup has had the time to take over.
        let second_ns = end_ns + 2 * plan.failure_ns;
        plan.add(second_ns, FaultKind::Operator { host: backup, order: Order::Stop });
        let pair = Pair { primary: spare, backup: plan.pair.either(&mut random) };
        plan.add(end_ns, FaultKind::StartElsewhere { host: pair.primary, backup: pair.backup });
        // Where one thing stays broken, the rest of the deployment must be whole to go on without it.
        let faults = if plan.faults.iter().any(lasts) { 0 } else { SPARE_FAULTS };
        for _ in 0..faults {
            let fault = fault(&mut random, pair, plan.failure_ns);
            plan.faults.extend((fault.at_ns > second_ns).then_some(fault));
        }
        plan.faults.sort_by_key(|fault| fault.at_ns);
        plan
    }

    /// Hosts of the deployment.
    pub(crate) fn hosts(&self) -> usize {
        self.ns_per_kstep.len()
    }

    /// What is of interest only at one moment, or together with something else.
    fn draw_rare(&mut self, random: &mut Random) {
        let Pair { primary, backup } = self.pair;
        let at_ns = random.between(2 * MS, FAULTS_UNTIL_NS);
        match random.below(4) {
            // A host has one mishap in the middle of a turn.
            0 => {
                let host = self.pair.either(random);
                let crashes =
                    |fault: &Fault| matches!(fault.kind, FaultKind::Crash { host: who, .. } if who == host);
                self.faults.retain(|fault| !crashes(fault));
                let for_ns = random.between(self.failure_ns * 3 / 4, self.failure_ns * 2);
                self.add(at_ns, FaultKind::Stumble { host, looks: random.below(12), for_ns });
            }
            1 => self.add(at_ns, FaultKind::LoseRecords { way: self.pair.way_from(primary) }),
            // The primary's first word does not arrive: as far as the backup knows, it has never run.
            2 => {
                let for_ns = random.between(self.failure_ns, self.failure_ns * 3);
                self.add(0, FaultKind::Cut { way: self.pair.way_from(primary), for_ns });
            }
            // A backup whose disk lags has much to replay when it has won: an order then finds it on its way.
            _ => {
                let fault = DiskFault::Slow(random.between(10 * MS, 60 * MS));
                let for_ns = (2 * self.failure_ns).min(HEALED_NS - at_ns);
                self.add(at_ns, FaultKind::Disk { host: backup, for_ns, fault });
                let effects = random.below(12);
                let power = random.chance(500);
                let crash = FaultKind::Crash { host: primary, effects, power, restart_ns: None };
                self.add(at_ns + random.between(20 * MS, 100 * MS), crash);
                let after_ns = random.log_between(US, 10 * MS);
                self.add(at_ns, FaultKind::StopWinner { host: backup, after_ns });
            }
        }
    }

    /// A primary stands still for hardly less than the timeout, several times: its backup, which has last heard it a
    /// little before, may or may not have given it up.
    fn draw_close(&mut self, random: &mut Random) {
        for _ in 0..CLOSE_CALLS {
            let at_ns = random.between(2 * MS, FAULTS_UNTIL_NS);
            let for_ns = self.failure_ns - random.log_between(US, self.heartbeat_ns);
            self.add(at_ns, FaultKind::Pause { host: self.pair.primary, for_ns });
        }
    }

    /// A primary stands still, takes a turn, and stands still again in the middle of it: each time for less than the
    /// timeout, and for longer than that since its backup has heard it.
    fn draw_naps(&mut self, random: &mut Random) {
        for _ in 0..NAPS {
            let at_ns = random.between(2 * MS, FAULTS_UNTIL_NS);
            let first_ns = random.between(self.failure_ns / 8, self.failure_ns * 7 / 8);
            let second_ns = self.failure_ns - random.log_between(US, first_ns);
            let host = self.pair.primary;
            self.add(at_ns, FaultKind::Pause { host, for_ns: first_ns });
            let looks = random.below(4);
            self.add(at_ns, FaultKind::Stumble { host, looks, for_ns: second_ns });
        }
    }

    /// The link is thin both ways, and some records take it longer than the failure timeout, which is no death.
    pub(crate) fn draw_thin(&mut self, random: &mut Random) {
        let bytes_per_s = random.between(THIN_BYTES_PER_S.0, THIN_BYTES_PER_S.1);
        self.window_bytes = 64 << 20;
        let out = self.pair.way_from(self.pair.primary);
        for way in [out, out.back()] {
            self.add(0, FaultKind::ThinLink { way, for_ns: HEALED_NS, bytes_per_s });
        }
        for _ in 0..LONG_FRAMES {
            // The bound on a standstill is four timeouts.
            let takes_ns = random.between(self.failure_ns / 2, self.failure_ns * 2);
            let bytes = bytes_per_s * (takes_ns / MS) / 1000;
            self.add(random.between(2 * MS, FAULTS_UNTIL_NS), FaultKind::LongFrame { bytes });
        }
    }

    /// One thing breaks and stays broken, and the rest of the deployment must go on without it.
    fn draw_lasting(&mut self, random: &mut Random) {
        let at_ns = random.between(20 * MS, 400 * MS);
        self.faults.clear();
        let Pair { primary, backup } = self.pair;
        match random.below(3) {
            // A backup that lives, and executes nothing that waits for its disk.
            0 => {
                self.shared_disk = false;
                self.window_bytes = 8 << 10;
                let fault = DiskFault::Hangs;
                self.add(at_ns, FaultKind::Disk { host: backup, for_ns: FOR_EVER_NS, fault });
            }
            // A host that only the arbiter reaches.
            1 => {
                let host = self.pair.either(random);
                self.add(at_ns, FaultKind::NetCut { host, for_ns: FOR_EVER_NS });
                let cut_ns = at_ns + random.between(10 * MS, self.failure_ns);
                self.add(cut_ns, FaultKind::Partition { for_ns: FOR_EVER_NS });
            }
            // A primary that only its clients do not reach.
            _ => self.add(at_ns, FaultKind::NetCut { host: primary, for_ns: FOR_EVER_NS }),
        }
    }

    /// The primary is told to hand over; half of the time something happens to either host, or between them, just then.
    fn draw_handover(&mut self, random: &mut Random) {
        let at_ns = random.between(5 * MS, FAULTS_UNTIL_NS);
        self.faults.retain(|fault| fault.at_ns > at_ns || random.chance(300));
        self.add(at_ns, FaultKind::Operator { host: self.pair.primary, order: Order::HandOver });
        let near_ns = at_ns.saturating_sub(40 * MS) + random.log_between(100 * US, 80 * MS);
        let for_ns = random.between(self.failure_ns / 2, self.failure_ns * 3).min(HEALED_NS - near_ns);
        let host = self.pair.either(random);
        let (effects, power) = (random.below(12), random.chance(700));
        match random.below(10) {
            0..3 => self.add(near_ns, FaultKind::Crash { host, effects, power, restart_ns: None }),
            3 => self.add(near_ns, FaultKind::Cut { way: self.pair.way_from(host), for_ns }),
            4 => self.add(near_ns, FaultKind::ArbiterCut { host, for_ns, silent: random.chance(500) }),
            5 => self.add(near_ns, FaultKind::Pause { host, for_ns }),
            _ => {}
        }
    }

    fn add(&mut self, at_ns: u64, kind: FaultKind) {
        self.faults.push(Fault { at_ns, kind });
    }

    /// The same with these faults of its schedule only, by number from 0 on; numbers that it has not are ignored.
    #[must_use]
    pub fn only(&self, faults: &[usize]) -> Self {
        let kept = self.faults.iter().enumerate().filter(|(number, _)| faults.contains(number));
        Self { faults: kept.map(|(_, fault)| fault.clone()).collect(), ..self.clone() }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machine = match self.machine {
            MachineKind::Model => "model machine",
            MachineKind::Guest => "real machine",
        };
        let disk = if self.shared_disk { "shared disk" } else { "replicated disk" };
        writeln!(
            f,
            "seed {}: {machine}, {disk}, {} clients, {} blocks, failure after {} ms, window {} KiB, digest every {} ms",
            self.seed,
            self.clients,
            self.keys,
            self.failure_ns / MS,
            self.window_bytes >> 10,
            self.digest_every_ns / MS
        )?;
        for (number, fault) in self.faults.iter().enumerate() {
            writeln!(f, "  fault {number} {fault}")?;
        }
        Ok(())
    }
}

/// What a thousand steps take on a host.
fn speed(random: &mut Random) -> u64 {
    random.pick(&[5_000, 10_000, 20_000])
}

/// How much faster than the world a host's clock is, in parts per million.
fn drift(random: &mut Random) -> i64 {
    random.between(0, 400) as i64 - 200
}

/// A fault of either host of this pair, or between them, or of what both use.
fn fault(random: &mut Random, pair: Pair, failure_ns: u64) -> Fault {
    let at_ns = random.between(2 * MS, FAULTS_UNTIL_NS);
    let host = pair.either(random);
    let way = pair.way_from(host);
    // Short against the timeout, about as long, or long: what matters happens on both sides of it.
    let for_ns = if random.chance(400) {
        random.log_between(MS, failure_ns)
    } else {
        random.between(failure_ns * 3 / 4, failure_ns * 3)
    };
    let for_ns = for_ns.min(HEALED_NS - at_ns);
    let kind = match random.below(100) {
        0..20 => FaultKind::Crash {
            host: if random.chance(750) { pair.primary } else { host },
            effects: random.below(12),
            power: random.chance(500),
            restart_ns: random.chance(200).then(|| random.between(MS, 400 * MS)),
        },
        20..32 => FaultKind::Pause { host, for_ns },
        32..38 => FaultKind::SlowHost { host, for_ns, factor: random.pick(&[2, 5, 20]) },
        38..46 => FaultKind::Cut { way, for_ns },
        46..53 => FaultKind::Partition { for_ns },
        53..58 => FaultKind::SlowLink { way, for_ns, extra_ns: random.log_between(MS, failure_ns / 2) },
        58..61 => FaultKind::Corrupt { way },
        61..64 => FaultKind::Reset { host, other_after_ns: random.log_between(US, 400 * MS) },
        64..67 => FaultKind::LoseHeartbeats { way, for_ns },
        67..69 => FaultKind::Doubled { way, for_ns },
        69..73 => FaultKind::NetCut { host, for_ns },
        73..77 => FaultKind::NetChaos { for_ns, permille: random.pick(&[50, 200, 500]) },
        77..82 => FaultKind::ArbiterCut { host, for_ns, silent: random.chance(500) },
        82..86 => FaultKind::ArbiterDown { for_ns },
        86..93 => FaultKind::Disk { host, for_ns, fault: disk_fault(random) },
        93..98 => FaultKind::Clock { host, jump_ns: random.log_between(MS, 2_000 * MS) },
        _ => FaultKind::Operator { host, order: random.pick(&[Order::Stop, Order::PowerButton]) },
    };
    Fault { at_ns, kind }
}

/// Whether it never ends.
fn lasts(fault: &Fault) -> bool {
    match fault.kind {
        FaultKind::NetCut { for_ns, .. }
        | FaultKind::Partition { for_ns }
        | FaultKind::Disk { for_ns, .. } => for_ns == FOR_EVER_NS,
        _ => false,
    }
}

fn disk_fault(random: &mut Random) -> DiskFault {
    match random.below(5) {
        0 | 1 => DiskFault::Slow(random.log_between(MS, 60 * MS)),
        2 => DiskFault::Fails,
        3 => DiskFault::Full,
        _ => DiskFault::Torn,
    }
}
