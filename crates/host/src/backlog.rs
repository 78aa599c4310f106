//! What the kernel has not taken yet, frame by frame: a heartbeat need not wait behind a long log.
//!
//! Invariant: frames leave whole and in the order in which they were pushed, but for those pushed ahead.
//!
//! Not here: which frames may overtake, and the socket (`link`).

use pollux_codec::frame::whole_bytes;
use std::collections::VecDeque;
use std::io;

/// Bytes offered to the kernel at a time.
const OFFER_BYTES: usize = 256 * 1024;

/// Frames that wait.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    bytes: VecDeque<u8>,
    /// What is left of each frame, in order; together that is all of `bytes`.
    frames: VecDeque<usize>,
}

impl Backlog {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Takes frames in, behind all others. So many of their bytes have left already.
    pub(crate) fn push(&mut self, frames: &[u8], left: usize) {
        let mut at = 0;
        while at < frames.len() {
            let whole = whole_bytes(&frames[at..]).unwrap_or(usize::MAX).min(frames.len() - at);
            let end = at + whole;
            if end > left {
                self.frames.push_back(end - at.max(left));
            }
            at = end;
        }
        self.bytes.extend(&frames[left.min(frames.len())..]);
    }

    /// Takes a frame in ahead of all others but the first, which may be under way.
    pub(crate) fn push_ahead(&mut self, frame: &[u8]) {
        let Some(first) = self.frames.front() else { return self.push(frame, 0) };
        let begun: Vec<u8> = self.bytes.drain(..*first).collect();
        begun.iter().chain(frame).rev().for_each(|byte| self.bytes.push_front(*byte));
        self.frames.insert(1, frame.len());
    }

    /// Hands the front to `offer`, piece by piece and in place, until it takes no more: the cost is that of what is
    /// taken, and of one piece, however much waits.
    pub(crate) fn drain(&mut self, mut offer: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<()> {
        loop {
            let front = self.bytes.as_slices().0;
            let piece = &front[..front.len().min(OFFER_BYTES)];
            let offered = piece.len();
            let taken = offer(piece)?;
            self.bytes.drain(..taken);
            self.count_out(taken);
            if taken < offered || self.bytes.is_empty() {
                return Ok(());
            }
        }
    }

    fn count_out(&mut self, mut taken: usize) {
        while let Some(first) = self.frames.front_mut() {
            if *first > taken {
                *first -= taken;
                return;
            }
            taken -= *first;
            self.frames.pop_front();
        }
    }

    /// All of it, in two parts.
    pub(crate) fn as_slices(&self) -> (&[u8], &[u8]) {
        self.bytes.as_slices()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pollux_codec::message::Wire;
    use pollux_vocab::Generation;

    fn heartbeat(generation: u64) -> Vec<u8> {
        Wire::Heartbeat { generation: Generation(generation) }.encode()
    }

    #[test]
    fn a_backlog_leaves_in_order_and_in_pieces_however_little_is_taken() {
        let sent: Vec<u8> = (0..40_000).flat_map(heartbeat).collect();
        let mut backlog = Backlog::default();
        backlog.push(&sent, 0);
        let mut got = Vec::new();
        while !backlog.is_empty() {
            let offer = |bytes: &[u8]| {
                assert!(bytes.len() <= OFFER_BYTES);
                let taken = bytes.len().min(100_003);
                got.extend_from_slice(&bytes[..taken]);
                Ok(taken)
            };
            backlog.drain(offer).expect("no error");
        }
        assert!(got == sent && backlog.frames.is_empty());
    }

    #[test]
    fn a_full_kernel_is_offered_one_piece_of_a_long_backlog() {
        let mut backlog = Backlog::default();
        backlog.push(&vec![7; 64 * OFFER_BYTES], 0);
        let mut offered = 0;
        let offer = |bytes: &[u8]| {
            offered += bytes.len();
            Ok(0)
        };
        backlog.drain(offer).expect("no error");
        assert_eq!((offered, backlog.len()), (OFFER_BYTES, 64 * OFFER_BYTES));
    }

    #[test]
    fn what_is_pushed_ahead_leaves_behind_the_frame_that_has_begun_and_before_all_others() {
        let long: Vec<u8> = (0..4).flat_map(heartbeat).collect();
        let each = heartbeat(0).len();
        for left in [0, 5, each, each + 5] {
            let mut backlog = Backlog::default();
            backlog.push(&long, left);
            backlog.push_ahead(&heartbeat(9));
            let mut got = long[..left].to_vec();
            while !backlog.is_empty() {
                let offer = |bytes: &[u8]| {
                    got.extend_from_slice(&bytes[..1]);
                    Ok(1)
                };
                backlog.drain(offer).expect("no error");
            }
            let first = left / each;
            let order: Vec<u64> = (0..=first as u64).chain([9]).chain(first as u64 + 1..4).collect();
            assert_eq!(
                got,
                order.into_iter().flat_map(heartbeat).collect::<Vec<u8>>(),
                "{left} bytes had left"
            );
        }
    }
}
