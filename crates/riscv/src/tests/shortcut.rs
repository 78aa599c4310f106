//! What engines need not enter the inner loop for, and what they must.

use super::asm::r::*;
use super::asm::*;
use super::{machine, steps, x};
use crate::computer::Computer;
use crate::hart::csr::status;
use crate::hart::shortcut;
use crate::ram::{PAGE, RAM_BASE};
use pollux_machine::Machine;

/// Where a page begins that is written, and the one before it.
const BOUNDARY: u64 = RAM_BASE + 0x10_0000;
const LOAD: u64 = RAM_BASE + 8;
const STORE: u64 = RAM_BASE + 12;
const ADD: u64 = RAM_BASE + 16;
/// `fadd.d f3, f1, f2`, rounding down.
const FADD_D_DOWN: u32 = 0x0220_a1d3;

/// A machine that has executed all of a loop over two pages twice.
fn warm() -> Computer {
    let mut m =
        machine(1, &[auipc(T0, 0x100), nop(), ld(A1, -3, T0), sd(S0, -5, T0), FADD_D_DOWN, jal(ZERO, -12)]);
    m.harts[0].x[S0 as usize] = 0x0102_0304_0506_0708;
    m.harts[0].csrs.mstatus |= status::FS;
    steps(&mut m, 10);
    m
}

fn shortcut(m: &mut Computer, pc: u64) -> bool {
    shortcut::execute(&mut m.harts[0], &mut m.ram, &m.code, pc)
}

#[test]
fn what_lies_across_two_known_pages_is_no_step_of_the_loop() {
    let mut m = warm();
    let before = m.icount();
    m.harts[0].x[A1 as usize] = 0;
    assert!(shortcut(&mut m, LOAD));
    assert_eq!(x(&m, A1), 0x0102_0304_0506, "what the store has left of itself, from its third byte on");
    m.harts[0].x[S0 as usize] = u64::MAX;
    assert!(shortcut(&mut m, STORE) && shortcut(&mut m, LOAD));
    assert_eq!(x(&m, A1), u64::MAX >> 16);
    assert_eq!(m.icount(), before, "who executes counts");
}

#[test]
fn an_access_with_more_to_it_is_left_to_the_loop() {
    let mut m = warm();
    m.digest();
    assert!(!shortcut(&mut m, STORE), "somebody wants to know of stores to these pages");
    assert!(shortcut(&mut m, LOAD));
    m.harts[0].x[T0 as usize] = BOUNDARY + PAGE as u64;
    assert!(!shortcut(&mut m, LOAD), "the second page is not known");
    m.harts[0].x[T0 as usize] = BOUNDARY + 64;
    assert!(!shortcut(&mut m, LOAD), "all of it lies in one page");
    m.clear_caches();
    m.harts[0].x[T0 as usize] = BOUNDARY;
    assert!(!shortcut(&mut m, LOAD), "nobody knows what the instruction is");
}

#[test]
fn floating_point_that_only_computes_is_no_step_of_the_loop() {
    let mut m = warm();
    (m.harts[0].f[1], m.harts[0].f[2]) = (1f64.to_bits(), f64::MIN_POSITIVE.to_bits());
    assert!(shortcut(&mut m, ADD));
    assert_eq!((m.harts[0].f[3], m.harts[0].csrs.fflags), (1f64.to_bits(), 1));
    m.harts[0].csrs.mstatus &= !status::FS;
    assert!(!shortcut(&mut m, ADD), "it traps");
}
