//! The arbiter's storage: the shipped rules on a ledger, reached by messages that take their time and get lost.
//!
//! A claim is asked as in production: one after the other on each host, each a claim at rest that is written and
//! read with the shipped encoding. A storage that does not answer may have done its work. A host that does not reach it
//! finds another in its place ([`Elsewhere`]): the shipped rules must decide nothing there.

use crate::check::Broken;
use crate::fault::{HostId, NAMES};
use crate::random::Random;
use crate::world::Claimant;
use pollux_arbiter::{Arbiter, Claim, Decision, Ledger, Secret, decode, encode, first_generation};
use pollux_protocol::Verdict;
use pollux_vocab::Generation;
use std::collections::BTreeMap;

/// The VM's name.
const VM: &str = "vm";
/// Who ran it before: it ended in good order, so the pair starts in its third generation.
const EARLIER: &str = "earlier";
/// The pair's first generation.
const FIRST: Generation = Generation(3);

/// What a host finds that does not reach the storage.
#[derive(Clone, Copy, Debug)]
enum Elsewhere {
    /// Nothing: a mount that is gone, or a store that was emptied.
    Emptied,
    /// The store of another pair whose VM has the same name and past.
    Swapped,
    /// A copy from before the VM was started: it had run, and ended, once before.
    OldCopy,
}

/// Storage that all hosts reach, mostly.
#[derive(Debug)]
pub(crate) struct Storage {
    ledger: Ledger,
    /// What a host finds that does not reach it.
    elsewhere: Ledger,
    /// To whom each generation went: what the checkers believe.
    granted: BTreeMap<u64, HostId>,
    pub(crate) down_until_ns: u64,
    /// A host does not reach the storage until then; `true`: it does, and hears no answer.
    pub(crate) cut_until_ns: Vec<(u64, bool)>,
    /// Each host asks one thing at a time.
    busy_until_ns: Vec<u64>,
    random: Random,
}

/// What became of a claim, and when its answer is there.
pub(crate) type Answered = (u64, Verdict);

impl Elsewhere {
    fn store(self) -> Ledger {
        let mut store = Ledger::default();
        let claim = |generation, holder: &str, after| Claim {
            vm: VM.into(),
            generation,
            holder: holder.into(),
            after,
            secret: Secret::default(),
        };
        // A store that is empty up to there gives to whoever asks.
        if !matches!(self, Self::Emptied) {
            let _ = store.claim(&claim(Generation(1), EARLIER, None));
            let _ = store.claim(&Claim::end(VM, Generation(1), EARLIER));
        }
        if matches!(self, Self::Swapped) {
            let end = store.newest(VM).map(|end| end.holder.clone());
            let _ = store.claim(&claim(FIRST, "stranger", end));
        }
        store
    }
}

impl Storage {
    pub(crate) fn new(hosts: usize, mut random: Random) -> Self {
        let elsewhere = random.pick(&[Elsewhere::Emptied, Elsewhere::Swapped, Elsewhere::OldCopy]);
        Self {
            ledger: Elsewhere::OldCopy.store(),
            elsewhere: elsewhere.store(),
            granted: BTreeMap::new(),
            down_until_ns: 0,
            cut_until_ns: vec![(0, false); hosts],
            busy_until_ns: vec![0; hosts],
            random,
        }
    }

    /// When a claim that is made now reaches the storage.
    pub(crate) fn arrival_ns(&mut self, now_ns: u64, host: HostId) -> u64 {
        let at = now_ns.max(self.busy_until_ns[host]) + self.random.log_between(50_000, 5_000_000);
        self.busy_until_ns[host] = at;
        at
    }

    /// A claim has arrived, or would have.
    pub(crate) fn claim(
        &mut self,
        now_ns: u64,
        claimant: Claimant,
        generation: Generation,
    ) -> Result<Answered, Broken> {
        let host = claimant.host;
        let (cut_until, silent) = self.cut_until_ns[host];
        let cut = now_ns < cut_until;
        let down = now_ns < self.down_until_ns;
        let reached = (!cut || silent) && (!down || self.random.chance(300));
        let lost = cut && !silent;
        let claim = self.claim_of(host, claimant.primary, generation);
        let verdict = match (reached, lost) {
            (true, _) => self.decide(host, &claim, false)?,
            (false, true) => self.decide(host, &claim, true)?,
            (false, false) => Verdict::Unreachable,
        };
        if (cut || down) && !(lost && verdict == Verdict::Won) {
            let patience = self.random.log_between(1_000_000, 200_000_000);
            self.busy_until_ns[host] = now_ns + patience;
            return Ok((now_ns + patience, Verdict::Unreachable));
        }
        let at = now_ns + self.random.log_between(50_000, 5_000_000);
        self.busy_until_ns[host] = at;
        Ok((at, verdict))
    }

    fn decide(&mut self, host: HostId, claim: &Claim, lost: bool) -> Result<Verdict, Broken> {
        let generation = claim.generation;
        let broken = |what: String| Broken("a claim survives being written down", what);
        let written = decode(&encode(claim)).map_err(|error| broken(error.to_string()))?;
        let ledger = if lost { &mut self.elsewhere } else { &mut self.ledger };
        match ledger.claim(&written) {
            Ok(Decision::Won) => {}
            Ok(Decision::Lost { .. }) => return Ok(Verdict::Lost),
            Ok(Decision::Elsewhere) => return Ok(Verdict::Unreachable),
        }
        let first = *self.granted.entry(generation.0).or_insert(host);
        if first != host {
            let what =
                format!("generation {generation} was given to {} and to {}", NAMES[first], NAMES[host]);
            return Err(Broken("a generation is given once", what));
        }
        Ok(Verdict::Won)
    }

    /// A claim stands on one of this host's own, or on the one of the primary that it backs up.
    fn claim_of(&self, host: HostId, primary: HostId, generation: Generation) -> Claim {
        let before = generation.0.checked_sub(1).filter(|before| *before > 0);
        let own = before.is_some_and(|before| self.holder(before) == Some(host));
        let after = before.map(|_| NAMES[if own { host } else { primary }].into());
        Claim { vm: VM.into(), generation, holder: NAMES[host].into(), after, secret: Secret::default() }
    }

    /// A process on this host wants to start a VM that is nobody's; says in which generation it may. Else it is
    /// somebody's.
    pub(crate) fn begin(&mut self, host: HostId) -> Option<Generation> {
        let end = self.ledger.newest(VM);
        let generation = first_generation(end).ok()?;
        let after = end.map(|end| end.holder.clone());
        let holder = NAMES[host].into();
        let claim = Claim { vm: VM.into(), generation, holder, after, secret: Secret::default() };
        let verdict = self.decide(host, &claim, false).ok()?;
        (verdict == Verdict::Won).then_some(generation)
    }

    /// The VM has ended in good order on this host, in this generation: the next is nobody's (`cli`, `tenure`).
    pub(crate) fn end(&mut self, now_ns: u64, host: HostId, own: Generation) {
        let is_reached = now_ns >= self.down_until_ns && now_ns >= self.cut_until_ns[host].0;
        if is_reached {
            let Ok(_) = self.ledger.end(VM, own, NAMES[host]);
        }
    }

    /// Somebody starts the VM: may they?
    pub(crate) fn may_start(&self) -> bool {
        first_generation(self.ledger.newest(VM)).is_ok()
    }

    /// Who holds a generation.
    pub(crate) fn holder(&self, generation: u64) -> Option<HostId> {
        self.granted.get(&generation).copied()
    }

    /// Who holds the newest; `None` if the VM has ended.
    pub(crate) fn newest_holder(&self) -> Option<HostId> {
        let newest = self.ledger.newest(VM).filter(|claim| !claim.is_end())?;
        self.holder(newest.generation.0)
    }
}
