//! The control socket: one JSON object a line in each direction, on a unix socket in the run folder.
//!
//! Requests: `{"op":"status"}`, `{"op":"stop"}`, `{"op":"power-button"}`. Answers: the [`Status`], or
//! `{"ok":true}`, or `{"error":"…"}`. The node never waits for a reader.

use crate::events::EventSender;
use crate::status::Status;
use pollux_node::Event;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The longest request line that is read.
const REQUEST_BYTES_MAX: u64 = 4096;
/// How long a peer may take over a request or an answer.
const PATIENCE: Duration = Duration::from_secs(5);

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

/// Serves the control socket at `path` until the process ends.
pub fn serve(path: &Path, status: Arc<Mutex<Status>>, events: EventSender) -> io::Result<()> {
    if UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another instance of this name is running"));
    }
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    std::thread::Builder::new().name("control".into()).spawn(move || {
        for stream in listener.incoming().flatten() {
            let (status, events) = (status.clone(), events.clone());
            let _ = std::thread::Builder::new()
                .name("control".into())
                .spawn(move || answer(stream, &status, &events));
        }
    })?;
    Ok(())
}

fn answer(mut stream: UnixStream, status: &Mutex<Status>, events: &EventSender) {
    let _ = stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
    let mut line = String::new();
    if BufReader::new(Read::by_ref(&mut stream).take(REQUEST_BYTES_MAX)).read_line(&mut line).is_err() {
        return;
    }
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
    let fault = |source| ControlError::Connect { path: path.into(), source };
    let mut stream = UnixStream::connect(path).map_err(fault)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(fault)?;
    let line = serde_json::to_string(&request).unwrap_or_default();
    writeln!(stream, "{line}").map_err(fault)?;
    let mut reply = String::new();
    BufReader::new(stream).read_line(&mut reply).map_err(fault)?;
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
}
