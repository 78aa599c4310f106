//! The side whose VM talks to the world.
//!
//! ```text
//!   Primary ── backup silent, link lost, goodbye, this process was away, ─► Claiming ── Won ──► Solo
//!      │ │     newer generation heard                                          │ ▲   │ Lost
//!      │ └── told to hand over ──► HandingOver ── no word in time, link lost, ───┘   ▼
//!      │                                          backup speaks as the live side   Halted
//!      └────────── VM ended (in any other state) ────────────────────────────────►
//! ```
//!
//! Invariants: every record gets the next LSN, and nothing enters but through [`Primary::admit`]; nothing leaves but
//! through the [`OutputGate`]; while `Claiming`, the gate hears no acknowledgement and is not asked, so nothing
//! leaves at all until the arbiter has answered. The same from the moment it hands the VM over.
//!
//! Not here: when an output may leave (`output_gate`), how long silence must last (`silence`), how much the VM is
//! slowed (`lag`).

mod account;
mod handover;
mod network;

use self::network::Network;
use crate::hold_stats::HoldStats;
use crate::lag::{LagLoop, Unexecuted};
use crate::output_gate::OutputGate;
use crate::silence::{Asking, Silence};
use crate::stall::Stall;
use crate::types::{GoodbyeReason, HaltReason, HostTime, Message, Settings, Verdict, output_weight, weight};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::hash::{Hash, Hasher};
use pollux_vocab::{Generation, Icount, Lsn, Output, Record, RecordBody, VirtTime};

/// Outputs that may be held at once; beyond that the VM waits.
pub const HELD_MAX: usize = 65_536;
/// Bytes of outputs that may be held at once; beyond that the VM waits.
pub const HELD_BYTES_MAX: u64 = 256 << 20;
/// Commands that can ever wait: the states only go one way, and a claim that waits is not repeated.
const COMMANDS_MAX: usize = 5;

/// What the node is to do.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Command {
    /// Ask the arbiter for this generation.
    Claim(Generation),
    /// For the record: the backup lives, and has executed nothing, or had no room, for too long.
    BackupStalled,
    /// For the record: the backup is missing.
    BackupLost,
    /// For the record: the VM runs on alone.
    WentSolo {
        /// In this generation.
        generation: Generation,
    },
    /// Run no further.
    Halt(HaltReason),
}

#[derive(Clone, Hash, Debug)]
enum State {
    Solo,
    Primary,
    /// Until then the backup may take over; then this side asks itself.
    HandingOver(HostTime),
    Claiming(Asking),
    Halted,
}

/// Why the state changes.
enum Cause {
    /// The backup is silent, has left, cannot be trusted, speaks of a newer generation, or may have given this side up.
    BackupGone(HostTime),
    /// This side is to give the VM to its backup.
    HandOver(HostTime),
    /// Whether the backup has taken over is to be asked.
    HandedOver(HostTime),
    /// The arbiter gave this side the next generation.
    Won,
    /// The arbiter gave it to the other side.
    Lost,
    /// The VM has ended in good order.
    Ended,
}

/// An output and when it was held.
#[derive(Clone, Debug)]
struct Held {
    output: Output,
    since: HostTime,
}

impl Hash for Held {
    /// How long it was held is counted (`hold_stats`) and steers nothing.
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.output.hash(hasher);
    }
}

/// The primary's (and the solo VM's) state machine.
///
/// Inputs are `handle_*`; what this side does is told by [`Primary::admit`], [`Primary::hold`], [`Primary::flush`];
/// effects come from `poll_*`: after every input, poll releases, then messages, then commands, until `None`. Whoever has
/// sent messages says so ([`Primary::handle_sent`]) before it polls commands.
#[derive(Clone, Hash, Debug)]
pub struct Primary {
    settings: Settings,
    state: State,
    generation: Generation,
    /// The newest record.
    lsn: Lsn,
    /// Where the newest record or held output belongs.
    icount: Icount,
    sent: Lsn,
    acked: Lsn,
    gate: OutputGate<Held>,
    held_bytes: u64,
    unsent: Vec<Record>,
    in_flight: VecDeque<(Lsn, u64)>,
    in_flight_bytes: u64,
    peer_buffered_bytes: u64,
    peer_icount: Icount,
    peer_time: VirtTime,
    silence: Silence,
    said_at: HostTime,
    /// When the newest message that has left in time was written: the backup counts its silence from then, or later.
    spoke_at: HostTime,
    /// When the newest message was written of those that have been handed out, and may or may not have left in time.
    handed_out: Option<HostTime>,
    /// A heartbeat is to be sent: it is time, or somebody from the past should learn that it is.
    heartbeat_due: bool,
    progress_at: HostTime,
    progress_icount: Icount,
    /// The VM has been given away, and not been won back.
    handed: bool,
    unexecuted: Unexecuted,
    /// What the backup has received and executed, as long as it has not executed everything.
    executes: Stall<(Lsn, Lsn, Icount)>,
    /// The window, as long as it is full.
    room: Stall<()>,
    peer_executed: Lsn,
    network: Network,
    lag: LagLoop,
    lag_steps: u64,
    hold_stats: HoldStats,
    messages: VecDeque<Message>,
    commands: VecDeque<Command>,
}

impl Primary {
    /// A VM with no backup, whose next record gets `next_lsn`.
    #[must_use]
    pub fn new_solo(settings: Settings, generation: Generation, now: HostTime, next_lsn: Lsn) -> Self {
        Self::new(settings, generation, now, next_lsn, State::Solo)
    }

    /// A VM with a backup that holds the same state; its log starts at LSN 1.
    #[must_use]
    pub fn new_protected(settings: Settings, generation: Generation, now: HostTime) -> Self {
        Self::new(settings, generation, now, Lsn(1), State::Primary)
    }

    fn new(settings: Settings, generation: Generation, now: HostTime, next_lsn: Lsn, state: State) -> Self {
        let lsn = Lsn(next_lsn.0.saturating_sub(1));
        let (stall_ns, step_ns) = (settings.stall_after_ns, settings.heartbeat_every_ns.saturating_mul(2));
        let executes = Stall::new(stall_ns, step_ns, now);
        let room = Stall::new(stall_ns, step_ns, now);
        Self {
            silence: Silence::new(settings.failure_after_ns, settings.stall_after_ns, now),
            lag: LagLoop::new(settings.lag_target_ns),
            settings,
            state,
            generation,
            lsn,
            icount: Icount(0),
            sent: lsn,
            acked: lsn,
            gate: OutputGate::default(),
            held_bytes: 0,
            unsent: Vec::new(),
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            peer_buffered_bytes: 0,
            peer_icount: Icount(0),
            peer_time: VirtTime(0),
            said_at: now,
            spoke_at: now,
            handed_out: None,
            heartbeat_due: false,
            progress_at: now,
            progress_icount: Icount(0),
            handed: false,
            unexecuted: Unexecuted::default(),
            executes,
            room,
            peer_executed: lsn,
            network: Network::new(now),
            lag_steps: 0,
            hold_stats: HoldStats::default(),
            messages: VecDeque::new(),
            commands: VecDeque::new(),
        }
    }

    // ---- what happened ----

    /// The backup said something.
    pub fn handle_message(&mut self, now: HostTime, message: Message) {
        if matches!(self.state, State::HandingOver(_)) {
            self.handle_while_handing_over(now, &message);
        } else if message.generation() > self.generation {
            // Rule: a newer generation is believed when the arbiter confirms it. Until then nothing is released. Who runs
            // alone need not ask: only a backup could have been given the next one, and it has none.
            self.move_on(Cause::BackupGone(now));
        } else if message.generation() < self.generation {
            self.handle_past(&message);
        } else if matches!(self.state, State::Primary) {
            self.silence.handle_sound(now);
            match message {
                Message::Ack { received, executed, icount, time, buffered_bytes, .. } => {
                    self.peer_icount = self.peer_icount.max(icount);
                    self.peer_time = self.peer_time.max(time);
                    self.peer_buffered_bytes = buffered_bytes;
                    self.handle_ack(now, received, executed);
                }
                Message::Goodbye { .. } => self.move_on(Cause::BackupGone(now)),
                Message::Network { reached, .. } => self.network.peer_reaches = reached,
                Message::Heartbeat { .. } | Message::Records { .. } | Message::Handover { .. } => {}
            }
        }
        self.invariants();
    }

    /// Bytes have arrived on the link to the backup that are no whole message yet.
    pub fn handle_bytes(&mut self, now: HostTime) {
        if matches!(self.state, State::Primary) {
            self.silence.handle_bytes(now);
        }
        self.invariants();
    }

    /// Rule: what an older generation says changes nothing; but a primary from the past is told that it is one.
    fn handle_past(&mut self, message: &Message) {
        if matches!(message, Message::Records { .. }) && !matches!(self.state, State::Halted) {
            self.heartbeat_due = true;
        }
    }

    fn handle_ack(&mut self, now: HostTime, received: Lsn, executed: Lsn) {
        if received > self.sent || executed > received {
            // Rule: a peer that acknowledges what it cannot have is not believed in anything.
            self.move_on(Cause::BackupGone(now));
            return;
        }
        self.acked = self.acked.max(received);
        self.gate.ack(received);
        self.unexecuted.handle_executed(executed);
        self.peer_executed = self.peer_executed.max(executed);
        while self.in_flight.front().is_some_and(|(lsn, _)| *lsn <= received) {
            if let Some((_, bytes)) = self.in_flight.pop_front() {
                self.in_flight_bytes -= bytes;
            }
        }
    }

    /// The link is gone for good.
    pub fn handle_link_lost(&mut self, now: HostTime) {
        self.move_on(Cause::BackupGone(now));
        self.move_on(Cause::HandedOver(now));
        self.invariants();
    }

    /// The arbiter has answered.
    pub fn handle_arbiter(&mut self, now: HostTime, generation: Generation, verdict: Verdict) {
        if generation != self.generation.next() {
            return;
        }
        match verdict {
            Verdict::Won => self.move_on(Cause::Won),
            Verdict::Lost => self.move_on(Cause::Lost),
            // Rule: an unreachable arbiter lets nobody run. Ask again, never guess.
            Verdict::Unreachable => {
                if let State::Claiming(asking) = &mut self.state {
                    asking.handle_unreachable(now);
                }
            }
        }
        self.invariants();
    }

    /// Time passes. Call it before handing over what was received, so that a process that was away notices first.
    pub fn handle_tick(&mut self, now: HostTime) {
        let was_away = self.is_away(now);
        self.silence.handle_tick(now);
        match &mut self.state {
            State::Primary => {
                // Rule: who was away for so long that it may have been replaced asks first.
                if was_away || self.silence.is_dead(now) {
                    self.move_on(Cause::BackupGone(now));
                } else if self.is_stalled(now) {
                    self.commands.push_back(Command::BackupStalled);
                    self.move_on(Cause::BackupGone(now));
                } else if now.since(self.said_at) >= self.settings.heartbeat_every_ns {
                    self.said_at = now;
                    self.heartbeat_due = true;
                }
            }
            // Rule: a primary whose backup does not take over within the bound asks for the VM itself.
            State::HandingOver(until) => {
                if now >= *until {
                    self.move_on(Cause::HandedOver(now));
                }
            }
            State::Claiming(asking) => {
                if asking.is_due(now) {
                    self.ask();
                }
            }
            State::Solo | State::Halted => {}
        }
        self.invariants();
    }

    /// The messages that have been polled were sent, at the latest `now`: a reading of the clock behind the sending.
    ///
    /// Rule: a word that comes late takes nothing back. This process may have stood still between writing and sending,
    /// and its backup have gone live: only a message that left before the backup could do so is one that it may have
    /// heard.
    pub fn handle_sent(&mut self, now: HostTime) {
        if let Some(written) = self.handed_out.take() {
            let in_time = !self.is_away(now);
            if in_time {
                self.spoke_at = written;
            } else {
                self.move_on(Cause::BackupGone(now));
            }
        }
        self.invariants();
    }

    /// Whether the backup may have given this side up: it has not looked at the clock, or not said anything, for as
    /// long as the backup waits. Nothing is written after that before the arbiter has been asked.
    fn is_away(&self, now: HostTime) -> bool {
        self.silence.is_away(now) || now.since(self.spoke_at) >= self.settings.failure_after_ns
    }

    /// Rule: liveness is not progress. A backup that has something to execute and executes nothing, or leaves no room in
    /// the window, for the bound, holds the VM up and protects nothing.
    fn is_stalled(&mut self, now: HostTime) -> bool {
        let owes = !self.unexecuted.is_empty();
        let at = owes.then_some((self.acked, self.peer_executed, self.peer_icount));
        let full = self.is_window_full().then_some(());
        self.executes.look(now, at) | self.room.look(now, full)
    }

    // ---- transitions ----

    /// All transitions. A cause that means nothing in the present state changes nothing.
    fn move_on(&mut self, cause: Cause) {
        match (&self.state, cause) {
            (State::Primary, Cause::BackupGone(now)) => self.seek_solo(now),
            (State::Primary, Cause::HandOver(now)) => {
                let (generation, last) = (self.generation, self.lsn);
                self.messages.push_back(Message::Handover { generation, last });
                self.said_at = now;
                self.heartbeat_due = false;
                self.handed = true;
                self.state = State::HandingOver(now.after(self.settings.handover_after_ns));
            }
            (State::HandingOver(_), Cause::HandedOver(now)) => self.seek_back(now),
            (State::Claiming(_), Cause::Won) => self.go_solo(),
            // Rule: the loser halts.
            (State::Claiming(_), Cause::Lost) if self.handed => {
                self.halt(HaltReason::HandedOver(self.generation.next()));
            }
            (State::Claiming(_), Cause::Lost) => self.halt(HaltReason::LostClaim(self.generation.next())),
            (State::Primary | State::Claiming(_), Cause::Ended) => {
                let (generation, reason) = (self.generation, GoodbyeReason::Ended);
                self.messages.push_back(Message::Goodbye { generation, reason });
                self.state = State::Halted;
            }
            (State::Solo, Cause::Ended) => self.state = State::Halted,
            (
                State::Solo | State::Primary | State::HandingOver(_) | State::Halted,
                Cause::Won | Cause::Lost,
            )
            | (
                State::Solo | State::HandingOver(_) | State::Claiming(_) | State::Halted,
                Cause::BackupGone(_) | Cause::HandOver(_),
            )
            | (State::Solo | State::Primary | State::Claiming(_) | State::Halted, Cause::HandedOver(_))
            | (State::HandingOver(_) | State::Halted, Cause::Ended) => {}
        }
    }

    /// Rule: a primary whose backup is gone releases nothing until it has won the next generation.
    fn seek_solo(&mut self, now: HostTime) {
        self.commands.push_back(Command::BackupLost);
        self.seek_back(now);
    }

    fn seek_back(&mut self, now: HostTime) {
        let (retry_ns, retry_max_ns) = (self.settings.claim_retry_ns, self.settings.claim_retry_max_ns);
        let mut asking = Asking::begun(now, retry_ns, retry_max_ns);
        // Rule: who does not reach the service network lets a side that may reach it claim first.
        let waits = !self.network.reaches;
        if waits {
            asking.put_off(now.after(self.settings.net_wait_ns));
        }
        self.state = State::Claiming(asking);
        self.unsent.clear();
        self.in_flight.clear();
        self.in_flight_bytes = 0;
        self.peer_buffered_bytes = 0;
        self.unexecuted.clear();
        self.lag.reset();
        self.lag_steps = 0;
        self.heartbeat_due = false;
        if !waits {
            self.ask();
        }
    }

    fn ask(&mut self) {
        let claim = Command::Claim(self.generation.next());
        if !self.commands.contains(&claim) {
            self.commands.push_back(claim);
        }
    }

    fn go_solo(&mut self) {
        self.generation = self.generation.next();
        self.state = State::Solo;
        self.handed = false;
        self.open_gate();
        self.commands.push_back(Command::WentSolo { generation: self.generation });
    }

    /// A VM alone owes nobody an acknowledgement: what is held now may leave, what comes later is sealed later.
    fn open_gate(&mut self) {
        self.gate.seal(self.lsn);
        self.gate.ack(self.lsn);
    }

    fn halt(&mut self, reason: HaltReason) {
        self.state = State::Halted;
        self.messages.clear();
        self.unsent.clear();
        self.heartbeat_due = false;
        self.commands.push_back(Command::Halt(reason));
    }

    // ---- what this side did ----

    /// The only way in: gives the event its place in the log. The caller applies it at `icount`, which is now.
    pub fn admit(&mut self, icount: Icount, body: RecordBody) -> Record {
        self.reach(icount);
        self.lsn = self.lsn.next();
        let record = Record { lsn: self.lsn, icount, body };
        if matches!(self.state, State::Primary) {
            let bytes = weight(&record);
            self.in_flight.push_back((record.lsn, bytes));
            self.in_flight_bytes += bytes;
            self.unsent.push(record.clone());
        }
        record
    }

    /// The machine made an output at `icount`: into the gate. `icount` must not be later than the next flush's.
    pub fn hold(&mut self, now: HostTime, icount: Icount, output: Output) {
        self.reach(icount);
        self.held_bytes += output_weight(&output);
        self.gate.hold(Held { output, since: now });
    }

    /// The machine's time only goes forward; so a mark written at a flush lies behind every output that it covers.
    fn reach(&mut self, icount: Icount) {
        assert!(icount >= self.icount, "the log goes back from icount {} to {icount}", self.icount);
        self.icount = icount;
    }

    /// The machine stands at `icount`, and everything up to there has been admitted and held: seals what is held with
    /// one mark, and sends. A silent log still tells now and then how far the VM has come.
    pub fn flush(&mut self, now: HostTime, icount: Icount, time: VirtTime) {
        self.reach(icount);
        match self.state {
            State::Solo => self.open_gate(),
            State::Primary if self.is_away(now) => self.move_on(Cause::BackupGone(now)),
            State::Primary => {
                if self.gate.has_unsealed() {
                    let mark = self.admit(icount, RecordBody::Mark);
                    self.gate.seal(mark.lsn);
                } else if self.unsent.is_empty()
                    && icount > self.progress_icount
                    && now.since(self.progress_at) >= self.settings.progress_every_ns
                {
                    self.admit(icount, RecordBody::Progress);
                }
                self.measure_lag(now, icount, time);
                self.send(now, icount);
            }
            State::HandingOver(_) | State::Claiming(_) | State::Halted => {}
        }
        self.invariants();
    }

    fn measure_lag(&mut self, now: HostTime, icount: Icount, time: VirtTime) {
        let behind_ns = time.0.saturating_sub(self.peer_time.0);
        self.lag_steps = icount.since(self.peer_icount);
        self.lag.handle_measurement(now, behind_ns.min(self.unexecuted.age_ns(now)));
    }

    fn send(&mut self, now: HostTime, icount: Icount) {
        if self.unsent.is_empty() {
            return;
        }
        let records = core::mem::take(&mut self.unsent);
        self.sent = self.lsn;
        self.said_at = now;
        self.heartbeat_due = false;
        self.progress_at = now;
        self.progress_icount = icount;
        self.unexecuted.handle_sent(now, self.lsn);
        // `released` is filled in when the message leaves.
        self.messages.push_back(Message::Records { generation: self.generation, released: Lsn(0), records });
    }

    /// The VM has ended in good order: tells the backup not to take over.
    pub fn say_goodbye(&mut self) {
        self.move_on(Cause::Ended);
        self.invariants();
    }

    // ---- effects ----

    /// The next output that may leave. Release it before the next message is sent: the message says that it has been.
    pub fn poll_release(&mut self, now: HostTime) -> Option<Output> {
        let may = match self.state {
            State::Solo => true,
            // Stopped since its last tick, this process may have been replaced: the next tick will ask the arbiter.
            State::Primary => !self.is_away(now),
            State::HandingOver(_) => false,
            State::Claiming(_) | State::Halted => false,
        };
        if !may {
            return None;
        }
        let Held { output, since } = self.gate.release()?;
        self.held_bytes -= output_weight(&output);
        self.hold_stats.count(now.since(since));
        Some(output)
    }

    /// The next message to the backup.
    pub fn poll_message(&mut self) -> Option<Message> {
        if self.heartbeat_due || !self.messages.is_empty() {
            self.handed_out = Some(self.said_at);
        }
        if let Some(mut message) = self.messages.pop_front() {
            if let Message::Records { released, .. } = &mut message {
                *released = self.gate.released();
            }
            return Some(message);
        }
        core::mem::take(&mut self.heartbeat_due).then_some(Message::Heartbeat { generation: self.generation })
    }

    /// The next thing to do.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    // ---- questions ----

    /// The lease: until when, by this host's clock, nobody can have taken this side's place, as long as what it sends
    /// arrives. What has been released and is still on its way may leave before then; after that only if the lease has
    /// been renewed.
    #[must_use]
    pub fn lease(&self) -> HostTime {
        match self.state {
            State::Solo => HostTime(u64::MAX),
            // Nor longer than it takes this side to count its backup as dead: of a link that is cut both ways the other
            // end will know about as soon as this one.
            State::Primary => {
                let spoken = self.spoke_at.after(self.settings.failure_after_ns);
                self.silence.away_at().min(spoken).min(self.silence.assured_until())
            }
            State::HandingOver(_) | State::Claiming(_) | State::Halted => HostTime(0),
        }
    }
}
