//! `pollux run`: a VM, alone or protected.

use super::build;
use crate::config::{Vm, VmArgs};
use crate::{engine, exit};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use pollux_arbiter::Claim;
use pollux_codec::message::Hello;
use pollux_host::arbiter_file::FileArbiter;
use pollux_host::pairing::OwnDisk;
use pollux_host::ports::HostPorts;
use pollux_host::{clock, drive, link, pairing};
use pollux_machine::{Computer, Machine};
use pollux_node::{Live, Node, Outcome};
use pollux_protocol::{Primary, Verdict};
use pollux_vocab::{Generation, Lsn};
use std::collections::BTreeMap;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long to try to reach the backup at the start.
const BACKUP_PATIENCE: Duration = Duration::from_secs(30);

#[derive(Args, Debug)]
pub struct RunArgs {
    /// The VM's description (TOML); every key is also a flag, and flags win
    #[arg(value_name = "VM.toml")]
    pub file: Option<PathBuf>,
    #[command(flatten)]
    pub vm: VmArgs,
    /// Start from a snapshot instead of from reset
    #[arg(long, value_name = "FILE")]
    pub snapshot: Option<PathBuf>,
    /// Protect the VM: HOST:PORT of a `pollux backup`
    #[arg(long, value_name = "HOST:PORT", requires = "arbiter")]
    pub backup: Option<String>,
    /// Folder on storage that both hosts reach; decides who may run
    #[arg(long, value_name = "FOLDER")]
    pub arbiter: Option<PathBuf>,
    /// Do not compare the content of replicated disks with the backup's (sizes still are)
    #[arg(long)]
    pub trust_disks: bool,
}

pub fn run(args: RunArgs) -> Result<u8> {
    let default_name =
        args.file.as_deref().and_then(Path::file_stem).and_then(|s| s.to_str()).unwrap_or("vm").to_owned();
    let vm = args.vm.merged_with(args.file.as_deref())?.resolve(&default_name, build::disk_bytes)?;
    let (images, own) = build::open_disks(&vm.disks, args.backup.is_some() && !args.trust_disks)?;
    let mut machine = start_machine(&vm, args.snapshot.as_deref())?;
    engine::install(&mut machine, vm.args.engine)?;
    let mut ports = HostPorts::default();
    build::with_status(&ports, |status| status.vm = vm.name.clone());
    let control = build::serve_control(&ports, &vm.name)?;
    build::stop_on_signals(&ports)?;
    build::plug_in(&vm, &mut ports, images)?;
    let protocol = match (&args.backup, &args.arbiter) {
        (Some(backup), Some(folder)) => pair(&vm, &own, &mut machine, &mut ports, backup, folder)?,
        _ => Primary::new_solo(vm.settings.protocol.clone(), Generation(0), clock::now(), Lsn(1)),
    };
    let outcome = run_live(machine, protocol, &vm, &mut ports);
    let _ = std::fs::remove_file(control);
    if let Some(folder) = &args.arbiter {
        end(&vm.name, folder, &outcome);
    }
    Ok(exit::report(&outcome))
}

/// Tells the arbiter that the VM has ended in good order: it may be started again, and no copy of it may go on.
pub fn end(vm: &str, folder: &Path, outcome: &Outcome) {
    if !matches!(outcome, Outcome::PoweredOff { .. } | Outcome::Reset) {
        return;
    }
    if let Err(error) = FileArbiter::open(folder).and_then(|arbiter| arbiter.end(vm)) {
        tracing::warn!(%error, "the arbiter still names the VM as running; `pollux arbiter forget {vm}` corrects it");
    }
}

fn start_machine(vm: &Vm, snapshot: Option<&Path>) -> Result<Computer> {
    let Some(path) = snapshot else { return build::build_machine(vm) };
    let bytes =
        std::fs::read(path).with_context(|| format!("cannot read the snapshot {}", path.display()))?;
    let machine =
        Computer::restore(&bytes).map_err(|e| anyhow::anyhow!("snapshot {}: {e}", path.display()))?;
    let wanted = &vm.machine;
    let found = machine.config();
    ensure!(
        found.ram_bytes == wanted.ram_bytes || vm.args.memory.is_none(),
        "the snapshot is of a machine with {} bytes of RAM, --memory says {}",
        found.ram_bytes,
        wanted.ram_bytes
    );
    let kinds = |c: &pollux_machine::Config| c.devices.iter().map(std::mem::discriminant).collect::<Vec<_>>();
    ensure!(
        kinds(found) == kinds(wanted),
        "the snapshot's devices are {:?}; give the same --disk and --net flags in the same order",
        found.devices
    );
    Ok(machine)
}

/// Drives the live side to its end.
pub fn run_live(machine: Computer, protocol: Primary, vm: &Vm, ports: &mut HostPorts) -> Outcome {
    let now = clock::now();
    build::with_status(ports, |status| status.timeline.started_ns = now.0);
    let mut live = Live::new(machine, protocol, vm.settings.clone(), now, Vec::new());
    live.reissue(ports, &BTreeMap::new());
    drive::drive(&mut Node::Live(Box::new(live)), ports)
}

/// Finds the backup, agrees on the state, claims the first generation.
fn pair(
    vm: &Vm,
    own: &[OwnDisk],
    machine: &mut Computer,
    ports: &mut HostPorts,
    backup: &str,
    folder: &Path,
) -> Result<Primary> {
    let arbiter = FileArbiter::open(folder)?;
    let newest = arbiter.newest(&vm.name)?.map(|(_, claim)| claim);
    let generation = pollux_arbiter::first_generation(newest.as_ref()).map_err(|held| {
        let folder = folder.display();
        anyhow::anyhow!("{held}. If it runs nowhere: pollux arbiter forget {} --arbiter {folder}", vm.name)
    })?;
    let stream = connect(backup)?;
    let (mut link, mut reader) = link::split(stream).context("cannot set the link up")?;
    let settings = &vm.settings.protocol;
    let hello = Hello {
        software: format!("pollux {}", env!("CARGO_PKG_VERSION")),
        vm: vm.name.clone(),
        generation,
        ram_bytes: machine.config().ram_bytes,
        harts: machine.config().harts,
        disks: build::disk_hellos(own),
        heartbeat_ns: settings.heartbeat_every_ns,
        failure_ns: settings.failure_after_ns,
        snapshot_bytes: 0,
    };
    pairing::offer(&mut link, &mut reader, hello, machine)?;
    let holder = build::holder_id();
    let verdict = arbiter.claim(&Claim { vm: vm.name.clone(), generation, holder: holder.clone() })?;
    ensure!(verdict == Verdict::Won, "somebody else has just started {}: {verdict:?}", vm.name);
    ports.set_arbiter(arbiter, &vm.name, &holder)?;
    reader.spawn(ports.sender())?;
    ports.set_link(link);
    tracing::info!(%backup, vm = vm.name, icount = %machine.icount(), "protected");
    Ok(Primary::new_protected(settings.clone(), generation, clock::now()))
}

fn connect(backup: &str) -> Result<TcpStream> {
    let begun = Instant::now();
    loop {
        let addresses =
            backup.to_socket_addrs().with_context(|| format!("--backup {backup:?} is no HOST:PORT"))?;
        let mut last = None;
        for address in addresses {
            match TcpStream::connect_timeout(&address, Duration::from_secs(3)) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(error),
            }
        }
        if begun.elapsed() > BACKUP_PATIENCE {
            let why = last.map_or_else(|| "no such host".into(), |e| e.to_string());
            bail!(
                "cannot reach the backup at {backup}: {why}; start it there: pollux backup --listen {backup} …"
            );
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
