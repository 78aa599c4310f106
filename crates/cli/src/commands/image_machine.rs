//! The machine in which an image's packages install themselves: this very program, as a process of its own.

use pollux_image::{Boot, Runner};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How long a guest may install without saying a word.
const SILENCE: Duration = Duration::from_secs(15 * 60);
/// How often it is looked whether this process has been told to end.
const LOOK: Duration = Duration::from_millis(100);
/// Names the process with which a `pollux run` ends, however that ends.
pub const PARENT: &str = "POLLUX_PARENT";
/// Bytes of a line that are kept; a longer one is taken in pieces.
const LINE_BYTES_MAX: u64 = 64 << 10;
/// Lines that may wait to be looked at.
const LINES_WAITING: usize = 1024;

/// Runs guests with `pollux run`.
#[derive(Debug)]
pub struct OwnBinary;

/// Kills what it holds.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The VM's description: a file, since a path in a flag may not hold every character.
fn describe(boot: &Boot<'_>) -> Result<String, String> {
    // A JSON string is a TOML string.
    let text = |path: &std::path::Path| {
        let path = std::path::absolute(path).map_err(|e| e.to_string())?;
        let path = path.to_str().ok_or("the cache folder's path is not UTF-8")?;
        serde_json::to_string(path).map_err(|e| e.to_string())
    };
    let append = serde_json::to_string(boot.command_line).map_err(|e| e.to_string())?;
    Ok(format!(
        "kernel = {}\ninitrd = {}\nappend = {append}\nmemory = \"{}M\"\nconsole = \"stdio\"\n\
         [[disk]]\npath = {}\n[[disk]]\npath = {}\nreadonly = true\n",
        text(boot.kernel)?,
        text(boot.initrd)?,
        boot.ram_bytes >> 20,
        text(boot.disk)?,
        text(boot.second_disk)?,
    ))
}

impl Runner for OwnBinary {
    fn run(&mut self, boot: &Boot<'_>, line: &mut dyn FnMut(&str)) -> Result<(), String> {
        let folder = tempfile::tempdir().map_err(|e| format!("cannot make a working folder: {e}"))?;
        let file = folder.path().join("install.toml");
        std::fs::write(&file, describe(boot)?).map_err(|e| format!("cannot write a VM file: {e}"))?;
        let own = std::env::current_exe().map_err(|e| format!("cannot find my own binary: {e}"))?;
        let mut command = Command::new(own);
        command.arg("run").arg(&file).env("POLLUX_RUN_DIR", folder.path());
        command.env(PARENT, std::process::id().to_string());
        listen(command, SILENCE, line)
    }
}

/// Runs `command`, which must end well and never be silent for longer than `silence`.
fn listen(mut command: Command, silence: Duration, line: &mut dyn FnMut(&str)) -> Result<(), String> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Running(command.spawn().map_err(|e| format!("cannot start the machine: {e}"))?);
    let (sender, lines) = mpsc::sync_channel(LINES_WAITING);
    let mut readers = Vec::new();
    if let Some(out) = child.0.stdout.take() {
        let sender = sender.clone();
        readers.push(std::thread::spawn(move || read_lines(out, &sender)));
    }
    if let Some(err) = child.0.stderr.take() {
        readers.push(std::thread::spawn(move || read_lines(err, &sender)));
    }
    let mut heard = Instant::now();
    loop {
        match lines.recv_timeout(silence.min(LOOK)) {
            Ok(text) => {
                heard = Instant::now();
                line(&text);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if pollux_image::is_interrupted() {
            return Err("interrupted".into());
        }
        if heard.elapsed() >= silence {
            return Err(format!("the guest has said nothing for {} s", silence.as_secs()));
        }
    }
    let status = child.0.wait().map_err(|e| e.to_string())?;
    if status.success() { Ok(()) } else { Err(format!("the machine ended with {status}")) }
}

/// Where [`PARENT`] names the process that has started this one: ends with it, even if it is killed. To be called by
/// the main thread, early.
pub fn end_with_parent() {
    let Some(parent) = std::env::var(PARENT).ok().and_then(|n| n.parse().ok()) else { return };
    let asked = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    let now = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
    if asked.is_ok() && now != Some(parent) {
        // It was gone before it could be asked about.
        std::process::exit(i32::from(crate::exit::FAILED));
    }
}

fn read_lines(from: impl Read, to: &mpsc::SyncSender<String>) {
    let mut reader = BufReader::new(from);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        match reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        if to.send(String::from_utf8_lossy(&bytes).into_owned()).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn shell(script: &str, silence: Duration) -> (Vec<String>, Result<(), String>) {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let mut lines = Vec::new();
        let ended = listen(command, silence, &mut |line| lines.push(line.trim_end().to_owned()));
        (lines, ended)
    }

    #[test]
    fn every_line_is_heard_and_a_machine_that_ends_badly_is_no_success() {
        let patience = Duration::from_secs(60);
        assert_eq!(shell("echo a; echo b", patience), (vec!["a".into(), "b".into()], Ok(())));
        let (lines, ended) = shell("echo a; exit 3", patience);
        assert_eq!(lines, ["a"]);
        assert!(ended.expect_err("it failed").contains('3'));
    }

    #[test]
    fn a_guest_that_says_nothing_any_more_is_given_up() {
        let (_, ended) = shell("exec sleep 60", Duration::from_millis(50));
        assert!(ended.expect_err("silent").contains("nothing"));
    }

    #[test]
    fn a_line_without_end_is_taken_in_pieces() {
        let (lines, ended) = shell("head -c 200000 /dev/zero | tr '\\0' x", Duration::from_secs(60));
        assert!(ended.is_ok() && lines.len() == 4, "{} lines", lines.len());
    }

    #[test]
    fn any_path_can_be_written_into_the_machines_description() {
        let odd = Path::new("/a,b \"c\"/kernel");
        let boot = Boot {
            kernel: odd,
            initrd: odd,
            disk: odd,
            second_disk: odd,
            command_line: "quiet",
            ram_bytes: 1 << 30,
        };
        let text = describe(&boot).expect("UTF-8");
        let vm = crate::config::VmArgs::default().over(&text, Path::new("/")).expect("a VM file");
        assert_eq!(vm.kernel.as_deref(), Some(odd));
        assert!(vm.disk[1].readonly && !vm.disk[0].readonly);
    }
}
