//! The power button (virtio 1.2, 5.8), as Linux's `virtio_input` drives it.

use super::world::driver::*;
use super::{BUTTON, bench};
use pollux_riscv::board::VIRTIO_BASE;
use pollux_vocab::{Input, Output};

fn ask(bench: &mut Bench, select: u8, subselect: u8) -> Vec<u8> {
    let base = VIRTIO_BASE + u64::from(BUTTON) * 0x1000 + reg::CONFIG;
    bench.store(base, 1, u64::from(select)).unwrap();
    bench.store(base + 1, 1, u64::from(subselect)).unwrap();
    let size = bench.load(base + 2, 1).unwrap();
    (0..size).map(|i| bench.load(base + 8 + i, 1).unwrap() as u8).collect()
}

fn event(bench: &Bench, buf: Buf) -> (u16, u16, u32) {
    let bytes = bench.bytes(buf);
    let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    (half(0), half(2), u32::from(half(4)) | u32::from(half(6)) << 16)
}

#[test]
fn the_button_says_that_it_has_one_key_and_which() {
    let mut bench = bench();
    assert_eq!(bench.get(BUTTON, reg::DEVICE_ID), 18);
    assert_eq!(ask(&mut bench, 1, 0), b"Pollux power button");
    let keys = ask(&mut bench, 0x11, 1);
    let set: Vec<usize> = (0..keys.len() * 8).filter(|bit| keys[bit / 8] >> (bit % 8) & 1 != 0).collect();
    assert_eq!(set, [116], "KEY_POWER");
    for (select, subselect) in [(0, 0), (2, 0), (0x10, 0), (0x11, 0), (0x11, 2), (0x12, 0), (0xff, 0xff)] {
        assert_eq!(ask(&mut bench, select, subselect), b"", "{select:#x} {subselect}");
    }
}

#[test]
fn a_press_is_told_to_a_guest_that_listens_and_the_machine_goes_on() {
    let mut bench = bench();
    let mut ring = bench.start(BUTTON, 2, 16).remove(0);
    let bufs: Vec<Buf> = (0..6).map(|_| bench.empty(8)).collect();
    for buf in &bufs[..3] {
        ring.offer(&mut bench, &[*buf]);
    }
    ring.kick(&mut bench);
    bench.apply(&Input::PowerButton);
    // The fourth event waits for a buffer; a second press meanwhile is the same press.
    bench.apply(&Input::PowerButton);
    assert_eq!(ring.take_used(&bench).len(), 3);
    bench.save_and_restore();
    for buf in &bufs[3..] {
        ring.offer_and_kick(&mut bench, &[*buf]);
    }
    assert_eq!(ring.take_used(&bench).len(), 1);
    let events: Vec<_> = bufs[..4].iter().map(|buf| event(&bench, *buf)).collect();
    assert_eq!(events, [(1, 116, 1), (0, 0, 0), (1, 116, 0), (0, 0, 0)]);
    assert!(bench.is_pending(BUTTON) && !bench.board.halted());
    assert_eq!(bench.outputs(), []);
}

#[test]
fn a_button_that_nobody_listens_to_cuts_the_power() {
    let mut bench = bench();
    bench.start(BUTTON, 2, 16);
    bench.set(BUTTON, reg::STATUS, 0);
    bench.apply(&Input::PowerButton);
    assert_eq!(bench.outputs(), [Output::PowerOff { status: 0 }]);
}

#[test]
fn a_guest_that_lights_lamps_has_its_buffers_back() {
    let mut bench = bench();
    let mut ring = bench.start(BUTTON, 2, 16).remove(1);
    let buf = bench.full(&[0; 8]);
    let head = ring.offer_and_kick(&mut bench, &[buf]);
    assert_eq!(ring.take_used(&bench), [(head, 0)]);
}
