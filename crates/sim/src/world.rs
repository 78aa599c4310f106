//! The world: hosts, what lies between them, and the queue of what will happen. Virtual time jumps from one
//! happening to the next; what happens at one instant happens in the order in which it was scheduled.
//!
//! A host is known by its number, its peer by [`Host::peer`]: which hosts make a pair may change.
//!
//! Invariant: everything that is drawn is drawn from the plan's seed, and every collection is ordered, so a plan has
//! one course of events. There is no clock and no thread in here.

use crate::check::Broken;
use crate::check::asks::Asks;
use crate::check::digests::Digests;
use crate::check::endings::{End, Ending, HostEnd, is_end_of_vm};
use crate::check::exclusive::Exclusive;
use crate::check::linear::History;
use crate::check::outputs::Outputs;
use crate::client::Client;
use crate::clock::HostClock;
use crate::deploy::{Recipe, idle_host};
use crate::desk::Desk;
use crate::disk::Disk;
use crate::fault::{HostId, NAMES};
use crate::links::{Connection, Links};
use crate::machines::{Observed, Tally};
use crate::net::Net;
use crate::plan::{HEALED_NS, MS, Pair, Plan};
use crate::random::Random;
use crate::storage::Storage;
use crate::timeline::Timeline;
use pollux_node::{DiskCompletion, Event, Next, Node, Outcome};
use pollux_protocol::{Role, Verdict};
use pollux_vocab::Generation;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

/// A run of so many happenings never ends.
const HAPPENINGS_MAX: u64 = 3_000_000;
/// How often a shared disk looks whether its node is back.
const LOOK_NS: u64 = 5 * MS;

/// Something that will happen.
#[derive(Debug)]
pub(crate) enum Happening {
    /// The host's node takes a turn, if that is still the turn it waits for.
    Turn(HostId, u64),
    /// Bytes arrive at the receiver's end of a link.
    LinkBytes(Connection, Vec<u8>),
    /// The receiver's end of a link hears that it is over.
    LinkEnd(Connection),
    /// A frame arrives at a host.
    ToGuest(HostId, Vec<u8>),
    /// A frame arrives at the clients.
    ToClient(Vec<u8>),
    /// A client asks, or asks the question of that number again.
    Client(usize, u64),
    /// Something for a host's node.
    Tell(HostId, Event),
    /// A host's disk looks for work.
    Disk(HostId),
    /// A host's disk has finished a request.
    DiskDone(HostId, DiskCompletion),
    /// A claim arrives at the arbiter.
    Claim(Claimant, Generation),
    /// A fault of the schedule begins.
    Fault(usize),
    Death(HostId),
    Restart(HostId),
    /// Somebody wants to start the VM there, if it has ended.
    StartPair(Pair),
}

impl Happening {
    /// Whether it is for the process that is on that host, and for none that comes after it.
    fn is_for_process_on(&self, host: HostId) -> bool {
        match self {
            Self::Tell(_, Event::Network { .. }) => false,
            Self::Turn(to, _)
            | Self::ToGuest(to, _)
            | Self::Tell(to, _)
            | Self::Disk(to)
            | Self::DiskDone(to, _)
            | Self::Death(to) => *to == host,
            _ => false,
        }
    }
}

/// Which process claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claimant {
    pub(crate) host: HostId,
    /// Its how-manieth process.
    life: u64,
    /// Whom it backs up, or itself.
    pub(crate) primary: HostId,
}

/// One host.
pub(crate) struct Host {
    /// `None`: no process.
    pub(crate) node: Option<Node<Observed>>,
    /// With whom its process is, or was, a pair.
    pub(crate) peer: Option<HostId>,
    /// Whom its process has been started to back up.
    pub(crate) backs: Option<HostId>,
    /// How many processes have been started on it.
    life: u64,
    pub(crate) end: End,
    pub(crate) tally: Rc<RefCell<Tally>>,
    pub(crate) inbox: VecDeque<Event>,
    pub(crate) clock: HostClock,
    pub(crate) disk: Disk,
    pub(crate) random: Random,
    pub(crate) is_backup: bool,
    pub(crate) heard: bool,
    pub(crate) ordered: bool,
    pub(crate) told: bool,
    /// It had heard that it had won before it heard of the order.
    pub(crate) won_first: bool,
    pub(crate) stop_after_win_ns: Option<u64>,
    pub(crate) asks: Asks,
    /// Looks at the clock before it stands still in one, and how long it then does, in nanoseconds.
    pub(crate) stumble: Option<(u64, u64)>,
    pub(crate) paused_until_ns: u64,
    pub(crate) slow_until_ns: u64,
    pub(crate) slow_factor: u64,
    /// Effects until the process is killed.
    pub(crate) effects_left: Option<u64>,
    pub(crate) power: bool,
    /// The last turn ended then.
    busy_until_ns: u64,
    /// The next turn, and its number: an older one is void.
    next_turn: (u64, u64),
    /// Machine steps of the processes before this one.
    earlier_steps: u64,
}

/// What the checkers have seen.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    pub(crate) exclusive: Exclusive,
    pub(crate) outputs: Outputs,
    pub(crate) digests: Digests,
    pub(crate) history: History,
}

/// What a run came to, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// How often each host went on alone or went live.
    pub takeovers: Vec<u64>,
    /// Turns that nodes took.
    pub turns: u64,
    /// Machine steps, all hosts together.
    pub steps: u64,
    /// Outputs released.
    pub outputs: u64,
    /// Outputs of an older generation that left after the first of a newer one, all of them repeated by the survivor.
    pub late: u64,
    /// Operations judged for linearizability.
    pub operations: u64,
    /// Registers whose history was too long a search.
    pub undecided: u64,
    /// Digests compared.
    pub digests: u64,
    /// Faults that began.
    pub faults: u64,
    /// The longest that a client waited for an answer, in nanoseconds.
    pub longest_ns: u64,
}

/// Everything.
pub(crate) struct World {
    pub(crate) now: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    scheduled: u64,
    pub(crate) plan: Plan,
    pub(crate) recipe: Recipe,
    pub(crate) hosts: Vec<Host>,
    pub(crate) links: Links,
    pub(crate) net: Net,
    pub(crate) storage: Storage,
    /// One each host, or one for all.
    pub(crate) images: Vec<Vec<u8>>,
    pub(crate) clients: Vec<Client>,
    pub(crate) checks: Checks,
    pub(crate) timeline: Timeline,
    pub(crate) stats: Stats,
    /// Pairs that were started.
    pub(crate) pairs: u64,
}

impl Host {
    /// A host on which nothing runs.
    pub(crate) fn new(clock: HostClock, random: Random, asks: Asks) -> Self {
        Self {
            node: None,
            peer: None,
            backs: None,
            life: 0,
            end: End::Idle,
            tally: Rc::default(),
            inbox: VecDeque::new(),
            clock,
            disk: Disk::new(),
            random,
            is_backup: false,
            heard: false,
            ordered: false,
            told: false,
            won_first: false,
            stop_after_win_ns: None,
            asks,
            stumble: None,
            paused_until_ns: 0,
            slow_until_ns: 0,
            slow_factor: 1,
            effects_left: None,
            power: false,
            busy_until_ns: 0,
            next_turn: (u64::MAX, 0),
            earlier_steps: 0,
        }
    }

    /// A process starts on it, and begins with what belongs to one; the rest is the host's.
    pub(crate) fn start(&mut self, node: Node<Observed>, tally: Rc<RefCell<Tally>>, asks: Asks) {
        self.life += 1;
        self.is_backup = matches!(node, Node::Standby(_));
        self.node = Some(node);
        self.end = End::Runs(Role::Backup);
        self.earlier_steps = self.steps();
        self.tally = tally;
        self.asks = asks;
        self.inbox.clear();
        self.disk.restart();
        (self.heard, self.ordered, self.told, self.won_first) = (false, false, false, false);
        (self.stop_after_win_ns, self.stumble, self.effects_left) = (None, None, None);
        (self.paused_until_ns, self.busy_until_ns, self.power) = (0, 0, false);
        self.next_turn.0 = u64::MAX;
    }

    /// Its process, when it claims.
    pub(crate) fn claimant(&self, host: HostId) -> Claimant {
        Claimant { host, life: self.life, primary: self.backs.unwrap_or(host) }
    }

    /// Machine steps on it.
    fn steps(&self) -> u64 {
        self.earlier_steps + self.tally.borrow().steps
    }
}

impl World {
    pub(crate) fn new(plan: Plan, recipe: Recipe, timeline: Timeline) -> Self {
        let (seed, hosts) = (plan.seed, plan.hosts());
        let stream = |name: &str| Random::new(seed, name);
        let copies = if plan.shared_disk { 1 } else { hosts };
        let clients =
            (0..plan.clients).map(|id| Client::new(id + 1, stream(&format!("client {id}")))).collect();
        let mut world = Self {
            now: 0,
            queue: BTreeMap::new(),
            scheduled: 0,
            hosts: (0..hosts).map(|host| idle_host(&plan, host)).collect(),
            links: Links::new(seed, hosts, plan.link_ns),
            net: Net::new(hosts, stream("net")),
            storage: Storage::new(hosts, stream("storage")),
            images: vec![recipe.image.clone(); copies],
            clients,
            checks: Checks::default(),
            timeline,
            pairs: 0,
            stats: Stats { takeovers: vec![0; hosts], ..Stats::default() },
            recipe,
            plan,
        };
        // First: a fault at the beginning is there before anybody does anything.
        for index in 0..world.plan.faults.len() {
            world.schedule(world.plan.faults[index].at_ns, Happening::Fault(index));
        }
        let pair = world.plan.pair;
        if let Some(generation) = world.storage.begin(pair.primary) {
            world.start_pair(pair, generation);
        }
        for index in 0..world.clients.len() {
            world.schedule(MS * (1 + index as u64), Happening::Client(index, 0));
        }
        world
    }

    /// Puts something into the queue.
    pub(crate) fn schedule(&mut self, at_ns: u64, happening: Happening) {
        self.scheduled += 1;
        self.queue.insert((at_ns.max(self.now), self.scheduled), happening);
    }

    /// What is on its way to a process on that host is for nobody.
    pub(crate) fn unschedule_for(&mut self, host: HostId) {
        self.queue.retain(|_, happening| !happening.is_for_process_on(host));
    }

    /// When clients begin their last round: the faults are over, and the protocol has had its timeouts.
    pub(crate) fn last_round_ns(&self) -> u64 {
        HEALED_NS + 2 * self.plan.failure_ns + 2 * self.plan.retry_max_ns + 300 * MS
    }

    /// Runs to the end, and judges.
    pub(crate) fn run(&mut self) -> Result<(), Broken> {
        let deadline = self.last_round_ns() + 1_500 * MS;
        while let Some(((at, _), happening)) = self.queue.pop_first() {
            self.now = at;
            self.happen(happening)?;
            if self.scheduled > HAPPENINGS_MAX {
                return Err(Broken("time goes on", format!("more than {HAPPENINGS_MAX} happenings")));
            }
            let over = at > self.last_round_ns();
            if over && (at > deadline || !self.serves() || self.clients.iter().all(|client| client.done)) {
                break;
            }
        }
        self.judge()
    }

    /// Whether a VM runs, and clients may expect to be served.
    fn serves(&self) -> bool {
        self.hosts.iter().any(|host| matches!(host.end, End::Runs(Role::Solo | Role::Primary)))
    }

    /// Whether the VM was ended on some host.
    pub(crate) fn has_ended(&self) -> bool {
        self.hosts.iter().any(|host| is_end_of_vm(&host.end))
    }

    fn judge(&mut self) -> Result<(), Broken> {
        for client in &self.clients {
            client.finish(&mut self.checks.history);
            self.stats.longest_ns = self.stats.longest_ns.max(client.longest_ns);
        }
        self.stats.operations = self.checks.history.operations;
        self.stats.digests = self.checks.digests.compared as u64;
        self.stats.late = self.checks.exclusive.late;
        self.stats.outputs = self.checks.outputs.count();
        self.stats.steps = self.hosts.iter().map(Host::steps).sum();
        self.checks.outputs.judge()?;
        let judged = self.checks.history.judge();
        self.stats.undecided = self.checks.history.undecided;
        judged?;
        self.judge_endings()?;
        let waits = self.clients.iter().find(|client| !client.done);
        match waits {
            Some(client) if self.serves() => {
                let what = format!("client {} waits for an answer to {:?}", client.id, client.op());
                Err(Broken("the VM serves again once nothing is wrong", what))
            }
            _ => Ok(()),
        }
    }

    /// Judges how the processes have ended, or what those that run do.
    pub(crate) fn judge_endings(&self) -> Result<(), Broken> {
        let ends = self.hosts.iter().enumerate().map(|(host, at)| HostEnd {
            end: &at.end,
            peer: at.peer,
            ordered: at.ordered,
            told: at.told,
            hangs: at.disk.hangs(),
            heard: at.heard,
            won_first: at.won_first,
            has_gap: self.links.has_gap_to(host),
        });
        let ending = Ending {
            hosts: ends.collect(),
            holder: self.storage.newest_holder(),
            disk_failed: self.hosts.iter().any(|host| host.disk.failed),
        };
        ending.judge()
    }

    fn happen(&mut self, happening: Happening) -> Result<(), Broken> {
        match happening {
            Happening::Turn(host, number) if self.hosts[host].next_turn == (self.now, number) => {
                self.take_turn(host)?;
            }
            Happening::Turn(..) => {}
            Happening::LinkBytes(connection, bytes) => self.link_bytes(connection, &bytes),
            Happening::LinkEnd(connection) => self.connection_ends(connection),
            Happening::ToGuest(host, frame) => {
                self.tell(host, Event::Packet { slot: crate::machines::NET, frame });
            }
            Happening::ToClient(frame) => self.clients_hear(&frame)?,
            Happening::Client(index, seq) => self.client_acts(index, seq),
            Happening::Tell(host, event) => self.tell(host, event),
            Happening::Disk(host) => self.disk_looks(host)?,
            Happening::DiskDone(host, done) => {
                if self.hosts[host].node.is_some() {
                    self.hosts[host].disk.finish();
                    self.tell(host, Event::DiskDone(done));
                    self.disk_looks(host)?;
                }
            }
            Happening::Claim(claimant, generation) => {
                let host = claimant.host;
                let (at, verdict) = self.storage.claim(self.now, claimant, generation)?;
                self.timeline.say(
                    self.now,
                    "arbiter",
                    format_args!("{} claims generation {generation}: {verdict:?}", NAMES[host]),
                );
                if self.hosts[host].claimant(host) == claimant {
                    self.schedule(at, Happening::Tell(host, Event::Verdict(generation, verdict)));
                }
            }
            Happening::Fault(index) => {
                self.stats.faults += 1;
                let fault = self.plan.faults[index].clone();
                self.inject(&fault);
            }
            Happening::Death(host) => self.die(host),
            Happening::Restart(host) => self.restart(host)?,
            Happening::StartPair(pair) => self.start_elsewhere(pair)?,
        }
        Ok(())
    }

    // ---- hosts ----

    /// Something for a host's node; it takes a turn soon.
    pub(crate) fn tell(&mut self, host: HostId, event: Event) {
        if self.hosts[host].node.is_none() {
            return;
        }
        if let Event::Verdict(generation, verdict @ (Verdict::Won | Verdict::Lost)) = &event {
            let line = format_args!("is told that generation {generation} is {verdict:?}");
            self.timeline.say(self.now, NAMES[host], line);
            let order = self.hosts[host].stop_after_win_ns.filter(|_| *verdict == Verdict::Won);
            if let Some(after_ns) = order {
                self.schedule(self.now + after_ns, Happening::Tell(host, Event::Stop));
            }
        }
        self.hosts[host].ordered |= matches!(event, Event::Stop);
        self.hosts[host].told |= matches!(event, Event::HandOver(_) | Event::Network { reached: false });
        self.hosts[host].heard |= matches!(event, Event::Message(..));
        self.hosts[host].inbox.push_back(event);
        let latency = self.hosts[host].random.between(1_000, 20_000);
        self.wake(host, self.now + latency);
    }

    /// A host's node takes a turn at that instant, if not before.
    pub(crate) fn wake(&mut self, host: HostId, at_ns: u64) {
        let state = &mut self.hosts[host];
        let at = at_ns.max(state.busy_until_ns).max(self.now);
        if at < state.next_turn.0 && state.node.is_some() {
            let number = state.next_turn.1 + 1;
            state.next_turn = (at, number);
            self.schedule(at, Happening::Turn(host, number));
        }
    }

    fn take_turn(&mut self, me: HostId) -> Result<(), Broken> {
        self.hosts[me].next_turn.0 = u64::MAX;
        if self.hosts[me].paused_until_ns > self.now {
            self.wake(me, self.hosts[me].paused_until_ns);
            return Ok(());
        }
        let Some(mut node) = self.hosts[me].node.take() else { return Ok(()) };
        self.stats.turns += 1;
        let mut desk = Desk::new(self, me);
        let next = node.step(&mut desk);
        let (ended, released, killed, broken) =
            (desk.at_ns(), desk.released, desk.killed, desk.broken.take());
        let (report, lease) = (node.report(), desk.lease);
        let host = &mut self.hosts[me];
        host.is_backup = matches!(node, Node::Standby(_));
        host.node = Some(node);
        if !host.is_backup && !killed {
            host.asks.handle_lease(me, lease)?;
        }
        host.busy_until_ns = ended;
        host.end = End::Runs(report.state);
        if let Some(broken) = broken {
            return Err(broken);
        }
        let generation = report.generation.0;
        let holder = self.storage.holder(generation);
        self.checks.exclusive.handle_turn(me, report.state, generation, released, holder)?;
        if killed {
            self.die(me);
            return Ok(());
        }
        match next {
            Next::Again => self.wake(me, ended + 200),
            Next::WaitUntil(until) => {
                let soon = if self.hosts[me].inbox.is_empty() { u64::MAX } else { ended + 1_000 };
                let at = self.hosts[me].clock.when(until).min(soon);
                self.wake(me, at);
            }
            Next::Finished(outcome) => self.finish(me, outcome, report.generation),
        }
        Ok(())
    }

    fn finish(&mut self, me: HostId, outcome: Outcome, generation: Generation) {
        self.timeline.say(self.now, NAMES[me], format_args!("has finished: {outcome:?}"));
        let was_live = !self.hosts[me].is_backup;
        if was_live && matches!(outcome, Outcome::PoweredOff { .. } | Outcome::Reset) {
            self.storage.end(self.now, me, generation);
        }
        self.bury(me, End::Finished(outcome), false);
        self.links_close(me, false);
    }

    /// There is no process on the host any more.
    pub(crate) fn bury(&mut self, host: HostId, end: End, power: bool) {
        let image = self.image_of(host);
        let state = &mut self.hosts[host];
        state.node = None;
        state.end = end;
        state.inbox.clear();
        state.disk.end(power, &mut self.images[image]);
        self.net.forget(host);
        self.checks.exclusive.handle_gone(host);
    }

    // ---- disks ----

    /// Which image a host's disk is.
    fn image_of(&self, host: HostId) -> usize {
        if self.plan.shared_disk { 0 } else { host }
    }

    fn disk_looks(&mut self, host: HostId) -> Result<(), Broken> {
        let (shared, image) = (self.plan.shared_disk, self.image_of(host));
        let state = &mut self.hosts[host];
        if state.node.is_none() || state.disk.busy {
            return Ok(());
        }
        let shows = state.clock.show(self.now);
        // What a turn found out is known when it ends.
        let in_turn = self.now < state.busy_until_ns;
        if !state.disk.may_begin(shows, in_turn, shared) {
            if shared && state.disk.is_behind_fence(shows) {
                self.schedule(self.now + LOOK_NS, Happening::Disk(host));
            }
            return Ok(());
        }
        if shared && !in_turn {
            state.asks.handle_begin(host, shows)?;
        }
        let (least, most) = self.plan.disk_ns;
        let takes = state.random.between(least, most) + state.disk.extra_ns(self.now);
        if let Some(done) = state.disk.begin(self.now, &mut self.images[image]) {
            if done.status != pollux_vocab::DiskStatus::Ok {
                let line = format_args!("its disk fails request {}", done.request);
                self.timeline.say(self.now, NAMES[host], line);
            }
            self.schedule(self.now + takes, Happening::DiskDone(host, done));
        }
        Ok(())
    }
}
