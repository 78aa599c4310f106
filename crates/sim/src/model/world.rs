//! A state of the whole deployment: hosts, the links between them, the arbiter, what the world has been told, and the
//! faults that may still happen.
//!
//! Invariant: protocol and arbiter are the shipped types, held as they are; what stands beside them here is what
//! `pollux-node` does around them (doubts, holders' names) and what no code decides (the link, the faults).
//!
//! Not here: what may happen (`actions`), what it does (`step`), what must hold (`judge`).

use super::toy::{Toy, Word};
use pollux_arbiter::{Arbiter, Claim, Decision, Ledger, Secret};
use pollux_protocol::{Backup, HaltReason, HostTime, Message, PeerId, Primary, Role, Settings, Verdict};
use pollux_vocab::{Generation, Lsn};
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The VM that everybody is about.
pub const VM: &str = "castor";
/// A host that has nothing to say says every so many units of time that it lives.
pub const HEARTBEAT_UNITS: u64 = 1;
/// Silence of so many units counts as a death.
pub const FAILURE_UNITS: u64 = 2;

/// A backup that executes nothing for so many units counts as lost; it leaves after three quarters of that.
pub const STALL_UNITS: u64 = 4;
/// Who does not reach the service network waits so many units before it claims.
pub const NET_WAIT_UNITS: u64 = 1;
/// A primary that has not reached it for so many units hands over.
pub const NET_LOSS_UNITS: u64 = 1;

/// Most hosts of a deployment.
pub const HOSTS_MAX: usize = 3;

/// How often what may still happen. Every number counts down; 0: not any more.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Bounds {
    /// Slices that a machine may run; with a word each.
    pub slices: u8,
    /// Inputs that the world sends.
    pub inputs: u8,
    /// Units of time that pass on each host.
    pub ticks: [u8; HOSTS_MAX],
    /// Times that a host's process is stopped for longer than the failure timeout.
    pub sleeps: u8,
    /// Times that a host's process is stopped for less than that.
    pub naps: u8,
    /// Hosts that crash, between any two steps or between an output and the message behind it.
    pub crashes: u8,
    /// Processes that are started: on a host that has crashed, or on a spare one.
    pub starts: u8,
    /// Messages that are lost.
    pub losses: u8,
    /// Messages that arrive twice.
    pub repeats: u8,
    /// Messages that overtake others.
    pub overtakings: u8,
    /// One-way partitions.
    pub cuts: u8,
    /// Times that a host is told that the link has ended, true or not.
    pub link_ends: u8,
    /// Times that the arbiter cannot be reached, or its answer is lost after it has decided.
    pub unreachable: u8,
    /// Times that an operator takes the backup out of the pair.
    pub leaves: u8,
    /// Times that a primary is told to give the VM to its backup.
    pub handovers: u8,
    /// Times that a disk under a backup hangs for ever.
    pub hangs: u8,
    /// Times that a host loses the service network for ever.
    pub net_losses: u8,
    /// Times that bytes of a message arrive that is not whole.
    pub bytes: u8,
    /// What stands where the arbiter is not reached is another pair's store of a VM of that name; else an empty one.
    pub swapped: bool,
    /// Messages in one direction of a link; beyond that the sender waits.
    pub link_room: u8,
    /// The primary's window in records; 0: as shipped.
    pub window_records: u8,
}

/// One direction of the link between two hosts.
#[derive(Clone, Hash, Debug)]
pub struct Wire {
    /// Who sends.
    pub from: usize,
    /// Who receives.
    pub to: usize,
    /// Under way, oldest first.
    pub messages: Vec<Arc<Message>>,
    /// Whatever is sent is lost.
    pub cut: bool,
    /// A message has been lost or has been overtaken: there may be gaps.
    pub damaged: bool,
}

/// Who claims: which start of a process on which host.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Holder {
    /// The host.
    pub host: u8,
    /// Its how-manieth process.
    pub life: u8,
}

/// A claim under way to the arbiter.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Asked {
    /// What is claimed.
    pub generation: Generation,
    /// By whom.
    pub holder: Holder,
    /// Whose claim of the generation before it stands on, if it is not the holder's own.
    pub primary: Option<Holder>,
}

/// An output that the backup's machine has made and that the primary may or may not have released.
#[derive(Clone, Hash, Debug)]
pub struct Doubt {
    /// The mark that covers it, once that has been replayed.
    pub covering: Option<Lsn>,
    /// What.
    pub word: Word,
}

/// Why a host runs nothing.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Down {
    /// Nobody has started anything on it.
    NotStarted,
    /// It has crashed.
    Crashed,
    /// The arbiter's books say that the VM runs elsewhere.
    Refused,
    /// The protocol halted it.
    Halted(HaltReason),
}

/// What a host does.
#[derive(Clone, Hash, Debug)]
pub enum Side {
    /// Runs the VM.
    Live(Arc<Primary>),
    /// Replays it.
    Standby(Arc<Backup>),
    /// A process that has just been started, and wants to run the VM from its beginning.
    Starting {
        /// With the backup that waits on the other host.
        protected: bool,
        /// The generation that it found free, and has asked for.
        found: Option<Generation>,
    },
    /// Nothing.
    Down(Down),
}

/// One host.
#[derive(Clone, Hash, Debug)]
pub struct Host {
    /// What it does.
    pub side: Side,
    /// With whom it is a pair: to that host it sends.
    pub peer: Option<usize>,
    /// Whom its process was started to back up.
    pub backs: Option<Holder>,
    /// How many processes have been started on it.
    pub life: u8,
    /// Its own clock, in units. Nobody else reads it.
    pub clock: u64,
    /// It has slept and not looked at the clock since: it must, before it hears anything.
    pub drowsy: bool,
    /// It has slept, or said a word too late, and not won a generation since.
    pub slept: bool,
    /// A disk under it hangs: it replays nothing.
    pub hangs: bool,
    /// It reaches the service network.
    pub reaches: bool,
    /// It was told to take over.
    pub asked: bool,
    /// When it began to claim, by its own clock.
    pub claims_since: Option<u64>,
    /// It does not reach the service network, and is not to claim yet.
    pub waits: bool,
    /// It has told its backup to take over, and not won a generation since.
    pub handed: bool,
    /// When its last message left, by its own clock.
    pub sent_at: u64,
    /// When a primary last heard a whole message of its own generation, or woke and listened, by its own clock.
    pub heard_at: u64,
    /// Its machine.
    pub toy: Toy,
    /// Outputs in doubt.
    pub doubts: Vec<Doubt>,
    /// A claim under way to the arbiter.
    pub asks: Option<Asked>,
    /// The answer under way back.
    pub answer: Option<(Generation, Verdict)>,
    /// Its end of the link is closed.
    pub unlinked: bool,
}

/// Everything.
#[expect(clippy::derived_hash_with_manual_eq, reason = "equal is what hashes alike, as the checker has it")]
#[derive(Clone, Hash, Debug)]
pub struct World {
    /// A pair, and perhaps a spare host.
    pub hosts: Vec<Host>,
    /// Between the hosts of the pair, both ways.
    pub wires: Vec<Wire>,
    /// The shipped arbiter.
    pub ledger: Arc<Ledger>,
    /// What stands in its place where it cannot be reached.
    pub elsewhere: Arc<Ledger>,
    /// What the clients have been told, once each.
    pub said: Vec<Word>,
    /// Who has spoken in which generation.
    pub owners: Vec<(Generation, Holder)>,
    /// What may still happen.
    pub left: Bounds,
    /// The rule that was broken, if one was.
    pub broken: Option<Broken>,
}

/// A rule that does not hold.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Broken {
    /// Two have released in one generation.
    TwoSpoke(Generation),
    /// Two run alone, or somebody does in a generation that is spent.
    TwoRun,
    /// A client was told two things.
    Contradicted(Word),
    /// Who runs has never said what was released, or stands before it.
    Forgotten(Word),
    /// Who runs has said something that nobody was told, and holds nothing.
    Gap(Word),
    /// A primary that had been away, or silent, or that claims, released before it had won.
    SpokeUnasked,
    /// Who knew that clients cannot reach it has claimed without waiting for a side that they may reach.
    ClaimedUnserved,
    /// Somebody started the VM anew while it was another's.
    StartedTwice,
    /// An assertion of the shipped code failed.
    Panicked(String),
    /// The faults stopped, and this is how it ended instead of well.
    Stuck(&'static str),
}

impl PartialEq for World {
    /// Equal are states that the checker cannot tell apart: it compares hashes, and so does this.
    fn eq(&self, other: &Self) -> bool {
        let hash = |world: &Self| {
            let mut hasher = DefaultHasher::new();
            world.hash(&mut hasher);
            hasher.finish()
        };
        hash(self) == hash(other)
    }
}

/// The shipped settings in units of the model's time. The lag loop works in units of 10 ms and stands still here.
#[must_use]
pub fn settings(bounds: &Bounds) -> Settings {
    let shipped = Settings::default();
    let window = match bounds.window_records {
        0 => shipped.send_window_bytes,
        records => u64::from(records) * 65,
    };
    Settings {
        heartbeat_every_ns: HEARTBEAT_UNITS,
        failure_after_ns: FAILURE_UNITS,
        claim_retry_ns: 1,
        claim_retry_max_ns: 1,
        handover_after_ns: FAILURE_UNITS,
        stall_after_ns: STALL_UNITS,
        net_wait_ns: NET_WAIT_UNITS,
        net_loss_ns: Some(NET_LOSS_UNITS),
        progress_every_ns: u64::MAX,
        send_window_bytes: window,
        ..shipped
    }
}

impl Host {
    /// A host with `side` on it.
    #[must_use]
    pub fn new(side: Side) -> Self {
        Self {
            side,
            peer: None,
            backs: None,
            life: 1,
            clock: 0,
            drowsy: false,
            slept: false,
            hangs: false,
            reaches: true,
            asked: false,
            claims_since: None,
            waits: false,
            handed: false,
            sent_at: 0,
            heard_at: 0,
            toy: Toy::default(),
            doubts: Vec::new(),
            asks: None,
            answer: None,
            unlinked: false,
        }
    }

    /// Its clock, as the protocol reads it.
    #[must_use]
    pub fn now(&self) -> HostTime {
        HostTime(self.clock)
    }

    /// Whether it has said nothing for the failure timeout, by its own clock.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.clock - self.sent_at >= FAILURE_UNITS
    }

    /// Whether it has heard no whole message for the failure timeout, by its own clock.
    #[must_use]
    pub fn is_deaf(&self) -> bool {
        self.clock.saturating_sub(self.heard_at) >= FAILURE_UNITS
    }

    /// Whether it is to hand over because clients do not reach it.
    #[must_use]
    pub fn wants_handover(&self) -> bool {
        matches!(&self.side, Side::Live(primary) if !self.drowsy && primary.wants_handover(self.now()))
    }

    /// Whether it would still let out what it has released, although it may have been replaced.
    #[must_use]
    pub fn is_sure_in_vain(&self) -> bool {
        match &self.side {
            Side::Live(primary) if !self.runs_alone() => {
                let may_be_replaced = self.slept || self.handed || self.is_silent() || self.is_deaf();
                may_be_replaced && self.now() < primary.lease()
            }
            _ => false,
        }
    }

    /// Its part and generation, if it has one.
    #[must_use]
    pub fn role(&self) -> Option<(Role, Generation)> {
        let report = match &self.side {
            Side::Live(primary) => primary.report(),
            Side::Standby(backup) => backup.report(),
            Side::Starting { .. } | Side::Down(_) => return None,
        };
        Some((report.state, report.generation))
    }

    /// Whether it runs the VM and owes nobody anything.
    #[must_use]
    pub fn runs_alone(&self) -> bool {
        matches!(self.side, Side::Live(_)) && matches!(self.role(), Some((Role::Solo, _)))
    }

    /// Whether it runs the VM with a backup, or replays it, as one of a pair.
    #[must_use]
    pub fn is(&self, role: Role) -> bool {
        self.role().is_some_and(|(own, _)| own == role)
    }

    /// Whether there is a process on it.
    #[must_use]
    pub fn is_up(&self) -> bool {
        !matches!(self.side, Side::Down(_))
    }
}

impl World {
    /// A pair that has just been made, and a spare host on which nothing has been started.
    #[must_use]
    pub fn pair(bounds: Bounds) -> Self {
        let (first, now) = (Generation(1), HostTime(0));
        let primary = Primary::new_protected(settings(&bounds), first, now, PeerId(1));
        let mut world = Self::starting(bounds);
        world.hosts[0].side = Side::Live(Arc::new(primary));
        world.grant(&world.asked(0, first));
        world
    }

    /// A primary that has yet to win its first generation, its backup, and a spare host.
    #[must_use]
    pub fn starting(bounds: Bounds) -> Self {
        let backup = Backup::new(settings(&bounds), Generation(1), HostTime(0), PeerId(0));
        let first = Host::new(Side::Starting { protected: true, found: None });
        let second = Host::new(Side::Standby(Arc::new(backup)));
        let spare = Host { life: 0, unlinked: true, ..Host::new(Side::Down(Down::NotStarted)) };
        let mut hosts = vec![Host { peer: Some(1), ..first }, Host { peer: Some(0), ..second }];
        hosts[1].backs = Some(Holder { host: 0, life: hosts[0].life });
        hosts.extend((bounds.starts > 0).then_some(spare));
        let wire = |from, to| Wire { from, to, messages: Vec::new(), cut: false, damaged: false };
        Self {
            hosts,
            wires: vec![wire(1, 0), wire(0, 1)],
            ledger: Arc::default(),
            elsewhere: Arc::new(elsewhere(&bounds)),
            said: Vec::new(),
            owners: Vec::new(),
            left: bounds,
            broken: None,
        }
    }

    /// The process on this host.
    #[must_use]
    pub fn holder(&self, host: usize) -> Holder {
        Holder { host: host as u8, life: self.hosts[host].life }
    }

    /// A claim of the process on this host.
    #[must_use]
    pub fn asked(&self, host: usize, generation: Generation) -> Asked {
        Asked { generation, holder: self.holder(host), primary: self.hosts[host].backs }
    }

    /// The arbiter's test-and-set.
    pub fn grant(&mut self, asked: &Asked) -> Verdict {
        verdict(Arc::make_mut(&mut self.ledger), &claim(asked))
    }

    /// What a claim comes to that does not get to the arbiter but to another store in its place: an empty one (a mount that
    /// is gone, a copy from before the VM), or one that somebody else uses. A first claim does not get that far: such a
    /// store has no marker, or another one, and is not opened.
    pub fn grant_elsewhere(&mut self, asked: &Asked) -> Verdict {
        let claim = claim(asked);
        match claim.after {
            Some(_) => verdict(Arc::make_mut(&mut self.elsewhere), &claim),
            None => Verdict::Unreachable,
        }
    }

    /// The newest generation, and the process that holds it if that is still there.
    #[must_use]
    pub fn newest(&self) -> Option<(Generation, Option<usize>)> {
        let generation = self.ledger.newest(VM)?.generation;
        let holds = |host: &usize| self.hosts[*host].is_up() && self.holds_newest(*host);
        Some((generation, (0..self.hosts.len()).find(holds)))
    }

    /// Whether the newest generation belongs to the process on this host, or to the last that was there.
    #[must_use]
    pub fn holds_newest(&self, host: usize) -> bool {
        let own = name(self.holder(host));
        self.ledger.newest(VM).is_some_and(|claim| claim.holder == own)
    }

    /// The primary and its backup, if two hosts are that.
    #[must_use]
    pub fn protected(&self) -> Option<(&Host, &Host)> {
        self.hosts.iter().find_map(|primary| {
            let backup = &self.hosts[primary.peer?];
            (primary.is(Role::Primary) && backup.is(Role::Backup)).then_some((primary, backup))
        })
    }

    /// What goes from a host to its peer, if it has one.
    fn wire_from(&self, host: usize) -> Option<usize> {
        let to = self.hosts[host].peer?;
        self.wires.iter().position(|wire| wire.from == host && wire.to == to)
    }

    /// Sends to another host, if there is a link.
    pub fn send(&mut self, from: usize, to: usize, message: Message) {
        let Some(wire) = self.wires.iter_mut().find(|wire| wire.from == from && wire.to == to) else {
            return;
        };
        if wire.cut || self.hosts[wire.to].unlinked {
            wire.damaged = true;
        } else if wire.messages.last().is_none_or(|last| **last != message) {
            wire.messages.push(Arc::new(message));
        }
    }

    /// Whether a host's message can be sent.
    #[must_use]
    pub fn has_room(&self, from: usize) -> bool {
        self.wire_from(from)
            .map(|wire| &self.wires[wire])
            .is_none_or(|wire| wire.cut || wire.messages.len() < usize::from(self.left.link_room))
    }

    /// What is under way to this host gets nowhere.
    pub fn lose_all_to(&mut self, host: usize) {
        for wire in self.wires.iter_mut().filter(|wire| wire.to == host) {
            wire.messages.clear();
        }
    }
}

/// What stands where the arbiter is not reached.
fn elsewhere(bounds: &Bounds) -> Ledger {
    let mut store = Ledger::default();
    if bounds.swapped {
        let stranger = Holder { host: 9, life: 1 };
        verdict(&mut store, &claim(&Asked { generation: Generation(1), holder: stranger, primary: None }));
    }
    store
}

/// A claim, and what it stands on.
fn claim(asked: &Asked) -> Claim {
    let Asked { generation, holder, primary } = *asked;
    let after = (generation > Generation(1)).then(|| name(primary.unwrap_or(holder)));
    Claim { vm: VM.into(), generation, holder: name(holder), after, secret: Secret::default() }
}

fn verdict(ledger: &mut Ledger, claim: &Claim) -> Verdict {
    match ledger.claim(claim) {
        Ok(Decision::Won) => Verdict::Won,
        Ok(Decision::Lost { .. }) => Verdict::Lost,
        Ok(Decision::Elsewhere) => Verdict::Unreachable,
        Err(never) => match never {},
    }
}

/// A holder's name, as the arbiter has it.
fn name(holder: Holder) -> String {
    format!("host-{}-{}", holder.host, holder.life)
}
