//! What an action does: feeds the shipped state machines as `pollux-node` does, and moves what lies between them.
//!
//! Invariant: the order of effects is the node's (`Live::drain_protocol`, `Standby::drain_protocol`): releases, then
//! messages, then commands. Releases and messages are an action of their own, so that a crash, a sleep or another
//! host's whole takeover may come between what a side has heard and what it lets out.
//!
//! Not here: which actions are possible (`actions`), whether the outcome is right (`judge`).

use super::actions::Action;
use super::toy::{self, SLICE_STEPS, Word};
use super::world::{Broken, Doubt, Down, FAILURE_UNITS, NET_WAIT_UNITS, Side, VM, World, settings};
use crate::fault::{host_of, peer_of};
use pollux_arbiter::first_generation;
use pollux_protocol::{Backup, BackupCommand, Command, Message, PeerId, Primary, Role, Verdict};
use pollux_vocab::{Generation, Icount, Lsn, RecordBody, VirtTime};
use std::sync::Arc;

/// The toy's virtual time stands still: nothing in the protocol but the lag loop reads it.
const NO_TIME: VirtTime = VirtTime(0);

impl World {
    /// The state after `action`; `None` if it changes nothing.
    #[must_use]
    pub fn after(&self, action: Action) -> Option<Self> {
        let mut next = self.clone();
        next.act(action).then_some(next)
    }

    fn act(&mut self, action: Action) -> bool {
        match action {
            Action::Slice { host, input } => self.slice(host, input),
            Action::Effects { host } => {
                let acted = self.effects(host, true);
                self.obey(host);
                return acted;
            }
            Action::Tick { host } => self.tick(host),
            Action::Deliver { wire, at } => {
                let wire = &mut self.wires[wire];
                if at > 0 {
                    self.left.overtakings -= 1;
                    wire.damaged = true;
                }
                let (from, to, message) = (wire.from, wire.to, wire.messages.remove(at));
                self.deliver(from, to, (*message).clone());
            }
            Action::Bytes { wire } => self.bytes(wire),
            Action::Replay { host } => return self.replay(host),
            Action::Decide { host } => self.decide(host),
            Action::Answer { host } => {
                if let Some((generation, verdict)) = self.hosts[host].answer.take() {
                    self.answer(host, generation, verdict);
                }
            }
            Action::Start { host } => self.start(host),
            Action::Look { host } => self.look(host),
            Action::Hang { host } => {
                self.left.hangs -= 1;
                self.hosts[host].hangs = true;
            }
            Action::LoseNetwork { host } => {
                self.left.net_losses -= 1;
                let at = &mut self.hosts[host];
                at.reaches = false;
                let now = at.now();
                match &mut at.side {
                    Side::Live(primary) => Arc::make_mut(primary).handle_network(now, false),
                    Side::Standby(backup) => Arc::make_mut(backup).handle_network(now, false),
                    Side::Starting { .. } | Side::Down(_) => {}
                }
                self.obey(host);
            }
            Action::HandOver { host } => {
                if !self.hosts[host].wants_handover() {
                    self.left.handovers -= 1;
                }
                self.hand_over(host);
            }
            Action::Leave { host } => {
                self.left.leaves -= 1;
                if let Side::Standby(backup) = &mut self.hosts[host].side {
                    Arc::make_mut(backup).leave();
                }
                self.obey(host);
            }
            fault => return self.suffer(fault),
        }
        true
    }

    /// The faults among the actions.
    fn suffer(&mut self, fault: Action) -> bool {
        match fault {
            Action::CrashBetween { host } => {
                if !self.effects(host, false) {
                    return false;
                }
                self.crash(host);
            }
            Action::Crash { host } => self.crash(host),
            Action::Sleep { host } => {
                self.left.sleeps -= 1;
                let at = &mut self.hosts[host];
                at.clock += FAILURE_UNITS;
                (at.drowsy, at.slept) = (true, true);
            }
            Action::Nap { host } => {
                self.left.naps -= 1;
                let at = &mut self.hosts[host];
                at.clock += 1;
                at.drowsy = true;
            }
            Action::Repeat { wire } => {
                self.left.repeats -= 1;
                let wire = &self.wires[wire];
                let (from, to, message) = (wire.from, wire.to, (*wire.messages[0]).clone());
                self.deliver(from, to, message);
            }
            Action::Lose { wire, at } => {
                self.left.losses -= 1;
                self.wires[wire].damaged = true;
                self.wires[wire].messages.remove(at);
            }
            Action::Unreachable { host } => self.unreachable(host),
            Action::LinkEnds { host } => self.end_link(host),
            Action::Cut { wire } => {
                self.left.cuts -= 1;
                let wire = &mut self.wires[wire];
                wire.cut = true;
                wire.damaged |= !wire.messages.is_empty();
                wire.messages.clear();
            }
            Action::Mend { wire } => self.wires[wire].cut = false,
            _ => return false,
        }
        true
    }

    /// The machine runs a slice; something may come in first.
    pub(super) fn slice(&mut self, host: usize, input: bool) {
        if input {
            self.left.inputs -= 1;
        }
        let at = &mut self.hosts[host];
        let now = at.now();
        let Side::Live(primary) = &mut at.side else { return };
        let primary = Arc::make_mut(primary);
        if input {
            let what = host as u8 + 1;
            primary.admit(icount(at.toy.icount), RecordBody::Input(toy::to_input(what)));
            at.toy.hear(what);
        }
        for word in at.toy.run(at.toy.icount + SLICE_STEPS) {
            primary.hold(now, icount(word.icount), word.to_output());
        }
        primary.flush(now, icount(at.toy.icount), NO_TIME);
        self.obey(host);
    }

    /// What may leave leaves; then, unless this host has crashed by then, the messages.
    pub(super) fn effects(&mut self, host: usize, with_messages: bool) -> bool {
        let now = self.hosts[host].now();
        let mut acted = false;
        while let Side::Live(primary) = &mut self.hosts[host].side {
            let Some(output) = Arc::make_mut(primary).poll_release(now) else { break };
            acted = true;
            if let Some(word) = Word::from_output(&output) {
                self.hear_out(host, word);
            }
        }
        if with_messages {
            while self.has_room(host) {
                let Some((peer, message)) = self.poll_message(host) else { break };
                self.hosts[host].handed |= matches!(message, Message::Handover { .. });
                self.send(host, host_of(peer), message);
                let at = &mut self.hosts[host];
                // A word that comes too late takes nothing back: the backup may be live by now.
                at.slept |= at.is_silent();
                at.sent_at = at.clock;
                acted = true;
            }
            if let Side::Live(primary) = &mut self.hosts[host].side {
                Arc::make_mut(primary).handle_sent(now);
            }
        }
        acted
    }

    fn poll_message(&mut self, host: usize) -> Option<(PeerId, Message)> {
        match &mut self.hosts[host].side {
            Side::Live(primary) => Arc::make_mut(primary).poll_message(),
            Side::Standby(backup) => Arc::make_mut(backup).poll_message(),
            Side::Starting { .. } | Side::Down(_) => None,
        }
    }

    /// The world hears `word` from `host`.
    fn hear_out(&mut self, host: usize, word: Word) {
        let at = &self.hosts[host];
        let Some((role, generation)) = at.role() else { return };
        let holder = self.holder(host);
        if role == Role::Claiming
            || role != Role::Solo && at.handed
            || role == Role::Primary && (at.slept || at.is_silent())
        {
            self.broken.get_or_insert(Broken::SpokeUnasked);
        }
        match self.owners.iter().find(|(owned, _)| *owned == generation) {
            Some((_, owner)) if *owner != holder => {
                self.broken.get_or_insert(Broken::TwoSpoke(generation));
            }
            Some(_) => {}
            None => self.owners.push((generation, holder)),
        }
        match self.said.iter().find(|said| said.icount == word.icount) {
            Some(said) if *said != word => {
                self.broken.get_or_insert(Broken::Contradicted(word));
            }
            Some(_) => {}
            None => self.said.push(word),
        }
    }

    pub(super) fn hand_over(&mut self, host: usize) {
        let at = &mut self.hosts[host];
        let (now, toy) = (at.now(), icount(at.toy.icount));
        if let Side::Live(primary) = &mut at.side {
            Arc::make_mut(primary).hand_over(now, toy, NO_TIME);
        }
        self.obey(host);
    }

    pub(super) fn tick(&mut self, host: usize) {
        let at = &mut self.hosts[host];
        if at.drowsy && matches!(at.role(), Some((Role::Primary, _))) {
            // Who was away listens before it judges, for half of the timeout.
            at.heard_at = at.heard_at.max(at.clock.saturating_sub(FAILURE_UNITS / 2));
        }
        if !at.drowsy {
            at.clock += 1;
            self.left.ticks[host] = self.left.ticks[host].saturating_sub(1);
        }
        at.drowsy = false;
        let now = at.now();
        match &mut at.side {
            Side::Live(primary) => Arc::make_mut(primary).handle_tick(now),
            Side::Standby(backup) => Arc::make_mut(backup).handle_tick(now),
            Side::Starting { .. } | Side::Down(_) => {}
        }
        self.obey(host);
    }

    /// Bytes of a message arrive that is not whole.
    fn bytes(&mut self, wire: usize) {
        self.left.bytes -= 1;
        let from = peer_of(self.wires[wire].from);
        let at = &mut self.hosts[self.wires[wire].to];
        let now = at.now();
        match &mut at.side {
            Side::Live(primary) => Arc::make_mut(primary).handle_bytes(now, from),
            Side::Standby(backup) => Arc::make_mut(backup).handle_bytes(now, from),
            Side::Starting { .. } | Side::Down(_) => {}
        }
    }

    pub(super) fn deliver(&mut self, from: usize, to: usize, message: Message) {
        let from = peer_of(from);
        let at = &mut self.hosts[to];
        at.asked |= matches!(message, Message::Handover { .. });
        let now = at.now();
        if at.role() == Some((Role::Primary, message.generation())) {
            at.heard_at = at.clock;
        }
        match &mut at.side {
            Side::Live(primary) => Arc::make_mut(primary).handle_message(now, from, message),
            Side::Standby(backup) => Arc::make_mut(backup).handle_message(now, from, message),
            Side::Starting { .. } | Side::Down(_) => {}
        }
        self.obey(to);
    }

    /// The backup's machine comes to the next record and applies it.
    pub(super) fn replay(&mut self, host: usize) -> bool {
        let at = &mut self.hosts[host];
        let now = at.now();
        if at.hangs {
            return false;
        }
        let Side::Standby(backup) = &mut at.side else { return false };
        let Some(record) = backup.next_record().cloned() else { return false };
        let backup = Arc::make_mut(backup);
        let words = at.toy.run(u8::try_from(record.icount.0).unwrap_or(u8::MAX));
        at.doubts.extend(words.into_iter().map(|word| Doubt { covering: None, word }));
        match &record.body {
            RecordBody::Input(input) => {
                if let Some(what) = toy::from_input(input) {
                    at.toy.hear(what);
                }
            }
            RecordBody::Mark => {
                let uncovered = at.doubts.iter_mut().filter(|doubt| doubt.covering.is_none());
                uncovered.for_each(|doubt| doubt.covering = Some(record.lsn));
            }
            _ => {}
        }
        backup.pop_record();
        let released = backup.released();
        at.doubts.retain(|doubt| doubt.covering.is_none_or(|mark| mark > released));
        backup.handle_executed(now, icount(at.toy.icount), NO_TIME);
        self.obey(host);
        true
    }

    /// The arbiter decides the claim that has reached it. Who asked may have crashed.
    pub(super) fn decide(&mut self, host: usize) {
        if let Some(asked) = self.hosts[host].asks.take() {
            let verdict = self.grant(&asked);
            let at = &mut self.hosts[host];
            if at.is_up() && at.life == asked.holder.life {
                at.answer = Some((asked.generation, verdict));
            }
        }
    }

    /// The question gets lost, or gets to another store, or the answer to it gets lost.
    fn unreachable(&mut self, host: usize) {
        self.left.unreachable -= 1;
        let at = &mut self.hosts[host];
        let asked = at.asks.take();
        let answered = at.answer.take().map(|(generation, _)| (generation, Verdict::Unreachable));
        let decided =
            answered.or_else(|| asked.map(|asked| (asked.generation, self.grant_elsewhere(&asked))));
        if let Some((generation, verdict)) = decided {
            self.answer(host, generation, verdict);
        }
    }

    pub(super) fn answer(&mut self, host: usize, generation: Generation, verdict: Verdict) {
        let at = &mut self.hosts[host];
        let now = at.now();
        match &mut at.side {
            Side::Live(primary) => Arc::make_mut(primary).handle_arbiter(now, generation, verdict),
            Side::Standby(backup) => Arc::make_mut(backup).handle_arbiter(now, generation, verdict),
            Side::Starting { protected, .. } => {
                let protected = *protected;
                self.begin(host, generation, verdict, protected);
            }
            Side::Down(_) => {}
        }
        self.obey(host);
    }

    /// A process that has just been started hears whether it may run the VM.
    fn begin(&mut self, host: usize, generation: Generation, verdict: Verdict, protected: bool) {
        let settings = settings(&self.left);
        let others = self
            .owners
            .iter()
            .any(|(_, owner)| usize::from(owner.host) != host || owner.life != self.hosts[host].life);
        let at = &mut self.hosts[host];
        (at.sent_at, at.heard_at) = (at.clock, at.clock);
        at.side = match verdict {
            Verdict::Won if protected => {
                let backup = peer_of(at.peer.expect("a protected start names its backup"));
                Side::Live(Arc::new(Primary::new_protected(settings, generation, at.now(), backup)))
            }
            Verdict::Won => Side::Live(Arc::new(Primary::new_solo(settings, generation, at.now(), Lsn(1)))),
            Verdict::Lost | Verdict::Unreachable => Side::Down(Down::Refused),
        };
        if verdict == Verdict::Won && others {
            self.broken.get_or_insert(Broken::StartedTwice);
        }
    }

    /// Power fails. What is under way to others stays so; what others send gets nowhere.
    fn crash(&mut self, host: usize) {
        self.left.crashes -= 1;
        let at = &mut self.hosts[host];
        at.side = Side::Down(Down::Crashed);
        (at.drowsy, at.slept, at.handed, at.unlinked) = (false, false, false, true);
        at.doubts.clear();
        (at.answer, at.heard_at) = (None, 0);
        self.lose_all_to(host);
    }

    /// Somebody starts the VM here, from its beginning.
    fn start(&mut self, host: usize) {
        self.left.starts -= 1;
        let at = &mut self.hosts[host];
        at.life += 1;
        at.backs = None;
        at.toy = toy::Toy::default();
        at.side = Side::Starting { protected: false, found: None };
    }

    /// It looks whether the VM is free, and asks for it.
    pub(super) fn look(&mut self, host: usize) {
        let free = first_generation(self.ledger.newest(VM));
        let asked = free.as_ref().ok().map(|generation| self.asked(host, *generation));
        let at = &mut self.hosts[host];
        let Side::Starting { found, .. } = &mut at.side else { return };
        match free {
            Ok(generation) => (*found, at.asks) = (Some(generation), asked),
            Err(_) => at.side = Side::Down(Down::Refused),
        }
    }

    fn end_link(&mut self, host: usize) {
        self.left.link_ends -= 1;
        self.lose_all_to(host);
        let at = &mut self.hosts[host];
        at.unlinked = true;
        let Some(from) = at.peer.map(peer_of) else { return };
        let now = at.now();
        match &mut at.side {
            Side::Live(primary) => Arc::make_mut(primary).handle_link_lost(now, from),
            Side::Standby(backup) => Arc::make_mut(backup).handle_link_lost(now, from),
            Side::Starting { .. } | Side::Down(_) => {}
        }
        self.obey(host);
    }

    /// Whether a claim that is made now comes too early.
    fn watch_claim(&mut self, host: usize) {
        let at = &mut self.hosts[host];
        let claims = matches!(at.role(), Some((Role::Claiming, _)));
        at.claims_since = claims.then(|| at.claims_since.unwrap_or(at.clock));
        let waited = at.claims_since.is_some_and(|since| at.clock - since >= NET_WAIT_UNITS);
        at.waits = claims && !at.reaches && !waited && !at.asked;
    }

    /// Carries the commands out.
    pub(super) fn obey(&mut self, host: usize) {
        self.watch_claim(host);
        if !matches!(self.hosts[host].role(), Some((Role::Primary, _))) {
            self.hosts[host].heard_at = 0;
        }
        loop {
            let at = &mut self.hosts[host];
            let halt = match &mut at.side {
                Side::Live(primary) => match Arc::make_mut(primary).poll_command() {
                    None => return,
                    Some(Command::Claim(generation)) => {
                        self.ask(host, generation);
                        continue;
                    }
                    Some(Command::WentSolo { .. }) => {
                        (at.slept, at.handed) = (false, false);
                        continue;
                    }
                    Some(Command::BackupLost | Command::BackupStalled) => continue,
                    Some(Command::Halt(reason)) => reason,
                },
                Side::Standby(backup) => match Arc::make_mut(backup).poll_command() {
                    None => return,
                    Some(BackupCommand::Claim(generation)) => {
                        self.ask(host, generation);
                        continue;
                    }
                    Some(BackupCommand::GoLive { generation, next_lsn }) => {
                        self.go_live(host, generation, next_lsn);
                        continue;
                    }
                    Some(BackupCommand::Halt(reason)) => reason,
                },
                Side::Starting { .. } | Side::Down(_) => return,
            };
            // Its last words leave before it does.
            self.effects(host, true);
            let at = &mut self.hosts[host];
            at.side = Side::Down(Down::Halted(halt));
            (at.drowsy, at.slept, at.handed, at.unlinked) = (false, false, false, true);
            at.doubts.clear();
            self.lose_all_to(host);
        }
    }

    /// It claims.
    fn ask(&mut self, host: usize, generation: Generation) {
        self.hosts[host].asks = Some(self.asked(host, generation));
        if self.hosts[host].waits {
            self.broken.get_or_insert(Broken::ClaimedUnserved);
        }
    }

    /// `Standby::go_live`: what may not have been released is repeated.
    fn go_live(&mut self, host: usize, generation: Generation, next_lsn: Lsn) {
        let settings = settings(&self.left);
        let at = &mut self.hosts[host];
        let (released, before) = match &at.side {
            Side::Standby(backup) => (Backup::released(backup), Backup::primary(backup)),
            _ => return,
        };
        let now = at.now();
        let mut primary = Primary::new_solo(settings, generation, now, next_lsn);
        for doubt in at.doubts.drain(..) {
            if doubt.covering.is_none_or(|mark| mark > released) {
                primary.hold(now, icount(doubt.word.icount), doubt.word.to_output());
            }
        }
        primary.flush(now, icount(at.toy.icount), NO_TIME);
        primary.queue_taken_over(before);
        at.slept = false;
        at.side = Side::Live(Arc::new(primary));
    }
}

fn icount(steps: u8) -> Icount {
    Icount(u64::from(steps))
}
