//! The control socket: one JSON object a line in each direction, on a unix socket in the run folder.
//!
//! Requests: `{"op":"status"}`, `{"op":"stop"}`, `{"op":"power-button"}`. Answers: the [`Status`], or
//! `{"ok":true}`, or `{"error":"…"}`. The node never waits for a reader.

use crate::events::EventSender;
use crate::listen;
use crate::status::Status;
use pollux_node::Event;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The longest request line that is read.
const REQUEST_BYTES_MAX: usize = 4096;
/// The longest answer that is read.
const REPLY_BYTES_MAX: u64 = 1 << 20;
/// How long a peer may take over a request, and over reading the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Peers served at once. One more is let go: each holds a thread and a descriptor.
const PEERS_MAX: usize = 32;

/// What may be asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Request {
    /// How are you?
    Status,
    /// End the VM, on both sides.
    Stop,
    /// Press the power button.
    PowerButton,
}

/// Why an instance cannot be talked to.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens.
    #[error("no instance answers at {path}: {source}; `pollux status` lists those that run")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// It hung up before it answered: it has ended, or it serves as many as it can.
    #[error("the instance at {path} hung up before it answered; `pollux status` says whether it has ended")]
    HungUp {
        /// The socket.
        path: PathBuf,
    },
    /// The answer makes no sense.
    #[error("the instance at {path} gave an answer that cannot be read: {what}")]
    Answer {
        /// The socket.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

/// The folder where instances of this user put their sockets.
#[must_use]
pub fn run_folder() -> PathBuf {
    match std::env::var_os("POLLUX_RUN_DIR")
        .or_else(|| std::env::var_os("XDG_RUNTIME_DIR").map(|d| Path::new(&d).join("pollux").into()))
    {
        Some(folder) => folder.into(),
        None => PathBuf::from(format!("/tmp/pollux-{}", rustix::process::getuid().as_raw())),
    }
}

/// Makes the run folder if it is not there. One that somebody else owns, or may write into, is refused: whoever can
/// put a socket there can pass for an instance.
pub fn make_run_folder() -> io::Result<PathBuf> {
    let folder = run_folder();
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    check_run_folder(&folder, rustix::process::geteuid().as_raw())?;
    Ok(folder)
}

/// The run folder, if there is one that only this user could have put something into.
pub fn own_run_folder() -> io::Result<PathBuf> {
    let folder = run_folder();
    let user = rustix::process::geteuid();
    // The superuser looks into other people's folders with open eyes.
    if user.is_root() {
        return Ok(folder);
    }
    match check_run_folder(&folder, user.as_raw()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(folder),
    }
}

fn check_run_folder(folder: &Path, user: u32) -> io::Result<()> {
    let found = std::fs::symlink_metadata(folder)?;
    let refuse = |what: String| {
        let what = format!("{what}; name another folder with POLLUX_RUN_DIR, or mend this one");
        Err(io::Error::new(io::ErrorKind::PermissionDenied, what))
    };
    if !found.is_dir() {
        return refuse("it is no folder".into());
    }
    if found.uid() != user {
        return refuse(format!("it belongs to user {}, this is user {user}", found.uid()));
    }
    if found.mode() & 0o022 != 0 {
        return refuse(format!("others may write into it (mode {:o})", found.mode() & 0o7777));
    }
    Ok(())
}

/// Serves the control socket at `path` until the process ends.
pub fn serve(path: &Path, status: Arc<Mutex<Status>>, events: EventSender) -> io::Result<()> {
    let listener = listen::bind(path)?;
    std::thread::Builder::new().name("control".into()).spawn(move || {
        let peers = Arc::<AtomicUsize>::default();
        listen::serve(&listener, "control socket", |stream| {
            let (status, events, place) = (status.clone(), events.clone(), Place::take(&peers));
            // Who finds no place, or no thread, is hung up on, and may ask again.
            let Some(place) = place else { return };
            let _ = std::thread::Builder::new().name("control".into()).spawn(move || {
                let _place = place;
                answer(stream, &status, &events);
            });
        })
    })?;
    Ok(())
}

/// One of the [`PEERS_MAX`] places; dropping it gives it back.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(peers: &Arc<AtomicUsize>) -> Option<Self> {
        let place = Self(peers.clone());
        (peers.fetch_add(1, Ordering::Relaxed) < PEERS_MAX).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request line, whole within [`PATIENCE`]: a byte now and then does not hold a place.
fn request_line(stream: &mut UnixStream) -> Option<String> {
    let deadline = Instant::now() + PATIENCE;
    let mut line = Vec::new();
    let mut buffer = [0; 256];
    while !line.contains(&b'\n') && line.len() < REQUEST_BYTES_MAX {
        let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
        stream.set_read_timeout(Some(left)).ok()?;
        match stream.read(&mut buffer).ok()? {
            0 => break,
            n => line.extend_from_slice(&buffer[..n]),
        }
    }
    String::from_utf8(line).ok()
}

fn answer(mut stream: UnixStream, status: &Mutex<Status>, events: &EventSender) {
    let Some(line) = request_line(&mut stream) else { return };
    let _ = stream.set_write_timeout(Some(PATIENCE));
    let reply = match serde_json::from_str::<Request>(&line) {
        Ok(Request::Status) => {
            let status = status.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
            serde_json::to_string(&status).unwrap_or_default()
        }
        Ok(Request::Stop) => told(events, Event::Stop),
        Ok(Request::PowerButton) => told(events, Event::PowerButton),
        Err(error) => serde_json::json!({ "error": format!("not a request: {error}") }).to_string(),
    };
    let _ = writeln!(stream, "{reply}");
}

fn told(events: &EventSender, event: Event) -> String {
    match events.send(event) {
        Ok(()) => r#"{"ok":true}"#.into(),
        Err(_) => r#"{"error":"the instance is ending"}"#.into(),
    }
}

/// Asks the instance at `path`; the answer is a JSON value.
pub fn ask(path: &Path, request: Request) -> Result<serde_json::Value, ControlError> {
    ask_within(path, request, PATIENCE)
}

/// The same of one that may be given little time.
pub fn ask_within(
    path: &Path,
    request: Request,
    patience: Duration,
) -> Result<serde_json::Value, ControlError> {
    let fault = |source| ControlError::Connect { path: path.into(), source };
    let mut stream = listen::connect_within(path, patience).map_err(fault)?;
    stream.set_read_timeout(Some(patience)).map_err(fault)?;
    let line = serde_json::to_string(&request).unwrap_or_default();
    // Who ends may close the socket with the request in it, or before it is there.
    let has_hung_up = |error: &io::Error| {
        matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
    };
    let hung_up = || ControlError::HungUp { path: path.into() };
    let sent = stream.write_all(format!("{line}\n").as_bytes());
    sent.map_err(|error| if has_hung_up(&error) { hung_up() } else { fault(error) })?;
    let mut reply = String::new();
    let read = BufReader::new(stream.take(REPLY_BYTES_MAX)).read_line(&mut reply);
    if reply.is_empty() && read.as_ref().map_or_else(has_hung_up, |_| true) {
        return Err(hung_up());
    }
    read.map_err(fault)?;
    serde_json::from_str(&reply).map_err(|e| ControlError::Answer { path: path.into(), what: e.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_stop_are_answered_and_garbage_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("vm.sock");
        let (events, inbox) = crate::events::inbox();
        let status = Arc::new(Mutex::new(Status { vm: "castor".into(), ..Status::default() }));
        serve(&path, status, events).expect("free");
        assert_eq!(ask(&path, Request::Status).expect("an answer")["vm"], "castor");
        assert_eq!(ask(&path, Request::Stop).expect("an answer")["ok"], true);
        assert_eq!(inbox.try_next(), Some(Event::Stop));
        let mut stream = UnixStream::connect(&path).expect("listening");
        writeln!(stream, "garbage").expect("sent");
        let mut reply = String::new();
        BufReader::new(stream).read_line(&mut reply).expect("an answer");
        assert!(reply.contains("not a request"), "{reply}");
    }

    #[test]
    fn an_instance_that_hangs_up_at_any_point_is_not_one_that_talks_nonsense() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("vm.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).expect("free");
        let serving = std::thread::spawn(move || {
            for read in 0..40 {
                let (mut stream, _) = listener.accept().expect("it is asked");
                if read % 2 == 0 {
                    stream.read_exact(&mut [0; 1]).expect("a part of a request");
                }
            }
        });
        for _ in 0..40 {
            let answer = ask(&path, Request::Stop).expect_err("nobody answers");
            assert!(matches!(answer, ControlError::HungUp { .. }), "{answer}");
        }
        serving.join().expect("no panic");
    }

    #[test]
    fn peers_that_say_nothing_take_no_more_than_their_places() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("vm.sock");
        let (events, _inbox) = crate::events::inbox();
        serve(&path, Arc::default(), events).expect("free");
        let mut silent: Vec<_> =
            (0..PEERS_MAX + 8).map(|_| UnixStream::connect(&path).expect("it listens")).collect();
        let last = silent.last_mut().expect("many");
        last.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        assert_eq!(last.read(&mut [0]).expect("hung up on at once"), 0);
        drop(silent);
        let begun = Instant::now();
        while ask(&path, Request::Status).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "places come back");
        }
    }

    #[test]
    fn a_run_folder_that_others_could_write_into_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let own = folder.path().join("run");
        std::fs::create_dir(&own).expect("room");
        let mode =
            |mode| std::fs::set_permissions(&own, std::fs::Permissions::from_mode(mode)).expect("ours");
        let user = rustix::process::geteuid().as_raw();
        mode(0o700);
        assert!(check_run_folder(&own, user).is_ok());
        let other = check_run_folder(&own, user + 1).expect_err("somebody else's").to_string();
        assert!(other.contains("belongs to user"), "{other}");
        mode(0o777);
        let open = check_run_folder(&own, user).expect_err("open to all").to_string();
        assert!(open.contains("others may write"), "{open}");
        mode(0o700);
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&own, &link).expect("room");
        assert!(check_run_folder(&link, user).is_err(), "a link may be turned to anywhere");
    }
}
