//! The generation that this process runs a VM in: found free, claimed, and spent when the VM has ended.
//!
//! Invariant: a VM under an arbiter runs only in a generation that this process has won, and a process spends only
//! what it has won, so that an end never ends somebody else's VM.

use crate::exit::HeldElsewhere;
use anyhow::{Context, Result};
use pollux_arbiter::{Arbiter, Claim, Decision, Secret};
use pollux_codec::message::Greet;
use pollux_host::arbiter_file::{Claimant, FileArbiter, random_bytes};
use pollux_host::mark::Start;
use pollux_node::Outcome;
use pollux_protocol::ending::{Ended, Part, to_spend};
use pollux_vocab::Generation;
use std::path::{Path, PathBuf};

/// One process's dealings with the arbiter over one VM.
#[derive(Clone, Debug)]
pub struct Tenure {
    /// The folder.
    pub arbiter: FileArbiter,
    /// Who this process is.
    pub holder: String,
    /// The generation that it starts in, or backs up.
    pub generation: Generation,
    /// The VM.
    pub vm: String,
    /// Its folder, as it was called.
    pub folder: PathBuf,
    /// Who holds `generation`.
    runs: String,
    /// Who held the one before, if this process is to claim `generation`.
    after: Option<String>,
    secret: Secret,
}

impl Tenure {
    /// Finds the generation in which `vm` may start. It is not claimed yet.
    pub fn find(arbiter: FileArbiter, vm: &str, holder: String, folder: &Path) -> Result<Self> {
        if let Err(error) = arbiter.sweep() {
            tracing::warn!(%error, "cannot look for what dead claimants left in the arbiter's folder");
        }
        let newest = arbiter.newest(vm)?;
        let generation = pollux_arbiter::first_generation(newest.as_ref()).map_err(|held| {
            let folder = folder.display();
            HeldElsewhere(format!(
                "{held}. If it runs nowhere: pollux arbiter forget {vm} --arbiter {folder}"
            ))
        })?;
        let (runs, after) = (holder.clone(), newest.map(|claim| claim.holder));
        let folder = folder.to_owned();
        Ok(Self { arbiter, holder, generation, vm: vm.into(), folder, runs, after, secret: secret()? })
    }

    /// Of a backup whose primary has proven what it says in `greet`.
    pub fn backing(arbiter: FileArbiter, holder: String, greet: &Greet, folder: &Path) -> Result<Self> {
        let (vm, runs, generation) = (greet.vm.clone(), greet.holder.clone(), greet.generation);
        let folder = folder.to_owned();
        Ok(Self { arbiter, holder, generation, vm, folder, runs, after: None, secret: secret()? })
    }

    /// How disk images are about to be used, in the generation that was found free. `arbiter`: its id.
    pub fn start<'a>(&'a self, arbiter: &'a str) -> Start<'a> {
        Start::Under { vm: &self.vm, generation: self.generation, arbiter }
    }

    /// Claims the generation that was found free.
    pub fn claim(&self) -> Result<Decision> {
        let (vm, holder, after) = (self.vm.clone(), self.holder.clone(), self.after.clone());
        let claim = Claim { vm, generation: self.generation, holder, after, secret: self.secret };
        Ok(self.arbiter.claim(&claim)?)
    }

    /// How this side introduces itself to a backup, and what it proves.
    pub fn greet(&self) -> (Greet, Secret) {
        let (vm, generation) = (self.vm.clone(), self.generation);
        let (arbiter, holder, nonce) = (self.arbiter.id().0, self.holder.clone(), [0; 32]);
        (Greet { vm, generation, arbiter, holder, nonce }, self.secret)
    }

    /// Who claims the generations behind this one.
    pub fn claimant(&self) -> Claimant {
        let (vm, holder) = (self.vm.clone(), self.holder.clone());
        Claimant { vm, holder, secret: self.secret, known: vec![(self.generation, self.runs.clone())] }
    }

    /// Spends the generation after `own`, if `own` is this process's: nobody runs the VM now, nor any copy of it.
    pub fn end(&self, own: Generation) {
        let vm = &self.vm;
        if let Err(error) = self.arbiter.clone().end(vm, own, &self.holder) {
            tracing::warn!(%error, "the arbiter still names the VM as running; `pollux arbiter forget {vm}` corrects it");
        }
    }

    /// The same, if the replica that ended in generation `own` is the one to say that the VM has ended.
    pub fn end_after(&self, part: Part, outcome: &Outcome, own: Generation) {
        let ended = match outcome {
            Outcome::PoweredOff { .. } | Outcome::Reset => Ended::InGoodOrder,
            Outcome::Halted(_) => Ended::Halted,
        };
        if let Some(own) = to_spend(part, ended, own) {
            self.end(own);
        }
    }
}

fn secret() -> Result<Secret> {
    Ok(Secret(random_bytes().context("this host gives no random numbers")?))
}
