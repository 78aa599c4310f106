//! Progress, as a person wants to see it.

use indicatif::{ProgressBar, ProgressStyle};
use pollux_image::Progress;
use std::time::Duration;

/// A progress bar on standard error.
#[derive(Debug)]
pub struct Bar(ProgressBar);

impl Default for Bar {
    fn default() -> Self {
        let bar = ProgressBar::new(0);
        let style = ProgressStyle::with_template("{spinner} {msg} {wide_bar} {percent}% {elapsed}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }
}

impl Progress for Bar {
    fn step(&mut self, name: &str, index: usize, total: usize) {
        if self.0.is_finished() {
            // The next image of several.
            self.0.reset();
        }
        self.0.set_length(0);
        self.0.set_position(0);
        self.0.set_message(format!("[{index}/{total}] {name}"));
        if self.0.is_hidden() {
            eprintln!("[{index}/{total}] {name}");
        }
    }

    fn advance(&mut self, done: u64, total: u64) {
        let tenths = |done: u64| (done * 10).checked_div(total).unwrap_or(0);
        if self.0.is_hidden() && tenths(done) > tenths(self.0.position()) {
            eprintln!("      {}0 %", tenths(done));
        }
        self.0.set_length(total);
        self.0.set_position(done);
    }

    fn note(&mut self, text: &str) {
        if self.0.is_hidden() {
            eprintln!("      {text}");
        } else {
            self.0.println(text);
        }
    }

    fn finish(&mut self) {
        self.0.finish_and_clear();
    }
}
