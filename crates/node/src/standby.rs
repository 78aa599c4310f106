//! The side that replays: it executes the log, performs replicated disk requests on its own images, drops
//! every other output, and is ready to go live.
//!
//! Invariants guarded here: a record is applied at exactly its icount; a completion is applied only when this
//! host's own copy of that request is done (DESIGN 6); the machine never runs past the last record it holds; a
//! divergence is named and stops the replica, it never spreads (DESIGN 2).
//!
//! Not here: when records are acknowledged and who may go live (`pollux-protocol`).

use crate::disks::{DiskMode, Disks};
use crate::divergence::compare;
use crate::ending::Ending;
use crate::live::Live;
use crate::ports::{DiskCompletion, DiskFault, Divergence, Event, HandoverCause, Notice, Ports};
use crate::unconfirmed::Unconfirmed;
use crate::{DIGEST_PAGES_MAX, EVENTS_PER_STEP_MAX, HaltCause, Next, Outcome, Settings};
use alloc::collections::BTreeMap;
use alloc::format;
use pollux_machine::{Difference, Machine, Stop};
use pollux_protocol::{Backup, BackupCommand, HaltReason, HostTime, Message, Primary};
use pollux_vocab::{Control, Generation, Icount, Input, Lsn, Output, Record, RecordBody, RequestId, SlotId};

/// Host nanoseconds replayed before the world is looked at again, about: records are acknowledged soon, and looking
/// costs little.
const SLICE_NS: u64 = 100_000;
/// Steps in a slice. How many take [`SLICE_NS`] depends on the guest and on the engine, and differs by a factor of a
/// hundred; a slice that turns out slower than those before must not take long.
const SLICE_STEPS: core::ops::RangeInclusive<u64> = 10_000..=1_000_000;

/// The replaying side of the loop.
#[derive(Debug)]
pub struct Standby<M> {
    pub(crate) machine: M,
    pub(crate) protocol: Backup,
    disks: Disks,
    settings: Settings,
    /// Requests begun on this host and not yet applied, with their completion once they have one.
    begun: BTreeMap<(SlotId, RequestId), Option<DiskCompletion>>,
    /// Outputs that the primary may or may not have released.
    unconfirmed: Unconfirmed,
    /// Set when the VM has ended: the machine has said its last word, or an operator stopped it.
    ended: bool,
    /// Steps in the next slice.
    slice_steps: u64,
    /// What this host's disk has done to it: this side is of no use any more.
    disk_fault: Option<(SlotId, DiskFault)>,
    /// An operator stops this side. If it has won the VM by then, it ends the VM as soon as it is live.
    stop_asked: bool,
    /// The primary has told this side to take over.
    asked: bool,
    /// How often the machine had been reset when the world was last told.
    restarts: u64,
}

/// What one attempt to replay came to.
enum Progress {
    /// Something was done; there may be more.
    Moved,
    /// Nothing can be done before the world says something.
    Stuck,
}

/// What became of a record.
enum Applied {
    /// It is applied; the next one may be.
    Done,
    /// It takes more than a slice: go on with it once the world has been heard.
    More,
    /// This host's own disk has not got that far yet.
    Waits,
}

impl<M: Machine> Standby<M> {
    /// A standby around a machine in the state that the pair starts from.
    pub fn new(machine: M, protocol: Backup, settings: Settings) -> Self {
        Self {
            disks: Disks::new(settings.disk_modes.clone()),
            restarts: machine.restarts(),
            machine,
            protocol,
            settings,
            begun: BTreeMap::new(),
            unconfirmed: Unconfirmed::default(),
            ended: false,
            slice_steps: *SLICE_STEPS.start(),
            disk_fault: None,
            stop_asked: false,
            asked: false,
        }
    }

    /// Begins the requests that were in flight in the snapshot both sides start from.
    pub fn begin_pending(&mut self, ports: &mut impl Ports) {
        for output in self.machine.pending() {
            self.handle_output(ports, output);
        }
    }

    /// One turn of the loop: hear the world, acknowledge, replay a slice.
    ///
    /// Returns the live side in place of `Next` when this side has gone live.
    pub fn step(&mut self, ports: &mut impl Ports) -> Result<Next, GoLive> {
        let now = ports.now();
        // Ticks first: a process that slept listens before it judges.
        self.protocol.handle_tick(now);
        for _ in 0..EVENTS_PER_STEP_MAX {
            let Some(event) = ports.poll_event() else { break };
            self.handle_event(ports, now, event);
        }
        if let Some(outcome) = self.drain_protocol(ports)? {
            return Ok(Next::Finished(outcome));
        }
        let (began, from) = (ports.now(), self.machine.icount());
        match self.replay_slice(ports) {
            Ok(progress) => {
                let now = ports.now();
                let steps = self.machine.icount().since(from);
                self.slice_steps = fitted(self.slice_steps, steps, now.since(began));
                if self.machine.restarts() != self.restarts {
                    self.restarts = self.machine.restarts();
                    ports.notice(Notice::Restarted(self.restarts));
                }
                self.protocol.handle_executed(now, self.machine.icount(), self.machine.time());
                if let Some(outcome) = self.drain_protocol(ports)? {
                    return Ok(Next::Finished(outcome));
                }
                Ok(match progress {
                    Progress::Moved => Next::Again,
                    Progress::Stuck => Next::WaitUntil(
                        self.protocol
                            .next_timeout()
                            .unwrap_or(HostTime(now.0 + 50_000_000))
                            .max(HostTime(now.0 + 1)),
                    ),
                })
            }
            Err(outcome) => {
                self.protocol.handle_divergence();
                while let Some((to, message)) = self.protocol.poll_message() {
                    ports.send_message(to, message);
                }
                Ok(Next::Finished(*outcome))
            }
        }
    }

    fn handle_event(&mut self, ports: &mut impl Ports, now: HostTime, event: Event) {
        match event {
            Event::Message(from, message) => {
                self.asked |= matches!(message, Message::Handover { .. });
                self.protocol.handle_message(now, from, message);
            }
            Event::LinkBytes(from) => self.protocol.handle_bytes(now, from),
            Event::LinkLost(from) => self.protocol.handle_link_lost(now, from),
            Event::Verdict(generation, verdict) => {
                if verdict == pollux_protocol::Verdict::Won {
                    ports.notice(Notice::ArbiterWon(generation));
                }
                self.protocol.handle_arbiter(now, generation, verdict);
            }
            Event::DiskDone(done) => {
                if let Some(entry) = self.begun.get_mut(&(done.slot, done.request)) {
                    *entry = Some(done);
                }
            }
            // Rule: a backup whose disk hangs could not go live: it leaves, so that nobody relies on it.
            Event::DiskFault { slot, fault } => {
                self.disk_fault = Some((slot, fault));
                self.protocol.leave();
            }
            // The VM goes on without this side.
            Event::Stop | Event::HandOver(HandoverCause::Terminate) => {
                self.stop_asked = true;
                self.protocol.leave();
            }
            Event::Network { reached } => self.protocol.handle_network(now, reached),
            // A standby has no ears for the world: packets flooded by the switch, keys, random bytes.
            Event::Packet { .. }
            | Event::Console { .. }
            | Event::Entropy { .. }
            | Event::PowerButton
            | Event::HandOver(_) => {}
        }
    }

    fn drain_protocol(&mut self, ports: &mut impl Ports) -> Result<Option<Outcome>, GoLive> {
        while let Some((to, message)) = self.protocol.poll_message() {
            ports.send_message(to, message);
        }
        while let Some(command) = self.protocol.poll_command() {
            match command {
                BackupCommand::Claim(generation) => {
                    ports.notice(if self.asked { Notice::TakeoverAsked } else { Notice::PrimarySuspected });
                    ports.hold_fences();
                    ports.claim(generation);
                }
                BackupCommand::GoLive { generation, next_lsn } => {
                    return Err(GoLive { generation, next_lsn });
                }
                BackupCommand::Halt(reason) => {
                    let cause = match (self.disk_fault, reason) {
                        (Some((slot, fault)), HaltReason::Left) => HaltCause::DiskFault { slot, fault },
                        (_, reason) => HaltCause::Protocol(reason),
                    };
                    return Ok(Some(Outcome::Halted(cause)));
                }
            }
        }
        Ok(None)
    }

    fn replay_slice(&mut self, ports: &mut impl Ports) -> Result<Progress, alloc::boxed::Box<Outcome>> {
        let limit = self.machine.icount().after(self.slice_steps);
        let mut moved = false;
        while let Some(record) = self.protocol.next_record() {
            let at = record.icount;
            if self.machine.icount() > at {
                return Err(self.diverged("the log names an instant that this side has passed".into()));
            }
            if self.machine.icount() < at {
                self.run_towards(ports, at.min(limit))?;
                moved = true;
            }
            if self.machine.icount() < at {
                break;
            }
            let record = record_clone(self.protocol.next_record());
            match self.apply(ports, &record)? {
                Applied::Waits => break,
                Applied::More => return Ok(Progress::Moved),
                Applied::Done => {}
            }
            moved = true;
            self.protocol.pop_record();
            self.unconfirmed.forget(self.protocol.released());
        }
        Ok(if moved { Progress::Moved } else { Progress::Stuck })
    }

    fn run_towards(
        &mut self,
        ports: &mut impl Ports,
        until: Icount,
    ) -> Result<(), alloc::boxed::Box<Outcome>> {
        loop {
            let stop = self.machine.run(until);
            self.take_outputs(ports);
            match stop {
                Stop::Until => return Ok(()),
                Stop::Output => {}
                // Idle or halted right at the record's instant is where the primary was, too.
                Stop::Idle { .. } | Stop::Halted if self.machine.icount() >= until => return Ok(()),
                Stop::Idle { .. } => {
                    return Err(self.diverged("this side is idle where the other went on executing".into()));
                }
                Stop::Halted => {
                    return Err(
                        self.diverged("this side has halted where the other went on executing".into())
                    );
                }
            }
        }
    }

    fn take_outputs(&mut self, ports: &mut impl Ports) {
        while let Some(output) = self.machine.take_output() {
            self.handle_output(ports, output);
        }
    }

    fn handle_output(&mut self, ports: &mut impl Ports, output: Output) {
        match output {
            Output::Disk(request) if self.disks.mode(request.slot) == DiskMode::Replicated => {
                self.begun.insert((request.slot, request.request), None);
                ports.submit_disk(request);
            }
            Output::Disk(_) | Output::EntropyWanted { .. } => {}
            other => {
                self.ended |= matches!(other, Output::PowerOff { .. } | Output::Reset);
                self.unconfirmed.push(self.machine.icount(), other);
            }
        }
    }

    /// Applies a record at its instant.
    fn apply(
        &mut self,
        ports: &mut impl Ports,
        record: &Record,
    ) -> Result<Applied, alloc::boxed::Box<Outcome>> {
        match &record.body {
            RecordBody::Input(input) => self.machine.apply(input),
            RecordBody::DiskDoneLocal { slot, request, status } => {
                let key = (*slot, *request);
                match self.begun.get(&key) {
                    None => {
                        let what = format!(
                            "the log completes request {request} of disk {slot}, which this side never made"
                        );
                        return Err(self.diverged(what.into()));
                    }
                    Some(None) => return Ok(Applied::Waits),
                    Some(Some(done)) if done.status != *status => {
                        let (here, there) = (done.status, *status);
                        let cause = HaltCause::DiskDiffers { slot: *slot, request: *request, here, there };
                        return Err(Outcome::Halted(cause).into());
                    }
                    Some(Some(_)) => {}
                }
                if let Some(Some(done)) = self.begun.remove(&key) {
                    let DiskCompletion { slot, request, status, data } = done;
                    self.machine.apply(&Input::DiskDone { slot, request, status, data });
                }
            }
            // A primary that hears nothing for long would think that this side has died.
            RecordBody::Digest(_) if !self.machine.prepare_digest(DIGEST_PAGES_MAX) => {
                return Ok(Applied::More);
            }
            RecordBody::Digest(theirs) => {
                let ours = self.machine.digest();
                ports.digest(record.icount, &ours);
                if let Some(what) = compare(&ours, theirs) {
                    return Err(self.diverged(what));
                }
                ports.notice(Notice::DigestAgreed(record.icount));
            }
            // The primary's last word is then not the machine's, but its own.
            RecordBody::Control(Control::Stop) => {
                self.ended = true;
                self.unconfirmed.push(record.icount, Output::PowerOff { status: 0 });
            }
            RecordBody::Mark => self.unconfirmed.handle_mark(record.lsn),
            RecordBody::Progress => {}
        }
        // What an event made the machine say (a request that a completion has set free) is said at this record, and
        // the next record may already be about it.
        self.take_outputs(ports);
        Ok(Applied::Done)
    }

    fn diverged(&self, what: Difference) -> alloc::boxed::Box<Outcome> {
        Outcome::Halted(HaltCause::Diverged(Divergence { icount: self.machine.icount(), what })).into()
    }

    /// Turns this side into the live one (DESIGN 5, "Going live"). Call when [`Standby::step`] says so.
    ///
    /// Outputs that may not have been released are repeated first ("duplicates, not gaps"); then every disk
    /// request without a completion is issued again, and the network told where the guest is.
    pub fn go_live(mut self, ports: &mut impl Ports, granted: &GoLive) -> Live<M> {
        self.unconfirmed.forget(self.protocol.released());
        ports.notice(Notice::Replayed(self.machine.icount()));
        let now = ports.now();
        let mut protocol =
            Primary::new_solo(self.settings.protocol.clone(), granted.generation, now, granted.next_lsn);
        while let Some((icount, output)) = self.unconfirmed.pop() {
            protocol.hold(now, icount, output);
        }
        let before = self.protocol.primary();
        let begun: BTreeMap<_, _> = self.begun.keys().map(|key| (*key, ())).collect();
        let adopted = self.begun.into_values().flatten().collect();
        let mut live = Live::new(self.machine, protocol, self.settings, now, adopted);
        live.ending = Ending::taken_over(self.stop_asked, self.ended);
        live.protocol.queue_taken_over(before);
        ports.announce();
        live.reissue(ports, &begun);
        ports.open_fences(granted.generation);
        ports.notice(Notice::WentLive(granted.generation));
        live
    }
}

/// What a slice ought to have after one of `slice` steps, of which `steps` were executed before a record ended it, has
/// taken `spent_ns`. One that executed little tells nothing: its time may have gone into hashing pages.
fn fitted(slice: u64, steps: u64, spent_ns: u64) -> u64 {
    if spent_ns > SLICE_NS && steps >= slice / 4 {
        (slice / 2).max(*SLICE_STEPS.start())
    } else if spent_ns < SLICE_NS / 2 && steps >= slice {
        (slice * 2).min(*SLICE_STEPS.end())
    } else {
        slice
    }
}

fn record_clone(record: Option<&Record>) -> Record {
    record.cloned().unwrap_or(Record { lsn: Lsn(0), icount: Icount(0), body: RecordBody::Progress })
}

/// The right to go live, as granted by the arbiter and the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GoLive {
    /// The generation that was won.
    pub generation: Generation,
    /// Where the new log goes on.
    pub next_lsn: Lsn,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_grow_to_what_fits_and_shrink_when_execution_is_slow_but_not_for_other_work() {
        let slow = |slice: u64| fitted(slice, slice, slice * 10);
        let fast = |slice: u64| fitted(slice, slice, slice / 4);
        let after = |fit: &dyn Fn(u64) -> u64, first: u64| (0..20).fold(first, |slice, _| fit(slice));
        assert_eq!(after(&slow, 1_000_000), 10_000, "ten nanoseconds a step");
        assert_eq!(
            after(&fast, 10_000),
            320_000,
            "a quarter: not more than a slice's time, and at least half of it"
        );
        assert_eq!(fitted(80_000, 100, 5 * SLICE_NS), 80_000, "hashing");
        assert_eq!(fitted(80_000, 100, 10), 80_000, "a record has ended it");
    }
}
