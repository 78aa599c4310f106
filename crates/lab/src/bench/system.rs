//! The systems that are compared, and one boot of each: processes started, the console listened to, all of it ended.

use super::console::{Pass, listen};
use super::guest::Guest;
use super::{Plan, native, say};
use crate::processes::{spawn, status_of, wait_for};
use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use pollux_host::arbiter_file::FileArbiter;
use std::cell::RefCell;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

const QEMU: &str = "qemu-system-riscv64";
/// Two virtual nanoseconds an instruction. A fixed time is the fair one: with `auto`, a recording QEMU's clock falls so
/// far behind while the guest sleeps that the boot takes half a minute; with `sleep=off` it never ends.
const ICOUNT: &str = "shift=1";
/// RAM of every guest.
const MEMORY: &str = "512M";

/// One way to run the guest's programs.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum System {
    /// Pollux alone, with its JIT
    Pollux,
    /// Pollux with its JIT and a backup on this host
    Protected,
    /// Pollux alone, with its interpreter
    Interpreter,
    /// QEMU, TCG with one thread
    Qemu,
    /// QEMU that counts instructions (-icount shift=1)
    Icount,
    /// QEMU that records for replay (-icount shift=1,rr=record)
    Record,
    /// The host itself: our workloads alone
    Native,
}

/// The systems with which a run compares if it is not told which; the rest only with `--all`.
const USUAL: [System; 6] =
    [System::Pollux, System::Protected, System::Qemu, System::Icount, System::Record, System::Native];

/// The systems to compare: those asked for, or the usual ones that are there.
pub fn chosen(asked: &[System], all: bool) -> Result<Vec<System>> {
    let mut systems: Vec<System> = if !asked.is_empty() {
        asked.to_vec()
    } else if all {
        System::value_variants().to_vec()
    } else {
        USUAL.to_vec()
    };
    systems.sort();
    systems.dedup();
    for (group, is_there, what) in [
        (
            &[System::Qemu, System::Icount, System::Record][..],
            has(QEMU),
            "qemu-system-riscv64 (Debian's package qemu-system-misc)",
        ),
        (
            &[System::Native][..],
            native::is_possible(),
            "a C compiler (cc) for a host that the workloads know",
        ),
    ] {
        if is_there {
            continue;
        }
        ensure!(!asked.iter().any(|s| group.contains(s)), "--engines asks for what needs {what}");
        let before = systems.len();
        systems.retain(|system| !group.contains(system));
        if systems.len() < before {
            say(&format!("there is no {what}: its columns are left out"));
        }
    }
    Ok(systems)
}

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// The first line of what QEMU says of itself.
pub fn qemu_version() -> Option<String> {
    let output = Command::new(QEMU).arg("--version").output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).lines().next()?.to_owned())
}

/// Processes that end with this value, in reverse order.
#[derive(Default)]
struct Processes(Vec<Child>);

impl Drop for Processes {
    fn drop(&mut self) {
        for child in self.0.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl System {
    /// As the tables have it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Pollux => "Pollux alone",
            Self::Protected => "Pollux protected",
            Self::Interpreter => "Pollux interpreter",
            Self::Qemu => "QEMU",
            Self::Icount => "QEMU -icount",
            Self::Record => "QEMU record",
            Self::Native => "native",
        }
    }

    /// As `--engines` and the JSON have it.
    pub fn key(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Boots it once and times the plan's workloads.
    pub fn measure(self, guest: &Guest, plan: &Plan) -> Result<Pass> {
        if self == Self::Native {
            return native::measure(plan);
        }
        let folder = tempfile::Builder::new().prefix("pollux-bench").tempdir()?;
        let mut processes = Processes::default();
        let result = self.boot(guest, plan, folder.path(), &mut processes);
        drop(processes);
        result.with_context(|| {
            let logs = ["system", "backup"].map(|name| folder.path().join(format!("{name}.log")));
            let texts = logs.map(|log| std::fs::read_to_string(log).unwrap_or_default()).concat();
            let lines: Vec<_> = texts.lines().collect();
            format!(
                "it did not get to the end; it said:\n  {}\n ",
                lines[lines.len().saturating_sub(5)..].join("\n  ")
            )
        })
    }

    fn boot(self, guest: &Guest, plan: &Plan, folder: &Path, processes: &mut Processes) -> Result<Pass> {
        let disk = copy_disk(guest, folder, "disk.img")?;
        let mut command = match self {
            Self::Qemu | Self::Icount | Self::Record => self.qemu(guest, folder, disk.as_deref()),
            _ => self.pollux(guest, folder, disk.as_deref(), processes)?,
        };
        let log = File::create(folder.join("system.log"))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let started = Instant::now();
        let mut child = command.spawn().with_context(|| format!("cannot start {}", self.title()))?;
        let console = child.stdout.take().context("the console is a pipe")?;
        processes.0.push(child);
        let pass = listen(console, started, plan.patience)?;
        if self == Self::Protected {
            let status = status_of(folder, "bench").context("the primary does not say how it is")?;
            ensure!(status.role == "primary", "it lost its backup on the way (role {})", status.role);
        }
        Ok(pass)
    }

    /// The primary's command, or that of the only replica; a backup is started before.
    fn pollux(
        self,
        guest: &Guest,
        folder: &Path,
        disk: Option<&Path>,
        processes: &mut Processes,
    ) -> Result<Command> {
        let engine = if self == Self::Interpreter { "--engine=interpreter" } else { "--engine=jit" };
        let mut command = Command::new(std::env::current_exe().context("cannot find my own binary")?);
        command.env("POLLUX_RUN_DIR", folder).env("POLLUX_LOG", "warn");
        command.args([
            "run",
            "--name",
            "bench",
            "--console",
            "stdio",
            "--memory",
            MEMORY,
            engine,
            "--kernel",
        ]);
        command.arg(&guest.kernel).arg("--initrd").arg(&guest.initrd).args(["--append", &guest.command_line]);
        if let Some(disk) = disk {
            command.arg("--disk").arg(disk);
        }
        if self == Self::Protected {
            let arbiter = folder.join("arbiter");
            FileArbiter::init(&arbiter)?;
            let copy = copy_disk(guest, folder, "backup.img")?;
            let backup = spawn(folder, "backup", |c| {
                c.args([
                    "backup",
                    "--listen",
                    "127.0.0.1:0",
                    "--instance",
                    "backup",
                    "--trust-disks",
                    engine,
                ]);
                c.arg("--arbiter").arg(&arbiter);
                if let Some(copy) = &copy {
                    c.arg("--disk").arg(copy);
                }
            })?;
            let backup = RefCell::new(backup);
            let listen = wait_for("the backup", &backup, || status_of(folder, "backup").ok()?.listen);
            processes.0.push(backup.into_inner());
            command.args(["--trust-disks", "--backup", &listen?, "--arbiter"]).arg(&arbiter);
        }
        Ok(command)
    }

    fn qemu(self, guest: &Guest, folder: &Path, disk: Option<&Path>) -> Command {
        let mut command = Command::new(QEMU);
        command.args(["-machine", "virt", "-accel", "tcg,thread=single", "-smp", "1", "-m", MEMORY]);
        command.args([
            "-display",
            "none",
            "-monitor",
            "none",
            "-serial",
            "stdio",
            "-no-reboot",
            "-net",
            "none",
        ]);
        command.args(["-global", "virtio-mmio.force-legacy=false", "-device", "virtio-rng-device"]);
        command.arg("-kernel").arg(&guest.kernel).arg("-initrd").arg(&guest.initrd);
        command.args(["-append", &guest.command_line]);
        match self {
            Self::Icount => drop(command.args(["-icount", ICOUNT])),
            Self::Record => {
                let log = folder.join("recording");
                command.arg("-icount").arg(format!("{ICOUNT},rr=record,rrfile={}", log.display()));
            }
            _ => {}
        }
        if let Some(disk) = disk {
            let file = |id: &str| format!("file={},format=raw,if=none,id={id}", disk.display());
            if self == Self::Record {
                command.args(["-drive", &file("direct")]);
                command.args(["-drive", "driver=blkreplay,if=none,image=direct,id=disk"]);
            } else {
                command.args(["-drive", &file("disk")]);
            }
            command.args(["-device", "virtio-blk-device,drive=disk"]);
        }
        command
    }
}

/// A copy of the guest's disk for one VM.
fn copy_disk(guest: &Guest, folder: &Path, name: &str) -> Result<Option<PathBuf>> {
    let Some(disk) = &guest.disk else { return Ok(None) };
    let copy = folder.join(name);
    pollux_image::fresh_disk_copy(disk, &copy)
        .with_context(|| format!("cannot copy the disk to {}", copy.display()))?;
    Ok(Some(copy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systems_come_in_one_order_and_once() {
        let asked = [System::Protected, System::Pollux, System::Protected];
        assert_eq!(chosen(&asked, false).expect("there"), [System::Pollux, System::Protected]);
        assert!(!chosen(&[], false).expect("there").contains(&System::Interpreter));
        assert!(chosen(&[], true).expect("there").contains(&System::Interpreter));
    }

    #[test]
    fn recording_goes_through_the_layer_that_replays_the_disk() {
        let guest = Guest { kernel: "k".into(), initrd: "i".into(), ..Guest::default() };
        let words = |system: System| {
            let command = system.qemu(&guest, Path::new("/x"), Some(Path::new("/x/d")));
            command.get_args().map(|a| a.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
        };
        assert!(words(System::Record).contains("rr=record,rrfile=/x/recording"));
        assert!(words(System::Record).contains("driver=blkreplay"));
        assert!(!words(System::Qemu).contains("icount"));
        assert!(words(System::Qemu).contains("file=/x/d,format=raw,if=none,id=disk"));
    }
}
