//! What may happen next, and the faults.

use super::world::{ARBITER, Down, STRANGER, Said, Side, VM, World};
use crate::fault::peer_of;
use pollux_arbiter::{Arbiter, Claim, Decision};
use pollux_protocol::ending::{Ended, Part, to_spend};
use pollux_protocol::pairing::{BackupInput, BackupStart, Greeting, PrimaryInput, PrimaryStart, Terms, Word};
use pollux_protocol::{BackupCommand, Command, HostTime, Primary, Role, Verdict};
use pollux_vocab::{Generation, Lsn};
use std::collections::VecDeque;

/// How work comes out.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Way {
    /// As it should.
    Fine,
    /// This host cannot do it.
    Fails,
    /// The arbiter is not reached.
    Unreached,
    /// It has decided, and its answer is lost.
    Unheard,
    /// The machine comes out with a wrong bit.
    Unequal,
}

/// What may happen.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// A process does what its start, its end or its replica asks for next.
    Act(usize, Way),
    /// A backup does what its start with that visitor asks for next.
    Serve(usize, usize, Way),
    /// A backup takes that visitor in, or says that it is busy.
    Let(usize, usize),
    /// What the first has said to the second arrives.
    Deliver(usize, usize),
    /// A deadline of a process comes, or a heartbeat is due.
    Tick(usize),
    /// A deadline of a backup's start with that visitor comes.
    TickVisit(usize, usize),
    /// Somebody tells a process to stop.
    Stop(usize),
    /// A VM powers off where it runs.
    PowerOff(usize),
    /// A process crashes.
    Crash(usize),
    /// The link between the two ends.
    Cut(usize, usize),
    /// A stranger says the word of that number.
    Stranger(u8),
    /// A process is started again.
    Start(usize),
}

/// Words that a stranger knows.
const STRANGER_WORDS: u8 = 4;

impl World {
    /// All that may happen.
    pub fn actions(&self, actions: &mut Vec<Action>) {
        self.calm_actions(actions);
        let calm = actions.clone();
        for action in calm {
            let ways: &[Way] = match action {
                Action::Act(who, _) if self.asks_arbiter(who) => &[Way::Unreached, Way::Unheard],
                Action::Act(..) | Action::Serve(..) => &[Way::Fails, Way::Unequal],
                _ => &[],
            };
            for way in ways {
                let left = match way {
                    Way::Unreached | Way::Unheard => self.left.unreachable,
                    Way::Unequal if matches!(action, Action::Serve(..)) => self.left.unequal,
                    Way::Fails => self.left.faults,
                    Way::Fine | Way::Unequal => 0,
                };
                match action {
                    Action::Act(who, _) if left > 0 => actions.push(Action::Act(who, *way)),
                    Action::Serve(who, visitor, _) if left > 0 => {
                        actions.push(Action::Serve(who, visitor, *way));
                    }
                    _ => {}
                }
            }
        }
        self.faults(actions);
    }

    fn faults(&self, actions: &mut Vec<Action>) {
        for (who, at) in self.procs.iter().enumerate() {
            let is_up = !matches!(at.side, Side::Down(_));
            if is_up && self.left.crashes > 0 {
                actions.push(Action::Crash(who));
            }
            if self.left.stops > 0 && matches!(at.side, Side::Starting(_) | Side::Door(_)) {
                actions.push(Action::Stop(who));
            }
            if self.left.ticks > 0 {
                self.ticks(who, actions);
            }
            let ends = matches!(&at.side, Side::Runs(primary) if runs(primary)) && at.asks.is_none();
            if ends && self.left.ends > 0 {
                actions.push(Action::PowerOff(who));
            }
            if !is_up && !at.is_backup && self.left.starts > 0 {
                actions.push(Action::Start(who));
            }
        }
        if self.left.cuts > 0 {
            let links = self.pipes.keys().filter(|(a, b)| a < b);
            actions.extend(links.map(|(a, b)| Action::Cut(*a, *b)));
        }
        if self.left.words > 0 {
            actions.extend((0..STRANGER_WORDS).map(Action::Stranger));
        }
    }

    pub(super) fn ticks(&self, who: usize, actions: &mut Vec<Action>) {
        match &self.procs[who].side {
            Side::Starting(start) if waits(start) => actions.push(Action::Tick(who)),
            Side::Runs(_) | Side::Backs(..) => actions.push(Action::Tick(who)),
            Side::Door(visits) => actions.extend(
                visits.iter().filter(|(_, v)| hears(&v.start)).map(|(i, _)| Action::TickVisit(who, *i)),
            ),
            _ => {}
        }
    }

    /// What happens without faults, and without deadlines that come.
    pub(super) fn calm_actions(&self, actions: &mut Vec<Action>) {
        for (who, at) in self.procs.iter().enumerate() {
            match &at.side {
                Side::Starting(start) if start.clone().poll_action().is_some() => {
                    actions.push(Action::Act(who, Way::Fine));
                }
                Side::Spending(_) => actions.push(Action::Act(who, Way::Fine)),
                Side::Runs(_) | Side::Backs(..) if at.asks.is_some() => {
                    actions.push(Action::Act(who, Way::Fine));
                }
                Side::Door(visits) => {
                    for (visitor, visit) in visits {
                        if visit.knocks {
                            actions.push(Action::Let(who, *visitor));
                        } else if visit.start.clone().poll_action().is_some() {
                            actions.push(Action::Serve(who, *visitor, Way::Fine));
                        }
                    }
                }
                _ => {}
            }
        }
        let under_way = self.pipes.iter().filter(|(_, pipe)| !pipe.is_empty()).map(|(link, _)| *link);
        actions.extend(
            under_way.filter(|(from, to)| self.is_heard(*from, *to)).map(|(f, t)| Action::Deliver(f, t)),
        );
    }

    /// Whether the receiver reads: a start reads when it waits for its peer.
    fn is_heard(&self, from: usize, to: usize) -> bool {
        match self.procs.get(to).map(|at| &at.side) {
            Some(Side::Starting(start)) => waits(start),
            Some(Side::Door(visits)) => visits.get(&from).is_some_and(|visit| hears(&visit.start)),
            Some(_) => true,
            None => true,
        }
    }

    /// Whether what the process does next is to ask the arbiter.
    fn asks_arbiter(&self, who: usize) -> bool {
        use pollux_protocol::pairing::PrimaryAction;
        match &self.procs[who].side {
            Side::Starting(start) => {
                matches!(start.clone().poll_action(), Some(PrimaryAction::Claim(_) | PrimaryAction::Spend(_)))
            }
            Side::Spending(_) => true,
            Side::Runs(_) | Side::Backs(..) => true,
            _ => false,
        }
    }

    /// Lets it happen.
    pub fn take(&mut self, action: Action) {
        match action {
            Action::Act(who, way) => {
                self.pay(way);
                self.act(who, way);
            }
            Action::Serve(who, visitor, way) => {
                self.pay(way);
                self.serve(who, visitor, way);
            }
            Action::Let(who, visitor) => self.let_in(who, visitor),
            Action::Deliver(from, to) => self.deliver(from, to),
            Action::Tick(who) => {
                self.left.ticks = self.left.ticks.saturating_sub(1);
                self.tick(who);
            }
            Action::TickVisit(who, visitor) => {
                self.left.ticks = self.left.ticks.saturating_sub(1);
                self.tick_visit(who, visitor);
            }
            Action::Stop(who) => {
                self.left.stops -= 1;
                self.stop(who);
            }
            Action::PowerOff(who) => {
                self.left.ends -= 1;
                self.power_off(who);
            }
            Action::Crash(who) => {
                self.left.crashes -= 1;
                self.down(who, Down::Crashed);
            }
            Action::Cut(a, b) => {
                self.left.cuts -= 1;
                self.pipes.insert((a, b), VecDeque::from([Said::End]));
                self.pipes.insert((b, a), VecDeque::from([Said::End]));
            }
            Action::Stranger(word) => {
                self.left.words -= 1;
                self.stranger(word);
            }
            Action::Start(who) => {
                self.left.starts -= 1;
                self.procs[who].life += 1;
                self.pipes.retain(|(a, b), _| *a != who && *b != who);
                self.start(who);
            }
        }
    }

    fn pay(&mut self, way: Way) {
        match way {
            Way::Fine => {}
            Way::Fails => self.left.faults -= 1,
            Way::Unreached | Way::Unheard => self.left.unreachable -= 1,
            Way::Unequal => self.left.unequal -= 1,
        }
    }

    /// A process is gone: what it has said still arrives, and then an end.
    pub(super) fn down(&mut self, who: usize, why: Down) {
        self.procs[who].side = Side::Down(why);
        self.procs[who].asks = None;
        for ((from, to), pipe) in &mut self.pipes {
            if *from == who {
                pipe.push_back(Said::End);
            } else if *to == who {
                pipe.clear();
            }
        }
    }

    pub(super) fn say(&mut self, from: usize, to: usize, said: Said) {
        if let Some(pipe) = self.pipes.get_mut(&(from, to))
            && pipe.back() != Some(&Said::End)
        {
            pipe.push_back(said);
        }
    }

    fn deliver(&mut self, from: usize, to: usize) {
        let Some(said) = self.pipes.get_mut(&(from, to)).and_then(VecDeque::pop_front) else { return };
        if said == Said::End {
            self.pipes.remove(&(from, to));
        }
        let Some(at) = self.procs.get_mut(to) else { return };
        let now = at.now;
        match (&mut at.side, said) {
            (Side::Starting(start), said) => start.handle(
                now,
                match said {
                    Said::Word(word) => PrimaryInput::Heard(word),
                    Said::Message(_) => PrimaryInput::Heard(Word::Other("message")),
                    Said::End => PrimaryInput::Failed,
                },
            ),
            (Side::Door(visits), said) => {
                if let Some(visit) = visits.get_mut(&from) {
                    visit.start.handle(
                        now,
                        match said {
                            Said::Word(word) => BackupInput::Heard(word),
                            Said::Message(_) => BackupInput::Heard(Word::Other("message")),
                            Said::End => BackupInput::Failed,
                        },
                    );
                }
            }
            (Side::Runs(primary), Said::Message(message)) => {
                primary.handle_message(now, peer_of(from), message)
            }
            (Side::Runs(primary), _) => primary.handle_link_lost(now, peer_of(from)),
            (Side::Backs(backup, peer), Said::Message(message)) if *peer == from => {
                backup.handle_message(now, peer_of(from), message);
            }
            (Side::Backs(backup, peer), _) if *peer == from => backup.handle_link_lost(now, peer_of(from)),
            _ => {}
        }
        self.pump(to);
    }

    fn tick(&mut self, who: usize) {
        let at = &mut self.procs[who];
        match &mut at.side {
            Side::Starting(start) => {
                at.now = start.deadline().unwrap_or(at.now);
                start.handle(at.now, PrimaryInput::Tick);
            }
            Side::Runs(primary) => {
                at.now = HostTime(at.now.0 + 1);
                primary.handle_tick(at.now);
            }
            Side::Backs(backup, _) => {
                at.now = HostTime(at.now.0 + 1);
                backup.handle_tick(at.now);
            }
            _ => {}
        }
        self.pump(who);
    }

    fn tick_visit(&mut self, who: usize, visitor: usize) {
        let Side::Door(visits) = &mut self.procs[who].side else { return };
        if let Some(visit) = visits.get_mut(&visitor) {
            // Each visitor has a thread, and a clock that nothing else reads.
            let now = visit.start.deadline().unwrap_or_default();
            visit.start.handle(now, BackupInput::Tick);
        }
    }

    fn stop(&mut self, who: usize) {
        let at = &mut self.procs[who];
        match &mut at.side {
            Side::Starting(start) => start.handle(at.now, PrimaryInput::Stop),
            Side::Door(visits) => {
                visits.values_mut().for_each(|visit| {
                    visit.knocks = false;
                    visit.start.handle(at.now, BackupInput::Stop);
                });
            }
            _ => {}
        }
    }

    fn let_in(&mut self, who: usize, visitor: usize) {
        let now = self.procs[who].now;
        let Side::Door(visits) = &mut self.procs[who].side else { return };
        let taken = visits.iter().any(|(other, visit)| *other != visitor && is_taken(visit));
        if let Some(visit) = visits.get_mut(&visitor) {
            (visit.knocks, visit.taken) = (false, !taken);
            visit.start.handle(now, if taken { BackupInput::Busy } else { BackupInput::Taken });
        }
    }

    /// The VM powers off: the backup is told, and then the arbiter.
    fn power_off(&mut self, who: usize) {
        let at = &mut self.procs[who];
        let Side::Runs(primary) = &mut at.side else { return };
        let own = primary.report().generation;
        primary.queue_goodbye();
        self.ended.insert(own);
        self.pump_messages(who);
        let part = Part::Live;
        match to_spend(part, Ended::InGoodOrder, own) {
            Some(own) => self.procs[who].side = Side::Spending(own),
            None => self.down(who, Down::Ended),
        }
    }

    /// A running replica says and does what it has to.
    pub(super) fn pump(&mut self, who: usize) {
        self.pump_messages(who);
        let name = self.name(who);
        loop {
            let at = &mut self.procs[who];
            match &mut at.side {
                Side::Runs(primary) => match primary.poll_command() {
                    Some(Command::Claim(generation)) => at.asks = Some(generation),
                    Some(Command::Halt(reason)) => self.down(who, Down::Halted(reason)),
                    Some(_) => {}
                    None => return,
                },
                Side::Backs(backup, _) => match backup.poll_command() {
                    Some(BackupCommand::Claim(generation)) => at.asks = Some(generation),
                    Some(BackupCommand::Halt(reason)) => self.down(who, Down::Halted(reason)),
                    Some(BackupCommand::GoLive { generation, .. }) => {
                        let alone = Primary::new_solo(Self::settings(), generation, at.now, Lsn(1));
                        at.side = Side::Runs(alone);
                        at.runs.clone_from(&name);
                        self.ran.insert(generation);
                    }
                    None => return,
                },
                _ => return,
            }
        }
    }

    fn pump_messages(&mut self, who: usize) {
        loop {
            let at = &mut self.procs[who];
            let message = match &mut at.side {
                Side::Runs(primary) => {
                    let message = primary.poll_message();
                    primary.handle_sent(at.now);
                    message
                }
                Side::Backs(backup, _) => backup.poll_message(),
                _ => return,
            };
            let Some((to, message)) = message else { return };
            self.say(who, usize::from(to.0), Said::Message(message));
        }
    }

    /// The arbiter's test-and-set, as it looks to who asks.
    pub(super) fn ask(&mut self, claim: &Claim, way: Way) -> Verdict {
        if way == Way::Unreached {
            return Verdict::Unreachable;
        }
        let Ok(decision) = self.ledger.claim(claim);
        match decision {
            _ if way == Way::Unheard => Verdict::Unreachable,
            Decision::Won => Verdict::Won,
            Decision::Lost { .. } => Verdict::Lost,
            Decision::Elsewhere => Verdict::Unreachable,
        }
    }

    /// A process spends the generation behind its own, as far as it reaches the arbiter.
    pub(super) fn spend(&mut self, who: usize, own: Generation, way: Way) {
        self.procs[who].excused |= way == Way::Unreached;
        if way != Way::Unreached {
            let holder = self.name(who);
            let Ok(_) = self.ledger.end(VM, own, &holder);
        }
    }

    fn stranger(&mut self, word: u8) {
        let Some(to) = self.procs.iter().position(|at| at.is_backup) else { return };
        let now = self.procs[to].now;
        let Side::Door(visits) = &mut self.procs[to].side else { return };
        visits.entry(STRANGER).or_insert_with(|| Self::visit(now));
        self.pipes.entry((STRANGER, to)).or_default();
        self.pipes.entry((to, STRANGER)).or_default();
        let (vm, generation) = (VM.into(), Generation(1));
        // What everybody may know: names, numbers, the arbiter's id.
        let (holder, nonce) = ("p0-1".into(), [3; 32]);
        let said = match word {
            0 => Word::Greet(Greeting { vm, generation, arbiter: ARBITER, holder, nonce }),
            1 => Word::Greet(Greeting { vm, generation, arbiter: ARBITER, holder: "p9-1".into(), nonce }),
            2 => Word::Proof([0; 32]),
            _ => {
                let (disks, snapshot_bytes) = (Vec::new(), 2);
                let (ram_bytes, heartbeat_ns, failure_ns) = (1, 1, 2);
                Word::Hello(Terms {
                    vm,
                    generation,
                    ram_bytes,
                    disks,
                    heartbeat_ns,
                    failure_ns,
                    snapshot_bytes,
                })
            }
        };
        self.say(STRANGER, to, Said::Word(said));
    }
}

/// Whether it runs the VM, as far as it knows.
pub(super) fn runs(primary: &Primary) -> bool {
    matches!(primary.report().state, Role::Solo | Role::Primary)
}

/// Whether a primary's start has nothing to do before something arrives.
pub(super) fn waits(start: &PrimaryStart) -> bool {
    start.deadline().is_some() && start.clone().poll_action().is_none()
}

/// Whether a backup's start has nothing to do before something arrives.
pub(super) fn hears(start: &BackupStart) -> bool {
    start.deadline().is_some() && start.clone().poll_action().is_none()
}

/// Whether a visitor has the place.
fn is_taken(visit: &super::world::Visit) -> bool {
    visit.taken
}
