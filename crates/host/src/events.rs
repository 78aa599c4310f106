//! The node's one inbox: every thread that waits for the world sends here, and the node waits for nothing else.
//!
//! Invariant: packets that wait are bounded, and the newest is lost when there is no room, as on any network;
//! everything else (completions, acknowledgements, verdicts, an operator's orders) is never lost. Its number is
//! bounded by what the node itself has asked for, or by the protocol's window.

use pollux_node::{Event, HandoverCause};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// Packets that wait for the node; as many as wait in the node for the guest.
pub const PACKETS_WAITING_MAX: usize = 1024;

/// The node has ended; nobody listens.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the node has ended")]
pub struct NodeEnded;

#[derive(Debug, Default)]
struct Packets {
    waiting: AtomicUsize,
    lost: AtomicU64,
}

/// Where events go in. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EventSender {
    events: Sender<Event>,
    packets: Arc<Packets>,
    /// Somebody wants this process to stop: for those who work before there is a node that takes events.
    stopping: Arc<AtomicBool>,
}

/// Where events come out.
#[derive(Debug)]
pub struct Inbox {
    events: Receiver<Event>,
    packets: Arc<Packets>,
}

/// Makes an inbox and the way into it.
#[must_use]
pub fn inbox() -> (EventSender, Inbox) {
    let (sender, events) = channel();
    let packets = Arc::<Packets>::default();
    let stopping = Arc::default();
    (EventSender { events: sender, packets: packets.clone(), stopping }, Inbox { events, packets })
}

impl EventSender {
    /// Tells the node. A packet for which there is no room is lost, and counted.
    pub fn send(&self, event: Event) -> Result<(), NodeEnded> {
        if matches!(event, Event::Packet { .. }) && !self.packets.take_place() {
            return Ok(());
        }
        if matches!(event, Event::Stop | Event::HandOver(HandoverCause::Terminate)) {
            self.stopping.store(true, Ordering::Release);
        }
        self.events.send(event).map_err(|_| NodeEnded)
    }

    /// Whether anybody has sent [`Event::Stop`], taken in or not.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// A way in for one who never sends packets.
    pub(crate) fn unbounded(&self) -> Sender<Event> {
        self.events.clone()
    }
}

impl Packets {
    fn take_place(&self) -> bool {
        let place = |waiting| (waiting < PACKETS_WAITING_MAX).then_some(waiting + 1);
        let taken = self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, place).is_ok();
        if !taken {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }
}

impl Inbox {
    /// The next event, if there is one.
    pub fn try_next(&self) -> Option<Event> {
        self.events.try_recv().ok().map(|event| self.count_out(event))
    }

    /// The next event; waits for it at most so long.
    pub fn wait(&self, patience: Duration) -> Option<Event> {
        match self.events.recv_timeout(patience) {
            Ok(event) => Some(self.count_out(event)),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => None,
        }
    }

    /// Packets lost because too many waited.
    #[must_use]
    pub fn packets_lost(&self) -> u64 {
        self.packets.lost.load(Ordering::Relaxed)
    }

    fn count_out(&self, event: Event) -> Event {
        if matches!(event, Event::Packet { .. }) {
            self.packets.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        event
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_packets_is_bounded_and_loses_nothing_else() {
        let (sender, inbox) = inbox();
        for _ in 0..PACKETS_WAITING_MAX + 10 {
            sender.send(Event::Packet { slot: 0, frame: vec![0; 60] }).expect("the node lives");
        }
        for _ in 0..10 {
            sender.send(Event::PowerButton).expect("the node lives");
        }
        assert_eq!(inbox.packets_lost(), 10);
        let out: Vec<_> = std::iter::from_fn(|| inbox.try_next()).collect();
        assert_eq!(out.len(), PACKETS_WAITING_MAX + 10);
        assert_eq!(out.last(), Some(&Event::PowerButton));
        sender.send(Event::Packet { slot: 0, frame: vec![1; 60] }).expect("the node lives");
        assert!(matches!(inbox.try_next(), Some(Event::Packet { .. })), "there is room again");
    }
}
