//! The bare-metal tests and the benchmark (guests/isa-tests, guests/bench) on the computer. QEMU, the oracle, runs the
//! same files through `guests/isa-tests/run-qemu.sh`.
//!
//! Each runs once straight through and once cut into odd pieces with cold caches: the end must be the same (DESIGN 2.1).

use pollux_riscv::{Boot, Computer, Config, Machine, Stop};
use pollux_vocab::{ClockRate, Icount, Input, Output};

const STEPS_MAX: u64 = 400_000_000;
const BENCH: &[u8] = include_bytes!("../../../guests/bench/bench.elf");

fn machine(image: &[u8], harts: u32, as_kernel: bool) -> Computer {
    let config = Config { ram_bytes: 32 << 20, harts, devices: vec![], rtc_base_ns: 0, ..Config::default() };
    let command_line = "rounds=2";
    let boot = if as_kernel {
        Boot::Kernel { image, initrd: None, command_line }
    } else {
        Boot::Firmware { image, kernel: None, initrd: None, command_line }
    };
    Computer::new(&config, boot).expect("a machine")
}

/// Runs in pieces to the end; what it showed, and how it ended.
fn run(machine: &mut Computer, piece: u64, cold: bool) -> (String, Option<i32>) {
    let (mut shown, mut status) = (String::new(), None);
    while machine.icount().0 < STEPS_MAX {
        let until = machine.icount().after(piece);
        match machine.run(until) {
            Stop::Idle { wake: Some(time) } => {
                machine.apply(&Input::Clock { time, rate: ClockRate::default() })
            }
            Stop::Idle { wake: None } | Stop::Halted => break,
            Stop::Until | Stop::Output => {}
        }
        if cold {
            machine.clear_caches();
        }
        while let Some(output) = machine.take_output() {
            match output {
                Output::Console { bytes, .. } => shown.push_str(&String::from_utf8_lossy(&bytes)),
                Output::PowerOff { status: code } => status = Some(code),
                _ => {}
            }
        }
    }
    (shown, status)
}

fn passes(image: &[u8], harts: u32) {
    let mut whole = machine(image, harts, false);
    let (_, status) = run(&mut whole, STEPS_MAX, false);
    assert_eq!(status, Some(0), "the step that failed");
    let mut pieces = machine(image, harts, false);
    assert_eq!(run(&mut pieces, 997, true).1, Some(0));
    assert_eq!(whole.icount(), pieces.icount());
    assert_eq!(whole.digest(), pieces.digest());
}

macro_rules! tests {
    ($($name:ident $file:literal $harts:literal;)*) => {$(
        #[test]
        fn $name() {
            passes(include_bytes!(concat!("../../../guests/isa-tests/", $file, ".elf")), $harts);
        }
    )*};
}

tests! {
    exceptions_leave_behind_what_the_specification_says "traps" 1;
    delegated_traps_go_to_supervisor_mode "delegation" 1;
    sv39_translates_checks_and_marks "sv39" 1;
    both_timers_go_off_and_wake "timer" 1;
    changed_code_is_what_runs "smc" 1;
    atomics_are_atomic "atomics" 1;
    misaligned_accesses_are_taken "misaligned" 1;
    four_harts_count_together "harts" 4;
    eight_harts_count_together "harts" 8;
}

/// The lines of the benchmark without its times.
fn checksums(shown: &str) -> Vec<&str> {
    shown.lines().filter_map(|line| line.strip_suffix(" us")?.rsplit_once(' ').map(|split| split.0)).collect()
}

#[test]
fn the_benchmark_computes_the_same_in_both_modes() {
    // As QEMU prints them for `rounds=2`.
    let wanted = [
        "bench: sieve cbcce05a0",
        "bench: matrix 272e590df18b46f",
        "bench: sort 28cc15b785569372",
        "bench: crc b566db5a0",
        "bench: chase 3ffe31d3e00000",
    ];
    for as_kernel in [false, true] {
        let mut machine = machine(BENCH, 2, as_kernel);
        let (shown, status) = run(&mut machine, STEPS_MAX, false);
        assert_eq!((checksums(&shown).as_slice(), status), (wanted.as_slice(), Some(0)), "{shown}");
        assert!(machine.icount() < Icount(STEPS_MAX));
    }
}
