//! Two machines of the same build, one interpreted and one translated, that are taken the same way.

#![allow(dead_code, unreachable_pub, reason = "every test file uses a part of this")]

use pollux_jit::Jit;
use pollux_riscv::{Boot, Computer, Config, Machine, OnReset, Stop};
use pollux_vocab::{ClockRate, Input, Output};

/// Where a program that does not end is given up.
const STEPS_MAX: u64 = 400_000_000;
/// Little code memory, so that it fills up.
pub const CODE_BYTES: usize = 4 << 20;

pub fn jit() -> Option<Box<Jit>> {
    // Elsewhere than on x86-64 there is none, and nothing to compare.
    Jit::eager(CODE_BYTES).ok().map(Box::new)
}

pub struct Pair {
    pub interpreted: Computer,
    pub translated: Computer,
}

impl Pair {
    pub fn new(config: &Config, boot: impl Fn() -> Boot<'static>) -> Self {
        let machine = || Computer::new(config, boot()).expect("a machine");
        let mut translated = machine();
        if let Some(jit) = jit() {
            translated.set_engine(Some(jit));
        }
        Self { interpreted: machine(), translated }
    }

    fn config(harts: u32) -> Config {
        Config { ram_bytes: 32 << 20, harts, devices: vec![], rtc_base_ns: 0, ..Config::default() }
    }

    pub fn firmware(image: &'static [u8], harts: u32, command_line: &'static str) -> Self {
        Self::new(&Self::config(harts), || Boot::Firmware { image, kernel: None, initrd: None, command_line })
    }

    pub fn kernel(image: &'static [u8], harts: u32, command_line: &'static str) -> Self {
        Self::new(&Self::config(harts), || Boot::Kernel { image, initrd: None, command_line })
    }

    /// A guest whose resets begin another life.
    pub fn restarting(image: &'static [u8]) -> Self {
        let config = Config { on_reset: OnReset::Restart, ..Self::config(1) };
        Self::new(&config, || Boot::Kernel { image, initrd: None, command_line: "" })
    }

    /// Lets both run to the same step, where they must be the same; returns why they stopped.
    pub fn advance(&mut self, steps: u64, cold: bool) -> Stop {
        let until = self.interpreted.icount().after(steps);
        let mut stop = self.interpreted.run(until);
        while stop == Stop::Until && self.interpreted.icount() < until {
            stop = self.interpreted.run(until);
        }
        let mut other = self.translated.run(until);
        // An engine may stop for outputs only where the interpreter does; both report all of them.
        while other == Stop::Until && self.translated.icount() < until {
            other = self.translated.run(until);
        }
        assert_eq!((stop, self.interpreted.icount()), (other, self.translated.icount()));
        assert_eq!(
            self.interpreted.digest(),
            self.translated.digest(),
            "at step {} of runs to step {until}",
            self.interpreted.icount()
        );
        if cold {
            self.translated.clear_caches();
        }
        stop
    }

    pub fn apply(&mut self, input: &Input) {
        self.interpreted.apply(input);
        self.translated.apply(input);
    }

    /// Runs a program in pieces to its end, which must be a good one.
    pub fn passes(mut self, piece: u64, cold: bool) {
        let mut status = None;
        while self.interpreted.icount().0 < STEPS_MAX {
            match self.advance(piece, cold) {
                Stop::Idle { wake: Some(time) } => {
                    self.apply(&Input::Clock { time, rate: ClockRate::default() });
                }
                Stop::Idle { wake: None } | Stop::Halted => break,
                Stop::Until | Stop::Output => {}
            }
            while let Some(output) = self.interpreted.take_output() {
                assert_eq!(Some(&output), self.translated.take_output().as_ref());
                if let Output::PowerOff { status: code } = output {
                    status = Some(code);
                }
            }
        }
        assert_eq!(status, Some(0));
    }
}
