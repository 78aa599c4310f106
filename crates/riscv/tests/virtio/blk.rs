//! The disk (virtio 1.2, 5.2).

use super::world::driver::*;
use super::{DISK, DISK_SECTORS, READ_ONLY, bench};
use pollux_riscv::DeviceConfig;
use pollux_vocab::{DiskOp, DiskStatus, Input};

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;
const MIB_SECTORS: u32 = 2048;
/// What a buffer holds that the device has not written.
const UNTOUCHED: u8 = 0xee;

fn header(kind: u32, sector: u64) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat()
}

fn sectors(count: usize, byte: u8) -> Vec<u8> {
    vec![byte; count * 512]
}

/// A live disk, one queue.
struct Disk {
    bench: Bench,
    ring: Ring,
}

impl Disk {
    fn new() -> Self {
        let mut bench = bench();
        let ring = bench.start(DISK, 1, 256).remove(0);
        Self { bench, ring }
    }

    /// A request as one readable and one writable buffer; where the answer will be.
    fn ask(&mut self, readable: &[u8], writable: u32) -> Buf {
        let bufs = [self.bench.full(readable), self.bench.empty(writable)];
        self.ring.offer_and_kick(&mut self.bench, &bufs);
        bufs[1]
    }

    fn write(&mut self, sector: u64, data: &[u8]) -> Buf {
        self.ask(&[&header(OUT, sector), data].concat(), 1)
    }

    fn read(&mut self, sector: u64, count: u32) -> Buf {
        self.ask(&header(IN, sector), count * 512 + 1)
    }

    fn flush(&mut self) -> Buf {
        self.ask(&header(FLUSH, 0), 1)
    }

    /// The numbers of the requests that the world has been told of since the last look.
    fn issued(&mut self) -> Vec<u64> {
        self.bench.disk_requests().into_iter().map(|(request, _)| request).collect()
    }

    fn done(&mut self, request: u64, data: &[u8]) {
        self.bench.disk_done(DISK, request, data);
    }

    fn status(&self, answer: Buf) -> u8 {
        *self.bench.bytes(answer).last().unwrap()
    }

    /// A request that never reaches the world: its status.
    fn refused(&mut self, readable: &[u8], writable: u32) -> u8 {
        let answer = self.ask(readable, writable);
        assert_eq!(self.issued(), []);
        assert_eq!(self.ring.take_used(&self.bench).len(), 1);
        self.status(answer)
    }
}

#[test]
fn the_configuration_tells_the_disks_size() {
    let mut bench = bench();
    assert_eq!(bench.get(DISK, reg::CONFIG), DISK_SECTORS as u32);
    assert_eq!(bench.get(DISK, reg::CONFIG + 12), 126, "seg_max");
    assert_eq!(bench.get(DISK, reg::CONFIG + 20), 512, "blk_size");
    for (slot, read_only) in [(DISK, 0), (READ_ONLY, 1)] {
        bench.set(slot, reg::DEVICE_FEATURES_SEL, 0);
        assert_eq!(bench.get(slot, reg::DEVICE_FEATURES) >> 5 & 1, read_only);
        assert_eq!(bench.get(slot, reg::DEVICE_FEATURES) >> 9 & 1, 1, "flush");
        let zeroing = bench.get(slot, reg::DEVICE_FEATURES) >> 13 & 3;
        assert_eq!(zeroing, if read_only == 1 { 0 } else { 3 }, "discard, write zeroes");
    }
    let limits: Vec<u32> = (36..60).step_by(4).map(|at| bench.get(DISK, reg::CONFIG + at)).collect();
    assert_eq!(
        limits,
        [64 * MIB_SECTORS, 1, 1, 64 * MIB_SECTORS, 1, 1],
        "sectors, segments, alignment; may unmap"
    );
}

#[test]
fn a_write_may_lie_in_many_segments_of_any_length() {
    let mut disk = Disk::new();
    let data: Vec<u8> = (0..1024u32).map(|i| i as u8).collect();
    let head = header(OUT, 3);
    // The layout of segments means nothing (2.6.4): even the header may be split.
    let parts = [&head[..5], &head[5..], &data[..1], &data[1..1000], &[], &data[1000..]];
    let mut bufs: Vec<Buf> = parts.iter().map(|part| disk.bench.full(part)).collect();
    let answer = disk.bench.empty(1);
    bufs.push(answer);
    let head = disk.ring.offer_and_kick(&mut disk.bench, &bufs);
    assert_eq!(disk.bench.disk_requests(), [(0, DiskOp::Write { offset: 3 * 512, data })]);
    assert_eq!(disk.status(answer), UNTOUCHED);
    disk.done(0, &[]);
    assert_eq!(disk.ring.take_used(&disk.bench), [(head, 1)]);
    assert_eq!(disk.status(answer), OK);
}

#[test]
fn what_is_read_is_scattered_and_the_status_comes_last() {
    let mut disk = Disk::new();
    let bufs = [
        disk.bench.full(&header(IN, 7)),
        disk.bench.empty(500),
        disk.bench.empty(0),
        disk.bench.empty(12),
        disk.bench.empty(1),
    ];
    let head = disk.ring.offer_and_kick(&mut disk.bench, &bufs);
    assert_eq!(disk.bench.disk_requests(), [(0, DiskOp::Read { offset: 7 * 512, len: 512 })]);
    let data: Vec<u8> = (0..512u32).map(|i| (i / 3) as u8).collect();
    disk.done(0, &data);
    assert_eq!(disk.ring.take_used(&disk.bench), [(head, 513)]);
    let parts: Vec<u8> = bufs[1..].iter().flat_map(|buf| disk.bench.bytes(*buf).to_vec()).collect();
    assert_eq!(parts, [&data[..], &[OK]].concat());
}

#[test]
fn data_is_copied_out_at_the_kick_and_in_at_the_completion() {
    let mut disk = Disk::new();
    let bufs = [disk.bench.full(&header(OUT, 0)), disk.bench.full(&sectors(1, 1)), disk.bench.empty(1)];
    disk.ring.offer_and_kick(&mut disk.bench, &bufs);
    // Too late for the guest to change its mind (DESIGN 2.5).
    disk.bench.ram.write(pollux_vocab::GuestAddr(bufs[1].addr), &sectors(1, 2)).unwrap();
    assert_eq!(disk.bench.disk_requests(), [(0, DiskOp::Write { offset: 0, data: sectors(1, 1) })]);
}

#[test]
fn requests_that_touch_different_sectors_are_in_flight_together_and_may_overtake_each_other() {
    let mut disk = Disk::new();
    let answers = [disk.write(0, &sectors(2, 1)), disk.read(2, 1), disk.write(3, &sectors(1, 2))];
    assert_eq!(disk.issued(), [0, 1, 2]);
    assert_eq!(disk.bench.board.pending().len(), 3);
    for request in [2, 0] {
        disk.done(request, &[]);
    }
    disk.done(1, &sectors(1, 9));
    let heads: Vec<u16> = disk.ring.take_used(&disk.bench).iter().map(|used| used.0).collect();
    assert_eq!(heads, [4, 0, 2]);
    assert!(answers.iter().all(|answer| disk.status(*answer) == OK));
    assert_eq!(disk.bench.board.pending(), []);
}

#[test]
fn overlapping_requests_are_serialised_in_the_drivers_order() {
    let mut disk = Disk::new();
    disk.write(10, &sectors(2, 1));
    disk.read(11, 2); // overlaps the write's second sector
    disk.write(12, &sectors(1, 2)); // overlaps the read
    disk.read(10, 1); // overlaps the first write, but not the second
    assert_eq!(disk.issued(), [0]);
    assert_eq!(disk.bench.board.pending().len(), 1, "the others have not been issued");
    disk.done(0, &[]);
    assert_eq!(disk.issued(), [1, 3]);
    disk.done(1, &sectors(2, 1));
    assert_eq!(disk.issued(), [2]);
}

#[test]
fn neighbours_do_not_wait_for_each_other() {
    let mut disk = Disk::new();
    for sector in [5, 6, 4, 0, 2] {
        disk.write(sector, &sectors(if sector == 2 { 2 } else { 1 }, 1));
    }
    assert_eq!(disk.issued(), [0, 1, 2, 3, 4]);
}

#[test]
fn reads_of_the_same_sectors_do_not_wait_for_each_other() {
    let mut disk = Disk::new();
    disk.read(5, 4);
    disk.read(5, 4);
    assert_eq!(disk.issued(), [0, 1]);
}

#[test]
fn a_flush_waits_for_the_writes_before_it_and_holds_nothing_up() {
    let mut disk = Disk::new();
    disk.write(0, &sectors(1, 1));
    disk.read(9, 1);
    let flush = disk.flush();
    disk.write(5, &sectors(1, 2));
    assert_eq!(disk.issued(), [0, 1, 3]);
    disk.done(3, &[]);
    assert_eq!(disk.issued(), [], "a write behind the flush is not what it waits for");
    disk.done(0, &[]);
    assert_eq!(disk.bench.disk_requests(), [(2, DiskOp::Flush)]);
    disk.done(2, &[]);
    assert_eq!(disk.status(flush), OK);
}

#[test]
fn requests_of_other_kinds_and_shapes_get_their_status() {
    let mut disk = Disk::new();
    for kind in [2, 3, 5, 12, 14, u32::MAX] {
        assert_eq!(disk.refused(&header(kind, 0), 1), UNSUPP, "kind {kind}");
    }
    assert_eq!(disk.refused(&[&header(OUT, 0)[..], &[0; 511]].concat(), 1), IOERR, "not whole sectors");
    assert_eq!(disk.refused(&header(IN, 0), 512), IOERR, "no room for the status behind a whole sector");
    assert_eq!(disk.refused(&header(OUT, 0), 1), IOERR, "nothing to write");
    assert_eq!(disk.refused(&header(IN, 0), 1), IOERR, "nothing to read");
    assert!(!disk.bench.has_given_up(DISK));
}

/// A request to discard, or to write zeros.
fn zeros(kind: u32, sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [&header(kind, 0)[..], &sector.to_le_bytes(), &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
}

#[test]
fn a_discard_asks_for_zeros_and_so_does_a_write_of_zeros() {
    for (kind, flags, unmap) in [(DISCARD, 0, true), (WRITE_ZEROES, 0, false), (WRITE_ZEROES, 1, true)] {
        let mut disk = Disk::new();
        let answer = disk.ask(&zeros(kind, 8, 16, flags), 1);
        let wanted = DiskOp::Zero { offset: 8 * 512, len: 16 * 512, unmap };
        assert_eq!(disk.bench.disk_requests(), [(0, wanted)]);
        disk.done(0, &[]);
        assert_eq!(disk.status(answer), OK);
    }
}

#[test]
fn zeros_and_whatever_overlaps_them_are_serialised_and_a_flush_waits_for_them() {
    let mut disk = Disk::new();
    disk.ask(&zeros(DISCARD, 8, 16, 0), 1);
    disk.write(23, &sectors(1, 1));
    disk.read(8, 1);
    disk.write(24, &sectors(1, 1));
    disk.flush();
    assert_eq!(disk.issued(), [0, 3]);
    disk.bench.save_and_restore();
    disk.done(0, &[]);
    assert_eq!(disk.issued(), [1, 2]);
    disk.ask(&zeros(WRITE_ZEROES, 8, 1, 0), 1);
    assert_eq!(disk.issued(), [], "the read is still under way");
}

#[test]
fn zeros_that_make_no_sense_get_their_status() {
    let mut disk = Disk::new();
    assert_eq!(disk.refused(&zeros(DISCARD, 0, 1, 1), 1), UNSUPP, "no flag has a meaning here");
    assert_eq!(disk.refused(&zeros(WRITE_ZEROES, 0, 1, 2), 1), UNSUPP);
    assert_eq!(disk.refused(&zeros(DISCARD, 0, 0, 0), 1), IOERR, "nothing");
    assert_eq!(disk.refused(&zeros(DISCARD, DISK_SECTORS - 1, 2, 0), 1), IOERR, "beyond the end");
    assert_eq!(disk.refused(&zeros(DISCARD, u64::MAX, 2, 0), 1), IOERR);
    assert_eq!(disk.refused(&zeros(DISCARD, 0, u32::MAX, 0), 1), IOERR);
    assert_eq!(disk.refused(&header(DISCARD, 0), 1), IOERR, "no segment");
    let two = [zeros(DISCARD, 0, 1, 0), vec![0; 16]].concat();
    assert_eq!(disk.refused(&two, 1), IOERR, "two segments");
    let mut bench = bench();
    let mut ring = bench.start(READ_ONLY, 1, 64).remove(0);
    let bufs = [bench.full(&zeros(DISCARD, 0, 1, 0)), bench.empty(1)];
    ring.offer_and_kick(&mut bench, &bufs);
    assert_eq!(bench.bytes(bufs[1]), [IOERR], "of a read-only disk");
}

#[test]
fn no_request_reaches_beyond_the_disks_end() {
    let mut disk = Disk::new();
    let last = DISK_SECTORS - 1;
    for sector in [DISK_SECTORS, u64::MAX, u64::MAX / 512, 1 << 55, (1 << 55) + 1] {
        assert_eq!(disk.refused(&header(IN, sector), 513), IOERR, "sector {sector}");
        assert_eq!(disk.refused(&[&header(OUT, sector)[..], &[0; 512]].concat(), 1), IOERR);
    }
    assert_eq!(disk.refused(&header(IN, last), 1025), IOERR, "the second sector is beyond the end");
    disk.read(last, 1);
    assert_eq!(disk.issued(), [0]);
}

#[test]
fn a_read_only_disk_refuses_writes_and_serves_reads() {
    let mut bench = bench();
    let mut ring = bench.start(READ_ONLY, 1, 64).remove(0);
    let bufs = [bench.full(&[&header(OUT, 0)[..], &[0; 512]].concat()), bench.empty(1)];
    ring.offer_and_kick(&mut bench, &bufs);
    assert_eq!(bench.bytes(bufs[1]), [IOERR]);
    let bufs = [bench.full(&header(IN, 0)), bench.empty(513)];
    ring.offer_and_kick(&mut bench, &bufs);
    assert_eq!(bench.disk_requests(), [(0, DiskOp::Read { offset: 0, len: 512 })]);
}

#[test]
fn the_serial_is_padded_with_zeros_or_cut() {
    let mut disk = Disk::new();
    let answer = disk.ask(&header(GET_ID, 0), 21);
    assert_eq!(disk.bench.bytes(answer), b"a serial\0\0\0\0\0\0\0\0\0\0\0\0\0");
    let answer = disk.ask(&header(GET_ID, 0), 4);
    assert_eq!(disk.bench.bytes(answer), b"a s\0");
    // No NUL at its end if there is no room for one (5.2.6.1).
    let serial = "0123456789abcdefghijklmnop".to_owned();
    let mut bench = Bench::new(vec![DeviceConfig::Block { bytes: 512, read_only: false, serial }]);
    let mut ring = bench.start(DISK, 1, 4).remove(0);
    let bufs = [bench.full(&header(GET_ID, 0)), bench.empty(21)];
    ring.offer_and_kick(&mut bench, &bufs);
    assert_eq!(bench.bytes(bufs[1]), b"0123456789abcdefghij\0");
}

#[test]
fn a_request_without_room_for_header_or_status_breaks_the_device() {
    for (readable, writable) in [(16, 0), (15, 1), (0, 1), (600, 0)] {
        let mut disk = Disk::new();
        let bufs = [disk.bench.full(&vec![0; readable]), disk.bench.empty(writable)];
        disk.ring.offer_and_kick(&mut disk.bench, &bufs);
        assert!(disk.bench.has_given_up(DISK), "{readable} bytes to read, {writable} to write");
        assert_eq!(disk.issued(), []);
    }
}

#[test]
fn answers_that_nobody_waits_for_do_nothing() {
    let mut disk = Disk::new();
    let first = disk.read(0, 1);
    disk.write(0, &sectors(1, 1));
    assert_eq!(disk.issued(), [0]);
    // One that has not been issued, and two that do not exist.
    for request in [1, 2, u64::MAX] {
        disk.done(request, &[]);
    }
    assert_eq!(disk.ring.take_used(&disk.bench), []);
    disk.done(0, &sectors(1, 5));
    assert_eq!(disk.bench.bytes(first)[..512], sectors(1, 5));
    disk.done(0, &sectors(1, 6));
    assert_eq!(disk.bench.bytes(first)[..512], sectors(1, 5), "a second answer to the same request");
    assert_eq!(disk.ring.take_used(&disk.bench).len(), 1);
}

#[test]
fn a_failed_or_crooked_answer_is_an_io_error_and_writes_no_data() {
    let mut disk = Disk::new();
    for (status, len) in
        [(DiskStatus::IoError, 0), (DiskStatus::IoError, 512), (DiskStatus::Ok, 511), (DiskStatus::Ok, 513)]
    {
        let answer = disk.read(0, 1);
        let request = disk.issued()[0];
        disk.bench.apply(&Input::DiskDone { slot: DISK, request, status, data: vec![1; len] });
        assert_eq!(disk.status(answer), IOERR);
        assert!(disk.bench.bytes(answer)[..512].iter().all(|byte| *byte == UNTOUCHED));
        assert_eq!(disk.ring.take_used(&disk.bench)[0].1, 1);
    }
}

#[test]
fn a_reset_forgets_who_waits_but_not_what_the_host_still_does_and_numbers_are_not_used_again() {
    let mut disk = Disk::new();
    let stale = disk.read(0, 1);
    disk.write(0, &sectors(1, 1));
    assert_eq!(disk.issued(), [0]);
    disk.ring = disk.bench.start(DISK, 1, 64).remove(0);
    assert_eq!(disk.bench.board.pending().len(), 1, "what was never issued is forgotten whole");
    disk.done(0, &sectors(1, 7));
    assert_eq!(disk.bench.board.pending(), []);
    assert!(disk.bench.bytes(stale).iter().all(|byte| *byte == UNTOUCHED), "an answer from before the reset");
    assert_eq!(disk.ring.take_used(&disk.bench), []);
    let fresh = disk.read(0, 1);
    assert_eq!(disk.issued(), [2]);
    disk.done(0, &sectors(1, 7));
    assert_eq!(disk.status(fresh), UNTOUCHED);
    disk.done(2, &sectors(1, 8));
    assert_eq!(disk.status(fresh), OK);
}

#[test]
fn a_guest_that_resets_its_disk_makes_the_host_hold_no_more_than_one_that_does_not() {
    let mut disk = Disk::new();
    let (read, mib) = (disk.bench.full(&header(IN, 0)), disk.bench.empty(1 << 20));
    let (flush, status) = (disk.bench.full(&header(FLUSH, 0)), disk.bench.empty(1));
    let sixteen_mib = [&[read][..], &[mib; 16], &[status]].concat();
    let mut open = 0;
    for _ in 0..10 {
        (0..6).for_each(|_| _ = disk.ring.offer(&mut disk.bench, &sixteen_mib));
        disk.ring.kick(&mut disk.bench);
        open += disk.issued().len();
        disk.ring = disk.bench.start(DISK, 1, 256).remove(0);
    }
    assert_eq!(open, 4, "64 MiB, whatever the guest does to its device");
    (0..4).for_each(|request| disk.done(request, &vec![7; 16 << 20]));
    assert_eq!(disk.bench.board.pending(), []);
    assert!(disk.bench.bytes(mib).iter().all(|byte| *byte == UNTOUCHED));
    let mut open = 0;
    for _ in 0..10 {
        (0..100).for_each(|_| _ = disk.ring.offer(&mut disk.bench, &[flush, status]));
        disk.ring.kick(&mut disk.bench);
        open += disk.issued().len();
        disk.ring = disk.bench.start(DISK, 1, 256).remove(0);
    }
    assert_eq!(open, 256, "requests without data are counted, too");
}

#[test]
fn what_was_begun_before_a_reset_makes_room_when_it_is_done_and_still_orders_what_comes_later() {
    let mut disk = Disk::new();
    disk.write(3, &sectors(1, 1));
    assert_eq!(disk.issued(), [0]);
    disk.ring = disk.bench.start(DISK, 1, 64).remove(0);
    disk.write(3, &sectors(1, 2));
    disk.write(9, &sectors(1, 3));
    assert_eq!(disk.issued(), [2], "the same sector again waits for what the disk still does");
    disk.bench.save_and_restore();
    disk.done(0, &[]);
    assert_eq!(disk.issued(), [1]);
    assert_eq!(disk.ring.take_used(&disk.bench), []);
}

#[test]
fn an_answer_that_finds_no_driver_is_heard_all_the_same() {
    let mut disk = Disk::new();
    disk.write(3, &sectors(1, 1));
    disk.bench.set(DISK, reg::STATUS, 0);
    disk.done(0, &[]);
    assert_eq!(disk.bench.board.pending(), []);
    disk.ring = disk.bench.start(DISK, 1, 64).remove(0);
    disk.write(3, &sectors(1, 1));
    disk.ring.offer_head(&mut disk.bench.ram, 60_000);
    disk.ring.kick(&mut disk.bench);
    assert!(disk.bench.has_given_up(DISK));
    disk.done(1, &[]);
    assert_eq!(disk.bench.board.pending(), []);
}

#[test]
fn what_does_not_fit_in_flight_waits_in_the_queue() {
    // Segments may share memory, so a guest with little of it can ask for much.
    let mut disk = Disk::new();
    let (head, mib) = (disk.bench.full(&header(IN, 0)), disk.bench.empty(1 << 20));
    let full = [&[head][..], &[mib; 16], &[disk.bench.empty(1)]].concat();
    (0..6).for_each(|_| _ = disk.ring.offer(&mut disk.bench, &full));
    disk.ring.kick(&mut disk.bench);
    assert_eq!(disk.issued(), [0, 1, 2, 3], "16 MiB each, 64 MiB in all");
    disk.ring.kick(&mut disk.bench);
    assert_eq!(disk.issued(), []);
    disk.done(2, &vec![7; 16 << 20]);
    assert_eq!(disk.issued(), [4], "an answer makes room, and nobody has to kick");
    assert_eq!(disk.bench.bytes(mib), vec![7; 1 << 20]);
}

#[test]
fn a_request_has_a_longest_length() {
    let mut disk = Disk::new();
    let (head, mib) = (disk.bench.full(&header(IN, 0)), disk.bench.empty(1 << 20));
    let answer = disk.bench.empty(513);
    disk.ring.offer_and_kick(&mut disk.bench, &[&[head][..], &[mib; 16], &[answer]].concat());
    assert_eq!((disk.issued(), disk.status(answer)), (vec![], IOERR));
}

#[test]
fn a_saved_and_restored_disk_answers_what_it_was_asked_before() {
    let mut disk = Disk::new();
    let answers = [disk.write(0, &sectors(1, 1)), disk.read(0, 1)];
    disk.issued();
    let pending = disk.bench.board.pending();
    disk.bench.save_and_restore();
    assert_eq!(disk.bench.board.pending(), pending);
    disk.done(0, &[]);
    assert_eq!(disk.issued(), [1]);
    disk.done(1, &sectors(1, 1));
    assert_eq!(answers.map(|answer| disk.status(answer)), [OK, OK]);
}
