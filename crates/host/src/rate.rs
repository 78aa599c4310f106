//! How often a line of the log may be said that a guest can cause as often as it likes.

use crate::clock;
use pollux_node::HostTime;

/// Lines that one source says within [`WINDOW_NS`].
const LINES_MAX: u32 = 10;
/// Host nanoseconds that they count for.
const WINDOW_NS: u64 = 10_000_000_000;

/// The lines of one source.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    window_from: HostTime,
    said: u32,
    left_out: u64,
}

impl Rate {
    /// Whether a line may be said now, and how many were left out since the last that was.
    pub(crate) fn take(&mut self) -> Option<u64> {
        self.take_at(clock::now())
    }

    fn take_at(&mut self, now: HostTime) -> Option<u64> {
        if now.since(self.window_from) >= WINDOW_NS {
            self.window_from = now;
            self.said = 0;
        }
        if self.said >= LINES_MAX {
            self.left_out += 1;
            return None;
        }
        self.said += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_said_a_few_times_and_counted() {
        let mut rate = Rate::default();
        let begin = HostTime(WINDOW_NS);
        let said = (0..1000).filter(|_| rate.take_at(begin).is_some()).count();
        assert_eq!(said, LINES_MAX as usize);
        assert_eq!(rate.take_at(HostTime(2 * WINDOW_NS)), Some(1000 - u64::from(LINES_MAX)));
        assert_eq!(rate.take_at(HostTime(2 * WINDOW_NS + 1)), Some(0));
    }
}
