//! What has come for the guest and waits for its turn: packets, typed bytes, completions, random bytes, the power button.
//!
//! Invariant guarded here: what waits is bounded, and is admitted only while the guest and the log have room for it, where
//! the strategy delivers events; what is admitted is applied to the machine at the same icount.
//!
//! Not here: the order in which the world is heard (`live`), how many events a host keeps (`pollux-host`).

use crate::disks::DiskMode;
use crate::live::Live;
use crate::ports::{DiskCompletion, Ports};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use pollux_machine::Machine;
use pollux_protocol::{HostTime, Pace};
use pollux_vocab::{ConsoleId, Input, RecordBody, RequestId, SlotId};

/// Packets that wait for the guest to offer receive buffers; beyond that the newest is dropped, as a NIC does.
const PACKETS_WAITING_MAX: usize = 1024;
/// Typed bytes that wait for the guest to read; beyond that the newest are dropped.
const CONSOLE_WAITING_MAX: usize = 64 * 1024;

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    packets: VecDeque<(SlotId, Vec<u8>)>,
    typed: Vec<(ConsoleId, VecDeque<u8>)>,
    completions: VecDeque<DiskCompletion>,
    entropy: VecDeque<(SlotId, RequestId, Vec<u8>)>,
    power_button: bool,
}

impl Inbox {
    /// `adopted` are disk requests that were finished on this host but whose completion no record tells of.
    pub(crate) fn new(adopted: Vec<DiskCompletion>) -> Self {
        Self { completions: adopted.into(), ..Self::default() }
    }

    pub(crate) fn push_packet(&mut self, slot: SlotId, frame: Vec<u8>) {
        if self.packets.len() < PACKETS_WAITING_MAX {
            self.packets.push_back((slot, frame));
        }
    }

    pub(crate) fn push_typed(&mut self, console: ConsoleId, bytes: Vec<u8>) {
        let index = self.typed.iter().position(|(id, _)| *id == console).unwrap_or_else(|| {
            self.typed.push((console, VecDeque::new()));
            self.typed.len() - 1
        });
        let waiting = &mut self.typed[index].1;
        let room = CONSOLE_WAITING_MAX.saturating_sub(waiting.len());
        waiting.extend(bytes.into_iter().take(room));
    }

    pub(crate) fn push_completion(&mut self, done: DiskCompletion) {
        self.completions.push_back(done);
    }

    pub(crate) fn push_entropy(&mut self, slot: SlotId, request: RequestId, bytes: Vec<u8>) {
        self.entropy.push_back((slot, request, bytes));
    }

    pub(crate) fn press_power_button(&mut self) {
        self.power_button = true;
    }

    /// Whether something waits that the machine can take.
    fn has_something_for(&self, machine: &impl Machine) -> bool {
        !self.completions.is_empty()
            || !self.entropy.is_empty()
            || self.power_button
            || self.packets.iter().any(|(slot, _)| machine.packet_room(*slot))
            || self.typed.iter().any(|(id, bytes)| !bytes.is_empty() && machine.console_room(*id) > 0)
    }
}

impl<M: Machine> Live<M> {
    pub(crate) fn something_waits(&self) -> bool {
        self.ending.is_asked() || self.inbox.has_something_for(&self.machine)
    }

    /// The next of `queue`, if more may be admitted: a full window, or a full gate, must not be overfilled by whatever
    /// has gathered meanwhile; it waits for its turn.
    fn next_of<T>(&mut self, queue: impl Fn(&mut Inbox) -> &mut VecDeque<T>, now: HostTime) -> Option<T> {
        if self.protocol.pace(now) == Pace::Wait {
            return None;
        }
        queue(&mut self.inbox).pop_front()
    }

    /// Admits everything that the guest, and the log, can take now.
    pub(crate) fn admit_waiting(&mut self, ports: &mut impl Ports) {
        if !self.may_deliver() || self.admit_stop(ports) {
            return;
        }
        if core::mem::take(&mut self.inbox.power_button) {
            self.admit(ports, RecordBody::Input(Input::PowerButton));
        }
        let now = ports.now();
        while let Some(done) = self.next_of(|inbox| &mut inbox.completions, now) {
            self.admit_completion(ports, done);
        }
        while let Some((slot, request, bytes)) = self.next_of(|inbox| &mut inbox.entropy, now) {
            self.admit(ports, RecordBody::Input(Input::Entropy { slot, request, bytes }));
        }
        self.admit_packets(ports, now);
        for index in 0..self.inbox.typed.len() {
            let (console, waiting) = &self.inbox.typed[index];
            let (console, room) = (*console, self.machine.console_room(*console).min(waiting.len()));
            if room > 0 && self.protocol.pace(now) != Pace::Wait {
                let bytes = self.inbox.typed[index].1.drain(..room).collect();
                self.admit(ports, RecordBody::Input(Input::Console { console, bytes }));
            }
        }
    }

    fn admit_packets(&mut self, ports: &mut impl Ports, now: HostTime) {
        let mut kept = VecDeque::new();
        while let Some((slot, frame)) = self.next_of(|inbox| &mut inbox.packets, now) {
            if self.machine.packet_room(slot) {
                self.admit(ports, RecordBody::Input(Input::Packet { slot, frame }));
            } else {
                kept.push_back((slot, frame));
            }
        }
        kept.append(&mut self.inbox.packets);
        self.inbox.packets = kept;
    }

    fn admit_completion(&mut self, ports: &mut impl Ports, done: DiskCompletion) {
        let DiskCompletion { slot, request, status, data } = done;
        match self.disks.mode(slot) {
            DiskMode::Replicated => {
                let body = RecordBody::DiskDoneLocal { slot, request, status };
                let record = self.protocol.admit(self.machine.icount(), body);
                ports.record(&record, Some(&data));
                self.machine.apply(&Input::DiskDone { slot, request, status, data });
            }
            DiskMode::Shared => {
                self.admit(ports, RecordBody::Input(Input::DiskDone { slot, request, status, data }));
            }
        }
    }
}
