//! `pollux backup`: the other host's half.

use super::build;
use crate::config::{DiskSpec, DiskSpecMode, NetSpec, parse_size};
use crate::exit;
use crate::tenure::Tenure;
use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;
use pollux_codec::message::Hello;
use pollux_host::arbiter_file::FileArbiter;
use pollux_host::console::{Console, ConsoleTarget};
use pollux_host::net::NetPort;
use pollux_host::ports::HostPorts;
use pollux_host::{clock, drive, link, pairing};
use pollux_machine::Computer;
use pollux_node::{DiskMode, Node, Pacing, Settings, Standby};
use pollux_protocol::Backup;
use pollux_vocab::ConsoleId;
use std::net::TcpListener;
use std::path::PathBuf;

#[derive(Args, Debug)]
pub struct BackupArgs {
    /// Where the primary reaches this host; port 0 takes a free one and says which
    #[arg(long, value_name = "HOST:PORT", default_value = "0.0.0.0:7878")]
    pub listen: String,
    /// This host's copy of each disk, in the primary's order: PATH[,mode=shared]
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
    let arbiter = FileArbiter::open(&args.arbiter)?;
    let disks: Vec<_> =
        args.disk.iter().cloned().enumerate().map(|(slot, spec)| (slot as u8, spec)).collect();
    let (images, own) = build::open_disks(&disks, !args.trust_disks)?;
    tracing::info!(%address, "waiting for a primary");
    let (hello, machine, link, reader) = accept(&listener, &args, &own)?;
    drop(listener);
    build::with_status(&ports, |status| status.vm.clone_from(&hello.vm));
    for (slot, image) in images {
        ports.add_disk(slot, image.serve(slot, ports.sender())?);
    }
    plug_nets(&args, &machine, &mut ports)?;
    let console = console_target(&args.console)?;
    ports.add_console(ConsoleId::Uart, Console::open(&console, ConsoleId::Uart, &ports.sender())?);
    let tenure = Tenure::backing(arbiter, &hello.vm, build::holder_id(), hello.generation);
    ports.set_arbiter(tenure.arbiter.clone(), &hello.vm, &tenure.holder)?;
    reader.spawn(ports.sender())?;
    ports.set_link(link);
    build::stop_on_signals(&ports)?;
    let settings = settings(&hello, &disks);
    let protocol = Backup::new(settings.protocol.clone(), hello.generation, clock::now());
    let mut standby = Standby::new(machine, protocol, settings);
    standby.begin_pending(&mut ports);
    tracing::info!(vm = hello.vm, generation = %hello.generation, "backing up");
    let mut node = Node::Standby(Box::new(standby));
    let outcome = drive::drive(&mut node, &mut ports);
    let _ = std::fs::remove_file(control);
    if matches!(node, Node::Live(_)) {
        tenure.end_after(&outcome, node.report().generation);
    }
    Ok(exit::report(&outcome))
}

/// Takes the first peer that makes a pair; others are told why not and forgotten.
fn accept(
    listener: &TcpListener,
    args: &BackupArgs,
    own: &[pairing::OwnDisk],
) -> Result<(Hello, Computer, link::LinkSender, link::LinkReader)> {
    loop {
        let (stream, peer) = listener.accept().context("cannot accept a connection")?;
        let (mut sender, mut reader) = match link::split(stream) {
            Ok(halves) => halves,
            Err(error) => {
                tracing::warn!(%peer, %error, "cannot talk to a peer");
                continue;
            }
        };
        let paired = pairing::hear_hello(&mut reader).map_err(anyhow::Error::from).and_then(|hello| {
            if let Err(reason) = check(&hello, args, own) {
                pairing::refuse(&mut sender, &format!("{reason:#}"));
                return Err(reason);
            }
            let machine = pairing::welcome(&mut sender, &mut reader, &hello)?;
            Ok((hello, machine))
        });
        match paired {
            Ok((hello, machine)) => return Ok((hello, machine, sender, reader)),
            Err(error) => tracing::warn!(%peer, "not paired: {error:#}"),
        }
    }
}

fn check(hello: &Hello, args: &BackupArgs, own: &[pairing::OwnDisk]) -> Result<()> {
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
    pairing::check_disks(&hello.disks, own).map_err(|reason| anyhow!("{reason}"))
}

fn plug_nets(args: &BackupArgs, machine: &Computer, ports: &mut HostPorts) -> Result<()> {
    let cards = build::nets_of(machine.config());
    if cards.len() > args.net.len() {
        tracing::warn!(
            "the VM has {} network cards, this backup was given {}: the rest is unplugged",
            cards.len(),
            args.net.len()
        );
    }
    for ((slot, mac), spec) in
        cards.into_iter().zip(args.net.iter().chain(std::iter::repeat(&NetSpec::default())))
    {
        ports.add_net(slot, mac, NetPort::open(&spec.target()?, slot, &ports.sender())?);
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
