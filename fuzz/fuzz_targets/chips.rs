//! The chips without queues against a hostile guest: UART, PLIC, CLINT, RTC, test finisher, reset ROM.
//!
//! Held true: no panic at any access of any width; a halted machine says nothing more about itself; one access says
//! one thing at most; a board restored from its own state reads the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pollux_fuzz::Choices;
use pollux_riscv::board::{Board, CLINT_BASE, FINISHER_BASE, PLIC_BASE, ROM_BASE, RTC_BASE, UART_BASE};
use pollux_riscv::{Config, DeviceConfig, Ram};
use pollux_vocab::{ConsoleId, Input, VirtTime};

/// Accesses of one story.
const DEEDS_MAX: usize = 400;
/// Chips, and the part of each window that has registers (the rest is reached now and then).
const CHIPS: [(u64, u64); 8] = [
    (UART_BASE, 8),
    (PLIC_BASE, 0x3000),
    (PLIC_BASE + 0x20_0000, 0x4000),
    (CLINT_BASE, 0x40),
    (CLINT_BASE + 0x4000, 0x8000),
    (RTC_BASE, 0x20),
    (FINISHER_BASE, 8),
    (ROM_BASE, 0x100),
];

fuzz_target!(|bytes: &[u8]| {
    let mut choices = Choices(bytes);
    let harts = 1 + choices.below(8) as u32;
    let devices = vec![DeviceConfig::Rng, DeviceConfig::Console];
    let config = Config { ram_bytes: 4096, harts, devices, rtc_base_ns: choices.u64(), ..Config::default() };
    let (mut board, mut ram) = (Board::new(&config), Ram::new(4096));
    let mut now = VirtTime(0);
    for _ in 0..DEEDS_MAX {
        if choices.is_empty() {
            break;
        }
        let deed = choices.u8();
        let (base, len) = CHIPS[usize::from(deed >> 5)];
        let addr = match deed >> 3 & 3 {
            3 => base.wrapping_add(choices.u64() % 0x100_0000),
            2 => base + choices.below(len),
            _ => base + choices.below(len) / 4 * 4,
        };
        let width = [4, 1, 8, 2][usize::from(choices.u8() & 3)];
        match deed & 7 {
            0..3 => _ = board.write(&mut ram, now, addr, width, u64::from(choices.u8())),
            3 => _ = board.write(&mut ram, now, addr, width, choices.u64()),
            4 => _ = board.read(&mut ram, now, addr, width),
            5 => {
                let bytes = choices.piece().to_vec();
                board.apply(&mut ram, now, &Input::Console { console: ConsoleId::Uart, bytes });
                assert!(board.console_room(ConsoleId::Uart) <= 1 << 16);
            }
            6 => now = VirtTime(now.0.saturating_add(choices.u64() >> choices.below(64))),
            _ => board = Board::restore(&config, board.save()).expect("its own state"),
        }
        for hart in 0..=harts as usize {
            let _ = (board.interrupts(hart), board.mtimecmp(hart));
        }
        assert!(board.outputs.len() <= 1, "{:?}", board.outputs);
        board.outputs.clear();
    }
});
