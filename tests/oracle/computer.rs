//! The judged: Pollux's computer, in this process.

use crate::record::{RAM_BASE, RAM_BYTES, RECORDS};
use pollux_machine::{Boot, Computer, Config, Machine, Stop};
use pollux_vocab::{GuestAddr, Icount, Output};

/// Steps in which any batch is through.
const STEPS_MAX: u64 = 50_000_000;

/// Boots `image` and returns the memory it leaves.
pub(crate) fn run(image: &[u8]) -> Vec<u8> {
    let config = Config { ram_bytes: RAM_BYTES as u64, harts: 1, devices: Vec::new(), rtc_base_ns: 0 };
    let boot = Boot::Firmware { image, kernel: None, initrd: None, command_line: "" };
    let mut computer = Computer::new(&config, boot).expect("the image boots");
    loop {
        match computer.run(Icount(STEPS_MAX)) {
            Stop::Output => {
                while let Some(output) = computer.take_output() {
                    if let Output::PowerOff { status } = output {
                        assert!(status == 0 || status == 0x5555, "the harness reported {status}");
                    }
                }
            }
            Stop::Halted => break,
            stop => {
                eprintln!("Pollux did not finish: {stop:?} at icount {}", computer.icount());
                break;
            }
        }
    }
    let length = image.len().max(RECORDS) as u64;
    computer.ram().slice(GuestAddr(RAM_BASE), length).expect("the image lies in RAM").to_vec()
}
