//! The machine's own SBI (RISC-V SBI specification 2.0), as a supervisor finds it: values and error codes.

use pollux_riscv::sbi::{End, Host, SbiRet, handle};

const TIME: u64 = 0x5449_4d45;
const IPI: u64 = 0x73_5049;
const RFENCE: u64 = 0x5246_4e43;
const HSM: u64 = 0x48_534d;
const SRST: u64 = 0x5352_5354;
const DBCN: u64 = 0x4442_434e;
const NOT_SUPPORTED: i64 = -2;
const INVALID_PARAM: i64 = -3;
const INVALID_ADDRESS: i64 = -5;
const ALREADY_AVAILABLE: i64 = -6;
/// Performance monitoring, which this SBI does not have.
const PMU: u64 = 0x50_4d55;
const MEMORY: u64 = 0x1000;

/// Four harts, of which the last two are stopped, and 8 KiB of memory from [`MEMORY`] on.
struct Fake {
    did: Vec<String>,
    typed: Vec<u8>,
    memory: Vec<u8>,
}

impl Host for Fake {
    fn hart_count(&self) -> u64 {
        4
    }
    fn set_timer(&mut self, hart: usize, ticks: u64) {
        self.did.push(format!("timer {hart} {ticks}"));
    }
    fn raise_software_interrupt(&mut self, hart: usize) {
        self.did.push(format!("interrupt {hart}"));
    }
    fn is_stopped(&self, hart: usize) -> bool {
        hart >= 2
    }
    fn start(&mut self, hart: usize, addr: u64, opaque: u64) {
        self.did.push(format!("start {hart} {addr:#x} {opaque}"));
    }
    fn stop(&mut self, hart: usize) {
        self.did.push(format!("stop {hart}"));
    }
    fn suspend(&mut self, hart: usize) {
        self.did.push(format!("suspend {hart}"));
    }
    fn is_ram(&self, addr: u64) -> bool {
        (MEMORY..MEMORY + 8192).contains(&addr)
    }
    fn read_memory(&self, addr: u64, to: &mut [u8]) -> bool {
        let at = addr.wrapping_sub(MEMORY) as usize;
        let from = at.checked_add(to.len()).and_then(|end| self.memory.get(at..end));
        from.is_some_and(|from| {
            to.copy_from_slice(from);
            true
        })
    }
    fn write_memory(&mut self, addr: u64, from: &[u8]) -> bool {
        let at = addr.wrapping_sub(MEMORY) as usize;
        let to = at.checked_add(from.len()).and_then(|end| self.memory.get_mut(at..end));
        to.is_some_and(|to| {
            to.copy_from_slice(from);
            true
        })
    }
    fn console_write(&mut self, bytes: &[u8]) {
        self.did.push(format!("show {}", String::from_utf8_lossy(&bytes[..bytes.len().min(8)])));
    }
    fn console_read(&mut self) -> Option<u8> {
        (!self.typed.is_empty()).then(|| self.typed.remove(0))
    }
    fn end(&mut self, how: End) {
        self.did.push(format!("{how:?}"));
    }
}

fn fake() -> Fake {
    let memory = (0..8192u32).map(|i| b'a' + (i % 26) as u8).collect();
    Fake { did: Vec::new(), typed: Vec::new(), memory }
}

fn ok(value: u64) -> SbiRet {
    SbiRet { error: 0, value, legacy: false }
}

fn error(error: i64) -> SbiRet {
    SbiRet { error, value: 0, legacy: false }
}

/// A call of hart 1, and what it did.
fn call(eid: u64, fid: u64, args: [u64; 3]) -> (SbiRet, Vec<String>) {
    let mut fake = fake();
    let answer = handle(&mut fake, 1, eid, fid, [args[0], args[1], args[2], 0, 0, 0]);
    (answer, fake.did)
}

fn does(eid: u64, fid: u64, args: [u64; 3], did: &[&str]) {
    let (answer, really) = call(eid, fid, args);
    assert_eq!(
        (answer, really.as_slice()),
        (ok(0), did.iter().map(|d| d.to_string()).collect::<Vec<_>>().as_slice())
    );
}

fn refuses(eid: u64, fid: u64, args: [u64; 3], code: i64) {
    assert_eq!(call(eid, fid, args), (error(code), vec![]), "extension {eid:#x} function {fid} {args:#x?}");
}

#[test]
fn the_base_extension_tells_what_there_is() {
    assert_eq!(call(0x10, 0, [0; 3]).0, ok(2 << 24), "version 2.0");
    for eid in [0, 1, 2, 8, 0x10, TIME, IPI, RFENCE, HSM, SRST, DBCN] {
        assert_eq!(call(0x10, 3, [eid, 0, 0]).0, ok(1), "{eid:#x}");
    }
    for eid in [3, 4, 5, 6, 7, 9, PMU, 0x5355_5350, u64::MAX] {
        assert_eq!(call(0x10, 3, [eid, 0, 0]).0, ok(0), "{eid:#x}");
    }
    (4..=6).for_each(|fid| assert_eq!(call(0x10, fid, [0; 3]).0, ok(0)));
}

#[test]
fn what_does_not_exist_is_not_supported() {
    for (eid, fid) in
        [(0x10, 7), (TIME, 1), (IPI, 1), (RFENCE, 3), (RFENCE, 6), (HSM, 4), (SRST, 1), (DBCN, 3)]
            .into_iter()
            .chain([(PMU, 0), (9, 0), (3, 0), (u64::MAX, 0), (TIME, u64::MAX), (HSM, u64::MAX)])
    {
        refuses(eid, fid, [0; 3], NOT_SUPPORTED);
    }
}

#[test]
fn a_timer_is_the_callers_own() {
    does(TIME, 0, [77, 0, 0], &["timer 1 77"]);
}

#[test]
fn interrupts_go_to_the_harts_of_the_mask() {
    does(IPI, 0, [0b1010, 0, 0], &["interrupt 1", "interrupt 3"]);
    does(IPI, 0, [0b11, 2, 0], &["interrupt 2", "interrupt 3"]);
    does(IPI, 0, [0, u64::MAX, 0], &["interrupt 0", "interrupt 1", "interrupt 2", "interrupt 3"]);
    does(IPI, 0, [0, 1000, 0], &[]);
    for (mask, first) in [(0b1_0000, 0), (1, 4), (1 << 63, 0), (1, u64::MAX - 1), (0b11, 3), (u64::MAX, 0)] {
        refuses(IPI, 0, [mask, first, 0], INVALID_PARAM);
    }
}

#[test]
fn remote_fences_are_over_before_they_begin() {
    for fid in 0..=2 {
        does(RFENCE, fid, [0b1111, 0, 0], &[]);
        does(RFENCE, fid, [0, u64::MAX, 0], &[]);
        refuses(RFENCE, fid, [0b1_0000, 0, 0], INVALID_PARAM);
    }
}

#[test]
fn only_a_stopped_hart_is_started_and_only_in_memory() {
    does(HSM, 0, [3, MEMORY, 9], &["start 3 0x1000 9"]);
    refuses(HSM, 0, [4, MEMORY, 0], INVALID_PARAM);
    refuses(HSM, 0, [u64::MAX, MEMORY, 0], INVALID_PARAM);
    refuses(HSM, 0, [0, MEMORY, 0], ALREADY_AVAILABLE);
    refuses(HSM, 0, [1, MEMORY, 0], ALREADY_AVAILABLE);
    refuses(HSM, 0, [2, 0, 0], INVALID_ADDRESS);
    refuses(HSM, 0, [2, u64::MAX, 0], INVALID_ADDRESS);
}

#[test]
fn harts_tell_their_state_stop_and_sleep() {
    assert_eq!((call(HSM, 2, [0; 3]).0, call(HSM, 2, [2, 0, 0]).0), (ok(0), ok(1)));
    refuses(HSM, 2, [4, 0, 0], INVALID_PARAM);
    does(HSM, 1, [0; 3], &["stop 1"]);
    does(HSM, 3, [0; 3], &["suspend 1"]);
    refuses(HSM, 3, [0x8000_0000, MEMORY, 0], NOT_SUPPORTED);
    for kind in [1, 0x0fff_ffff, 0x8000_0001, u64::MAX] {
        refuses(HSM, 3, [kind, 0, 0], INVALID_PARAM);
    }
}

#[test]
fn the_machine_ends_as_it_is_told() {
    does(SRST, 0, [0, 0, 0], &["PowerOff { failed: false }"]);
    does(SRST, 0, [0, 1, 0], &["PowerOff { failed: true }"]);
    does(SRST, 0, [1, 0, 0], &["Reset"]);
    does(SRST, 0, [2, 1, 0], &["Reset"]);
    for (how, why) in [(3, 0), (0xf000_0000, 0), (u64::MAX, 0), (0, 2), (1, 0xe000_0000), (1, u64::MAX)] {
        refuses(SRST, 0, [how, why, 0], INVALID_PARAM);
    }
}

#[test]
fn the_debug_console_writes_what_lies_in_memory() {
    assert_eq!(call(DBCN, 0, [3, MEMORY, 0]), (ok(3), vec!["show abc".to_owned()]));
    assert_eq!(call(DBCN, 0, [100_000, MEMORY, 0]).0, ok(4096), "as much as one call moves");
    assert_eq!(call(DBCN, 0, [u64::MAX, MEMORY, 0]).0, ok(4096));
    refuses(DBCN, 0, [3, 0, 0], INVALID_PARAM);
    refuses(DBCN, 0, [3, MEMORY + 8190, 0], INVALID_PARAM);
    refuses(DBCN, 0, [3, u64::MAX, 0], INVALID_PARAM);
    refuses(DBCN, 0, [3, MEMORY, 1], INVALID_PARAM);
    does(DBCN, 2, [0x1_0041, 0, 0], &["show A"]);
}

#[test]
fn the_debug_console_reads_what_was_typed_and_loses_nothing() {
    let mut fake = fake();
    fake.typed = b"hello".to_vec();
    let mut read = |length, addr, high| handle(&mut fake, 0, DBCN, 1, [length, addr, high, 0, 0, 0]);
    for (addr, high) in [(0, 0), (MEMORY + 8190, 0), (u64::MAX, 0), (MEMORY, 1)] {
        assert_eq!(read(3, addr, high), error(INVALID_PARAM));
    }
    assert_eq!(read(3, MEMORY, 0), ok(3));
    assert_eq!(read(3, MEMORY + 3, 0), ok(2));
    assert_eq!(read(3, MEMORY + 5, 0), ok(0));
    assert_eq!(&fake.memory[..6], b"hellof");
}

#[test]
fn legacy_calls_answer_in_one_register() {
    let legacy = |error| SbiRet { error, value: 0, legacy: true };
    assert_eq!(call(0, 5, [77, 0, 0]), (legacy(0), vec!["timer 1 77".to_owned()]));
    assert_eq!(call(1, 0, [0x41, 0, 0]), (legacy(0), vec!["show A".to_owned()]));
    assert_eq!(call(2, 0, [0; 3]), (legacy(-1), vec![]));
    assert_eq!(call(8, 0, [0; 3]), (legacy(0), vec!["PowerOff { failed: false }".to_owned()]));
    let mut fake = fake();
    fake.typed = vec![0xff];
    assert_eq!(handle(&mut fake, 0, 2, 0, [0; 6]), legacy(255));
}
