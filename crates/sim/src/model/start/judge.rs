//! What must hold in every state, and what must come of it when no more faults happen.

use super::step::{Action, hears, runs, waits};
use super::world::{Broken, Down, Side, VM, World};
use pollux_arbiter::Claim;
use pollux_protocol::Role;
use pollux_vocab::Generation;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Steps after which a state that is left alone counts as stuck: a primary tries to reach a backup for 30 s.
const STEPS_MAX: usize = 3_000;

impl World {
    /// Finds what does not hold in this state.
    pub(super) fn judge(&mut self) {
        if self.broken.is_none() {
            self.broken = self.find();
        }
    }

    fn standing(&self, generation: Generation) -> Option<Claim> {
        use pollux_arbiter::Arbiter;
        let Ok(claim) = self.ledger.clone().standing(VM, generation);
        claim
    }

    fn find(&self) -> Option<Broken> {
        let newest = self.ledger.newest(VM);
        for (who, at) in self.procs.iter().enumerate() {
            let Side::Runs(primary) = &at.side else { continue };
            let report = primary.report();
            let own = report.generation;
            if !runs(primary) {
                continue;
            }
            if self.standing(own).is_none_or(|claim| claim.holder != self.name(who)) {
                return Some(Broken::RunsUnwon(who));
            }
            if report.state == Role::Solo && newest.is_some_and(|newest| newest.generation > own) {
                return Some(Broken::TwoRun(who));
            }
        }
        // An end stands behind a VM that has ended, or that never ran in that generation.
        let ran = self.ran.iter().filter(|own| !self.ended.contains(own));
        for own in ran {
            if self.standing(own.next()).is_some_and(|claim| claim.is_end()) {
                return Some(Broken::EndedAnothers(*own));
            }
        }
        self.waits_for_ever().map(Broken::WaitsForEver)
    }

    /// Rule: whoever has nothing to do but to wait for its peer has a deadline.
    fn waits_for_ever(&self) -> Option<usize> {
        self.procs.iter().position(|at| match &at.side {
            Side::Starting(start) => {
                !start.is_over() && !waits(start) && start.clone().poll_action().is_none()
            }
            Side::Door(visits) => visits.values().any(|visit| {
                let idle = visit.start.clone().poll_action().is_none();
                idle && !visit.knocks && !visit.start.is_over() && !hears(&visit.start)
            }),
            _ => false,
        })
    }

    /// Whether this state ends well if no more faults happen.
    pub fn ends_well(&self) -> Result<(), Broken> {
        if self.broken.is_some() {
            return Ok(());
        }
        let healed = catch_unwind(AssertUnwindSafe(|| self.heal()));
        healed.unwrap_or_else(|_| Err(Broken::Panicked("without faults".into())))
    }

    fn heal(&self) -> Result<(), Broken> {
        let mut world = self.clone();
        for _ in 0..STEPS_MAX {
            let mut next = Vec::new();
            world.calm_actions(&mut next);
            if next.is_empty() {
                world.deadlines(&mut next);
            }
            let Some(action) = next.first() else { return world.is_well() };
            world.take(*action);
            world.judge();
            if let Some(broken) = world.broken {
                return Err(broken);
            }
        }
        let starts = |side: &Side| matches!(side, Side::Starting(_));
        Err(Broken::Stuck(world.sides().position(starts).unwrap_or(0)))
    }

    /// Deadlines of starts, and of replicas that ask the arbiter again.
    fn deadlines(&self, next: &mut Vec<Action>) {
        for (who, at) in self.procs.iter().enumerate() {
            let claims = match &at.side {
                Side::Runs(primary) => primary.report().state == Role::Claiming,
                Side::Backs(backup, _) => backup.report().state == Role::Claiming,
                _ => true,
            };
            if claims {
                self.ticks(who, next);
            }
        }
    }

    /// Rule: an end, or a start that has failed, leaves a VM that may be started again, or a holder that is there, or one
    /// that could not help it.
    fn is_well(&self) -> Result<(), Broken> {
        let Some(newest) = self.ledger.newest(VM).filter(|claim| !claim.is_end()) else { return Ok(()) };
        let gone = self.procs.iter().enumerate().find(|(who, at)| {
            let is_over = matches!(&at.side, Side::Down(Down::GaveUp(_) | Down::Ended | Down::Held));
            is_over && !at.excused && self.name(*who) == newest.holder
        });
        gone.map_or(Ok(()), |_| Err(Broken::NotFree(newest.holder.clone())))
    }
}
