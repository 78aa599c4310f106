//! The work that a start, an end or a replica asks for, done on toys.

use super::step::Way;
use super::world::{ARBITER, Broken, Down, Proc, SNAPSHOT_BYTES, STRANGER, Said, Side, VM, World};
use crate::fault::peer_of;
use pollux_arbiter::Arbiter;
use pollux_protocol::pairing::backup::BUSY;
use pollux_protocol::pairing::{
    BackupAction, BackupInput, Found, Greeting, PrimaryAction, PrimaryInput, Word,
};
use pollux_protocol::{Backup, Primary};
use pollux_vocab::{Generation, Lsn};

/// What nobody but who drew it knows.
const RANDOM: u8 = 0xee;

/// A proof that names its secret, its side and both nonces.
fn proof(secret: u8, side: u8, greeting: &Greeting, nonce: &[u8; 32]) -> [u8; 32] {
    let mut proof = [secret; 32];
    proof[1..4].copy_from_slice(&[side, greeting.nonce[0], nonce[0]]);
    proof
}

impl World {
    /// A process does what comes next.
    pub(super) fn act(&mut self, who: usize, way: Way) {
        if let Side::Spending(own) = self.procs[who].side {
            self.spend(who, own, way);
            return self.down(who, Down::Ended);
        }
        if let Some(generation) = self.procs[who].asks.take() {
            return self.answer(who, generation, way);
        }
        let Side::Starting(start) = &mut self.procs[who].side else { return };
        let Some(action) = start.poll_action() else { return };
        let input =
            if way == Way::Fails { Some(PrimaryInput::Failed) } else { self.perform(who, action, way) };
        let at = &mut self.procs[who];
        if let (Side::Starting(start), Some(input)) = (&mut at.side, input) {
            start.handle(at.now, input);
        }
    }

    /// The arbiter answers a replica.
    fn answer(&mut self, who: usize, generation: Generation, way: Way) {
        if matches!(&self.procs[who].side, Side::Backs(..))
            && !generation.0.checked_sub(1).is_some_and(|before| self.ran.contains(&Generation(before)))
        {
            self.broken = Some(Broken::TookNothing(who));
        }
        let after = Some(self.procs[who].runs.clone());
        let claim = self.claim(who, generation, after);
        let verdict = self.ask(&claim, way);
        let at = &mut self.procs[who];
        match &mut at.side {
            Side::Runs(primary) => primary.handle_arbiter(at.now, generation, verdict),
            Side::Backs(backup, _) => backup.handle_arbiter(at.now, generation, verdict),
            _ => {}
        }
        self.pump(who);
    }

    fn perform(&mut self, who: usize, action: PrimaryAction, way: Way) -> Option<PrimaryInput> {
        let own = self.secret(who);
        Some(match action {
            PrimaryAction::Connect => self.connect(who),
            PrimaryAction::Claim(generation) => {
                let claim = self.claim(who, generation, self.procs[who].after.clone());
                PrimaryInput::Claimed(self.ask(&claim, way))
            }
            PrimaryAction::Mark => PrimaryInput::Marked,
            PrimaryAction::Draw => PrimaryInput::Nonce([own; 32]),
            PrimaryAction::Send(word) => {
                self.tell_backup(who, word);
                return None;
            }
            PrimaryAction::Check { greeting, nonce, proof: theirs } => {
                let knows = theirs == proof(own, 0, &greeting, &nonce);
                PrimaryInput::Checked(knows.then(|| proof(own, 1, &greeting, &nonce)))
            }
            PrimaryAction::SendState => {
                (0..SNAPSHOT_BYTES)
                    .for_each(|at| self.tell_backup(who, Word::State { offset: at, bytes: 1 }));
                self.tell_backup(who, Word::StateEnd(SNAPSHOT_BYTES));
                PrimaryInput::Sent
            }
            PrimaryAction::Compare(theirs) => {
                let equal = theirs == Self::digest(true);
                PrimaryInput::Compared((!equal).then(|| "a page".into()))
            }
            PrimaryAction::PlugIn => PrimaryInput::PluggedIn,
            PrimaryAction::Spend(generation) => {
                self.spend(who, generation, way);
                PrimaryInput::Spent
            }
            PrimaryAction::Run => {
                self.run(who);
                return None;
            }
            PrimaryAction::GiveUp(why) => {
                self.down(who, Down::GaveUp(why));
                return None;
            }
        })
    }

    fn connect(&mut self, who: usize) -> PrimaryInput {
        let Some(to) = self.procs[who].backup else { return PrimaryInput::Failed };
        let Proc { now, side, .. } = &mut self.procs[to];
        let now = *now;
        let is_open = match side {
            Side::Door(visits) => {
                visits.insert(who, Self::visit(now));
                true
            }
            Side::Down(_) => return PrimaryInput::NotConnected,
            _ => false,
        };
        self.pipes.insert((who, to), std::collections::VecDeque::new());
        self.pipes.insert((to, who), std::collections::VecDeque::new());
        if !is_open {
            self.say(to, who, Said::Word(Word::Refuse(BUSY.into())));
            self.say(to, who, Said::End);
        }
        PrimaryInput::Connected
    }

    /// The VM runs: with the backup that has said Ready, if there is to be one.
    fn run(&mut self, who: usize) {
        let at = &mut self.procs[who];
        let Some(newest) = self.ledger.newest(VM) else {
            self.broken = Some(Broken::RunsUnwon(who));
            return;
        };
        let generation = newest.generation;
        let primary = match at.backup {
            Some(to) => Primary::new_protected(Self::settings(), generation, at.now, peer_of(to)),
            None => Primary::new_solo(Self::settings(), generation, at.now, Lsn(1)),
        };
        at.side = Side::Runs(primary);
        self.ran.insert(generation);
        if self.unequal.contains(&who) {
            self.broken = Some(Broken::RunsUnequal);
        }
    }

    fn tell_backup(&mut self, who: usize, word: Word) {
        let holder = self.name(who);
        let holds = self.ledger.newest(VM).is_some_and(|claim| claim.holder == holder);
        if !holds && matches!(word, Word::Greet(_)) {
            self.broken = Some(Broken::SaidUnwon(who));
        }
        if self.elsewhere && !matches!(word, Word::Greet(_)) {
            self.broken = Some(Broken::ToldStranger(word.name().into()));
        }
        if let Some(to) = self.procs[who].backup {
            self.say(who, to, Said::Word(word));
        }
    }

    /// A backup does what its start with a visitor asks for next.
    pub(super) fn serve(&mut self, who: usize, visitor: usize, way: Way) {
        let at = &mut self.procs[who];
        let Side::Door(visits) = &mut at.side else { return };
        let Some(visit) = visits.get_mut(&visitor) else { return };
        let Some(action) = visit.start.poll_action() else { return };
        let input = match (way, action) {
            (Way::Fails, BackupAction::LookUp(_)) => Some(BackupInput::Looked(Err("not reached".into()))),
            (Way::Fails, BackupAction::Send(_)) => Some(BackupInput::Failed),
            (Way::Fails, BackupAction::GiveUp(_) | BackupAction::Back) => {
                return self.down(who, Down::Crashed);
            }
            (Way::Fails, _) => Some(BackupInput::Unfit("this host".into())),
            (way, action) => self.perform_backup(who, visitor, action, way),
        };
        let at = &mut self.procs[who];
        if let (Side::Door(visits), Some(input)) = (&mut at.side, input)
            && let Some(visit) = visits.get_mut(&visitor)
        {
            visit.start.handle(at.now, input);
        }
    }

    fn perform_backup(
        &mut self,
        who: usize,
        visitor: usize,
        action: BackupAction,
        way: Way,
    ) -> Option<BackupInput> {
        let looked = match &action {
            BackupAction::LookUp(greeting) => Some(self.look_up(greeting)),
            BackupAction::Send(word) => return self.tell_visitor(who, visitor, word.clone()),
            BackupAction::Back => {
                self.back(who, visitor);
                return None;
            }
            BackupAction::GiveUp(_) => {
                self.leave(who, visitor);
                return None;
            }
            _ => None,
        };
        let Side::Door(visits) = &mut self.procs[who].side else { return None };
        let visit = visits.get_mut(&visitor)?;
        Some(match action {
            BackupAction::LookUp(greeting) => {
                let (found, secret) = looked?;
                (visit.greeting, visit.secret) = (Some(greeting), secret);
                BackupInput::Looked(Ok(found))
            }
            BackupAction::Prove { greeting, known } => {
                if !known {
                    visit.secret = RANDOM;
                }
                let nonce = [visitor as u8 + 100; 32];
                BackupInput::Proved { nonce, proof: proof(visit.secret, 0, &greeting, &nonce) }
            }
            BackupAction::Check(theirs) => {
                let nonce = [visitor as u8 + 100; 32];
                let ours = visit.greeting.as_ref().map(|greeting| proof(visit.secret, 1, greeting, &nonce));
                BackupInput::Checked(ours == Some(theirs))
            }
            BackupAction::Knock => {
                visit.knocks = true;
                return None;
            }
            BackupAction::OpenDisks => BackupInput::Disks(Vec::new()),
            BackupAction::Fit(_) => BackupInput::Fits(Ok(())),
            BackupAction::Keep => return None,
            BackupAction::Build => {
                visit.equal = way != Way::Unequal;
                BackupInput::Built { ram_bytes: 1, read_only: Vec::new() }
            }
            BackupAction::PlugIn => {
                visit.plugged_in = true;
                BackupInput::PluggedIn
            }
            BackupAction::Digest => BackupInput::Digested(Self::digest(visit.equal)),
            BackupAction::Send(_) | BackupAction::Back | BackupAction::GiveUp(_) => return None,
        })
    }

    /// What stands at the backup's arbiter, and the secret of the claim.
    fn look_up(&mut self, greeting: &Greeting) -> (Found, u8) {
        let Ok(held) = self.ledger.standing(VM, greeting.generation);
        let Ok(next) = self.ledger.standing(VM, greeting.generation.next());
        let held = held.filter(|claim| !claim.is_end());
        // Another arbiter may hold a claim of the same names; its secret is another one.
        let arbiter = if self.elsewhere { [9; 16] } else { ARBITER };
        let secret = held.as_ref().map_or(RANDOM, |claim| claim.secret.0[0]);
        let secret = if self.elsewhere { RANDOM } else { secret };
        (Found { arbiter, holder: held.map(|claim| claim.holder), is_spent: next.is_some() }, secret)
    }

    fn tell_visitor(&mut self, who: usize, visitor: usize, word: Word) -> Option<BackupInput> {
        let Side::Door(visits) = &mut self.procs[who].side else { return None };
        let visit = visits.get(&visitor)?;
        let is_ready = matches!(word, Word::Ready(_));
        if is_ready && !visit.plugged_in {
            self.broken = Some(Broken::ReadyTooEarly);
        }
        if is_ready && !visit.equal {
            self.unequal.insert(visitor);
        }
        let is_stranger = visitor == STRANGER || self.elsewhere;
        if is_stranger && !matches!(word, Word::Challenge { .. }) {
            self.broken = Some(Broken::ToldStranger(word.name().into()));
        }
        self.say(who, visitor, Said::Word(word));
        is_ready.then_some(BackupInput::Sent)
    }

    fn back(&mut self, who: usize, visitor: usize) {
        let runs = self.procs.get(visitor).map(|_| self.name(visitor)).unwrap_or_default();
        let at = &mut self.procs[who];
        let Side::Door(visits) = &mut at.side else { return };
        let generation = visits.get(&visitor).and_then(|visit| visit.greeting.as_ref());
        let generation = generation.map_or(Generation(0), |greeting| greeting.generation);
        let others: Vec<_> = visits.keys().copied().filter(|other| *other != visitor).collect();
        let backup = Backup::new(Self::settings(), generation, at.now, peer_of(visitor));
        at.side = Side::Backs(backup, visitor);
        at.runs = runs;
        at.backup = Some(visitor);
        for other in others {
            self.say(who, other, Said::Word(Word::Refuse(BUSY.into())));
            self.say(who, other, Said::End);
        }
    }

    fn leave(&mut self, who: usize, visitor: usize) {
        if let Side::Door(visits) = &mut self.procs[who].side {
            visits.remove(&visitor);
        }
        self.say(who, visitor, Said::End);
        self.stranger_left |= visitor == STRANGER;
        if let Some(pipe) = self.pipes.get_mut(&(visitor, who)) {
            pipe.clear();
        }
    }
}
