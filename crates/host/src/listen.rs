//! Unix sockets that this process serves: made without destroying what is no socket, and served for as long as the
//! process lives, whatever goes wrong in between.

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long to wait after a connection could not be taken: descriptors come back when somebody leaves.
const PAUSE: Duration = Duration::from_millis(100);
/// How often to ask again who is too busy to take a connection.
const ASK_AGAIN: Duration = Duration::from_millis(5);
/// How long one who holds a socket may take to show that it lives.
const BIND_PATIENCE: Duration = Duration::from_millis(200);

/// Listens at `path`. A socket that nobody serves any more is replaced; anything else there is left alone.
pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "there is a file that is no socket; it is left as it is",
            ));
        }
        Ok(_) => {
            // Who is too busy to answer lives, too.
            let lives = |error: &io::Error| error.kind() == io::ErrorKind::TimedOut;
            if connect_within(path, BIND_PATIENCE).as_ref().map_or_else(lives, |_| true) {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process serves it"));
            }
            std::fs::remove_file(path)?;
        }
        Err(_) => {}
    }
    UnixListener::bind(path)
}

/// Connects to a socket. One whose queue of callers is full is asked again until `patience` ends: `connect` alone
/// would wait for ever for a process that has been stopped.
pub(crate) fn connect_within(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let begun = Instant::now();
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    loop {
        match connect(&socket, &address) {
            Ok(()) => break,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if begun.elapsed() < patience => std::thread::sleep(ASK_AGAIN),
            Err(Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
            Err(error) => return Err(error.into()),
        }
    }
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// Takes connections until the process ends. A failure (no descriptors left, say) is said once, and waited out.
pub(crate) fn serve(listener: &UnixListener, what: &str, take: impl FnMut(UnixStream)) -> ! {
    take_all(|| listener.accept().map(|(stream, _)| stream), what, PAUSE, take)
}

fn take_all<T>(
    mut accept: impl FnMut() -> io::Result<T>,
    what: &str,
    pause: Duration,
    mut take: impl FnMut(T),
) -> ! {
    let mut failing = false;
    loop {
        match accept() {
            Ok(stream) => {
                failing = false;
                take(stream);
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "the {what} takes no connections for now");
                }
                std::thread::sleep(pause);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_where_a_socket_should_be_is_left_as_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("disk.img");
        std::fs::write(&path, "precious").expect("room");
        let refused = bind(&path).expect_err("no socket").to_string();
        assert!(refused.contains("no socket"), "{refused}");
        assert_eq!(std::fs::read(&path).expect("there"), b"precious");
    }

    #[test]
    fn a_socket_that_is_served_is_not_taken_over_and_one_that_is_not_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s");
        let first = bind(&path).expect("free");
        assert_eq!(bind(&path).expect_err("taken").kind(), io::ErrorKind::AddrInUse);
        drop(first);
        bind(&path).expect("nobody is there any more");
    }

    #[test]
    fn a_process_that_has_stopped_is_not_waited_for_for_ever() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s");
        // Nobody accepts here: sooner or later the queue is full.
        let _stopped = bind(&path).expect("free");
        let mut waiting = Vec::new();
        let begun = Instant::now();
        let error = loop {
            match connect_within(&path, Duration::from_millis(50)) {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error,
            }
            assert!(waiting.len() < 100_000, "no queue is so long");
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn connections_that_cannot_be_taken_are_waited_out() {
        let (tell, told) = std::sync::mpsc::channel();
        let mut tries = 0;
        std::thread::spawn(move || {
            let accept = || {
                tries += 1;
                if tries < 4 { Err(Errno::MFILE.into()) } else { Ok(Instant::now()) }
            };
            take_all(accept, "test", Duration::from_millis(20), move |at| {
                let _ = tell.send(at);
                std::thread::sleep(Duration::from_secs(60));
            })
        });
        let begun = Instant::now();
        let at = told.recv_timeout(Duration::from_secs(20)).expect("it goes on");
        assert!(at.saturating_duration_since(begun) >= Duration::from_millis(40), "and does not spin");
    }
}
