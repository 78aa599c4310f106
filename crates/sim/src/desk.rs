//! The node's ports in virtual time: a host's desk, at which its node takes one turn.
//!
//! Time at the desk goes on as the turn does: every look at the clock and every effect takes a little, and every step
//! of the machine what a step takes. A process that is killed in the middle of a turn has no effects from there on.

use crate::check::Broken;
use crate::check::exclusive::Exclusive;
use crate::fault::{HostId, NAMES, Way, host_of};
use crate::machines::print_of;
use crate::world::{Happening, World};
use pollux_node::fence::Fence;
use pollux_node::{Event, HostTime, Notice, PeerId, Ports, wire};
use pollux_protocol::{Message, Verdict};
use pollux_vocab::{Digest, DiskRequest, Generation, Icount, Output, Record};

/// What a look at the clock takes.
const LOOK_NS: u64 = 50;
/// What an effect takes.
const EFFECT_NS: u64 = 500;

/// A host's node at work.
pub(crate) struct Desk<'a> {
    world: &'a mut World,
    me: HostId,
    /// Spent on anything but executing.
    spent_ns: u64,
    /// Stood still.
    stood_ns: u64,
    steps_before: u64,
    /// Outputs released in this turn.
    pub(crate) released: usize,
    /// What the turn came to.
    pub(crate) lease: HostTime,
    /// The process was killed in this turn.
    pub(crate) killed: bool,
    pub(crate) broken: Option<Broken>,
}

impl<'a> Desk<'a> {
    pub(crate) fn new(world: &'a mut World, me: HostId) -> Self {
        let steps_before = world.hosts[me].tally.borrow().steps;
        let spent_ns = world.hosts[me].random.between(500, 3_000);
        let lease = HostTime(0);
        Self {
            world,
            me,
            spent_ns,
            stood_ns: 0,
            steps_before,
            released: 0,
            lease,
            killed: false,
            broken: None,
        }
    }

    /// The instant, in the world's time.
    pub(crate) fn at_ns(&self) -> u64 {
        let host = &self.world.hosts[self.me];
        let steps = host.tally.borrow().steps - self.steps_before;
        let slow = if self.world.now < host.slow_until_ns { host.slow_factor } else { 1 };
        self.world.now
            + self.stood_ns
            + (self.spent_ns + steps * self.world.plan.ns_per_kstep[self.me] / 1000) * slow
    }

    /// An effect is about to happen. False: the process is dead.
    fn lives(&mut self) -> bool {
        self.spent_ns += EFFECT_NS;
        match &mut self.world.hosts[self.me].effects_left {
            Some(0) => self.killed = true,
            Some(left) => *left -= 1,
            None => {}
        }
        !self.killed
    }

    fn say(&mut self, what: std::fmt::Arguments<'_>) {
        let at = self.at_ns();
        self.world.timeline.say(at, NAMES[self.me], what);
    }

    fn check_asks(&mut self) {
        if let Err(broken) = self.world.hosts[self.me].asks.handle_release(self.me) {
            self.broken.get_or_insert(broken);
        }
    }

    /// The process may stand still in the middle of its turn. What it does behind that happens then; what others do
    /// meanwhile it hears in its next turn.
    fn stumble(&mut self) {
        match &mut self.world.hosts[self.me].stumble {
            Some((0, for_ns)) => {
                self.stood_ns += *for_ns;
                self.world.hosts[self.me].stumble = None;
                self.say(format_args!("has stood still in the middle of its turn"));
            }
            Some((looks, _)) => *looks -= 1,
            None => {}
        }
    }

    fn release_packet(&mut self, frame: &[u8]) {
        let at = self.at_ns();
        self.world.net.learn(at, self.me);
        for arrival in self.world.net.arrivals(at, self.me) {
            self.world.schedule(arrival, Happening::ToClient(frame.to_vec()));
        }
    }

    fn fence(&mut self, change: fn(&mut Fence)) {
        change(&mut self.world.hosts[self.me].disk.fence);
        let at = self.at_ns();
        self.world.schedule(at, Happening::Disk(self.me));
    }
}

impl Ports for Desk<'_> {
    fn now(&mut self) -> HostTime {
        self.spent_ns += LOOK_NS;
        self.stumble();
        let at = self.at_ns();
        let host = &mut self.world.hosts[self.me];
        let now = host.clock.show(at);
        if !host.is_backup {
            host.asks.handle_look(now);
        }
        now
    }

    fn poll_event(&mut self) -> Option<Event> {
        let host = &mut self.world.hosts[self.me];
        let event = host.inbox.pop_front();
        match event {
            Some(Event::Verdict(_, Verdict::Won)) => host.asks.handle_won(),
            Some(Event::Message(..)) => host.asks.handle_heard(),
            Some(Event::Stop) => host.won_first |= host.asks.has_won(),
            _ => {}
        }
        event
    }

    fn send_message(&mut self, to: PeerId, message: Message) {
        if !self.lives() {
            return;
        }
        let way = Way { from: self.me, to: host_of(to) };
        let at = self.at_ns();
        let copies = self.world.links[way].copies(at, &message);
        if !matches!(message, Message::Heartbeat { .. } | Message::Ack { .. }) || copies != 1 {
            self.say(format_args!("sends {} (x{copies})", short(&message)));
        }
        let is_handover = matches!(message, Message::Handover { .. });
        let bytes = wire::to_wire(message).encode_in_pieces();
        if is_handover {
            self.world.hosts[self.me].asks.handle_handover();
        }
        self.world.hosts[self.me].asks.handle_sent();
        for _ in 0..copies {
            let connection = self.world.links.connection(way);
            for (arrival, piece) in self.world.links[way].send(at, bytes.clone()) {
                self.world.schedule(arrival, Happening::LinkBytes(connection, piece));
            }
        }
    }

    fn release(&mut self, output: Output) {
        if let Output::EntropyWanted { slot, request, len } = output {
            if self.lives() {
                let at = self.at_ns();
                let host = &mut self.world.hosts[self.me];
                let bytes = (0..len).map(|_| host.random.next() as u8).collect();
                let event = Event::Entropy { slot, request, bytes };
                self.world.schedule(at + 2_000, Happening::Tell(self.me, event));
            }
            return;
        }
        if !self.lives() {
            return;
        }
        let Some(print) = print_of(&output) else { return };
        self.check_asks();
        self.released += 1;
        let number = self.world.checks.outputs.handle_release(self.me, print);
        self.say(format_args!("releases output {number}: {print:016x}"));
        if let Output::Packet { frame, .. } = output {
            self.release_packet(&frame);
        }
    }

    fn submit_disk(&mut self, request: DiskRequest) {
        if self.lives() {
            // On a shared disk a request is an output like any other.
            if self.world.plan.shared_disk {
                self.check_asks();
            }
            let at = self.at_ns();
            self.world.hosts[self.me].disk.submit(request);
            self.world.schedule(at, Happening::Disk(self.me));
        }
    }

    fn claim(&mut self, generation: Generation) {
        let host = &mut self.world.hosts[self.me];
        host.asks.handle_claim();
        if let Err(broken) = Exclusive::handle_claim(self.me, host.is_backup, host.heard) {
            self.broken.get_or_insert(broken);
        }
        if self.lives() {
            self.say(format_args!("claims generation {generation}"));
            let at = self.at_ns();
            let arrival = self.world.storage.arrival_ns(at, self.me);
            let claimant = self.world.hosts[self.me].claimant(self.me);
            self.world.schedule(arrival, Happening::Claim(claimant, generation));
        }
    }

    fn hold_fences(&mut self) {
        self.fence(Fence::hold);
    }

    fn open_fences(&mut self, _generation: Generation) {
        self.fence(Fence::open);
        self.world.stats.takeovers[self.me] += 1;
    }

    fn set_lease(&mut self, until: HostTime) {
        self.lease = until;
        self.world.hosts[self.me].disk.set_lease(until);
    }

    fn announce(&mut self) {
        if self.lives() {
            let at = self.at_ns();
            self.world.net.learn(at, self.me);
        }
    }

    fn record(&mut self, _record: &Record, _read: Option<&[u8]>) {}

    fn notice(&mut self, notice: Notice) {
        if !matches!(notice, Notice::DigestAgreed(_)) {
            self.say(format_args!("{notice:?}"));
        }
    }

    fn digest(&mut self, icount: Icount, digest: &Digest) {
        let host = &self.world.hosts[self.me];
        let primary = host.peer.filter(|_| host.is_backup);
        let judged = self.world.checks.digests.handle(self.me, primary, icount, digest);
        if let Err(broken) = judged {
            self.broken.get_or_insert(broken);
        }
    }
}

/// A message for a line of a timeline.
pub(crate) fn short(message: &Message) -> String {
    match message {
        Message::Records { generation, released, records } => {
            let range = (records.first().map_or(0, |r| r.lsn.0), records.last().map_or(0, |r| r.lsn.0));
            format!("records {}..={} of generation {generation}, released {released}", range.0, range.1)
        }
        Message::Ack { generation, received, executed, .. } => {
            format!("ack of {received}, executed {executed}, generation {generation}")
        }
        Message::Heartbeat { generation } => format!("heartbeat of generation {generation}"),
        Message::Network { generation, reached } => format!("network of generation {generation}: {reached}"),
        Message::Handover { generation, last } => format!("handover of generation {generation} at {last}"),
        Message::Goodbye { generation, reason } => format!("goodbye of generation {generation}: {reason:?}"),
    }
}
