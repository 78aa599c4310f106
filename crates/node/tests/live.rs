//! What the side that talks to the world must do, one sentence a test.

mod common;

use common::*;
use pollux_node::Settings;

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
