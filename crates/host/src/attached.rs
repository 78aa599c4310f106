//! A console on a unix socket: everybody attached sees what the guest says, and what anybody types reaches it.
//!
//! Invariants: each of those attached has an outlet of his own, so that one who stands still loses his own output and
//! nobody else's, and hears on when he reads again; who leaves gives his place back at once, said anything or not.

use crate::events::EventSender;
use crate::listen;
use crate::outlet::{Outlet, Unit};
use pollux_node::Event;
use pollux_vocab::ConsoleId;
use rustix::event::{PollFd, PollFlags, poll};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Output kept for whoever attaches later, bytes.
const BACKLOG_BYTES: usize = 64 * 1024;
/// People attached to one console at once.
const ATTACHED_MAX: usize = 8;
/// What one hears who is one too many.
const FULL: &[u8] = b"[pollux: eight are attached to this console already; one has to leave first]\r\n";

/// A console socket, and who is attached to it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attached(Arc<Mutex<People>>);

#[derive(Debug, Default)]
struct People {
    next: u64,
    outlets: Vec<(u64, Outlet)>,
    backlog: VecDeque<u8>,
}

impl Attached {
    /// Serves the socket at `path`; what is typed goes to `events`.
    pub(crate) fn serve(path: &Path, id: ConsoleId, events: &EventSender) -> io::Result<Self> {
        let listener = listen::bind(path)?;
        let attached = Self::default();
        let (shared, events) = (attached.clone(), events.clone());
        std::thread::Builder::new().name("console".into()).spawn(move || {
            listen::serve(&listener, "console socket", |stream| {
                // Who cannot be served (no thread, no descriptor) is let go, and may come again.
                if let Err(error) = shared.attach(stream, id, &events) {
                    tracing::warn!(%error, "nobody can attach to the console for now");
                }
            })
        })?;
        Ok(attached)
    }

    /// Held for as long as it takes to pass bytes on to outlets: nobody waits for a reader with it.
    fn people(&self) -> MutexGuard<'_, People> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attach(&self, mut stream: UnixStream, id: ConsoleId, events: &EventSender) -> io::Result<()> {
        if self.people().outlets.len() >= ATTACHED_MAX {
            stream.set_nonblocking(true)?;
            let _ = stream.write(FULL);
            return Ok(());
        }
        let reader = stream.try_clone()?;
        let outlet = Outlet::spawn("attached-out".into(), Unit::Bytes, move |batch| {
            stream.write_all(&batch.concat()).is_ok()
        })?;
        let number = {
            let mut people = self.people();
            outlet.offer(people.backlog.iter().copied().collect());
            people.next += 1;
            let number = people.next;
            people.outlets.push((number, outlet));
            number
        };
        let (shared, events) = (self.clone(), events.clone());
        let spawned = std::thread::Builder::new().name("attached".into()).spawn(move || {
            pass_on(&reader, id, &events);
            wait_hung_up(&reader);
            // Before the outlet is dropped: its thread may be in the middle of a write.
            let _ = reader.shutdown(Shutdown::Both);
            shared.detach(number);
        });
        if spawned.is_err() {
            self.detach(number);
        }
        spawned.map(|_| ())
    }

    fn detach(&self, number: u64) {
        let mut people = self.people();
        let place = people.outlets.iter().position(|(other, _)| *other == number);
        let outlet = place.map(|place| people.outlets.swap_remove(place));
        drop(people);
        drop(outlet);
    }

    /// Shows what the guest said; never waits.
    pub(crate) fn show(&self, bytes: &[u8]) {
        let mut people = self.people();
        for (_, outlet) in &people.outlets {
            outlet.offer(bytes.to_vec());
        }
        people.backlog.extend(&bytes[bytes.len().saturating_sub(BACKLOG_BYTES)..]);
        let excess = people.backlog.len().saturating_sub(BACKLOG_BYTES);
        people.backlog.drain(..excess);
    }

    /// The guest will say nothing more.
    pub(crate) fn close(&mut self) {
        self.people().outlets.iter_mut().for_each(|(_, outlet)| outlet.close());
    }

    /// After [`Attached::close`], waits for the last words to be shown, at most until `deadline`.
    pub(crate) fn wait_closed(&self, deadline: Instant) {
        self.people().outlets.iter().for_each(|(_, outlet)| {
            outlet.wait_closed(deadline);
        });
    }
}

/// Tells the guest what is typed, until nobody will type any more.
fn pass_on(mut reader: &UnixStream, id: ConsoleId, events: &EventSender) {
    let mut buffer = [0u8; 1024];
    loop {
        match reader.read(&mut buffer) {
            Ok(n @ 1..) => {
                let bytes = buffer[..n].to_vec();
                if events.send(Event::Console { console: id, bytes }).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => return,
        }
    }
}

/// Waits until the other end is closed for good: one who has nothing to type may read on.
fn wait_hung_up(stream: &UnixStream) {
    loop {
        let mut ends = [PollFd::new(stream, PollFlags::empty())];
        match poll(&mut ends, None) {
            Err(rustix::io::Errno::INTR) => {}
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::inbox;
    use std::time::Duration;

    struct Socket {
        attached: Attached,
        path: std::path::PathBuf,
        inbox: crate::events::Inbox,
        _folder: tempfile::TempDir,
    }

    fn socket() -> Socket {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("console");
        let (events, inbox) = inbox();
        let attached = Attached::serve(&path, ConsoleId::Uart, &events).expect("free");
        Socket { attached, path, inbox, _folder: folder }
    }

    impl Socket {
        fn attach(&self) -> UnixStream {
            let stream = UnixStream::connect(&self.path).expect("it listens");
            stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
            stream
        }
        fn wait_for(&self, people: usize) {
            let begun = Instant::now();
            while self.attached.people().outlets.len() != people {
                assert!(begun.elapsed() < Duration::from_secs(20), "not {people} attached");
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }

    fn hears(stream: &mut UnixStream, wanted: &[u8]) {
        let mut got = Vec::new();
        let mut buffer = [0; 65536];
        while !got.windows(wanted.len()).any(|bytes| bytes == wanted) {
            let n = stream.read(&mut buffer).expect("within the timeout");
            assert!(n > 0, "hung up after {:?}", String::from_utf8_lossy(&got));
            got.extend_from_slice(&buffer[..n]);
        }
    }

    #[test]
    fn whoever_leaves_without_a_word_gives_his_place_back() {
        let socket = socket();
        for _ in 0..3 * ATTACHED_MAX {
            let stream = socket.attach();
            socket.wait_for(1);
            drop(stream);
            socket.wait_for(0);
        }
        let all: Vec<_> = (0..ATTACHED_MAX).map(|_| socket.attach()).collect();
        socket.wait_for(ATTACHED_MAX);
        hears(&mut socket.attach(), b"one has to leave");
        drop(all);
        socket.wait_for(0);
        let mut stream = socket.attach();
        socket.wait_for(1);
        socket.attached.show(b"login: ");
        hears(&mut stream, b"login: ");
    }

    #[test]
    fn a_reader_that_stood_still_hears_on_and_nobody_waited_for_it() {
        let socket = socket();
        let (mut asleep, mut awake) = (socket.attach(), socket.attach());
        socket.wait_for(2);
        for _ in 0..256 {
            socket.attached.show(&[b'.'; 65536]);
        }
        let listening = std::thread::spawn(move || hears(&mut awake, b"still here"));
        while !listening.is_finished() {
            socket.attached.show(b"still here");
            std::thread::sleep(Duration::from_millis(5));
        }
        listening.join().expect("the other one hears all the time");
        let begun = Instant::now();
        // Reads what was kept for it, then what is said from now on.
        asleep.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        let mut buffer = [0; 65536];
        while asleep.read(&mut buffer).is_ok_and(|n| n > 0) {
            assert!(begun.elapsed() < Duration::from_secs(20));
        }
        asleep.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        socket.attached.show(b"good morning");
        hears(&mut asleep, b"good morning");
    }

    #[test]
    fn one_who_types_nothing_more_reads_on() {
        let socket = socket();
        let mut stream = socket.attach();
        stream.write_all(b"reboot\n").expect("sent");
        stream.shutdown(Shutdown::Write).expect("half closed");
        let typed = socket.inbox.wait(Duration::from_secs(20));
        assert!(matches!(typed, Some(Event::Console { bytes, .. }) if bytes == b"reboot\n"));
        std::thread::sleep(Duration::from_millis(50));
        socket.attached.show(b"bye");
        hears(&mut stream, b"bye");
    }
}
