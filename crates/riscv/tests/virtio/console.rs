//! The console (virtio 1.2, 5.3).

use super::world::driver::*;
use super::{TERMINAL, bench};
use pollux_vocab::{ConsoleId, Input, Output};

const THIS: ConsoleId = ConsoleId::Virtio(TERMINAL);
/// Typed bytes that the device keeps.
const ROOM: usize = 4096;

fn console() -> (Bench, Ring, Ring) {
    let mut bench = bench();
    let mut rings = bench.start(TERMINAL, 2, 16);
    let tx = rings.remove(1);
    (bench, rings.remove(0), tx)
}

fn type_in(bench: &mut Bench, bytes: &[u8]) {
    bench.apply(&Input::Console { console: THIS, bytes: bytes.to_vec() });
}

#[test]
fn what_the_guest_writes_is_shown() {
    let (mut bench, _, mut tx) = console();
    let bufs = [bench.full(b"hel"), bench.full(b""), bench.full(b"lo")];
    let head = tx.offer_and_kick(&mut bench, &bufs);
    assert_eq!(bench.outputs(), [Output::Console { console: THIS, bytes: b"hello".to_vec() }]);
    assert_eq!(tx.take_used(&bench), [(head, 0)]);
    let bufs = [bench.full(b"")];
    tx.offer_and_kick(&mut bench, &bufs);
    assert_eq!(bench.outputs(), [], "nothing to show");
    assert_eq!(tx.take_used(&bench).len(), 1);
}

#[test]
fn typed_bytes_fill_one_buffer_after_the_other() {
    let (mut bench, mut rx, _) = console();
    let bufs = [bench.empty(3), bench.empty(3), bench.empty(3)];
    let heads = bufs.map(|buf| rx.offer(&mut bench, &[buf]));
    rx.kick(&mut bench);
    type_in(&mut bench, b"abcd");
    assert_eq!(rx.take_used(&bench), [(heads[0], 3), (heads[1], 1)]);
    assert_eq!((bench.bytes(bufs[0]), bench.bytes(bufs[1])), (&b"abc"[..], &b"d\xee\xee"[..]));
    type_in(&mut bench, b"e");
    assert_eq!(rx.take_used(&bench), [(heads[2], 1)]);
}

#[test]
fn typed_bytes_wait_for_a_buffer_as_long_as_there_is_room() {
    let (mut bench, mut rx, _) = console();
    let typed: Vec<u8> = (0..ROOM + 100).map(|i| i as u8).collect();
    type_in(&mut bench, &typed[..10]);
    assert_eq!(bench.board.console_room(THIS), ROOM - 10);
    type_in(&mut bench, &typed[10..]);
    assert_eq!(bench.board.console_room(THIS), 0);
    let buf = bench.empty(2 * ROOM as u32);
    let head = rx.offer_and_kick(&mut bench, &[buf]);
    assert_eq!(rx.take_used(&bench), [(head, ROOM as u32)]);
    assert_eq!(bench.bytes(buf)[..ROOM], typed[..ROOM]);
    assert_eq!(bench.board.console_room(THIS), ROOM);
}

#[test]
fn a_buffer_without_room_comes_back_empty_and_loses_nothing() {
    let (mut bench, mut rx, _) = console();
    let nothing = [bench.full(b"not writable")];
    rx.offer_and_kick(&mut bench, &nothing);
    type_in(&mut bench, b"x");
    assert_eq!(rx.take_used(&bench), [(0, 0)]);
    let buf = bench.empty(8);
    rx.offer_and_kick(&mut bench, &[buf]);
    assert_eq!(rx.take_used(&bench), [(1, 1)]);
    assert_eq!(bench.bytes(buf)[0], b'x');
}

#[test]
fn one_output_has_a_bound_and_its_chain_is_still_given_back() {
    let (mut bench, _, mut tx) = console();
    let bufs = [bench.full(&[b'x'; 100_000])];
    tx.offer_and_kick(&mut bench, &bufs);
    let Some(Output::Console { bytes, .. }) = bench.outputs().pop() else { panic!("it says something") };
    assert_eq!(bytes.len(), 64 * 1024);
    assert_eq!(tx.take_used(&bench).len(), 1);
}

#[test]
fn a_reset_forgets_what_was_typed_and_a_dead_console_takes_nothing() {
    let (mut bench, _, _) = console();
    type_in(&mut bench, b"lost");
    bench.set(TERMINAL, reg::STATUS, 0);
    assert_eq!(bench.board.console_room(THIS), 0);
    type_in(&mut bench, b"lost too");
    let mut rx = bench.start(TERMINAL, 2, 16).remove(0);
    let bufs = [bench.empty(8)];
    rx.offer_and_kick(&mut bench, &bufs);
    assert_eq!(rx.take_used(&bench), []);
}

#[test]
fn what_was_typed_outlives_a_snapshot() {
    let (mut bench, mut rx, _) = console();
    type_in(&mut bench, b"kept");
    bench.save_and_restore();
    let buf = bench.empty(4);
    rx.offer_and_kick(&mut bench, &[buf]);
    assert_eq!(bench.bytes(buf), b"kept");
}
