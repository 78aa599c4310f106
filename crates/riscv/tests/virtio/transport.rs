//! Registers, negotiation and reset (virtio 1.2, 2.1, 2.2, 3.1, 4.2).

use super::world::driver::*;
use super::{DISK, NET, NOTHING, RNG, TERMINAL, bench};
use pollux_riscv::board::VIRTIO_BASE;
use pollux_vocab::{Input, Output};

const OFFERED: u64 = F_VERSION_1 | 1 << 28;

fn negotiate(bench: &mut Bench, features: u64) -> u32 {
    bench.set(RNG, reg::STATUS, 0);
    bench.set(RNG, reg::STATUS, STATUS_ACKNOWLEDGED);
    for half in [0, 1] {
        bench.set(RNG, reg::DRIVER_FEATURES_SEL, half);
        bench.set(RNG, reg::DRIVER_FEATURES, (features >> (32 * half)) as u32);
    }
    bench.set(RNG, reg::STATUS, STATUS_ACKNOWLEDGED | STATUS_FEATURES_OK);
    bench.status(RNG)
}

#[test]
fn every_slot_says_what_it_is() {
    let mut bench = bench();
    for (slot, device) in [(DISK, 2), (NET, 1), (RNG, 4), (TERMINAL, 3), (NOTHING, 0)] {
        assert_eq!(bench.get(slot, 0), 0x7472_6976, "magic");
        assert_eq!(bench.get(slot, 4), 2, "version");
        assert_eq!(bench.get(slot, reg::DEVICE_ID), device);
    }
}

#[test]
fn registers_are_words_and_configuration_is_bytes() {
    let mut bench = bench();
    for (offset, bytes) in [(0, 1), (0, 2), (0, 8), (1, 4), (2, 4), (0x70, 8)] {
        assert_eq!(bench.load(VIRTIO_BASE + offset, bytes), None, "{bytes} bytes at {offset:#x}");
        assert_eq!(bench.store(VIRTIO_BASE + offset, bytes, 0), None);
    }
    for bytes in [1, 2, 4, 8] {
        assert!(bench.load(VIRTIO_BASE + reg::CONFIG, bytes).is_some());
        assert!(bench.load(VIRTIO_BASE + 0xff8, bytes).is_some());
        assert!(bench.store(VIRTIO_BASE + reg::CONFIG, bytes, u64::MAX).is_some());
    }
    assert_eq!(bench.get(DISK, reg::CONFIG), super::DISK_SECTORS as u32, "configuration is read-only");
    assert_eq!(bench.load(VIRTIO_BASE + 9 * 0x1000, 4), None, "behind the last slot");
}

#[test]
fn features_are_accepted_if_they_were_offered() {
    let mut bench = bench();
    for (features, accepted) in [
        (F_VERSION_1, true),
        (OFFERED, true),
        (0, true),
        (OFFERED & !F_VERSION_1, true),
        (OFFERED | 1, false),
        (OFFERED | 1 << 33, false),
        (OFFERED | 1 << 63, false),
    ] {
        let ok = negotiate(&mut bench, features) & STATUS_FEATURES_OK != 0;
        assert_eq!(ok, accepted, "features {features:#x}");
    }
}

#[test]
fn features_beyond_the_sixty_fourth_do_not_exist() {
    let mut bench = bench();
    bench.set(RNG, reg::DEVICE_FEATURES_SEL, 2);
    assert_eq!(bench.get(RNG, reg::DEVICE_FEATURES), 0);
    negotiate(&mut bench, F_VERSION_1);
    bench.set(RNG, reg::STATUS, 0);
    bench.set(RNG, reg::STATUS, STATUS_ACKNOWLEDGED);
    bench.set(RNG, reg::DRIVER_FEATURES_SEL, 1);
    bench.set(RNG, reg::DRIVER_FEATURES, 1);
    bench.set(RNG, reg::DRIVER_FEATURES_SEL, 2);
    bench.set(RNG, reg::DRIVER_FEATURES, 0xffff_ffff);
    bench.set(RNG, reg::STATUS, STATUS_ACKNOWLEDGED | STATUS_FEATURES_OK);
    assert_eq!(bench.status(RNG), STATUS_ACKNOWLEDGED | STATUS_FEATURES_OK);
}

#[test]
fn features_are_fixed_once_they_are_accepted() {
    let mut bench = bench();
    negotiate(&mut bench, F_VERSION_1);
    bench.set(RNG, reg::DRIVER_FEATURES_SEL, 0);
    bench.set(RNG, reg::DRIVER_FEATURES, 0xffff_ffff);
    bench.set(RNG, reg::STATUS, STATUS_LIVE);
    assert_eq!(bench.status(RNG), STATUS_LIVE);
}

#[test]
fn a_queue_takes_only_the_sizes_it_can_have() {
    let mut bench = bench();
    assert_eq!(bench.get(RNG, reg::QUEUE_NUM_MAX), 256);
    // A crooked size is not taken, so the size from before stays: here what reset left, the maximum.
    for size in [0u32, 3, 100, 257, 512, 65536, 0x1_0001, u32::MAX] {
        let mut ring = bench.start(RNG, 1, 256).remove(0);
        bench.set(RNG, reg::QUEUE_READY, 0);
        let again = bench.set_up(RNG, 0, 256);
        bench.set(RNG, reg::QUEUE_READY, 0);
        bench.set(RNG, reg::QUEUE_NUM, size);
        for (register, addr) in [(0x80, again.desc), (0x90, again.avail), (0xa0, again.used)] {
            bench.set(RNG, register, addr as u32);
        }
        bench.set(RNG, reg::QUEUE_READY, 1);
        let bufs: Vec<Buf> = (0..200).map(|_| bench.empty(1)).collect();
        for buf in bufs {
            ring.offer(&mut bench, &[buf]);
        }
        ring.kick(&mut bench);
        let asked = bench.outputs();
        assert_eq!(asked.len(), 200, "size {size}");
        // What is asked for is owed across resets: answered, it makes room for the next round.
        for output in asked {
            let Output::EntropyWanted { slot, request, .. } = output else { panic!("{output:?}") };
            bench.apply(&Input::Entropy { slot, request, bytes: vec![0] });
        }
    }
}

#[test]
fn queues_that_do_not_exist_read_as_zero_and_take_nothing() {
    let mut bench = bench();
    for (slot, queue) in [(RNG, 1), (RNG, u32::MAX), (NET, 2), (NOTHING, 0)] {
        bench.set(slot, reg::QUEUE_SEL, queue);
        assert_eq!(bench.get(slot, reg::QUEUE_NUM_MAX), 0);
        bench.set(slot, reg::QUEUE_READY, 1);
        assert_eq!(bench.get(slot, reg::QUEUE_READY), 0);
    }
    bench.start(NET, 2, 16);
    for queue in [2, 100, u32::MAX] {
        bench.set(NET, reg::QUEUE_NOTIFY, queue);
    }
    assert!(!bench.has_given_up(NET));
}

#[test]
fn a_queue_in_use_cannot_be_moved() {
    let mut bench = bench();
    let mut ring = bench.start(RNG, 1, 16).remove(0);
    for (register, value) in [(0x38, 4), (0x80, 0), (0x84, 1), (0x90, 0), (0x94, 1), (0xa0, 0), (0xa4, 1)] {
        bench.set(RNG, register, value);
    }
    let bufs = [bench.empty(1)];
    ring.offer_and_kick(&mut bench, &bufs);
    assert_eq!(bench.outputs().len(), 1);
    assert!(!bench.has_given_up(RNG));
}

#[test]
fn nothing_happens_before_the_driver_is_ready() {
    let mut bench = bench();
    let mut ring = bench.start(RNG, 1, 16).remove(0);
    for status in [1, STATUS_ACKNOWLEDGED, STATUS_ACKNOWLEDGED | STATUS_FEATURES_OK] {
        bench.set(RNG, reg::STATUS, status);
        let bufs = [bench.empty(1)];
        ring.offer_and_kick(&mut bench, &bufs);
        assert_eq!(bench.outputs(), []);
    }
    bench.set(RNG, reg::STATUS, STATUS_LIVE);
    ring.kick(&mut bench);
    assert_eq!(bench.outputs().len(), 3, "what was offered has waited");
}

#[test]
fn an_interrupt_stays_until_it_is_acknowledged() {
    let mut bench = bench();
    let (mut rings, buf) = (bench.start(TERMINAL, 2, 16), bench.full(b"x"));
    rings[1].offer_and_kick(&mut bench, &[buf]);
    assert_eq!(bench.get(TERMINAL, reg::INTERRUPT_STATUS), INTERRUPT_USED);
    assert!(bench.is_pending(TERMINAL));
    bench.set(TERMINAL, reg::INTERRUPT_ACK, INTERRUPT_CONFIG);
    assert_eq!(bench.get(TERMINAL, reg::INTERRUPT_STATUS), INTERRUPT_USED);
    bench.set(TERMINAL, reg::INTERRUPT_ACK, INTERRUPT_USED);
    assert_eq!(bench.get(TERMINAL, reg::INTERRUPT_STATUS), 0);
}

#[test]
fn a_driver_that_polls_is_not_interrupted() {
    let mut bench = bench();
    let (mut rings, buf) = (bench.start(TERMINAL, 2, 16), bench.full(b"x"));
    bench.ram.write_u16(pollux_vocab::GuestAddr(rings[1].avail), 1).unwrap();
    rings[1].offer_and_kick(&mut bench, &[buf]);
    assert_eq!(rings[1].take_used(&bench).len(), 1);
    assert_eq!(bench.get(TERMINAL, reg::INTERRUPT_STATUS), 0);
}

#[test]
fn a_reset_leaves_a_device_as_it_was_at_power_on() {
    let mut bench = bench();
    let fresh = bench.board.save();
    for (slot, queues) in [(DISK, 1), (NET, 2), (RNG, 1), (TERMINAL, 2)] {
        let mut rings = bench.start(slot, queues, 16);
        rings[0].offer_head(&mut bench.ram, 999);
        rings[0].kick(&mut bench);
        bench.set(slot, reg::STATUS, 0);
        assert_eq!((bench.status(slot), bench.get(slot, reg::INTERRUPT_STATUS)), (0, 0));
        // Selectors are not part of what a reset resets.
        for selector in [reg::DEVICE_FEATURES_SEL, reg::DRIVER_FEATURES_SEL, reg::QUEUE_SEL] {
            bench.set(slot, selector, 0);
        }
    }
    let section = |sections: &[(u16, u16, Vec<u8>)]| sections.last().unwrap().2.clone();
    assert_eq!(section(&bench.board.save()), section(&fresh));
}

#[test]
fn a_device_that_has_given_up_stays_so_until_it_is_reset() {
    let mut bench = bench();
    let mut ring = bench.start(RNG, 1, 16).remove(0);
    ring.offer_head(&mut bench.ram, 999);
    ring.kick(&mut bench);
    assert!(bench.has_given_up(RNG));
    bench.set(RNG, reg::STATUS, STATUS_LIVE);
    assert_eq!(bench.status(RNG), STATUS_LIVE | STATUS_NEEDS_RESET);
    let bufs = [bench.empty(1)];
    ring.offer_and_kick(&mut bench, &bufs);
    assert_eq!(bench.outputs(), []);
    let mut ring = bench.start(RNG, 1, 16).remove(0);
    ring.offer_and_kick(&mut bench, &bufs);
    assert_eq!(bench.outputs().len(), 1);
}

#[test]
fn a_driver_cannot_ask_for_needs_reset() {
    let mut bench = bench();
    bench.set(RNG, reg::STATUS, STATUS_ACKNOWLEDGED | STATUS_NEEDS_RESET);
    assert_eq!(bench.status(RNG), STATUS_ACKNOWLEDGED);
}
