//! The model machine: a service on a disk, with a timer, in some hundred lines.
//!
//! Everything that enters is folded into one hash together with its icount, and everything that it says contains
//! that hash. So two histories that differ in anything, be it the instant of one event, say different things.
//!
//! The invariant of every machine holds: where a run stops never shows.

use super::frames::model::{Request, reply};
use super::{BLOCK, DISK, NET};
use crate::service::{Answer, Op};
use pollux_machine::{Machine, Stop};
use pollux_vocab::{
    Clock, ConsoleId, Digest, DiskOp, DiskRequest, DiskStatus, Icount, Input, Output, RequestId, SlotId,
    VirtTime,
};
use std::collections::{BTreeMap, VecDeque};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Requests in the works; while there are so many, no packet finds a buffer.
const JOBS_MAX: usize = 6;
/// Virtual time between two ticks of the timer; at every tick the machine says something unasked.
const TICK_NS: u64 = 25_000_000;
/// Most steps that one piece of work takes: 2 ms of an ordinary host.
const WORK_STEPS_MAX: u64 = 200_000;

/// What is to be done, after some steps.
enum Work {
    Begin(Request),
    Finish(Request, Answer),
    Tick,
}

/// How far a request on the disk has come.
enum Stage {
    Writing,
    Flushing,
    Reading,
}

/// The machine.
#[derive(Default)]
pub(crate) struct Model {
    icount: u64,
    clock: Clock,
    hash: u64,
    counter: u64,
    /// The newest answer to each client.
    answered: BTreeMap<u64, (u64, Answer)>,
    work: VecDeque<Work>,
    /// Steps left of the first of `work`.
    left: u64,
    waiting: BTreeMap<RequestId, (DiskRequest, Request, Stage)>,
    next_request: RequestId,
    next_tick: u64,
    outputs: VecDeque<Output>,
    halted: bool,
}

impl Model {
    pub(crate) fn new() -> Self {
        Self { next_request: 1, next_tick: TICK_NS, ..Self::default() }
    }

    fn fold(&mut self, bytes: &[u8]) {
        let at = xxh3_64_with_seed(&self.icount.to_le_bytes(), self.hash);
        self.hash = xxh3_64_with_seed(bytes, at);
    }

    fn push(&mut self, work: Work) {
        if self.work.is_empty() {
            self.left = self.cost();
        }
        self.work.push_back(work);
    }

    /// Steps that the next piece of work takes: mostly few, sometimes more than a slice.
    fn cost(&self) -> u64 {
        let shift = self.hash % 8;
        (WORK_STEPS_MAX >> shift) / 2 + (self.hash >> 8) % (WORK_STEPS_MAX >> shift)
    }

    /// The instant of the next tick.
    fn tick_at(&self) -> u64 {
        self.clock.icount_reaching(VirtTime(self.next_tick)).0.max(self.icount)
    }

    fn arrived(&mut self, frame: &[u8]) {
        self.fold(frame);
        let Some(request) = Request::parse(frame) else { return };
        if let Some((seq, answer)) = self.answered.get(&request.client) {
            let (seq, answer) = (*seq, *answer);
            if request.seq == seq {
                self.outputs.push_back(packet(&request, answer, 0));
            }
            if request.seq <= seq {
                return;
            }
        }
        let same = |other: &Request| other.client == request.client && other.seq == request.seq;
        let at_it = self.work.iter().any(|work| match work {
            Work::Begin(other) | Work::Finish(other, _) => same(other),
            Work::Tick => false,
        });
        if !at_it && !self.waiting.values().any(|(_, other, _)| same(other)) {
            self.push(Work::Begin(request));
        }
    }

    fn ask_disk(&mut self, op: DiskOp, request: Request, stage: Stage) {
        let disk = DiskRequest { slot: DISK, request: self.next_request, op };
        self.next_request += 1;
        self.waiting.insert(disk.request, (disk.clone(), request, stage));
        self.outputs.push_back(Output::Disk(disk));
    }

    fn do_work(&mut self, work: Work) {
        self.fold(b"work");
        match work {
            Work::Begin(request) => match request.op {
                Op::Write { key, value } => {
                    let op = DiskOp::Write { offset: key * BLOCK as u64, data: pattern(value) };
                    self.ask_disk(op, request, Stage::Writing);
                }
                Op::Read { key } => {
                    let op = DiskOp::Read { offset: key * BLOCK as u64, len: BLOCK as u32 };
                    self.ask_disk(op, request, Stage::Reading);
                }
                Op::Add => {
                    self.counter += 1;
                    self.finish(request, Answer::Value(self.counter));
                }
                Op::Total => self.finish(request, Answer::Value(self.counter)),
                Op::Other => self.finish(request, Answer::Value(self.hash)),
            },
            Work::Finish(request, answer) => self.finish(request, answer),
            Work::Tick => {
                let beacon = reply(u64::MAX, self.next_tick, Answer::Value(self.hash), self.hash);
                self.outputs.push_back(Output::Packet { slot: NET, frame: beacon });
                if self.hash.is_multiple_of(4) {
                    let bytes = self.hash.to_le_bytes().to_vec();
                    self.outputs.push_back(Output::Console { console: ConsoleId::Uart, bytes });
                }
            }
        }
    }

    fn finish(&mut self, request: Request, answer: Answer) {
        self.answered.insert(request.client, (request.seq, answer));
        self.outputs.push_back(packet(&request, answer, self.hash));
    }

    fn disk_done(&mut self, id: RequestId, status: DiskStatus, data: &[u8]) {
        let Some((_, request, stage)) = self.waiting.remove(&id) else { return };
        self.fold(&[status as u8]);
        self.fold(data);
        let answer = match (stage, status) {
            (_, DiskStatus::IoError) => Answer::Bad,
            (Stage::Writing, DiskStatus::Ok) => {
                return self.ask_disk(DiskOp::Flush, request, Stage::Flushing);
            }
            (Stage::Flushing, DiskStatus::Ok) => Answer::Done,
            (Stage::Reading, DiskStatus::Ok) => value_of(data).map_or(Answer::Bad, Answer::Value),
        };
        self.push(Work::Finish(request, answer));
    }
}

/// A request's answer as an output. A repeated answer says nothing of the present.
fn packet(request: &Request, answer: Answer, hash: u64) -> Output {
    Output::Packet { slot: NET, frame: reply(request.client, request.seq, answer, hash) }
}

/// A block full of a value.
pub(crate) fn pattern(value: u64) -> Vec<u8> {
    (0..BLOCK as u64 / 8).flat_map(|word| (value.wrapping_add(word)).to_le_bytes()).collect()
}

/// The value that a block is full of; `None` if it is not.
fn value_of(block: &[u8]) -> Option<u64> {
    let value = u64::from_le_bytes(*block.first_chunk()?);
    (pattern(value) == block).then_some(value)
}

impl Machine for Model {
    fn icount(&self) -> Icount {
        Icount(self.icount)
    }

    fn time(&self) -> VirtTime {
        self.clock.at(Icount(self.icount))
    }

    fn run(&mut self, until: Icount) -> Stop {
        loop {
            if !self.outputs.is_empty() {
                return Stop::Output;
            }
            if self.halted {
                return Stop::Halted;
            }
            let tick = self.tick_at();
            if self.work.is_empty() && tick > self.icount {
                return Stop::Idle { wake: Some(VirtTime(self.next_tick)) };
            }
            if self.icount >= until.0 {
                return Stop::Until;
            }
            if tick <= self.icount {
                self.next_tick += TICK_NS;
                self.push(Work::Tick);
                continue;
            }
            let steps = self.left.min(until.0 - self.icount).min(tick - self.icount);
            self.icount += steps;
            self.left -= steps;
            if self.left == 0
                && let Some(work) = self.work.pop_front()
            {
                self.do_work(work);
                self.left = self.cost();
            }
        }
    }

    fn apply(&mut self, input: &Input) {
        match input {
            Input::Packet { slot: NET, frame } if self.packet_room(NET) => self.arrived(frame),
            Input::Packet { .. } => {}
            Input::DiskDone { request, status, data, .. } => self.disk_done(*request, *status, data),
            Input::Console { bytes, .. } | Input::Entropy { bytes, .. } => self.fold(bytes),
            Input::Clock { time, rate } => {
                self.fold(&time.0.to_le_bytes());
                self.clock = self.clock.adjusted(Icount(self.icount), *time, *rate);
            }
            Input::PowerButton => {
                self.halted = true;
                self.outputs.push_back(Output::PowerOff { status: 0 });
            }
        }
    }

    fn take_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn packet_room(&self, _slot: SlotId) -> bool {
        self.work.len() + self.waiting.len() < JOBS_MAX
    }

    fn console_room(&self, _console: ConsoleId) -> usize {
        16
    }

    fn pending(&self) -> Vec<Output> {
        self.waiting.values().map(|(disk, ..)| Output::Disk(disk.clone())).collect()
    }

    fn digest(&mut self) -> Digest {
        let words = [self.icount, self.time().0, self.hash, self.counter, self.left, self.work.len() as u64];
        Digest { harts: words.to_vec(), devices: vec![self.waiting.len() as u64], ..Digest::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a machine says, and when, if it is fed the same and stopped at every `stop` steps.
    fn said(stop: u64) -> Vec<(Icount, Output)> {
        let mut machine = Model::new();
        let mut said = Vec::new();
        for (at, client) in [(10u64, 1u64), (70_000, 2), (70_000, 3), (400_001, 1)] {
            let feed = |machine: &mut Model, said: &mut Vec<_>| {
                while machine.icount < at {
                    let next = at.min(machine.icount + stop);
                    let ended = machine.run(Icount(next));
                    while let Some(output) = machine.take_output() {
                        said.push((machine.icount(), output));
                    }
                    if let Stop::Idle { .. } = ended {
                        let (time, rate) = (VirtTime(machine.next_tick), Default::default());
                        machine.apply(&Input::Clock { time, rate });
                    }
                }
            };
            feed(&mut machine, &mut said);
            let frame = Request { client, seq: at, op: Op::Add }.frame();
            machine.apply(&Input::Packet { slot: NET, frame });
        }
        said
    }

    #[test]
    fn where_a_run_stops_never_shows() {
        let whole = said(1 << 40);
        assert!(whole.len() > 3);
        for stop in [1_000, 7_777, 100_001] {
            assert_eq!(said(stop), whole);
        }
    }
}
