//! The ports: everything the node asks of the world, as one trait (LAYOUT: `host` and `sim` are its two
//! implementations). Nothing here names a socket, a file or a clock; a port that can fail says so with an
//! [`Event`], because the node must go on deciding either way.
//!
//! Invariant: what safety depends on is a method without a default, so that no driver can leave it out. A [`Notice`]
//! decides nothing: a driver that drops all of them is as safe as one that prints them.

use alloc::vec::Vec;
use core::fmt;
use pollux_machine::Difference;
use pollux_protocol::{HostTime, Message, PeerId, Verdict};
use pollux_vocab::{
    ConsoleId, Digest, DiskRequest, DiskStatus, Generation, Icount, Output, Record, RequestId, SlotId,
};

/// What the world tells the node. Delivered in the order in which it happened, as far as that is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A frame arrived for the network device in `slot`.
    Packet {
        /// The network device.
        slot: SlotId,
        /// The frame, without FCS.
        frame: Vec<u8>,
    },
    /// This host's disk has finished a request.
    DiskDone(DiskCompletion),
    /// This host's disk does not do what a disk does. A request that comes back as an error is no such event.
    DiskFault {
        /// The disk.
        slot: SlotId,
        /// What is wrong with it.
        fault: DiskFault,
    },
    /// Somebody typed.
    Console {
        /// Where.
        console: ConsoleId,
        /// What.
        bytes: Vec<u8>,
    },
    /// Random bytes that were asked for.
    Entropy {
        /// The rng device.
        slot: SlotId,
        /// Its request.
        request: RequestId,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// A message from another replica.
    Message(PeerId, Message),
    /// Bytes of another replica's have arrived that are no whole message yet.
    LinkBytes(PeerId),
    /// The link to another replica is gone for good.
    LinkLost(PeerId),
    /// The arbiter has answered a claim.
    Verdict(Generation, Verdict),
    /// An operator wants the VM to end now.
    Stop,
    /// This host is to run the VM no more: a healthy backup gets it.
    HandOver(HandoverCause),
    /// Whether this host reaches the service network; it did at first.
    Network {
        /// It does.
        reached: bool,
    },
    /// An operator pressed the power button.
    PowerButton,
}

/// Why a host gives its VM away, and so what is to be done with the VM if nobody takes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HandoverCause {
    /// This process is told to end: a VM that nobody takes ends with it.
    Terminate,
    /// This host has lost the service network: the VM stays if nobody takes it.
    Network,
    /// A disk of this host fails or hangs: the VM stays if nobody takes it.
    Disk(SlotId),
}

impl fmt::Display for HandoverCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Terminate => f.write_str("this process is told to end"),
            Self::Network => f.write_str("this host has lost its service network"),
            Self::Disk(slot) => write!(f, "disk {slot} of this host fails or hangs"),
        }
    }
}

/// What may be wrong with a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiskFault {
    /// A request has taken longer than one may. It may still come back.
    Hangs,
}

/// What became of a request on this host's disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskCompletion {
    /// The disk.
    pub slot: SlotId,
    /// The request.
    pub request: RequestId,
    /// How it went here.
    pub status: DiskStatus,
    /// What was read.
    pub data: Vec<u8>,
}

/// Things worth telling a person, with their instants; the host half turns them into log lines and status, and into
/// nothing else.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// The backup has not been heard of for too long, or the link broke: the primary seeks the right to go on alone.
    BackupSuspected,
    /// The backup lives, but has executed nothing, or left no room, for too long.
    BackupStalled,
    /// The primary runs on alone in this generation.
    WentSolo(Generation),
    /// The primary executes and releases nothing more, and its backup is told to take over.
    HandingOver(HandoverCause),
    /// Nobody takes the VM: it stays here, or ends here.
    HandoverFailed(HandoverCause),
    /// The primary has told this side to take over.
    TakeoverAsked,
    /// The primary has not been heard of for too long, or the link broke.
    PrimarySuspected,
    /// The arbiter gave this side the generation.
    ArbiterWon(Generation),
    /// Everything in the log has been replayed.
    Replayed(Icount),
    /// This side is live.
    WentLive(Generation),
    /// The guest has begun again in place; so many times by now.
    Restarted(u64),
    /// The replicas differ.
    Diverged(Divergence),
    /// The state digest of both sides was compared and agreed.
    DigestAgreed(Icount),
}

/// Where and how two replicas, or a recording and its replay, were seen to differ.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Divergence {
    /// The instant of the comparison.
    pub icount: Icount,
    /// What differs first.
    pub what: Difference,
}

/// The world, as the node needs it.
pub trait Ports {
    /// Host time, monotonic.
    fn now(&mut self) -> HostTime;
    /// The next thing that happened, if any.
    fn poll_event(&mut self) -> Option<Event>;
    /// Sends to another replica, which the driver has numbered; never blocks for long. Failure shows up as
    /// [`Event::LinkLost`].
    fn send_message(&mut self, to: PeerId, message: Message);
    /// Lets an output into the world. The output rule has been kept by the caller.
    fn release(&mut self, output: Output);
    /// Starts a request on this host's disk; answered by [`Event::DiskDone`].
    fn submit_disk(&mut self, request: DiskRequest);
    /// Asks the arbiter for a generation; answered by [`Event::Verdict`]. The fences are held by then.
    fn claim(&mut self, generation: Generation);
    /// Another side may be given the right to run from here on: holds every fence ([`crate::fence`]) until it is opened.
    fn hold_fences(&mut self);
    /// This side alone has the VM, its disks and its addresses, from this generation on: opens every fence.
    fn open_fences(&mut self, generation: Generation);
    /// The last word of every turn: until when, by this host's clock, no other side can have taken this one's place. What
    /// has been released and is still on its way leaves before then; after that only if the lease was renewed meanwhile.
    fn set_lease(&mut self, until: HostTime);
    /// Tells the network that the guest's addresses are now reached through this host.
    fn announce(&mut self);
    /// Writes a record to the recording, if one is made. `read` is the data of a [`pollux_vocab::RecordBody::DiskDoneLocal`].
    fn record(&mut self, record: &Record, read: Option<&[u8]>);
    /// Says something to people. Nothing else may depend on it.
    fn notice(&mut self, notice: Notice);
    /// Called with this side's own digest where one was taken.
    fn digest(&mut self, _icount: Icount, _digest: &Digest) {}
}
