//! Consoles: the process's own terminal, a unix socket that anybody may attach to, a file, or nowhere.
//!
//! The terminal is put into raw mode while it is the guest's, and given back on every way out ([`RawTerminal`]'s
//! `Drop`). `Ctrl-A x` leaves, as in QEMU; `Ctrl-A Ctrl-A` sends one `Ctrl-A`.

use crate::events::EventSender;
use pollux_node::Event;
use pollux_vocab::ConsoleId;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// Output kept for whoever attaches to a socket later.
const BACKLOG_BYTES: usize = 64 * 1024;
/// People attached to one console at once.
const ATTACHED_MAX: usize = 8;
const ESCAPE: u8 = 1;

/// Where a console goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ConsoleTarget {
    /// The process's own standard input and output.
    Stdio,
    /// A unix socket at this path.
    Socket(PathBuf),
    /// Output to this file, no input.
    File(PathBuf),
    /// Nowhere.
    None,
}

/// The host's end of one guest console.
#[derive(Debug)]
pub enum Console {
    /// See [`ConsoleTarget::Stdio`].
    Stdio(#[allow(dead_code, reason = "held for its Drop")] Option<RawTerminal>),
    /// See [`ConsoleTarget::Socket`].
    Socket(Arc<Mutex<Attached>>),
    /// See [`ConsoleTarget::File`].
    File(File),
    /// See [`ConsoleTarget::None`].
    None,
}

/// Who is attached to a socket, and what was said last.
#[derive(Debug, Default)]
pub struct Attached {
    streams: Vec<UnixStream>,
    backlog: Vec<u8>,
}

impl Console {
    /// Opens a target; what is typed goes to `events`.
    pub fn open(target: &ConsoleTarget, id: ConsoleId, events: &EventSender) -> io::Result<Self> {
        match target {
            ConsoleTarget::Stdio => {
                let raw = RawTerminal::enter();
                let events = events.clone();
                std::thread::Builder::new().name("console".into()).spawn(move || read_stdin(id, &events))?;
                Ok(Self::Stdio(raw))
            }
            ConsoleTarget::Socket(path) => {
                let _ = std::fs::remove_file(path);
                let listener = UnixListener::bind(path)?;
                let attached = Arc::new(Mutex::new(Attached::default()));
                let (shared, events) = (attached.clone(), events.clone());
                std::thread::Builder::new()
                    .name("console".into())
                    .spawn(move || accept(&listener, id, &shared, &events))?;
                Ok(Self::Socket(attached))
            }
            ConsoleTarget::File(path) => Ok(Self::File(File::create(path)?)),
            ConsoleTarget::None => Ok(Self::None),
        }
    }

    /// Shows what the guest wrote. A terminal that is gone is no reason to stop a VM, so errors are dropped.
    pub fn write(&mut self, bytes: &[u8]) {
        match self {
            Self::Stdio(_) => {
                let mut out = io::stdout().lock();
                let _ = out.write_all(bytes).and_then(|()| out.flush());
            }
            Self::Socket(attached) => {
                let mut attached = attached.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                attached.streams.retain_mut(|stream| stream.write_all(bytes).is_ok());
                attached.backlog.extend_from_slice(bytes);
                let excess = attached.backlog.len().saturating_sub(BACKLOG_BYTES);
                attached.backlog.drain(..excess);
            }
            Self::File(file) => {
                let _ = file.write_all(bytes);
            }
            Self::None => {}
        }
    }
}

fn read_stdin(id: ConsoleId, events: &EventSender) {
    let mut buffer = [0u8; 1024];
    let mut escaped = false;
    let mut input = io::stdin().lock();
    while let Ok(n) = input.read(&mut buffer) {
        if n == 0 {
            return;
        }
        let mut bytes = Vec::with_capacity(n);
        for &byte in &buffer[..n] {
            match (escaped, byte) {
                (true, b'x') => {
                    let _ = events.send(Event::Stop);
                    return;
                }
                (false, ESCAPE) => escaped = true,
                _ => {
                    escaped = false;
                    bytes.push(byte);
                }
            }
        }
        if !bytes.is_empty() && events.send(Event::Console { console: id, bytes }).is_err() {
            return;
        }
    }
}

fn accept(listener: &UnixListener, id: ConsoleId, attached: &Arc<Mutex<Attached>>, events: &EventSender) {
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { return };
        let Ok(mut reader) = stream.try_clone() else { continue };
        // A reader that has stopped reading is dropped rather than waited for.
        let _ = stream.set_write_timeout(Some(std::time::Duration::from_millis(20)));
        {
            let mut shared = attached.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if shared.streams.len() >= ATTACHED_MAX || stream.write_all(&shared.backlog).is_err() {
                continue;
            }
            shared.streams.push(stream);
        }
        let events = events.clone();
        let _ = std::thread::Builder::new().name("attached".into()).spawn(move || {
            let mut buffer = [0u8; 1024];
            while let Ok(n @ 1..) = reader.read(&mut buffer) {
                if events.send(Event::Console { console: id, bytes: buffer[..n].to_vec() }).is_err() {
                    return;
                }
            }
        });
    }
}

/// The terminal in raw mode, given back when dropped.
#[derive(Debug)]
pub struct RawTerminal(Termios);

impl RawTerminal {
    /// Raw mode, if standard input is a terminal.
    #[must_use]
    pub fn enter() -> Option<Self> {
        let saved = tcgetattr(rustix::stdio::stdin()).ok()?;
        let mut raw = saved.clone();
        raw.make_raw();
        // Newlines from Pollux's own messages still need their carriage return.
        raw.output_modes |= rustix::termios::OutputModes::OPOST | rustix::termios::OutputModes::ONLCR;
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Self(saved))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.0);
    }
}
