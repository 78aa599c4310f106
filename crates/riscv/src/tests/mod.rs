//! Tests of the whole computer, with programs assembled in place.

mod asm;
#[path = "../../../../tests/chance.rs"]
pub(crate) mod chance;
mod mmu;
mod run;
mod shortcut;
mod states;
mod uppers;

use crate::board::Board;
use crate::computer::Computer;
use crate::config::Config;
use crate::hart::Mode;
use crate::hart::pmp::Pmp;
use crate::ram::RAM_BASE;
use alloc::vec::Vec;
use pollux_machine::Machine;
use pollux_vocab::{GuestAddr, Icount};

/// A machine with this many harts, all about to execute `program` at the start of RAM in M-mode, memory
/// open to all modes.
pub(super) fn machine(harts: u32, program: &[u32]) -> Computer {
    let config =
        Config { ram_bytes: 8 << 20, harts, devices: Vec::new(), rtc_base_ns: 0, ..Config::default() };
    let mut computer = Computer::assemble(&config, Board::new(&config));
    put(&mut computer, RAM_BASE, program);
    for hart in &mut computer.harts {
        hart.pc = RAM_BASE;
        hart.mode = Mode::Machine;
        hart.pmp = Pmp::open();
        hart.x[10] = hart.csrs.hart_id;
        hart.refresh_contexts();
    }
    computer
}

/// Writes instructions to RAM.
fn put(computer: &mut Computer, addr: u64, program: &[u32]) {
    let bytes: Vec<u8> = program.iter().flat_map(|word| word.to_le_bytes()).collect();
    computer.ram.write(GuestAddr(addr), &bytes).expect("the program fits");
}

/// Runs this many steps more.
fn steps(computer: &mut Computer, count: u64) {
    let until = computer.icount().after(count);
    computer.run(until);
    assert_eq!(computer.icount(), until, "the machine stopped early");
}

/// An integer register of hart 0.
fn x(computer: &Computer, register: u32) -> u64 {
    computer.harts[0].x[register as usize]
}

/// The first icount that nothing in these tests reaches.
const FAR: Icount = Icount(1 << 40);
