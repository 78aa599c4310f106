//! Tests of the whole computer, with programs assembled in place.

mod asm;
mod bench;

use crate::board::Board;
use crate::computer::Computer;
use crate::config::Config;
use crate::hart::Mode;
use crate::ram::RAM_BASE;
use alloc::vec::Vec;
use pollux_vocab::GuestAddr;

/// A machine with this many harts, all about to execute `program` at the start of RAM in M-mode.
pub(super) fn machine(harts: u32, program: &[u32]) -> Computer {
    let config = Config { ram_bytes: 8 << 20, harts, devices: Vec::new(), rtc_base_ns: 0 };
    let mut computer = Computer::assemble(&config, Board::new(&config));
    let bytes: Vec<u8> = program.iter().flat_map(|word| word.to_le_bytes()).collect();
    computer.ram.write(GuestAddr(RAM_BASE), &bytes).expect("the program fits");
    for hart in &mut computer.harts {
        hart.pc = RAM_BASE;
        hart.mode = Mode::Machine;
        hart.x[10] = hart.csrs.hart_id;
        hart.refresh_contexts();
    }
    computer
}
