//! The generation that this process runs a VM in: found free, claimed, and spent when the VM has ended.
//!
//! Invariant: a VM under an arbiter runs only in a generation that this process has won, and a process spends only
//! what it has won, so that an end never ends somebody else's VM.

use anyhow::{Result, anyhow, ensure};
use pollux_arbiter::Claim;
use pollux_host::arbiter_file::FileArbiter;
use pollux_node::Outcome;
use pollux_protocol::Verdict;
use pollux_vocab::Generation;
use std::path::Path;

/// One process's dealings with the arbiter over one VM.
#[derive(Debug)]
pub struct Tenure {
    /// The folder.
    pub arbiter: FileArbiter,
    /// Who this process is.
    pub holder: String,
    /// The generation that it starts in, or backs up.
    pub generation: Generation,
    vm: String,
}

impl Tenure {
    /// Finds the generation in which `vm` may start. It is not claimed yet.
    pub fn find(arbiter: FileArbiter, vm: &str, holder: String, folder: &Path) -> Result<Self> {
        let newest = arbiter.newest(vm)?.map(|(_, claim)| claim);
        let generation = pollux_arbiter::first_generation(newest.as_ref()).map_err(|held| {
            let folder = folder.display();
            anyhow!("{held}. If it runs nowhere: pollux arbiter forget {vm} --arbiter {folder}")
        })?;
        Ok(Self::backing(arbiter, vm, holder, generation))
    }

    /// Of a backup whose primary holds `generation`.
    pub fn backing(arbiter: FileArbiter, vm: &str, holder: String, generation: Generation) -> Self {
        Self { arbiter, holder, generation, vm: vm.into() }
    }

    /// Claims the generation that was found free.
    pub fn claim(&self) -> Result<()> {
        let (vm, holder) = (self.vm.clone(), self.holder.clone());
        let verdict = self.arbiter.claim(&Claim { vm, generation: self.generation, holder })?;
        ensure!(verdict == Verdict::Won, "somebody else has just started {}: {verdict:?}", self.vm);
        Ok(())
    }

    /// Spends the generation after `own`, if `own` is this process's: nobody runs the VM now, nor any copy of it.
    pub fn end(&self, own: Generation) {
        let vm = &self.vm;
        if let Err(error) = self.arbiter.end(vm, own, &self.holder) {
            tracing::warn!(%error, "the arbiter still names the VM as running; `pollux arbiter forget {vm}` corrects it");
        }
    }

    /// The same, if the VM that ran in `own` has ended in good order: it may be started again.
    pub fn end_after(&self, outcome: &Outcome, own: Generation) {
        if matches!(outcome, Outcome::PoweredOff { .. } | Outcome::Reset) {
            self.end(own);
        }
    }
}
