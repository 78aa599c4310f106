//! Hosts, and the processes that are started on them: what a pair is made of, and what a new process finds.
//!
//! A pair starts with both sides as `pollux-host` leaves them when they have greeted each other: on one connection, with
//! equal machines and images. Not here: that greeting, and the transport of the machine.
//!
//! A VM that has ended may be started on other hosts: with what is on the disk, and nothing of what was in RAM.

use crate::check::Broken;
use crate::check::asks::Asks;
use crate::check::endings::{End, is_end_of_vm};
use crate::clock::HostClock;
use crate::fault::{HostId, NAMES, Way, peer_of};
use crate::machines::guest::Prepared;
use crate::machines::model::{Model, pattern};
use crate::machines::{BLOCK, DISK, MachineKind, Observed, Tally};
use crate::plan::{HEALED_NS, MS, Pair, Plan};
use crate::random::Random;
use crate::world::{Happening, Host, World};
use pollux_node::{DiskMode, Event, HostTime, Live, Node, Pacing, Settings, Standby};
use pollux_protocol::{Backup, Primary};
use pollux_riscv::Machine;
use pollux_vocab::Generation;
use std::cell::RefCell;
use std::rc::Rc;

/// How often an operator looks whether the VM has ended.
const END_LOOK_NS: u64 = 20 * MS;

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
        peer: HostId,
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
                let primary = Primary::new_protected(protocol, generation, now, peer_of(peer));
                Node::Live(Box::new(Live::new(machine, primary, settings, now, Vec::new())))
            }
            Part::Backup => {
                let backup = Backup::new(protocol, generation, now, peer_of(peer));
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
        self.pairs += 1;
        self.checks.outputs.handle_run();
        self.links.connect(Way { from: pair.primary, to: pair.backup });
        self.start(pair.primary, Part::Primary, pair.backup, generation);
        self.start(pair.backup, Part::Backup, pair.primary, generation);
    }

    /// A process starts on a host, and takes its first turn at once.
    fn start(&mut self, host: HostId, part: Part, peer: HostId, generation: Generation) {
        self.unschedule_for(host);
        let now = self.hosts[host].clock.show(self.now);
        let (node, tally) = self.recipe.node(part, generation, now, peer);
        self.checks.outputs.handle_start(host, tally.clone());
        self.checks.digests.forget(host);
        let state = &mut self.hosts[host];
        state.start(node, tally, Asks::new(self.plan.failure_ns, now));
        state.peer = Some(peer);
        state.backs = (part == Part::Backup).then_some(peer);
        if self.net.cut_until_ns[host] > self.now {
            self.schedule(self.now, Happening::Tell(host, Event::Network { reached: false }));
        }
        self.wake(host, self.now);
    }

    /// An operator starts the VM on these hosts if it has ended and no process of it is left. Until then he looks again.
    pub(crate) fn start_elsewhere(&mut self, pair: Pair) -> Result<(), Broken> {
        let is_over = self.hosts.iter().all(|host| host.node.is_none()) && self.has_ended();
        if is_over && self.storage.may_start() {
            return self.start_anew(pair);
        }
        if self.now < HEALED_NS {
            self.schedule(self.now + END_LOOK_NS, Happening::StartPair(pair));
        }
        Ok(())
    }

    /// The VM starts from its reset, on the disk that it has left behind.
    fn start_anew(&mut self, pair: Pair) -> Result<(), Broken> {
        self.judge_endings()?;
        let ended_on = self.hosts.iter().position(|host| is_end_of_vm(&host.end));
        if let Some(image) = ended_on.filter(|_| !self.plan.shared_disk).map(|host| self.images[host].clone())
        {
            self.images[pair.primary].clone_from(&image);
            self.images[pair.backup] = image;
        }
        for host in &mut self.hosts {
            host.end = End::Idle;
            host.disk.restart();
        }
        let history = &mut self.checks.history;
        self.clients.iter_mut().for_each(|client| client.give_up(history));
        history.vm_run += 1;
        let Some(generation) = self.storage.begin(pair.primary) else { return Ok(()) };
        let (name, backup) = (NAMES[pair.primary], NAMES[pair.backup]);
        let line = format_args!("starts the VM in generation {generation}, with a backup on {backup}");
        self.timeline.say(self.now, name, line);
        self.start_pair(pair, generation);
        Ok(())
    }
}
