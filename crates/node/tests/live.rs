//! What the side that talks to the world must do, one sentence a test.

mod common;

use common::*;
use pollux_node::replay::{Replay, Replayed};
use pollux_node::{DiskCompletion, DiskMode, Event, HostTime, Next, Outcome, Settings};
use pollux_protocol::Message;
use pollux_vocab::{ConsoleId, Icount, Input, Lsn, Output, Record, RecordBody, VirtTime};
use std::collections::BTreeMap;

const MS: u64 = 1_000_000;

#[test]
fn the_work_of_a_digest_holds_no_output_up() {
    let machine = Toy {
        dirty: 10_000,
        says: (1..10_000_u64).map(|n| (n * 10_000, vec![said(n as u8)])).collect(),
        ..Toy::default()
    };
    let settings = Settings { digest_every_ns: 1, ..settings() };
    let (mut node, mut world) = (solo(machine, settings), World::default());
    world.now = 100;
    let mut released_before = 0;
    while world.digests() == 0 {
        assert_eq!(world.released.len(), released_before, "outputs leave before a portion is hashed");
        node.step(&mut world);
        released_before = (node.machine().icount / 10_000) as usize;
    }
    assert!(released_before >= 10, "the guest goes on between portions");
    assert!(hashed_at_once_max(&mut node) < 1000);
}

#[test]
fn an_idle_guest_is_digested_in_portions_too() {
    let machine = Toy { dirty: 10_000, idle: Some((5, None)), ..Toy::default() };
    let settings = Settings { digest_every_ns: MS, ..settings() };
    let (mut node, mut world) = (solo(machine, settings), World::default());
    settle(&mut node, &mut world);
    world.now = 2 * MS;
    settle(&mut node, &mut world);
    assert!(hashed_at_once_max(&mut node) < 1000);
    assert_eq!((world.digests(), node.machine().dirty), (1, 0));
}

#[test]
fn a_guest_that_writes_faster_than_pages_are_hashed_is_digested_all_the_same() {
    let settings = Settings { digest_every_ns: MS, ..settings() };
    let mut node = solo(Toy { dirties: 5_000, ..Toy::default() }, settings);
    let mut world = World { look_ns: MS / 20, ..World::default() };
    while world.now < 10 * MS {
        node.step(&mut world);
    }
    assert!(world.digests() >= 3);
}

#[test]
fn a_guest_that_says_much_within_one_slice_is_stopped_by_what_the_gate_may_hold() {
    let says = (1..=300).map(|n| (n, vec![said(b'x'); 1000])).collect();
    let (mut node, mut world) = (solo(Toy { says, ..Toy::default() }, settings()), World::default());
    node.step(&mut world);
    let held = world.released.len();
    assert!((60_000..70_000).contains(&held), "{held} outputs were held at once");
    (0..20).for_each(|_| _ = node.step(&mut world));
    assert_eq!(world.released.len(), 300_000, "none is lost");
}

/// Everything sent so far has arrived at the backup, which executes none of it.
fn acknowledge(world: &mut World) {
    let received = world.log().last().map_or(Lsn(0), |record| record.lsn);
    let (icount, time) = (Icount(0), VirtTime(0));
    let ack = Message::Ack { generation: G1, received, executed: Lsn(0), icount, time, buffered_bytes: 0 };
    world.events.push_back(Event::Message(PEER, ack));
}

#[test]
fn a_primary_that_is_slowed_stays_slowed_whatever_happens_meanwhile() {
    let mut settings = settings();
    settings.protocol.lag_target_ns = 1;
    let mut node = primary(Toy::default(), settings);
    let mut world = World { look_ns: 50_000, ..World::default() };
    let mut next = Next::Again;
    while node.report().share_permille > 100 || !matches!(next, Next::WaitUntil(_)) {
        acknowledge(&mut world);
        next = node.step(&mut world);
    }
    world.look_ns = 1;
    let stands = node.machine().icount;
    for _ in 0..10 {
        world.events.push_back(Event::Console { console: ConsoleId::Uart, bytes: vec![b'a'] });
        assert_eq!(node.step(&mut world), next, "it has run its share");
    }
    assert_eq!(node.machine().icount, stands);
    let Next::WaitUntil(at) = next else { unreachable!("the loop above says so") };
    world.now = at.0;
    node.step(&mut world);
    assert!(node.machine().icount > stands, "then it goes on");
}

#[test]
fn a_run_that_the_host_held_up_is_not_paid_for_with_a_long_rest() {
    let mut settings = settings();
    settings.protocol.lag_target_ns = 1;
    let mut node = primary(Toy::default(), settings);
    let mut world = World { look_ns: 50_000, ..World::default() };
    while node.report().share_permille > 100 {
        acknowledge(&mut world);
        node.step(&mut world);
    }
    world.now += 100 * MS;
    world.look_ns = 30 * MS;
    acknowledge(&mut world);
    node.step(&mut world);
    let (stands, rests_from) = (node.machine().icount, world.now);
    world.look_ns = 0;
    while node.machine().icount == stands {
        acknowledge(&mut world);
        let next = node.step(&mut world);
        if let Next::WaitUntil(at) = next {
            world.now = at.0;
        }
    }
    assert!(world.now - rests_from < 50 * MS);
}

#[test]
fn a_primary_that_must_wait_does_not_wake_for_a_digest() {
    let mut settings = Settings { digest_every_ns: MS, ..settings() };
    settings.protocol.send_window_bytes = 1;
    let (mut node, mut world) = (primary(Toy::default(), settings), World::default());
    world.events.push_back(Event::Console { console: ConsoleId::Uart, bytes: vec![b'a'] });
    let next = settle(&mut node, &mut world);
    let Next::WaitUntil(at) = next else { panic!("the window is full: {next:?}") };
    assert!(at.0 > 10 * MS);
    world.now = 5 * MS;
    assert_eq!(node.step(&mut world), next);
}

#[test]
fn a_guest_that_waits_for_the_end_of_time_waits() {
    let machine = Toy { idle: Some((5, Some(VirtTime(u64::MAX)))), ..Toy::default() };
    let mut world = World { now: MS, ..World::default() };
    let mut node = solo(machine, settings());
    let Next::WaitUntil(at) = settle(&mut node, &mut world) else { panic!("it is idle") };
    assert_eq!(at, HostTime(u64::MAX));
}

/// A guest that says its last words and powers off at icount 30000, long before a slice ends.
fn short_lived() -> Toy {
    let frame = Output::Packet { slot: 2, frame: vec![1] };
    let words = vec![frame, said(b'!'), Output::PowerOff { status: 3 }];
    Toy { says: BTreeMap::from([(30_000, words)]), dirty: 10_000, ..Toy::default() }
}

#[test]
fn a_recording_reaches_to_where_the_guest_powered_off() {
    for digest_every_ns in [0, MS] {
        let mut node = solo(short_lived(), Settings { digest_every_ns, ..settings() });
        let mut world = World { look_ns: 1000, ..World::default() };
        assert_eq!(settle(&mut node, &mut world), Next::Finished(Outcome::PoweredOff { status: 3 }));
        assert!(hashed_at_once_max(&mut node) < 1000);
        let (mut replay, mut outputs) = (Replay::new(short_lived()), Vec::new());
        for record in &world.recorded {
            while replay.step(record, &mut outputs).expect("the replay agrees") == Replayed::Running {}
        }
        assert_eq!(replay.icount(), Icount(30_000));
        assert_eq!(outputs.last(), Some(&Output::PowerOff { status: 3 }));
        assert_eq!(replay.counts().2, u64::from(digest_every_ns > 0), "its end is compared, if anything is");
    }
}

#[test]
fn a_replay_shows_what_the_last_record_made_the_guest_say() {
    let (mut replay, mut outputs) = (Replay::new(Toy::default()), Vec::new());
    let body = RecordBody::Input(Input::PowerButton);
    let record = Record { lsn: Lsn(1), icount: Icount(10), body };
    assert_eq!(replay.step(&record, &mut outputs), Ok(Replayed::Applied));
    assert_eq!(outputs, [Output::PowerOff { status: 0 }]);
}

#[test]
fn a_primary_that_has_ended_waits_for_its_backup_without_waking_for_a_digest() {
    let mut node = primary(short_lived(), Settings { digest_every_ns: MS, ..settings() });
    let mut world = World::default();
    let next = settle(&mut node, &mut world);
    assert!(world.log().iter().any(|record| matches!(record.body, RecordBody::Digest(_))));
    world.now = 5 * MS;
    assert_eq!(node.step(&mut world), next);
    acknowledge(&mut world);
    assert_eq!(settle(&mut node, &mut world), Next::Finished(Outcome::PoweredOff { status: 3 }));
}

#[test]
fn what_has_gathered_while_the_window_was_full_does_not_overfill_it() {
    let mut settings = settings();
    settings.protocol.send_window_bytes = 10_000;
    settings.disk_modes = vec![(1, DiskMode::Shared)];
    let (mut node, mut world) = (primary(Toy::default(), settings), World::default());
    for request in 1..=100 {
        world.events.push_back(Event::DiskDone(DiskCompletion { data: vec![0; 1000], ..done(request) }));
        world.events.push_back(Event::Packet { slot: 2, frame: vec![0; 1000] });
    }
    for turn in 0..1000 {
        node.step(&mut world);
        assert!(node.report().buffered_bytes <= 12_000, "one record beyond the window at most");
        if turn % 10 == 9 {
            acknowledge(&mut world);
        }
    }
    let entered = |input: &&(u64, Input)| matches!(input.1, Input::DiskDone { .. } | Input::Packet { .. });
    assert_eq!(node.machine().applied.iter().filter(entered).count(), 200, "each has had its turn");
}

#[test]
fn a_flood_of_events_does_not_keep_a_node_from_its_work() {
    let key = Event::Console { console: ConsoleId::Uart, bytes: vec![b'a'] };
    let mut world = World { flood: Some(key), ..World::default() };
    for mut node in [solo(Toy::default(), settings()), standby(Toy::default())] {
        assert!(!matches!(node.step(&mut world), Next::Finished(_)));
    }
}
