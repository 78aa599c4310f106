//! What each fault does to the world at its instant.

use crate::fault::{Fault, FaultKind, HostId, NAMES, Order, Way};
use crate::plan::Pair;
use crate::world::{Happening, World};
use pollux_node::{Event, HandoverCause};

/// A process that does nothing dies all the same, so long after it was to die in the middle of its work.
const DEATH_NS_MAX: u64 = 30_000_000;

/// How long it takes a host to notice that it has lost, or has again, the clients' network.
const NET_NOTICED_NS: u64 = 5_000_000;

impl World {
    /// A fault begins.
    pub(crate) fn inject(&mut self, fault: &Fault) {
        use FaultKind as K;
        let now = self.now;
        self.timeline.say(now, "fault", format_args!("{}", fault.kind));
        match fault.kind {
            K::Crash { host, effects, power, restart_ns } => {
                self.hosts[host].effects_left = Some(effects);
                self.hosts[host].power = power;
                self.schedule(now + DEATH_NS_MAX, Happening::Death(host));
                if let Some(ns) = restart_ns {
                    self.schedule(now + DEATH_NS_MAX + ns, Happening::Restart(host));
                }
            }
            K::Pause { host, for_ns } => {
                let host = &mut self.hosts[host];
                host.paused_until_ns = host.paused_until_ns.max(now + for_ns);
            }
            K::Stumble { host, looks, for_ns } => self.hosts[host].stumble = Some((looks, for_ns)),
            K::SlowHost { host, for_ns, factor } => {
                self.hosts[host].slow_until_ns = now + for_ns;
                self.hosts[host].slow_factor = factor;
            }
            K::Cut { way, for_ns } => self.cut(way, for_ns),
            K::Partition { for_ns } => self.links.ways().into_iter().for_each(|way| self.cut(way, for_ns)),
            K::SlowLink { way, for_ns, extra_ns } => {
                self.links[way].slow_until_ns = now + for_ns;
                self.links[way].extra_ns = extra_ns;
            }
            K::ThinLink { way, for_ns, bytes_per_s } => {
                self.links[way].thin_until_ns = now + for_ns;
                self.links[way].bytes_per_s = bytes_per_s;
            }
            K::LongFrame { bytes } => self.send_long_frame(bytes),
            K::Corrupt { way } => self.links[way].corrupt_next = true,
            K::Reset { host, other_after_ns } => self.reset(host, other_after_ns),
            K::LoseHeartbeats { way, for_ns } => self.links[way].lose_until_ns = now + for_ns,
            K::LoseRecords { way } => self.links[way].lose_records = true,
            K::Doubled { way, for_ns } => self.links[way].double_until_ns = now + for_ns,
            K::NetCut { host, for_ns } => {
                self.net.cut_until_ns[host] = now + for_ns;
                // A host finds that out a little later.
                let lost = Happening::Tell(host, Event::Network { reached: false });
                self.schedule(now + NET_NOTICED_NS, lost);
                let back = Happening::Tell(host, Event::Network { reached: true });
                self.schedule(now + for_ns + NET_NOTICED_NS, back);
            }
            K::NetChaos { for_ns, permille } => {
                self.net.chaos_until_ns = now + for_ns;
                self.net.chaos_permille = permille;
            }
            K::ArbiterCut { host, for_ns, silent } => {
                self.storage.cut_until_ns[host] = (now + for_ns, silent);
            }
            K::ArbiterDown { for_ns } => self.storage.down_until_ns = now + for_ns,
            K::Disk { host, for_ns, fault } => self.hosts[host].disk.fault = Some((now + for_ns, fault)),
            K::Clock { host, jump_ns } => {
                self.hosts[host].clock.jump(now, jump_ns);
                self.wake(host, now);
            }
            K::Operator { host, order } => self.give_order(host, order),
            K::StartElsewhere { host, backup } => {
                self.schedule(now, Happening::StartPair(Pair { primary: host, backup }));
            }
            K::StopWinner { host, after_ns } => self.hosts[host].stop_after_win_ns = Some(after_ns),
        }
    }

    /// To all hosts, as a switch that has not learned: only the live one listens.
    fn send_long_frame(&mut self, bytes: u64) {
        for host in 0..self.hosts.len() {
            let random = &mut self.hosts[host].random;
            let frame = (0..bytes).map(|_| random.next() as u8).collect();
            self.schedule(self.now, Happening::ToGuest(host, frame));
        }
    }

    fn reset(&mut self, host: HostId, other_after_ns: u64) {
        let Some(peer) = self.hosts[host].peer else { return };
        let out = Way { from: host, to: peer };
        self.link_ends(out.back());
        let connection = self.links.connection(out);
        self.schedule(self.now + other_after_ns, Happening::LinkEnd(connection));
    }

    fn cut(&mut self, way: Way, for_ns: u64) {
        let until = self.now + for_ns;
        self.links[way].cut_until_ns = self.links[way].cut_until_ns.max(until);
    }

    fn give_order(&mut self, host: HostId, order: Order) {
        let event = match order {
            Order::Stop => Event::Stop,
            Order::PowerButton => Event::PowerButton,
            Order::HandOver => Event::HandOver(HandoverCause::Network),
        };
        self.tell(host, event);
    }

    /// The host's process is gone.
    pub(crate) fn die(&mut self, host: HostId) {
        if self.hosts[host].node.is_none() {
            return;
        }
        let (now, power) = (self.now, self.hosts[host].power);
        self.timeline.say(now, NAMES[host], format_args!("is dead"));
        self.bury(host, crate::check::endings::End::Crashed, power);
        self.links_close(host, power);
    }

    /// Somebody starts the VM again on a host where it died.
    pub(crate) fn restart(&mut self, host: HostId) -> Result<(), crate::check::Broken> {
        let ended = self.has_ended();
        let may = self.storage.may_start();
        self.timeline.say(self.now, NAMES[host], format_args!("is asked to start the VM; it may: {may}"));
        if may && !ended {
            let what = format!("{} may start a VM that has not ended", NAMES[host]);
            return Err(crate::check::Broken("a returning primary never runs", what));
        }
        Ok(())
    }
}
