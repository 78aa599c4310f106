//! The side that replays.
//!
//! ```text
//!   Backup ── primary silent, link lost ──► Claiming ── Won ──► Draining ── log empty ──► Live (a new Primary)
//!      │                                       │ Lost
//!      └── goodbye, newer generation, fault ──►  Halted
//! ```
//!
//! Invariants: a record is acknowledged when it is received, and every acknowledged record is replayed before this
//! side goes live, so no released output is ever contradicted. From the moment it claims, it takes nothing more
//! in and acknowledges nothing more: what it holds then *is* the log.

use crate::silence::{Asking, Silence};
use crate::types::{GoodbyeReason, HaltReason, HostTime, Message, Report, Role, Settings, Verdict, weight};
use alloc::collections::VecDeque;
use alloc::format;
use pollux_vocab::{Generation, Icount, Lsn, Record, RecordBody, VirtTime};

/// A sign of how far execution has come is sent at least this often while it moves.
const EXECUTED_EVERY_NS: u64 = 5_000_000;

/// What the node is to do.
#[derive(Clone, PartialEq, Eq, Debug)]
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

#[derive(Clone, Debug)]
enum State {
    Backup,
    Claiming(Asking),
    Draining(Generation),
    Live,
    Halted,
}

/// The backup's state machine.
#[derive(Debug)]
pub struct Backup {
    settings: Settings,
    state: State,
    generation: Generation,
    log: VecDeque<Record>,
    log_bytes: u64,
    received: Lsn,
    received_icount: Icount,
    executed: Lsn,
    icount: Icount,
    time: VirtTime,
    /// Marks whose outputs may not have been released yet.
    marks: VecDeque<(Lsn, Icount)>,
    released_icount: Icount,
    ack_due: bool,
    said_at: HostTime,
    silence: Silence,
    messages: VecDeque<Message>,
    commands: VecDeque<BackupCommand>,
}

impl Backup {
    /// A backup of `generation`, in the state that its log starts from (LSN 1 comes first).
    #[must_use]
    pub fn new(settings: Settings, generation: Generation, now: HostTime) -> Self {
        Self {
            silence: Silence::new(settings.failure_after_ns, now),
            settings,
            state: State::Backup,
            generation,
            log: VecDeque::new(),
            log_bytes: 0,
            received: Lsn(0),
            received_icount: Icount(0),
            executed: Lsn(0),
            icount: Icount(0),
            time: VirtTime(0),
            marks: VecDeque::new(),
            released_icount: Icount(0),
            ack_due: false,
            said_at: now,
            messages: VecDeque::new(),
            commands: VecDeque::new(),
        }
    }

    // ---- what happened ----

    /// The primary said something.
    pub fn handle_message(&mut self, now: HostTime, message: Message) {
        // Rule: from the claim on, nothing is taken in and nothing acknowledged.
        if !matches!(self.state, State::Backup) {
            return;
        }
        if message.generation() != self.generation {
            if message.generation() > self.generation {
                self.halt(HaltReason::GenerationSpent(message.generation()));
            }
            return;
        }
        self.silence.handle_sound(now);
        match message {
            Message::Records { released, records, .. } => {
                for record in records {
                    if let Err(fault) = self.receive(record) {
                        self.leave_with(GoodbyeReason::Leaving, fault);
                        return;
                    }
                }
                self.handle_released(released);
                // Rule: acknowledge on receipt, not on execution.
                self.ack_due = true;
            }
            Message::Goodbye { .. } => self.halt(HaltReason::PeerEnded),
            Message::Heartbeat { .. } | Message::Ack { .. } => {}
        }
        self.invariants();
    }

    fn receive(&mut self, record: Record) -> Result<(), HaltReason> {
        if record.lsn <= self.received {
            return Ok(());
        }
        if record.lsn != self.received.next() {
            let what = format!("record {} follows record {}: the log has a gap", record.lsn, self.received);
            return Err(HaltReason::PeerFault(what));
        }
        if record.icount < self.received_icount {
            let what = format!(
                "record {} goes back from icount {} to {}",
                record.lsn, self.received_icount, record.icount
            );
            return Err(HaltReason::PeerFault(what));
        }
        self.received = record.lsn;
        self.received_icount = record.icount;
        self.log_bytes += weight(&record);
        if record.body == RecordBody::Mark {
            self.marks.push_back((record.lsn, record.icount));
        }
        self.log.push_back(record);
        if self.log_bytes > self.settings.send_window_bytes.saturating_mul(2) {
            let what = format!("it sent {} bytes beyond what the window allows", self.log_bytes);
            return Err(HaltReason::PeerFault(what));
        }
        Ok(())
    }

    fn handle_released(&mut self, released: Lsn) {
        while self.marks.front().is_some_and(|(lsn, _)| *lsn <= released) {
            if let Some((_, icount)) = self.marks.pop_front() {
                self.released_icount = icount;
            }
        }
    }

    /// The link is gone for good. What was received before stays.
    pub fn handle_link_lost(&mut self, _now: HostTime) {
        self.silence.handle_link_lost();
        if matches!(self.state, State::Backup) {
            self.seek_live();
        }
    }

    /// The arbiter has answered.
    pub fn handle_arbiter(&mut self, now: HostTime, generation: Generation, verdict: Verdict) {
        let State::Claiming(asking) = &mut self.state else { return };
        if generation != self.generation.next() {
            return;
        }
        match verdict {
            Verdict::Won => {
                self.state = State::Draining(generation);
                self.go_live_when_replayed();
            }
            Verdict::Lost => self.halt(HaltReason::LostClaim(generation)),
            // Rule: an unreachable arbiter lets nobody run. Ask again, never guess.
            Verdict::Unreachable => asking.handle_unreachable(now),
        }
        self.invariants();
    }

    /// Time passes. Call it before handing over what was received.
    pub fn handle_tick(&mut self, now: HostTime) {
        let _ = self.silence.slept(now);
        match &mut self.state {
            State::Backup => {
                if self.silence.is_dead(now) {
                    self.seek_live();
                } else if now.since(self.said_at) >= self.settings.heartbeat_every_ns {
                    self.ack_due = true;
                }
            }
            State::Claiming(asking) => {
                if asking.is_due(now) {
                    self.commands.push_back(BackupCommand::Claim(self.generation.next()));
                }
            }
            State::Draining(_) | State::Live | State::Halted => {}
        }
        if self.ack_due && matches!(self.state, State::Backup) {
            self.said_at = now;
        }
        self.invariants();
    }

    /// Rule: before going live, win the arbiter.
    fn seek_live(&mut self) {
        self.state =
            State::Claiming(Asking::begun(self.settings.claim_retry_ns, self.settings.claim_retry_max_ns));
        self.ack_due = false;
        self.commands.push_back(BackupCommand::Claim(self.generation.next()));
    }

    /// Rule: before going live, replay the log to its end, through the last mark.
    fn go_live_when_replayed(&mut self) {
        if let State::Draining(generation) = self.state
            && self.log.is_empty()
        {
            self.state = State::Live;
            self.commands.push_back(BackupCommand::GoLive { generation, next_lsn: self.received.next() });
        }
    }

    fn halt(&mut self, reason: HaltReason) {
        self.state = State::Halted;
        self.ack_due = false;
        self.commands.push_back(BackupCommand::Halt(reason));
    }

    fn leave_with(&mut self, goodbye: GoodbyeReason, reason: HaltReason) {
        self.messages.push_back(Message::Goodbye { generation: self.generation, reason: goodbye });
        self.halt(reason);
    }

    // ---- what this side did ----

    /// The oldest record not yet executed. The machine may run to exactly its icount, and no further.
    #[must_use]
    pub fn next_record(&self) -> Option<&Record> {
        match self.state {
            State::Live | State::Halted => None,
            _ => self.log.front(),
        }
    }

    /// The machine has applied that record.
    pub fn pop_record(&mut self) -> Option<Record> {
        let record = self.log.pop_front()?;
        self.log_bytes -= weight(&record);
        self.executed = record.lsn;
        self.go_live_when_replayed();
        Some(record)
    }

    /// The machine stands here now.
    pub fn handle_executed(&mut self, now: HostTime, icount: Icount, time: VirtTime) {
        let moved = icount > self.icount || time > self.time;
        self.icount = icount;
        self.time = time;
        if moved && matches!(self.state, State::Backup) && now.since(self.said_at) >= EXECUTED_EVERY_NS {
            self.ack_due = true;
            self.said_at = now;
        }
    }

    /// An operator, or this host's disk, takes this replica out of the pair.
    pub fn leave(&mut self) {
        if matches!(self.state, State::Backup) {
            self.leave_with(GoodbyeReason::Leaving, HaltReason::Left);
        } else {
            self.halt(HaltReason::Left);
        }
    }

    /// This side differs from the primary: it leaves, and says why.
    pub fn handle_divergence(&mut self) {
        self.messages
            .push_back(Message::Goodbye { generation: self.generation, reason: GoodbyeReason::Diverged });
        self.state = State::Halted;
        self.ack_due = false;
    }

    // ---- effects ----

    /// The next message to the primary.
    pub fn poll_message(&mut self) -> Option<Message> {
        if core::mem::take(&mut self.ack_due) {
            return Some(Message::Ack {
                generation: self.generation,
                received: self.received,
                executed: self.executed,
                icount: self.icount,
                time: self.time,
                buffered_bytes: self.log_bytes,
            });
        }
        self.messages.pop_front()
    }

    /// The next thing to do.
    pub fn poll_command(&mut self) -> Option<BackupCommand> {
        self.commands.pop_front()
    }

    // ---- questions ----

    /// Every output made up to this icount has been released by the primary. Later ones may or may not have been.
    #[must_use]
    pub fn released_icount(&self) -> Icount {
        self.released_icount
    }

    /// When [`Backup::handle_tick`] must be called next, if nothing else happens.
    #[must_use]
    pub fn next_timeout(&self) -> Option<HostTime> {
        match &self.state {
            State::Backup => {
                Some(self.said_at.after(self.settings.heartbeat_every_ns).min(self.silence.deadline()))
            }
            State::Claiming(asking) => asking.next(),
            State::Draining(_) | State::Live | State::Halted => None,
        }
    }

    /// This side's account of itself.
    #[must_use]
    pub fn report(&self) -> Report {
        Report {
            state: match self.state {
                State::Backup => Role::Backup,
                State::Claiming(_) => Role::Claiming,
                State::Draining(_) => Role::Draining,
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
        assert!(!self.ack_due || matches!(self.state, State::Backup), "only a backup acknowledges");
    }
}
