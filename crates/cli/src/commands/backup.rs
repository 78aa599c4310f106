//! `pollux backup`: the other host's half.

use super::build;
use crate::config::{DiskSpec, DiskSpecMode, NetSpec, parse_size};
use crate::engine::Engine;
use crate::tenure::Tenure;
use crate::{engine, exit};
use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;
use pollux_arbiter::GENERATION_MAX;
use pollux_codec::message::Hello;
use pollux_host::arbiter_file::FileArbiter;
use pollux_host::console::{Console, ConsoleTarget};
use pollux_host::net::{NetPort, NetTarget};
use pollux_host::ports::HostPorts;
use pollux_host::{clock, drive, link, pairing};
use pollux_machine::Computer;
use pollux_node::{DiskMode, Event, Node, Pacing, Ports, Settings, Standby};
use pollux_protocol::Backup;
use pollux_vocab::ConsoleId;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;

/// How often a backup that waits looks for a peer; what is sent to it is heard at once.
const ACCEPT_EVERY_NS: u64 = 20_000_000;

#[derive(Args, Debug)]
pub struct BackupArgs {
    /// Where the primary reaches this host; port 0 takes a free one and says which
    #[arg(long, value_name = "HOST:PORT", default_value = "0.0.0.0:7878")]
    pub listen: String,
    /// This host's copy of each disk, in the primary's order: PATH[,mode=shared][,readonly]
    #[arg(long, value_name = "SPEC")]
    pub disk: Vec<DiskSpec>,
    /// Where each network card is plugged in on this host, in the primary's order: switch=ADDR, tap=NAME or none
    #[arg(long, value_name = "SPEC")]
    pub net: Vec<NetSpec>,
    /// The folder that both hosts reach; decides who may run
    #[arg(long, value_name = "FOLDER")]
    pub arbiter: PathBuf,
    /// The guest's console once this side is live: stdio, none, socket=PATH or file=PATH
    #[arg(long, value_name = "WHERE", default_value = "none")]
    pub console: String,
    /// What executes the guest's instructions; need not be what the primary uses [default: jit on x86-64
    /// Linux, else interpreter]
    #[arg(long, value_enum, env = "POLLUX_ENGINE")]
    pub engine: Option<Engine>,
    /// Refuse a machine with other RAM than this, e.g. 512M
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// This instance's name for `pollux status` [default: backup-PORT]
    #[arg(long)]
    pub instance: Option<String>,
    /// Do not compare the content of replicated disks with the primary's (sizes still are)
    #[arg(long)]
    pub trust_disks: bool,
}

pub fn run(args: BackupArgs) -> Result<u8> {
    let console = console_target(&args.console)?;
    let nets = args.net.iter().map(NetSpec::target).collect::<Result<Vec<_>>>()?;
    let listener = TcpListener::bind(&args.listen)
        .with_context(|| format!("cannot listen at {}; is another backup running there?", args.listen))?;
    let address = listener.local_addr()?;
    let mut ports = HostPorts::default();
    let instance = args.instance.clone().unwrap_or_else(|| format!("backup-{}", address.port()));
    let control = build::serve_control(&ports, &instance)?;
    build::with_status(&ports, |status| {
        status.role = "waiting".into();
        status.pid = std::process::id();
        status.listen = Some(address.to_string());
    });
    build::stop_on_signals(&ports)?;
    let arbiter = FileArbiter::open(&args.arbiter)?;
    let disks: Vec<_> =
        args.disk.iter().cloned().enumerate().map(|(slot, spec)| (slot as u8, spec)).collect();
    let (images, own) = build::open_disks(&disks, !args.trust_disks)?;
    for (slot, image) in images {
        ports.add_disk(slot, image.serve(slot, ports.sender())?);
    }
    let opened = Console::open(&console, ConsoleId::Uart, &ports.sender());
    ports.add_console(ConsoleId::Uart, opened.context("cannot open the console")?);
    tracing::info!(%address, "waiting for a primary");
    let paired = accept(listener, &args, &own, &arbiter, &mut ports)?;
    let Some(mut paired) = paired else {
        tracing::info!("told to stop; there was no primary yet");
        let _ = std::fs::remove_file(control);
        return Ok(0);
    };
    engine::install(&mut paired.machine, args.engine)?;
    let hello = paired.hello.clone();
    build::with_status(&ports, |status| status.vm.clone_from(&hello.vm));
    let tenure = Tenure::backing(arbiter, &hello.vm, build::holder_id(), hello.generation);
    let settings = settings(&hello, &disks);
    let standby = begin(paired, &nets, &tenure, settings, &mut ports)?;
    tracing::info!(vm = hello.vm, generation = %hello.generation, "backing up");
    let mut node = Node::Standby(Box::new(standby));
    let outcome = drive::drive(&mut node, &mut ports);
    let _ = std::fs::remove_file(control);
    if matches!(node, Node::Live(_)) {
        tenure.end_after(&outcome, node.report().generation);
    }
    Ok(exit::report(&outcome))
}

/// A peer that has sent its machine, and waits to hear that this side is ready.
struct Paired {
    hello: Hello,
    machine: Computer,
    link: link::LinkSender,
    reader: link::LinkReader,
}

/// Opens what needed the machine, then says that this side is ready, last of all.
fn begin(
    paired: Paired,
    nets: &[NetTarget],
    tenure: &Tenure,
    settings: Settings,
    ports: &mut HostPorts,
) -> Result<Standby<Computer>> {
    let Paired { hello, mut machine, mut link, reader } = paired;
    if let Err(error) = plug_nets(nets, &machine, ports) {
        pairing::refuse(&mut link, &format!("{error:#}"));
        return Err(error);
    }
    ports.set_arbiter(tenure.arbiter.clone(), &hello.vm, &tenure.holder)?;
    reader.spawn(ports.sender())?;
    pairing::ready(&mut link, &mut machine)?;
    ports.set_link(link);
    let protocol = Backup::new(settings.protocol.clone(), hello.generation, clock::now());
    let mut standby = Standby::new(machine, protocol, settings);
    standby.begin_pending(ports);
    Ok(standby)
}

/// Takes the first peer that makes a pair; others are told why not and forgotten. `None`: told to stop.
fn accept(
    listener: TcpListener,
    args: &BackupArgs,
    own: &[pairing::OwnDisk],
    arbiter: &FileArbiter,
    ports: &mut HostPorts,
) -> Result<Option<Paired>> {
    listener.set_nonblocking(true)?;
    loop {
        let Some((stream, peer)) = next_peer(&listener, ports)? else { return Ok(None) };
        let (mut link, mut reader) = match link::split(stream) {
            Ok(halves) => halves,
            Err(error) => {
                tracing::warn!(%peer, %error, "cannot talk to a peer");
                continue;
            }
        };
        let hello = pairing::hear_hello(&mut reader, pairing::HELLO_PATIENCE).map_err(anyhow::Error::from);
        let paired = hello.and_then(|hello| {
            if let Err(reason) = check(&hello, args, own, arbiter) {
                pairing::refuse(&mut link, &format!("{reason:#}"));
                return Err(reason);
            }
            let machine = pairing::welcome(&mut link, &mut reader, &hello, own)?;
            Ok((hello, machine))
        });
        match paired {
            Ok((hello, machine)) => return Ok(Some(Paired { hello, machine, link, reader })),
            Err(error) => tracing::warn!(%peer, "not paired: {error:#}"),
        }
    }
}

/// The next who connects; `None` if this side is told to stop first.
fn next_peer(listener: &TcpListener, ports: &mut HostPorts) -> Result<Option<(TcpStream, SocketAddr)>> {
    loop {
        // Nothing else in the channel concerns a VM that is not there yet.
        while let Some(event) = ports.poll_event() {
            if event == Event::Stop {
                return Ok(None);
            }
        }
        match listener.accept() {
            Ok((stream, peer)) => {
                stream.set_nonblocking(false)?;
                return Ok(Some((stream, peer)));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                ports.wait(clock::now().after(ACCEPT_EVERY_NS));
            }
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
            Err(error) => return Err(error).context("cannot accept a connection"),
        }
    }
}

fn check(hello: &Hello, args: &BackupArgs, own: &[pairing::OwnDisk], arbiter: &FileArbiter) -> Result<()> {
    if let Some(memory) = &args.memory {
        let wanted = parse_size(memory)?;
        ensure!(
            wanted == hello.ram_bytes,
            "the VM has {} bytes of RAM, this backup was told --memory {memory}; give both sides the same",
            hello.ram_bytes
        );
    }
    pollux_arbiter::validate_name(&hello.vm).map_err(|e| anyhow!("the VM's name {:?}: {e}", hello.vm))?;
    ensure!(
        hello.heartbeat_ns > 0 && hello.heartbeat_ns.saturating_mul(2) <= hello.failure_ns,
        "the primary's timeouts make no sense: heartbeat {} ns, failure {} ns",
        hello.heartbeat_ns,
        hello.failure_ns
    );
    ensure!(
        hello.generation <= GENERATION_MAX,
        "the primary's generation {} makes no sense: no VM gets there",
        hello.generation
    );
    pairing::check_disks(&hello.disks, own).map_err(|reason| anyhow!("{reason}"))?;
    // Rule: both sides ask the same arbiter. A primary has won its generation there before it says hello.
    let standing = arbiter.standing(&hello.vm, hello.generation)?;
    ensure!(
        standing.is_some_and(|claim| !claim.is_end()),
        "the backup's --arbiter {} knows nothing of generation {} of {}; give both sides the same folder",
        args.arbiter.display(),
        hello.generation,
        hello.vm
    );
    Ok(())
}

fn plug_nets(nets: &[NetTarget], machine: &Computer, ports: &mut HostPorts) -> Result<()> {
    let cards = build::nets_of(machine.config());
    if cards.len() > nets.len() {
        tracing::warn!(
            "the VM has {} network cards, this backup was given {}: the rest is unplugged",
            cards.len(),
            nets.len()
        );
    }
    for ((slot, mac), target) in cards.into_iter().zip(nets.iter().chain(std::iter::repeat(&NetTarget::None)))
    {
        ports.add_net(slot, mac, NetPort::open(target, slot, &ports.sender())?);
    }
    Ok(())
}

fn console_target(text: &str) -> Result<ConsoleTarget> {
    Ok(match text.split_once('=').unwrap_or((text, "")) {
        ("none", _) => ConsoleTarget::None,
        ("stdio", _) => ConsoleTarget::Stdio,
        ("socket", path) if !path.is_empty() => ConsoleTarget::Socket(path.into()),
        ("file", path) if !path.is_empty() => ConsoleTarget::File(path.into()),
        _ => return Err(anyhow!("--console {text:?}: there are stdio, none, socket=PATH and file=PATH")),
    })
}

/// Both sides keep the primary's timeouts; what concerns this host only is the default.
fn settings(hello: &Hello, disks: &[(u8, DiskSpec)]) -> Settings {
    let protocol = pollux_protocol::Settings {
        heartbeat_every_ns: hello.heartbeat_ns,
        failure_after_ns: hello.failure_ns,
        ..pollux_protocol::Settings::default()
    };
    let mode = |spec: &DiskSpec| match spec.mode {
        DiskSpecMode::Shared => DiskMode::Shared,
        DiskSpecMode::Replicated => DiskMode::Replicated,
    };
    Settings {
        protocol,
        pacing: Pacing::RealTime,
        disk_modes: disks.iter().map(|(slot, spec)| (*slot, mode(spec))).collect(),
        digest_every_ns: 1_000_000_000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use pollux_arbiter::Claim;
    use pollux_vocab::Generation;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: BackupArgs,
    }

    fn args(more: &[&str]) -> BackupArgs {
        let words = ["backup", "--arbiter", "nowhere"].iter().chain(more);
        Line::try_parse_from(words).expect("right usage").args
    }

    fn hello(generation: u64) -> Hello {
        Hello {
            software: String::new(),
            vm: "vm".into(),
            generation: Generation(generation),
            harts: 1,
            ram_bytes: 16 << 20,
            disks: Vec::new(),
            heartbeat_ns: 1,
            failure_ns: 2,
            snapshot_bytes: 0,
        }
    }

    #[test]
    fn a_backup_that_waits_ends_when_it_is_told_to_stop() {
        let folder = tempfile::tempdir().expect("a folder");
        let arbiter = FileArbiter::open(folder.path()).expect("usable");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut ports = HostPorts::default();
        for event in [Event::PowerButton, Event::Stop] {
            ports.sender().send(event).expect("heard");
        }
        let paired = accept(listener, &args(&[]), &[], &arbiter, &mut ports).expect("no failure");
        assert!(paired.is_none());
    }

    #[test]
    fn where_a_backup_would_plug_in_is_understood_before_it_listens() {
        let console = run(args(&["--console", "printer"])).expect_err("no console");
        assert!(console.to_string().contains("printer"), "{console}");
        let net = run(args(&["--net", "switch=nowhere"])).expect_err("no switch");
        assert!(net.to_string().contains("nowhere"), "{net}");
    }

    #[test]
    fn a_primary_whose_generation_has_no_next_one_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let arbiter = FileArbiter::open(folder.path()).expect("usable");
        let refused = check(&hello(u64::MAX), &args(&[]), &[], &arbiter).expect_err("no next one");
        assert!(refused.to_string().contains("no VM gets there"), "{refused}");
    }

    #[test]
    fn a_primary_that_has_won_nothing_at_this_sides_arbiter_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let arbiter = FileArbiter::open(folder.path()).expect("usable");
        let refused = check(&hello(1), &args(&[]), &[], &arbiter).expect_err("another arbiter");
        assert!(refused.to_string().contains("the same folder"), "{refused}");
        let claim =
            |holder: &str| Claim { vm: "vm".into(), generation: Generation(1), holder: holder.into() };
        arbiter.claim(&claim("a")).expect("reachable");
        assert!(check(&hello(1), &args(&[]), &[], &arbiter).is_ok());
        arbiter.end("vm", Generation(1), "a").expect("reachable");
        assert!(check(&hello(2), &args(&[]), &[], &arbiter).is_err(), "nobody runs in that one");
    }
}
