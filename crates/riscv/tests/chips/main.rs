//! The board's chips, register by register, and the calls of the machine's own SBI. How they are reached: `bus`.

#[path = "../world/mod.rs"]
mod world;

mod bus;
mod clocks;
mod plic;
mod sbi;
mod uart;
