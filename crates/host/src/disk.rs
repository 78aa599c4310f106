//! Disks being served.
//!
//! One thread a disk performs requests in the order in which the machine made them, so overlapping requests are
//! serialised alike on both hosts (DESIGN 2.6) whatever the kernel does. A flush is `fdatasync`; it is complete
//! only when that has returned (DESIGN 6).
//!
//! A shared image is written by whoever may run, and by nobody else: its thread works behind a [`Fence`], and what a
//! side that has lost had not begun is dropped. A replicated image is this host's own, and requests to it are
//! performed to the last, and flushed, before this side leaves: so two replicas that end together leave equal images.
//!
//! A short read or write, or any error of the host's, is reported to the guest as an I/O error and logged with
//! its cause. A request that does not come back at all is a hang: it is told of, and nobody waits for it to leave.
//!
//! Not here: what a request does to an image (`image`).

use crate::clock;
use crate::disk_fault::DiskFaults;
use crate::events::EventSender;
use crate::fence::Fence;
pub use crate::image::{DiskError, Image};
use crate::rate::Rate;
use pollux_node::{DiskCompletion, Event, HostTime};
use pollux_vocab::{DiskOp, DiskRequest, DiskStatus, SlotId};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

/// How long a disk may take over one request before it counts as hung, unless something else is set.
pub const HANG_AFTER: Duration = Duration::from_secs(5);
/// How often one who leaves looks whether the disk that it waits for still works.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What the thread is doing.
#[derive(Debug, Default)]
struct Work {
    /// When what is in progress was begun, in host nanoseconds; 0 for nothing.
    begun_ns: AtomicU64,
    /// The hang that has been told of, by its beginning.
    told_ns: AtomicU64,
}

impl Work {
    /// Does a piece of work that may hang.
    fn timed<T>(&self, work: impl FnOnce() -> T) -> T {
        let begun = clock::now().0.max(1);
        self.begun_ns.store(begun, Ordering::Release);
        let done = work();
        self.begun_ns.store(0, Ordering::Release);
        if self.told_ns.load(Ordering::Acquire) == begun {
            let ms = (clock::now().0 - begun) / 1_000_000;
            tracing::warn!(ms, "a disk that was hung has answered");
        }
        done
    }

    /// When the work that is in progress was begun, if it has taken longer than this.
    fn hung_since(&self, now: HostTime, hang_after: Duration) -> Option<u64> {
        let begun = self.begun_ns.load(Ordering::Acquire);
        let hangs = begun > 0 && u128::from(now.0.saturating_sub(begun)) >= hang_after.as_nanos();
        hangs.then_some(begun)
    }
}

impl Image {
    /// Starts the thread that serves the image in `slot`; completions go to `events`.
    pub fn serve(self, slot: SlotId, events: EventSender) -> io::Result<DiskServer> {
        self.serve_with(slot, events, DiskFaults::of_process())
    }

    fn serve_with(
        self,
        slot: SlotId,
        events: EventSender,
        faults: Option<DiskFaults>,
    ) -> io::Result<DiskServer> {
        let (requests, inbox) = channel();
        let (end, ended) = sync_channel(0);
        let fence = self.is_shared().then(|| Arc::new(Fence::default()));
        let work = Arc::<Work>::default();
        let path = self.path().display().to_string();
        let server =
            Server { image: self, fence: fence.clone(), work: work.clone(), events, faults, _end: end };
        std::thread::Builder::new().name(format!("disk{slot}")).spawn(move || server.serve(&inbox))?;
        Ok(DiskServer { requests: Some(requests), fence, work, ended, hang_after: HANG_AFTER, path })
    }
}

/// What the thread has.
struct Server {
    image: Image,
    fence: Option<Arc<Fence>>,
    work: Arc<Work>,
    events: EventSender,
    faults: Option<DiskFaults>,
    /// Says nothing; closed when the thread ends. The last field: by then the image is closed.
    _end: SyncSender<()>,
}

impl Server {
    fn serve(self, inbox: &Receiver<DiskRequest>) {
        let mut rate = Rate::default();
        while let Ok(DiskRequest { slot, request, op }) = inbox.recv() {
            if self.fence.as_deref().is_some_and(|fence| !fence.pass()) {
                return;
            }
            let (status, data) = match self.work.timed(|| self.perform(&op)) {
                Ok(data) => (DiskStatus::Ok, data),
                Err(error) => {
                    if let Some(left_out) = rate.take() {
                        self.complain(&op, &error, left_out);
                    }
                    (DiskStatus::IoError, Vec::new())
                }
            };
            // A node that has ended hears no more, but what the machine asked for is done all the same.
            let _ = self.events.send(Event::DiskDone(DiskCompletion { slot, request, status, data }));
        }
        if !self.image.is_shared()
            && let Err(error) = self.work.timed(|| self.image.sync())
        {
            tracing::error!(path = %self.image.path().display(), %error, "the last flush failed");
        }
    }

    fn perform(&self, op: &DiskOp) -> io::Result<Vec<u8>> {
        if let Some(faults) = &self.faults {
            faults.strike(op)?;
        }
        self.image.perform(op)
    }

    fn complain(&self, op: &DiskOp, error: &io::Error, left_out: u64) {
        let (what, at) = match op {
            DiskOp::Read { offset, .. } => ("read", *offset),
            DiskOp::Write { offset, .. } => ("write", *offset),
            DiskOp::Zero { offset, .. } => ("discard", *offset),
            DiskOp::Flush => ("flush", 0),
        };
        tracing::error!(path = %self.image.path().display(), at, %error, left_out, "disk {what} failed; the guest sees an I/O error");
    }
}

/// A disk being served. Dropping it finishes the requests already made of a replicated disk, and flushes them; of a
/// shared one only the request in progress is finished: by then somebody else may be writing. A disk that hangs is not
/// waited for.
#[derive(Debug)]
pub struct DiskServer {
    requests: Option<Sender<DiskRequest>>,
    fence: Option<Arc<Fence>>,
    work: Arc<Work>,
    ended: Receiver<()>,
    hang_after: Duration,
    path: String,
}

impl DiskServer {
    /// Begins a request.
    pub fn submit(&self, request: DiskRequest) {
        if let Some(requests) = &self.requests {
            // The thread only ends when this end of the channel is dropped.
            let _ = requests.send(request);
        }
    }

    /// What stands before a shared disk; none before a replicated one.
    #[must_use]
    pub fn fence(&self) -> Option<&Fence> {
        self.fence.as_deref()
    }

    /// How long a request may take.
    pub fn set_hang_after(&mut self, hang_after: Duration) {
        self.hang_after = hang_after;
    }

    /// Whether the request in progress has taken longer than it may.
    #[must_use]
    pub fn is_hung(&self, now: HostTime) -> bool {
        self.work.hung_since(now, self.hang_after).is_some()
    }

    /// The same, once a hang: for how long.
    #[must_use]
    pub fn take_hang(&self, now: HostTime) -> Option<Duration> {
        let begun = self.work.hung_since(now, self.hang_after)?;
        let news = self.work.told_ns.swap(begun, Ordering::AcqRel) != begun;
        let hung = Duration::from_nanos(now.0.saturating_sub(begun));
        if news {
            tracing::error!(path = self.path, ms = hung.as_millis() as u64, "the disk does not answer");
        }
        news.then_some(hung)
    }
}

impl Drop for DiskServer {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(fence) = &self.fence {
            fence.end();
        }
        while self.ended.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
            if self.is_hung(clock::now()) {
                let path = &self.path;
                tracing::error!(path, "the disk hangs; what was still asked of it may be lost");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::inbox;
    use crate::image::tests::image;
    use pollux_vocab::DiskOp;
    use std::time::Duration;

    #[test]
    fn requests_are_served_in_order_and_failures_reported() {
        let file = image(8192);
        let (events, inbox) = inbox();
        let server = Image::open(file.path(), false, true).expect("fine").serve(3, events).expect("a thread");
        let ops = [
            DiskOp::Write { offset: 512, data: vec![7; 512] },
            DiskOp::Write { offset: 512, data: vec![8; 512] },
            DiskOp::Read { offset: 512, len: 512 },
            DiskOp::Flush,
            DiskOp::Read { offset: 8192, len: 512 },
        ];
        for (request, op) in ops.into_iter().enumerate() {
            server.submit(DiskRequest { slot: 3, request: request as u64, op });
        }
        drop(server);
        let done: Vec<_> = std::iter::from_fn(|| inbox.try_next()).collect();
        let Event::DiskDone(read) = &done[2] else { panic!("a completion") };
        assert_eq!((read.status, read.data.clone()), (DiskStatus::Ok, vec![8; 512]));
        let Event::DiskDone(beyond) = &done[4] else { panic!("a completion") };
        assert_eq!(beyond.status, DiskStatus::IoError);
    }

    fn write(request: u64, fill: u8) -> DiskRequest {
        DiskRequest { slot: 0, request, op: DiskOp::Write { offset: 0, data: vec![fill; 512] } }
    }

    #[test]
    fn a_side_that_has_lost_writes_nothing_more_to_a_shared_disk() {
        let file = image(4096);
        let (events, inbox) = inbox();
        let server =
            Image::open(file.path(), false, false).expect("fine").serve(0, events).expect("a thread");
        server.submit(write(1, 1));
        inbox.wait(Duration::from_secs(60)).expect("done");
        server.fence().expect("a shared disk has one").hold();
        for request in 2..100 {
            server.submit(write(request, 2));
        }
        drop(server);
        assert_eq!(inbox.try_next(), None, "none was performed");
        assert_eq!(std::fs::read(file.path()).expect("there")[..512], [1; 512]);
    }

    #[test]
    fn a_side_that_has_won_performs_what_was_held() {
        let file = image(4096);
        let (events, inbox) = inbox();
        let server =
            Image::open(file.path(), false, false).expect("fine").serve(0, events).expect("a thread");
        server.fence().expect("a shared disk has one").hold();
        server.submit(write(1, 3));
        server.submit(write(2, 4));
        server.fence().expect("a shared disk has one").open();
        for request in 1..=2 {
            let Event::DiskDone(done) = inbox.wait(Duration::from_secs(60)).expect("done") else {
                panic!("a completion")
            };
            assert_eq!((done.request, done.status), (request, DiskStatus::Ok));
        }
        assert_eq!(std::fs::read(file.path()).expect("there")[..512], [4; 512]);
    }

    fn faulty(file: &tempfile::NamedTempFile) -> (DiskFaults, std::path::PathBuf) {
        let what = file.path().with_extension("fault");
        (DiskFaults::of(what.clone()), what)
    }

    #[test]
    fn a_request_that_takes_too_long_is_told_of_once_and_its_end_is_no_news() {
        let file = image(4096);
        let (faults, what) = faulty(&file);
        std::fs::write(&what, "hang").expect("room");
        let (events, inbox) = inbox();
        let image = Image::open(file.path(), false, true).expect("fine");
        let mut server = image.serve_with(0, events, Some(faults)).expect("a thread");
        server.set_hang_after(Duration::from_millis(50));
        assert_eq!(server.take_hang(clock::now()), None, "nothing has been asked of it");
        server.submit(write(1, 7));
        server.submit(write(2, 8));
        let mut told = 0;
        for _ in 0..40 {
            std::thread::sleep(Duration::from_millis(10));
            told += usize::from(server.take_hang(clock::now()).is_some());
        }
        assert_eq!((told, inbox.try_next()), (1, None));
        assert!(server.is_hung(clock::now()));
        std::fs::remove_file(&what).expect("there");
        for _ in 0..2 {
            assert!(matches!(inbox.wait(Duration::from_secs(60)), Some(Event::DiskDone(_))));
        }
        assert!(!server.is_hung(clock::now()));
    }

    #[test]
    fn who_leaves_waits_for_a_disk_that_works_and_not_for_one_that_hangs() {
        let file = image(4096);
        let (faults, what) = faulty(&file);
        let (events, _inbox) = inbox();
        let image = Image::open(file.path(), false, true).expect("fine");
        let mut server = image.serve_with(0, events, Some(faults)).expect("a thread");
        server.set_hang_after(Duration::from_millis(500));
        std::fs::write(&what, "slow").expect("room");
        (1..=10).for_each(|request| server.submit(write(request, request as u8)));
        drop(server);
        assert_eq!(std::fs::read(file.path()).expect("there")[..512], [10; 512], "slow, but to the last");

        let (faults, what) = faulty(&file);
        std::fs::write(&what, "hang").expect("room");
        let (events, _inbox) = crate::events::inbox();
        let image = Image::open(file.path(), false, true).expect("the lock is free again");
        let mut server = image.serve_with(0, events, Some(faults)).expect("a thread");
        server.set_hang_after(Duration::from_millis(200));
        server.submit(write(1, 1));
        let begun = std::time::Instant::now();
        drop(server);
        assert!(begun.elapsed() < Duration::from_secs(10));
        std::fs::remove_file(&what).expect("there");
    }

    #[test]
    fn a_full_disk_takes_no_write_and_a_broken_one_nothing() {
        let file = image(4096);
        let (faults, what) = faulty(&file);
        let (events, inbox) = inbox();
        let image = Image::open(file.path(), false, true).expect("fine");
        let server = image.serve_with(0, events, Some(faults)).expect("a thread");
        let read = || DiskRequest { slot: 0, request: 9, op: DiskOp::Read { offset: 0, len: 512 } };
        let ask = |state: &str, request: DiskRequest| {
            std::fs::write(&what, state).expect("room");
            server.submit(request);
            match inbox.wait(Duration::from_secs(60)) {
                Some(Event::DiskDone(done)) => done.status,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(ask("full", write(1, 1)), DiskStatus::IoError);
        assert_eq!(ask("full", read()), DiskStatus::Ok);
        assert_eq!(ask("fail", read()), DiskStatus::IoError);
        assert_eq!(ask("", write(1, 1)), DiskStatus::Ok);
        std::fs::remove_file(&what).expect("there");
    }
}
