//! The machines under test: the real computer with the embedded guest, and a model of it for speed. What the node
//! drives is an [`Observed`] one: the same machine, with an account of what it has executed and said.

pub(crate) mod frames;
pub(crate) mod guest;
pub(crate) mod model;

use pollux_machine::{Machine, Stop};
use pollux_vocab::{ConsoleId, Digest, Icount, Input, Output, SlotId, VirtTime};
use std::cell::RefCell;
use std::rc::Rc;
use xxhash_rust::xxh3::xxh3_64;

/// The slots of either machine.
pub(crate) const DISK: SlotId = 0;
pub(crate) const NET: SlotId = 1;
/// Bytes in a block as the guest uses the disk.
pub(crate) const BLOCK: usize = 4096;

/// Which machine a run uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineKind {
    /// A model: some hundred lines, every output a hash of every event.
    Model,
    /// The computer, with the embedded guest.
    Guest,
}

/// What a machine has done.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Steps executed, replayed ones included.
    pub(crate) steps: u64,
    /// Outputs that an output gate would hold, as [`print_of`] has them, in order.
    pub(crate) made: Vec<(Icount, u64)>,
}

/// A fingerprint of an output that the world may see; `None` for what is no such output.
pub(crate) fn print_of(output: &Output) -> Option<u64> {
    match output {
        Output::Packet { frame, .. } => Some(xxh3_64(frame)),
        Output::Console { bytes, .. } => Some(xxh3_64(bytes) ^ 1),
        Output::Disk(_) | Output::EntropyWanted { .. } | Output::Reset | Output::PowerOff { .. } => None,
    }
}

/// A machine with an account.
pub(crate) struct Observed {
    inner: Box<dyn Machine>,
    tally: Rc<RefCell<Tally>>,
}

impl Observed {
    pub(crate) fn new(inner: Box<dyn Machine>, tally: Rc<RefCell<Tally>>) -> Self {
        Self { inner, tally }
    }
}

impl Machine for Observed {
    fn icount(&self) -> Icount {
        self.inner.icount()
    }
    fn time(&self) -> VirtTime {
        self.inner.time()
    }
    fn run(&mut self, until: Icount) -> Stop {
        let from = self.inner.icount();
        let stop = self.inner.run(until);
        self.tally.borrow_mut().steps += self.inner.icount().since(from);
        stop
    }
    fn apply(&mut self, input: &Input) {
        self.inner.apply(input);
    }
    fn take_output(&mut self) -> Option<Output> {
        let output = self.inner.take_output()?;
        if let Some(print) = print_of(&output) {
            self.tally.borrow_mut().made.push((self.inner.icount(), print));
        }
        Some(output)
    }
    fn packet_room(&self, slot: SlotId) -> bool {
        self.inner.packet_room(slot)
    }
    fn console_room(&self, console: ConsoleId) -> usize {
        self.inner.console_room(console)
    }
    fn pending(&self) -> Vec<Output> {
        self.inner.pending()
    }
    fn prepare_digest(&mut self, pages_max: usize) -> bool {
        self.inner.prepare_digest(pages_max)
    }
    fn digest(&mut self) -> Digest {
        self.inner.digest()
    }
}
