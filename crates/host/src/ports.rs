//! The node's ports, for real: sockets, files, threads, the clock.
//!
//! Every source of events is a thread that blocks on its descriptor and sends into one channel; the node's own
//! thread never blocks on anything but that channel.

use crate::arbiter_file::{Claimant, FileArbiter};
use crate::clock;
use crate::console::Console;
use crate::disk::{DiskServer, HANG_AFTER};
use crate::events::{EventSender, Inbox, inbox};
use crate::fence::Fence;
use crate::link::LinkSender;
use crate::mark::Marker;
use crate::net::{NetPort, announcement};
use crate::outlet::LAST_WORDS;
use crate::rate::Rate;
use crate::recorder::Recorder;
use crate::status::{Status, Times};
use pollux_node::wire::to_wire;
use pollux_node::{DiskFault, Event, HostTime, Notice, PeerId, Ports};
use pollux_protocol::Message;
use pollux_switch::Claim;
use pollux_vocab::{ConsoleId, DiskRequest, Generation, Output, Record, SlotId};
use std::hash::{BuildHasher, RandomState};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Times the guest's address is announced after going live, and how far apart: an announcement may be lost.
const ANNOUNCEMENTS: u32 = 3;
const ANNOUNCE_EVERY_NS: u64 = 30_000_000;
/// The other side of a pair, as this process numbers it.
pub const OTHER_SIDE: PeerId = PeerId(0);
/// A guest that does nothing but reboot is spoken of this often, in nanoseconds.
const TELL_RESTART_EVERY_NS: u64 = 1_000_000_000;

/// The real world.
#[derive(Debug)]
pub struct HostPorts {
    events: Inbox,
    sender: EventSender,
    waiting: Option<Event>,
    link: Option<(PeerId, LinkSender)>,
    nets: Vec<(SlotId, [u8; 6], NetPort)>,
    /// This process, to a switch.
    instance: [u8; 8],
    disks: Vec<(SlotId, DiskServer)>,
    disk_hang_after: Duration,
    consoles: Vec<(ConsoleId, Console)>,
    arbiter: Option<Sender<Generation>>,
    marks: Option<Marker>,
    recorder: Option<Recorder>,
    /// What `pollux status` shows.
    pub status: Arc<Mutex<Status>>,
    announcements_left: u32,
    announce_at: HostTime,
    packets_dropped: u64,
    /// When the log last spoke of a reboot; 0: never.
    told_restart_ns: u64,
    /// Every card that is plugged in somewhere reaches it, as the node was last told.
    net_reached: bool,
    net_event: Option<Event>,
    entropy_rate: Rate,
}

impl Default for HostPorts {
    fn default() -> Self {
        let (sender, events) = inbox();
        Self {
            events,
            sender,
            waiting: None,
            link: None,
            nets: Vec::new(),
            instance: RandomState::new().hash_one(std::process::id()).to_le_bytes(),
            disks: Vec::new(),
            disk_hang_after: HANG_AFTER,
            consoles: Vec::new(),
            arbiter: None,
            marks: None,
            recorder: None,
            status: Arc::default(),
            announcements_left: 0,
            announce_at: HostTime(0),
            packets_dropped: 0,
            told_restart_ns: 0,
            net_reached: true,
            net_event: None,
            entropy_rate: Rate::default(),
        }
    }
}

impl HostPorts {
    /// Says that the guest has rebooted, unless that was just said.
    fn tell_restart(&mut self, now_ns: u64, times: u64) {
        if self.told_restart_ns == 0 || now_ns.saturating_sub(self.told_restart_ns) >= TELL_RESTART_EVERY_NS {
            self.told_restart_ns = now_ns;
            tracing::info!(times, "the guest has rebooted");
        }
    }

    /// Where threads send their events.
    #[must_use]
    pub fn sender(&self) -> EventSender {
        self.sender.clone()
    }

    /// Plugs in a network card.
    pub fn add_net(&mut self, slot: SlotId, mac: [u8; 6], port: NetPort) {
        self.nets.push((slot, mac, port));
    }

    /// This side runs the VM in `generation`: its network cards say so to their switch before they say anything else.
    pub fn own_nets(&self, generation: Generation) {
        let vm = self.status.lock().unwrap_or_else(PoisonError::into_inner).vm.clone().into_bytes();
        for (_, mac, port) in &self.nets {
            let (generation, instance, vm) = (generation.0, self.instance, vm.clone());
            port.claim(Claim { generation, instance, mac: *mac, vm });
        }
    }

    /// How long a disk that is plugged in from here on may take over a request.
    pub fn set_disk_hang_after(&mut self, hang_after: Duration) {
        self.disk_hang_after = hang_after;
    }

    /// Plugs in a disk.
    pub fn add_disk(&mut self, slot: SlotId, mut disk: DiskServer) {
        disk.set_hang_after(self.disk_hang_after);
        self.disks.push((slot, disk));
    }

    /// Plugs in a console.
    pub fn add_console(&mut self, id: ConsoleId, console: Console) {
        self.consoles.push((id, console));
    }

    /// Connects another replica, by this number.
    pub fn set_link(&mut self, peer: PeerId, mut link: LinkSender) {
        link.forget_sent();
        self.link = Some((peer, link));
    }

    /// Names the arbiter, and who claims there.
    pub fn set_arbiter(&mut self, arbiter: FileArbiter, claimant: Claimant) -> std::io::Result<()> {
        self.arbiter = Some(arbiter.spawn(claimant, self.sender.unbounded())?);
        Ok(())
    }

    /// Names who marks the images whenever the generation changes.
    pub fn set_marks(&mut self, marks: Marker) {
        self.marks = Some(marks);
    }

    /// Records everything that is admitted.
    pub fn set_recorder(&mut self, recorder: Recorder) {
        self.recorder = Some(recorder);
    }

    /// Ends the recording, if there is one, and says whether it is whole.
    pub fn finish_recording(&mut self) -> std::io::Result<()> {
        self.recorder.take().map_or(Ok(()), Recorder::finish)
    }

    /// Waits for an event, at the latest until `until`.
    pub fn wait(&mut self, until: HostTime) {
        if self.waiting.is_some() {
            return;
        }
        let mut left = until.0.saturating_sub(clock::now().0);
        if self.link.as_mut().is_some_and(|(_, link)| link.pump()) {
            left = left.min(1_000_000);
        }
        if self.announcements_left > 0 {
            left = left.min(self.announce_at.0.saturating_sub(clock::now().0));
        }
        self.waiting = self.events.wait(Duration::from_nanos(left));
    }

    /// Call when the node has finished: what was released is given a short time to leave, and disks do what was asked of
    /// them (a shared one only what it has begun). `rightful`: the VM has ended on this side, and no other side may run
    /// it.
    pub fn close(&mut self, rightful: bool) {
        self.fences().for_each(if rightful { Fence::set_lease_for_ever } else { Fence::end });
        let deadline = Instant::now() + LAST_WORDS;
        self.consoles.iter_mut().for_each(|(_, console)| console.close());
        self.nets.iter_mut().for_each(|(.., port)| port.close());
        self.consoles.iter().for_each(|(_, console)| console.wait_closed(deadline));
        self.nets.iter().for_each(|(.., port)| port.wait_closed(deadline));
        self.disks.clear();
        if let Some(marks) = self.marks.take() {
            marks.finish(LAST_WORDS);
        }
    }

    /// Disks that hang.
    #[must_use]
    pub fn disks_hung(&self) -> Vec<SlotId> {
        let now = clock::now();
        self.disks.iter().filter(|(_, disk)| disk.is_hung(now)).map(|(slot, _)| *slot).collect()
    }

    /// Packets lost on this host.
    #[must_use]
    pub fn packets_dropped(&self) -> u64 {
        let unsent: u64 = self.nets.iter().map(|(.., port)| port.lost()).sum();
        self.packets_dropped + unsent + self.events.packets_lost()
    }

    /// Cards plugged into a switch or a device that is gone.
    #[must_use]
    pub fn nets_down(&self) -> Vec<SlotId> {
        self.nets.iter().filter(|(.., port)| port.is_down()).map(|(slot, ..)| *slot).collect()
    }

    /// Bytes of log sent.
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        self.link.as_ref().map_or(0, |(_, link)| link.sent_bytes())
    }

    /// Call before every turn of the node's loop: what is to be done once a turn, however many events it takes in.
    /// `live`: the guest talks to the world through this host.
    pub fn begin_turn(&mut self, live: bool) {
        if let Some((_, link)) = &mut self.link {
            link.pump();
        }
        let now = clock::now();
        if let Some(recorder) = &mut self.recorder {
            recorder.handle_turn(now);
        }
        let reached = self.nets.iter().all(|(.., port)| !port.is_down());
        if reached != self.net_reached {
            self.net_reached = reached;
            self.net_event = Some(Event::Network { reached });
            tracing::warn!(slots = ?self.nets_down(), "the service network is {}", if reached { "back" } else { "lost" });
        }
        for (slot, disk) in &self.disks {
            if disk.take_hang(now).is_some() {
                let _ = self.sender.send(Event::DiskFault { slot: *slot, fault: DiskFault::Hangs });
            }
        }
        let reconnected = self.nets.iter().filter(|(.., port)| port.take_reconnected()).count();
        if reconnected > 0 && live {
            self.announcements_left = ANNOUNCEMENTS;
            self.announce_at = now;
        }
        if self.announcements_left > 0 && now >= self.announce_at {
            self.announce_once();
        }
    }

    /// What must not be gone through by a side that may have been replaced.
    fn fences(&self) -> impl Iterator<Item = &Fence> {
        let disks = self.disks.iter().filter_map(|(_, disk)| disk.fence());
        disks.chain(self.nets.iter().map(|(.., port)| port.fence()))
    }

    fn with_status(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn announce_once(&mut self) {
        for (_, mac, port) in &self.nets {
            port.send(announcement(*mac));
        }
        self.announcements_left = self.announcements_left.saturating_sub(1);
        self.announce_at = HostTime(clock::now().0 + ANNOUNCE_EVERY_NS);
    }
}

impl Ports for HostPorts {
    fn now(&mut self) -> HostTime {
        clock::now()
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.net_event.take().or_else(|| self.waiting.take()).or_else(|| self.events.try_next())
    }

    fn send_message(&mut self, to: PeerId, message: Message) {
        if let Some((_, link)) = self.link.as_mut().filter(|(peer, _)| *peer == to) {
            link.send(&to_wire(message));
        }
    }

    fn release(&mut self, output: Output) {
        match output {
            Output::Packet { slot, frame } => {
                let card = self.nets.iter().find(|(s, ..)| *s == slot);
                if card.is_some_and(|(.., port)| !port.send(frame)) {
                    self.packets_dropped += 1;
                }
            }
            Output::Console { console, bytes } => {
                if let Some((_, target)) = self.consoles.iter().find(|(id, _)| *id == console) {
                    target.write(bytes);
                }
            }
            Output::EntropyWanted { slot, request, len } => {
                let mut bytes = vec![0; len as usize];
                match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
                    Ok(got) => bytes.truncate(got),
                    Err(error) => {
                        if let Some(left_out) = self.entropy_rate.take() {
                            tracing::error!(%error, left_out, "the host has no random bytes to give");
                        }
                        bytes.clear();
                    }
                }
                let _ = self.sender.send(Event::Entropy { slot, request, bytes });
            }
            // Disk requests come through `submit_disk`; the end of the VM is the node's outcome.
            Output::Disk(request) => self.submit_disk(request),
            Output::PowerOff { .. } | Output::Reset => {}
        }
    }

    fn submit_disk(&mut self, request: DiskRequest) {
        if let Some((_, disk)) = self.disks.iter().find(|(slot, _)| *slot == request.slot) {
            disk.submit(request);
        }
    }

    fn claim(&mut self, generation: Generation) {
        match &self.arbiter {
            Some(claims) => {
                let _ = claims.send(generation);
            }
            None => {
                let _ = self.sender.send(Event::Verdict(generation, pollux_protocol::Verdict::Unreachable));
            }
        }
    }

    fn hold_fences(&mut self) {
        self.fences().for_each(Fence::hold);
    }

    fn open_fences(&mut self, generation: Generation) {
        self.own_nets(generation);
        self.fences().for_each(Fence::open);
        if let Some(marks) = &self.marks {
            marks.mark(generation);
        }
    }

    fn set_lease(&mut self, until: HostTime) {
        self.fences().for_each(|fence| fence.set_lease(until));
    }

    fn announce(&mut self) {
        self.announcements_left = ANNOUNCEMENTS;
        self.announce_once();
    }

    fn record(&mut self, record: &Record, read: Option<&[u8]>) {
        if let Some(recorder) = &mut self.recorder {
            recorder.append(record, read);
        }
    }

    fn notice(&mut self, notice: Notice) {
        let now = clock::now().0;
        match &notice {
            Notice::BackupStalled => {
                tracing::error!(
                    "the backup lives, but executes nothing or has no room for the log: it counts as lost"
                );
            }
            Notice::BackupSuspected => {
                tracing::warn!("the backup is missing; asking the arbiter for the right to go on alone");
                self.with_status(|s| s.timeline.suspected_ns = now);
            }
            Notice::HandingOver(cause) => {
                tracing::warn!("{cause}: handing the VM over to the backup");
                self.with_status(|s| s.timeline.suspected_ns = now);
            }
            Notice::HandoverFailed(cause) => {
                tracing::warn!("{cause}, and no backup takes the VM over: it is not handed over");
            }
            Notice::TakeoverAsked => {
                tracing::warn!("the primary hands the VM over; asking the arbiter for the right to take it");
                self.with_status(|s| s.timeline.suspected_ns = now);
            }
            Notice::PrimarySuspected => {
                tracing::warn!("the primary is missing; asking the arbiter for the right to take over");
                self.with_status(|s| s.timeline.suspected_ns = now);
            }
            Notice::ArbiterWon(_) => self.with_status(|s| s.timeline.won_ns = now),
            Notice::Replayed(icount) => {
                tracing::info!(%icount, "the log is replayed to its end");
                self.with_status(|s| s.timeline.replayed_ns = now);
            }
            Notice::WentLive(generation) => {
                tracing::warn!(%generation, "this side is live: it has no backup");
                self.with_status(|s| {
                    s.timeline.live_ns = now;
                    s.protection = "took over".into();
                    s.times = Times::of(&s.timeline);
                });
            }
            Notice::WentSolo(generation) => {
                tracing::warn!(%generation, "running on without a backup");
                self.with_status(|s| {
                    s.timeline.won_ns = now;
                    s.protection = "backup lost".into();
                    s.times = Times::of(&s.timeline);
                });
            }
            Notice::Restarted(times) => {
                self.with_status(|s| s.restarts = *times);
                self.tell_restart(now, *times);
            }
            Notice::Diverged(d) => tracing::error!(icount = %d.icount, "the replicas differ: {}", d.what),
            Notice::DigestAgreed(icount) => {
                tracing::debug!(%icount, "state digests agree");
                self.with_status(|s| s.digests_agreed += 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Image;
    use pollux_vocab::DiskOp;

    fn with_shared_disk() -> (HostPorts, tempfile::NamedTempFile) {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.as_file().set_len(4096).expect("room");
        let mut ports = HostPorts::default();
        let image = Image::open(file.path(), false, false).expect("fine");
        ports.add_disk(0, image.serve(0, ports.sender()).expect("a thread"));
        (ports, file)
    }

    fn write() -> DiskRequest {
        DiskRequest { slot: 0, request: 1, op: DiskOp::Write { offset: 0, data: vec![9; 512] } }
    }

    #[test]
    fn from_its_claim_on_a_side_writes_to_shared_disks_only_once_it_has_won() {
        let (mut ports, file) = with_shared_disk();
        ports.hold_fences();
        ports.claim(Generation(1));
        ports.submit_disk(write());
        drop(ports);
        assert_eq!(std::fs::read(file.path()).expect("there")[..512], [0; 512], "it never won");

        let (mut ports, file) = with_shared_disk();
        ports.hold_fences();
        ports.claim(Generation(1));
        ports.submit_disk(write());
        // What people are told opens nothing.
        ports.notice(Notice::WentSolo(Generation(1)));
        ports.wait(HostTime(clock::now().0 + 20_000_000));
        while let Some(event) = ports.poll_event() {
            assert!(!matches!(event, Event::DiskDone(_)), "it has not won yet");
        }
        ports.open_fences(Generation(1));
        while !matches!(ports.poll_event(), Some(Event::DiskDone(_))) {
            ports.wait(HostTime(clock::now().0 + 1_000_000_000));
        }
        assert_eq!(std::fs::read(file.path()).expect("there")[..512], [9; 512], "it has won");
    }
}
