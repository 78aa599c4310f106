//! `cargo xtask ci`: every check, in the order of what fails fastest. Stops at the first that fails, and says
//! which command repeats it.
//!
//! One list for both: `cargo xtask ci` runs the steps of before a commit, `cargo xtask ci full` all of them. `.ci/run`
//! installs the tools and runs the latter.

use anyhow::{Context, Result, bail, ensure};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// What a step runs.
enum Work {
    /// A chore of this program.
    Own(fn(&Path) -> Result<()>),
    /// A shell command in the workspace's folder.
    Shell(&'static str),
    /// The same; the closing lines of its test programs are shown once more at the end of everything.
    Tests(&'static str),
}

struct Step {
    /// A word to name it by, for `--from`.
    name: &'static str,
    what: &'static str,
    /// Before each commit, too, or only in the full run.
    always: bool,
    work: Work,
}

const fn always(name: &'static str, what: &'static str, work: Work) -> Step {
    Step { name, what, always: true, work }
}

const fn full(name: &'static str, what: &'static str, work: Work) -> Step {
    Step { name, what, always: false, work }
}

const STEPS: [Step; 16] = [
    always("format", "format", Work::Shell("cargo fmt --all --check")),
    always("lints", "lints", Work::Shell("cargo clippy --workspace --all-targets -- -D warnings")),
    always("tidy", "house rules", Work::Own(crate::tidy::run)),
    always("guests", "guest programs are what their sources make", Work::Own(crate::guests::run)),
    always("pure", "the pure crates compile without a standard library", Work::Own(crate::pure::run)),
    full(
        "isa",
        "the bare-metal tests on QEMU, which judges them",
        Work::Shell("sh guests/isa-tests/run-qemu.sh"),
    ),
    always("tests", "tests: the README's command", Work::Tests("cargo test --workspace")),
    full("cross", "hosts that are not x86-64: the compiler's check for aarch64", Work::Shell(CROSS)),
    full("fuzz", "fuzzing: ten seconds of every target", Work::Shell(".ci/fuzz 10")),
    full(
        "faults",
        "fault tests, fifty rounds of each kind",
        Work::Shell("POLLUX_FAULT_ROUNDS=50 cargo test -p pollux --test faults"),
    ),
    full("seeds", "three hundred fresh seeds of the simulator", Work::Shell(SEEDS)),
    full(
        "tiny",
        "demo on the embedded guest",
        Work::Shell("cargo run --release -- demo --guest tiny --seconds 3"),
    ),
    full("demo", "demo: the README's command", Work::Shell("cargo run --release -- demo")),
    full(
        "debian",
        "Debian: boots, OpenSBI, recording and replay, twenty failovers with ext4",
        Work::Shell(DEBIAN),
    ),
    full("chaos", "chaos: six failovers of Debian with redis, faults from a fresh seed", Work::Shell(CHAOS)),
    full("left", "nothing of all this is left running", Work::Shell(LEFT)),
];

/// 75 says that this host cannot get the other compiler, which is no failure and must be said.
const CROSS: &str = "
    status=0
    .ci/cross arm64 check --workspace --all-targets || status=$?
    [ $status != 75 ] || { echo 'SKIPPED: nothing has been checked for aarch64, for the reason above'; exit 0; }
    exit $status";

const SEEDS: &str = "
    from=$(( $(od -An -N4 -tu4 /dev/urandom) % 1073741824 ))
    echo \"seeds from $from; repeat with: cargo run --release -- simulate --seeds 300 --from $from\"
    cargo run --release -- simulate --seeds 300 --from \"$from\"";

const DEBIAN: &str = "POLLUX_TEST_DEBIAN=1 POLLUX_FAULT_ROUNDS=10 \
    cargo test -p pollux --test debian -- --nocapture --test-threads=2";

const CHAOS: &str = "
    if [ \"$(id -u)\" = 0 ] && [ -e /dev/net/tun ]; then
        cargo run --release -- chaos --failovers 6
    else
        cargo run --release -- chaos --failovers 6 --no-netns
    fi";

/// Programs of this folder's `target`, other tenants of the machine are none of our business.
const LEFT: &str = "
    left=$(ls -l /proc/[0-9]*/exe 2>/dev/null | grep -F \" $PWD/target/\" | grep -v /xtask || true)
    [ -z \"$left\" ] || { echo \"still running: $left\"; exit 1; }";

/// Runs the steps: those of before a commit, or all; from the named one on.
pub(crate) fn run(root: &Path, all: bool, from: Option<&str>) -> Result<()> {
    let first = match from {
        None => 0,
        Some(name) => STEPS
            .iter()
            .position(|step| step.name == name)
            .with_context(|| format!("ci: no step is called {name}; `cargo xtask ci --list` names them"))?,
    };
    let began = Instant::now();
    let mut closing = Vec::new();
    for step in STEPS[first..].iter().filter(|step| all || step.always) {
        println!("\n=== {}: {} ({} s)", step.name, step.what, began.elapsed().as_secs());
        let repeat = match step.work {
            Work::Own(_) => format!("cargo xtask {}", step.name),
            Work::Shell(_) | Work::Tests(_) => format!("cargo xtask ci full --from {}", step.name),
        };
        match step.work {
            Work::Own(chore) => chore(root),
            Work::Shell(script) => shell(root, script, None),
            Work::Tests(script) => shell(root, script, Some(&mut closing)),
        }
        .with_context(|| format!("ci: {} failed; `{repeat}` goes on from there", step.name))?;
    }
    println!("\n=== done ({} s)", began.elapsed().as_secs());
    for line in closing {
        println!("{line}");
    }
    Ok(())
}

/// Prints the steps.
pub(crate) fn list() {
    for step in &STEPS {
        println!("{:8} {:5} {}", step.name, if step.always { "" } else { "full" }, step.what);
    }
}

/// Runs a script; with `closing`, what its test programs say at their ends is put there.
fn shell(root: &Path, script: &str, closing: Option<&mut Vec<String>>) -> Result<()> {
    let mut command = Command::new("sh");
    command.args(["-euc", script]).current_dir(root);
    let Some(closing) = closing else {
        ensure!(command.status().context("cannot run sh")?.success(), "it ended with an error");
        return Ok(());
    };
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot run sh")?;
    let Some(stdout) = child.stdout.take() else { bail!("sh has no output") };
    copy(BufReader::new(stdout), &mut std::io::stdout(), closing)
        .context("cannot copy what the tests say")?;
    ensure!(child.wait().context("cannot wait for sh")?.success(), "it ended with an error");
    Ok(())
}

/// Copies lines, and keeps those in which a test program says how it ended.
fn copy(mut from: impl BufRead, to: &mut impl Write, closing: &mut Vec<String>) -> std::io::Result<()> {
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line)? > 0 {
        to.write_all(&line)?;
        if line.starts_with(b"test result") {
            closing.push(String::from_utf8_lossy(&line).trim_end().to_owned());
        }
        line.clear();
    }
    to.flush()
}

/// The cargo that runs this program, in the workspace.
pub(crate) fn cargo_command(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_fails_is_an_error_and_the_closing_lines_of_tests_are_kept() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert!(shell(root, "exit 3", None).is_err());
        assert!(shell(root, "false; true", None).is_err(), "no failure in a script is passed over");
        assert!(shell(root, "exit 3", Some(&mut Vec::new())).is_err());
        let (mut shown, mut closing) = (Vec::new(), Vec::new());
        copy(&b"one\ntest result: ok. 3 passed\ntwo"[..], &mut shown, &mut closing)
            .expect("memory does not fail");
        assert_eq!(shown, b"one\ntest result: ok. 3 passed\ntwo");
        assert_eq!(closing, ["test result: ok. 3 passed"]);
    }

    #[test]
    fn no_two_steps_have_one_name() {
        let mut names: Vec<_> = STEPS.iter().map(|step| step.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), STEPS.len());
    }
}
