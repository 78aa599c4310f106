//! The bare-metal programs (guests/isa-tests, guests/bench) on the interpreter and on the JIT, step for step: whatever
//! pieces runs are cut into, both machines have the same digest at every cut.

// Elsewhere there is no JIT to hold against the interpreter.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod pair;

use pair::Pair;
use pollux_riscv::Machine;
use pollux_vocab::Output;

const BENCH: &[u8] = include_bytes!("../../../guests/bench/bench.elf");

macro_rules! programs {
    ($($name:ident $file:literal $harts:literal;)*) => {$(
        #[test]
        fn $name() {
            let image = include_bytes!(concat!("../../../guests/isa-tests/", $file, ".elf"));
            let firmware = |pieces, cold| Pair::firmware(image, $harts, "rounds=2").passes(pieces, cold);
            firmware(1, false);
            firmware(997, false);
            firmware(100_000, true);
        }
    )*};
}

programs! {
    exceptions_in_the_middle_of_a_block_are_exact "traps" 1;
    delegated_traps_are_exact "delegation" 1;
    translation_and_its_changes_are_seen "sv39" 1;
    timers_go_off_at_the_exact_step "timer" 1;
    changed_code_is_what_runs "smc" 1;
    atomics_are_atomic "atomics" 1;
    misaligned_accesses_are_taken "misaligned" 1;
    four_harts_take_turns_as_they_do_interpreted "harts" 4;
}

#[test]
fn the_benchmark_is_the_same_in_machine_mode_and_as_a_kernel() {
    Pair::firmware(BENCH, 1, "rounds=1").passes(1_000_003, false);
    Pair::kernel(BENCH, 2, "rounds=1").passes(300_007, true);
}

#[test]
fn a_machine_that_begins_again_in_place_has_nothing_translated_left() {
    let image = include_bytes!("../../../guests/reboot/reboot.elf");
    for piece in [9_973, 100_000] {
        let mut pair = Pair::restarting(image);
        while pair.interpreted.restarts() < 8 {
            pair.advance(piece, false);
            while let Some(output) = pair.interpreted.take_output() {
                assert_eq!(Some(&output), pair.translated.take_output().as_ref());
                assert!(matches!(output, Output::Console { .. }), "{output:?}");
            }
        }
        assert_eq!(pair.translated.restarts(), pair.interpreted.restarts());
    }
}
