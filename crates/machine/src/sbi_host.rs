//! The machine as its own SBI implementation: what [`sbi`](crate::sbi) needs of it.

use crate::computer::Computer;

impl Computer {
    /// Answers the `ecall` that the current hart has just executed.
    pub(crate) fn sbi_call(&mut self) {}
}
