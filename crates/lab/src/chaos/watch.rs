//! Looks for two replicas that run the VM at once: from what they say of themselves, and from what the switch hears.
//!
//! - *Status.* A side that says `primary` or `solo` runs the VM in the generation that it names. No generation may ever be
//!   named by both sides, whenever they say so.
//! - *Switch.* The side that takes over is heard on another port. Once it has been, no frame may come from the first port
//!   again: the guest's address moves at most once (counted by the switch with every frame), and the frame counters of the
//!   ports grow in one order (looked at every few milliseconds).
//!
//! Invariant: a side is asked in a thread of its own, because one that is stopped does not answer.

use super::pair::SIDES;
use crate::processes::status_of;
use pollux_host::status::Status;
use pollux_switch::Stats;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Between two questions to a side.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// Between two looks at the switch.
const LOOK_EVERY: Duration = Duration::from_millis(4);

/// What has been seen.
#[derive(Clone, Default, Debug)]
pub struct Sights {
    /// What each side said last.
    pub last: BTreeMap<usize, Status>,
    /// Who ran in a generation.
    runners: BTreeMap<u64, BTreeSet<usize>>,
    /// Frames from each port.
    frames: BTreeMap<u64, u64>,
    /// Ports in the order in which they were heard.
    speakers: Vec<u64>,
    /// Questions answered.
    pub answers: u64,
}

/// The watching threads; they end with this value.
pub struct Watch {
    sights: Arc<Mutex<Sights>>,
    over: Arc<AtomicBool>,
    stats: Stats,
}

fn lock(sights: &Mutex<Sights>) -> MutexGuard<'_, Sights> {
    sights.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether this role lets outputs out.
pub fn runs(status: &Status) -> bool {
    matches!(status.role.as_str(), "primary" | "solo")
}

impl Sights {
    fn hear(&mut self, side: usize, status: Status) {
        self.answers += 1;
        if runs(&status) {
            self.runners.entry(status.generation).or_default().insert(side);
        }
        self.last.insert(side, status);
    }

    fn look(&mut self, ports: impl IntoIterator<Item = (u64, u64)>) {
        for (id, frames) in ports {
            let before = self.frames.insert(id, frames).unwrap_or(0);
            if frames > before && self.speakers.last() != Some(&id) {
                self.speakers.push(id);
            }
        }
    }

    /// What shows that both ran at once.
    fn faults(&self, moves: u64) -> Vec<String> {
        let both = self.runners.iter().filter(|(_, sides)| sides.len() > 1);
        let mut faults: Vec<_> =
            both.map(|(g, _)| format!("both sides say that they run in generation {g}")).collect();
        if moves > 1 {
            faults.push(format!("the guest's address moved {moves} times: both sides sent frames"));
        }
        if self.speakers.len() > 2 {
            faults.push(format!("the switch heard the ports in the order {:?}", self.speakers));
        }
        faults
    }
}

impl Watch {
    /// Starts to look.
    pub fn start(folder: PathBuf, stats: Stats) -> std::io::Result<Self> {
        let watch = Self { sights: Arc::default(), over: Arc::default(), stats: stats.clone() };
        for (side, name) in SIDES.iter().enumerate() {
            let (sights, over, folder) = (watch.sights.clone(), watch.over.clone(), folder.clone());
            std::thread::Builder::new().name(format!("watch{side}")).spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    if let Ok(status) = status_of(&folder, name.instance) {
                        lock(&sights).hear(side, status);
                    }
                    std::thread::sleep(ASK_EVERY);
                }
            })?;
        }
        let (sights, over) = (watch.sights.clone(), watch.over.clone());
        std::thread::Builder::new().name("watch-switch".into()).spawn(move || {
            while !over.load(Ordering::Relaxed) {
                lock(&sights).look(stats.snapshot().ports.iter().map(|port| (port.id, port.frames_in)));
                std::thread::sleep(LOOK_EVERY);
            }
        })?;
        Ok(watch)
    }

    /// What has been seen so far.
    pub fn sights(&self) -> Sights {
        lock(&self.sights).clone()
    }

    /// What shows that both ran at once.
    pub fn faults(&self) -> Vec<String> {
        lock(&self.sights).faults(self.stats.snapshot().gateway.moves)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(role: &str, generation: u64) -> Status {
        Status { role: role.into(), generation, ..Status::default() }
    }

    #[test]
    fn two_that_run_in_one_generation_are_two_at_once_and_a_takeover_is_not() {
        let mut sights = Sights::default();
        for (side, role, generation) in
            [(0, "primary", 1), (1, "backup", 1), (1, "claiming", 1), (1, "solo", 2)]
        {
            sights.hear(side, says(role, generation));
        }
        sights.hear(0, says("claiming", 2));
        assert_eq!(sights.faults(1), Vec::<String>::new());
        sights.hear(0, says("solo", 2));
        assert_eq!(sights.faults(1).len(), 1);
    }

    #[test]
    fn a_port_that_is_heard_after_the_other_has_taken_over_is_two_at_once() {
        let mut sights = Sights::default();
        for ports in [[(1, 5), (2, 0)], [(1, 9), (2, 0)], [(1, 9), (2, 4)], [(1, 9), (2, 8)]] {
            sights.look(ports);
        }
        assert_eq!(sights.faults(1), Vec::<String>::new());
        sights.look([(1, 10), (2, 8)]);
        assert_eq!(sights.faults(1).len(), 1);
        assert_eq!(sights.faults(3).len(), 2);
    }
}
