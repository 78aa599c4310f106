//! The second stage: packages install themselves inside the machine that they are for.
//!
//! ```text
//!   root disk (vda), files unpacked ─┐
//!   second disk (vdb): packages,     ├─► a VM, by `Runner` ─► `guest/systemd/stage2`, the first process:
//!   plan, scripts, files             │        dpkg by the plan, then `finish`, then power off
//!   kernel, initial RAM disk        ─┘   console ─► progress, install.log, and the verdict
//! ```
//!
//! No package's code runs on the host, which needs neither root nor an emulator registered with its kernel. What the guest
//! says is hostile input: its lines are bounded, and only the verdict at its end decides.

use crate::assemble::make_disk;
use crate::{ImageError, Progress, io_error};
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{LineWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The first process, and what it runs.
const SCRIPTS: [(&str, &str); 3] = [
    ("stage2", include_str!("guest/systemd/stage2")),
    ("steps", include_str!("guest/systemd/steps")),
    ("finish", include_str!("guest/systemd/finish")),
];
/// RAM of the machine that installs, in bytes.
const RAM_BYTES: u64 = 2 << 30;
/// Lines that an error shows.
const SHOWN_LINES: usize = 15;
/// Bytes of the log that are kept; a guest that says more is cut short.
const LOG_BYTES_MAX: u64 = 32 << 20;
/// What the guest says last when all went well.
const DONE: &str = "pollux-stage2: done";
/// Room on the second disk beside its files, in bytes.
const SPARE_BYTES: u64 = 48 << 20;

/// A machine to start.
#[derive(Clone, Copy, Debug)]
pub struct Boot<'a> {
    /// Linux `Image`.
    pub kernel: &'a Path,
    /// Initial RAM disk.
    pub initrd: &'a Path,
    /// The first disk, which the guest writes.
    pub disk: &'a Path,
    /// The second disk, which it only reads.
    pub second_disk: &'a Path,
    /// The kernel's command line.
    pub command_line: &'a str,
    /// Bytes of RAM.
    pub ram_bytes: u64,
}

/// Starts machines: this crate knows how to make a guest, not how to run one.
pub trait Runner {
    /// Runs the machine until the guest switches it off; `line` gets every line on its console. What is wrong if it
    /// ended in any other way, or was silent for too long.
    fn run(&mut self, boot: &Boot<'_>, line: &mut dyn FnMut(&str)) -> Result<(), String>;
}

/// What a second stage is to do.
pub(crate) struct Work<'a> {
    /// Packages to have at hand.
    pub(crate) debs: &'a [(String, PathBuf)],
    /// The order, see `plan`.
    pub(crate) plan: String,
    /// Files to lay over the system in the end, from a folder.
    pub(crate) files: &'a Path,
    /// Further files beside the scripts: name and content.
    pub(crate) notes: Vec<(&'static str, String)>,
    /// A static busybox.
    pub(crate) busybox: &'a Path,
}

/// All of ours that the second stage is made of, for the cache's key.
pub(crate) fn recipe() -> String {
    SCRIPTS.iter().map(|(_, text)| *text).collect()
}

/// Does `work` on the image whose parts lie in `staging` (kernel, initrd, disk.img).
pub(crate) fn install(
    work: &Work<'_>,
    staging: &Path,
    runner: &mut dyn Runner,
    progress: &mut dyn Progress,
) -> Result<(), ImageError> {
    let second = staging.join("second.img");
    let tree = staging.join("second");
    lay_out(work, &tree)?;
    make_disk(&second, &tree, bytes_under(&tree) / 8 * 9 + SPARE_BYTES)?;
    fs::remove_dir_all(&tree).map_err(io_error("cannot remove", &tree))?;
    let log_path = staging.join("install.log");
    let log = File::create(&log_path).map_err(io_error("cannot create", &log_path))?;
    // A user may follow it.
    progress.note(&format!("what the guest says is in {}", log_path.display()));
    let mut said = Said::new(LineWriter::new(log), 2 * work.debs.len() as u64);
    let boot = Boot {
        kernel: &staging.join("kernel"),
        initrd: &staging.join("initrd"),
        disk: &staging.join("disk.img"),
        second_disk: &second,
        command_line: "console=ttyS0 root=/dev/vda rw quiet init=/mnt/stage2 pollux.second-disk=/dev/vdb",
        ram_bytes: RAM_BYTES,
    };
    let ended = runner.run(&boot, &mut |line| said.hear(line, progress));
    let verdict = said.verdict();
    if let (Ok(()), Ok(())) = (&ended, &verdict) {
        return fs::remove_file(&second).map_err(io_error("cannot remove", &second));
    }
    let what = ended.err().or(verdict.err()).unwrap_or_default();
    Err(ImageError::SecondStage { what, log: log_path, output: said.tail() })
}

/// The second disk's files.
fn lay_out(work: &Work<'_>, tree: &Path) -> Result<(), ImageError> {
    let debs = tree.join("debs");
    fs::create_dir_all(&debs).map_err(io_error("cannot make", &debs))?;
    for (_, from) in work.debs {
        let to = debs.join(from.file_name().unwrap_or_default());
        fs::hard_link(from, &to)
            .or_else(|_| fs::copy(from, &to).map(drop))
            .map_err(io_error("cannot copy to", &to))?;
    }
    let program = |name: &str, content: &[u8]| {
        let path = tree.join(name);
        fs::write(&path, content).map_err(io_error("cannot write", &path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .map_err(io_error("cannot change", &path))
    };
    for (name, text) in SCRIPTS {
        program(name, text.as_bytes())?;
    }
    program("busybox", &fs::read(work.busybox).map_err(io_error("cannot read", work.busybox))?)?;
    for (name, text) in [("plan", &work.plan)].into_iter().chain(work.notes.iter().map(|(n, t)| (*n, t))) {
        let path = tree.join(name);
        fs::write(&path, text).map_err(io_error("cannot write", &path))?;
    }
    let files = tree.join("files");
    fs::rename(work.files, &files).map_err(io_error("cannot move", work.files))
}

/// Bytes of all files under a folder, each rounded up to blocks.
fn bytes_under(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |path: PathBuf| match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => bytes_under(&path) + 4096,
        Ok(meta) => meta.len().next_multiple_of(4096),
        Err(_) => 0,
    };
    entries.map(|entry| size(entry.path())).sum()
}

/// What the guest has said.
struct Said<W: Write> {
    log: W,
    logged_bytes: u64,
    last: VecDeque<String>,
    done: bool,
    failed: Option<String>,
    steps: u64,
    steps_total: u64,
}

impl<W: Write> Said<W> {
    fn new(log: W, steps_total: u64) -> Self {
        Self { log, logged_bytes: 0, last: VecDeque::new(), done: false, failed: None, steps: 0, steps_total }
    }

    fn hear(&mut self, line: &str, progress: &mut dyn Progress) {
        let line = line.trim_end();
        self.logged_bytes += line.len() as u64 + 1;
        if self.logged_bytes <= LOG_BYTES_MAX {
            // A log that cannot be written is no reason to stop: the verdict does not come from it.
            let _ = writeln!(self.log, "{line}");
        }
        // dpkg says one of each for every package.
        if line.starts_with("Unpacking ") || line.starts_with("Setting up ") {
            self.steps += 1;
            progress.advance(self.steps.min(self.steps_total), self.steps_total);
        }
        if let Some(word) = line.strip_prefix("pollux-stage2: ") {
            self.done = line == DONE;
            if !self.done && self.failed.is_none() {
                self.failed = Some(word.to_owned());
            }
        }
        if !line.is_empty() {
            self.last.push_back(line.to_owned());
        }
        if self.last.len() > SHOWN_LINES {
            self.last.pop_front();
        }
    }

    /// What went wrong, if the guest has not said that all is well.
    fn verdict(&mut self) -> Result<(), String> {
        let _ = self.log.flush();
        if self.done && self.failed.is_none() {
            return Ok(());
        }
        Err(self.failed.clone().unwrap_or_else(|| "the guest went down in the middle of it".into()))
    }

    fn tail(&self) -> String {
        Vec::from_iter(self.last.iter().map(String::as_str)).join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(lines: &[&str]) -> Said<Vec<u8>> {
        let mut said = Said::new(Vec::new(), 4);
        lines.iter().for_each(|line| said.hear(line, &mut ()));
        said
    }

    #[test]
    fn only_a_guest_that_says_so_at_its_end_has_installed_everything() {
        assert!(heard(&["Setting up a (1) ...\r", "pollux-stage2: done\r"]).verdict().is_ok());
        assert!(heard(&["Setting up a (1) ..."]).verdict().is_err(), "it went down");
        let failed = heard(&["pollux-stage2: cannot configure x", "pollux-stage2: failed"]).verdict();
        assert_eq!(failed.expect_err("failed"), "cannot configure x");
        let both = heard(&["pollux-stage2: cannot configure x", "pollux-stage2: done"]).verdict();
        assert!(both.is_err(), "a failure stays one");
    }

    #[test]
    fn a_guest_that_talks_for_ever_fills_neither_memory_nor_disk() {
        let mut said = Said::new(std::io::sink(), 1);
        let long = "x".repeat(1 << 20);
        (0..64).for_each(|_| said.hear(&long, &mut ()));
        assert!(said.last.len() <= SHOWN_LINES);
        assert!(said.logged_bytes > LOG_BYTES_MAX, "and no more was written");
    }
}
