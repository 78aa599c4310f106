//! The deployments that are explored, and how far.
//!
//! Each allows a few faults of several kinds together, so that all of its states can be visited; between them they
//! cover every kind. `quick` ones run with the tests, all of them with
//! `cargo run --release -p pollux-sim --example model`.

use super::world::{Bounds, World};

/// A deployment with a name.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// As it is called on the command line.
    pub name: &'static str,
    /// What is special about it.
    pub about: &'static str,
    /// Whether it is done in seconds.
    pub quick: bool,
    /// Whether the primary has yet to win its first generation.
    pub starting: bool,
    /// How far.
    pub bounds: Bounds,
}

impl Config {
    /// Where it starts.
    #[must_use]
    pub fn start(&self) -> World {
        if self.starting { World::starting(self.bounds) } else { World::pair(self.bounds) }
    }
}

const CALM: Bounds = Bounds {
    slices: 2,
    inputs: 1,
    ticks: [2, 2, 0],
    sleeps: 0,
    naps: 0,
    crashes: 0,
    starts: 0,
    losses: 0,
    repeats: 0,
    overtakings: 0,
    cuts: 0,
    link_ends: 0,
    unreachable: 0,
    leaves: 0,
    handovers: 0,
    hangs: 0,
    net_losses: 0,
    bytes: 0,
    swapped: false,
    link_room: 2,
    window_records: 0,
};

/// All of them, the quick ones first.
pub const CONFIGS: [Config; 22] = [
    Config {
        name: "crash",
        about: "a host crashes between any two steps",
        quick: true,
        starting: false,
        bounds: Bounds { slices: 1, crashes: 1, ..CALM },
    },
    Config {
        name: "start",
        about: "the pair and a spare host start the VM at once; crashed hosts return",
        quick: true,
        starting: true,
        bounds: Bounds { slices: 1, inputs: 0, ticks: [1, 2, 0], starts: 1, crashes: 1, ..CALM },
    },
    Config {
        name: "leave",
        about: "the window is small; an operator takes the backup out",
        quick: true,
        starting: false,
        bounds: Bounds {
            slices: 2,
            inputs: 0,
            ticks: [0, 2, 0],
            leaves: 1,
            link_ends: 1,
            window_records: 1,
            ..CALM
        },
    },
    Config {
        name: "cut",
        about: "one-way partitions that end, or do not",
        quick: true,
        starting: false,
        bounds: Bounds { slices: 1, inputs: 0, cuts: 1, ..CALM },
    },
    Config {
        name: "hang",
        about: "the backup's disk hangs; the window is small",
        quick: true,
        starting: false,
        bounds: Bounds { slices: 1, inputs: 0, hangs: 1, window_records: 1, ..CALM },
    },
    Config {
        name: "bytes",
        about: "bytes of a message arrive long before it is whole",
        quick: true,
        starting: false,
        bounds: Bounds { slices: 1, inputs: 0, bytes: 1, ..CALM },
    },
    Config {
        name: "handover",
        about: "a primary hands the VM over; a host crashes between any two steps",
        quick: true,
        starting: false,
        bounds: Bounds { slices: 1, inputs: 0, handovers: 1, crashes: 1, ..CALM },
    },
    Config {
        name: "network",
        about: "a host loses the service network; a primary that does hands over",
        quick: true,
        starting: false,
        bounds: Bounds { slices: 1, inputs: 0, net_losses: 1, ..CALM },
    },
    Config {
        name: "sleep",
        about: "a process sleeps through the failure timeout; the arbiter cannot be reached",
        quick: true,
        starting: false,
        bounds: Bounds { slices: 1, inputs: 0, sleeps: 1, unreachable: 1, ..CALM },
    },
    Config {
        name: "link",
        about: "messages are lost, doubled, overtaken",
        quick: true,
        starting: false,
        bounds: Bounds { slices: 1, inputs: 0, losses: 1, repeats: 1, overtakings: 1, ..CALM },
    },
    Config {
        name: "nap",
        about: "a process naps, for less than the failure timeout, in the middle of what it does",
        quick: true,
        starting: false,
        bounds: Bounds { slices: 1, inputs: 0, naps: 1, ..CALM },
    },
    Config {
        name: "store",
        about: "where the arbiter is not reached another pair's store stands",
        quick: true,
        starting: false,
        bounds: Bounds { slices: 1, inputs: 0, unreachable: 1, swapped: true, ..CALM },
    },
    Config {
        name: "handover-long",
        about: "a handover; lost messages, an end of the link, an unreachable arbiter, an input",
        quick: false,
        starting: false,
        bounds: Bounds { slices: 1, handovers: 1, losses: 1, link_ends: 1, unreachable: 1, ..CALM },
    },
    Config {
        name: "crash-long",
        about: "a host crashes; two slices and an input",
        quick: false,
        starting: false,
        bounds: Bounds { slices: 2, crashes: 1, ..CALM },
    },
    Config {
        name: "link-long",
        about: "lost, doubled, overtaken messages, and an input",
        quick: false,
        starting: false,
        bounds: Bounds { slices: 1, losses: 1, repeats: 1, overtakings: 1, ..CALM },
    },
    Config {
        name: "cut-long",
        about: "a one-way partition, an end of the link, an input",
        quick: false,
        starting: false,
        bounds: Bounds { slices: 1, cuts: 1, link_ends: 1, ..CALM },
    },
    Config {
        name: "start-long",
        about: "two starts beside the pair's, a crash, an input",
        quick: false,
        starting: true,
        bounds: Bounds { slices: 1, starts: 2, crashes: 1, ..CALM },
    },
    Config {
        name: "mixed",
        about: "a sleep, a crash, a lost message, an unreachable arbiter",
        quick: false,
        starting: false,
        bounds: Bounds { slices: 1, inputs: 0, sleeps: 1, crashes: 1, losses: 1, unreachable: 1, ..CALM },
    },
    Config {
        name: "arbiter",
        about: "the arbiter cannot be reached, twice; a host crashes",
        quick: false,
        starting: false,
        bounds: Bounds { slices: 1, unreachable: 2, crashes: 1, ticks: [3, 3, 0], ..CALM },
    },
    Config {
        name: "sleep-two",
        about: "a process sleeps; two slices",
        quick: false,
        starting: false,
        bounds: Bounds { slices: 2, inputs: 0, sleeps: 1, ..CALM },
    },
    Config {
        name: "sleep-long",
        about: "a process sleeps; the arbiter cannot be reached; an input",
        quick: false,
        starting: false,
        bounds: Bounds { slices: 1, sleeps: 1, unreachable: 1, ..CALM },
    },
    Config {
        name: "nap-two",
        about: "two naps, of one process or of both",
        quick: false,
        starting: false,
        bounds: Bounds { slices: 1, inputs: 0, naps: 2, ..CALM },
    },
];
