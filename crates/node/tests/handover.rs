//! Handing over, as the loop does it: one sentence a test.

mod common;

use common::*;
use pollux_node::{
    DiskCompletion, DiskFault, DiskMode, Event, HaltCause, HandoverCause, Next, Node, Outcome, Settings,
};
use pollux_protocol::{HaltReason, Message, Role, Verdict};
use pollux_vocab::{DiskStatus, Icount, Input, Lsn, VirtTime};
use std::collections::BTreeMap;

const MS: u64 = 1_000_000;

fn says_a_word_now_and_then() -> Toy {
    Toy { says: (1..1000_u64).map(|n| (n * 10_000, vec![said(n as u8)])).collect(), ..Toy::default() }
}

fn handovers(world: &World) -> usize {
    world.sent.iter().filter(|message| matches!(message, Message::Handover { .. })).count()
}

fn ack_of(received: Lsn) -> Message {
    let (icount, time) = (Icount(0), VirtTime(0));
    Message::Ack { generation: G1, received, executed: Lsn(0), icount, time, buffered_bytes: 0 }
}

fn tell(node: &mut Node<Toy>, world: &mut World, event: Event) -> Next {
    world.events.push_back(event);
    node.step(world)
}

fn verdict(verdict: Verdict) -> Event {
    Event::Verdict(G2, verdict)
}

#[test]
fn a_primary_that_is_told_to_end_hands_over_and_ends_once_its_backup_is_live() {
    let (mut node, mut world) = (primary(says_a_word_now_and_then(), settings()), World::default());
    node.step(&mut world);
    tell(&mut node, &mut world, Event::HandOver(HandoverCause::Terminate));
    assert_eq!((handovers(&world), node.report().state), (1, Role::HandingOver));
    let stands = node.machine().icount;
    for _ in 0..5 {
        node.step(&mut world);
    }
    assert_eq!((node.machine().icount, world.released.len()), (stands, 0));
    tell(&mut node, &mut world, Event::Message(PEER, Message::Heartbeat { generation: G2 }));
    assert_eq!(world.claims, [G2]);
    let next = tell(&mut node, &mut world, verdict(Verdict::Lost));
    let halted = Outcome::Halted(HaltCause::Protocol(HaltReason::HandedOver(G2)));
    assert_eq!((next, world.released.len()), (Next::Finished(halted), 0));
}

/// Completions that the guest has heard of.
fn answered(node: &mut Node<Toy>) -> usize {
    node.machine().applied.iter().filter(|(_, input)| matches!(input, Input::DiskDone { .. })).count()
}

fn failed() -> Event {
    Event::DiskDone(DiskCompletion { status: DiskStatus::IoError, ..done(1) })
}

#[test]
fn a_primary_whose_disk_fails_or_hangs_hands_over_and_the_guest_sees_no_error() {
    for trouble in [failed(), Event::DiskFault { slot: 1, fault: DiskFault::Hangs }] {
        let machine = Toy { says: BTreeMap::from([(50, vec![flush(1)])]), ..Toy::default() };
        let (mut node, mut world) = (primary(machine, settings()), World::default());
        node.step(&mut world);
        tell(&mut node, &mut world, trouble);
        assert_eq!((handovers(&world), node.report().state), (1, Role::HandingOver));
        assert_eq!(answered(&mut node), 0, "no error is admitted");
        tell(&mut node, &mut world, Event::Message(PEER, Message::Heartbeat { generation: G2 }));
        let next = tell(&mut node, &mut world, verdict(Verdict::Lost));
        let halted = Outcome::Halted(HaltCause::Protocol(HaltReason::HandedOver(G2)));
        assert_eq!(next, Next::Finished(halted));
    }
}

#[test]
fn a_disk_that_fails_where_nobody_takes_over_tells_its_guest() {
    let machine = || Toy { says: BTreeMap::from([(50, vec![flush(1)])]), ..Toy::default() };
    let (mut node, mut world) = (solo(machine(), settings()), World::default());
    node.step(&mut world);
    tell(&mut node, &mut world, failed());
    assert_eq!((handovers(&world), answered(&mut node)), (0, 1));
}

#[test]
fn a_process_that_must_end_ends_the_vm_if_nobody_takes_it_and_any_other_goes_on_with_it() {
    for (cause, ends) in [(HandoverCause::Terminate, true), (HandoverCause::Network, false)] {
        for protected in [true, false] {
            let machine = says_a_word_now_and_then();
            let mut node = if protected { primary(machine, settings()) } else { solo(machine, settings()) };
            let mut world = World::default();
            let mut last = tell(&mut node, &mut world, Event::HandOver(cause));
            if protected {
                tell(&mut node, &mut world, Event::LinkLost(PEER));
                last = tell(&mut node, &mut world, verdict(Verdict::Won));
            }
            for _ in 0..20 {
                if !matches!(last, Next::Finished(_)) {
                    last = node.step(&mut world);
                }
            }
            let ended = last == Next::Finished(Outcome::PoweredOff { status: 0 });
            assert_eq!((ended, node.report().state == Role::Solo), (ends, !ends), "{cause:?} {protected}");
        }
    }
}

#[test]
fn a_handover_waits_for_what_is_under_way_to_a_shared_disk_and_gives_up_if_that_does_not_end() {
    let shared = || Settings { disk_modes: vec![(1, DiskMode::Shared)], ..settings() };
    let machine = || Toy { says: BTreeMap::from([(500, vec![flush(1)])]), ..Toy::default() };
    let begun = || {
        let (mut node, mut world) = (primary(machine(), shared()), World::default());
        node.step(&mut world);
        let received = world.log().last().expect("a mark").lsn;
        world.events.push_back(Event::Message(PEER, ack_of(received)));
        node.step(&mut world);
        assert_eq!(world.submitted, [1]);
        tell(&mut node, &mut world, Event::HandOver(HandoverCause::Network));
        assert_eq!((handovers(&world), node.report().state), (0, Role::Primary), "a request is under way");
        (node, world)
    };
    let (mut node, mut world) = begun();
    tell(&mut node, &mut world, Event::DiskDone(done(1)));
    assert_eq!((handovers(&world), node.report().state), (1, Role::HandingOver));
    let (mut node, mut world) = begun();
    for _ in 0..30 {
        world.now += 50 * MS;
        let received = world.log().last().expect("a mark").lsn;
        tell(&mut node, &mut world, Event::Message(PEER, ack_of(received)));
    }
    assert_eq!((handovers(&world), node.report().state), (0, Role::Primary), "it stays");
}

#[test]
fn a_backup_that_is_told_to_end_leaves_and_claims_nothing() {
    let (mut node, mut world) = (standby(Toy::default()), World::default());
    let next = tell(&mut node, &mut world, Event::HandOver(HandoverCause::Terminate));
    assert_eq!(next, Next::Finished(Outcome::Halted(HaltCause::Protocol(HaltReason::Left))));
    assert!(world.claims.is_empty());
}
