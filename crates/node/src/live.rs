//! The side whose guest talks to the world: solo or primary.
//!
//! Invariants guarded here: nondeterminism enters only through [`Primary::admit`], and what is admitted is applied
//! to the machine at the same icount; effects leave only when the protocol's output gate releases them, solo
//! included. Writes to a *replicated* disk are no outputs: both sides perform them (DESIGN 6).
//!
//! Its concerns are files of their own: what waits for the guest (`inbox`), the digests in its log (`digests`), how it ends
//! (`ending`), how it is given away (`handover`). Here is the turn that joins them.
//!
//! Not here: when an output may leave (`pollux-protocol`), what time it is (`pacer`).

use crate::digests::Digests;
use crate::disks::{DiskMode, Disks};
use crate::ending::Ending;
use crate::handover::Handover;
use crate::inbox::Inbox;
use crate::pacer::{Pacer, Pacing};
use crate::ports::{DiskCompletion, DiskFault, Event, Notice, Ports};
use crate::{EVENTS_PER_STEP_MAX, HaltCause, Next, Outcome, Settings};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use pollux_machine::{Machine, Stop};
use pollux_protocol::{Command, HostTime, Pace, Primary};
use pollux_vocab::{DiskStatus, Icount, Output, RecordBody, RequestId, SlotId, VirtTime};

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
    pub(crate) disks: Disks,
    settings: Settings,
    pub(crate) inbox: Inbox,
    pub(crate) digests: Digests,
    pub(crate) ending: Ending,
    /// How often the guest has begun again, as people know it.
    restarts: u64,
    pub(crate) handover: Handover,
    /// Set while the machine waits for an interrupt; the timer it would wake for.
    idle: Option<Option<VirtTime>>,
    /// A VM that is slowed has run its share until then.
    run_not_before: HostTime,
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
            digests: Digests::new(settings.digest_every_ns, now),
            run_not_before: now,
            settings,
            inbox: Inbox::new(adopted),
            ending: Ending::default(),
            handover: Handover::default(),
            idle: None,
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
        if self.ending.has_ended() {
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
        if self.ending.has_ended() {
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
            Event::Packet { slot, frame } => self.inbox.push_packet(slot, frame),
            Event::DiskDone(done) => {
                self.handover.handle_done(&done);
                if done.status != DiskStatus::Ok {
                    self.give_up_disk(now, done.slot);
                }
                self.inbox.push_completion(done);
            }
            Event::DiskFault { slot, fault: DiskFault::Hangs } => self.give_up_disk(now, slot),
            Event::Console { console, bytes } => self.inbox.push_typed(console, bytes),
            Event::Entropy { slot, request, bytes } => self.inbox.push_entropy(slot, request, bytes),
            Event::Message(from, message) => self.protocol.handle_message(now, from, message),
            Event::LinkBytes(from) => self.protocol.handle_bytes(now, from),
            Event::LinkLost(from) => self.protocol.handle_link_lost(now, from),
            Event::Verdict(generation, verdict) => self.protocol.handle_arbiter(now, generation, verdict),
            Event::Stop => self.ending.ask(),
            Event::HandOver(cause) => self.handover.ask(now, cause),
            Event::Network { reached } => self.protocol.handle_network(now, reached),
            Event::PowerButton => self.inbox.press_power_button(),
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
                None => self.waiting(now, [at, self.digests.next()]),
            });
        }
        let clock = self.pacer.idle_end(now, self.machine.time(), if timer { wake } else { None });
        self.admit(ports, RecordBody::Input(clock));
        self.idle = None;
        None
    }

    /// Whether events may be delivered where the machine stands.
    pub(crate) fn may_deliver(&self) -> bool {
        self.settings.protocol.strategy.delivers_at(self.machine.icount())
    }

    /// The one way in: the protocol logs it, the machine applies it, here and now.
    pub(crate) fn admit(&mut self, ports: &mut impl Ports, body: RecordBody) {
        let record = self.protocol.admit(self.machine.icount(), body);
        ports.record(&record, None);
        if let RecordBody::Input(input) = &record.body {
            self.machine.apply(input);
        }
    }

    /// Runs about a slice; stops early after an output that somebody waits for. Returns host nanoseconds spent.
    fn run_slice(&mut self, ports: &mut impl Ports) -> u64 {
        if self.ending.has_ended() {
            return 0;
        }
        let began = ports.now();
        if self.may_deliver()
            && let Some(clock) = self.pacer.poll_adjustment(began, self.machine.time())
        {
            self.admit(ports, RecordBody::Input(clock));
        }
        let from = self.machine.icount();
        let slice = from.after(self.pacer.steps_in(SLICE_NS).max(SLICE_STEPS_MIN));
        let until = self.settings.protocol.strategy.runs_to(from, slice);
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
                Stop::Halted => self.ending.end(),
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
                self.ending.end();
                self.protocol.hold(ports.now(), self.machine.icount(), output);
            }
            other => self.protocol.hold(ports.now(), self.machine.icount(), other),
        }
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
