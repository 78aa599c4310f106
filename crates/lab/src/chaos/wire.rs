//! The replication link between the two hosts: a TAP device on either end, and this process between them, which may
//! delay, lose and cut. It stands in for `netem`, which few kernels have, and can do one direction alone.
//!
//! Invariant: frames are not reordered, doubled or damaged (TCP carries the link; it would hide that anyway).

use anyhow::{Context, Result};
use pollux_sim::Random;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::File;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// The longest frame; the devices are made for shorter ones.
const FRAME_BYTES_MAX: usize = 10_000;
/// How often a quiet wire looks whether it should end, nanoseconds.
const LOOK_NS: i64 = 100_000_000;
/// A slow wire keeps frames for so long, and loses what it cannot keep.
const KEPT_MAX: Duration = Duration::from_millis(100);

/// From which ends of a wire nothing gets through.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cut {
    /// From the first.
    pub forth: bool,
    /// From the second.
    pub back: bool,
}

impl Cut {
    /// From either.
    pub const BOTH: Self = Self { forth: true, back: true };
    /// All gets through.
    pub const NONE: Self = Self { forth: false, back: false };
}

/// What a wire does to frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Weather {
    /// What is cut.
    pub cut: Cut,
    /// So many of a thousand are lost, both ways.
    pub loss_permille: u64,
    /// Every frame takes at least so long.
    pub delay: Duration,
    /// And up to so much more.
    pub jitter: Duration,
    /// So much gets through in a second, from each end; 0: all.
    pub bytes_per_s: u64,
}

#[derive(Default)]
struct Shared {
    weather: Mutex<Weather>,
    over: AtomicBool,
    carried: AtomicU64,
    lost: AtomicU64,
}

/// A wire; it ends with this value.
pub struct Wire {
    shared: Arc<Shared>,
}

impl Shared {
    fn weather(&self) -> MutexGuard<'_, Weather> {
        self.weather.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wire {
    /// Joins two devices.
    pub fn lay(a: File, b: File, seed: u64) -> Result<Self> {
        let shared = Arc::<Shared>::default();
        let copies = [a.try_clone(), b.try_clone()];
        let [a2, b2] = copies.map(|copy| copy.context("cannot share a TAP device"));
        for (from, input, output) in [(0, a, b2?), (1, b, a2?)] {
            let random = Random::new(seed, &format!("wire from {from}"));
            let (late, due) = mpsc::channel();
            let waiting = Arc::<AtomicU64>::default();
            let (kept, still) = (shared.clone(), waiting.clone());
            let mut delayed = output.try_clone()?;
            std::thread::Builder::new()
                .name(format!("wire{from}-late"))
                .spawn(move || deliver(&due, &mut delayed, &still))?;
            std::thread::Builder::new()
                .name(format!("wire{from}"))
                .spawn(move || carry(from, input, output, &kept, random, &late, &waiting))?;
        }
        Ok(Self { shared })
    }

    /// Changes the weather.
    pub fn change(&self, change: impl FnOnce(&mut Weather)) {
        change(&mut self.shared.weather());
    }

    /// Frames carried and lost so far.
    pub fn frames(&self) -> [u64; 2] {
        [&self.shared.carried, &self.shared.lost].map(|count| count.load(Ordering::Relaxed))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
    }
}

fn carry(
    from: usize,
    mut input: File,
    mut output: File,
    shared: &Shared,
    mut random: Random,
    late: &mpsc::Sender<(Instant, Vec<u8>)>,
    waiting: &AtomicU64,
) {
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    let mut free_at = Instant::now();
    let look = Timespec { tv_sec: 0, tv_nsec: LOOK_NS };
    while !shared.over.load(Ordering::Relaxed) {
        if !matches!(poll(&mut [PollFd::new(&input, PollFlags::IN)], Some(&look)), Ok(1..)) {
            continue;
        }
        let Ok(bytes) = input.read(&mut buffer) else { continue };
        let weather = *shared.weather();
        let cut = if from == 0 { weather.cut.forth } else { weather.cut.back };
        if cut || random.chance(weather.loss_permille) {
            shared.lost.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let now = Instant::now();
        let mut delay = Duration::ZERO;
        if let Some(ns) = (bytes as u64 * 1_000_000_000).checked_div(weather.bytes_per_s) {
            let queued = free_at.saturating_duration_since(now);
            if queued > KEPT_MAX {
                shared.lost.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            delay = queued + Duration::from_nanos(ns);
            free_at = now + delay;
        }
        shared.carried.fetch_add(1, Ordering::Relaxed);
        let jitter_us = random.below(weather.jitter.as_micros() as u64 + 1);
        delay += weather.delay + Duration::from_micros(jitter_us);
        // Nothing overtakes what is under way.
        if delay.is_zero() && waiting.load(Ordering::Acquire) == 0 {
            // A device that is down loses frames, as a wire does.
            let _ = output.write(&buffer[..bytes]);
        } else {
            waiting.fetch_add(1, Ordering::AcqRel);
            let _ = late.send((now + delay, buffer[..bytes].to_vec()));
        }
    }
}

/// Hands frames over when they are due; ends when nobody can send any more.
fn deliver(due: &mpsc::Receiver<(Instant, Vec<u8>)>, output: &mut File, waiting: &AtomicU64) {
    for (at, frame) in due {
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        let _ = output.write(&frame);
        waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixDatagram;

    /// A wire between sockets that keep frames apart, as the devices do, and the far ends of those.
    fn wire() -> (Wire, UnixDatagram, UnixDatagram) {
        let pairs = [0, 1].map(|_| UnixDatagram::pair().expect("sockets"));
        let [(a, near_a), (b, near_b)] = pairs;
        for far in [&a, &b] {
            far.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
        }
        let [near_a, near_b] = [near_a, near_b].map(|near| File::from(OwnedFd::from(near)));
        (Wire::lay(near_a, near_b, 1).expect("threads"), a, b)
    }

    fn received(end: &UnixDatagram) -> Option<u8> {
        let mut buffer = [0; 9];
        let bytes = end.recv(&mut buffer).ok()?;
        (bytes == 1).then_some(buffer[0])
    }

    #[test]
    fn a_cut_takes_one_direction_and_is_mended() {
        let (wire, a, b) = wire();
        wire.change(|weather| weather.cut = Cut { forth: true, back: false });
        a.send(&[1]).expect("sent");
        b.send(&[2]).expect("sent");
        assert_eq!((received(&a), received(&b)), (Some(2), None));
        wire.change(|weather| weather.cut = Cut::NONE);
        a.send(&[3]).expect("sent");
        assert_eq!(received(&b), Some(3));
        assert_eq!(wire.frames(), [2, 1]);
    }

    #[test]
    fn delayed_frames_are_late_and_keep_their_order_when_the_delay_ends() {
        let (wire, a, b) = wire();
        wire.change(|weather| weather.delay = Duration::from_millis(50));
        let begun = Instant::now();
        a.send(&[1]).expect("sent");
        while wire.frames() != [1, 0] {
            std::thread::sleep(Duration::from_millis(1));
        }
        wire.change(|weather| weather.delay = Duration::ZERO);
        a.send(&[2]).expect("sent");
        assert_eq!((received(&b), received(&b)), (Some(1), Some(2)));
        assert!(begun.elapsed() >= Duration::from_millis(50));
    }

    #[test]
    fn a_slow_wire_takes_its_time_and_loses_what_it_cannot_keep() {
        let (wire, a, b) = wire();
        wire.change(|weather| weather.bytes_per_s = 100);
        let begun = Instant::now();
        // 10 ms each, so about eleven of them are kept.
        for byte in 0..40 {
            a.send(&[byte]).expect("sent");
        }
        assert_eq!(received(&b), Some(0));
        let more = std::iter::from_fn(|| received(&b)).count();
        assert!(begun.elapsed() >= Duration::from_millis(100), "{:?}", begun.elapsed());
        assert!((5..39).contains(&more), "{more} of 39 more came");
    }

    #[test]
    fn all_is_lost_at_a_thousand_in_a_thousand() {
        let (wire, a, b) = wire();
        wire.change(|weather| weather.loss_permille = 1000);
        a.send(&[1]).expect("sent");
        assert_eq!(received(&b), None);
    }
}
