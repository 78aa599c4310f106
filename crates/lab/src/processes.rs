//! Processes of this very program, which `demo` and `bench` are made of: started in a folder of their own, waited for.

use anyhow::{Context, Result, bail};
use pollux_host::control::{Request, ask};
use pollux_host::status::Status;
use std::cell::RefCell;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a helper process may take to be ready.
const START_PATIENCE: Duration = Duration::from_secs(20);

/// What an instance says of itself.
pub fn status_of(folder: &Path, instance: &str) -> Result<Status> {
    let answer = ask(&folder.join(format!("{instance}.sock")), Request::Status)?;
    Ok(serde_json::from_value(answer)?)
}

/// Starts `pollux` with the words that `build` adds; what it says goes to `NAME.log`.
pub fn spawn(folder: &Path, name: &str, build: impl FnOnce(&mut Command)) -> Result<Child> {
    spawn_within(folder, name, &[], build)
}

/// The same behind the words of `wrapper`, a command that becomes another (`ip netns exec …`).
pub fn spawn_within(
    folder: &Path,
    name: &str,
    wrapper: &[String],
    build: impl FnOnce(&mut Command),
) -> Result<Child> {
    let log = File::create(folder.join(format!("{name}.log")))?;
    spawn_saying_into(folder, name, wrapper, [log.try_clone()?.into(), log.into()], build)
}

/// The same; what it says on standard output and standard error goes there.
pub fn spawn_saying_into(
    folder: &Path,
    name: &str,
    wrapper: &[String],
    [stdout, stderr]: [Stdio; 2],
    build: impl FnOnce(&mut Command),
) -> Result<Child> {
    let own = std::env::current_exe().context("cannot find my own binary")?;
    let mut command = match wrapper {
        [] => Command::new(own),
        [program, words @ ..] => {
            let mut command = Command::new(program);
            command.args(words).arg(own);
            command
        }
    };
    build(&mut command);
    command.env("POLLUX_RUN_DIR", folder).stdin(Stdio::null()).stdout(stdout).stderr(stderr);
    command.spawn().with_context(|| format!("cannot start the {name}"))
}

/// What `ready` finds, as soon as it finds it, unless the process ends before.
pub fn wait_for<T>(name: &str, child: &RefCell<Child>, mut ready: impl FnMut() -> Option<T>) -> Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(value) = ready() {
            return Ok(value);
        }
        if let Some(status) = child.borrow_mut().try_wait()? {
            bail!("{name} ended at once ({status})");
        }
        if begun.elapsed() > START_PATIENCE {
            let _ = child.borrow_mut().kill();
            bail!("{name} is not ready after {START_PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
