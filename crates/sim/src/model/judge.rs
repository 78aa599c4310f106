//! What must hold in every state, and what must come of every state once the faults stop.
//!
//! Safety is looked up in the state itself ([`World::judge`]). Progress is tried out: from every state that the checker
//! reaches, a copy goes on without faults ([`World::heal`]), and it must end well within a bounded time. That is
//! stronger than asking whether some path leads out: the calm path must.
//!
//! Not here: what is noticed as it happens, an output that contradicts another (`step`).

use super::toy::SLICE_STEPS;
use super::world::{Broken, Down, Host, Side, World};
use pollux_protocol::{HaltReason, Pace, Role};

/// Rounds without faults in which everything must come to rest. A unit of time passes in each.
const CALM_ROUNDS: usize = 9;
/// Further rounds, in which somebody who runs must be heard.
const RUNNING_ROUNDS: usize = 3;

impl World {
    /// The rule that this state breaks.
    #[must_use]
    pub fn judge(&self) -> Option<Broken> {
        if self.hosts.iter().any(Host::is_sure_in_vain) {
            return Some(Broken::SpokeUnasked);
        }
        let mut alone = 0;
        for at in self.hosts.iter().filter(|at| at.runs_alone()) {
            alone += 1;
            let Side::Live(primary) = &at.side else { continue };
            let report = primary.report();
            let spent = self.newest().is_some_and(|(newest, _)| newest > report.generation);
            if spent || alone > 1 {
                return Some(Broken::TwoRun);
            }
            if let Some(word) = self.said.iter().find(|said| at.toy.word(said.icount).as_ref() != Some(said))
            {
                return Some(Broken::Forgotten(word.clone()));
            }
            if report.held == 0 {
                let mut words = (0..=at.toy.icount).filter_map(|icount| at.toy.word(icount));
                if let Some(word) = words.find(|word| !self.said.contains(word)) {
                    return Some(Broken::Gap(word));
                }
            }
        }
        None
    }

    /// Goes on without faults. `Err`: what is wrong with how it ends.
    pub fn heal(&self) -> Result<(), Broken> {
        let mut world = self.clone();
        for wire in &mut world.wires {
            wire.cut = false;
        }
        world.left.link_room = u8::MAX;
        // A claim of a process that is gone comes to nothing from here on.
        for at in &mut world.hosts {
            let (up, life) = (at.is_up(), at.life);
            at.asks = at.asks.filter(|asked| up && asked.holder.life == life);
        }
        let heirs = world.heirs();
        for _ in 0..CALM_ROUNDS {
            world.calm_round();
        }
        let said = world.said.len();
        for _ in 0..RUNNING_ROUNDS {
            world.calm_round();
        }
        if let Some(broken) = world.broken.clone().or_else(|| world.judge()) {
            return Err(broken);
        }
        world.at_rest(&heirs, world.said.len() > said).map_err(Broken::Stuck)
    }

    /// Everything that can happen without a fault happens once or more, and a unit of time passes.
    fn calm_round(&mut self) {
        for host in 0..self.hosts.len() {
            if matches!(self.hosts[host].side, Side::Starting { found: None, .. }) {
                self.look(host);
            }
            if self.hosts[host].drowsy {
                self.tick(host);
            }
            while self.replay(host) {}
            let may_run = match &self.hosts[host].side {
                Side::Live(primary) => primary.pace(self.hosts[host].now()) != Pace::Wait,
                _ => false,
            };
            if may_run && self.hosts[host].toy.icount < u8::MAX - SLICE_STEPS {
                self.slice(host, false);
            }
            self.exchange();
        }
        for host in 0..self.hosts.len() {
            self.tick(host);
            if self.hosts[host].wants_handover() {
                self.hand_over(host);
            }
            self.decide(host);
            if let Some((generation, verdict)) = self.hosts[host].answer.take() {
                self.answer(host, generation, verdict);
            }
            self.exchange();
        }
    }

    /// Everybody sends, and hears everything.
    fn exchange(&mut self) {
        for host in 0..self.hosts.len() {
            self.effects(host, true);
            self.obey(host);
        }
        for wire in 0..self.wires.len() {
            let (from, to) = (self.wires[wire].from, self.wires[wire].to);
            if !self.hosts[to].drowsy {
                for message in core::mem::take(&mut self.wires[wire].messages) {
                    self.deliver(from, to, (*message).clone());
                }
            }
        }
    }

    /// Who must go on with the VM if no more faults happen: the holder of the newest generation, or, if that process
    /// is gone, the backup that could claim the next one. Empty: the VM has died with its hosts.
    fn heirs(&self) -> Vec<usize> {
        match self.newest() {
            None => (0..self.hosts.len()).filter(|host| self.hosts[*host].is_up()).collect(),
            Some((_, Some(holder))) => vec![holder],
            Some((newest, None)) => {
                let could = |host: &usize| {
                    let at = &self.hosts[*host];
                    matches!(at.role(), Some((Role::Backup | Role::Claiming, generation)) if generation == newest)
                };
                (0..self.hosts.len()).filter(could).collect()
            }
        }
    }

    fn at_rest(&self, heirs: &[usize], heard: bool) -> Result<(), &'static str> {
        // Who has won with a disk that hangs can neither go live nor leave.
        if self.hosts.iter().enumerate().any(|(host, at)| at.hangs && at.is_up() && self.holds_newest(host)) {
            return Ok(());
        }
        let newest = self.newest().map(|(generation, _)| generation);
        let protected = self.protected();
        let mut running = false;
        for at in &self.hosts {
            match at.role() {
                None if matches!(at.side, Side::Starting { .. }) => return Err("a start that never ends"),
                None | Some((Role::Halted, _)) => {}
                Some((_, generation)) if Some(generation) != newest => {
                    return Err("somebody whose generation is spent has not halted");
                }
                Some((Role::Solo, _)) => running = true,
                Some((Role::Primary, _)) if protected.is_some() => running = true,
                Some((Role::Backup, _)) if protected.is_some() => {}
                Some(_) => return Err("somebody waits for ever"),
            }
        }
        let serves = |at: &Host| at.reaches && !at.drowsy;
        if protected.is_some_and(|(primary, backup)| !serves(primary) && serves(backup)) {
            return Err("a primary that clients do not reach keeps the VM from a backup that they do");
        }
        match (running, heard) {
            (true, true) => Ok(()),
            (true, false) => Err("the VM runs and nobody hears of it"),
            (false, _) if self.has_left_with_it() => Err("a side that had won the VM has left"),
            (false, _) if heirs.iter().all(|host| self.is_excused(*host)) => Ok(()),
            (false, _) => Err("a host and the arbiter live, and nobody runs the VM"),
        }
    }

    /// Whether the newest generation belongs to a process that an operator took out.
    fn has_left_with_it(&self) -> bool {
        let left = |at: &Host| matches!(at.side, Side::Down(Down::Halted(HaltReason::Left)));
        self.hosts.iter().enumerate().any(|(host, at)| left(at) && self.holds_newest(host))
    }

    /// Whether this host halted for a reason for which nobody is to run on: the log has a gap, an operator took it
    /// out, or it never heard that the VM had started.
    fn is_excused(&self, host: usize) -> bool {
        let Side::Down(Down::Halted(reason)) = &self.hosts[host].side else { return false };
        match reason {
            HaltReason::NeverHeard | HaltReason::Left | HaltReason::LeftClaiming(_) => true,
            HaltReason::Stalled => self.hosts[host].hangs,
            HaltReason::PeerFault(_) => self.wires.iter().any(|wire| wire.to == host && wire.damaged),
            _ => false,
        }
    }
}
