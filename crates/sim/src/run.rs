//! One run: a plan, from the beginning to a verdict.

use crate::check::asks::Asks;
use crate::check::{Broken, Violation};
use crate::clock::HostClock;
use crate::fault::peer_of;
use crate::machines::guest::Prepared;
use crate::machines::model::{Model, pattern};
use crate::machines::{BLOCK, DISK, MachineKind, Observed, Tally};
use crate::plan::Plan;
use crate::random::Random;
use crate::storage::FIRST;
use crate::timeline::Timeline;
use crate::world::{Host, Stats, World};
use pollux_contract::Machine;
use pollux_node::{DiskMode, Live, Node, Pacing, Settings, Standby};
use pollux_protocol::{Backup, Primary};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Report {
    /// The property that does not hold, if one does not.
    pub violation: Option<Violation>,
    /// Numbers.
    pub stats: Stats,
    /// What happened, if that was wanted.
    pub timeline: String,
}

/// Runs a plan. `timeline`: whether to write down what happens.
///
/// A panic of the code under test is a violation like any other.
#[must_use]
pub fn run(plan: &Plan, prepared: &Prepared, timeline: bool) -> Report {
    let mut world = build(plan, prepared, Timeline::new(timeline));
    let judged = catch_unwind(AssertUnwindSafe(|| world.run())).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(Broken("nothing panics", text.unwrap_or_else(|| "a panic without words".into())))
    });
    let violation = judged.err().map(|Broken(property, what)| Violation { at_ns: world.now, property, what });
    if let Some(Violation { at_ns, property, what }) = &violation {
        world.timeline.say(*at_ns, "checker", format_args!("VIOLATION: {property}: {what}"));
    } else {
        let at = world.now;
        world.timeline.say(at, "checker", format_args!("no violation: {:?}", world.stats));
    }
    Report { violation, stats: world.stats, timeline: world.timeline.finish() }
}

fn build(plan: &Plan, prepared: &Prepared, timeline: Timeline) -> World {
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
        protocol: protocol.clone(),
        pacing: Pacing::RealTime,
        disk_modes: vec![(DISK, mode)],
        digest_every_ns: plan.digest_every_ns,
    };
    let image = match plan.machine {
        MachineKind::Model => (0..plan.keys).flat_map(|_| pattern(0)).collect(),
        MachineKind::Guest => prepared.disk.clone(),
    };
    debug_assert!(image.len().is_multiple_of(BLOCK));
    let hosts = [0, 1].map(|host| {
        let mut random = Random::new(plan.seed, &format!("host {host}"));
        let clock = HostClock::new(random.between(1, 1 << 40), plan.drift_ppm[host]);
        let now = clock.show(0);
        let asks = Asks::new(plan.failure_ns, now);
        let machine: Box<dyn Machine> = match plan.machine {
            MachineKind::Model => Box::new(Model::new()),
            MachineKind::Guest => Box::new(prepared.machine()),
        };
        let tally = Rc::<RefCell<Tally>>::default();
        let machine = Observed::new(machine, tally.clone());
        let node = if host == 0 {
            let primary = Primary::new_protected(protocol.clone(), FIRST, now, peer_of(1));
            Node::Live(Box::new(Live::new(machine, primary, settings.clone(), now, Vec::new())))
        } else {
            let backup = Backup::new(protocol.clone(), FIRST, now, peer_of(0));
            Node::Standby(Box::new(Standby::new(machine, backup, settings.clone())))
        };
        Host::new(node, tally, clock, random, asks)
    });
    World::new(plan.clone(), hosts, image, timeline)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::FaultKind;

    #[test]
    fn a_link_that_takes_longer_than_the_failure_timeout_over_a_large_record_is_no_dead_one() {
        let prepared = Prepared::boot();
        for seed in 1..=40 {
            let mut plan = Plan::draw(seed, Some(MachineKind::Model)).only(&[]);
            plan.draw_thin(&mut Random::new(seed, "thin links"));
            let mut until_ns = 0;
            // One after the other: together they would take longer than a standstill may.
            for fault in
                plan.faults.iter_mut().filter(|fault| matches!(fault.kind, FaultKind::LongFrame { .. }))
            {
                fault.at_ns = until_ns;
                until_ns += 3 * plan.failure_ns;
            }
            plan.faults.retain(|fault| fault.at_ns < crate::plan::HEALED_NS);
            plan.faults.sort_by_key(|fault| fault.at_ns);
            let report = run(&plan, &prepared, false);
            assert_eq!((report.violation, report.stats.takeovers), (None, [0, 0]), "seed {seed}: {plan}");
        }
    }
}
