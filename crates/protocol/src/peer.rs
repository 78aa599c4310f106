//! What a primary knows of *one* backup: what it has of the log, how far it has come, when it was last heard of, and
//! whether clients reach it; and from that how long this side's place is sure towards it.
//!
//! A [`PeerId`] is local: the driver gives one to each connection, and it never crosses the wire. `docs/protocol.md`
//! says what is written for one backup and what for any number.
//!
//! Not here: what follows for the VM (`primary`), how silence is measured (`silence`).

use crate::lag::Unexecuted;
use crate::silence::Silence;
use crate::stall::Stall;
use crate::timer::{Timer, TimerTable};
use crate::types::{HostTime, Settings};
use alloc::collections::VecDeque;
use core::fmt;
use pollux_vocab::{Icount, Lsn, VirtTime};

/// Another replica, as this host's driver numbers it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct PeerId(pub u16);

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A backup, as its primary knows it.
#[derive(Clone, Hash, Debug)]
pub(crate) struct Peer {
    pub(crate) id: PeerId,
    /// The newest record queued for it.
    pub(crate) sent: Lsn,
    /// The newest record that it has received.
    pub(crate) acked: Lsn,
    /// The newest that it has executed.
    executed: Lsn,
    in_flight: VecDeque<(Lsn, u64)>,
    in_flight_bytes: u64,
    /// Log that it holds and has not executed.
    buffered_bytes: u64,
    icount: Icount,
    time: VirtTime,
    /// Clients reach it, as far as it has told.
    pub(crate) serves: bool,
    silence: Silence,
    /// When the newest message to it was queued.
    queued_at: HostTime,
    /// When the newest message that was sent in time had been queued: it counts this side's silence from then, or later.
    pub(crate) sent_at: HostTime,
    /// When the newest message was queued of those that have been handed out, and may or may not have left in time.
    handed_out: Option<HostTime>,
    unexecuted: Unexecuted,
    /// What it has received and executed, as long as it has not executed everything.
    executes: Stall<(Lsn, Lsn, Icount)>,
    /// The window, as long as it is full.
    room: Stall<()>,
}

impl Peer {
    /// A backup that holds the state that the log behind `lsn` starts from.
    pub(crate) fn new(id: PeerId, settings: &Settings, now: HostTime, lsn: Lsn) -> Self {
        let (stall_ns, step_ns) = (settings.stall_after_ns, settings.heartbeat_every_ns.saturating_mul(2));
        Self {
            id,
            sent: lsn,
            acked: lsn,
            executed: lsn,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            buffered_bytes: 0,
            icount: Icount(0),
            time: VirtTime(0),
            serves: true,
            silence: Silence::new(settings.failure_after_ns, settings.stall_after_ns, now),
            queued_at: now,
            sent_at: now,
            handed_out: None,
            unexecuted: Unexecuted::default(),
            executes: Stall::new(stall_ns, step_ns, now),
            room: Stall::new(stall_ns, step_ns, now),
        }
    }

    // ---- what is received from it ----

    /// A whole message of this generation.
    pub(crate) fn handle_received(&mut self, now: HostTime) {
        self.silence.handle_received(now);
    }

    /// Bytes that are no whole message yet.
    pub(crate) fn handle_bytes(&mut self, now: HostTime) {
        self.silence.handle_bytes(now);
    }

    /// How far its machine has come, and what it holds.
    pub(crate) fn handle_position(&mut self, icount: Icount, time: VirtTime, buffered_bytes: u64) {
        self.icount = self.icount.max(icount);
        self.time = self.time.max(time);
        self.buffered_bytes = buffered_bytes;
    }

    /// What it has received and executed. False: it cannot have.
    ///
    /// Rule: a peer that acknowledges what it cannot have is not believed in anything.
    pub(crate) fn handle_ack(&mut self, now: HostTime, received: Lsn, executed: Lsn) -> bool {
        if received > self.sent || executed > received {
            return false;
        }
        self.acked = self.acked.max(received);
        self.unexecuted.handle_received(now, received);
        self.unexecuted.handle_executed(executed);
        self.executed = self.executed.max(executed);
        while self.in_flight.front().is_some_and(|(lsn, _)| *lsn <= received) {
            if let Some((_, bytes)) = self.in_flight.pop_front() {
                self.in_flight_bytes -= bytes;
            }
        }
        true
    }

    /// Time passes.
    pub(crate) fn handle_tick(&mut self, now: HostTime) {
        self.silence.handle_tick(now);
    }

    // ---- what is sent to it ----

    /// A record that it is to get.
    pub(crate) fn handle_admitted(&mut self, lsn: Lsn, bytes: u64) {
        self.in_flight.push_back((lsn, bytes));
        self.in_flight_bytes += bytes;
    }

    /// Records up to and including `newest` have been queued for it.
    pub(crate) fn handle_records_queued(&mut self, now: HostTime, newest: Lsn) {
        self.sent = newest;
        self.unexecuted.handle_sent(now, newest);
    }

    /// A message has been queued for it.
    pub(crate) fn handle_queued(&mut self, now: HostTime) {
        self.queued_at = now;
    }

    /// The driver has been given a message for it.
    pub(crate) fn handle_handed_out(&mut self) {
        self.handed_out = Some(self.queued_at);
    }

    /// What was handed out was sent, at the latest `now`. False: too late to count.
    pub(crate) fn handle_sent(&mut self, now: HostTime) -> bool {
        let Some(queued_at) = self.handed_out.take() else { return true };
        let in_time = !self.is_away(now);
        if in_time {
            self.sent_at = queued_at;
        }
        in_time
    }

    /// It gets nothing more.
    pub(crate) fn give_up(&mut self) {
        self.in_flight.clear();
        self.in_flight_bytes = 0;
        self.buffered_bytes = 0;
        self.unexecuted.clear();
    }

    // ---- questions ----

    /// Whether it may have given this side up: this process has not looked at the clock, or not sent it anything, for as
    /// long as it waits. Nothing is written after that before the arbiter has been asked.
    pub(crate) fn is_away(&self, now: HostTime) -> bool {
        self.silence.is_away(now) || now.since(self.sent_at) >= self.silence.failure_after_ns()
    }

    /// Until when it cannot have taken this side's place, as long as what this side sends arrives. Nor longer than it
    /// takes this side to count it as dead: of a link that is cut both ways the other end will know about as soon as
    /// this one.
    pub(crate) fn lease(&self) -> HostTime {
        let sent = self.sent_at.after(self.silence.failure_after_ns());
        self.silence.away_at().min(sent).min(self.silence.assured_until())
    }

    /// Rule: liveness is not progress. A backup that has something to execute and executes nothing, or leaves no room in
    /// the window, for the bound, holds the VM up and protects nothing.
    pub(crate) fn is_stalled(&mut self, now: HostTime, window_bytes: u64) -> bool {
        let owes = !self.unexecuted.is_empty();
        let at = owes.then_some((self.acked, self.executed, self.icount));
        let full = self.is_window_full(window_bytes).then_some(());
        self.executes.look(now, at) | self.room.look(now, full)
    }

    /// Whether it cannot take more log in.
    pub(crate) fn is_window_full(&self, window_bytes: u64) -> bool {
        self.in_flight_bytes.saturating_add(self.buffered_bytes) > window_bytes
    }

    /// Log that it has not acknowledged.
    pub(crate) fn in_flight_bytes(&self) -> u64 {
        self.in_flight_bytes
    }

    /// How far it lags behind a machine that stands at `time`: by virtual time, but by no more than its log is old.
    pub(crate) fn lag_ns(&self, now: HostTime, time: VirtTime) -> u64 {
        time.0.saturating_sub(self.time.0).min(self.unexecuted.age_ns(now))
    }

    /// The same in steps.
    pub(crate) fn lag_steps(&self, icount: Icount) -> u64 {
        icount.since(self.icount)
    }

    /// When a sign of life is due, if nothing else is sent to it.
    pub(crate) fn heartbeat_at(&self, settings: &Settings) -> HostTime {
        self.queued_at.after(settings.heartbeat_every_ns)
    }

    /// Its deadlines, into the table.
    pub(crate) fn timers(&self, table: TimerTable, settings: &Settings) -> TimerTable {
        table
            .with(Timer::Heartbeat, self.heartbeat_at(settings))
            .with(Timer::Silence, self.silence.deadline())
    }

    /// What must hold between any two calls.
    pub(crate) fn invariants(&self, newest: Lsn) {
        assert!(self.acked <= self.sent && self.sent <= newest, "acknowledged ≤ sent ≤ written");
        assert!(
            self.in_flight.is_empty() == (self.in_flight_bytes == 0),
            "bytes in flight belong to records in flight"
        );
    }
}
