//! What the replaying side must do, one sentence a test.

mod common;

use common::*;
use pollux_node::{Event, Next, Outcome};
use pollux_protocol::Message;
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
