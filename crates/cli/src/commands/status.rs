//! `pollux status`, `console` and `stop`: an operator's view of what runs on this host.

use anyhow::{Context, Result, bail};
use clap::Args;
use pollux_host::console::RawTerminal;
use pollux_host::control::{ControlError, Request, ask, ask_within, own_run_folder, run_folder};
use pollux_host::status::Status;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

/// How long a guest that is asked to shut down may take by default, in seconds.
const STOP_TIMEOUT_S: u64 = 60;
/// How often `pollux stop` looks whether the instance has ended.
const STOP_LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long an instance that hung up on a request to stop may take to be gone.
const ENDING: Duration = Duration::from_secs(5);

#[derive(Args, Debug)]
pub struct StatusArgs {
    /// Only this instance
    pub instance: Option<String>,
    /// One JSON object an instance, one a line
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct ConsoleArgs {
    /// The instance (a VM started with --console socket)
    pub instance: String,
}

#[derive(Args, Debug)]
pub struct StopArgs {
    /// The instance
    pub instance: String,
    /// Cut the power at once, without asking the guest
    #[arg(long, conflicts_with = "power_button")]
    pub force: bool,
    /// How long the guest may take to shut down before the power is cut
    #[arg(long, value_name = "SECONDS", default_value_t = STOP_TIMEOUT_S)]
    pub timeout: u64,
    /// Press the power button, and leave it at that
    #[arg(long)]
    pub power_button: bool,
}

/// How long one instance may take to answer; all are asked at once.
const PATIENCE: Duration = Duration::from_secs(1);

fn instances(only: Option<&str>) -> Result<Vec<(String, PathBuf)>> {
    let folder = own_folder()?;
    if let Some(name) = only {
        return Ok(vec![(name.into(), folder.join(format!("{name}.sock")))]);
    }
    let Ok(entries) = std::fs::read_dir(&folder) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read {}", folder.display()))?.path();
        let name = path
            .file_name()
            .and_then(|n| n.to_str())
            .and_then(|n| n.strip_suffix(".sock"))
            .map(str::to_owned);
        if let Some(name) = name {
            found.push((name, path));
        }
    }
    found.sort();
    Ok(found)
}

fn own_folder() -> Result<PathBuf> {
    own_run_folder().with_context(|| format!("cannot use the run folder {}", run_folder().display()))
}

/// What each instance answers, in order; all are asked at once, so that one that hangs holds up none.
fn ask_all(instances: Vec<(String, PathBuf)>) -> Vec<(String, Result<Value, ControlError>)> {
    std::thread::scope(|scope| {
        let ask = |path: PathBuf| move || ask_within(&path, Request::Status, PATIENCE);
        let asked: Vec<_> =
            instances.into_iter().map(|(name, path)| (name, scope.spawn(ask(path)))).collect();
        let answer = |(name, thread): (String, ScopedJoinHandle<'_, _>)| {
            let crashed = || ControlError::Answer { path: name.clone().into(), what: "no answer".into() };
            let answer = thread.join().unwrap_or_else(|_| Err(crashed()));
            (name, answer)
        };
        asked.into_iter().map(answer).collect()
    })
}

/// Whether nobody is there: the socket was left behind by a process that was killed.
fn is_gone(error: &ControlError) -> bool {
    use std::io::ErrorKind::{ConnectionRefused, NotFound};
    matches!(error, ControlError::Connect { source, .. } if matches!(source.kind(), ConnectionRefused | NotFound))
}

pub fn status(args: &StatusArgs) -> Result<u8> {
    let mut shown = 0;
    for (name, answer) in ask_all(instances(args.instance.as_deref())?) {
        let answer = match answer {
            Ok(answer) => Some(answer),
            Err(error) if args.instance.is_some() => return Err(error.into()),
            Err(error) if is_gone(&error) => continue,
            Err(_) => None,
        };
        if args.json {
            println!("{}", as_json(&name, answer));
        } else {
            if shown == 0 {
                println!(
                    "{:<20} {:<12} {:<8} {:<11} {:>4} {:>16} {:>9} {:>9} {:>6}",
                    "INSTANCE", "VM", "ROLE", "PROTECTION", "GEN", "ICOUNT", "LAG ms", "LOG MiB", "HELD"
                );
            }
            show(&name, answer)?;
        }
        shown += 1;
    }
    if shown == 0 && !args.json {
        println!("nothing runs here (looked in {})", run_folder().display());
    }
    Ok(0)
}

/// An answer with the instance's name, or the name of one that hangs.
fn as_json(name: &str, answer: Option<Value>) -> Value {
    let answers = answer.is_some();
    let mut object = answer.filter(Value::is_object).unwrap_or_else(|| json!({}));
    object["name"] = name.into();
    object["answers"] = answers.into();
    object
}

fn show(name: &str, answer: Option<Value>) -> Result<()> {
    let Some(answer) = answer else {
        println!("{name:<20} not answering (it hangs, or is stopped)");
        return Ok(());
    };
    let status: Status = serde_json::from_value(answer).context("an instance of another version answered")?;
    println!(
        "{:<20} {:<12} {:<8} {:<11} {:>4} {:>16} {:>9.1} {:>9.1} {:>6}",
        name,
        status.vm,
        status.role,
        status.protection,
        status.generation,
        status.icount,
        status.lag_ns as f64 / 1e6,
        status.log_bytes as f64 / 1_048_576.0,
        status.held
    );
    Ok(())
}

pub fn stop(args: &StopArgs) -> Result<u8> {
    stop_at(&own_folder()?.join(format!("{}.sock", args.instance)), args)
}

/// Stops the instance whose control socket is at `path`.
fn stop_at(path: &Path, args: &StopArgs) -> Result<u8> {
    let tell = |request| -> Result<()> {
        match ask(path, request) {
            // What was to end may do so before it has answered.
            Err(error) if is_gone(&error) => Ok(()),
            Err(ControlError::HungUp { .. }) if has_ended(path, ENDING) => Ok(()),
            Err(error) => Err(error.into()),
            Ok(answer) => answer.get("error").map_or(Ok(()), |error| bail!("{error}")),
        }
    };
    let role = ask(path, Request::Status)?["role"].as_str().map(str::to_owned).unwrap_or_default();
    // Only a live side has a guest to ask.
    let asks = !args.force && matches!(role.as_str(), "solo" | "primary");
    if asks || args.power_button {
        tell(Request::PowerButton)?;
    }
    if args.power_button {
        return Ok(0);
    }
    if asks && has_ended(path, Duration::from_secs(args.timeout)) {
        return Ok(0);
    }
    if asks {
        eprintln!("{} has not shut down within {} s; cutting its power", args.instance, args.timeout);
    }
    tell(Request::Stop)?;
    Ok(0)
}

/// Whether the instance is gone, or goes within `patience`.
fn has_ended(path: &Path, patience: Duration) -> bool {
    let begun = Instant::now();
    loop {
        if !path.exists() || ask(path, Request::Status).is_err_and(|error| is_gone(&error)) {
            return true;
        }
        if begun.elapsed() >= patience {
            return false;
        }
        std::thread::sleep(STOP_LOOK_EVERY);
    }
}

pub fn console(args: &ConsoleArgs) -> Result<u8> {
    let control = own_folder()?.join(format!("{}.sock", args.instance));
    let answer = ask(&control, Request::Status)?;
    let Some(path) = answer["console"].as_str() else {
        bail!("{} has no console socket; start it with --console socket", args.instance);
    };
    let mut output = UnixStream::connect(path).with_context(|| format!("cannot attach to {path}"))?;
    let mut input = output.try_clone()?;
    eprintln!("attached to {}; Ctrl-] leaves", args.instance);
    let raw = RawTerminal::enter();
    std::thread::spawn(move || {
        let mut buffer = [0u8; 1024];
        let mut stdin = std::io::stdin().lock();
        while let Ok(n @ 1..) = stdin.read(&mut buffer) {
            let end = buffer[..n].iter().position(|b| *b == 0x1d);
            let _ = output.write_all(&buffer[..end.unwrap_or(n)]);
            if end.is_some() {
                break;
            }
        }
        let _ = output.shutdown(std::net::Shutdown::Both);
    });
    let mut buffer = [0u8; 4096];
    let mut stdout = std::io::stdout();
    while let Ok(n @ 1..) = input.read(&mut buffer) {
        stdout.write_all(&buffer[..n])?;
        stdout.flush()?;
    }
    drop(raw);
    eprintln!();
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pollux_host::{control, events};
    use pollux_node::Event;
    use std::sync::{Arc, Mutex};

    #[test]
    fn stop_asks_the_guest_and_cuts_the_power_only_if_it_does_not_end() {
        use Event::{PowerButton, Stop};
        let cases: [(&str, bool, bool, &[Event]); 4] = [
            ("solo", false, false, &[PowerButton, Stop]),
            ("primary", true, false, &[Stop]),
            ("primary", false, true, &[PowerButton]),
            // A backup has no guest to ask.
            ("backup", false, false, &[Stop]),
        ];
        for (role, force, power_button, told) in cases {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("vm.sock");
            let (sender, inbox) = events::inbox();
            let status = Status { role: role.into(), ..Status::default() };
            control::serve(&path, Arc::new(Mutex::new(status)), sender).expect("free");
            let args = StopArgs { instance: "vm".into(), force, timeout: 0, power_button };
            stop_at(&path, &args).expect("it listens");
            let heard: Vec<Event> = std::iter::from_fn(|| inbox.try_next()).collect();
            assert_eq!(heard, told, "{role}");
        }
    }

    #[test]
    fn an_instance_that_ends_before_it_answers_has_been_stopped() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("vm.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).expect("free");
        std::thread::spawn(move || {
            for answer in ["{\"role\":\"solo\"}\n", ""] {
                let (mut stream, _) = listener.accept().expect("it is asked");
                assert!(stream.read(&mut [0; 256]).expect("a request") > 0);
                stream.write_all(answer.as_bytes()).expect("sent");
            }
        });
        let args = StopArgs { instance: "vm".into(), force: true, timeout: 0, power_button: false };
        assert_eq!(stop_at(&path, &args).expect("it is gone"), 0);
    }

    #[test]
    fn an_instance_that_has_gone_has_ended() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(has_ended(&folder.path().join("vm.sock"), Duration::ZERO));
    }
}
