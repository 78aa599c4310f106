//! The deployments that are explored, and how far. Each allows a few faults, so that all of its states can be visited;
//! between them they cover every kind at every step.

use super::world::{Bounds, World};

/// A deployment with a name.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// As it is called.
    pub name: &'static str,
    /// What is special about it.
    pub about: &'static str,
    /// Primaries that start at once, each with the backup that it is to have.
    primaries: &'static [Option<usize>],
    backups: usize,
    elsewhere: bool,
    bounds: Bounds,
}

impl Config {
    /// Where it starts.
    #[must_use]
    pub fn start(&self) -> World {
        World::new(self.primaries, self.backups, self.bounds, self.elsewhere)
    }
}

const CALM: Bounds = Bounds {
    crashes: 0,
    cuts: 0,
    stops: 0,
    faults: 0,
    unreachable: 0,
    ticks: 0,
    unequal: 0,
    words: 0,
    ends: 0,
    starts: 0,
};

const PAIR: Config =
    Config { name: "", about: "", primaries: &[Some(0)], backups: 1, elsewhere: false, bounds: CALM };

/// All of them.
pub const CONFIGS: [Config; 11] = [
    Config {
        name: "crash",
        about: "a process crashes between any two steps; the VM ends; it is started again",
        bounds: Bounds { crashes: 1, ends: 1, starts: 1, ..CALM },
        ..PAIR
    },
    Config {
        name: "cut",
        about: "the link ends at any step and takes with it what was under way; a crash",
        bounds: Bounds { cuts: 1, crashes: 1, ticks: 1, ..CALM },
        ..PAIR
    },
    Config {
        name: "stop",
        about: "either side is told to stop at any step; work on a host fails",
        bounds: Bounds { stops: 1, faults: 1, ..CALM },
        ..PAIR
    },
    Config {
        name: "deadline",
        about: "deadlines come at any step, and a backup is not there",
        bounds: Bounds { ticks: 2, crashes: 1, ..CALM },
        ..PAIR
    },
    Config {
        name: "arbiter",
        about: "the arbiter is not reached, or its answer is lost; a link ends; the VM ends",
        bounds: Bounds { unreachable: 2, cuts: 1, ends: 1, starts: 1, ..CALM },
        ..PAIR
    },
    Config {
        name: "unequal",
        about: "the backup's memory flips a bit; a fault",
        bounds: Bounds { unequal: 1, faults: 1, ..CALM },
        ..PAIR
    },
    Config {
        name: "two",
        about: "two primaries start at once, with one backup; one is told to stop; the arbiter is not reached",
        primaries: &[Some(0), Some(0)],
        bounds: Bounds { stops: 1, unreachable: 1, ..CALM },
        ..PAIR
    },
    Config {
        name: "two-crash",
        about: "the same; one crashes, or its link ends",
        primaries: &[Some(0), Some(0)],
        bounds: Bounds { crashes: 1, cuts: 1, ..CALM },
        ..PAIR
    },
    Config {
        name: "two-backups",
        about: "a primary and a lone start at once; two backups; the VM ends",
        primaries: &[Some(1), None],
        backups: 2,
        bounds: Bounds { crashes: 1, unreachable: 1, ends: 1, ..CALM },
        ..PAIR
    },
    Config {
        name: "stranger",
        about: "a stranger says what it likes to a backup; a lone VM starts; somebody says stop",
        primaries: &[None],
        bounds: Bounds { words: 3, stops: 1, ticks: 1, ..CALM },
        ..PAIR
    },
    Config {
        name: "elsewhere",
        about: "the backup reads another arbiter",
        elsewhere: true,
        bounds: Bounds { stops: 1, faults: 1, ticks: 1, ..CALM },
        ..PAIR
    },
];
