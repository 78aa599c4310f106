//! Drives a node with the real ports until it has finished.

use crate::clock;
use crate::ports::HostPorts;
use crate::rate::Rate;
use crate::status::Times;
use pollux_machine::Machine;
use pollux_node::{Next, Node, Outcome};
use std::sync::PoisonError;

/// A step takes well below a millisecond; one that takes this long is worth a word.
const STALL_NS: u64 = 100_000_000;

/// How often the status is brought up to date.
const STATUS_EVERY_NS: u64 = 100_000_000;

/// Runs `node` to its end.
pub fn drive<M: Machine>(node: &mut Node<M>, ports: &mut HostPorts) -> Outcome {
    let (mut status_at, mut stalls) = (0, Rate::default());
    loop {
        let before = clock::now().0;
        ports.begin_turn(matches!(node, Node::Live(_)));
        let next = node.step(ports);
        let now = clock::now().0;
        if now - before > STALL_NS
            && let Some(left_out) = stalls.take()
        {
            tracing::warn!(
                ms = (now - before) / 1_000_000,
                left_out,
                "this host held the VM up; the other side may think that it has died"
            );
        }
        if now >= status_at {
            status_at = now + STATUS_EVERY_NS;
            update_status(node, ports);
        }
        match next {
            Next::Again => {}
            Next::WaitUntil(at) => ports.wait(at.min(pollux_node::HostTime(status_at))),
            Next::Finished(outcome) => {
                update_status(node, ports);
                ports.close(!matches!(outcome, Outcome::Halted(_)));
                return outcome;
            }
        }
    }
}

fn update_status<M: Machine>(node: &mut Node<M>, ports: &mut HostPorts) {
    let report = node.report();
    let speed = node.steps_per_s() as f64 / 1e6;
    let (icount, time) = (node.machine().icount(), node.machine().time());
    let sent = ports.sent_bytes();
    let dropped = ports.packets_dropped();
    let nets_down = ports.nets_down();
    let disks_hung = ports.disks_hung();
    let mut status = ports.status.lock().unwrap_or_else(PoisonError::into_inner);
    status.pid = std::process::id();
    status.role = report.state.to_string();
    status.protected = matches!(status.role.as_str(), "primary" | "backup");
    if status.protected {
        status.protection = "protected".into();
    } else if status.protection.is_empty() {
        status.protection = "unprotected".into();
    }
    // Once each, or a wall clock that is set would move what is past.
    if status.times.started_ms == 0 || status.timeline.live_ns != 0 && status.times.live_ms == 0 {
        status.times = Times::of(&status.timeline);
    }
    status.generation = report.generation.0;
    status.icount = icount.0;
    status.virtual_ns = time.0;
    status.speed_msteps_per_s = speed;
    status.lsn = report.lsn.0;
    status.acked = report.acked.0;
    status.log_bytes = sent;
    status.lag_ns = report.lag_ns;
    status.lag_max_ns = status.lag_max_ns.max(report.lag_ns);
    status.share_permille = report.share_permille;
    status.packets_dropped = dropped;
    status.nets_down = nets_down;
    status.disks_hung = disks_hung;
    status.held = report.held as u64;
    status.released = report.released;
    status.hold_ns = [report.hold.p50_ns, report.hold.p99_ns, report.hold.max_ns];
}
