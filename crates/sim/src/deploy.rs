//! Hosts, and the processes that are started on them: what a pair is made of, and what a new process finds.
//!
//! A pair starts with both sides as `pollux-host` leaves them when they have greeted each other: on one connection, with
//! equal machines and images. Not here: that greeting, and the transport of the machine.

use crate::check::asks::Asks;
use crate::clock::HostClock;
use crate::fault::{HostId, Way};
use crate::machines::guest::Prepared;
use crate::machines::model::{Model, pattern};
use crate::machines::{BLOCK, DISK, MachineKind, Observed, Tally};
use crate::plan::{Pair, Plan};
use crate::random::Random;
use crate::world::{Host, World};
use pollux_machine::Machine;
use pollux_node::{DiskMode, HostTime, Live, Node, Pacing, Settings, Standby};
use pollux_protocol::{Backup, Primary};
use pollux_vocab::Generation;
use std::cell::RefCell;
use std::rc::Rc;

/// What processes are made of: the same on every host.
#[derive(Debug)]
pub(crate) struct Recipe {
    machine: MachineKind,
    prepared: Prepared,
    settings: Settings,
    /// What is on the disk before the VM starts for the first time.
    pub(crate) image: Vec<u8>,
}

/// What a host's process is to be for the VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Primary,
    Backup,
}

impl Recipe {
    pub(crate) fn new(plan: &Plan, prepared: &Prepared) -> Self {
        let protocol = pollux_protocol::Settings {
            heartbeat_every_ns: plan.heartbeat_ns,
            failure_after_ns: plan.failure_ns,
            send_window_bytes: plan.window_bytes,
            claim_retry_ns: plan.retry_max_ns / 4,
            claim_retry_max_ns: plan.retry_max_ns,
            handover_after_ns: 2 * plan.failure_ns,
            stall_after_ns: 4 * plan.failure_ns,
            net_wait_ns: 3 * plan.failure_ns,
            net_loss_ns: Some(2 * plan.failure_ns),
            ..pollux_protocol::Settings::default()
        };
        let mode = if plan.shared_disk { DiskMode::Shared } else { DiskMode::Replicated };
        let settings = Settings {
            protocol,
            pacing: Pacing::RealTime,
            disk_modes: vec![(DISK, mode)],
            digest_every_ns: plan.digest_every_ns,
        };
        let image = match plan.machine {
            MachineKind::Model => (0..plan.keys).flat_map(|_| pattern(0)).collect(),
            MachineKind::Guest => prepared.disk.to_vec(),
        };
        debug_assert!(image.len().is_multiple_of(BLOCK));
        Self { machine: plan.machine, prepared: prepared.clone(), settings, image }
    }

    /// A node with a machine that has just been reset, and the machine's account.
    fn node(
        &self,
        part: Part,
        generation: Generation,
        now: HostTime,
    ) -> (Node<Observed>, Rc<RefCell<Tally>>) {
        let machine: Box<dyn Machine> = match self.machine {
            MachineKind::Model => Box::new(Model::new()),
            MachineKind::Guest => Box::new(self.prepared.machine()),
        };
        let tally = Rc::<RefCell<Tally>>::default();
        let machine = Observed::new(machine, tally.clone());
        let (protocol, settings) = (self.settings.protocol.clone(), self.settings.clone());
        let node = match part {
            Part::Primary => {
                let primary = Primary::new_protected(protocol, generation, now);
                Node::Live(Box::new(Live::new(machine, primary, settings, now, Vec::new())))
            }
            Part::Backup => {
                let backup = Backup::new(protocol, generation, now);
                Node::Standby(Box::new(Standby::new(machine, backup, settings)))
            }
        };
        (node, tally)
    }
}

/// A host with power on which nothing runs.
pub(crate) fn idle_host(plan: &Plan, host: HostId) -> Host {
    let mut random = Random::new(plan.seed, &format!("host {host}"));
    let clock = HostClock::new(random.between(1, 1 << 40), plan.drift_ppm[host]);
    Host::new(clock, random, Asks::new(plan.failure_ns, clock.show(0)))
}

impl World {
    /// Two processes start the VM from its reset, in a generation that the first of them holds.
    pub(crate) fn start_pair(&mut self, pair: Pair, generation: Generation) {
        self.checks.outputs.handle_run();
        self.links.connect(Way { from: pair.primary, to: pair.backup });
        self.start(pair.primary, Part::Primary, pair.backup, generation);
        self.start(pair.backup, Part::Backup, pair.primary, generation);
    }

    /// A process starts on a host, and takes its first turn at once.
    fn start(&mut self, host: HostId, part: Part, peer: HostId, generation: Generation) {
        let now = self.hosts[host].clock.show(self.now);
        let (node, tally) = self.recipe.node(part, generation, now);
        self.checks.outputs.handle_start(host, tally.clone());
        self.checks.digests.forget(host);
        let state = &mut self.hosts[host];
        state.start(node, tally, Asks::new(self.plan.failure_ns, now));
        state.peer = Some(peer);
        state.backs = (part == Part::Backup).then_some(peer);
        self.wake(host, self.now);
    }
}
