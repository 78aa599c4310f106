//! Tests that need more than one crate, or a program from outside. Nothing lives here: each test is a target
//! of its own, `oracle` (QEMU judges the computer) among them.
