//! A state of all processes that start, back up or end a VM: what each is doing, what is under way, the arbiter.

use pollux_arbiter::{Claim, Ledger, Secret, first_generation};
use pollux_protocol::pairing::{BackupStart, Greeting, Own, PrimaryStart, Refusal, Terms, Word};
use pollux_protocol::{Backup, HaltReason, HostTime, Message, Primary, Settings};
use pollux_vocab::{Digest, Generation};
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};

/// The VM that everybody is about.
pub(super) const VM: &str = "castor";
/// The arbiter that it is under.
pub(super) const ARBITER: [u8; 16] = [1; 16];
/// Who talks to the first backup and reads no arbiter.
pub(super) const STRANGER: usize = 9;
/// Pieces of a snapshot, a byte each.
pub(super) const SNAPSHOT_BYTES: u64 = 2;

/// How often what may still happen. Every number counts down.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Bounds {
    /// Processes that crash.
    pub crashes: u8,
    /// Links that end and take with them what was under way.
    pub cuts: u8,
    /// Times that somebody tells a process to stop while it starts.
    pub stops: u8,
    /// Works on a host that fail.
    pub faults: u8,
    /// Times that the arbiter is not reached, or its answer is lost after it has decided.
    pub unreachable: u8,
    /// Deadlines that come, and heartbeats.
    pub ticks: u8,
    /// Machines that are built with a wrong bit.
    pub unequal: u8,
    /// Words of a stranger.
    pub words: u8,
    /// VMs that power off.
    pub ends: u8,
    /// Primaries that are started again.
    pub starts: u8,
}

/// What a process says to another.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Said {
    /// Before they are a pair.
    Word(Word),
    /// Afterwards.
    Message(Message),
    /// It says no more.
    End,
}

/// A visitor of a backup.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Visit {
    /// The shipped machine.
    pub start: BackupStart,
    /// What it said of itself.
    pub greeting: Option<Greeting>,
    /// The secret of the claim that was looked up, or another one.
    pub secret: u8,
    /// It waits for a place.
    pub knocks: bool,
    /// It has the place.
    pub taken: bool,
    /// Everything is plugged in.
    pub plugged_in: bool,
    /// Whether its machine is the primary's.
    pub equal: bool,
}

/// Why a process does nothing more.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Down {
    /// It has crashed.
    Crashed,
    /// It has not started the VM.
    GaveUp(Refusal),
    /// The protocol halted it.
    Halted(HaltReason),
    /// The VM has ended here.
    Ended,
    /// The VM is somebody's: it was not started.
    Held,
}

/// What a process does.
#[expect(
    clippy::large_enum_variant,
    reason = "states are hashed and forgotten; there are few processes in each"
)]
#[derive(Clone, Hash, Debug)]
pub enum Side {
    /// Starts the VM.
    Starting(PrimaryStart),
    /// Waits for a primary; by visitor.
    Door(BTreeMap<usize, Visit>),
    /// Runs the VM.
    Runs(Primary),
    /// Backs up what that process runs.
    Backs(Backup, usize),
    /// The VM has ended here in that generation: says so to the arbiter.
    Spending(Generation),
    /// Nothing.
    Down(Down),
}

/// A process.
#[derive(Clone, Hash, Debug)]
pub struct Proc {
    /// Whether it was started to back up.
    pub is_backup: bool,
    /// Its how-manieth start.
    pub life: u8,
    /// Its clock.
    pub now: HostTime,
    /// The backup that it is to have.
    pub backup: Option<usize>,
    /// What its first claim stands on.
    pub after: Option<String>,
    /// Who held the generation that it starts in or backs up.
    pub runs: String,
    /// A generation that it asks the arbiter for while it runs or backs up.
    pub asks: Option<Generation>,
    /// It could not tell the arbiter of its end.
    pub excused: bool,
    /// What it does.
    pub side: Side,
}

/// A rule that does not hold.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Broken {
    /// A process runs in a generation that it has not won.
    RunsUnwon(usize),
    /// A process runs alone although another one has a newer generation.
    TwoRun(usize),
    /// An end took the VM from who has it.
    EndedAnothers(Generation),
    /// A backup heard of a generation that its primary has not won.
    SaidUnwon(usize),
    /// Who has not proven itself heard this.
    ToldStranger(String),
    /// A VM runs beside a backup that does not hold it.
    RunsUnequal,
    /// A backup was ready before everything was plugged in.
    ReadyTooEarly,
    /// A backup claims a VM that never ran.
    TookNothing(usize),
    /// A process waits for its peer without a deadline.
    WaitsForEver(usize),
    /// A start does not end.
    Stuck(usize),
    /// Nobody runs the VM, and a process that is gone holds it.
    NotFree(String),
    /// An assertion failed.
    Panicked(String),
}

/// A state of everything.
#[expect(clippy::derived_hash_with_manual_eq, reason = "equal is what hashes alike, as the checker has it")]
#[derive(Clone, Hash, Debug)]
pub struct World {
    /// Primaries first.
    pub procs: Vec<Proc>,
    /// What is under way, by sender and receiver. A pair that is not there has no link.
    pub pipes: BTreeMap<(usize, usize), VecDeque<Said>>,
    /// The arbiter.
    pub ledger: Ledger,
    /// The first backup reads another arbiter that holds the same claims.
    pub elsewhere: bool,
    /// Generations in which the VM ran.
    pub ran: BTreeSet<Generation>,
    /// Generations in which it ended.
    pub ended: BTreeSet<Generation>,
    /// Primaries whose backups have said Ready with another machine.
    pub unequal: BTreeSet<usize>,
    /// A stranger talked to a backup and was left.
    pub stranger_left: bool,
    /// What may still happen.
    pub left: Bounds,
    /// What has.
    pub broken: Option<Broken>,
}

impl PartialEq for World {
    fn eq(&self, other: &Self) -> bool {
        let [one, another] = [self, other].map(|world| {
            let mut hasher = DefaultHasher::new();
            world.hash(&mut hasher);
            hasher.finish()
        });
        one == another
    }
}

impl World {
    /// Primaries that start at once, each with the backup (counted from 0) that it is to have, and so many backups.
    #[must_use]
    pub fn new(primaries: &[Option<usize>], backups: usize, left: Bounds, elsewhere: bool) -> Self {
        let proc = |is_backup, backup, side| Proc {
            is_backup,
            life: 1,
            now: HostTime(0),
            backup,
            after: None,
            runs: String::new(),
            asks: None,
            excused: false,
            side,
        };
        let mut procs: Vec<_> = primaries
            .iter()
            .map(|backup| {
                let backup = backup.map(|backup| primaries.len() + backup);
                proc(false, backup, Side::Down(Down::Held))
            })
            .collect();
        procs.extend((0..backups).map(|_| proc(true, None, Side::Door(BTreeMap::new()))));
        let mut world = Self {
            procs,
            pipes: BTreeMap::new(),
            ledger: Ledger::default(),
            elsewhere,
            ran: BTreeSet::new(),
            ended: BTreeSet::new(),
            unequal: BTreeSet::new(),
            stranger_left: false,
            left,
            broken: None,
        };
        for who in 0..primaries.len() {
            world.start(who);
        }
        world
    }

    /// A process starts the VM, if the books say that it is nobody's.
    pub fn start(&mut self, who: usize) {
        self.unequal.remove(&who);
        let newest = self.ledger.newest(VM);
        let after = newest.map(|claim| claim.holder.clone());
        let Ok(generation) = first_generation(newest) else {
            self.procs[who].side = Side::Down(Down::Held);
            return;
        };
        let holder = self.name(who);
        let vm: String = VM.into();
        let nonce = [0; 32];
        let greeting =
            Greeting { vm: vm.clone(), generation, arbiter: ARBITER, holder: holder.clone(), nonce };
        let (disks, snapshot_bytes) = (Vec::new(), SNAPSHOT_BYTES);
        let terms =
            Terms { vm, generation, ram_bytes: 1, disks, heartbeat_ns: 1, failure_ns: 2, snapshot_bytes };
        let at = &mut self.procs[who];
        let terms = at.backup.map(|_| terms);
        (at.after, at.runs) = (after, holder);
        at.side = Side::Starting(PrimaryStart::new(greeting, terms, at.now));
    }

    /// The identity of a process.
    #[must_use]
    pub fn name(&self, who: usize) -> String {
        format!("p{who}-{}", self.procs[who].life)
    }

    /// What is in its claims.
    #[must_use]
    pub fn secret(&self, who: usize) -> u8 {
        who as u8 * 16 + self.procs[who].life
    }

    /// A claim of a process, on what it knows of who held the VM before.
    #[must_use]
    pub fn claim(&self, who: usize, generation: Generation, after: Option<String>) -> Claim {
        let secret = Secret([self.secret(who); 32]);
        Claim { vm: VM.into(), generation, holder: self.name(who), after, secret }
    }

    /// What everybody does.
    pub fn sides(&self) -> impl Iterator<Item = &Side> {
        self.procs.iter().map(|at| &at.side)
    }

    /// Whether the VM may be started.
    #[must_use]
    pub fn is_free(&self) -> bool {
        first_generation(self.ledger.newest(VM)).is_ok()
    }

    /// Whether some start has failed.
    #[must_use]
    pub fn has_given_up(&self) -> bool {
        self.sides().any(|side| matches!(side, Side::Down(Down::GaveUp(_))))
    }

    /// A new visitor of a backup.
    #[must_use]
    pub fn visit(now: HostTime) -> Visit {
        let start = BackupStart::new(Own::default(), now);
        Visit {
            start,
            greeting: None,
            secret: 0,
            knocks: false,
            taken: false,
            plugged_in: false,
            equal: true,
        }
    }

    /// Timeouts of a running pair: a unit is a heartbeat; nobody is taken for dead but by the end of a link.
    #[must_use]
    pub fn settings() -> Settings {
        Settings {
            heartbeat_every_ns: 1,
            failure_after_ns: u64::MAX / 8,
            claim_retry_ns: 1,
            claim_retry_max_ns: 1,
            stall_after_ns: u64::MAX / 4,
            progress_every_ns: u64::MAX,
            ..Settings::default()
        }
    }

    /// The digest of the VM's machine; of another one if it is not equal.
    #[must_use]
    pub fn digest(equal: bool) -> Digest {
        Digest { ram: 7 + u64::from(!equal), ..Digest::default() }
    }
}
