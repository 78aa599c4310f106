//! What a board may say and hold whatever its guest does, and answers to what it asks; for guests that mean harm, by
//! chance (`hostile.rs`) and by the fuzzer (`fuzz/src/guest.rs`).

use super::driver::Bench;
use pollux_vocab::{DiskOp, DiskRequest, DiskStatus, Input, Output};

/// What one kick may make a device say: a queue's worth of the longest things it can say.
const OUTPUTS_MAX: usize = 256;
/// Bytes that disk requests may hold: what may be in flight, and one request more.
const HELD_BYTES_MAX: u64 = (64 + 16) << 20;

/// What the devices have said since they were asked last: it makes sense for a disk of this size, and is within bounds,
/// and so is what the board holds. Who may say it is the caller's to check.
pub fn listen(bench: &mut Bench, disk_bytes: u64) -> Vec<Output> {
    let outputs = bench.outputs();
    assert!(outputs.len() <= OUTPUTS_MAX, "{} outputs at once", outputs.len());
    for output in &outputs {
        match output {
            Output::Packet { frame, .. } => assert!((14..=1518).contains(&frame.len())),
            Output::Disk(DiskRequest { op, .. }) => check_op(op, disk_bytes),
            Output::EntropyWanted { len, .. } => assert!(*len <= 4096),
            Output::Console { bytes, .. } => assert!(bytes.len() <= 64 << 10),
            _ => {}
        }
    }
    let held = |output: &Output| match output {
        Output::Disk(DiskRequest { op: DiskOp::Write { data, .. }, .. }) => data.len() as u64,
        _ => 0,
    };
    let pending = bench.board.pending();
    assert!(pending.len() <= 2 * 256, "{} requests are open", pending.len());
    assert!(pending.iter().map(held).sum::<u64>() <= HELD_BYTES_MAX);
    outputs
}

/// On the disk, and of whole sectors: what the device lets through is what the host will do.
fn check_op(op: &DiskOp, disk_bytes: u64) {
    let (offset, len) = match op {
        DiskOp::Read { offset, len } => (*offset, u64::from(*len)),
        DiskOp::Write { offset, data } => (*offset, data.len() as u64),
        DiskOp::Zero { offset, len, .. } => (*offset, *len),
        DiskOp::Flush => return,
    };
    assert!(len > 0 && len.is_multiple_of(512) && offset.is_multiple_of(512) && offset + len <= disk_bytes);
}

/// Answers that a host remembers to have given, to give them again.
const GIVEN_MAX: usize = 16;

/// A host behind the devices: it owes an answer to each request, for as long as it likes, across all resets, gives
/// them in any order, well or not, and sometimes twice.
#[derive(Default)]
pub struct Host {
    owed: Vec<Output>,
    given: Vec<Output>,
}

impl Host {
    /// What a device has said, if it is a request.
    pub fn hear(&mut self, output: &Output) {
        if matches!(output, Output::Disk(_) | Output::EntropyWanted { .. }) {
            self.owed.push(output.clone());
        }
    }

    /// The `nth` of the answers that are owed, or with `again` of those that were given, as many bytes as `len` makes
    /// of those that were asked for.
    pub fn answer(
        &mut self,
        nth: usize,
        again: bool,
        status: DiskStatus,
        fill: u8,
        len: impl FnOnce(u32) -> u32,
    ) -> Option<Input> {
        let from = if again { &mut self.given } else { &mut self.owed };
        let request = if from.is_empty() { return None } else { from.swap_remove(nth % from.len()) };
        if !again && self.given.len() < GIVEN_MAX {
            self.given.push(request.clone());
        }
        answer(request, status, fill, len)
    }

    /// Something is applied that may happen to be an answer.
    pub fn settle(&mut self, input: &Input) {
        let answers = |output: &Output| match (output, input) {
            (Output::Disk(asked), Input::DiskDone { slot, request, .. }) => {
                (asked.slot, asked.request) == (*slot, *request)
            }
            (Output::EntropyWanted { slot: s, request: r, .. }, Input::Entropy { slot, request, .. }) => {
                (s, r) == (slot, request)
            }
            _ => false,
        };
        self.owed.retain(|output| !answers(output));
    }

    /// What the host still does is what the machine knows that it does, whatever the guest has done to its devices:
    /// so the bounds of the one are those of the other.
    pub fn check(&self, bench: &Bench) {
        let key = |output: &Output| match output {
            Output::Disk(DiskRequest { slot, request, .. }) => (*slot, *request),
            Output::EntropyWanted { slot, request, .. } => (*slot, *request),
            _ => unreachable!("no request"),
        };
        let sorted = |outputs: &[Output]| {
            let mut keys: Vec<_> = outputs.iter().map(key).collect();
            keys.sort_unstable();
            keys
        };
        assert_eq!(
            sorted(&self.owed),
            sorted(&bench.board.pending()),
            "the host's requests and the machine's"
        );
    }
}

fn answer(owed: Output, status: DiskStatus, fill: u8, len: impl FnOnce(u32) -> u32) -> Option<Input> {
    match owed {
        Output::Disk(DiskRequest { slot, request, op }) => {
            let asked = if let DiskOp::Read { len, .. } = op { len } else { 0 };
            Some(Input::DiskDone { slot, request, status, data: vec![fill; len(asked) as usize] })
        }
        Output::EntropyWanted { slot, request, len: asked } => {
            Some(Input::Entropy { slot, request, bytes: vec![fill; len(asked) as usize] })
        }
        _ => None,
    }
}
