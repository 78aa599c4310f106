//! How the chips are reached: addresses, widths, interrupt lines, the machine's last word.

use super::world::driver::Bench;
use pollux_riscv::board::*;
use pollux_riscv::{DeviceConfig, RAM_BASE};
use pollux_vocab::{ConsoleId, Input, Output};

const MSI: u64 = 1 << 3;
const SEI: u64 = 1 << 9;
const MEI: u64 = 1 << 11;

fn bench() -> Bench {
    Bench::new(vec![DeviceConfig::Console])
}

fn typed(bytes: &[u8]) -> Input {
    Input::Console { console: ConsoleId::Uart, bytes: bytes.to_vec() }
}

#[test]
fn between_the_devices_there_is_nothing() {
    let mut bench = bench();
    let edges = [
        0,
        ROM_BASE - 1,
        ROM_BASE + 0xf000,
        FINISHER_BASE - 1,
        RTC_BASE + 0x1000,
        CLINT_BASE - 1,
        CLINT_BASE + 0x1_0000,
        PLIC_BASE - 1,
        PLIC_BASE + 0x60_0000,
        UART_BASE - 1,
        UART_BASE + 0x100,
        VIRTIO_BASE - 1,
        VIRTIO_BASE + 9 * 0x1000,
        RAM_BASE - 1,
        RAM_BASE,
        u64::MAX,
    ];
    for addr in edges {
        for bytes in [1, 2, 4, 8] {
            assert_eq!(bench.load(addr, bytes), None, "{addr:#x}");
            assert_eq!(bench.store(addr, bytes, 1), None, "{addr:#x}");
        }
    }
}

#[test]
fn no_width_at_any_windows_end_is_a_panic() {
    let mut bench = bench();
    for end in [ROM_BASE + 0xf000, FINISHER_BASE + 0x1000, RTC_BASE + 0x1000, CLINT_BASE + 0x1_0000]
        .into_iter()
        .chain([PLIC_BASE + 0x60_0000, UART_BASE + 0x100, VIRTIO_BASE + 0x1000, VIRTIO_BASE + 0x8000])
    {
        for (addr, bytes) in (end - 8..end).flat_map(|addr| [(addr, 1), (addr, 2), (addr, 4), (addr, 8)]) {
            let _ = (bench.load(addr, bytes), bench.store(addr, bytes, u64::MAX));
        }
    }
}

#[test]
fn rom_is_read_only() {
    let mut bench = bench();
    assert_eq!(bench.load(ROM_BASE, 8), Some(0));
    assert_eq!(bench.store(ROM_BASE, 8, 1), None);
}

#[test]
fn bytes_of_one_instant_leave_as_one_output() {
    let mut bench = bench();
    b"hi".iter().for_each(|byte| _ = bench.store(UART_BASE, 1, u64::from(*byte)));
    assert_eq!(bench.outputs(), [Output::Console { console: ConsoleId::Uart, bytes: b"hi".to_vec() }]);
}

#[test]
fn typing_interrupts_the_hart_that_asked_for_it() {
    let mut bench = bench();
    bench.set_word(PLIC_BASE + 4 * UART_SOURCE as u64, 1);
    // Hart 0 takes it in S-mode, hart 1 in M-mode.
    for context in [1, 2] {
        bench.set_word(PLIC_BASE + 0x2000 + 0x80 * context, 1 << UART_SOURCE);
    }
    bench.apply(&typed(b"x"));
    assert_eq!(bench.board.interrupts(0), 0, "the UART's own enable is off");
    bench.store(UART_BASE + 1, 1, 1);
    assert_eq!((bench.board.interrupts(0), bench.board.interrupts(1)), (SEI, MEI));
    assert_eq!(bench.word(PLIC_BASE + 0x20_1004), UART_SOURCE as u32);
    assert_eq!((bench.board.interrupts(0), bench.board.interrupts(1)), (0, 0));
    bench.load(UART_BASE, 1);
    bench.set_word(PLIC_BASE + 0x20_1004, UART_SOURCE as u32);
    assert_eq!(bench.board.interrupts(0), 0, "nothing is left to read");
}

#[test]
fn a_hart_interrupts_another() {
    let mut bench = bench();
    bench.set_word(CLINT_BASE + 4, 1);
    assert_eq!((bench.board.interrupts(0), bench.board.interrupts(1)), (0, MSI));
}

#[test]
fn the_last_word_is_said_once() {
    let mut bench = bench();
    bench.set_word(FINISHER_BASE, 0x0003_3333);
    bench.set_word(FINISHER_BASE, 0x7777);
    bench.apply(&Input::PowerButton);
    assert!(bench.board.halted());
    assert_eq!(bench.outputs(), [Output::PowerOff { status: 3 }]);
    bench.save_and_restore();
    assert!(bench.board.halted());
}

#[test]
fn a_power_button_that_nobody_listens_to_is_an_orderly_end() {
    let mut bench = bench();
    bench.apply(&Input::PowerButton);
    assert_eq!(bench.outputs(), [Output::PowerOff { status: 0 }]);
}

/// xv6-riscv's handler as it was for years: claims, reads what was typed, writes nothing, completes; the cause it never
/// reads.
#[test]
fn a_driver_that_neither_reads_nor_clears_the_transmitters_interrupt_is_not_asked_for_ever() {
    let mut bench = bench();
    let context = PLIC_BASE + 0x20_1000;
    bench.set_word(PLIC_BASE + 4 * UART_SOURCE as u64, 1);
    bench.set_word(PLIC_BASE + 0x2080, 1 << UART_SOURCE);
    bench.store(UART_BASE + 1, 1, 3);
    for round in 0..3 {
        bench.store(UART_BASE, 1, u64::from(b'x'));
        for expected in [UART_SOURCE as u32, 0] {
            let claimed = bench.word(context + 4);
            assert_eq!(claimed, expected, "one interrupt for each time it became empty, round {round}");
            assert_eq!(bench.load(UART_BASE + 5, 1), Some(0x60));
            bench.set_word(context + 4, claimed);
        }
    }
    // What is typed goes on asking until it is read.
    bench.apply(&typed(b"ab"));
    for _ in 0..2 {
        assert_eq!(bench.word(context + 4), UART_SOURCE as u32);
        bench.load(UART_BASE, 1);
        bench.set_word(context + 4, UART_SOURCE as u32);
    }
    assert_eq!(bench.word(context + 4), 0);
}
