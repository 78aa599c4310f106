//! Replays a recording: a log with every input in it, disk data included, onto a machine in its first state.
//!
//! The mirror of [`crate::standby`] with no protocol, disk or peer: the same machine, the same instants, the
//! same comparison of digests.

use crate::divergence::compare;
use crate::ports::Divergence;
use alloc::format;
use alloc::vec::Vec;
use pollux_machine::{Difference, Machine, Stop};
use pollux_vocab::{Control, Icount, Output, Record, RecordBody};

/// Steps between two chances for the caller to do something else, if it does not say.
pub const SLICE_STEPS: u64 = 10_000_000;

/// A replay under way.
#[derive(Debug)]
pub struct Replay<M> {
    machine: M,
    slice_steps: u64,
    digests_agreed: u64,
    records: u64,
    inputs: u64,
}

/// What one step of a replay came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Replayed {
    /// The machine has not reached the record's instant yet; offer the same record again.
    Running,
    /// The record has been applied; offer the next.
    Applied,
    /// The recording ends the VM here.
    Ended,
}

impl<M: Machine> Replay<M> {
    /// A replay from the state that `machine` is in.
    pub fn new(machine: M) -> Self {
        Self { machine, slice_steps: SLICE_STEPS, digests_agreed: 0, records: 0, inputs: 0 }
    }

    /// The same, with this many steps between two chances for the caller to do something else.
    #[must_use]
    pub fn in_slices(self, slice_steps: u64) -> Self {
        Self { slice_steps: slice_steps.max(1), ..self }
    }

    /// Goes at most one slice of steps ([`SLICE_STEPS`], or what was asked for) towards `record` and applies it when it is reached; the outputs made by either
    /// are appended to `outputs`.
    pub fn step(&mut self, record: &Record, outputs: &mut Vec<Output>) -> Result<Replayed, Divergence> {
        if self.machine.icount() > record.icount {
            return Err(self.diverged(format!(
                "record {} belongs to icount {}, which lies in the past",
                record.lsn, record.icount
            )));
        }
        let limit = self.machine.icount().after(self.slice_steps).min(record.icount);
        while self.machine.icount() < limit {
            let stop = self.machine.run(limit);
            while let Some(output) = self.machine.take_output() {
                outputs.push(output);
            }
            match stop {
                Stop::Until | Stop::Output => {}
                // Idle or halted right at the record's instant is where the recording was, too.
                Stop::Idle { .. } | Stop::Halted if self.machine.icount() >= limit => {}
                Stop::Idle { .. } => return Err(self.stuck("is idle", record)),
                Stop::Halted => return Err(self.stuck("has halted", record)),
            }
        }
        if self.machine.icount() < record.icount {
            return Ok(Replayed::Running);
        }
        self.records += 1;
        let applied = self.apply(record);
        while let Some(output) = self.machine.take_output() {
            outputs.push(output);
        }
        applied
    }

    fn apply(&mut self, record: &Record) -> Result<Replayed, Divergence> {
        match &record.body {
            RecordBody::Input(input) => {
                self.inputs += 1;
                self.machine.apply(input);
            }
            RecordBody::DiskDoneLocal { slot, request, .. } => {
                return Err(self.diverged(format!(
                    "request {request} of disk {slot} completes without its data: this log is a pair's, not a recording"
                )));
            }
            RecordBody::Digest(theirs) => {
                let ours = self.machine.digest();
                if let Some(what) = compare(&ours, theirs) {
                    return Err(self.diverged(what));
                }
                self.digests_agreed += 1;
            }
            RecordBody::Control(Control::Stop) => return Ok(Replayed::Ended),
            RecordBody::Mark | RecordBody::Progress => {}
        }
        Ok(Replayed::Applied)
    }

    fn stuck(&self, how: &str, next: &Record) -> Divergence {
        let (lsn, icount) = (next.lsn, next.icount);
        self.diverged(format!(
            "the replay {how}, but the recording goes on executing to record {lsn} at icount {icount}"
        ))
    }

    fn diverged(&self, what: impl Into<Difference>) -> Divergence {
        Divergence { icount: self.machine.icount(), what: what.into() }
    }

    /// Where the replay is.
    pub fn icount(&self) -> Icount {
        self.machine.icount()
    }

    /// The machine, to look at or to snapshot.
    pub fn machine(&mut self) -> &mut M {
        &mut self.machine
    }

    /// Records applied, inputs among them, and digests found equal.
    #[must_use]
    pub fn counts(&self) -> (u64, u64, u64) {
        (self.records, self.inputs, self.digests_agreed)
    }
}
