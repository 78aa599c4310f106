//! The interruptor and its timer, the real-time clock, the finisher.

use pollux_riscv::device::clint::Clint;
use pollux_riscv::device::finisher;
use pollux_riscv::device::rtc::Rtc;
use pollux_vocab::{Output, VirtTime};

const MTIMECMP: u64 = 0x4000;
const MTIME: u64 = 0xbff8;
/// 100 ns a tick.
const NOW: VirtTime = VirtTime(0x1_2345_6789 * 100 + 99);

#[test]
fn software_interrupts_are_one_bit_a_hart() {
    let mut clint = Clint::new(2);
    clint.write(4, 4, 0xffff_ffff).unwrap();
    assert_eq!((clint.msip(0), clint.msip(1)), (false, true));
    assert_eq!((clint.read(NOW, 0, 4), clint.read(NOW, 4, 4)), (Some(0), Some(1)));
    clint.write(4, 4, 0xffff_fffe).unwrap();
    assert!(!clint.msip(1));
    clint.write(8, 4, 1).unwrap();
    assert_eq!((clint.read(NOW, 8, 4), clint.msip(2)), (Some(0), false), "no third hart");
}

#[test]
fn the_time_is_the_clocks_and_nobody_can_set_it() {
    let mut clint = Clint::new(1);
    clint.write(MTIME, 8, 7).unwrap();
    assert_eq!(clint.read(NOW, MTIME, 8), Some(0x1_2345_6789));
    assert_eq!(clint.read(NOW, MTIME, 4), Some(0x2345_6789));
    assert_eq!(clint.read(NOW, MTIME + 4, 4), Some(1));
    assert_eq!(clint.read(VirtTime(u64::MAX), MTIME, 8), Some(u64::MAX / 100));
}

#[test]
fn timers_are_set_whole_or_by_halves() {
    let mut clint = Clint::new(2);
    assert_eq!(clint.mtimecmp(0), u64::MAX, "not armed at reset");
    clint.write(MTIMECMP, 8, 0x1122_3344_5566_7788).unwrap();
    clint.write(MTIMECMP + 8, 4, 0xffff_ffff_0000_0001).unwrap();
    clint.write(MTIMECMP + 12, 4, 2).unwrap();
    assert_eq!((clint.mtimecmp(0), clint.mtimecmp(1)), (0x1122_3344_5566_7788, 0x2_0000_0001));
    clint.write(MTIMECMP + 8, 4, 3).unwrap();
    assert_eq!(clint.mtimecmp(1), 0x2_0000_0003, "the high half stays");
    assert_eq!(clint.read(NOW, MTIMECMP, 8), Some(0x1122_3344_5566_7788));
    assert_eq!(clint.read(NOW, MTIMECMP, 4), Some(0x5566_7788));
    assert_eq!(clint.read(NOW, MTIMECMP + 4, 4), Some(0x1122_3344));
    clint.write(MTIMECMP + 16, 8, 5).unwrap();
    assert_eq!((clint.read(NOW, MTIMECMP + 16, 8), clint.mtimecmp(2)), (Some(0), u64::MAX), "no third hart");
}

#[test]
fn the_interruptor_takes_aligned_words_and_doublewords() {
    let mut clint = Clint::new(1);
    for (offset, bytes) in [(0, 1), (0, 2), (2, 4), (MTIMECMP + 4, 8), (MTIME + 1, 4)] {
        assert_eq!((clint.read(NOW, offset, bytes), clint.write(offset, bytes, 1)), (None, None));
    }
    assert_eq!(clint.read(NOW, 0xfffc, 4), Some(0));
}

#[test]
fn reading_the_low_half_of_the_time_latches_the_high_half() {
    let mut rtc = Rtc::new(0xffff_ffff);
    let (before, after) = (VirtTime(0), VirtTime(1));
    assert_eq!(rtc.read(before, 0), 0xffff_ffff);
    assert_eq!(rtc.read(after, 4), 0, "of the instant at which the low half was read");
    assert_eq!((rtc.read(after, 0), rtc.read(after, 4)), (0, 1));
}

#[test]
fn a_set_clock_goes_on_from_there() {
    let mut rtc = Rtc::new(1_700_000_000_000_000_000);
    rtc.write(VirtTime(1000), 4, 3);
    rtc.write(VirtTime(1000), 0, 0xffff_fff0);
    assert_eq!((rtc.read(VirtTime(1000), 0), rtc.read(VirtTime(1000), 4)), (0xffff_fff0, 3));
    assert_eq!((rtc.read(VirtTime(1016), 0), rtc.read(VirtTime(1016), 4)), (0, 4));
    // Earlier than the machine has been running, and at the end of all numbers.
    rtc.write(VirtTime(u64::MAX), 4, 0);
    rtc.write(VirtTime(u64::MAX), 0, 5);
    assert_eq!((rtc.read(VirtTime(u64::MAX), 0), rtc.read(VirtTime(u64::MAX), 4)), (5, 0));
}

#[test]
fn the_alarm_reads_back() {
    let mut rtc = Rtc::new(0);
    for (offset, value) in [(8, 0x1234_5678), (0xc, 0x9abc), (0x10, 1)] {
        rtc.write(NOW, offset, value);
        assert_eq!(rtc.read(NOW, offset), value);
    }
    rtc.write(NOW, 0x10, 2);
    assert_eq!(rtc.read(NOW, 0x10), 0);
    assert_eq!((rtc.read(NOW, 0x14), rtc.read(NOW, 0x18), rtc.read(NOW, 0xffc)), (0, 0, 0));
}

#[test]
fn the_finisher_passes_fails_and_resets() {
    let off = |status| Some(Output::PowerOff { status });
    assert_eq!(finisher::output_of(0, 0x5555), off(0));
    assert_eq!(finisher::output_of(0, 0x1234_5555), off(0), "a pass has no status");
    assert_eq!(finisher::output_of(0, 0x0001_3333), off(1));
    assert_eq!(finisher::output_of(0, 0xffff_3333), off(65535));
    assert_eq!(finisher::output_of(0, 0xaaaa_0007_3333), off(7), "the register has 32 bits");
    assert_eq!(finisher::output_of(0, 0x7777), Some(Output::Reset));
    for (offset, value) in [(0, 0), (0, 1), (0, 0x5554), (0, 0x5555_0000), (4, 0x5555), (0xffc, 0x7777)] {
        assert_eq!(finisher::output_of(offset, value), None, "{value:#x} at {offset:#x}");
    }
}
