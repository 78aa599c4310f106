//! The judged: Pollux's computer, in this process.

use crate::record::{RAM_BASE, RAM_BYTES, RECORDS};
use pollux_jit::{CODE_BYTES, Jit};
use pollux_riscv::{Boot, Computer, Config, Machine, Stop};
use pollux_vocab::{GuestAddr, Icount, Output};

/// Steps in which any batch is through.
const STEPS_MAX: u64 = 50_000_000;

/// How the computer is run. It must not show (DESIGN 2.1, 2.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Manner {
    /// In one go.
    Straight,
    /// Stopped now and then, every cache dropped.
    Forgetful,
    /// By the JIT, which translates all of it.
    Translated,
    /// By the JIT of a host without FMA3 and popcnt.
    TranslatedPlainly,
    /// By the JIT, stopped now and then, every cache dropped.
    TranslatedForgetful,
}

/// Steps between stops of the forgetful manner: no multiple of anything in the harness.
const STEPS_BETWEEN: u64 = 3989;

/// Boots `image` and returns the memory it leaves.
pub(crate) fn run(image: &[u8], manner: Manner) -> Vec<u8> {
    let config = Config {
        ram_bytes: RAM_BYTES as u64,
        harts: 1,
        devices: Vec::new(),
        rtc_base_ns: 0,
        ..Config::default()
    };
    let boot = Boot::Firmware { image, kernel: None, initrd: None, command_line: "" };
    let mut computer = Computer::new(&config, boot).expect("the image boots");
    let jit = match manner {
        Manner::Straight | Manner::Forgetful => None,
        Manner::Translated | Manner::TranslatedForgetful => Jit::eager(CODE_BYTES).ok(),
        Manner::TranslatedPlainly => Jit::baseline(CODE_BYTES).ok(),
    };
    if let Some(jit) = jit {
        computer.set_engine(Some(Box::new(jit)));
    }
    loop {
        let until = match manner {
            Manner::Straight | Manner::Translated | Manner::TranslatedPlainly => Icount(STEPS_MAX),
            Manner::Forgetful | Manner::TranslatedForgetful => computer.icount().after(STEPS_BETWEEN),
        };
        match computer.run(until) {
            Stop::Until if until.0 < STEPS_MAX => computer.clear_caches(),
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
