//! The side whose guest talks to the world: solo or primary.
//!
//! Invariants guarded here: nondeterminism enters only through [`Primary::admit`], and what is admitted is applied
//! to the machine at the same icount; effects leave only when the protocol's output gate releases them, solo
//! included. Writes to a *replicated* disk are no outputs: both sides perform them (DESIGN 6).
//!
//! Not here: when an output may leave (`pollux-protocol`), what time it is (`pacer`).

use crate::disks::{DiskMode, Disks};
use crate::handover::Handover;
use crate::pacer::{Pacer, Pacing};
use crate::ports::{DiskCompletion, DiskFault, Event, Notice, Ports};
use crate::{DIGEST_PAGES_MAX, EVENTS_PER_STEP_MAX, HaltCause, Next, Outcome, Settings};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use pollux_contract::{Machine, Stop};
use pollux_protocol::{Command, HostTime, Pace, Primary};
use pollux_vocab::{
    ConsoleId, Control, DiskStatus, Icount, Input, Output, RecordBody, RequestId, SlotId, VirtTime,
};

/// Packets that wait for the guest to offer receive buffers; beyond that the newest is dropped, as a NIC does.
const PACKETS_WAITING_MAX: usize = 1024;
/// Typed bytes that wait for the guest to read; beyond that the newest are dropped.
const CONSOLE_WAITING_MAX: usize = 64 * 1024;
/// Host time a run lasts before the world is looked at again.
const SLICE_NS: u64 = 200_000;
/// A run never has fewer steps than this, however slow the host.
const SLICE_STEPS_MIN: u64 = 1_000;
/// A slice that took longer than this did not execute all the time, but was held up by the host: a VM that is slowed
/// rests for no more than this.
const SLICE_COUNTED_NS_MAX: u64 = 2_000_000;

/// The live side of the loop.
#[derive(Debug)]
pub struct Live<M> {
    pub(crate) machine: M,
    pub(crate) protocol: Primary,
    pacer: Pacer,
    disks: Disks,
    settings: Settings,
    packets: VecDeque<(SlotId, Vec<u8>)>,
    typed: Vec<(ConsoleId, VecDeque<u8>)>,
    completions: VecDeque<DiskCompletion>,
    entropy: VecDeque<(SlotId, RequestId, Vec<u8>)>,
    power_button: bool,
    pub(crate) stop_asked: bool,
    /// How often the guest has begun again, as people know it.
    restarts: u64,
    pub(crate) handover: Handover,
    /// Set while the machine waits for an interrupt; the timer it would wake for.
    idle: Option<Option<VirtTime>>,
    /// When the last digest was taken, and when the work on the next one began.
    digest_at: HostTime,
    digest_begun: Option<HostTime>,
    /// A VM that is slowed has run its share until then.
    run_not_before: HostTime,
    /// The VM has ended, and its last output is in the gate: released last of all.
    pub(crate) ended: bool,
    /// The log reaches to the end of the VM.
    closed: bool,
}

impl<M: Machine> Live<M> {
    /// A live side around a machine that has not yet run, or has just been taken over. `adopted` are disk
    /// requests that were finished on this host but whose completion no record tells of.
    pub fn new(
        machine: M,
        protocol: Primary,
        settings: Settings,
        now: HostTime,
        adopted: Vec<DiskCompletion>,
    ) -> Self {
        let pacer = Pacer::new(settings.pacing, now, machine.time());
        Self {
            restarts: machine.restarts(),
            disks: Disks::new(settings.disk_modes.clone()),
            pacer,
            protocol,
            machine,
            digest_at: now,
            digest_begun: None,
            run_not_before: now,
            settings,
            packets: VecDeque::new(),
            typed: Vec::new(),
            completions: adopted.into(),
            entropy: VecDeque::new(),
            power_button: false,
            stop_asked: false,
            handover: Handover::default(),
            idle: None,
            ended: false,
            closed: false,
        }
    }

    /// Issues again what the machine has asked for and not been answered: at a start from a snapshot all of
    /// it; at a takeover what this host has not begun itself (`begun`).
    pub fn reissue(&mut self, ports: &mut impl Ports, begun: &BTreeMap<(SlotId, RequestId), ()>) {
        for output in self.machine.pending() {
            match &output {
                Output::Disk(request) if begun.contains_key(&(request.slot, request.request)) => {}
                _ => self.handle_output(ports, output),
            }
        }
    }

    /// One turn of the loop: hear the world, admit, run a slice, seal, release.
    pub fn step(&mut self, ports: &mut impl Ports) -> Next {
        let now = ports.now();
        // Ticks first: a process that slept must notice before it hears what was queued meanwhile.
        self.protocol.handle_tick(now);
        for _ in 0..EVENTS_PER_STEP_MAX {
            let Some(event) = ports.poll_event() else { break };
            self.handle_event(now, event);
        }
        if let Some(outcome) = self.drain_protocol(ports) {
            return Next::Finished(outcome);
        }
        if self.ended {
            return self.wind_down(ports, now);
        }
        if let Some(next) = self.step_handover(ports, now) {
            return next;
        }
        let share = match self.protocol.pace(now) {
            Pace::Wait => return self.waiting(now, [None, None]),
            Pace::Run { share_permille } => u64::from(share_permille.clamp(1, 1000)),
        };
        // Also when an event has ended the rest early: a guest with much traffic is slowed like any other.
        if share < 1000 && now < self.run_not_before {
            return self.waiting(now, [Some(self.run_not_before), None]);
        }
        if let Some(next) = self.leave_idle(now, ports) {
            return next;
        }
        self.admit_waiting(ports);
        let ran_ns = self.run_slice(ports);
        let now = ports.now();
        if self.ended {
            return self.wind_down(ports, now);
        }
        self.protocol.flush(now, self.machine.icount(), self.machine.time());
        if let Some(outcome) = self.drain_protocol(ports) {
            return Next::Finished(outcome);
        }
        // Only then: what the guest has said does not wait for pages to be hashed.
        self.work_on_digest(ports, now);
        if share < 1000 && ran_ns > 0 {
            let counted_ns = ran_ns.min(SLICE_COUNTED_NS_MAX);
            self.run_not_before = now.after(counted_ns * (1000 - share) / share);
            return self.waiting(now, [Some(self.run_not_before), None]);
        }
        Next::Again
    }

    fn handle_event(&mut self, now: HostTime, event: Event) {
        match event {
            Event::Packet { slot, frame } => {
                if self.packets.len() < PACKETS_WAITING_MAX {
                    self.packets.push_back((slot, frame));
                }
            }
            Event::DiskDone(done) => {
                self.handover.handle_done(&done);
                if done.status != DiskStatus::Ok {
                    self.give_up_disk(now, done.slot);
                }
                self.completions.push_back(done);
            }
            Event::DiskFault { slot, fault: DiskFault::Hangs } => self.give_up_disk(now, slot),
            Event::Console { console, bytes } => {
                let index = self.typed.iter().position(|(id, _)| *id == console).unwrap_or_else(|| {
                    self.typed.push((console, VecDeque::new()));
                    self.typed.len() - 1
                });
                let waiting = &mut self.typed[index].1;
                let room = CONSOLE_WAITING_MAX.saturating_sub(waiting.len());
                waiting.extend(bytes.into_iter().take(room));
            }
            Event::Entropy { slot, request, bytes } => self.entropy.push_back((slot, request, bytes)),
            Event::Message(from, message) => self.protocol.handle_message(now, from, message),
            Event::LinkBytes(from) => self.protocol.handle_bytes(now, from),
            Event::LinkLost(from) => self.protocol.handle_link_lost(now, from),
            Event::Verdict(generation, verdict) => self.protocol.handle_arbiter(now, generation, verdict),
            Event::Stop => self.stop_asked = true,
            Event::HandOver(cause) => self.handover.ask(now, cause),
            Event::Network { reached } => self.protocol.handle_network(now, reached),
            Event::PowerButton => self.power_button = true,
        }
    }

    /// Carries out what the protocol has decided.
    pub(crate) fn drain_protocol(&mut self, ports: &mut impl Ports) -> Option<Outcome> {
        let mut outcome = None;
        while let Some(output) = self.protocol.poll_release(ports.now()) {
            match output {
                Output::Disk(request) => {
                    self.handover.handle_begun(request.slot, request.request);
                    ports.submit_disk(request);
                }
                Output::PowerOff { status } => outcome = Some(Outcome::PoweredOff { status }),
                Output::Reset => outcome = Some(Outcome::Reset),
                other => ports.release(other),
            }
        }
        // After the outputs: a message may tell the backup that they have been released.
        self.send_messages(ports);
        while let Some(command) = self.protocol.poll_command() {
            match command {
                Command::Claim(generation) => {
                    ports.hold_fences();
                    ports.claim(generation);
                }
                Command::BackupStalled => ports.notice(Notice::BackupStalled),
                // Before the arbiter is asked: the other side may have asked already.
                Command::BackupLost => {
                    ports.hold_fences();
                    ports.notice(Notice::BackupSuspected);
                }
                Command::WentSolo { generation } => {
                    ports.open_fences(generation);
                    ports.notice(Notice::WentSolo(generation));
                }
                Command::Halt(reason) => return Some(Outcome::Halted(HaltCause::Protocol(reason))),
            }
        }
        if outcome.is_some() {
            self.protocol.queue_goodbye();
            self.send_messages(ports);
        }
        outcome
    }

    fn send_messages(&mut self, ports: &mut impl Ports) {
        let mut sent = false;
        while let Some((to, message)) = self.protocol.poll_message() {
            ports.send_message(to, message);
            sent = true;
        }
        if sent {
            self.protocol.handle_sent(ports.now());
        }
    }

    /// If the machine is idle: either ends the idle wait with a clock entry, or says how long to wait.
    fn leave_idle(&mut self, now: HostTime, ports: &mut impl Ports) -> Option<Next> {
        let wake = self.idle?;
        let timer = wake.is_some_and(|virt| self.pacer.wakes(now, virt));
        if !timer && !self.something_waits() {
            let at = wake.map(|virt| self.pacer.host_time_of(virt));
            let more = self.work_on_digest(ports, now);
            self.protocol.flush(now, self.machine.icount(), self.machine.time());
            return Some(match self.drain_protocol(ports) {
                Some(outcome) => Next::Finished(outcome),
                None if more => Next::Again,
                None => self.waiting(now, [at, self.next_digest()]),
            });
        }
        let clock = self.pacer.idle_end(now, self.machine.time(), if timer { wake } else { None });
        self.admit(ports, RecordBody::Input(clock));
        self.idle = None;
        None
    }

    fn something_waits(&self) -> bool {
        !self.completions.is_empty()
            || !self.entropy.is_empty()
            || self.power_button
            || self.stop_asked
            || self.packets.iter().any(|(slot, _)| self.machine.packet_room(*slot))
            || self.typed.iter().any(|(id, bytes)| !bytes.is_empty() && self.machine.console_room(*id) > 0)
    }

    /// The next of `queue`, if more may be admitted: a full window, or a full gate, must not be overfilled by whatever
    /// has gathered meanwhile; it waits for its turn.
    fn next_of<T>(&mut self, queue: impl Fn(&mut Self) -> &mut VecDeque<T>, now: HostTime) -> Option<T> {
        if self.protocol.pace(now) == Pace::Wait {
            return None;
        }
        queue(self).pop_front()
    }

    /// Admits everything that the guest, and the log, can take now.
    fn admit_waiting(&mut self, ports: &mut impl Ports) {
        if core::mem::take(&mut self.stop_asked) {
            self.admit(ports, RecordBody::Control(Control::Stop));
            let icount = self.machine.icount();
            self.protocol.hold(ports.now(), icount, Output::PowerOff { status: 0 });
            // Whoever replays this goes as far as the stop and no further.
            (self.ended, self.closed) = (true, true);
            return;
        }
        if core::mem::take(&mut self.power_button) {
            self.admit(ports, RecordBody::Input(Input::PowerButton));
        }
        let now = ports.now();
        while let Some(done) = self.next_of(|live| &mut live.completions, now) {
            self.admit_completion(ports, done);
        }
        while let Some((slot, request, bytes)) = self.next_of(|live| &mut live.entropy, now) {
            self.admit(ports, RecordBody::Input(Input::Entropy { slot, request, bytes }));
        }
        let mut kept = VecDeque::new();
        while let Some((slot, frame)) = self.next_of(|live| &mut live.packets, now) {
            if self.machine.packet_room(slot) {
                self.admit(ports, RecordBody::Input(Input::Packet { slot, frame }));
            } else {
                kept.push_back((slot, frame));
            }
        }
        kept.append(&mut self.packets);
        self.packets = kept;
        for index in 0..self.typed.len() {
            let console = self.typed[index].0;
            let room = self.machine.console_room(console).min(self.typed[index].1.len());
            if room > 0 && self.protocol.pace(now) != Pace::Wait {
                let bytes = self.typed[index].1.drain(..room).collect();
                self.admit(ports, RecordBody::Input(Input::Console { console, bytes }));
            }
        }
    }

    fn admit_completion(&mut self, ports: &mut impl Ports, done: DiskCompletion) {
        let DiskCompletion { slot, request, status, data } = done;
        match self.disks.mode(slot) {
            DiskMode::Replicated => {
                let body = RecordBody::DiskDoneLocal { slot, request, status };
                let record = self.protocol.admit(self.machine.icount(), body);
                ports.record(&record, Some(&data));
                self.machine.apply(&Input::DiskDone { slot, request, status, data });
            }
            DiskMode::Shared => {
                self.admit(ports, RecordBody::Input(Input::DiskDone { slot, request, status, data }));
            }
        }
    }

    /// The one way in: the protocol logs it, the machine applies it, here and now.
    fn admit(&mut self, ports: &mut impl Ports, body: RecordBody) {
        let record = self.protocol.admit(self.machine.icount(), body);
        ports.record(&record, None);
        if let RecordBody::Input(input) = &record.body {
            self.machine.apply(input);
        }
    }

    /// Runs about a slice; stops early after an output that somebody waits for. Returns host nanoseconds spent.
    fn run_slice(&mut self, ports: &mut impl Ports) -> u64 {
        if self.ended {
            return 0;
        }
        let began = ports.now();
        if let Some(clock) = self.pacer.poll_adjustment(began, self.machine.time()) {
            self.admit(ports, RecordBody::Input(clock));
        }
        let from = self.machine.icount();
        let until = from.after(self.pacer.steps_in(SLICE_NS).max(SLICE_STEPS_MIN));
        loop {
            let stop = self.machine.run(until);
            let mut urgent = false;
            while let Some(output) = self.machine.take_output() {
                urgent |=
                    matches!(output, Output::Packet { .. } | Output::Disk(_) | Output::EntropyWanted { .. });
                self.handle_output(ports, output);
            }
            match stop {
                // A few steps can say a great deal: a full gate ends the slice.
                Stop::Output if !urgent && self.protocol.pace(began) != Pace::Wait => continue,
                Stop::Idle { wake } => self.idle = Some(wake),
                Stop::Halted => self.ended = true,
                Stop::Output | Stop::Until => {}
            }
            break;
        }
        if self.machine.restarts() != self.restarts {
            self.restarts = self.machine.restarts();
            ports.notice(Notice::Restarted(self.restarts));
        }
        let spent = ports.now().0.saturating_sub(began.0);
        self.pacer.handle_sample(self.machine.icount().since(from), spent);
        spent
    }

    /// What the machine says goes into the gate, except what both sides do for themselves.
    fn handle_output(&mut self, ports: &mut impl Ports, output: Output) {
        match output {
            Output::Disk(request) if self.disks.mode(request.slot) == DiskMode::Replicated => {
                ports.submit_disk(request);
            }
            // Asking this host for random bytes tells nobody anything; the answer is logged.
            Output::EntropyWanted { .. } => ports.release(output),
            Output::PowerOff { .. } | Output::Reset => {
                self.ended = true;
                self.protocol.hold(ports.now(), self.machine.icount(), output);
            }
            other => self.protocol.hold(ports.now(), self.machine.icount(), other),
        }
    }

    /// When one is due: hashes a portion of its pages, or, if that was the last one, takes the digest. True if
    /// there is more to do. A guest that writes to pages faster than they are hashed ahead gets one interval's grace.
    fn work_on_digest(&mut self, ports: &mut impl Ports, now: HostTime) -> bool {
        if self.next_digest().is_none_or(|at| now < at) {
            return false;
        }
        let late = now.since(*self.digest_begun.get_or_insert(now)) >= self.settings.digest_every_ns;
        if !self.machine.prepare_digest(DIGEST_PAGES_MAX) && !late {
            return true;
        }
        (self.digest_at, self.digest_begun) = (now, None);
        self.take_digest(ports);
        false
    }

    fn take_digest(&mut self, ports: &mut impl Ports) {
        let digest = self.machine.digest();
        let icount = self.machine.icount();
        ports.digest(icount, &digest);
        self.admit(ports, RecordBody::Digest(digest));
    }

    /// The VM has ended: only its last outputs are still to be released, once the log reaches to where it ended.
    fn wind_down(&mut self, ports: &mut impl Ports, now: HostTime) -> Next {
        if !self.closed && !self.close_log(ports) {
            return Next::Again;
        }
        self.protocol.flush(now, self.machine.icount(), self.machine.time());
        match self.drain_protocol(ports) {
            Some(outcome) => Next::Finished(outcome),
            None => self.waiting(now, [None, None]),
        }
    }

    /// Ends the log with a record of the last instant, so that a replay goes all the way. False: a portion of the
    /// digest in it is done, there are more.
    fn close_log(&mut self, ports: &mut impl Ports) -> bool {
        if self.settings.digest_every_ns == 0 {
            self.admit(ports, RecordBody::Progress);
        } else if self.machine.prepare_digest(DIGEST_PAGES_MAX) {
            self.take_digest(ports);
        } else {
            return false;
        }
        self.closed = true;
        true
    }

    fn next_digest(&self) -> Option<HostTime> {
        let every_ns = self.settings.digest_every_ns;
        (every_ns > 0).then_some(self.digest_at.after(every_ns))
    }

    /// Waits until the protocol wants to be asked, or for what the present state waits for (only that: a deadline at
    /// which this state does nothing would be found expired over and over).
    pub(crate) fn waiting(&self, now: HostTime, for_what: [Option<HostTime>; 2]) -> Next {
        let at = for_what.into_iter().chain([self.protocol.next_timeout()]).flatten().min();
        Next::WaitUntil(at.unwrap_or(HostTime(now.0 + 50_000_000)).max(HostTime(now.0 + 1)))
    }

    /// The guest's measured speed in steps per second.
    #[must_use]
    pub fn steps_per_s(&self) -> u64 {
        self.pacer.steps_per_s()
    }

    /// Where the machine is.
    #[must_use]
    pub fn position(&self) -> (Icount, VirtTime) {
        (self.machine.icount(), self.machine.time())
    }

    /// Whether virtual time follows the host.
    #[must_use]
    pub fn pacing(&self) -> Pacing {
        self.settings.pacing
    }
}
