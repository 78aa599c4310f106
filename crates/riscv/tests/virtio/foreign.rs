//! Drivers written against QEMU's `virt` board, which know less of the standard than Linux: xv6-riscv's disk driver as it
//! is (`virtio_disk.c`: looks for QEMU's vendor, accepts the low half of the features alone), and a network driver of
//! that kind.

use super::world::driver::*;
use super::{DISK, NET, bench};
use pollux_vocab::{DiskOp, Input, Output};

/// Features that xv6-riscv's driver strikes out of the low half: read-only, SCSI, configurable write-back, several
/// queues, any layout, indirect descriptors, event indices.
const STRUCK: u32 = 1 << 5 | 1 << 7 | 1 << 11 | 1 << 12 | 1 << 27 | 1 << 28 | 1 << 29;

/// Starts a device as such a driver does: no selector is ever written, so version 1 is never accepted.
fn start(bench: &mut Bench, slot: u8, queues: u32) -> Vec<Ring> {
    for status in [0, 1, 3] {
        bench.set(slot, reg::STATUS, status);
    }
    let features = bench.get(slot, reg::DEVICE_FEATURES) & !STRUCK;
    bench.set(slot, reg::DRIVER_FEATURES, features);
    bench.set(slot, reg::STATUS, 3 | STATUS_FEATURES_OK);
    assert_ne!(bench.status(slot) & STATUS_FEATURES_OK, 0, "its features are accepted");
    let rings = (0..queues)
        .map(|queue| {
            bench.set(slot, reg::QUEUE_SEL, queue);
            assert_eq!(bench.get(slot, reg::QUEUE_READY), 0, "not in use");
            assert!(bench.get(slot, reg::QUEUE_NUM_MAX) >= 8);
            bench.set_up(slot, queue, 8)
        })
        .collect();
    bench.set(slot, reg::STATUS, 3 | STATUS_FEATURES_OK | 4);
    rings
}

#[test]
fn a_driver_that_does_not_accept_version_1_and_looks_for_qemus_vendor_reads_and_writes_its_disk() {
    let mut bench = bench();
    let identity = [0, 4, 8, 0xc].map(|register| bench.get(DISK, register));
    assert_eq!(identity, [0x7472_6976, 2, 2, 0x554d_4551]);
    let mut ring = start(&mut bench, DISK, 1).remove(0);
    for write in [true, false] {
        let mut header = [0; 16];
        (header[0], header[8]) = (u8::from(write), 2);
        let data = if write { bench.full(&[7; 1024]) } else { bench.empty(1024) };
        let bufs = [bench.full(&header), data, bench.empty(1)];
        let head = ring.offer_and_kick(&mut bench, &bufs);
        let (request, op) = bench.disk_requests().remove(0);
        match op {
            DiskOp::Write { offset: 1024, data } if write => assert_eq!(data, [7; 1024]),
            DiskOp::Read { offset: 1024, len: 1024 } if !write => {}
            op => panic!("asked for {op:?}"),
        }
        let back = if write { vec![] } else { vec![9; 1024] };
        bench.disk_done(DISK, request, &back);
        assert_eq!(bench.bytes(bufs[2]), [0], "done well");
        assert!(ring.take_used(&bench).iter().any(|(used, _)| *used == head));
        // The handler acknowledges what it has read, no more.
        let asked = bench.get(DISK, reg::INTERRUPT_STATUS);
        bench.set(DISK, reg::INTERRUPT_ACK, asked & 3);
        assert_eq!(bench.get(DISK, reg::INTERRUPT_STATUS), 0);
    }
}

#[test]
fn a_network_driver_that_does_not_accept_version_1_has_the_short_header_before_its_frames() {
    let mut bench = bench();
    let mut rings = start(&mut bench, NET, 2);
    let frame: Vec<u8> = (0..60).collect();
    let buf = bench.empty(10 + 60);
    rings[0].offer_and_kick(&mut bench, &[buf]);
    bench.apply(&Input::Packet { slot: NET, frame: frame.clone() });
    assert_eq!(bench.bytes(buf), [&[0; 10][..], &frame].concat());
    let out = bench.full(&[&[0; 10][..], &frame].concat());
    rings[1].offer_and_kick(&mut bench, &[out]);
    assert_eq!(bench.outputs(), [Output::Packet { slot: NET, frame }]);
}
