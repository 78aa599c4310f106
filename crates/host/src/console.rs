//! Consoles: the process's own terminal, a unix socket that anybody may attach to, a file, or nowhere.
//!
//! The terminal is put into raw mode while it is the guest's, and given back on every way out ([`RawTerminal`]'s
//! `Drop`, [`restore_terminal`] where nothing is dropped). `Ctrl-A x` leaves, as in QEMU; `Ctrl-A Ctrl-A` sends one
//! `Ctrl-A`.

use crate::attached::Attached;
use crate::events::EventSender;
use crate::outfile::{self, Content};
use crate::outlet::{Outlet, Unit};
use pollux_node::Event;
use pollux_vocab::ConsoleId;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// The name of a thread that writes what a guest said.
const OUTLET: &str = "console-out";
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

/// The host's end of one guest console. What the guest writes leaves through a thread of its own: a terminal may
/// stand still for any time (a laptop sleeps, a pager waits), and the VM must not stand still with it.
#[derive(Debug)]
pub struct Console {
    /// Before the terminal, so that the last words are out when it is given back.
    sink: Sink,
    #[allow(dead_code, reason = "held for its Drop")]
    terminal: Option<RawTerminal>,
}

/// Where output goes.
#[derive(Debug)]
enum Sink {
    Nowhere,
    Stream(Outlet),
    Attached(Attached),
}

impl Console {
    /// Opens a target; what is typed goes to `events`.
    pub fn open(target: &ConsoleTarget, id: ConsoleId, events: &EventSender) -> io::Result<Self> {
        match target {
            ConsoleTarget::Stdio => {
                let terminal = RawTerminal::enter();
                let events = events.clone();
                std::thread::Builder::new().name("console".into()).spawn(move || read_stdin(id, &events))?;
                // Not `io::Stdout`: who waits for a terminal must not hold a lock that others need.
                let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
                Ok(Self { sink: Sink::Stream(write_to(stdout)?), terminal })
            }
            ConsoleTarget::Socket(path) => {
                Ok(Self { sink: Sink::Attached(Attached::serve(path, id, events)?), terminal: None })
            }
            ConsoleTarget::File(path) => {
                let file = outfile::open(path, Content::Text).map_err(io::Error::other)?;
                // A VM that does not come to say anything leaves what the last one said.
                let mut is_old = true;
                let outlet = Outlet::spawn(OUTLET.into(), Unit::Bytes, move |batch| {
                    if std::mem::take(&mut is_old) {
                        let _ = outfile::empty(&file);
                    }
                    let _ = (&file).write_all(&batch.concat());
                    true
                })?;
                Ok(Self { sink: Sink::Stream(outlet), terminal: None })
            }
            ConsoleTarget::None => Ok(Self { sink: Sink::Nowhere, terminal: None }),
        }
    }

    /// Shows what the guest wrote, or loses it if too much waits to be shown.
    pub fn write(&self, bytes: Vec<u8>) {
        match &self.sink {
            Sink::Nowhere => {}
            Sink::Stream(outlet) => {
                outlet.offer(bytes);
            }
            Sink::Attached(attached) => attached.show(&bytes),
        }
    }

    /// The guest will write nothing more.
    pub fn close(&mut self) {
        match &mut self.sink {
            Sink::Nowhere => {}
            Sink::Stream(outlet) => outlet.close(),
            Sink::Attached(attached) => attached.close(),
        }
    }

    /// After [`Console::close`], waits for the last words to be shown, at most until `deadline`.
    pub fn wait_closed(&self, deadline: Instant) {
        match &self.sink {
            Sink::Nowhere => {}
            Sink::Stream(outlet) => {
                outlet.wait_closed(deadline);
            }
            Sink::Attached(attached) => attached.wait_closed(deadline),
        }
    }
}

/// A terminal that is gone is no reason to stop a VM, so errors are dropped.
fn write_to(mut file: File) -> io::Result<Outlet> {
    Outlet::spawn(OUTLET.into(), Unit::Bytes, move |batch| {
        let _ = file.write_all(&batch.concat());
        true
    })
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

/// The terminal's settings from before raw mode, while it is in raw mode.
static COOKED: Mutex<Option<Termios>> = Mutex::new(None);

/// The terminal in raw mode, given back when dropped.
#[derive(Debug)]
pub struct RawTerminal(());

impl RawTerminal {
    /// Raw mode, if standard input is a terminal.
    #[must_use]
    pub fn enter() -> Option<Self> {
        let saved = tcgetattr(rustix::stdio::stdin()).ok()?;
        let mut raw = saved.clone();
        raw.make_raw();
        // Newlines from Pollux's own messages still need their carriage return.
        raw.output_modes |= rustix::termios::OutputModes::OPOST | rustix::termios::OutputModes::ONLCR;
        *COOKED.lock().unwrap_or_else(PoisonError::into_inner) = Some(saved);
        let this = Self(());
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &raw).ok()?;
        Some(this)
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        restore_terminal();
    }
}

/// Gives the terminal back if it is in raw mode: for whoever ends the process without dropping anything.
pub fn restore_terminal() {
    if let Some(cooked) = COOKED.lock().unwrap_or_else(PoisonError::into_inner).take() {
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &cooked);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::inbox;
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    #[test]
    fn a_reader_that_stands_still_does_not_hold_the_guest_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pipe");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
        let reader = File::options().read(true).write(true).open(&path).expect("open");
        let console =
            Console::open(&ConsoleTarget::File(path), ConsoleId::Uart, &inbox().0).expect("a console");
        for _ in 0..64 {
            console.write(vec![b'x'; 64 * 1024]);
        }
        // 4 MiB into a pipe of 64 KiB that nobody reads: whoever gets here has not waited for the reader.
        drop(reader);
    }

    #[test]
    fn the_last_words_are_shown_before_the_console_goes() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let target = ConsoleTarget::File(file.path().into());
        let console = Console::open(&target, ConsoleId::Uart, &inbox().0).expect("a console");
        for word in ["reboot: ", "Power ", "down\n"] {
            console.write(word.into());
        }
        drop(console);
        assert_eq!(std::fs::read_to_string(file.path()).expect("there"), "reboot: Power down\n");
    }
}
