//! What stands between this side and one that may have taken its place: fences and the lease. One sentence a test.

mod common;

use common::*;
use pollux_node::{Event, HandoverCause, HostTime, Node};
use pollux_protocol::Verdict;

/// What was done about fences and the arbiter, leases left out.
fn acts(world: &World) -> Vec<Act> {
    world.acts.iter().copied().filter(|act| !matches!(act, Act::Lease(_))).collect()
}

/// A live machine has always something to do: so a few turns.
fn turns(node: &mut Node<Toy>, world: &mut World) {
    for _ in 0..5 {
        node.step(world);
    }
}

#[test]
fn a_primary_whose_backup_is_gone_holds_its_fences_before_it_asks_and_opens_them_only_when_it_has_won() {
    let (mut node, mut world) = (primary(Toy::default(), settings()), World::default());
    node.step(&mut world);
    world.acts.clear();
    world.events.push_back(Event::LinkLost(PEER));
    turns(&mut node, &mut world);
    assert_eq!(acts(&world), [Act::Hold, Act::Hold, Act::Claim(G2)]);
    world.events.push_back(Event::Verdict(G2, Verdict::Unreachable));
    turns(&mut node, &mut world);
    assert!(!world.acts.contains(&Act::Open(G2)), "nobody knows who may run");
    world.events.push_back(Event::Verdict(G2, Verdict::Won));
    turns(&mut node, &mut world);
    assert_eq!(acts(&world).iter().filter(|act| **act == Act::Open(G2)).count(), 1);
}

#[test]
fn a_primary_that_does_not_reach_the_service_network_holds_its_fences_although_it_does_not_ask_yet() {
    let (mut node, mut world) = (primary(Toy::default(), settings()), World::default());
    world.events.push_back(Event::Network { reached: false });
    node.step(&mut world);
    world.acts.clear();
    world.events.push_back(Event::LinkLost(PEER));
    turns(&mut node, &mut world);
    assert_eq!(acts(&world), [Act::Hold]);
}

#[test]
fn a_primary_that_hands_over_holds_its_fences_before_its_backup_hears_of_it() {
    let (mut node, mut world) = (primary(Toy::default(), settings()), World::default());
    node.step(&mut world);
    world.acts.clear();
    world.events.push_back(Event::HandOver(HandoverCause::Terminate));
    node.step(&mut world);
    let place = |wanted: Act| world.acts.iter().position(|act| *act == wanted).expect("done");
    assert!(place(Act::Hold) < place(Act::Say), "{:?}", world.acts);
}

#[test]
fn a_backup_that_takes_over_holds_its_fences_until_it_is_live() {
    let (mut node, mut world) = (standby(Toy::default()), World::default());
    world.events.push_back(records(1, 0, &[]));
    turns(&mut node, &mut world);
    world.acts.clear();
    take_over(&mut world);
    turns(&mut node, &mut world);
    let done = acts(&world);
    assert_eq!(done[..2], [Act::Hold, Act::Claim(G2)]);
    let open = done.iter().position(|act| *act == Act::Open(G2)).expect("it is live");
    assert!(open > 1 && !done[..open].contains(&Act::Release), "{done:?}");
}

#[test]
fn every_turn_ends_with_a_lease_that_is_no_longer_than_its_side_may_run() {
    let (mut node, mut world) = (primary(Toy::default(), settings()), World::default());
    let step = |node: &mut Node<Toy>, world: &mut World| {
        world.acts.clear();
        node.step(world);
        let leases = world.acts.iter().filter(|act| matches!(act, Act::Lease(_))).count();
        assert_eq!(leases, 1, "one a turn");
        world.acts.last().copied()
    };
    let failure_ns = settings().protocol.failure_after_ns;
    assert_eq!(step(&mut node, &mut world), Some(Act::Lease(HostTime(failure_ns))), "while it is believed");
    world.events.push_back(Event::LinkLost(PEER));
    assert_eq!(step(&mut node, &mut world), Some(Act::Lease(HostTime(0))), "it asks");
    world.events.push_back(Event::Verdict(G2, Verdict::Won));
    assert_eq!(step(&mut node, &mut world), Some(Act::Lease(HostTime(u64::MAX))), "there is nobody else");
    let mut backup = standby(Toy::default());
    assert_eq!(step(&mut backup, &mut world), Some(Act::Lease(HostTime(u64::MAX))), "it releases nothing");
}
