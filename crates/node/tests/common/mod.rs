//! A machine that does what a table says, and a world that only remembers: what the node's own rules are tested with.
//!
//! Every file of tests uses its own part of this, hence the `allow`.
#![allow(dead_code)]

use pollux_machine::{Machine, Stop};
use pollux_node::{
    DiskCompletion, Event, HostTime, Live, Next, Node, Notice, Pacing, PeerId, Ports, Settings, Standby,
};
use pollux_protocol::{Backup, Message, Primary, Verdict};
use pollux_vocab::*;
use std::collections::{BTreeMap, VecDeque};

pub(crate) const G1: Generation = Generation(1);
pub(crate) const G2: Generation = Generation(2);
/// The other replica.
pub(crate) const PEER: PeerId = PeerId(7);

/// A machine whose every output is written down beforehand.
#[derive(Default)]
pub(crate) struct Toy {
    pub(crate) icount: u64,
    pub(crate) time: u64,
    pub(crate) outputs: VecDeque<Output>,
    /// What it says when it reaches an icount.
    pub(crate) says: BTreeMap<u64, Vec<Output>>,
    /// What it says at once when a request completes.
    pub(crate) answers: BTreeMap<RequestId, Vec<Output>>,
    /// Where it waits for an interrupt, and the timer that it waits for.
    pub(crate) idle: Option<(u64, Option<VirtTime>)>,
    pub(crate) halted: bool,
    /// Requests made and not answered.
    pub(crate) asked: Vec<Output>,
    pub(crate) applied: Vec<(u64, Input)>,
    /// Pages that a digest has to hash, and how many each call has hashed.
    pub(crate) dirty: usize,
    pub(crate) hashed: Vec<usize>,
    /// Pages that every run writes to.
    pub(crate) dirties: usize,
}

impl Toy {
    fn say(&mut self, output: Output) {
        self.halted |= matches!(output, Output::PowerOff { .. } | Output::Reset);
        if matches!(output, Output::Disk(_) | Output::EntropyWanted { .. }) {
            self.asked.push(output.clone());
        }
        self.outputs.push_back(output);
    }
}

impl Machine for Toy {
    fn icount(&self) -> Icount {
        Icount(self.icount)
    }
    fn time(&self) -> VirtTime {
        VirtTime(self.time)
    }
    fn run(&mut self, until: Icount) -> Stop {
        self.dirty += self.dirties;
        loop {
            if !self.outputs.is_empty() {
                return Stop::Output;
            }
            if self.halted {
                return Stop::Halted;
            }
            if let Some((at, wake)) = self.idle
                && self.icount >= at
            {
                return Stop::Idle { wake };
            }
            if self.icount >= until.0 {
                return Stop::Until;
            }
            let next = self.says.range(self.icount + 1..).next().map_or(u64::MAX, |(at, _)| *at);
            let idle = self.idle.map_or(u64::MAX, |(at, _)| at);
            self.icount = until.0.min(next).min(idle);
            for output in self.says.get(&self.icount).cloned().unwrap_or_default() {
                self.say(output);
            }
        }
    }
    fn apply(&mut self, input: &Input) {
        self.applied.push((self.icount, input.clone()));
        match input {
            Input::DiskDone { request, .. } => {
                let done = *request;
                self.asked.retain(|output| !matches!(output, Output::Disk(r) if r.request == done));
                for output in self.answers.get(request).cloned().unwrap_or_default() {
                    self.say(output);
                }
            }
            Input::PowerButton => self.say(Output::PowerOff { status: 0 }),
            Input::Clock { time, .. } => {
                self.time = self.time.max(time.0);
                if let Some((_, Some(wake))) = self.idle
                    && self.time >= wake.0
                {
                    self.idle = None;
                }
            }
            _ => {}
        }
    }
    fn take_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }
    fn packet_room(&self, _slot: SlotId) -> bool {
        true
    }
    fn console_room(&self, _console: ConsoleId) -> usize {
        usize::MAX
    }
    fn pending(&self) -> Vec<Output> {
        self.asked.clone()
    }
    fn prepare_digest(&mut self, pages_max: usize) -> bool {
        let portion = self.dirty.min(pages_max);
        self.dirty -= portion;
        self.hashed.push(portion);
        portion < pages_max
    }
    fn digest(&mut self) -> Digest {
        self.hashed.push(core::mem::take(&mut self.dirty));
        Digest { harts: vec![self.icount], ..Digest::default() }
    }
}

/// A world that remembers everything that was done to it.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) now: u64,
    /// Every look at the clock takes this long.
    pub(crate) look_ns: u64,
    pub(crate) events: VecDeque<Event>,
    /// Once `events` is empty, this happens for ever: so often that a step that wants to hear it all is noticed.
    pub(crate) flood: Option<Event>,
    pub(crate) flooded: usize,
    pub(crate) sent: Vec<Message>,
    pub(crate) released: Vec<Output>,
    pub(crate) submitted: Vec<RequestId>,
    pub(crate) recorded: Vec<Record>,
    pub(crate) claims: Vec<Generation>,
    /// What safety depends on, in order.
    pub(crate) acts: Vec<Act>,
}

/// What a driver must carry out in the order in which it is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Act {
    Hold,
    Open(Generation),
    Claim(Generation),
    Say,
    Release,
    Lease(HostTime),
}

impl Ports for World {
    fn now(&mut self) -> HostTime {
        self.now += self.look_ns;
        HostTime(self.now)
    }
    fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front().or_else(|| self.flood.clone());
        self.flooded += usize::from(self.flood.is_some());
        assert!(self.flooded < 100_000, "a step listens without end");
        event
    }
    fn send_message(&mut self, to: PeerId, message: Message) {
        assert_eq!(to, PEER);
        self.sent.push(message);
        self.acts.push(Act::Say);
    }
    fn release(&mut self, output: Output) {
        self.released.push(output);
        self.acts.push(Act::Release);
    }
    fn submit_disk(&mut self, request: DiskRequest) {
        self.submitted.push(request.request);
    }
    fn claim(&mut self, generation: Generation) {
        self.claims.push(generation);
        self.acts.push(Act::Claim(generation));
    }
    fn hold_fences(&mut self) {
        self.acts.push(Act::Hold);
    }
    fn open_fences(&mut self, generation: Generation) {
        self.acts.push(Act::Open(generation));
    }
    fn set_lease(&mut self, until: HostTime) {
        self.acts.push(Act::Lease(until));
    }
    fn announce(&mut self) {}
    fn record(&mut self, record: &Record, _read: Option<&[u8]>) {
        self.recorded.push(record.clone());
    }
    fn notice(&mut self, _notice: Notice) {}
}

impl World {
    /// Digests in the recording.
    pub(crate) fn digests(&self) -> usize {
        self.recorded.iter().filter(|record| matches!(record.body, RecordBody::Digest(_))).count()
    }

    /// The records sent to the backup, in order.
    pub(crate) fn log(&self) -> Vec<Record> {
        let records = self.sent.iter().filter_map(|message| match message {
            Message::Records { records, .. } => Some(records.clone()),
            _ => None,
        });
        records.flatten().collect()
    }
}

/// The longest that a toy takes over one portion of a digest.
pub(crate) fn hashed_at_once_max(node: &mut Node<Toy>) -> usize {
    node.machine().hashed.iter().copied().max().unwrap_or(0)
}

pub(crate) fn settings() -> Settings {
    Settings {
        protocol: pollux_protocol::Settings::default(),
        pacing: Pacing::RealTime,
        disk_modes: Vec::new(),
        digest_every_ns: 0,
    }
}

pub(crate) fn solo(machine: Toy, settings: Settings) -> Node<Toy> {
    let protocol = Primary::new_solo(settings.protocol.clone(), G1, HostTime(0), Lsn(1));
    Node::Live(Box::new(Live::new(machine, protocol, settings, HostTime(0), Vec::new())))
}

pub(crate) fn primary(machine: Toy, settings: Settings) -> Node<Toy> {
    let protocol = Primary::new_protected(settings.protocol.clone(), G1, HostTime(0), PEER);
    Node::Live(Box::new(Live::new(machine, protocol, settings, HostTime(0), Vec::new())))
}

pub(crate) fn standby(machine: Toy) -> Node<Toy> {
    let settings = settings();
    let protocol = Backup::new(settings.protocol.clone(), G1, HostTime(0), PEER);
    Node::Standby(Box::new(Standby::new(machine, protocol, settings)))
}

/// Steps until the node would wait or has finished.
pub(crate) fn settle(node: &mut Node<Toy>, world: &mut World) -> Next {
    for _ in 0..10_000 {
        match node.step(world) {
            Next::Again => {}
            next => return next,
        }
    }
    panic!("the node does not come to rest")
}

/// The primary dies, and the arbiter gives this side the VM.
pub(crate) fn take_over(world: &mut World) {
    world.events.push_back(Event::LinkLost(PEER));
    world.events.push_back(Event::Verdict(G2, Verdict::Won));
}

/// A message with these records, numbered from `first`.
pub(crate) fn records(first: u64, released: u64, bodies: &[(u64, RecordBody)]) -> Event {
    let numbered = bodies.iter().zip(first..).map(|((icount, body), lsn)| Record {
        lsn: Lsn(lsn),
        icount: Icount(*icount),
        body: body.clone(),
    });
    Event::Message(
        PEER,
        Message::Records { generation: G1, released: Lsn(released), records: numbered.collect() },
    )
}

pub(crate) fn said(byte: u8) -> Output {
    Output::Console { console: ConsoleId::Uart, bytes: vec![byte] }
}

pub(crate) fn flush(request: RequestId) -> Output {
    Output::Disk(DiskRequest { slot: 1, request, op: DiskOp::Flush })
}

pub(crate) fn done(request: RequestId) -> DiskCompletion {
    DiskCompletion { slot: 1, request, status: DiskStatus::Ok, data: Vec::new() }
}

pub(crate) fn done_record(request: RequestId) -> RecordBody {
    RecordBody::DiskDoneLocal { slot: 1, request, status: DiskStatus::Ok }
}
