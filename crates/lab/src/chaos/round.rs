//! One round: a pair is started, its clients work, the plan is carried out, and everything is judged.

use super::bounds::allowed_ms;
use super::clients::{Clients, wait_ready};
use super::judge::judge;
use super::pair::{BACKUP, PRIMARY, Pair, SIDES, Setup, SideName};
use super::plan::{Blow, Phase, Plan, Trouble};
use super::watch::{Watch, runs};
use super::wire::{Cut, Weather};
use anyhow::{Context, Result};
use pollux_host::arbiter_file::FileArbiter;
use pollux_host::{clock, exit};
use pollux_vocab::Generation;
use rustix::process::Signal;
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the service may be away before it counts as gone.
const SERVICE_PATIENCE: Duration = Duration::from_secs(15);
/// How a report of that begins.
const GONE: &str = "the service did not come back";
/// How long the sides may take until it is clear who runs.
const SETTLE_PATIENCE: Duration = Duration::from_secs(8);
/// Replies to each client that are waited for after the last fault.
const REPLIES_AFTER: u64 = 60;

/// How a round ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// The backup runs the VM.
    Failover,
    /// The primary runs it alone.
    Alone,
    /// They are still a pair.
    Whole,
    /// The side that had just won was then killed: two faults, and nobody may run.
    Double,
    /// Something else: a violation.
    Wrong,
}

/// What is counted in a round, and added up over all of them.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Counts {
    /// Guest instructions of the surviving VM.
    pub instructions: u64,
    /// State digests of both sides found equal.
    pub digests: u64,
    /// Outputs (replies) that clients saw and that were checked.
    pub checked: u64,
    /// Acknowledged writes that are gone.
    pub lost: u64,
    /// Answers that contradict others.
    pub contradicted: u64,
    /// Signs that two ran at once.
    pub two_at_once: u64,
    /// Objects whose search for an order was given up.
    pub undecided: u64,
}

impl Counts {
    /// Adds a round's.
    pub fn add(&mut self, round: &Self) {
        self.instructions += round.instructions;
        self.digests += round.digests;
        self.checked += round.checked;
        self.lost += round.lost;
        self.contradicted += round.contradicted;
        self.two_at_once += round.two_at_once;
        self.undecided += round.undecided;
    }
}

/// What a round came to.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Outcome {
    /// What was done.
    pub plan: Plan,
    /// Faults that were injected, by name.
    pub injected: Vec<&'static str>,
    /// How it ended.
    pub ending: Ending,
    /// From the blow until the backup was live, milliseconds; 0 if it never was.
    pub takeover_ms: f64,
    /// The longest that a client waited for a reply once faults began, milliseconds.
    pub gap_ms: f64,
    /// The longest that one may wait after these faults, milliseconds.
    pub allowed_ms: f64,
    /// When that wait began, milliseconds behind the blow.
    pub gap_at_ms: f64,
    /// The longest wait before faults began, milliseconds: what the machine does to a pair by itself.
    pub quiet_ms: f64,
    /// What was counted in it.
    #[serde(flatten)]
    pub counts: Counts,
    /// Everything that is wrong, in words.
    pub faults: Vec<String>,
}

/// A round in progress.
struct Round<'a> {
    setup: &'a Setup<'a>,
    folder: &'a Path,
    pair: Pair,
    watch: Watch,
    clients: Clients,
    outcome: Outcome,
    /// Instructions that the guest had behind it when the round began.
    icount_before: u64,
    /// Sides that were killed.
    killed: BTreeSet<usize>,
}

/// Plays a round in `folder`. An error means that it could not begin.
pub fn play(setup: &Setup<'_>, seed: u64, folder: &Path, boot_patience: Duration) -> Result<Outcome> {
    let plan = setup.plan;
    if let Some(cable) = setup.cable {
        cable.wire.change(|weather| *weather = Weather::default());
        cable.plug_service(PRIMARY, true)?;
    }
    let pair = Pair::start(setup, folder)?;
    wait_ready(pair.service(), boot_patience, || pair.check()).context("the guest does not come up")?;
    let watch = Watch::start(folder.to_owned(), pair.stats())?;
    let clients = Clients::start(pair.service(), seed, plan.round)?;
    let outcome = Outcome {
        plan: plan.clone(),
        injected: Vec::new(),
        ending: Ending::Wrong,
        takeover_ms: 0.0,
        gap_ms: 0.0,
        allowed_ms: 0.0,
        gap_at_ms: 0.0,
        quiet_ms: 0.0,
        counts: Counts::default(),
        faults: Vec::new(),
    };
    // What the snapshot had behind it was counted by nobody, and is not this round's.
    let icount_before =
        if setup.base.is_some() { pair.status(PRIMARY).map_or(0, |status| status.icount) } else { 0 };
    let killed = BTreeSet::new();
    let mut round = Round { setup, folder, pair, watch, clients, outcome, icount_before, killed };
    sleep_ms(plan.before_ms);
    let begun_ns = clock::now().0;
    round.trouble()?;
    let blow_ns = round.blow()?;
    round.settle();
    Ok(round.finish(begun_ns, blow_ns))
}

fn sleep_ms(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

impl Round<'_> {
    fn weather(&self, change: impl FnOnce(&mut Weather)) {
        if let Some(cable) = self.setup.cable {
            cable.wire.change(change);
        }
    }

    /// Stops a side for a while.
    fn stop_for(&self, side: usize, ms: u64) -> Result<()> {
        self.pair.signal(side, Signal::STOP)?;
        sleep_ms(ms);
        self.pair.signal(side, Signal::CONT)
    }

    fn disk_does(&self, side: usize, fault: &str, ms: u64) -> Result<()> {
        self.pair.set_disk_fault(side, fault)?;
        sleep_ms(ms);
        self.pair.set_disk_fault(side, "")
    }

    fn trouble(&mut self) -> Result<()> {
        for trouble in &self.setup.plan.troubles {
            if !self.is_whole() {
                break;
            }
            self.outcome.injected.push(trouble.name());
            match *trouble {
                Trouble::Delay { ms, jitter_ms } => self.weather(|weather| {
                    weather.delay = Duration::from_millis(ms);
                    weather.jitter = Duration::from_millis(jitter_ms);
                }),
                Trouble::Loss { permille } => self.weather(|weather| weather.loss_permille = permille),
                Trouble::ShortCut { ms } => {
                    self.weather(|weather| weather.cut = Cut::BOTH);
                    sleep_ms(ms);
                    self.weather(|weather| weather.cut = Cut::NONE);
                }
                Trouble::ShortStopPrimary { ms } => self.stop_for(PRIMARY, ms)?,
                Trouble::ShortStopBackup { ms } => self.stop_for(BACKUP, ms)?,
                Trouble::HangPrimaryDisk { ms } => self.disk_does(PRIMARY, "hang", ms)?,
                Trouble::HangBackupDisk { ms } => self.disk_does(BACKUP, "hang", ms)?,
                Trouble::SlowBackupDisk { ms } => self.disk_does(BACKUP, "slow", ms)?,
                Trouble::StalledLog { side } => self.pair.stall_log(side)?,
                Trouble::SlowLink { kib_per_s } => {
                    self.weather(|weather| weather.bytes_per_s = kib_per_s << 10);
                }
            }
            // Long enough for what was missed to be noticed, and for traffic to go on.
            sleep_ms(120);
        }
        Ok(())
    }

    /// Both work, by what they say themselves.
    fn is_whole(&self) -> bool {
        let role = |side| self.pair.status(side).is_ok_and(|s| s.role == SIDES[side].part);
        self.pair.check().is_ok() && (0..SIDES.len()).all(role)
    }

    /// Waits for the moment that the plan wants.
    fn await_phase(&self) {
        match self.setup.plan.phase {
            Phase::Idle => self.clients.pause(),
            Phase::Writes | Phase::GoLive => {}
            Phase::Digest => {
                let digests = || self.pair.status(BACKUP).map_or(0, |status| status.digests_agreed);
                let (begun, before) = (Instant::now(), digests());
                while digests() == before && begun.elapsed() < Duration::from_secs(2) {
                    sleep_ms(2);
                }
                // A digest has just been compared; the next one is due after the interval.
                sleep_ms(self.setup.plan.digest_ms.saturating_sub(5));
            }
        }
    }

    /// The blow, what comes back, and the second blow. Returns when it fell.
    fn blow(&mut self) -> Result<u64> {
        let plan = self.setup.plan;
        let begun_ns = clock::now().0;
        if self.is_whole() {
            self.await_phase();
        }
        if !self.is_whole() {
            // The troubles were too much already. A blow at the side that has just won would be a second fault.
            self.clients.resume();
            self.wait_for_service();
            return Ok(begun_ns);
        }
        let arbiter_back = match plan.arbiter_loss {
            Some(loss) => {
                self.outcome.injected.push(loss.name());
                Some(self.pair.lose_arbiter(loss)?)
            }
            None => None,
        };
        let blow_ns = clock::now().0;
        let begun = Instant::now();
        self.outcome.injected.push(plan.blow.name());
        if let Some((side, fault)) = plan.blow.at_disk() {
            self.pair.set_disk_fault(side, fault)?;
        }
        if let Some(cable) = self.setup.cable.filter(|_| plan.blow == Blow::CutService) {
            cable.plug_service(PRIMARY, false)?;
        }
        let cut = match plan.blow {
            Blow::CrashPrimary | Blow::CutBoth => Cut::BOTH,
            Blow::CutToBackup => Cut { forth: true, back: false },
            Blow::CutToPrimary => Cut { forth: false, back: true },
            _ => Cut::NONE,
        };
        self.weather(|weather| weather.cut = cut);
        let (struck, signal) = match plan.blow {
            Blow::KillPrimary | Blow::CrashPrimary => (PRIMARY, Some(Signal::KILL)),
            Blow::StopPrimary => (PRIMARY, Some(Signal::STOP)),
            Blow::KillBackup => (BACKUP, Some(Signal::KILL)),
            Blow::StopBackup => (BACKUP, Some(Signal::STOP)),
            _ => (PRIMARY, None),
        };
        if let Some(signal) = signal {
            self.pair.signal(struck, signal)?;
            self.killed.extend((signal == Signal::KILL).then_some(struck));
        }
        self.clients.resume();
        if let Some((at_ms, for_ms)) = plan.second {
            sleep_ms(at_ms);
            self.outcome.injected.push("SIGSTOP of the backup at the takeover");
            self.stop_for(BACKUP, for_ms)?;
        }
        let returns = signal == Some(Signal::STOP) || plan.blow != Blow::CrashPrimary && cut != Cut::NONE;
        if returns {
            std::thread::sleep(Duration::from_millis(plan.back_ms).saturating_sub(begun.elapsed()));
            if signal.is_some() {
                self.pair.signal(struck, Signal::CONT)?;
            }
            self.weather(|weather| weather.cut = Cut::NONE);
        }
        if let Some(back) = arbiter_back {
            let _ = back.join();
        }
        self.wait_for_service();
        Ok(blow_ns)
    }

    fn wait_for_service(&mut self) {
        self.clients.mark();
        let begun = Instant::now();
        while self.clients.replies() < REPLIES_AFTER && !self.clients.have_ended() {
            if begun.elapsed() > SERVICE_PATIENCE {
                self.outcome
                    .faults
                    .push(format!("the service did not come back within {SERVICE_PATIENCE:?}"));
                return;
            }
            sleep_ms(5);
        }
    }

    /// Waits until it is clear who runs.
    fn settle(&mut self) {
        self.weather(|weather| *weather = Weather::default());
        let begun = Instant::now();
        loop {
            let ended: Vec<_> = (0..SIDES.len()).map(|side| self.pair.ended(side)).collect();
            let ask = |side: usize| if ended[side].is_none() { self.pair.status(side).ok() } else { None };
            let status: Vec<_> = (0..SIDES.len()).map(ask).collect();
            let left: Vec<_> = (0..SIDES.len()).filter(|side| ended[*side].is_none()).collect();
            let running = |side: usize| status[side].as_ref().is_some_and(runs);
            let role = |side: usize| status[side].as_ref().map_or("", |s| s.role.as_str());
            let has_its_part = |side: &usize| role(*side) == SIDES[*side].part;
            self.outcome.ending = match left.as_slice() {
                [] if self.winner_was_killed() => Ending::Double,
                [PRIMARY] if running(PRIMARY) => Ending::Alone,
                [other] if *other != PRIMARY && running(*other) => Ending::Failover,
                all if all.len() == SIDES.len() && all.iter().all(has_its_part) && !self.must_part() => {
                    Ending::Whole
                }
                _ => Ending::Wrong,
            };
            if self.outcome.ending != Ending::Wrong {
                return;
            }
            if begun.elapsed() > SETTLE_PATIENCE {
                let roles: Vec<_> =
                    (0..SIDES.len()).map(|side| format!("{:?} {:?}", role(side), ended[side])).collect();
                self.outcome.faults.push(format!("it is not clear who runs: {}", roles.join("; ")));
                return;
            }
            sleep_ms(10);
        }
    }

    /// Whether the blow has hit a disk or the service network for good: no pair bears that.
    fn must_part(&self) -> bool {
        let blow = self.setup.plan.blow;
        (blow.at_disk().is_some() || blow.is_handed_over()) && self.outcome.injected.contains(&blow.name())
    }

    /// Whether a side may have ended with this status.
    fn may_end_with(&self, side: usize, code: i32) -> bool {
        let blow = self.setup.plan.blow;
        match u8::try_from(code) {
            Ok(exit::HALTED) => true,
            Ok(0) => side == PRIMARY && self.must_part() && blow.is_handed_over(),
            Ok(exit::DISK) => {
                side == BACKUP && self.must_part() && matches!(blow.at_disk(), Some((BACKUP, _)))
            }
            _ => false,
        }
    }

    /// Whether the holder of the second generation is a side that was killed after it had won.
    fn winner_was_killed(&self) -> bool {
        let Ok(arbiter) = FileArbiter::open(&self.folder.join("arbiter")) else { return false };
        let holder = |generation| arbiter.standing("vm", Generation(generation)).ok().flatten();
        let (Some(first), Some(second)) = (holder(1), holder(2)) else { return false };
        self.killed.contains(&if first.holder == second.holder { PRIMARY } else { BACKUP })
    }

    fn finish(mut self, begun_ns: u64, blow_ns: u64) -> Outcome {
        let survivor = if self.outcome.ending == Ending::Failover { BACKUP } else { PRIMARY };
        for (side, SideName { part, .. }) in SIDES.iter().enumerate() {
            let code = self.pair.ended(side).and_then(|status| status.code());
            if let Some(code) = code.filter(|code| !self.may_end_with(side, *code)) {
                self.outcome.faults.push(format!("the {part} ended with status {code}"));
            }
        }
        let result = self.clients.finish();
        let outcome = &mut self.outcome;
        if let Ok(status) = self.pair.status(survivor) {
            outcome.counts.instructions = status.icount.saturating_sub(self.icount_before);
            if outcome.ending == Ending::Failover {
                outcome.takeover_ms = status.timeline.live_ns.saturating_sub(blow_ns) as f64 / 1e6;
            }
        }
        outcome.counts.digests =
            self.watch.sights().last.get(&BACKUP).map_or(0, |status| status.digests_agreed);
        let two = self.watch.faults();
        outcome.counts.two_at_once = two.len() as u64;
        outcome.faults.extend(two);
        match result {
            // Nobody runs, as nobody should: that the service is gone is no fault, nor can anything be read back.
            _ if outcome.ending == Ending::Double => {
                outcome.faults.retain(|fault| !fault.starts_with(GONE));
            }
            Err(error) => outcome.faults.push(format!("{error:#}")),
            Ok((seen, back)) => {
                let waits =
                    || seen.iter().flat_map(|client| &client.times).map(|(from, to)| (to - from, *from));
                let ms = |ns: u64| ns as f64 / 1e6;
                if let Some((wait, from)) = waits().filter(|(wait, from)| from + wait >= begun_ns).max() {
                    outcome.gap_ms = ms(wait);
                    outcome.gap_at_ms = (from as f64 - blow_ns as f64) / 1e6;
                }
                let quiet = waits().filter(|(wait, from)| from + wait < begun_ns).max();
                outcome.quiet_ms = quiet.map_or(0.0, |(wait, _)| ms(wait));
                outcome.allowed_ms = allowed_ms(&outcome.plan, outcome.quiet_ms.max(self.setup.quiet_ms));
                if outcome.gap_ms > outcome.allowed_ms {
                    let (gap, allowed) = (outcome.gap_ms, outcome.allowed_ms);
                    outcome
                        .faults
                        .push(format!("the VM stood still for {gap:.0} ms, {allowed:.0} are allowed"));
                }
                let judgement = judge(&seen, &back);
                outcome.counts.checked = judgement.checked;
                outcome.counts.lost = judgement.lost;
                outcome.counts.contradicted = judgement.contradicted;
                outcome.counts.undecided = judgement.undecided;
                outcome.faults.extend(judgement.faults);
            }
        }
        self.outcome
    }
}
