//! A host's disk: a queue, an image, and what may go wrong between them. Requests are served one by one in the order
//! in which the machine made them, as `pollux-host` does.
//!
//! A shared image stands behind a fence, as there: nothing is begun from this side's claim until it has won, nor when
//! its node's lease has run out. An effect happens at the instant at which a request is begun.

use crate::fault::DiskFault;
use pollux_node::fence::{Fence, Passage};
use pollux_node::{DiskCompletion, HostTime};
use pollux_vocab::{DiskOp, DiskRequest, DiskStatus};
use std::collections::VecDeque;

/// The queue of one host.
#[derive(Debug)]
pub(crate) struct Disk {
    queue: VecDeque<DiskRequest>,
    pub(crate) busy: bool,
    pub(crate) fence: Fence,
    /// The lease that the newest turn has come to: known when that ends.
    lease: HostTime,
    pub(crate) fault: Option<(u64, DiskFault)>,
    /// Has failed a request.
    pub(crate) failed: bool,
    /// What the write in progress has replaced in the second half of its place: comes back if the power goes.
    torn: Option<(usize, Vec<u8>)>,
}

impl Disk {
    pub(crate) fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            busy: false,
            fence: Fence::default(),
            lease: HostTime(u64::MAX),
            fault: None,
            failed: false,
            torn: None,
        }
    }

    /// Another process uses it. What is wrong with the device stays.
    pub(crate) fn restart(&mut self) {
        *self = Self { fault: self.fault, ..Self::new() };
    }

    pub(crate) fn submit(&mut self, request: DiskRequest) {
        self.queue.push_back(request);
    }

    /// A turn comes to this lease; the one before it has come into force meanwhile.
    pub(crate) fn set_lease(&mut self, until: HostTime) {
        self.fence.set_lease(std::mem::replace(&mut self.lease, until));
    }

    /// Whether the next request may be begun at this instant of the host's clock. `in_turn`: the newest turn goes on.
    pub(crate) fn may_begin(&mut self, now: HostTime, in_turn: bool, shared: bool) -> bool {
        if !in_turn {
            self.fence.set_lease(self.lease);
        }
        let passes = self.fence.passage(now) == Passage::Free;
        !self.busy && !self.queue.is_empty() && (!shared || passes)
    }

    /// Whether requests wait that may be begun later.
    pub(crate) fn is_behind_fence(&self, now: HostTime) -> bool {
        self.fence.passage(now) != Passage::Ended && !self.queue.is_empty()
    }

    /// Begins the next request; says how it will have gone.
    pub(crate) fn begin(&mut self, now_ns: u64, image: &mut [u8]) -> Option<DiskCompletion> {
        let DiskRequest { slot, request, op } = self.queue.pop_front()?;
        self.busy = true;
        let fault = self.fault.filter(|(until, _)| now_ns < *until).map(|(_, fault)| fault);
        let mut data = Vec::new();
        let mut status = DiskStatus::Ok;
        match (op, fault) {
            (_, Some(DiskFault::Fails))
            | (DiskOp::Write { .. } | DiskOp::Zero { .. }, Some(DiskFault::Full)) => {
                status = DiskStatus::IoError;
            }
            (DiskOp::Write { offset, data }, Some(DiskFault::Torn)) => {
                status = DiskStatus::IoError;
                let half = data.len() / 2;
                image[offset as usize..][..half].copy_from_slice(&data[..half]);
            }
            (DiskOp::Write { offset, data }, _) => {
                let place = &mut image[offset as usize..][..data.len()];
                let half = data.len() / 2;
                self.torn = Some((offset as usize + half, place[half..].to_vec()));
                place.copy_from_slice(&data);
            }
            (DiskOp::Read { offset, len }, _) => data = image[offset as usize..][..len as usize].to_vec(),
            (DiskOp::Zero { offset, len, .. }, _) => image[offset as usize..][..len as usize].fill(0),
            (DiskOp::Flush, _) => {}
        }
        self.failed |= status == DiskStatus::IoError;
        Some(DiskCompletion { slot, request, status, data })
    }

    /// Whether it has begun to hang.
    pub(crate) fn hangs(&self) -> bool {
        matches!(self.fault, Some((_, DiskFault::Hangs)))
    }

    /// The request in progress is done.
    pub(crate) fn finish(&mut self) {
        (self.busy, self.torn) = (false, None);
    }

    /// The host is gone. Without power, a write in progress is half on the disk.
    pub(crate) fn end(&mut self, power: bool, image: &mut [u8]) {
        self.queue.clear();
        self.fence.end();
        if let Some((at, old)) = self.torn.take().filter(|_| power) {
            image[at..][..old.len()].copy_from_slice(&old);
        }
    }

    /// How much longer than usual a request takes that is begun now.
    pub(crate) fn extra_ns(&self, now_ns: u64) -> u64 {
        match self.fault {
            Some((until, DiskFault::Slow(extra))) if now_ns < until => extra,
            Some((until, DiskFault::Hangs)) => until.saturating_sub(now_ns),
            _ => 0,
        }
    }
}
