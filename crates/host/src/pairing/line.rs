//! The link during a pairing: words as messages, within the deadline that the state machine names.

use super::LAST_WORD_PATIENCE;
use crate::clock;
use crate::events::EventSender;
use crate::link::{LinkError, LinkReader, LinkSender, Patience};
use pollux_codec::message::{Greet, Hello, Wire};
use pollux_protocol::HostTime;
use pollux_protocol::pairing::{Disk, Greeting, HANDSHAKE_PATIENCE_NS, Terms, Word};
use std::time::Duration;

/// What became of a word that was to be sent or heard.
pub(super) enum Heard<T> {
    /// It was.
    Done(T),
    /// The deadline has come.
    TooLate,
    /// This process is told to stop.
    Stopped,
    /// The link has failed.
    Broken(LinkError),
}

impl<T> From<Result<T, LinkError>> for Heard<T> {
    fn from(result: Result<T, LinkError>) -> Self {
        match result {
            Ok(done) => Self::Done(done),
            Err(LinkError::TooLate) => Self::TooLate,
            Err(LinkError::Stopped) => Self::Stopped,
            Err(error) => Self::Broken(error),
        }
    }
}

/// Patience until `deadline`. Nothing is waited for without one.
pub(super) fn patience(deadline: Option<HostTime>, stop: Option<&EventSender>) -> Patience {
    let left = deadline.map_or(HANDSHAKE_PATIENCE_NS, |deadline| deadline.since(clock::now()));
    Patience::new(Duration::from_nanos(left), stop)
}

pub(super) fn send(link: &mut LinkSender, wire: &Wire, patience: &Patience) -> Heard<()> {
    link.send_within(wire, patience).into()
}

pub(super) fn hear(reader: &mut LinkReader, patience: &Patience) -> Heard<Wire> {
    reader.receive_within(patience).into()
}

/// Tells the primary why not.
pub(super) fn refuse(link: &mut LinkSender, reason: &str) {
    // The primary may be gone already; the reason is also this side's own error.
    let refuse = Wire::Refuse { reason: reason.into() };
    let _ = link.send_within(&refuse, &Patience::new(LAST_WORD_PATIENCE, None));
}

/// The message of a word; `hello`: what a Hello says besides. `None`: a word that is not said like this.
pub(super) fn to_wire(word: Word, hello: Option<&Hello>) -> Option<Wire> {
    Some(match word {
        Word::Greet(greeting) => Wire::Greet(to_greet(greeting)),
        Word::Challenge { nonce, proof } => Wire::Challenge { nonce, proof },
        Word::Proof(proof) => Wire::Proof { proof },
        Word::Hello(_) => Wire::Hello(hello?.clone()),
        Word::Welcome => Wire::Welcome,
        Word::Refuse(reason) => Wire::Refuse { reason },
        Word::Ready(digest) => Wire::Ready { digest },
        Word::State { .. } | Word::StateEnd(_) | Word::Other(_) => return None,
    })
}

/// What a message says, as far as the pairing is concerned.
pub(super) fn to_word(wire: &Wire) -> Word {
    match wire {
        Wire::Greet(greet) => Word::Greet(to_greeting(greet)),
        Wire::Challenge { nonce, proof } => Word::Challenge { nonce: *nonce, proof: *proof },
        Wire::Proof { proof } => Word::Proof(*proof),
        Wire::Hello(hello) => Word::Hello(terms(hello)),
        Wire::Welcome => Word::Welcome,
        Wire::Refuse { reason } => Word::Refuse(reason.clone()),
        Wire::State { offset, bytes } => Word::State { offset: *offset, bytes: bytes.len() as u64 },
        Wire::StateEnd { total } => Word::StateEnd(*total),
        Wire::Ready { digest } => Word::Ready(digest.clone()),
        other => Word::Other(other.name()),
    }
}

pub(super) fn to_greeting(greet: &Greet) -> Greeting {
    let Greet { vm, generation, arbiter, holder, nonce } = greet.clone();
    Greeting { vm, generation, arbiter, holder, nonce }
}

pub(super) fn to_greet(greeting: Greeting) -> Greet {
    let Greeting { vm, generation, arbiter, holder, nonce } = greeting;
    Greet { vm, generation, arbiter, holder, nonce }
}

/// What of a Hello somebody decides by.
pub(super) fn terms(hello: &Hello) -> Terms {
    let disks = hello.disks.iter().map(|disk| Disk {
        slot: disk.slot,
        shared: disk.shared,
        bytes: disk.bytes,
        content_hash: disk.content_hash,
    });
    Terms {
        vm: hello.vm.clone(),
        generation: hello.generation,
        ram_bytes: hello.ram_bytes,
        disks: disks.collect(),
        heartbeat_ns: hello.heartbeat_ns,
        failure_ns: hello.failure_ns,
        snapshot_bytes: hello.snapshot_bytes,
    }
}
