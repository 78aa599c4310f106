//! `pollux chaos`: real pairs of real Debian and redis, broken at random, and judged by what their clients saw.
//!
//! A round is a pair of its own: two clients work through one TCP connection each, faults hit it at some phase
//! of the protocol, and who survives must explain every answer that was ever given. Map: [`plan`] what happens, from a
//! seed; [`cable`] and [`wire`] the hosts and the link between them; [`base`] and [`pair`] the processes; [`clients`] who asks;
//! [`judge`], [`watch`] and [`bounds`] what must hold; [`round`] one round; [`board`] all of them.
//!
//! Not here: protection again after a failover (there is none yet, so a pair gives one failover), hosts that are really
//! two, an arbiter that only one of them has lost.

mod base;
mod board;
mod bounds;
mod cable;
mod clients;
mod judge;
mod log;
mod pair;
mod plan;
mod round;
mod watch;
mod wire;

use crate::guest_files::{GuestFiles, GuestSource};
use anyhow::{Context, Result, bail, ensure};
use base::Base;
use board::Board;
use cable::Cable;
use clap::Args;
use pair::Setup;
use plan::Plan;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Pairs in a row that do not come up before the run is given up.
const NOT_BEGUN_MAX: u64 = 3;

#[derive(Args, Clone, Debug)]
pub struct ChaosArgs {
    /// Go on until the backup has taken over so often
    #[arg(long, default_value_t = 10, conflicts_with_all = ["minutes", "round"])]
    pub failovers: u64,
    /// Go on for so long instead
    #[arg(long, conflicts_with = "round")]
    pub minutes: Option<f64>,
    /// Where chance starts: which faults, in which order [default: the time]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Only this round of --seed
    #[arg(long, requires = "seed")]
    pub round: Option<u64>,
    /// Both sides on the loopback device: needs no root, and leaves the faults of the link out
    #[arg(long)]
    pub no_netns: bool,
    #[command(flatten)]
    pub source: GuestSource,
    /// Print the scoreboard as JSON as well
    #[arg(long)]
    pub json: bool,
    /// Where the working folders of rounds are made, and kept if something is wrong [default: the system's]
    #[arg(long, value_name = "FOLDER")]
    pub work: Option<PathBuf>,
}

fn say(text: &str) {
    eprintln!("chaos: {text}");
}

/// One run of the command.
struct Run<'a> {
    args: &'a ChaosArgs,
    seed: u64,
    guest: GuestFiles,
    cable: Option<Cable>,
    /// By their number of harts.
    bases: BTreeMap<u32, Base>,
    board: Board,
    begun: Instant,
}

pub fn run(args: &ChaosArgs) -> Result<bool> {
    args.source.patience()?;
    ensure!(args.minutes.is_none_or(|m| (0.0..=1e6).contains(&m)), "--minutes must be 0 to 1000000");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = args.seed.unwrap_or_else(|| now.map_or(1, |since| since.as_secs()));
    let cable = match (args.no_netns, cable::obstacle()) {
        (true, _) => None,
        (false, None) => {
            Some(Cable::lay(seed).context("cannot make the hosts' networks; --no-netns goes without")?)
        }
        (false, Some(why)) => {
            bail!("{why}; --no-netns runs both sides on the loopback device, without link faults")
        }
    };
    let guest = GuestFiles::debian(&args.source, say)?;
    say(&format!("seed {seed}"));
    let board = Board::new(seed, cable.is_some());
    let mut run = Run { args, seed, guest, cable, bases: BTreeMap::new(), board, begun: Instant::now() };
    run.rounds()?;
    run.board.seconds = run.begun.elapsed().as_secs_f64();
    run.board.frames = run.cable.as_ref().map_or([0; 2], |cable| cable.wire.frames());
    run.board.print();
    if args.json {
        println!("{}", serde_json::to_string(&run.board)?);
    }
    Ok(run.board.violations.is_empty())
}

impl Run<'_> {
    fn rounds(&mut self) -> Result<()> {
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, interrupted.clone())?;
        }
        let mut in_a_row = 0;
        let mut number = self.args.round.unwrap_or(0);
        while !self.is_over(number) {
            let result = self.one(number, &interrupted);
            if interrupted.load(Ordering::Relaxed) {
                say("interrupted; this is what there is");
                break;
            }
            match result {
                Ok(()) => in_a_row = 0,
                Err(error) => {
                    in_a_row += 1;
                    self.board.not_begun += 1;
                    say(&format!("round {number} could not begin: {error:#}"));
                    ensure!(in_a_row < NOT_BEGUN_MAX, "no pair comes up");
                }
            }
            number += 1;
        }
        Ok(())
    }

    fn is_over(&self, number: u64) -> bool {
        match (self.args.round, self.args.minutes) {
            (Some(only), _) => number > only,
            (None, Some(minutes)) => self.begun.elapsed().as_secs_f64() >= minutes * 60.0,
            (None, None) => self.board.failovers >= self.args.failovers,
        }
    }

    fn one(&mut self, number: u64, interrupted: &AtomicBool) -> Result<()> {
        let plan = Plan::draw(self.seed, number, self.cable.is_some());
        let work = self.args.work.clone().unwrap_or_else(std::env::temp_dir);
        let patience = self.args.source.patience()?;
        if !plan.boots && !self.bases.contains_key(&plan.harts) {
            say(&format!("booting the guest with {} harts, to start rounds from", plan.harts));
            let base = Base::boot(&self.guest, &self.args.source.memory, plan.harts, &work, patience)
                .context("cannot boot the guest that rounds start from")?;
            self.bases.insert(plan.harts, base);
        }
        let folder = tempfile::Builder::new().prefix("pollux-chaos").tempdir_in(&work);
        let folder = folder.context("cannot make a working folder")?;
        let setup = Setup {
            guest: &self.guest,
            memory: &self.args.source.memory,
            cable: self.cable.as_ref(),
            base: self.bases.get(&plan.harts).filter(|_| !plan.boots),
            plan: &plan,
            quiet_ms: self.board.quiet_ms[2],
        };
        let begun = Instant::now();
        let outcome = match round::play(&setup, self.seed, folder.path(), patience) {
            Ok(outcome) => outcome,
            Err(error) => return Err(error.context(format!("the logs are in {}", folder.keep().display()))),
        };
        if interrupted.load(Ordering::Relaxed) {
            return Ok(());
        }
        let kept = (!outcome.faults.is_empty()).then(|| folder.keep());
        self.board.add(&outcome, kept);
        say(&format!(
            "round {number}, {:.1} s: {plan}: {:?}, live after {:.0} ms, gap {:.0} of {:.0} ms from {:.0} ms on (before all faults {:.0} ms), {} replies{}",
            begun.elapsed().as_secs_f64(),
            outcome.ending,
            outcome.takeover_ms,
            outcome.gap_ms,
            outcome.allowed_ms,
            outcome.gap_at_ms,
            outcome.quiet_ms,
            outcome.counts.checked,
            if outcome.faults.is_empty() {
                String::new()
            } else {
                format!("; WRONG: {}", outcome.faults.join("; "))
            }
        ));
        Ok(())
    }
}
