//! The node's one inbox: every thread that waits for the world sends here, and the node waits for nothing else.
//!
//! Invariant: packets that wait are bounded, and the newest is lost when there is no room, as on any network. What the
//! other replica says is bounded in bytes, and whoever reads the link waits when there is no room: TCP tells the peer.
//! Everything else (completions, verdicts, an operator's orders) is never lost, and its number is bounded by what the
//! node itself has asked for.

use pollux_node::{Event, HandoverCause};
use pollux_protocol::{Message, weight};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Packets that wait for the node; as many as wait in the node for the guest.
pub const PACKETS_WAITING_MAX: usize = 1024;

/// What the other replica has said and the node has not taken in, in bytes as [`pollux_protocol::weight`] counts them; a
/// message that is longer by itself may wait alone.
pub const LINK_BYTES_WAITING_MAX: u64 = 8 << 20;
/// What a message counts besides its records.
const MESSAGE_BYTES: u64 = 64;

/// The node has ended; nobody listens.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the node has ended")]
pub struct NodeEnded;

#[derive(Debug, Default)]
struct Packets {
    waiting: AtomicUsize,
    lost: AtomicU64,
}

/// What waits of what the other replica has said.
#[derive(Debug, Default)]
struct Said {
    waiting: Mutex<SaidWaiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct SaidWaiting {
    bytes: u64,
    /// Nobody takes anything out any more.
    ended: bool,
}

/// Where events go in. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EventSender {
    events: Sender<Event>,
    packets: Arc<Packets>,
    said: Arc<Said>,
    /// Somebody wants this process to stop: for those who work before there is a node that takes events.
    stopping: Arc<AtomicBool>,
}

/// Where events come out.
#[derive(Debug)]
pub struct Inbox {
    events: Receiver<Event>,
    packets: Arc<Packets>,
    said: Arc<Said>,
}

/// Makes an inbox and the way into it.
#[must_use]
pub fn inbox() -> (EventSender, Inbox) {
    let (sender, events) = channel();
    let packets = Arc::<Packets>::default();
    let (said, stopping) = (Arc::<Said>::default(), Arc::default());
    let inbox = Inbox { events, packets: packets.clone(), said: said.clone() };
    (EventSender { events: sender, packets, said, stopping }, inbox)
}

impl EventSender {
    /// Tells the node. A packet for which there is no room is lost, and counted; with what the other replica has said the
    /// caller waits for room.
    pub fn send(&self, event: Event) -> Result<(), NodeEnded> {
        if matches!(event, Event::Packet { .. }) && !self.packets.take_place() {
            return Ok(());
        }
        if matches!(event, Event::Stop | Event::HandOver(HandoverCause::Terminate)) {
            self.stopping.store(true, Ordering::Release);
        }
        if let Some(bytes) = said_bytes(&event) {
            self.said.take_place(bytes)?;
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

/// What an event counts, if the other replica has caused it.
fn said_bytes(event: &Event) -> Option<u64> {
    match event {
        Event::Message(_, Message::Records { records, .. }) => {
            Some(records.iter().map(weight).fold(MESSAGE_BYTES, u64::saturating_add))
        }
        Event::Message(..) | Event::LinkBytes(_) => Some(MESSAGE_BYTES),
        _ => None,
    }
}

impl Said {
    /// Waits until there is room.
    fn take_place(&self, bytes: u64) -> Result<(), NodeEnded> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while !waiting.ended
            && waiting.bytes > 0
            && waiting.bytes.saturating_add(bytes) > LINK_BYTES_WAITING_MAX
        {
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        if waiting.ended {
            return Err(NodeEnded);
        }
        waiting.bytes = waiting.bytes.saturating_add(bytes);
        Ok(())
    }

    fn change(&self, change: impl FnOnce(&mut SaidWaiting)) {
        change(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }
}

impl Drop for Inbox {
    /// Whoever waits for room need not any more.
    fn drop(&mut self) {
        self.said.change(|said| said.ended = true);
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
        if let Some(bytes) = said_bytes(&event) {
            self.said.change(|said| said.bytes = said.bytes.saturating_sub(bytes));
        }
        event
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pollux_node::PeerId;
    use pollux_vocab::{Generation, Icount, Input, Lsn, Record, RecordBody};

    fn records(lsn: u64, bytes: usize) -> Event {
        let body = RecordBody::Input(Input::Packet { slot: 0, frame: vec![0; bytes] });
        let records = vec![Record { lsn: Lsn(lsn), icount: Icount(lsn), body }];
        Event::Message(PeerId(0), Message::Records { generation: Generation(1), released: Lsn(0), records })
    }

    #[test]
    fn what_the_other_replica_says_waits_outside_when_the_node_takes_nothing_in() {
        const EACH: usize = 1 << 20;
        let (sender, inbox) = inbox();
        let (told, tells) = channel();
        let reader = std::thread::spawn(move || {
            for lsn in 1..=40 {
                sender.send(records(lsn, EACH)).expect("the node lives");
                told.send(lsn).expect("counted");
            }
            sender.send(records(41, 100 * EACH)).expect("alone it may be longer");
            while sender.send(records(42, EACH)).is_ok() {}
        });
        std::thread::sleep(Duration::from_millis(200));
        let waiting = tells.try_iter().count();
        assert!(waiting <= LINK_BYTES_WAITING_MAX as usize / EACH, "{waiting} MiB wait");
        assert!(waiting >= LINK_BYTES_WAITING_MAX as usize / EACH - 1, "{waiting}");
        for lsn in 1..=40 {
            let event = inbox.wait(Duration::from_secs(5));
            assert_eq!(event, Some(records(lsn, EACH)), "nothing is lost, and all in order");
        }
        assert!(inbox.wait(Duration::from_secs(5)).is_some());
        std::thread::sleep(Duration::from_millis(50));
        drop(inbox);
        reader.join().expect("it waits for nobody who is gone");
    }

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
