//! `pollux run -d`: the same command again as a process of its own session, left alone once its VM runs.
//!
//! A second process and no fork: by the time that a VM runs there are threads, which a fork would not take along.

use anyhow::{Context, Result, ensure};
use pollux_host::control::{self, Request, ask};
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Set for the process that is left alone.
const MARK: &str = "POLLUX_DETACHED";
/// How often to look whether the VM runs.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The end of a log that is shown when the start fails, bytes.
const SHOWN_BYTES: usize = 4096;

/// Whether this is the process that is left alone. It leaves the terminal's session, so that it outlives that.
pub fn is_detached() -> bool {
    let marked = std::env::var_os(MARK).is_some();
    if marked {
        // Fails for one who leads a session already, which is as good.
        let _ = rustix::process::setsid();
    }
    marked
}

/// Starts this very command again as `instance`, and returns once its VM runs.
pub fn start(instance: &str, console: Option<&str>) -> Result<u8> {
    ensure!(
        console != Some("stdio"),
        "a VM that is started with -d has no terminal: --console socket (the default with -d), none or file=PATH"
    );
    let folder = control::make_run_folder().context("cannot use the run folder")?;
    let socket = folder.join(format!("{instance}.sock"));
    ensure!(
        ask(&socket, Request::Status).is_err(),
        "an instance named {instance} runs already; give this one another name with --name"
    );
    let log = folder.join(format!("{instance}.log"));
    let file = File::options().create(true).append(true).open(&log);
    let file = file.and_then(|file| file.set_len(0).map(|()| file));
    let file = file.with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = Command::new(std::env::current_exe().context("cannot find my own binary")?);
    command.args(std::env::args_os().skip(1)).env(MARK, "1");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
    let mut child = command.spawn().context("cannot start a process")?;
    match wait_until_it_runs(&mut child, &socket)? {
        None => {
            let (pid, log) = (child.id(), log.display());
            println!("{instance} runs (process {pid}); its log is {log}; pollux stop {instance} ends it");
            Ok(0)
        }
        Some(code) => {
            eprint!("{}", end_of(&log));
            Ok(code)
        }
    }
}

/// `None` once the VM runs; the status if the process ends before.
fn wait_until_it_runs(child: &mut Child, socket: &Path) -> Result<Option<u8>> {
    loop {
        if let Some(status) = child.try_wait()? {
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            return Ok(Some(code.unwrap_or(crate::exit::FAILED)));
        }
        // Its role is known from its first turn on.
        if ask(socket, Request::Status)
            .is_ok_and(|status| status["role"].as_str().is_some_and(|r| !r.is_empty()))
        {
            return Ok(None);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn end_of(log: &Path) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(SHOWN_BYTES)..]).into_owned()
}
