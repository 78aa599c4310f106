//! The source of entropy (virtio 1.2, 5.4).

use super::world::driver::*;
use super::{RNG, bench};
use pollux_vocab::{Input, Output};

fn source() -> (Bench, Ring) {
    let mut bench = bench();
    let ring = bench.start(RNG, 1, 16).remove(0);
    (bench, ring)
}

fn wanted(request: u64, len: u32) -> Output {
    Output::EntropyWanted { slot: RNG, request, len }
}

fn give(bench: &mut Bench, request: u64, bytes: &[u8]) {
    bench.apply(&Input::Entropy { slot: RNG, request, bytes: bytes.to_vec() });
}

#[test]
fn entropy_is_asked_for_and_answered_in_any_order() {
    let (mut bench, mut ring) = source();
    let bufs = [bench.empty(8), bench.empty(4)];
    let heads = bufs.map(|buf| ring.offer_and_kick(&mut bench, &[buf]));
    assert_eq!(bench.outputs(), [wanted(0, 8), wanted(1, 4)]);
    assert_eq!(bench.board.pending(), [wanted(0, 8), wanted(1, 4)]);
    give(&mut bench, 1, &[1; 4]);
    give(&mut bench, 0, &[2; 8]);
    assert_eq!(ring.take_used(&bench), [(heads[1], 4), (heads[0], 8)]);
    assert_eq!((bench.bytes(bufs[0]), bench.bytes(bufs[1])), (&[2; 8][..], &[1; 4][..]));
    assert_eq!(bench.board.pending(), []);
}

#[test]
fn fewer_bytes_than_asked_for_are_an_answer_and_more_are_cut() {
    let (mut bench, mut ring) = source();
    let bufs = [bench.empty(8), bench.empty(8), bench.empty(8)];
    for buf in bufs {
        ring.offer_and_kick(&mut bench, &[buf]);
    }
    give(&mut bench, 0, &[1; 3]);
    give(&mut bench, 1, &[2; 100]);
    give(&mut bench, 2, &[]);
    let written: Vec<u32> = ring.take_used(&bench).iter().map(|used| used.1).collect();
    assert_eq!(written, [3, 8, 0]);
    assert_eq!(bench.bytes(bufs[0]), [1, 1, 1, 0xee, 0xee, 0xee, 0xee, 0xee]);
}

#[test]
fn no_driver_gets_more_than_a_page_at_a_time() {
    let (mut bench, mut ring) = source();
    let bufs = [bench.empty(100_000)];
    ring.offer_and_kick(&mut bench, &bufs);
    assert_eq!(bench.outputs(), [wanted(0, 4096)]);
    give(&mut bench, 0, &[5; 8192]);
    assert_eq!(ring.take_used(&bench)[0].1, 4096);
}

#[test]
fn answers_to_nothing_and_second_answers_do_nothing() {
    let (mut bench, mut ring) = source();
    let buf = bench.empty(2);
    ring.offer_and_kick(&mut bench, &[buf]);
    give(&mut bench, 7, &[9; 2]);
    give(&mut bench, 0, &[1; 2]);
    give(&mut bench, 0, &[2; 2]);
    assert_eq!(bench.bytes(buf), [1; 2]);
    assert_eq!(ring.take_used(&bench).len(), 1);
}

#[test]
fn a_reset_forgets_who_waits_and_keeps_counting() {
    let (mut bench, mut ring) = source();
    let stale = bench.empty(2);
    ring.offer_and_kick(&mut bench, &[stale]);
    let mut ring = bench.start(RNG, 1, 16).remove(0);
    assert_eq!(bench.board.pending(), [wanted(0, 2)], "the host still owes it");
    give(&mut bench, 0, &[1; 2]);
    assert_eq!((bench.bytes(stale), bench.board.pending()), (&[0xee; 2][..], vec![]));
    let bufs = [bench.empty(2)];
    ring.offer_and_kick(&mut bench, &bufs);
    assert_eq!(bench.outputs(), [wanted(0, 2), wanted(1, 2)]);
}

#[test]
fn a_guest_that_resets_its_source_has_no_more_requests_open_than_one_that_does_not() {
    let (mut bench, mut ring) = source();
    let buf = bench.empty(4096);
    for _ in 0..100 {
        (0..16).for_each(|_| _ = ring.offer(&mut bench, &[buf]));
        ring.kick(&mut bench);
        ring = bench.start(RNG, 1, 16).remove(0);
    }
    assert_eq!(bench.outputs().len(), 256);
    ring.offer_and_kick(&mut bench, &[buf]);
    assert_eq!(bench.outputs(), [], "it waits in the queue");
    give(&mut bench, 3, &[1; 4096]);
    assert_eq!(bench.outputs(), [wanted(256, 4096)], "an answer makes room, and nobody has to kick");
    bench.set(RNG, reg::STATUS, 0);
    (0..=256).for_each(|request| give(&mut bench, request, &[1; 4096]));
    assert_eq!(bench.board.pending(), []);
}

#[test]
fn a_buffer_without_room_is_given_back_at_once() {
    let (mut bench, mut ring) = source();
    let bufs = [bench.full(&[0; 4])];
    let head = ring.offer_and_kick(&mut bench, &bufs);
    assert_eq!((bench.outputs(), ring.take_used(&bench)), (vec![], vec![(head, 0)]));
}

#[test]
fn requests_outlive_a_snapshot() {
    let (mut bench, mut ring) = source();
    let buf = bench.empty(2);
    ring.offer_and_kick(&mut bench, &[buf]);
    bench.save_and_restore();
    assert_eq!(bench.board.pending(), [wanted(0, 2)]);
    give(&mut bench, 0, &[1; 2]);
    assert_eq!(bench.bytes(buf), [1; 2]);
}

#[test]
fn a_driver_that_never_gets_answers_cannot_ask_without_end() {
    // The table's entries may be offered again and again: the ring takes 16 at a time.
    let (mut bench, mut ring) = source();
    let buf = bench.empty(1);
    ring.write_desc(&mut bench.ram, 0, buf, 0, 0);
    for kicks in 1..=20 {
        (0..16).for_each(|_| ring.offer_head(&mut bench.ram, 0));
        ring.kick(&mut bench);
        assert_eq!(bench.board.pending().len(), (16 * kicks).min(256));
        if kicks > 16 {
            // What was not taken stays in the ring, which holds no more than that.
            ring.offered -= 16;
        }
    }
}
