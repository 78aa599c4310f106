//! What `run`, `backup` and `record` share: opening what a VM needs, and plugging it into the ports.

use crate::config::{DiskSpec, DiskSpecMode, OnTerm, Vm};
pub use crate::files::{read_and_keep_open, read_pieces};
use anyhow::{Context, Result, bail};
use pollux_codec::message::DiskHello;
use pollux_host::console::{Console, ConsoleTarget};
use pollux_host::control;
use pollux_host::disk::Image;
use pollux_host::net::NetPort;
use pollux_host::outfile::Inputs;
use pollux_host::pairing::OwnDisk;
use pollux_host::ports::HostPorts;
use pollux_node::{Event, HandoverCause};
use pollux_riscv::{Boot, Computer, Config, DeviceConfig};
use pollux_vocab::{ConsoleId, Generation};
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Largest kernel, initial RAM disk or firmware that is read.
const BOOT_FILE_BYTES_MAX: u64 = 4 << 30;

/// Opens a disk image as its mode asks.
pub fn open_disk(spec: &DiskSpec) -> Result<Image> {
    Ok(Image::open(&spec.path, spec.readonly, spec.mode == DiskSpecMode::Replicated)?)
}

/// A disk's size, for building the machine.
pub fn disk_bytes(spec: &DiskSpec) -> Result<u64> {
    Ok(Image::open(&spec.path, true, false)?.bytes())
}

/// The boot files of this process, locked for as long as it lives: whoever clears a cache up leaves them alone, and a
/// VM that is started again needs them again.
static HELD: Mutex<Vec<File>> = Mutex::new(Vec::new());

fn read_boot_file(path: &Path, what: &str) -> Result<Vec<u8>> {
    let (bytes, file) = read_and_keep_open(path, what, BOOT_FILE_BYTES_MAX)?;
    // A file system without locks is no reason to refuse.
    let _ = flock(&file, FlockOperation::NonBlockingLockShared);
    HELD.lock().unwrap_or_else(PoisonError::into_inner).push(file);
    Ok(bytes)
}

/// Builds the machine in its reset state.
pub fn build_machine(vm: &Vm) -> Result<Computer> {
    let read = |path: &Option<PathBuf>, what| path.as_deref().map(|p| read_boot_file(p, what)).transpose();
    let kernel = read(&vm.args.kernel, "kernel")?;
    let initrd = read(&vm.args.initrd, "initial RAM disk")?;
    let bios = read(&vm.args.bios, "firmware")?;
    let command_line = vm.args.append.as_deref().unwrap_or("");
    let boot = match (&bios, &kernel) {
        (Some(image), kernel) => {
            Boot::Firmware { image, kernel: kernel.as_deref(), initrd: initrd.as_deref(), command_line }
        }
        (None, Some(image)) => Boot::Kernel { image, initrd: initrd.as_deref(), command_line },
        (None, None) => {
            bail!("nothing to start: give --kernel or --bios (`pollux image build` makes a Debian guest)")
        }
    };
    Computer::new(&vm.machine, boot).map_err(|e| anyhow::anyhow!("cannot start the machine: {e}"))
}

/// Opens and plugs in disks, networks and the console.
pub fn plug_in(vm: &Vm, ports: &mut HostPorts, images: Images) -> Result<()> {
    plug_disks(ports, images, vm.args.disk_hang_ms)?;
    if vm.nets.is_empty() {
        tracing::info!("no --net: the VM has no network card");
    }
    for (slot, mac, spec) in &vm.nets {
        ports.add_net(*slot, *mac, NetPort::open(&spec.target()?, *slot, &ports.sender())?);
    }
    ports.own_nets(Generation(0));
    plug_console(vm, ports)
}

/// Plugs in disks that may take so long over a request.
pub fn plug_disks(ports: &mut HostPorts, images: Images, hang_ms: Option<u64>) -> Result<()> {
    if let Some(ms) = hang_ms {
        ports.set_disk_hang_after(Duration::from_millis(ms));
    }
    for (slot, image) in images {
        ports.add_disk(slot, image.serve(slot, ports.sender())?);
    }
    Ok(())
}

fn plug_console(vm: &Vm, ports: &mut HostPorts) -> Result<()> {
    open_console(&vm.console, &inputs(vm), ports)
}

/// Opens a console that is none of the `inputs`, and plugs it in.
pub fn open_console(target: &ConsoleTarget, inputs: &Inputs, ports: &mut HostPorts) -> Result<()> {
    if let ConsoleTarget::File(path) = target {
        inputs.refuse(path).context("cannot open the console")?;
    }
    let console = Console::open(target, ConsoleId::Uart, &ports.sender()).with_context(|| match target {
        ConsoleTarget::Socket(path) => format!("cannot open the console at {}", path.display()),
        _ => "cannot open the console".into(),
    })?;
    if let ConsoleTarget::Socket(path) = target {
        with_status(ports, |status| status.console = Some(path.display().to_string()));
    }
    ports.add_console(ConsoleId::Uart, console);
    Ok(())
}

/// What a VM is made of: nothing is written over these.
pub fn inputs(vm: &Vm) -> Inputs {
    let mut inputs = disk_inputs(&vm.disks);
    let args = &vm.args;
    let files = [
        ("kernel", &args.kernel),
        ("initial RAM disk", &args.initrd),
        ("firmware", &args.bios),
        ("VM file", &args.source),
    ];
    for (what, path) in files {
        if let Some(path) = path {
            inputs.add(what, path);
        }
    }
    inputs
}

/// The same of disks alone.
pub fn disk_inputs(disks: &[(u8, DiskSpec)]) -> Inputs {
    let mut inputs = Inputs::default();
    disks.iter().for_each(|(slot, spec)| inputs.add(&format!("image of disk {slot}"), &spec.path));
    inputs
}

/// Changes the status.
pub fn with_status(ports: &HostPorts, change: impl FnOnce(&mut pollux_host::status::Status)) {
    change(&mut ports.status.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
}

/// Makes the run folder, private to this user, and serves the control socket of `instance` in it.
pub fn serve_control(ports: &HostPorts, instance: &str) -> Result<PathBuf> {
    let folder = control::make_run_folder()
        .with_context(|| format!("cannot use the run folder {}", control::run_folder().display()))?;
    with_status(ports, |status| {
        status.name = instance.into();
        status.version = env!("CARGO_PKG_VERSION").into();
        status.pid = std::process::id();
    });
    let path = folder.join(format!("{instance}.sock"));
    control::serve(&path, ports.status.clone(), ports.sender()).with_context(|| {
        let path = path.display();
        format!(
            "cannot serve the control socket {path}; if an instance named {instance} runs, give this one another name: --name, or --instance of a backup"
        )
    })?;
    Ok(path)
}

/// SIGINT ends the VM in good order, and so do SIGTERM and SIGHUP, unless they are to hand it over; then it is the second
/// signal that ends the VM. The next one ends the process.
pub fn stop_on_signals(ports: &HostPorts, on_term: OnTerm) -> Result<()> {
    let mut signals = crate::signals::endings()?;
    let events = ports.sender();
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let (mut handing_over, mut stopping) = (false, false);
        for signal in signals.forever() {
            if stopping {
                pollux_host::console::restore_terminal();
                std::process::exit(i32::from(crate::exit::FAILED));
            }
            let hands_over =
                on_term == OnTerm::Handover && signal != signal_hook::consts::SIGINT && !handing_over;
            let event = if hands_over {
                handing_over = true;
                Event::HandOver(HandoverCause::Terminate)
            } else {
                tracing::info!("stopping; once more to leave at once");
                stopping = true;
                Event::Stop
            };
            let _ = events.send(event);
        }
    })?;
    Ok(())
}

/// Open images by slot.
pub type Images = Vec<(u8, Image)>;

/// Opens every disk of `vm`; with `hash`, says what the peer compares.
pub fn open_disks(vm_disks: &[(u8, DiskSpec)], hash: bool) -> Result<(Images, Vec<OwnDisk>)> {
    let mut images = Vec::new();
    let mut own = Vec::new();
    for (slot, spec) in vm_disks {
        let image = open_disk(spec)?;
        let shared = spec.mode == DiskSpecMode::Shared;
        let content_hash = (hash && !shared).then(|| image.content_hash()).transpose()?;
        let (slot, read_only, bytes) = (*slot, spec.readonly, image.bytes());
        own.push(OwnDisk { slot, shared, read_only, bytes, content_hash });
        images.push((slot, image));
    }
    Ok((images, own))
}

/// The same, as the primary tells them.
pub fn disk_hellos(own: &[OwnDisk]) -> Vec<DiskHello> {
    own.iter()
        .map(|d| DiskHello { slot: d.slot, shared: d.shared, bytes: d.bytes, content_hash: d.content_hash })
        .collect()
}

/// The network cards of a machine that came over the wire, in slot order.
pub fn nets_of(config: &Config) -> Vec<(u8, [u8; 6])> {
    let net = |(slot, device): (usize, &DeviceConfig)| match device {
        DeviceConfig::Net { mac } => Some((slot as u8, *mac)),
        _ => None,
    };
    config.devices.iter().enumerate().filter_map(net).collect()
}

/// Who this process is, for the arbiter: unique per process start on any host.
pub fn holder_id() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let host: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(32).collect();
    format!("{host}-{}-{}", std::process::id(), pollux_host::clock::now().0)
}
