//! The side whose VM talks to the world.
//!
//! ```text
//!   Primary ── backup silent, link lost, this process slept ──► Claiming ── Won ──► Solo
//!      │                                                           │ Lost
//!      └───────────────── newer generation heard ───────────────►  Halted
//! ```
//!
//! Invariants: every record gets the next LSN, and nothing enters but through [`Primary::admit`]; nothing leaves but
//! through the [`OutputGate`]; while `Claiming`, the gate hears no acknowledgement, so nothing leaves at all until
//! the arbiter has answered.

use crate::hold_stats::HoldStats;
use crate::lag::LagLoop;
use crate::output_gate::OutputGate;
use crate::silence::{Asking, Silence};
use crate::types::{
    GoodbyeReason, HaltReason, HostTime, Message, Pace, Report, Role, Settings, Verdict, output_weight,
    weight,
};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use pollux_vocab::{Generation, Icount, Lsn, Output, Record, RecordBody, VirtTime};

/// Outputs that may be held at once; beyond that the VM waits.
pub const HELD_MAX: usize = 65_536;
/// Bytes of outputs that may be held at once; beyond that the VM waits.
pub const HELD_BYTES_MAX: u64 = 256 << 20;

/// What the node is to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Ask the arbiter for this generation.
    Claim(Generation),
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

#[derive(Clone, Debug)]
enum State {
    Solo,
    Primary,
    Claiming(Asking),
    Halted,
}

/// An output and when it was held.
#[derive(Debug)]
struct Held {
    output: Output,
    since: HostTime,
}

/// The primary's (and the solo VM's) state machine.
#[derive(Debug)]
pub struct Primary {
    settings: Settings,
    state: State,
    generation: Generation,
    /// The newest record.
    lsn: Lsn,
    sent: Lsn,
    acked: Lsn,
    gate: OutputGate<Held>,
    held_bytes: u64,
    unsent: Vec<Record>,
    in_flight: VecDeque<(Lsn, u64)>,
    in_flight_bytes: u64,
    peer_buffered_bytes: u64,
    peer_time: VirtTime,
    silence: Silence,
    said_at: HostTime,
    progress_at: HostTime,
    progress_icount: Icount,
    lag: LagLoop,
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
        Self {
            silence: Silence::new(settings.failure_after_ns, now),
            lag: LagLoop::new(settings.lag_target_ns),
            settings,
            state,
            generation,
            lsn,
            sent: lsn,
            acked: lsn,
            gate: OutputGate::default(),
            held_bytes: 0,
            unsent: Vec::new(),
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            peer_buffered_bytes: 0,
            peer_time: VirtTime(0),
            said_at: now,
            progress_at: now,
            progress_icount: Icount(0),
            hold_stats: HoldStats::default(),
            messages: VecDeque::new(),
            commands: VecDeque::new(),
        }
    }

    // ---- what happened ----

    /// The backup said something.
    pub fn handle_message(&mut self, now: HostTime, message: Message) {
        if matches!(self.state, State::Halted) {
            return;
        }
        if message.generation() > self.generation {
            // Rule: a returning primary whose generation is spent halts.
            self.halt(HaltReason::GenerationSpent(message.generation()));
            return;
        }
        if message.generation() < self.generation {
            // Somebody from the past: tell it that it is.
            if matches!(message, Message::Records { .. }) {
                self.messages.push_back(Message::Heartbeat { generation: self.generation });
            }
            return;
        }
        if !matches!(self.state, State::Primary) {
            return;
        }
        self.silence.handle_sound(now);
        match message {
            Message::Ack { received, time, buffered_bytes, .. } => {
                self.handle_ack(now, received, time, buffered_bytes)
            }
            Message::Goodbye { .. } => self.seek_solo(now),
            Message::Heartbeat { .. } | Message::Records { .. } => {}
        }
        self.invariants();
    }

    fn handle_ack(&mut self, now: HostTime, received: Lsn, time: VirtTime, buffered_bytes: u64) {
        if received > self.sent {
            // It acknowledges what it cannot have: nothing that it says can be trusted.
            self.seek_solo(now);
            return;
        }
        self.acked = self.acked.max(received);
        self.gate.ack(received);
        self.peer_time = self.peer_time.max(time);
        self.peer_buffered_bytes = buffered_bytes;
        while self.in_flight.front().is_some_and(|(lsn, _)| *lsn <= received) {
            if let Some((_, bytes)) = self.in_flight.pop_front() {
                self.in_flight_bytes -= bytes;
            }
        }
    }

    /// The link is gone for good.
    pub fn handle_link_lost(&mut self, now: HostTime) {
        self.silence.handle_link_lost();
        if matches!(self.state, State::Primary) {
            self.seek_solo(now);
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
                self.generation = generation;
                self.state = State::Solo;
                self.lag.reset();
                self.gate.seal(self.lsn);
                self.gate.ack(Lsn(u64::MAX));
                self.commands.push_back(Command::WentSolo { generation });
            }
            Verdict::Lost => self.halt(HaltReason::LostClaim(generation)),
            Verdict::Unreachable => asking.handle_unreachable(now),
        }
        self.invariants();
    }

    /// Time passes. Call it before handing over what was received, so that a process that slept notices first.
    pub fn handle_tick(&mut self, now: HostTime) {
        let slept = self.silence.slept(now);
        match &mut self.state {
            State::Primary => {
                // Rule: who slept for longer than the failure timeout may have been replaced; it asks first.
                if slept || self.silence.is_dead(now) {
                    self.seek_solo(now);
                } else if now.since(self.said_at) >= self.settings.heartbeat_every_ns {
                    self.said_at = now;
                    self.messages.push_back(Message::Heartbeat { generation: self.generation });
                }
            }
            State::Claiming(asking) => {
                if asking.is_due(now) {
                    self.commands.push_back(Command::Claim(self.generation.next()));
                }
            }
            State::Solo | State::Halted => {}
        }
        self.invariants();
    }

    /// Rule: a primary whose backup is gone releases nothing until it has won the next generation.
    fn seek_solo(&mut self, _now: HostTime) {
        self.state =
            State::Claiming(Asking::begun(self.settings.claim_retry_ns, self.settings.claim_retry_max_ns));
        self.unsent.clear();
        self.in_flight.clear();
        self.in_flight_bytes = 0;
        self.peer_buffered_bytes = 0;
        self.commands.push_back(Command::BackupLost);
        self.commands.push_back(Command::Claim(self.generation.next()));
    }

    fn halt(&mut self, reason: HaltReason) {
        self.state = State::Halted;
        self.messages.clear();
        self.commands.push_back(Command::Halt(reason));
    }

    // ---- what this side did ----

    /// The only way in: gives the event its place in the log. The caller applies it at `icount`, which is now.
    pub fn admit(&mut self, icount: Icount, body: RecordBody) -> Record {
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
    pub fn hold(&mut self, now: HostTime, _icount: Icount, output: Output) {
        self.held_bytes += output_weight(&output);
        self.gate.hold(Held { output, since: now });
    }

    /// The machine stands at `icount`, and everything up to there has been admitted and held: seals what is held with
    /// one mark, and sends. A silent log still tells now and then how far the VM has come.
    pub fn flush(&mut self, now: HostTime, icount: Icount, time: VirtTime) {
        match self.state {
            State::Solo => {
                self.gate.seal(self.lsn);
                self.gate.ack(Lsn(u64::MAX));
            }
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
                self.lag.handle_measurement(now, time, self.peer_time);
                self.send(now, icount);
            }
            State::Claiming(_) | State::Halted => {}
        }
        self.invariants();
    }

    fn send(&mut self, now: HostTime, icount: Icount) {
        if self.unsent.is_empty() {
            return;
        }
        let records = core::mem::take(&mut self.unsent);
        self.sent = self.lsn;
        self.said_at = now;
        self.progress_at = now;
        self.progress_icount = icount;
        self.messages.push_back(Message::Records {
            generation: self.generation,
            released: self.acked,
            records,
        });
    }

    /// The VM has ended in good order: tells the backup not to take over.
    pub fn say_goodbye(&mut self) {
        if matches!(self.state, State::Primary | State::Claiming(_)) {
            self.messages
                .push_back(Message::Goodbye { generation: self.generation, reason: GoodbyeReason::Ended });
        }
        self.state = State::Halted;
    }

    // ---- effects ----

    /// The next message to the backup.
    pub fn poll_message(&mut self) -> Option<Message> {
        self.messages.pop_front()
    }

    /// The next output that may leave.
    pub fn poll_release(&mut self, now: HostTime) -> Option<Output> {
        if !matches!(self.state, State::Primary | State::Solo) {
            return None;
        }
        let Held { output, since } = self.gate.release()?;
        self.held_bytes -= output_weight(&output);
        self.hold_stats.count(now.since(since));
        Some(output)
    }

    /// The next thing to do.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    // ---- questions ----

    /// Whether, and how much, the VM may execute.
    #[must_use]
    pub fn pace(&self, _now: HostTime) -> Pace {
        let window = self.settings.send_window_bytes;
        let full = self.in_flight_bytes.saturating_add(self.peer_buffered_bytes) > window
            || self.gate.len() > HELD_MAX
            || self.held_bytes > HELD_BYTES_MAX;
        match self.state {
            State::Halted => Pace::Wait,
            _ if full => Pace::Wait,
            _ => Pace::Run { share_permille: self.lag.share_permille() },
        }
    }

    /// When [`Primary::handle_tick`] must be called next, if nothing else happens.
    #[must_use]
    pub fn next_timeout(&self) -> Option<HostTime> {
        match &self.state {
            State::Primary => {
                Some(self.said_at.after(self.settings.heartbeat_every_ns).min(self.silence.deadline()))
            }
            State::Claiming(asking) => asking.next(),
            State::Solo | State::Halted => None,
        }
    }

    /// This side's account of itself.
    #[must_use]
    pub fn report(&self) -> Report {
        Report {
            state: match self.state {
                State::Solo => Role::Solo,
                State::Primary => Role::Primary,
                State::Claiming(_) => Role::Claiming,
                State::Halted => Role::Halted,
            },
            generation: self.generation,
            lsn: self.lsn,
            acked: self.acked,
            held: self.gate.len(),
            released: self.hold_stats.len(),
            hold: self.hold_stats.summary(),
            lag_ns: self.lag.lag_ns(),
            share_permille: self.lag.share_permille(),
            buffered_bytes: self.in_flight_bytes,
        }
    }

    fn invariants(&self) {
        assert!(self.acked <= self.sent && self.sent <= self.lsn, "acknowledged ≤ sent ≤ written");
        let counted: bool = self.in_flight.is_empty() == (self.in_flight_bytes == 0);
        assert!(counted, "bytes in flight belong to records in flight");
    }
}
