//! Boot files: kernels, firmware, initial RAM disks, command lines.
//!
//! Input: a byte that says what the file is given as, then the file. Held true: no panic; a machine that is made
//! takes its first steps.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pollux_fuzz::Choices;
use pollux_riscv::{Boot, Computer, Config, DeviceConfig, Machine};
use pollux_vocab::Icount;

/// Steps that a machine is run for: into the file, not through it.
const STEPS: u64 = 200;

fuzz_target!(|bytes: &[u8]| {
    let mut choices = Choices(bytes);
    let how = choices.u8();
    let device = DeviceConfig::Block { bytes: 1 << 20, read_only: how & 64 != 0, serial: "fuzz".into() };
    let config = Config {
        ram_bytes: [8, 4, 2, 6][usize::from(how >> 4 & 3)] << 20,
        harts: 1 + u32::from(how >> 7),
        devices: vec![device],
        rtc_base_ns: 0,
        ..Config::default()
    };
    let (start, end) = choices.0.split_at(choices.0.len() / 2);
    let text = String::from_utf8_lossy(end);
    let image = choices.0;
    let boot = match how & 7 {
        0 | 1 => Boot::Kernel { image, initrd: None, command_line: "console=ttyS0" },
        2 => Boot::Kernel { image: start, initrd: Some(end), command_line: "" },
        3 => Boot::Kernel { image: start, initrd: None, command_line: &text },
        4 => Boot::Firmware { image, kernel: None, initrd: None, command_line: "" },
        5 => Boot::Firmware { image: &[0x13, 0, 0, 0], kernel: Some(image), initrd: None, command_line: "" },
        6 => Boot::Firmware { image: start, kernel: Some(end), initrd: None, command_line: "" },
        _ => Boot::Firmware { image: start, kernel: Some(end), initrd: Some(start), command_line: &text },
    };
    if let Ok(mut machine) = Computer::new(&config, boot) {
        machine.run(Icount(STEPS));
        machine.digest();
    }
});
