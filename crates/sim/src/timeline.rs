//! What happened, in words, one line each. Nothing is formatted unless somebody wants to read it.

use std::fmt::{Arguments, Write};

/// The lines of a run.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    text: Option<String>,
}

impl Timeline {
    pub(crate) fn new(wanted: bool) -> Self {
        Self { text: wanted.then(String::new) }
    }

    /// Writes a line: `who` did `what` at `at_ns`.
    pub(crate) fn say(&mut self, at_ns: u64, who: &str, what: Arguments<'_>) {
        if let Some(text) = &mut self.text {
            // Writing into a string cannot fail.
            let _ = writeln!(text, "{:>6}.{:06} ms  {who:<8} {what}", at_ns / 1_000_000, at_ns % 1_000_000);
        }
    }

    pub(crate) fn finish(self) -> String {
        self.text.unwrap_or_default()
    }
}
