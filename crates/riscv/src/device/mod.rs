//! The board's chips: registers and nothing else (LAYOUT: a chip holds no descriptor; it emits `Output`, it
//! receives `Input`).

pub mod clint;
pub mod finisher;
pub mod plic;
pub mod rtc;
pub mod uart;
