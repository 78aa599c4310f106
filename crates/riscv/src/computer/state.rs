//! What belongs to the machine as a whole, to no hart and to no device, as it is saved.

use super::Computer;
use crate::state::{ClockV1, Saved, fields};
use pollux_vocab::Clock;

fields!(
    /// Version 2. (In version 1 turns were shorter, and a lone hart gave its own away.)
    MachineV2 {
        clock: ClockV1,
        icount: u64,
        current: u32,
        quantum_left: u64,
        builtin_sbi: bool,
    }
);

impl MachineV2 {
    pub(crate) fn of(computer: &Computer) -> Self {
        Self {
            clock: computer.clock.save(),
            icount: computer.icount,
            current: computer.current as u32,
            quantum_left: computer.quantum_left,
            builtin_sbi: computer.builtin_sbi,
        }
    }

    /// Puts the machine into this state.
    pub(crate) fn apply(self, computer: &mut Computer) {
        computer.clock = Clock::revive(self.clock);
        computer.icount = self.icount;
        computer.current = self.current as usize;
        computer.quantum_left = self.quantum_left;
        computer.builtin_sbi = self.builtin_sbi;
    }
}
