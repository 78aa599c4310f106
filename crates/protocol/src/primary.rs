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
//! Not here: when an output may leave (`output_gate`), what is known of a backup (`peer`), how the arbiter is asked
//! (`claim`), how long silence must last (`silence`), how much the VM is slowed (`lag`).

mod account;
mod handover;
mod network;

use self::network::Network;
use crate::claim::{Answer, Claim};
use crate::hold_stats::HoldStats;
use crate::lag::LagLoop;
use crate::output_gate::OutputGate;
use crate::peer::{Peer, PeerId};
use crate::timer::Timer;
use crate::types::{GoodbyeReason, HaltReason, HostTime, Message, Settings, Verdict, output_weight, weight};
use alloc::collections::{BTreeSet, VecDeque};
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
    Claiming(Claim),
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
    /// The newest record that every backup has acknowledged.
    acked: Lsn,
    gate: OutputGate<Held>,
    held_bytes: u64,
    unsent: Vec<Record>,
    /// The backups; none for a VM alone.
    peers: Vec<Peer>,
    /// Who is to be sent a heartbeat: it is time, or somebody from the past should learn that it is.
    heartbeats: BTreeSet<PeerId>,
    progress_at: HostTime,
    progress_icount: Icount,
    /// The VM has been given away, and not been won back.
    handed: bool,
    network: Network,
    lag: LagLoop,
    lag_steps: u64,
    hold_stats: HoldStats,
    messages: VecDeque<(PeerId, Message)>,
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
    pub fn new_protected(settings: Settings, generation: Generation, now: HostTime, backup: PeerId) -> Self {
        let peer = Peer::new(backup, &settings, now, Lsn(0));
        Self { peers: [peer].into(), ..Self::new(settings, generation, now, Lsn(1), State::Primary) }
    }

    fn new(settings: Settings, generation: Generation, now: HostTime, next_lsn: Lsn, state: State) -> Self {
        let lsn = Lsn(next_lsn.0.saturating_sub(1));
        Self {
            lag: LagLoop::new(settings.lag_target_ns),
            settings,
            state,
            generation,
            lsn,
            icount: Icount(0),
            acked: lsn,
            gate: OutputGate::default(),
            held_bytes: 0,
            unsent: Vec::new(),
            peers: Vec::new(),
            heartbeats: BTreeSet::new(),
            progress_at: now,
            progress_icount: Icount(0),
            handed: false,
            network: Network::new(now),
            lag_steps: 0,
            hold_stats: HoldStats::default(),
            messages: VecDeque::new(),
            commands: VecDeque::new(),
        }
    }

    // ---- what happened ----

    /// A message from another replica.
    pub fn handle_message(&mut self, now: HostTime, from: PeerId, message: Message) {
        if matches!(self.state, State::HandingOver(_)) {
            self.handle_while_handing_over(now, &message);
        } else if message.generation() > self.generation {
            // Rule: a newer generation is believed when the arbiter confirms it. Until then nothing is released. Who runs
            // alone need not ask: only a backup could have been given the next one, and it has none.
            self.move_on(Cause::BackupGone(now));
        } else if message.generation() < self.generation {
            self.handle_past(from, &message);
        } else if let (State::Primary, Some(peer)) = (&self.state, find(&mut self.peers, from)) {
            peer.handle_received(now);
            match message {
                Message::Ack { received, executed, icount, time, buffered_bytes, .. } => {
                    peer.handle_position(icount, time, buffered_bytes);
                    if peer.handle_ack(now, received, executed) {
                        self.count_acks();
                    } else {
                        self.move_on(Cause::BackupGone(now));
                    }
                }
                Message::Goodbye { .. } => self.move_on(Cause::BackupGone(now)),
                Message::Network { reached, .. } => peer.serves = reached,
                Message::Heartbeat { .. } | Message::Records { .. } | Message::Handover { .. } => {}
            }
        }
        self.invariants();
    }

    /// Bytes have arrived on the link to a backup that are no whole message yet.
    pub fn handle_bytes(&mut self, now: HostTime, from: PeerId) {
        if let (State::Primary, Some(peer)) = (&self.state, find(&mut self.peers, from)) {
            peer.handle_bytes(now);
        }
        self.invariants();
    }

    /// Rule: what an older generation says changes nothing; but a primary from the past is told that it is one.
    fn handle_past(&mut self, from: PeerId, message: &Message) {
        if matches!(message, Message::Records { .. }) && !matches!(self.state, State::Halted) {
            self.heartbeats.insert(from);
        }
    }

    /// Rule: what counts is what every backup has.
    fn count_acks(&mut self) {
        let acked = self.peers.iter().map(|peer| peer.acked).min();
        self.acked = self.acked.max(acked.unwrap_or(self.acked));
        self.gate.ack(self.acked);
    }

    /// The link to a backup is gone for good.
    pub fn handle_link_lost(&mut self, now: HostTime, from: PeerId) {
        if find(&mut self.peers, from).is_some() {
            self.move_on(Cause::BackupGone(now));
            self.move_on(Cause::HandedOver(now));
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

    /// Time passes. Call it before handing over what was received, so that a process that was away notices first.
    pub fn handle_tick(&mut self, now: HostTime) {
        let was_away = self.is_away(now);
        self.peers.iter_mut().for_each(|peer| peer.handle_tick(now));
        let timers = self.timers();
        match &self.state {
            State::Primary => {
                // Rule: who was away for so long that it may have been replaced asks first.
                if was_away || timers.is_expired(Timer::Silence, now) {
                    self.move_on(Cause::BackupGone(now));
                } else if self.is_stalled(now) {
                    self.commands.push_back(Command::BackupStalled);
                    self.move_on(Cause::BackupGone(now));
                } else if timers.is_expired(Timer::Heartbeat, now) {
                    self.queue_heartbeats(now);
                }
            }
            // Rule: a primary whose backup does not take over within the bound asks for the VM itself.
            State::HandingOver(_) if timers.is_expired(Timer::Handover, now) => {
                self.move_on(Cause::HandedOver(now));
            }
            State::Claiming(_) => self.ask_when_due(now),
            State::HandingOver(_) | State::Solo | State::Halted => {}
        }
        self.invariants();
    }

    /// The messages that have been polled were sent, at the latest `now`: a reading of the clock behind the sending.
    ///
    /// Rule: a message that is sent late takes nothing back. This process may have stood still between queueing and
    /// sending, and its backup have gone live: only a message that left before the backup could do so is one that it may
    /// have received.
    pub fn handle_sent(&mut self, now: HostTime) {
        let mut in_time = true;
        for peer in &mut self.peers {
            in_time &= peer.handle_sent(now);
        }
        if !in_time {
            self.move_on(Cause::BackupGone(now));
        }
        self.invariants();
    }

    /// Whether a backup may have given this side up, and taken its place.
    fn is_away(&self, now: HostTime) -> bool {
        self.peers.iter().any(|peer| peer.is_away(now))
    }

    fn is_stalled(&mut self, now: HostTime) -> bool {
        let window_bytes = self.settings.send_window_bytes;
        let mut stalled = false;
        for peer in &mut self.peers {
            stalled |= peer.is_stalled(now, window_bytes);
        }
        stalled
    }

    fn queue_heartbeats(&mut self, now: HostTime) {
        for peer in &mut self.peers {
            if now >= peer.heartbeat_at(&self.settings) {
                peer.handle_queued(now);
                self.heartbeats.insert(peer.id);
            }
        }
    }

    // ---- transitions ----

    /// All transitions. A cause that means nothing in the present state changes nothing.
    fn move_on(&mut self, cause: Cause) {
        match (&self.state, cause) {
            (State::Primary, Cause::BackupGone(now)) => self.seek_solo(now),
            (State::Primary, Cause::HandOver(now)) => {
                let (generation, last) = (self.generation, self.lsn);
                self.queue_for_all(now, Message::Handover { generation, last });
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
                let goodbye = |peer: &Peer| (peer.id, Message::Goodbye { generation, reason });
                self.messages.extend(self.peers.iter().map(goodbye));
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
        let next = self.generation.next();
        self.state = State::Claiming(Claim::begin(&self.settings, now, next, self.network.reaches));
        self.unsent.clear();
        self.peers.iter_mut().for_each(Peer::give_up);
        self.lag.reset();
        self.lag_steps = 0;
        self.heartbeats.clear();
        self.ask_when_due(now);
    }

    fn ask_when_due(&mut self, now: HostTime) {
        let State::Claiming(claim) = &mut self.state else { return };
        if let Some(claim) = claim.poll_question(now).map(Command::Claim)
            && !self.commands.contains(&claim)
        {
            self.commands.push_back(claim);
        }
    }

    fn go_solo(&mut self) {
        self.generation = self.generation.next();
        self.state = State::Solo;
        self.peers.clear();
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
        self.heartbeats.clear();
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
            self.peers.iter_mut().for_each(|peer| peer.handle_admitted(record.lsn, bytes));
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

    /// The machine stands at `icount`, and everything up to there has been admitted and held: seals what is held, if
    /// the strategy does so here, and sends. A silent log still tells now and then how far the VM has come.
    pub fn flush(&mut self, now: HostTime, icount: Icount, time: VirtTime) {
        self.reach(icount);
        match self.state {
            State::Solo => self.open_gate(),
            State::Primary if self.is_away(now) => self.move_on(Cause::BackupGone(now)),
            State::Primary => {
                if self.gate.has_unsealed()
                    && let Some(body) = self.settings.strategy.seal(icount)
                {
                    let cover = self.admit(icount, body);
                    self.gate.seal(cover.lsn);
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

    /// The VM is as slow as its slowest backup makes it.
    fn measure_lag(&mut self, now: HostTime, icount: Icount, time: VirtTime) {
        let worst = |of: &dyn Fn(&Peer) -> u64| self.peers.iter().map(of).max().unwrap_or(0);
        self.lag_steps = worst(&|peer| peer.lag_steps(icount));
        let lag_ns = worst(&|peer| peer.lag_ns(now, time));
        self.lag.handle_measurement(now, lag_ns);
    }

    fn send(&mut self, now: HostTime, icount: Icount) {
        if self.unsent.is_empty() {
            return;
        }
        let records = core::mem::take(&mut self.unsent);
        self.progress_at = now;
        self.progress_icount = icount;
        self.peers.iter_mut().for_each(|peer| peer.handle_records_queued(now, self.lsn));
        // `released` is filled in when the message leaves.
        self.queue_for_all(now, Message::Records { generation: self.generation, released: Lsn(0), records });
    }

    /// Who is sent something needs no heartbeat.
    fn queue_for_all(&mut self, now: HostTime, message: Message) {
        let copies = core::iter::repeat_n(message, self.peers.len());
        for (peer, copy) in self.peers.iter_mut().zip(copies) {
            peer.handle_queued(now);
            self.heartbeats.remove(&peer.id);
            self.messages.push_back((peer.id, copy));
        }
    }

    /// The VM has ended in good order: tells the backups not to take over.
    pub fn queue_goodbye(&mut self) {
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

    /// The next message, and to whom.
    pub fn poll_message(&mut self) -> Option<(PeerId, Message)> {
        let (to, mut message) = match self.messages.pop_front() {
            Some(queued) => queued,
            None => (self.heartbeats.pop_first()?, Message::Heartbeat { generation: self.generation }),
        };
        if let Message::Records { released, .. } = &mut message {
            *released = self.gate.released();
        }
        if let Some(peer) = find(&mut self.peers, to) {
            peer.handle_handed_out();
        }
        Some((to, message))
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
            State::Primary => self.peers.iter().map(Peer::lease).min().unwrap_or(HostTime(0)),
            State::HandingOver(_) | State::Claiming(_) | State::Halted => HostTime(0),
        }
    }
}

fn find(peers: &mut [Peer], id: PeerId) -> Option<&mut Peer> {
    peers.iter_mut().find(|peer| peer.id == id)
}
