//! Giving the VM to the backup in good order: when the protocol may be told, and what follows if nobody takes it.
//!
//! Invariant guarded here: at the handover no request of this host to a *shared* disk is under way, for it could reach
//! the image behind those of the new live side. The machine stands still until the last one is done. A request to a
//! replicated disk reaches this host's own image alone.
//!
//! Not here: who may run after that (`pollux-protocol`).

use crate::Next;
use crate::live::Live;
use crate::ports::{DiskCompletion, HandoverCause, Notice, Ports};
use alloc::collections::BTreeSet;
use pollux_machine::Machine;
use pollux_protocol::{HostTime, Role};
use pollux_vocab::{RequestId, SlotId};

/// Host nanoseconds that requests to shared disks may take to end before a handover is given up.
const DRAIN_NS_MAX: u64 = 1_000_000_000;

/// What this side has been told, and what stands in the way.
#[derive(Debug, Default)]
pub(crate) struct Handover {
    wish: Option<Wish>,
    /// Requests to shared disks that this host has begun and not finished.
    under_way: BTreeSet<(SlotId, RequestId)>,
    /// One was given up: only an operator asks again.
    given_up: bool,
}

#[derive(Clone, Copy, Debug)]
struct Wish {
    cause: HandoverCause,
    until: HostTime,
}

impl Handover {
    /// This host is to give the VM away. The weightiest cause stays: a process that must end, ends.
    pub(crate) fn ask(&mut self, now: HostTime, cause: HandoverCause) {
        let until = now.after(DRAIN_NS_MAX);
        match &mut self.wish {
            Some(wish) if cause == HandoverCause::Terminate => wish.cause = cause,
            Some(_) => {}
            None => self.wish = Some(Wish { cause, until }),
        }
    }

    /// An output has left: a request to a shared disk.
    pub(crate) fn handle_begun(&mut self, slot: SlotId, request: RequestId) {
        self.under_way.insert((slot, request));
    }

    /// This host's disk has finished a request.
    pub(crate) fn handle_done(&mut self, done: &DiskCompletion) {
        self.under_way.remove(&(done.slot, done.request));
    }
}

impl<M: Machine> Live<M> {
    /// Rule: a disk that fails or hangs is its host's trouble, and not the guest's, while a backup is there to go on.
    pub(crate) fn give_up_disk(&mut self, now: HostTime, slot: SlotId) {
        if !self.handover.given_up && self.protocol.report().state == Role::Primary {
            self.handover.ask(now, HandoverCause::Disk(slot));
        }
    }

    /// Goes on with a handover that was asked for. `Some`: the machine is not to run in this turn.
    pub(crate) fn step_handover(&mut self, ports: &mut impl Ports, now: HostTime) -> Option<Next> {
        if !self.handover.given_up && self.protocol.wants_handover(now) {
            self.handover.ask(now, HandoverCause::Network);
        }
        let Wish { cause, until } = self.handover.wish?;
        match self.protocol.report().state {
            Role::Primary if self.handover.under_way.is_empty() => {
                if self.protocol.hand_over(now, self.machine.icount(), self.machine.time()) {
                    // Before the message leaves: from then on the other side may be live.
                    ports.hold_fences();
                    ports.notice(Notice::HandingOver(cause));
                }
                Some(self.flushed(ports, now, None))
            }
            Role::Primary if now < until => {
                self.protocol.flush(now, self.machine.icount(), self.machine.time());
                Some(self.flushed(ports, now, Some(until)))
            }
            Role::Primary | Role::Solo => {
                (self.handover.wish, self.handover.given_up) = (None, true);
                if cause == HandoverCause::Terminate {
                    self.ending.ask();
                }
                ports.notice(Notice::HandoverFailed(cause));
                None
            }
            _ => None,
        }
    }

    fn flushed(&mut self, ports: &mut impl Ports, now: HostTime, until: Option<HostTime>) -> Next {
        match self.drain_protocol(ports) {
            Some(outcome) => Next::Finished(outcome),
            None => self.waiting(now, [until, None]),
        }
    }
}
