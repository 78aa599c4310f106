//! The gateway's TCP/IP stack: smoltcp over a queue of frames, and the clock that smoltcp is given.
//!
//! smoltcp answers ARP and ping, and carries TCP. Two of its habits would make a failover felt, and both are
//! cured here with nothing but the time it is told, which it takes as an argument:
//!
//! - It follows RFC 6298 (2.4) to the letter: the retransmission timeout is never below one second, and each
//!   expiry doubles it, up to a minute. Its clock therefore runs [`PACE`] times faster than the real one: the
//!   floor becomes 200 ms (as in Linux), an unanswered ARP request is repeated after 200 ms, TIME-WAIT takes
//!   2 s and the longest timeout 12 s. Round trips are measured on the same clock, so estimates stay true.
//! - After an outage it would still sit out the doubled timeout. [`Stack::nudge`] makes the clock skip ahead
//!   so that every retransmission timer is over: what is unacknowledged leaves at once.
//!
//! Invariant: smoltcp sees only frames that `gateway::handle_frame` let through: sane source and destination
//! addresses, no fragments, no UDP. It is never given a connection timeout: a skip would trigger it.

use smoltcp::iface::{Config as IfaceConfig, Interface, SocketSet};
use smoltcp::phy::{self, Device, DeviceCapabilities, Medium};
use smoltcp::time::Instant as StackInstant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr, Ipv4Cidr};
use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::config::MacAddr;

/// How much faster than real time smoltcp's clock runs.
pub(crate) const PACE: u32 = 5;
/// How far [`Stack::nudge`] skips: the longest retransmission timeout of smoltcp (60 s).
const SKIP: Duration = Duration::from_secs(60);
/// The guest side's MTU with the Ethernet header, in bytes.
pub(crate) const FRAME_BYTES: usize = 1514;
/// Frames that smoltcp may emit before the switch delivers them, a bound on work and memory.
const EMITTED_MAX: usize = 1024;
/// Buffers kept for reuse.
const SPARE_BUFFERS_MAX: usize = 256;
/// How long to wait when smoltcp asks to be called at once although it has just had nothing to do.
const STALL_PAUSE: Duration = Duration::from_millis(1);

/// The frames on their way into smoltcp and out of the gateway.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    inward: VecDeque<Vec<u8>>,
    outward: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
}

impl Queues {
    /// An empty buffer.
    fn buffer(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    /// Takes a buffer back.
    pub(crate) fn recycle(&mut self, mut buffer: Vec<u8>) {
        if self.spare.len() < SPARE_BUFFERS_MAX && buffer.capacity() <= 4 * FRAME_BYTES {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    /// Queues a frame of the gateway's own making; `write` fills a zeroed buffer of `length` bytes.
    pub(crate) fn emit<R>(&mut self, length: usize, write: impl FnOnce(&mut [u8]) -> R) -> R {
        let mut buffer = self.buffer();
        buffer.resize(length, 0);
        let result = write(&mut buffer);
        self.outward.push_back(buffer);
        result
    }

    /// The next frame that leaves the gateway.
    pub(crate) fn next_outward(&mut self) -> Option<Vec<u8>> {
        self.outward.pop_front()
    }
}

/// smoltcp with its sockets, its clock and its frames.
pub(crate) struct Stack {
    iface: Interface,
    pub(crate) sockets: SocketSet<'static>,
    pub(crate) queues: Queues,
    started: Instant,
    skipped: Duration,
    nudged: Option<Instant>,
    /// Whether the last poll moved nothing though smoltcp had asked for it.
    stalled: bool,
}

impl std::fmt::Debug for Stack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stack").field("queues", &self.queues).finish_non_exhaustive()
    }
}

impl Stack {
    /// A stack with `address` on `mac` that also takes TCP for every other address: that is how guests'
    /// connections to the outside end here. `seed` makes initial sequence numbers hard to guess.
    pub(crate) fn new(mac: MacAddr, address: Ipv4Addr, prefix: u8, seed: u64, now: Instant) -> Self {
        let mut config = IfaceConfig::new(HardwareAddress::Ethernet(EthernetAddress(mac)));
        config.random_seed = seed;
        let mut queues = Queues::default();
        let mut iface = Interface::new(config, &mut Wire(&mut queues), StackInstant::ZERO);
        iface.update_ip_addrs(|addresses| {
            // One address into an empty list of at least one.
            let _ = addresses.push(IpCidr::Ipv4(Ipv4Cidr::new(address, prefix)));
        });
        iface.set_any_ip(true);
        let sockets = SocketSet::new(Vec::new());
        Self { iface, sockets, queues, started: now, skipped: Duration::ZERO, nudged: None, stalled: false }
    }

    /// smoltcp's time at the real time `now`.
    fn time(&self, now: Instant) -> StackInstant {
        let time = now.saturating_duration_since(self.started) * PACE + self.skipped;
        StackInstant::from_micros(i64::try_from(time.as_micros()).unwrap_or(i64::MAX / 2))
    }

    /// smoltcp's context, for opening connections.
    pub(crate) fn parts(&mut self) -> (&mut SocketSet<'static>, &mut smoltcp::iface::Context) {
        (&mut self.sockets, self.iface.context())
    }

    /// Queues a frame for smoltcp.
    pub(crate) fn push(&mut self, frame: &[u8]) {
        let mut buffer = self.queues.buffer();
        buffer.extend_from_slice(frame);
        self.queues.inward.push_back(buffer);
    }

    /// Lets smoltcp handle the frames queued and do what is due. Whether anything may have changed.
    pub(crate) fn poll(&mut self, now: Instant) -> bool {
        let time = self.time(now);
        let (fed, before) = (!self.queues.inward.is_empty(), self.queues.outward.len());
        let result = self.iface.poll(time, &mut Wire(&mut self.queues), &mut self.sockets);
        let moved = fed || self.queues.outward.len() != before;
        self.stalled = !moved;
        moved || result == smoltcp::iface::PollResult::SocketStateChanged
    }

    /// How long smoltcp can be left alone; `None`: until a frame arrives.
    pub(crate) fn idle_for(&mut self, now: Instant) -> Option<Duration> {
        let time = self.time(now);
        let delay = self.iface.poll_delay(time, &self.sockets)?;
        let delay = Duration::from_micros(delay.total_micros()) / PACE;
        Some(if self.stalled { delay.max(STALL_PAUSE) } else { delay })
    }

    /// Makes all that is unacknowledged leave with the next poll. At most once per `quiet`, so that a guest
    /// cannot make the gateway repeat itself without end. Whether it was done: the neighbours that smoltcp
    /// knew are then too old and must be told again.
    pub(crate) fn nudge(&mut self, now: Instant, quiet: Duration) -> bool {
        if self.nudged.is_some_and(|last| now.duration_since(last) < quiet) {
            return false;
        }
        self.nudged = Some(now);
        self.skipped += SKIP;
        true
    }
}

/// The queues as smoltcp's network card.
struct Wire<'a>(&'a mut Queues);

impl Device for Wire<'_> {
    type RxToken<'t>
        = Received
    where
        Self: 't;
    type TxToken<'t>
        = Sending<'t>
    where
        Self: 't;

    fn receive(&mut self, _: StackInstant) -> Option<(Received, Sending<'_>)> {
        if self.0.outward.len() >= EMITTED_MAX {
            return None;
        }
        let frame = self.0.inward.pop_front()?;
        Some((Received(frame), Sending(self.0)))
    }

    fn transmit(&mut self, _: StackInstant) -> Option<Sending<'_>> {
        if self.0.outward.len() >= EMITTED_MAX { None } else { Some(Sending(self.0)) }
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME_BYTES;
        capabilities
    }
}

/// A frame for smoltcp.
struct Received(Vec<u8>);

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

/// Room for a frame from smoltcp.
struct Sending<'a>(&'a mut Queues);

impl phy::TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        self.0.emit(length, write)
    }
}
