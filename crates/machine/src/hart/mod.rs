//! One hardware thread: its state, and how it executes.
pub mod fp;
