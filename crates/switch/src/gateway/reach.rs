//! Which TCP forwards lead to a guest that answers, so that nobody is accepted for a machine that is not there.
//!
//! ```text
//!   closed ── the guest answers SYN with SYN-ACK ──► open ── the guest's port is gone for too long ──► closed
//!     │ ▲                                            │ ▲                                                 ▲
//!     └─┘ asks: where the guest is (ARP),            │ └ SYN-ACK                                         │
//!         then its port (SYN)                        └──── a call fails ──► doubted: asks ── RST, silence┘
//! ```
//!
//! A probe is the SYN of a connection that never comes about: the answer meets no socket of smoltcp's, whose RST ends
//! it before the guest's program hears of it (`accept` returns for whole connections only). A failover closes nothing:
//! the guest is somewhere else within the time that an absent one has. Nor does one client whom the guest refuses, as a
//! service under load may: only a refused probe says that there is no service.
//!
//! Not here: the host's sockets (`switch` listens and stops listening as [`Reach::take_changes`] says), calls of
//! clients (`tcp`).

use super::packet::{self, Answer};
use super::stack::Stack;
use crate::config::MacAddr;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

/// The gateway's own port that probes come from; those of forwarded connections begin above it.
pub(crate) const PROBE_PORT: u16 = 9_999;
/// How often a guest that is there is asked for its port.
const PROBE_EVERY: Duration = Duration::from_millis(100);
/// How often somebody is asked for who is not there.
const SEEK_EVERY: Duration = Duration::from_millis(500);
/// After so long without an answer it is asked less often.
const EAGER_FOR: Duration = Duration::from_secs(60);
/// How often then.
const PATIENT_EVERY: Duration = Duration::from_secs(1);
/// A guest that was asked because a call had failed answers within this, or is not there.
const DOUBT_FOR: Duration = Duration::from_secs(1);
/// How often the guests of open forwards are looked for among the ports.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A TCP forward, as far as its guest is concerned.
#[derive(Debug)]
struct Door {
    index: usize,
    guest: SocketAddrV4,
    open: bool,
    /// When it was closed, or its guest appeared.
    since: Instant,
    ask_at: Instant,
    /// Open, and its guest is at no port since then.
    absent: Option<Instant>,
    /// Open, and a call failed then, and no probe has been answered since.
    doubted: Option<Instant>,
}

/// All TCP forwards.
#[derive(Debug)]
pub(crate) struct Reach {
    doors: Vec<Door>,
    changes: Vec<(usize, bool)>,
    /// A guest may be without a port for so long.
    absent_max: Duration,
    look_at: Instant,
    /// Whether there is a port at all to ask at.
    ports: bool,
    /// The probes' initial sequence number, one more for each.
    sequence: u32,
}

impl Reach {
    pub(crate) fn new(absent_max: Duration, seed: u64, now: Instant) -> Self {
        let sequence = (seed >> 32) as u32;
        Self { doors: Vec::new(), changes: Vec::new(), absent_max, look_at: now, ports: false, sequence }
    }

    /// Adds forward number `index`, closed.
    pub(crate) fn add(&mut self, index: usize, guest: SocketAddrV4, now: Instant) {
        let (open, absent, doubted) = (false, None, None);
        self.doors.push(Door { index, guest, open, since: now, ask_at: now, absent, doubted });
    }

    /// Forwards that have become open (`true`) or closed since the last call.
    pub(crate) fn take_changes(&mut self) -> Vec<(usize, bool)> {
        std::mem::take(&mut self.changes)
    }

    /// When something has to be asked though nothing happened.
    pub(crate) fn due(&self) -> Option<Instant> {
        if !self.ports {
            return None;
        }
        let due = |door: &Door| match (door.open, door.doubted) {
            (true, None) => self.look_at,
            (true, Some(_)) => self.look_at.min(door.ask_at),
            (false, _) => door.ask_at,
        };
        self.doors.iter().map(due).min()
    }

    /// A guest's address is another machine's, or known at all, from now on.
    pub(crate) fn guest_seen(&mut self, guest: Ipv4Addr, now: Instant) {
        for door in self.doors.iter_mut().filter(|door| !door.open && *door.guest.ip() == guest) {
            (door.since, door.ask_at) = (now, now);
        }
    }

    /// Somebody announces something: perhaps who is looked for is there.
    pub(crate) fn hurry(&mut self, now: Instant) {
        self.doors.iter_mut().for_each(|door| door.ask_at = now);
    }

    /// A guest has answered a probe.
    pub(crate) fn answered(&mut self, guest: SocketAddrV4, answer: Answer, now: Instant) {
        for door in self.doors.iter_mut().filter(|door| door.guest == guest) {
            match (answer, door.open) {
                (Answer::Taken, true) => door.doubted = None,
                (Answer::Taken, false) => {
                    (door.open, door.since, door.absent, door.doubted) = (true, now, None, None);
                    self.changes.push((door.index, true));
                }
                (Answer::Refused, true) if door.doubted.is_some() => {
                    close(door, &mut self.changes, now);
                }
                (Answer::Refused, _) => {}
            }
        }
    }

    /// Forward number `index` could not be opened on the host's side: it is tried again.
    pub(crate) fn not_opened(&mut self, index: usize, now: Instant) {
        for door in self.doors.iter_mut().filter(|door| door.index == index) {
            (door.open, door.ask_at) = (false, now + PATIENT_EVERY);
        }
    }

    /// A client's call came to nothing: is the service still there?
    pub(crate) fn failed(&mut self, guest: SocketAddrV4, now: Instant) {
        for door in self.doors.iter_mut().filter(|door| door.open && door.guest == guest) {
            if door.doubted.is_none() {
                (door.doubted, door.ask_at) = (Some(now), now);
            }
        }
    }

    /// Asks what is due; `at_port` says whether a MAC is at a port.
    pub(crate) fn work(
        &mut self,
        stack: &mut Stack,
        own: (MacAddr, Ipv4Addr),
        neighbors: &BTreeMap<Ipv4Addr, MacAddr>,
        at_port: impl Fn(MacAddr) -> bool,
        ports: bool,
        now: Instant,
    ) {
        if ports && !self.ports {
            self.hurry(now);
        }
        self.ports = ports;
        let looks = now >= self.look_at;
        if looks {
            self.look_at = now + LOOK_EVERY;
        }
        for door in &mut self.doors {
            let mac = neighbors.get(door.guest.ip()).copied();
            let is_there = mac.is_some_and(&at_port);
            if door.open {
                if looks {
                    door.absent = (!is_there).then(|| door.absent.unwrap_or(now));
                }
                let lasts = |since: Option<Instant>, max| {
                    since.is_some_and(|s| now.saturating_duration_since(s) >= max)
                };
                if lasts(door.absent, self.absent_max) || lasts(door.doubted, DOUBT_FOR) {
                    close(door, &mut self.changes, now);
                    continue;
                }
                if door.doubted.is_none() {
                    continue;
                }
            }
            if now < door.ask_at || !ports || door.guest.ip().is_unspecified() {
                continue;
            }
            let eager = now.saturating_duration_since(door.since) < EAGER_FOR;
            match mac.filter(|_| is_there) {
                Some(mac) => {
                    self.sequence = self.sequence.wrapping_add(1);
                    let from = SocketAddrV4::new(own.1, PROBE_PORT);
                    packet::emit_syn(&mut stack.queues, (mac, own.0), from, door.guest, self.sequence);
                    door.ask_at = now + if eager { PROBE_EVERY } else { PATIENT_EVERY };
                }
                None => {
                    packet::emit_arp_request(&mut stack.queues, own.0, own.1, *door.guest.ip());
                    door.ask_at = now + if eager { SEEK_EVERY } else { PATIENT_EVERY };
                }
            }
        }
    }
}

fn close(door: &mut Door, changes: &mut Vec<(usize, bool)>, now: Instant) {
    (door.open, door.since, door.ask_at) = (false, now, now + PROBE_EVERY);
    (door.absent, door.doubted) = (None, None);
    changes.push((door.index, false));
}
