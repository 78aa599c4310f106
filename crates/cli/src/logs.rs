//! The program's own log: to standard error, through an [`Outlet`], so that nobody who logs ever waits for whoever
//! reads it. Standard error is a terminal after Ctrl-S, or a pipe to a logger that has stopped, as often as not.
//!
//! Invariant: no thread but the outlet's writes a line. What finds no room is lost and counted, and the count is
//! said when the reader reads again. Standard output is the guest's console, or data, and never has a log in it.

use pollux_host::outlet::{Outlet, Unit};
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use tracing_subscriber::fmt::MakeWriter;

/// The way to standard error. `None` once it is closed, or if no thread could be had.
#[derive(Clone)]
pub struct Log(Arc<Mutex<Option<Outlet>>>);

impl Log {
    /// Starts to log what `verbose` (0: info, 1: debug, 2: trace) or `POLLUX_LOG` asks for.
    pub fn init(verbose: u8) -> Self {
        let level = ["info", "debug", "trace"][usize::from(verbose.min(2))];
        let filter = std::env::var("POLLUX_LOG").unwrap_or_else(|_| level.into());
        let filter = tracing_subscriber::EnvFilter::try_new(&filter).unwrap_or_else(|_| "info".into());
        let write = |lines: Vec<Vec<u8>>| {
            // A log that is gone stops nothing; the next line may find one again.
            let _ = io::stderr().write_all(&lines.concat());
            true
        };
        let log = Self(Arc::new(Mutex::new(Outlet::spawn("log".into(), Unit::Lines, write).ok())));
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_target(false)
            .with_ansi(wants_colours(std::env::var_os("NO_COLOR").as_deref(), io::stderr().is_terminal()))
            .with_writer(log.clone())
            .init();
        log
    }

    /// Says a line that is no log: why the program ends.
    pub fn say(&self, line: &str) {
        self.offer(format!("{line}\n").into_bytes());
    }

    /// Gives what waits a short time to be written; nothing is taken from here on.
    pub fn close(&self) {
        let outlet = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(outlet);
    }

    fn offer(&self, line: Vec<u8>) {
        if let Some(outlet) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            outlet.offer(line);
        }
    }
}

/// Colours are for people who look at a terminal, and have not said that they want none (no-color.org).
fn wants_colours(no_color: Option<&std::ffi::OsStr>, is_terminal: bool) -> bool {
    is_terminal && no_color.is_none_or(std::ffi::OsStr::is_empty)
}

/// One event on its way: the subscriber writes each in one piece.
pub struct Line(Log);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.offer(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Line;

    fn make_writer(&self) -> Line {
        Line(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_has_colours_only_on_a_terminal_and_only_if_nobody_minds() {
        let set = |text: &'static str| Some(std::ffi::OsStr::new(text));
        assert!(wants_colours(None, true) && wants_colours(set(""), true));
        assert!(!wants_colours(set("1"), true));
        assert!(!wants_colours(None, false));
    }
}
