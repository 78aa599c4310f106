//! The side that replays.
//!
//! ```text
//!   Backup ── silent, lost, hands over, ──► Claiming ── Won ──► Draining ── log empty ──► Live (a new Primary)
//!      │      newer generation heard           │ Lost, goodbye,     │ divergence
//!      │                                       │ told to leave      │
//!      ├── fault, ────────────────────────────►└─── Halted ◄────────┘
//!      │   gone without a word                        ▲
//!      └── goodbye (also while claiming) ─► Ending ───┘ log empty
//! ```
//!
//! Invariants: a record is acknowledged when it is received, and every acknowledged record is replayed before this
//! side goes live, so no released output is ever contradicted. From the moment it claims, it takes nothing more
//! in and acknowledges nothing more: what it holds then *is* the log.
//!
//! Not here: how a record is applied (`pollux-node`), how the arbiter is asked (`claim`), how long silence must last
//! (`silence`).

use crate::claim::{Answer, Claim};
use crate::peer::PeerId;
use crate::silence::Silence;
use crate::stall::Stall;
use crate::timer::{Timer, TimerTable};
use crate::types::{GoodbyeReason, HaltReason, HostTime, Message, Report, Role, Settings, Verdict, weight};
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use pollux_vocab::{Generation, Icount, Lsn, Record, VirtTime};

/// A sign of how far this side has come is sent at least this often while it moves.
const NEWS_EVERY_NS: u64 = 5_000_000;
/// The log held may be this many times the send window: a primary overshoots by what one slice admits.
const WINDOWS_MAX: u64 = 2;
/// Commands that can ever wait: the states only go one way, and a claim that waits is not repeated.
const COMMANDS_MAX: usize = 3;

/// What the node is to do.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum BackupCommand {
    /// Ask the arbiter for this generation.
    Claim(Generation),
    /// Become the live side: the arbiter has been won and the log replayed to its end.
    GoLive {
        /// In this generation.
        generation: Generation,
        /// The next record gets this LSN.
        next_lsn: Lsn,
    },
    /// Run no further.
    Halt(HaltReason),
}

#[derive(Clone, Hash, Debug)]
enum State {
    Backup,
    Claiming(Claim),
    Draining(Generation),
    /// The VM has ended, and this side still executes what was before that.
    Ending,
    Live,
    Halted,
}

/// Why the state changes.
enum Cause {
    /// The primary is silent, or hands the VM over, or the link is gone.
    PrimaryGone(HostTime),
    /// The primary has handed the VM over.
    HandedOver(HostTime),
    /// The arbiter gave this side the next generation.
    Won,
    /// The arbiter gave it to the other side.
    Lost,
    /// The log may have been replayed to its end.
    Replayed,
    /// The VM has ended in good order.
    Ended,
    /// The primary breaks the protocol.
    Fault(String),
    /// This replica executes nothing of what it holds.
    Stalled,
    /// This replica is told to leave.
    Told,
    /// This replica is not the primary's copy any more.
    Diverged,
}

/// The backup's state machine.
///
/// Inputs are `handle_*`; what this side executes is told by [`Backup::pop_record`] and [`Backup::handle_executed`];
/// effects come from `poll_*`: after every input, poll messages, then commands, until `None`.
#[derive(Clone, Hash, Debug)]
pub struct Backup {
    settings: Settings,
    state: State,
    generation: Generation,
    /// The side that this one backs up.
    primary: PeerId,
    log: VecDeque<Record>,
    log_bytes: u64,
    received: Lsn,
    received_icount: Icount,
    executed: Lsn,
    icount: Icount,
    time: VirtTime,
    /// What the primary says of the outputs that this record and older ones cover: they have been released.
    released: Lsn,
    ack_due: bool,
    /// More has been received or executed than the last acknowledgement says.
    has_news: bool,
    /// When the newest acknowledgement was queued.
    queued_at: HostTime,
    /// A message of this generation has been received from the primary, so it holds it.
    has_received: bool,
    silence: Silence,
    executes: Stall<(Lsn, Icount)>,
    /// This host reaches the service network, and clients it.
    serves: bool,
    messages: VecDeque<Message>,
    commands: VecDeque<BackupCommand>,
}

impl Backup {
    /// A backup of `primary` in `generation`, in the state that its log starts from (LSN 1 comes first).
    #[must_use]
    pub fn new(settings: Settings, generation: Generation, now: HostTime, primary: PeerId) -> Self {
        // Before the primary finds it out: it leaves with a word of its own.
        let stall_ns = settings.stall_after_ns / 4 * 3;
        let executes = Stall::new(stall_ns, settings.heartbeat_every_ns.saturating_mul(2), now);
        Self {
            silence: Silence::new(settings.failure_after_ns, settings.stall_after_ns, now),
            settings,
            state: State::Backup,
            generation,
            primary,
            log: VecDeque::new(),
            log_bytes: 0,
            received: Lsn(0),
            received_icount: Icount(0),
            executed: Lsn(0),
            icount: Icount(0),
            time: VirtTime(0),
            released: Lsn(0),
            ack_due: false,
            has_news: false,
            queued_at: now,
            has_received: false,
            executes,
            serves: true,
            messages: VecDeque::new(),
            commands: VecDeque::new(),
        }
    }

    // ---- what happened ----

    /// A message from another replica.
    pub fn handle_message(&mut self, now: HostTime, from: PeerId, message: Message) {
        if message.generation() > self.generation {
            // Rule: a newer generation is believed when the arbiter confirms it. Either way nothing more comes from the
            // primary that this side backs up.
            self.move_on(Cause::PrimaryGone(now));
        } else if message.generation() == self.generation && from == self.primary {
            self.has_received = true;
            self.silence.handle_received(now);
            match message {
                Message::Records { released, records, .. } => self.handle_records(now, released, records),
                Message::Goodbye { .. } => self.move_on(Cause::Ended),
                // Rule: a primary that hands over is a primary that is gone, once its log is here to the end. If a part
                // of that is missing it may still come; when not, silence says the same a little later.
                Message::Handover { last, .. } if last <= self.received => {
                    self.move_on(Cause::HandedOver(now));
                }
                Message::Heartbeat { .. }
                | Message::Ack { .. }
                | Message::Network { .. }
                | Message::Handover { .. } => {}
            }
        }
        self.invariants();
    }

    /// Bytes have arrived on the link from the primary that are no whole message yet. They do not say that it ever ran.
    pub fn handle_bytes(&mut self, now: HostTime, from: PeerId) {
        if matches!(self.state, State::Backup) && from == self.primary {
            self.silence.handle_bytes(now);
        }
        self.invariants();
    }

    fn handle_records(&mut self, now: HostTime, released: Lsn, records: Vec<Record>) {
        // Rule: from the claim on, nothing is taken in and nothing acknowledged. What was acknowledged and not
        // replayed would be released over there and contradicted here.
        if !matches!(self.state, State::Backup) {
            return;
        }
        let is_awaited = self.settings.strategy.acknowledges_at_once(&records);
        for record in records {
            if let Err(what) = self.receive(record) {
                self.move_on(Cause::Fault(what));
                return;
            }
        }
        self.released = self.released.max(released.min(self.received));
        // Rule: acknowledge on receipt, not on execution.
        if is_awaited {
            self.queue_ack(now);
        } else {
            self.has_news = true;
        }
    }

    fn receive(&mut self, record: Record) -> Result<(), String> {
        if record.lsn <= self.received {
            return Ok(());
        }
        if record.lsn != self.received.next() {
            return Err(format!("record {} follows record {}: the log has a gap", record.lsn, self.received));
        }
        if record.icount < self.received_icount {
            return Err(format!(
                "record {} goes back from icount {} to {}",
                record.lsn, self.received_icount, record.icount
            ));
        }
        self.received = record.lsn;
        self.received_icount = record.icount;
        self.log_bytes = self.log_bytes.saturating_add(weight(&record));
        self.log.push_back(record);
        if self.log_bytes > self.log_bytes_max() {
            return Err(format!("it sent {} bytes of log beyond what the window allows", self.log_bytes));
        }
        Ok(())
    }

    fn log_bytes_max(&self) -> u64 {
        self.settings.send_window_bytes.saturating_mul(WINDOWS_MAX)
    }

    /// The link is gone for good. What was received before stays.
    pub fn handle_link_lost(&mut self, now: HostTime, from: PeerId) {
        if from == self.primary {
            self.move_on(Cause::PrimaryGone(now));
        }
        self.invariants();
    }

    /// The arbiter has answered.
    pub fn handle_arbiter(&mut self, now: HostTime, generation: Generation, verdict: Verdict) {
        let State::Claiming(claim) = &mut self.state else { return };
        match claim.handle_verdict(now, generation, verdict) {
            Some(Answer::Won) => self.move_on(Cause::Won),
            Some(Answer::Lost) => self.move_on(Cause::Lost),
            None => {}
        }
        self.invariants();
    }

    /// Time passes. Call it before handing over what was received.
    pub fn handle_tick(&mut self, now: HostTime) {
        self.silence.handle_tick(now);
        let timers = self.timers();
        match &self.state {
            State::Backup => {
                let owes = !self.log.is_empty() && self.settings.strategy.executes();
                let at = owes.then_some((self.executed, self.icount));
                let stalled = self.executes.look(now, at);
                if stalled {
                    self.move_on(Cause::Stalled);
                } else if timers.is_expired(Timer::Silence, now) {
                    self.move_on(Cause::PrimaryGone(now));
                } else if timers.is_expired(Timer::Heartbeat, now) {
                    self.queue_ack(now);
                }
            }
            State::Claiming(_) => self.ask_when_due(now),
            State::Draining(_) | State::Ending | State::Live | State::Halted => {}
        }
        self.invariants();
    }

    fn queue_ack(&mut self, now: HostTime) {
        self.ack_due = true;
        self.queued_at = now;
    }

    /// When to send an acknowledgement if nothing calls for it: soon if there is news, else as a heartbeat.
    fn heartbeat_at(&self) -> HostTime {
        let every_ns = self.settings.heartbeat_every_ns;
        self.queued_at.after(if self.has_news { every_ns.min(NEWS_EVERY_NS) } else { every_ns })
    }

    // ---- transitions ----

    /// All transitions. A cause that means nothing in the present state changes nothing.
    fn move_on(&mut self, cause: Cause) {
        match (&self.state, cause) {
            // Rule: a primary that never sent anything may never have won its generation; nobody takes over from it.
            (State::Backup, Cause::PrimaryGone(_)) if !self.has_received => self.halt(HaltReason::NeverHeard),
            (State::Backup, Cause::PrimaryGone(now)) => self.seek_live(now, self.serves),
            // There is nobody to wait for: a primary that hands over does not claim.
            (State::Backup, Cause::HandedOver(now)) => self.seek_live(now, true),
            (State::Backup, Cause::Stalled) => {
                self.queue_goodbye(GoodbyeReason::Leaving);
                self.halt(HaltReason::Stalled);
            }
            (State::Claiming(_), Cause::Won) => {
                self.state = State::Draining(self.generation.next());
                self.go_live_when_replayed();
            }
            // Rule: the loser halts.
            (State::Claiming(_), Cause::Lost) => self.halt(HaltReason::LostClaim(self.generation.next())),
            (State::Draining(_), Cause::Replayed) => self.go_live_when_replayed(),
            (State::Ending, Cause::Replayed) => self.end_when_replayed(),
            // Rule: an orderly end is no death, not even one that was suspected before it was told.
            // What the VM did until then is done on this side, too: both leave equal disks.
            (State::Backup | State::Claiming(_), Cause::Ended) => {
                self.state = State::Ending;
                self.ack_due = false;
                self.end_when_replayed();
            }
            (State::Backup, Cause::Fault(what)) => {
                self.queue_goodbye(GoodbyeReason::Leaving);
                self.halt(HaltReason::PeerFault(what));
            }
            (State::Backup, Cause::Told) => {
                self.queue_goodbye(GoodbyeReason::Leaving);
                self.halt(HaltReason::Left);
            }
            (State::Ending, Cause::Told) => self.halt(HaltReason::Left),
            // The claim may have been granted and its answer be on the way: nobody knows whether the VM goes on.
            (State::Claiming(_), Cause::Told) => {
                self.halt(HaltReason::LeftClaiming(self.generation.next()));
            }
            (State::Backup | State::Claiming(_) | State::Draining(_) | State::Ending, Cause::Diverged) => {
                self.queue_goodbye(GoodbyeReason::Diverged);
                // No command: the caller has seen the divergence itself, and knows more about it.
                self.state = State::Halted;
                self.ack_due = false;
            }
            (State::Live | State::Halted, _)
            | (State::Backup | State::Draining(_) | State::Ending, Cause::Won | Cause::Lost)
            | (
                State::Claiming(_) | State::Draining(_) | State::Ending,
                Cause::PrimaryGone(_) | Cause::HandedOver(_) | Cause::Fault(_) | Cause::Stalled,
            )
            | (State::Backup | State::Claiming(_), Cause::Replayed)
            | (State::Ending, Cause::Ended)
            // Rule: who has won is the VM. It cannot leave, only end it, once it is live.
            | (State::Draining(_), Cause::Ended | Cause::Told) => {}
        }
    }

    /// Rule: before going live, win the arbiter. From here on nothing is acknowledged.
    fn seek_live(&mut self, now: HostTime, serves: bool) {
        let next = self.generation.next();
        self.state = State::Claiming(Claim::begin(&self.settings, now, next, serves));
        self.ack_due = false;
        self.ask_when_due(now);
    }

    /// This host has lost the service network, or has it back: the primary is told.
    pub fn handle_network(&mut self, now: HostTime, reached: bool) {
        if self.serves != reached {
            self.serves = reached;
            match &mut self.state {
                State::Backup => {
                    let generation = self.generation;
                    self.messages.retain(|message| !matches!(message, Message::Network { .. }));
                    self.messages.push_back(Message::Network { generation, reached });
                }
                State::Claiming(claim) if reached => claim.handle_served(now),
                State::Claiming(_) | State::Draining(_) | State::Ending | State::Live | State::Halted => {}
            }
        }
        self.invariants();
    }

    fn ask_when_due(&mut self, now: HostTime) {
        let State::Claiming(claim) = &mut self.state else { return };
        if let Some(claim) = claim.poll_question(now).map(BackupCommand::Claim)
            && !self.commands.contains(&claim)
        {
            self.commands.push_back(claim);
        }
    }

    /// Rule: who has won goes live when its log is replayed as far as the strategy demands.
    fn go_live_when_replayed(&mut self) {
        if let State::Draining(generation) = self.state
            && self.settings.strategy.may_go_live(self.log.len())
        {
            self.state = State::Live;
            self.commands.push_back(BackupCommand::GoLive { generation, next_lsn: self.received.next() });
        }
    }

    /// Rule: a VM that has ended is replayed to its end before this side leaves.
    fn end_when_replayed(&mut self) {
        if self.log.is_empty() {
            self.halt(HaltReason::PeerEnded);
        }
    }

    fn halt(&mut self, reason: HaltReason) {
        self.state = State::Halted;
        self.ack_due = false;
        self.commands.push_back(BackupCommand::Halt(reason));
    }

    fn queue_goodbye(&mut self, reason: GoodbyeReason) {
        self.messages.push_back(Message::Goodbye { generation: self.generation, reason });
    }

    // ---- what this side did ----

    /// The oldest record not yet executed. The machine may run to exactly its icount, and no further.
    #[must_use]
    pub fn next_record(&self) -> Option<&Record> {
        match self.state {
            State::Live | State::Halted => None,
            State::Backup | State::Claiming(_) if !self.settings.strategy.executes() => None,
            _ => self.log.front(),
        }
    }

    /// The machine has applied that record.
    pub fn pop_record(&mut self) -> Option<Record> {
        if matches!(self.state, State::Live | State::Halted) {
            return None;
        }
        let record = self.log.pop_front()?;
        self.log_bytes = self.log_bytes.saturating_sub(weight(&record));
        self.executed = record.lsn;
        self.has_news = true;
        self.move_on(Cause::Replayed);
        self.invariants();
        Some(record)
    }

    /// The machine stands here now.
    pub fn handle_executed(&mut self, now: HostTime, icount: Icount, time: VirtTime) {
        self.has_news |= icount > self.icount || time > self.time;
        self.icount = icount;
        self.time = time;
        if matches!(self.state, State::Backup) && self.has_news && now >= self.heartbeat_at() {
            self.queue_ack(now);
        }
        self.invariants();
    }

    /// An operator, or this host's disk, takes this replica out of the pair. One that has won the VM stays: the caller
    /// remembers that it is to stop, and stops the VM once it is live.
    pub fn leave(&mut self) {
        self.move_on(Cause::Told);
        self.invariants();
    }

    /// This side differs from the primary: it leaves, and says why.
    pub fn handle_divergence(&mut self) {
        self.move_on(Cause::Diverged);
        self.invariants();
    }

    // ---- effects ----

    /// The next message, and to whom.
    pub fn poll_message(&mut self) -> Option<(PeerId, Message)> {
        let message = if core::mem::take(&mut self.ack_due) {
            self.has_news = false;
            Message::Ack {
                generation: self.generation,
                received: self.received,
                executed: self.executed,
                icount: self.icount,
                time: self.time,
                buffered_bytes: self.log_bytes,
            }
        } else {
            self.messages.pop_front()?
        };
        Some((self.primary, message))
    }

    /// The next thing to do.
    pub fn poll_command(&mut self) -> Option<BackupCommand> {
        self.commands.pop_front()
    }

    // ---- questions ----

    /// Every output that this record or an older one covers has been released by the primary. Later ones may or may
    /// not have been. An LSN and no icount: at one instant several marks may be made, with events between them.
    #[must_use]
    pub fn released(&self) -> Lsn {
        self.released
    }

    /// When [`Backup::handle_tick`] must be called next, if nothing else happens.
    #[must_use]
    pub fn next_timeout(&self) -> Option<HostTime> {
        self.timers().next()
    }

    /// What the present state waits for.
    fn timers(&self) -> TimerTable {
        let table = TimerTable::default();
        match &self.state {
            State::Backup => table
                .with(Timer::Heartbeat, self.heartbeat_at())
                .with(Timer::Silence, self.silence.deadline()),
            State::Claiming(claim) => table.with(Timer::Claim, claim.ask_at()),
            State::Draining(_) | State::Ending | State::Live | State::Halted => table,
        }
    }

    /// The side that this one backs up.
    #[must_use]
    pub fn primary(&self) -> PeerId {
        self.primary
    }

    /// This side's account of itself.
    #[must_use]
    pub fn report(&self) -> Report {
        Report {
            state: match self.state {
                State::Backup => Role::Backup,
                State::Claiming(_) => Role::Claiming,
                State::Draining(_) | State::Ending => Role::Draining,
                State::Live => Role::Solo,
                State::Halted => Role::Halted,
            },
            generation: self.generation,
            lsn: self.received,
            acked: self.executed,
            buffered_bytes: self.log_bytes,
            share_permille: 1000,
            ..Report::default()
        }
    }

    fn invariants(&self) {
        assert!(self.executed <= self.received, "executed ≤ received");
        assert!(
            self.log.front().is_none_or(|first| first.lsn == self.executed.next()),
            "the log goes on where execution stands"
        );
        assert!(self.log.is_empty() == (self.log_bytes == 0), "bytes held belong to records held");
        assert!(!self.ack_due || matches!(self.state, State::Backup), "only a backup acknowledges");
        assert!(
            !matches!(self.state, State::Live) || self.log.is_empty(),
            "who is live has replayed its log"
        );
        assert!(self.commands.len() <= COMMANDS_MAX, "the states only go one way");
    }
}
