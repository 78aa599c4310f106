//! What the replaying side must do, one sentence a test.

mod common;

use common::*;
use pollux_node::{DiskFault, Event, HaltCause, Next, Node, Outcome};
use pollux_protocol::{GoodbyeReason, HaltReason, Message};
use pollux_vocab::{Control, Digest, Input, Lsn, Output, Record, RecordBody};
use std::collections::BTreeMap;

#[test]
fn a_request_that_a_completion_sets_free_may_complete_at_the_same_instant() {
    let machine = Toy {
        says: BTreeMap::from([(50, vec![flush(1)])]),
        answers: BTreeMap::from([(1, vec![flush(2)])]),
        ..Toy::default()
    };
    let (mut node, mut world) = (standby(machine), World::default());
    world.events.push_back(records(1, 0, &[(100, done_record(1)), (100, done_record(2))]));
    settle(&mut node, &mut world);
    world.events.push_back(Event::DiskDone(done(1)));
    let next = settle(&mut node, &mut world);
    assert!(matches!(next, Next::WaitUntil(_)), "{next:?}");
    assert_eq!(world.submitted, [1, 2]);
    world.events.push_back(Event::DiskDone(done(2)));
    let next = settle(&mut node, &mut world);
    assert!(matches!(next, Next::WaitUntil(_)), "{next:?}");
    assert_eq!(node.machine().applied.len(), 2);
}

#[test]
fn a_request_set_free_by_the_last_record_is_made_once_at_a_takeover() {
    let machine = Toy {
        says: BTreeMap::from([(50, vec![flush(1)])]),
        answers: BTreeMap::from([(1, vec![flush(2)])]),
        ..Toy::default()
    };
    let (mut node, mut world) = (standby(machine), World::default());
    world.events.push_back(records(1, 0, &[(100, done_record(1))]));
    settle(&mut node, &mut world);
    world.events.push_back(Event::DiskDone(done(1)));
    settle(&mut node, &mut world);
    take_over(&mut world);
    for _ in 0..5 {
        node.step(&mut world);
    }
    assert_eq!(world.submitted, [1, 2]);
}

#[test]
fn an_output_that_a_later_mark_of_the_same_instant_covers_is_not_forgotten() {
    let machine = Toy {
        says: BTreeMap::from([(50, vec![flush(1)]), (100, vec![said(b'a')])]),
        answers: BTreeMap::from([(1, vec![said(b'b')])]),
        ..Toy::default()
    };
    let (mut node, mut world) = (standby(machine), World::default());
    let log = [(100, RecordBody::Mark), (100, done_record(1)), (100, RecordBody::Mark)];
    world.events.push_back(records(1, 0, &log));
    settle(&mut node, &mut world);
    world.events.push_back(Event::DiskDone(done(1)));
    world.events.push_back(records(4, 1, &[]));
    settle(&mut node, &mut world);
    take_over(&mut world);
    for _ in 0..5 {
        node.step(&mut world);
    }
    assert_eq!(world.released, [said(b'b')]);
}

#[test]
fn a_power_off_is_carried_out_at_a_takeover_even_if_it_was_released() {
    let (mut node, mut world) = (standby(Toy::default()), World::default());
    let log = [(100, RecordBody::Input(Input::PowerButton)), (100, RecordBody::Mark)];
    world.events.push_back(records(1, 0, &log));
    world.events.push_back(records(3, 2, &[]));
    settle(&mut node, &mut world);
    take_over(&mut world);
    let next = settle(&mut node, &mut world);
    assert_eq!(next, Next::Finished(Outcome::PoweredOff { status: 0 }));
    assert_eq!(world.released, Vec::<Output>::new());
}

#[test]
fn a_vm_that_an_operator_stopped_stays_stopped_at_a_takeover() {
    let machine = Toy { says: BTreeMap::from([(150, vec![said(b'x')])]), ..Toy::default() };
    let (mut node, mut world) = (standby(machine), World::default());
    let log = [(100, RecordBody::Control(Control::Stop)), (100, RecordBody::Mark)];
    world.events.push_back(records(1, 0, &log));
    settle(&mut node, &mut world);
    take_over(&mut world);
    let next = settle(&mut node, &mut world);
    assert_eq!(next, Next::Finished(Outcome::PoweredOff { status: 0 }));
    assert_eq!((node.machine().icount, &world.released), (100, &Vec::new()), "it executes nothing more");
}

#[test]
fn a_stop_that_comes_while_the_log_is_drained_ends_the_vm_once_it_is_live() {
    let machine = Toy { says: BTreeMap::from([(90, vec![flush(1)])]), ..Toy::default() };
    let (mut node, mut world) = (standby(machine), World::default());
    world.events.push_back(records(1, 0, &[(100, done_record(1)), (100, RecordBody::Mark)]));
    take_over(&mut world);
    let next = settle(&mut node, &mut world);
    assert!(matches!(next, Next::WaitUntil(_)), "its own copy of the request is not done: {next:?}");
    world.events.push_back(Event::Stop);
    let next = settle(&mut node, &mut world);
    assert!(matches!(next, Next::WaitUntil(_)), "{next:?}");
    world.events.push_back(Event::DiskDone(done(1)));
    let next = settle(&mut node, &mut world);
    assert_eq!(next, Next::Finished(Outcome::PoweredOff { status: 0 }));
    let stops = |record: &Record| record.body == RecordBody::Control(Control::Stop);
    assert_eq!((node.machine().icount, world.recorded.iter().filter(|r| stops(r)).count()), (100, 1));
}

#[test]
fn a_standby_hashes_in_portions_and_acknowledges_in_between() {
    let (mut node, mut world) = (standby(Toy { dirty: 10_000, ..Toy::default() }), World::default());
    let digest = Digest { harts: vec![100], ..Digest::default() };
    world.events.push_back(records(1, 0, &[(100, RecordBody::Digest(digest))]));
    node.step(&mut world);
    world.events.push_back(records(2, 0, &[(101, RecordBody::Mark)]));
    assert_eq!(node.step(&mut world), Next::Again);
    let acked =
        |message: &Message| matches!(message, Message::Ack { received: Lsn(2), executed: Lsn(0), .. });
    assert!(world.sent.iter().any(acked), "{:?}", world.sent);
    settle(&mut node, &mut world);
    assert_eq!(node.machine().icount, 101);
    assert!(hashed_at_once_max(&mut node) < 1000);
    assert_eq!(node.machine().hashed.iter().sum::<usize>(), 10_000);
}

fn goodbye() -> Event {
    Event::Message(PEER, Message::Goodbye { generation: G1, reason: GoodbyeReason::Ended })
}

/// A backup that has heard of everything up to the stop, and executed none of it.
fn told_of_the_end() -> (Node<Toy>, World) {
    let machine =
        Toy { says: BTreeMap::from([(50, vec![flush(1)]), (900_000, vec![flush(2)])]), ..Toy::default() };
    let mut world = World::default();
    let stop = RecordBody::Control(Control::Stop);
    world.events.push_back(records(1, 0, &[(100, done_record(1)), (1_000_000, stop)]));
    world.events.push_back(goodbye());
    world.events.push_back(Event::LinkLost(PEER));
    (standby(machine), world)
}

#[test]
fn a_backup_does_all_that_the_vm_did_before_its_end_and_then_leaves() {
    let (mut node, mut world) = told_of_the_end();
    let next = settle(&mut node, &mut world);
    assert!(matches!(next, Next::WaitUntil(_)), "its own disk has not got that far: {next:?}");
    assert_eq!(world.submitted, [1]);
    world.events.push_back(Event::DiskDone(done(1)));
    let ended = Outcome::Halted(HaltCause::Protocol(HaltReason::PeerEnded));
    assert_eq!(settle(&mut node, &mut world), Next::Finished(ended));
    assert_eq!(world.submitted, [1, 2], "what the primary asked of its disk, this side asks of its own");
    assert_eq!(world.claims, []);
}

#[test]
fn a_backup_whose_disk_hangs_leaves_the_pair_and_says_so() {
    let (mut node, mut world) = (standby(Toy::default()), World::default());
    world.events.push_back(records(1, 0, &[(100, RecordBody::Progress)]));
    settle(&mut node, &mut world);
    world.events.push_back(Event::DiskFault { slot: 1, fault: DiskFault::Hangs });
    let cause = HaltCause::DiskFault { slot: 1, fault: DiskFault::Hangs };
    assert_eq!(settle(&mut node, &mut world), Next::Finished(Outcome::Halted(cause)));
    assert!(matches!(world.sent.last(), Some(Message::Goodbye { reason: GoodbyeReason::Leaving, .. })));
}

#[test]
fn a_backup_that_replays_a_vm_to_its_end_waits_for_no_disk_that_hangs() {
    let (mut node, mut world) = told_of_the_end();
    settle(&mut node, &mut world);
    world.events.push_back(Event::DiskFault { slot: 1, fault: DiskFault::Hangs });
    assert!(matches!(settle(&mut node, &mut world), Next::Finished(Outcome::Halted(_))));
}
