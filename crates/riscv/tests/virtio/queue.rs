//! Split virtqueues (virtio 1.2, 2.7): what is in them is the driver's word, and nobody's truth.

use super::world::driver::*;
use super::{RNG, bench};
use pollux_riscv::RAM_BASE;
use pollux_vocab::{GuestAddr, Input, Output};

const SIZE: u16 = 16;

fn started() -> (Bench, Ring) {
    let mut bench = bench();
    let ring = bench.start(RNG, 1, SIZE).remove(0);
    (bench, ring)
}

/// Bytes that were asked for, in order.
fn wanted(bench: &mut Bench) -> Vec<u32> {
    let len = |output| match output {
        Output::EntropyWanted { len, .. } => len,
        other => panic!("not entropy: {other:?}"),
    };
    bench.outputs().into_iter().map(len).collect()
}

/// Puts descriptors into a table of their own.
fn table(bench: &mut Bench, descs: &[(Buf, u16, u16)]) -> Buf {
    let mut bytes = Vec::new();
    for (buf, flags, next) in descs {
        let flags = flags | if buf.writable { DESC_WRITE } else { 0 };
        bytes.extend_from_slice(&buf.addr.to_le_bytes());
        bytes.extend_from_slice(&buf.len.to_le_bytes());
        bytes.extend_from_slice(&flags.to_le_bytes());
        bytes.extend_from_slice(&next.to_le_bytes());
    }
    bench.full(&bytes)
}

/// A good buffer, so that nothing else can be what breaks the device.
const GOOD: Buf = Buf { addr: RAM_BASE + 0x11_0000, len: 1, writable: true };
/// Where [`breaks`] puts an indirect table of two good buffers.
const TABLE: Buf = Buf { addr: RAM_BASE + 0x10_0000, len: 32, writable: false };

/// What becomes of a single descriptor: whether the device gives up.
fn breaks(buf: Buf, flags: u16, next: u16) -> bool {
    let (mut bench, mut ring) = started();
    // Good descriptors in all of the table, and behind it.
    (0..2 * SIZE).for_each(|index| ring.write_desc(&mut bench.ram, index, GOOD, 0, 0));
    let two = bench.ram.slice(GuestAddr(ring.desc), 32).unwrap().to_vec();
    bench.ram.write(GuestAddr(TABLE.addr), &two).unwrap();
    ring.write_desc(&mut bench.ram, 0, buf, flags, next);
    ring.offer_head(&mut bench.ram, 0);
    ring.kick(&mut bench);
    let gave_up = bench.has_given_up(RNG);
    assert_eq!(bench.outputs().is_empty(), gave_up);
    gave_up
}

#[test]
fn indices_run_round_the_ring_and_past_the_sixteenth_bit() {
    let (mut bench, mut ring) = started();
    let buf = bench.empty(1);
    for request in 0..70_000u64 {
        let head = ring.offer_and_kick(&mut bench, &[buf]);
        bench.outputs();
        bench.apply(&Input::Entropy { slot: RNG, request, bytes: vec![7] });
        assert_eq!(ring.take_used(&bench), [(head, 1)], "request {request}");
    }
}

#[test]
fn a_queue_of_one_entry_works() {
    let mut bench = bench();
    let mut ring = bench.start(RNG, 1, 1).remove(0);
    let buf = bench.empty(1);
    for request in 0..5 {
        ring.offer_and_kick(&mut bench, &[buf]);
        assert_eq!(wanted(&mut bench), [1]);
        bench.apply(&Input::Entropy { slot: RNG, request, bytes: vec![7] });
        assert_eq!(ring.take_used(&bench), [(0, 1)]);
    }
}

#[test]
fn an_indirect_table_is_a_chain_of_its_own() {
    let (mut bench, mut ring) = started();
    let bufs = [bench.empty(3), bench.empty(4), bench.empty(5)];
    // More entries than the queue has, and only some of them used.
    let unused = (Buf { addr: 0, len: 0, writable: false }, 0, 0);
    let mut descs = vec![unused; 40];
    descs[0] = (bufs[0], DESC_NEXT, 39);
    descs[39] = (bufs[1], DESC_NEXT, 5);
    descs[5] = (bufs[2], 0, 0);
    let table = table(&mut bench, &descs);
    ring.write_desc(&mut bench.ram, 9, table, DESC_INDIRECT, 0);
    ring.offer_head(&mut bench.ram, 9);
    ring.kick(&mut bench);
    assert_eq!(wanted(&mut bench), [12]);
    bench.apply(&Input::Entropy { slot: RNG, request: 0, bytes: (0..12).collect() });
    assert_eq!(ring.take_used(&bench), [(9, 12)]);
    assert_eq!(bench.bytes(bufs[2]), [7, 8, 9, 10, 11]);
}

#[test]
fn an_indirect_descriptor_may_follow_others_but_end_the_chain() {
    let (mut bench, mut ring) = started();
    let bufs = [bench.empty(3), bench.empty(4)];
    let table = table(&mut bench, &[(bufs[1], 0, 0)]);
    ring.write_desc(&mut bench.ram, 0, bufs[0], DESC_NEXT, 1);
    ring.write_desc(&mut bench.ram, 1, table, DESC_INDIRECT, 0);
    ring.offer_head(&mut bench.ram, 0);
    ring.kick(&mut bench);
    assert_eq!(wanted(&mut bench), [7]);
}

#[test]
fn crooked_indirect_tables_break_the_device() {
    let good = TABLE;
    assert!(!breaks(good, DESC_INDIRECT, 1));
    for (table, flags) in [
        (Buf { len: 0, ..good }, DESC_INDIRECT),
        (Buf { len: 15, ..good }, DESC_INDIRECT),
        (Buf { len: 17, ..good }, DESC_INDIRECT),
        (Buf { len: u32::MAX, ..good }, DESC_INDIRECT),
        (Buf { addr: 0, ..good }, DESC_INDIRECT),
        (Buf { addr: RAM_END - 8, ..good }, DESC_INDIRECT),
        (Buf { addr: u64::MAX - 7, ..good }, DESC_INDIRECT),
        (good, DESC_INDIRECT | DESC_NEXT),
    ] {
        assert!(breaks(table, flags, 1), "{table:?} flags {flags}");
    }
}

#[test]
fn an_indirect_table_in_an_indirect_table_breaks_the_device() {
    let (mut bench, mut ring) = started();
    let buf = bench.empty(1);
    let inner = table(&mut bench, &[(buf, 0, 0)]);
    let outer = table(&mut bench, &[(inner, DESC_INDIRECT, 0)]);
    ring.write_desc(&mut bench.ram, 0, outer, DESC_INDIRECT, 0);
    ring.offer_head(&mut bench.ram, 0);
    ring.kick(&mut bench);
    assert!(bench.has_given_up(RNG));
}

#[test]
fn buffers_that_are_not_all_ram_break_the_device() {
    let at = |addr, len| Buf { addr, len, writable: true };
    for buf in [
        at(0x1000_0000, 1), // the UART
        at(RAM_BASE - 1, 1),
        at(RAM_BASE - 1, 2),
        at(RAM_END, 1),
        at(RAM_END - 1, 2),
        at(RAM_BASE, RAM_BYTES as u32 + 1),
        at(RAM_BASE, u32::MAX),
        at(u64::MAX, 1),
        at(u64::MAX, u32::MAX),
        at(u64::MAX - u64::from(u32::MAX) + 1, u32::MAX),
    ] {
        assert!(breaks(buf, 0, 0), "{buf:?}");
    }
    assert!(!breaks(at(RAM_END - 1, 1), 0, 0), "the last byte of RAM is RAM");
    assert!(!breaks(at(RAM_BASE, RAM_BYTES as u32), 0, 0), "and so is all of it");
}

#[test]
fn chains_in_a_circle_and_out_of_the_table_break_the_device() {
    let buf = GOOD;
    assert!(!breaks(buf, DESC_NEXT, SIZE - 1), "the last of the table");
    assert!(breaks(buf, DESC_NEXT, 0), "its own successor");
    assert!(breaks(buf, DESC_NEXT, SIZE), "behind the table");
    assert!(breaks(buf, DESC_NEXT, u16::MAX));
    assert!(breaks(Buf { len: 0, ..buf }, DESC_NEXT, 0), "a circle of nothing");
    let (mut bench, mut ring) = started();
    let table = table(&mut bench, &[(buf, DESC_NEXT, 1), (buf, DESC_NEXT, 0)]);
    ring.write_desc(&mut bench.ram, 0, table, DESC_INDIRECT, 0);
    ring.offer_head(&mut bench.ram, 0);
    ring.kick(&mut bench);
    assert!(bench.has_given_up(RNG));
}

#[test]
fn a_readable_buffer_behind_a_writable_one_breaks_the_device() {
    let (mut bench, mut ring) = started();
    let bufs = [bench.full(b"x"), bench.empty(1), bench.full(b"y")];
    ring.offer_and_kick(&mut bench, &bufs);
    assert!(bench.has_given_up(RNG));
}

#[test]
fn more_than_the_ring_holds_cannot_be_available() {
    for ahead in [SIZE + 1, 300, u16::MAX] {
        let (mut bench, ring) = started();
        ring.write_desc(&mut bench.ram, 0, GOOD, 0, 0);
        bench.ram.write_u16(GuestAddr(ring.avail + 2), ahead).unwrap();
        ring.kick(&mut bench);
        assert!(bench.has_given_up(RNG), "{ahead} ahead");
        assert_eq!(bench.outputs(), []);
    }
}

#[test]
fn rings_outside_ram_break_the_device() {
    for register in [reg::QUEUE_DESC, reg::QUEUE_AVAIL, reg::QUEUE_USED] {
        for addr in [0u64, RAM_BASE - 16, RAM_END - 2, u64::MAX - 15] {
            let (mut bench, mut ring) = started();
            bench.set(RNG, reg::QUEUE_READY, 0);
            let parts =
                [(reg::QUEUE_DESC, ring.desc), (reg::QUEUE_AVAIL, ring.avail), (reg::QUEUE_USED, ring.used)];
            for (part, good) in parts {
                let addr = if part == register { addr } else { good };
                bench.set(RNG, part, addr as u32);
                bench.set(RNG, part + 4, (addr >> 32) as u32);
            }
            bench.set(RNG, reg::QUEUE_READY, 1);
            let bufs = [bench.empty(1)];
            ring.offer_and_kick(&mut bench, &bufs);
            bench.apply(&Input::Entropy { slot: RNG, request: 0, bytes: vec![1] });
            assert!(bench.has_given_up(RNG), "register {register:#x} address {addr:#x}");
        }
    }
}

#[test]
fn a_queue_taken_away_in_the_middle_of_a_request_gets_no_answer() {
    let (mut bench, mut ring) = started();
    let bufs = [bench.empty(1)];
    ring.offer_and_kick(&mut bench, &bufs);
    bench.set(RNG, reg::QUEUE_SEL, 0);
    bench.set(RNG, reg::QUEUE_READY, 0);
    bench.apply(&Input::Entropy { slot: RNG, request: 0, bytes: vec![1] });
    assert_eq!(ring.take_used(&bench), []);
    assert!(!bench.has_given_up(RNG));
}

#[test]
fn a_queue_set_up_again_starts_from_the_beginning() {
    let (mut bench, mut ring) = started();
    let buf = bench.empty(1);
    (0..5).for_each(|_| _ = ring.offer_and_kick(&mut bench, &[buf]));
    bench.set(RNG, reg::QUEUE_SEL, 0);
    bench.set(RNG, reg::QUEUE_READY, 0);
    let mut ring = bench.set_up(RNG, 0, SIZE);
    let head = ring.offer_and_kick(&mut bench, &[buf]);
    bench.apply(&Input::Entropy { slot: RNG, request: 5, bytes: vec![1] });
    assert_eq!(ring.take_used(&bench), [(head, 1)]);
}

#[test]
fn rings_that_overlap_end_a_kick_all_the_same() {
    // The used ring lies on the available ring, so that giving a chain back changes what is available.
    let mut bench = bench();
    bench.start(super::TERMINAL, 2, SIZE);
    bench.set(super::TERMINAL, reg::QUEUE_SEL, 1);
    bench.set(super::TERMINAL, reg::QUEUE_READY, 0);
    let ring = bench.set_up(super::TERMINAL, 1, SIZE);
    bench.set(super::TERMINAL, reg::QUEUE_READY, 0);
    for (register, addr) in
        [(reg::QUEUE_DESC, ring.desc), (reg::QUEUE_AVAIL, ring.avail), (reg::QUEUE_USED, ring.avail)]
    {
        bench.set(super::TERMINAL, register, addr as u32);
    }
    bench.set(super::TERMINAL, reg::QUEUE_READY, 1);
    let buf = bench.full(b"x");
    for index in 0..SIZE {
        ring.write_desc(&mut bench.ram, index, buf, 0, 0);
    }
    bench.ram.write_u16(GuestAddr(ring.avail + 2), 1).unwrap();
    ring.kick(&mut bench);
    assert!(bench.outputs().len() <= 256);
}
