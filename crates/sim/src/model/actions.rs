//! What may happen next: every step of every part, and every fault that the bounds still allow.
//!
//! Not here: what it does (`step`).

use super::toy::SLICE_STEPS;
use super::world::{Down, Side, World};
use pollux_protocol::{Backup, Pace, Primary, Role};

/// One thing that happens, at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// The live machine runs a slice, in which it says a word.
    Slice {
        /// Where.
        host: usize,
        /// Whether something comes in first.
        input: bool,
    },
    /// Outputs that may leave, leave; messages are sent.
    Effects {
        /// By whom.
        host: usize,
    },
    /// The same, but the host crashes behind the outputs and before the messages.
    CrashBetween {
        /// Who.
        host: usize,
    },
    /// A unit of time passes on this host; or one that has slept looks at the clock.
    Tick {
        /// Where.
        host: usize,
    },
    /// The process is stopped for the failure timeout, in the middle of what it does.
    Sleep {
        /// Where.
        host: usize,
    },
    /// The process is stopped for a unit of time, in the middle of what it does.
    Nap {
        /// Where.
        host: usize,
    },
    /// A message arrives.
    Deliver {
        /// On which wire.
        wire: usize,
        /// How many it overtakes.
        at: usize,
    },
    /// The next message arrives, and will again.
    Repeat {
        /// On which wire.
        wire: usize,
    },
    /// A message is lost.
    Lose {
        /// On which wire.
        wire: usize,
        /// Behind so many.
        at: usize,
    },
    /// Bytes of the next message arrive, and the rest of it does not yet.
    Bytes {
        /// On which wire.
        wire: usize,
    },
    /// The backup replays a record.
    Replay {
        /// Where.
        host: usize,
    },
    /// The arbiter decides this host's claim.
    Decide {
        /// Whose.
        host: usize,
    },
    /// Its answer arrives.
    Answer {
        /// Where.
        host: usize,
    },
    /// The arbiter cannot be reached, or what it has decided does not get back.
    Unreachable {
        /// By whom.
        host: usize,
    },
    /// A host crashes.
    Crash {
        /// Which.
        host: usize,
    },
    /// Somebody starts the VM on a host that has crashed, or on a spare one.
    Start {
        /// Which.
        host: usize,
    },
    /// The process that was started looks whether the VM is free.
    Look {
        /// Where.
        host: usize,
    },
    /// A host is told that the link has ended.
    LinkEnds {
        /// Which.
        host: usize,
    },
    /// What is sent on this wire gets lost from here on, and what is under way.
    Cut {
        /// Which.
        wire: usize,
    },
    /// And no longer.
    Mend {
        /// Which.
        wire: usize,
    },
    /// A disk under this backup hangs for ever: it replays nothing more, and lives.
    Hang {
        /// Which.
        host: usize,
    },
    /// This host loses the service network for ever.
    LoseNetwork {
        /// Which.
        host: usize,
    },
    /// This primary is told to give the VM to its backup.
    HandOver {
        /// Which.
        host: usize,
    },
    /// An operator takes this backup out of the pair.
    Leave {
        /// Which.
        host: usize,
    },
}

impl World {
    /// All of it.
    pub fn actions(&self, actions: &mut Vec<Action>) {
        if self.broken.is_some() {
            return;
        }
        for host in 0..self.hosts.len() {
            self.host_actions(host, actions);
            self.arbiter_actions(host, actions);
            self.host_faults(host, actions);
        }
        for wire in 0..self.wires.len() {
            self.wire_actions(wire, actions);
        }
    }

    fn host_actions(&self, host: usize, actions: &mut Vec<Action>) {
        let at = &self.hosts[host];
        let timeout = match &at.side {
            Side::Live(primary) => {
                let room = at.toy.icount < self.left.slices * SLICE_STEPS;
                if room && primary.pace(at.now()) != Pace::Wait {
                    actions.push(Action::Slice { host, input: false });
                    if self.left.inputs > 0 {
                        actions.push(Action::Slice { host, input: true });
                    }
                }
                actions.push(Action::Effects { host });
                Primary::next_timeout(primary)
            }
            Side::Standby(backup) => {
                actions.push(Action::Effects { host });
                if !at.hangs {
                    actions.push(Action::Replay { host });
                }
                Backup::next_timeout(backup)
            }
            Side::Starting { found, .. } => {
                if found.is_none() {
                    actions.push(Action::Look { host });
                }
                None
            }
            Side::Down(_) => None,
        };
        if at.drowsy || timeout.is_some() && self.left.ticks[host] > 0 {
            actions.push(Action::Tick { host });
        }
    }

    fn arbiter_actions(&self, host: usize, actions: &mut Vec<Action>) {
        let at = &self.hosts[host];
        if at.asks.is_some() {
            actions.push(Action::Decide { host });
        }
        if at.answer.is_some() && !at.drowsy {
            actions.push(Action::Answer { host });
        }
        if self.left.unreachable > 0 && !at.drowsy && (at.asks.is_some() || at.answer.is_some()) {
            actions.push(Action::Unreachable { host });
        }
    }

    fn host_faults(&self, host: usize, actions: &mut Vec<Action>) {
        let (at, left) = (&self.hosts[host], &self.left);
        let replicates = matches!(at.side, Side::Live(_) | Side::Standby(_));
        if left.crashes > 0 && at.is_up() {
            actions.push(Action::Crash { host });
            if matches!(at.side, Side::Live(_)) {
                actions.push(Action::CrashBetween { host });
            }
        }
        if left.starts > 0 && matches!(at.side, Side::Down(Down::Crashed | Down::NotStarted)) {
            actions.push(Action::Start { host });
        }
        if left.sleeps > 0 && replicates && !at.drowsy {
            actions.push(Action::Sleep { host });
        }
        if left.naps > 0 && replicates {
            actions.push(Action::Nap { host });
        }
        if left.link_ends > 0 && replicates && !at.drowsy && !at.unlinked {
            actions.push(Action::LinkEnds { host });
        }
        if left.hangs > 0 && matches!(at.role(), Some((Role::Backup, _))) {
            actions.push(Action::Hang { host });
        }
        if left.net_losses > 0 && replicates && at.reaches && !at.drowsy {
            actions.push(Action::LoseNetwork { host });
        }
        let told = left.handovers > 0 && matches!(at.role(), Some((Role::Primary, _))) && !at.drowsy;
        if told || at.wants_handover() {
            actions.push(Action::HandOver { host });
        }
        if left.leaves > 0 && matches!(at.side, Side::Standby(_)) && !at.drowsy {
            actions.push(Action::Leave { host });
        }
    }

    fn wire_actions(&self, wire: usize, actions: &mut Vec<Action>) {
        let (at, left) = (&self.wires[wire], &self.left);
        let waiting = at.messages.len();
        if waiting > 0 && !self.hosts[at.to].drowsy {
            let overtaken = if left.overtakings > 0 { waiting } else { 1 };
            actions.extend((0..overtaken).map(|at| Action::Deliver { wire, at }));
            if left.bytes > 0 {
                actions.push(Action::Bytes { wire });
            }
            if left.repeats > 0 {
                actions.push(Action::Repeat { wire });
            }
        }
        if left.losses > 0 {
            actions.extend((0..waiting).map(|at| Action::Lose { wire, at }));
        }
        match at.cut {
            true => actions.push(Action::Mend { wire }),
            false if left.cuts > 0 => actions.push(Action::Cut { wire }),
            false => {}
        }
    }
}
