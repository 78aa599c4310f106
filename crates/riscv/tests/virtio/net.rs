//! The network card (virtio 1.2, 5.1).

use super::world::driver::*;
use super::{MAC, NET, bench};
use pollux_vocab::{Input, Output};

const HEADER_BYTES: u32 = 12;
const FRAME_BYTES_MAX: usize = 1518;

fn card() -> (Bench, Ring, Ring) {
    let mut bench = bench();
    let mut rings = bench.start(NET, 2, 16);
    let tx = rings.remove(1);
    (bench, rings.remove(0), tx)
}

fn frame(len: usize) -> Vec<u8> {
    (0..len).map(|i| i as u8).collect()
}

fn receive(bench: &mut Bench, frame: &[u8]) {
    bench.apply(&Input::Packet { slot: NET, frame: frame.to_vec() });
}

fn sent(bench: &mut Bench) -> Vec<Vec<u8>> {
    let frame = |output| match output {
        Output::Packet { slot: NET, frame } => frame,
        other => panic!("not a frame: {other:?}"),
    };
    bench.outputs().into_iter().map(frame).collect()
}

#[test]
fn the_configuration_tells_address_and_link() {
    let mut bench = bench();
    let base = pollux_riscv::board::VIRTIO_BASE + u64::from(NET) * 0x1000 + reg::CONFIG;
    let bytes: Vec<u8> = (0..8).map(|i| bench.load(base + i, 1).unwrap() as u8).collect();
    assert_eq!(bytes, [&MAC[..], &[1, 0]].concat());
    assert_eq!(bench.load(base + 6, 2), Some(1));
}

#[test]
fn a_frame_leaves_without_its_header_whatever_its_segments() {
    let (mut bench, _, mut tx) = card();
    let bytes = [&[0; 12][..], &frame(60)].concat();
    for cuts in [&[12][..], &[1, 13], &[11, 30, 71], &[]] {
        let mut bufs = Vec::new();
        let mut from = 0;
        for to in cuts.iter().copied().chain([bytes.len()]) {
            bufs.push(bench.full(&bytes[from..to]));
            from = to;
        }
        let head = tx.offer_and_kick(&mut bench, &bufs);
        assert_eq!(sent(&mut bench), [frame(60)]);
        assert_eq!(tx.take_used(&bench), [(head, 0)]);
    }
}

#[test]
fn what_is_no_frame_is_given_back_and_does_not_leave() {
    let (mut bench, _, mut tx) = card();
    for len in [0, 11, 12, 13, 12 + 13, 12 + FRAME_BYTES_MAX + 1, 9000] {
        let bufs = [bench.full(&vec![1; len])];
        let head = tx.offer_and_kick(&mut bench, &bufs);
        assert_eq!(sent(&mut bench), [] as [Vec<u8>; 0], "{len} bytes");
        assert_eq!(tx.take_used(&bench), [(head, 0)]);
    }
    for len in [14, FRAME_BYTES_MAX] {
        let bufs = [bench.full(&vec![1; 12 + len])];
        tx.offer_and_kick(&mut bench, &bufs);
        assert_eq!(sent(&mut bench), [vec![1; len]]);
    }
    // Only the readable part is sent.
    let bufs = [bench.full(&[1; 12 + 20]), bench.empty(100)];
    tx.offer_and_kick(&mut bench, &bufs);
    assert_eq!(sent(&mut bench), [vec![1; 20]]);
    assert!(!bench.has_given_up(NET));
}

#[test]
fn what_the_header_says_is_of_no_account() {
    // No offloads were offered, so there is nothing that a header could ask for.
    let (mut bench, _, mut tx) = card();
    let bufs = [bench.full(&[&[0xff; 12][..], &frame(64)].concat())];
    tx.offer_and_kick(&mut bench, &bufs);
    assert_eq!(sent(&mut bench), [frame(64)]);
}

#[test]
fn a_frame_that_finds_no_buffer_is_lost() {
    let (mut bench, mut rx, _) = card();
    assert!(!bench.board.packet_room(&bench.ram, NET));
    receive(&mut bench, &frame(60));
    let buf = bench.empty(2000);
    let head = rx.offer_and_kick(&mut bench, &[buf]);
    assert_eq!(rx.take_used(&bench), [], "the frame from before the buffer");
    assert!(bench.board.packet_room(&bench.ram, NET));
    receive(&mut bench, &frame(61));
    assert_eq!(rx.take_used(&bench), [(head, 12 + 61)]);
    // The header: all zero, but for the number of buffers (5.1.6.4.1).
    assert_eq!(bench.bytes(buf)[..12], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    assert_eq!(bench.bytes(buf)[12..73], frame(61));
    assert!(bench.bytes(buf)[73..].iter().all(|byte| *byte == 0xee));
    assert!(!bench.board.packet_room(&bench.ram, NET));
}

#[test]
fn a_buffer_too_small_for_a_frame_waits_for_a_smaller_one() {
    let (mut bench, mut rx, _) = card();
    let tiny = bench.empty(HEADER_BYTES + 30);
    let head = rx.offer_and_kick(&mut bench, &[tiny]);
    receive(&mut bench, &frame(31));
    assert_eq!(rx.take_used(&bench), []);
    assert!(!bench.has_given_up(NET));
    receive(&mut bench, &frame(30));
    assert_eq!(rx.take_used(&bench), [(head, 42)]);
}

#[test]
fn a_buffer_that_takes_no_frame_at_all_is_no_room() {
    let (mut bench, mut rx, _) = card();
    let bufs = [bench.full(&[0; 2000]), bench.empty(HEADER_BYTES + 13)];
    rx.offer_and_kick(&mut bench, &bufs);
    assert!(!bench.board.packet_room(&bench.ram, NET));
}

#[test]
fn a_frame_may_be_scattered_over_many_small_buffers() {
    let (mut bench, mut rx, _) = card();
    let bufs: Vec<Buf> = (0..10).map(|_| bench.empty(10)).collect();
    let head = rx.offer_and_kick(&mut bench, &bufs);
    receive(&mut bench, &frame(88));
    assert_eq!(rx.take_used(&bench), [(head, 100)]);
    let all: Vec<u8> = bufs.iter().flat_map(|buf| bench.bytes(*buf).to_vec()).collect();
    assert_eq!(all[12..], frame(88));
}

#[test]
fn a_frame_longer_than_ethernets_never_enters() {
    let (mut bench, mut rx, _) = card();
    let bufs = [bench.empty(100_000)];
    rx.offer_and_kick(&mut bench, &bufs);
    receive(&mut bench, &frame(FRAME_BYTES_MAX + 1));
    assert_eq!(rx.take_used(&bench), []);
    receive(&mut bench, &frame(FRAME_BYTES_MAX));
    assert_eq!(rx.take_used(&bench).len(), 1);
}

#[test]
fn a_broken_receive_queue_breaks_the_device_at_the_next_frame() {
    let (mut bench, mut rx, _) = card();
    rx.offer_head(&mut bench.ram, 16); // the table ends at 15
    assert!(bench.board.packet_room(&bench.ram, NET), "so that the next frame brings it to light");
    receive(&mut bench, &frame(60));
    assert!(bench.has_given_up(NET));
    assert!(!bench.board.packet_room(&bench.ram, NET));
}

#[test]
fn nothing_enters_or_leaves_a_card_that_is_not_live() {
    let (mut bench, mut rx, mut tx) = card();
    let bufs = [bench.empty(2000)];
    rx.offer_and_kick(&mut bench, &bufs);
    bench.set(NET, reg::STATUS, STATUS_ACKNOWLEDGED | STATUS_FEATURES_OK);
    let bufs = [bench.full(&[0; 100])];
    tx.offer_and_kick(&mut bench, &bufs);
    receive(&mut bench, &frame(60));
    assert_eq!((rx.take_used(&bench), tx.take_used(&bench)), (vec![], vec![]));
    assert_eq!(bench.outputs(), []);
}
