//! When the live side takes a digest of its whole state into the log, for the other side to compare.
//!
//! Pages are hashed ahead, a portion a turn, so that no output and no acknowledgement waits for all of them.
//!
//! Not here: what differs if two digests do (`divergence`).

use crate::DIGEST_PAGES_MAX;
use crate::live::Live;
use crate::ports::Ports;
use pollux_machine::Machine;
use pollux_protocol::HostTime;
use pollux_vocab::RecordBody;

/// When the last one was taken, and how far the next one is.
#[derive(Debug)]
pub(crate) struct Digests {
    /// Host nanoseconds between two; 0 for none.
    pub(crate) every_ns: u64,
    taken_at: HostTime,
    /// When the work on the next one began.
    begun_at: Option<HostTime>,
}

impl Digests {
    pub(crate) fn new(every_ns: u64, now: HostTime) -> Self {
        Self { every_ns, taken_at: now, begun_at: None }
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Option<HostTime> {
        (self.every_ns > 0).then_some(self.taken_at.after(self.every_ns))
    }
}

impl<M: Machine> Live<M> {
    /// When one is due: hashes a portion of its pages, or, if that was the last one, takes the digest. True if
    /// there is more to do. A guest that writes to pages faster than they are hashed ahead gets one interval's grace.
    pub(crate) fn work_on_digest(&mut self, ports: &mut impl Ports, now: HostTime) -> bool {
        if self.digests.next().is_none_or(|at| now < at) {
            return false;
        }
        let late = now.since(*self.digests.begun_at.get_or_insert(now)) >= self.digests.every_ns;
        if !self.machine.prepare_digest(DIGEST_PAGES_MAX) && !late {
            return true;
        }
        (self.digests.taken_at, self.digests.begun_at) = (now, None);
        self.take_digest(ports);
        false
    }

    pub(crate) fn take_digest(&mut self, ports: &mut impl Ports) {
        let digest = self.machine.digest();
        let icount = self.machine.icount();
        ports.digest(icount, &digest);
        self.admit(ports, RecordBody::Digest(digest));
    }
}
