//! What may go wrong, when, and where: the vocabulary of schedules.
//!
//! Not here: which faults a seed draws ([`crate::plan`]), what each does ([`crate::inject`]).

use pollux_node::PeerId;
use std::fmt;

/// A host of the deployment, by number. What each starts as is the plan's to say.
pub(crate) type HostId = usize;

/// A host, as the others number it.
pub(crate) fn peer_of(host: HostId) -> PeerId {
    PeerId(u16::try_from(host).expect("few hosts"))
}

/// The host of that number.
pub(crate) fn host_of(peer: PeerId) -> HostId {
    usize::from(peer.0)
}

/// Most hosts in a deployment: each needs a name.
pub(crate) const HOSTS_MAX: usize = 8;

/// What the hosts are called in timelines.
pub(crate) const NAMES: [&str; HOSTS_MAX] =
    ["castor", "pollux", "helen", "leda", "phoebe", "hilaeira", "idas", "lynceus"];

/// One direction of the link between two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Way {
    /// Who sends.
    pub from: usize,
    /// Who receives.
    pub to: usize,
}

impl Way {
    /// The other direction.
    #[must_use]
    pub fn back(self) -> Self {
        Self { from: self.to, to: self.from }
    }
}

/// A fault and its instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// When it begins, in virtual nanoseconds since the start.
    pub at_ns: u64,
    /// What happens.
    pub kind: FaultKind,
}

/// What an operator does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// `pollux stop`.
    Stop,
    /// The power button.
    PowerButton,
    /// To hand the VM over, and not to end it if nobody takes it.
    HandOver,
}

/// What happens to a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// Every request takes this many nanoseconds more.
    Slow(u64),
    /// Requests do not end.
    Hangs,
    /// Every request fails, and does nothing.
    Fails,
    /// Writes fail, and do nothing.
    Full,
    /// Writes fail half-way: the first half of the block is on the disk.
    Torn,
}

/// A kind of fault. Fields named `*_ns` are durations in virtual nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The host dies, in the middle of a turn of its loop: after this many more effects.
    Crash {
        host: HostId,
        /// Effects (messages, outputs, disk requests, claims) that still happen.
        effects: u64,
        /// With the host, what it had sent and what had not arrived is lost; else only the process dies, and the
        /// kernel delivers that and ends the connection.
        power: bool,
        /// Somebody starts the VM again on this host after so long.
        restart_ns: Option<u64>,
    },
    /// The host's process does not run.
    Pause { host: HostId, for_ns: u64 },
    /// The process does not run, from the middle of a turn of its loop on: it stands still while it looks at its clock,
    /// after so many looks.
    Stumble { host: HostId, looks: u64, for_ns: u64 },
    /// The process runs this many times slower.
    SlowHost { host: HostId, for_ns: u64, factor: u64 },
    /// Nothing arrives on the link in this direction; it comes later, as TCP sends it again.
    Cut { way: Way, for_ns: u64 },
    /// Nothing arrives on any link, either way.
    Partition { for_ns: u64 },
    /// Everything on the link in this direction takes longer.
    SlowLink { way: Way, for_ns: u64, extra_ns: u64 },
    /// The link carries only so many bytes a second in this direction.
    ThinLink { way: Way, for_ns: u64, bytes_per_s: u64 },
    /// Somebody sends the guest a frame of so many random bytes: a large record.
    LongFrame { bytes: u64 },
    /// One bit of the next message in this direction is another.
    Corrupt { way: Way },
    /// The connection of this host to its peer is reset: it hears of it at once, the peer after so long.
    Reset { host: HostId, other_after_ns: u64 },
    /// Heartbeats, and acknowledgements, in this direction are lost.
    LoseHeartbeats { way: Way, for_ns: u64 },
    /// The next records in this direction are lost, and what comes behind them is not. TCP does not do this; whoever mends
    /// connections in its place may.
    LoseRecords { way: Way },
    /// What is said in this direction of the link is said twice.
    Doubled { way: Way, for_ns: u64 },
    /// The host does not reach the clients' network.
    NetCut { host: HostId, for_ns: u64 },
    /// The clients' network loses, doubles and reorders frames, as many in 1000.
    NetChaos { for_ns: u64, permille: u64 },
    /// The host does not reach the arbiter. `silent`: its claims arrive, and the answers do not.
    ArbiterCut { host: HostId, for_ns: u64, silent: bool },
    /// The arbiter answers nobody.
    ArbiterDown { for_ns: u64 },
    /// The host's disk misbehaves.
    Disk { host: HostId, for_ns: u64, fault: DiskFault },
    /// The host's clock jumps forward.
    Clock { host: HostId, jump_ns: u64 },
    /// An operator gives an order to this side.
    Operator { host: HostId, order: Order },
    /// An operator stops this side so long after it is told that it has won the VM.
    StopWinner { host: HostId, after_ns: u64 },
    /// An operator starts the VM on this host, with a backup on that one, as soon as it has ended in good order.
    StartElsewhere { host: HostId, backup: HostId },
}

/// A way, as faults name it. The two hosts of the first pair have nobody else to send to: the sender says it all.
struct Sender(Way);

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Way { from, to }) = *self;
        let beyond = from.max(to) > 1;
        f.write_str(NAMES[from])?;
        if beyond { write!(f, " to {}", NAMES[to]) } else { Ok(()) }
    }
}

struct Ms(u64);

impl fmt::Display for Ms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03} ms", self.0 / 1_000_000, self.0 / 1000 % 1000)
    }
}

struct Again(Option<u64>);

impl fmt::Display for Again {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |ns| write!(f, ", and is started again after {}", Ms(ns)))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {}: {}", Ms(self.at_ns), self.kind)
    }
}

impl fmt::Display for DiskFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slow(ns) => write!(f, "takes {} more", Ms(*ns)),
            Self::Hangs => f.write_str("hangs"),
            Self::Fails => f.write_str("fails"),
            Self::Full => f.write_str("is full"),
            Self::Torn => f.write_str("tears writes"),
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stop => "stops",
            Self::PowerButton => "presses the power button at",
            Self::HandOver => "wants a handover of",
        })
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use FaultKind as K;
        match *self {
            K::Crash { host, effects, power, restart_ns } => {
                let how = if power { "loses power" } else { "is killed" };
                write!(f, "{} {how} after {effects} more effects{}", NAMES[host], Again(restart_ns))
            }
            K::Pause { host, for_ns } => write!(f, "{} stands still for {}", NAMES[host], Ms(for_ns)),
            K::Stumble { host, looks, for_ns } => {
                let name = NAMES[host];
                write!(
                    f,
                    "{name} stands still for {} in its {looks}th look at the clock from then",
                    Ms(for_ns)
                )
            }
            K::SlowHost { host, for_ns, factor } => {
                write!(f, "{} runs {factor} times slower for {}", NAMES[host], Ms(for_ns))
            }
            K::Cut { way, for_ns } => write!(f, "the link from {} is cut for {}", Sender(way), Ms(for_ns)),
            K::Partition { for_ns } => write!(f, "the link is cut both ways for {}", Ms(for_ns)),
            K::SlowLink { way, for_ns, extra_ns } => {
                write!(f, "the link from {} takes {} more for {}", Sender(way), Ms(extra_ns), Ms(for_ns))
            }
            K::ThinLink { way, for_ns, bytes_per_s } => {
                let from = Sender(way);
                write!(f, "the link from {from} carries {bytes_per_s} bytes a second for {}", Ms(for_ns))
            }
            K::LongFrame { bytes } => write!(f, "a frame of {bytes} random bytes comes for the guest"),
            K::Corrupt { way } => write!(f, "a bit of the next message from {} flips", Sender(way)),
            K::Reset { host, other_after_ns } => {
                let (name, later) = (NAMES[host], Ms(other_after_ns));
                write!(f, "the link is reset at {name}, the other side hears it {later} later")
            }
            K::LoseHeartbeats { way, for_ns } => {
                write!(f, "heartbeats and acknowledgements from {} are lost for {}", Sender(way), Ms(for_ns))
            }
            K::LoseRecords { way } => write!(f, "the next records from {} are lost", Sender(way)),
            K::Doubled { way, for_ns } => {
                write!(f, "what {} says on the link is doubled for {}", Sender(way), Ms(for_ns))
            }
            K::NetCut { host, for_ns } => {
                write!(f, "{} is cut from the clients for {}", NAMES[host], Ms(for_ns))
            }
            K::NetChaos { for_ns, permille } => {
                let ms = Ms(for_ns);
                write!(f, "the clients' network loses, doubles, reorders {permille} in 1000 for {ms}")
            }
            K::ArbiterCut { host, for_ns, silent } => {
                let what = if silent { "hears no answer of" } else { "does not reach" };
                write!(f, "{} {what} the arbiter for {}", NAMES[host], Ms(for_ns))
            }
            K::ArbiterDown { for_ns } => write!(f, "the arbiter is down for {}", Ms(for_ns)),
            K::Disk { host, for_ns, fault } => {
                write!(f, "the disk of {} {fault} for {}", NAMES[host], Ms(for_ns))
            }
            K::Clock { host, jump_ns } => write!(f, "the clock of {} jumps by {}", NAMES[host], Ms(jump_ns)),
            K::StopWinner { host, after_ns } => {
                write!(f, "an operator stops {} {} after it has won, if it does", NAMES[host], Ms(after_ns))
            }
            K::StartElsewhere { host, backup } => {
                let (name, backup) = (NAMES[host], NAMES[backup]);
                write!(f, "once the VM has ended, an operator starts it on {name}, with a backup on {backup}")
            }
            K::Operator { host, order } => write!(f, "an operator {order} {}", NAMES[host]),
        }
    }
}
