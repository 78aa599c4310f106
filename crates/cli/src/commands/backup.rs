//! `pollux backup`: the other host's half.

use super::build;
use super::door::{Door, Visitor};
use crate::config::{DiskSpec, DiskSpecMode, NetSpec, OnTerm, parse_size};
use crate::engine::Engine;
use crate::tenure::Tenure;
use crate::{engine, exit, marks};
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use pollux_arbiter::{ArbiterId, GENERATION_MAX, Secret};
use pollux_codec::message::{Greet, Hello};
use pollux_host::arbiter_file::FileArbiter;
use pollux_host::console::ConsoleTarget;
use pollux_host::events::EventSender;
use pollux_host::mark::{MarkName, Start};
use pollux_host::net::{NetPort, NetTarget};
use pollux_host::pairing::{BackupHost, Found, Own, OwnDisk, Visit};
use pollux_host::ports::{HostPorts, OTHER_SIDE};
use pollux_host::{clock, drive, pairing};
use pollux_node::{DiskMode, Node, Pacing, Ports, Settings, Standby};
use pollux_protocol::Backup;
use pollux_protocol::ending::Part;
use pollux_riscv::Computer;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// How often a backup that waits, or reads its disks, looks whether it is to stop.
const LOOK_EVERY: Duration = Duration::from_millis(20);

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
    /// How long a disk may take over one request before it counts as hung, in ms [default: 5000]
    #[arg(long, value_name = "MS")]
    pub disk_hang_ms: Option<u64>,
    /// Do not compare the content of replicated disks with the primary's (sizes still are)
    #[arg(long)]
    pub trust_disks: bool,
    /// Use a disk image whose mark is against it: VM@GENERATION, as the refusal names it; may be repeated
    #[arg(long, value_name = "MARK")]
    pub ignore_mark: Vec<MarkName>,
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
    build::stop_on_signals(&ports, OnTerm::Stop)?;
    let arbiter = FileArbiter::open(&args.arbiter)?;
    let disks: Vec<_> =
        args.disk.iter().cloned().enumerate().map(|(slot, spec)| (slot as u8, spec)).collect();
    // What they hold is read when a primary comes: they may be copied anew until then.
    build::open_disks(&disks, false)?;
    if let Some(ms) = args.disk_hang_ms {
        ports.set_disk_hang_after(Duration::from_millis(ms));
    }
    build::open_console(&console, &build::disk_inputs(&disks), &mut ports)?;
    tracing::info!(%address, "waiting for a primary");
    let (asked, own) = (arbiter.clone(), own(&args)?);
    let door = Door::open(listener, move |link, reader| {
        Ok(pairing::meet(link, reader, own.clone(), |greet| look_up(greet, &asked))?)
    })?;
    let paired = accept(&door, &args, &disks, &mut ports)?;
    let Some(paired) = paired else {
        tracing::info!("told to stop; there was no primary yet");
        let _ = std::fs::remove_file(control);
        return Ok(0);
    };
    let (hello, peer) = (paired.visit.hello.clone(), paired.peer.to_string());
    build::with_status(&ports, |status| {
        status.vm.clone_from(&hello.vm);
        status.peer = Some(peer);
        status.timeline.started_ns = clock::now().0;
    });
    let tenure = Tenure::backing(arbiter, build::holder_id(), &paired.visit.greet, &args.arbiter)?;
    let standby = begin(paired, &args, (&nets, &disks), &tenure, &mut ports)?;
    tracing::info!(vm = hello.vm, generation = %hello.generation, "backing up");
    let mut node = Node::Standby(Box::new(standby));
    let outcome = drive::drive(&mut node, &mut ports);
    let _ = std::fs::remove_file(control);
    let part = if matches!(node, Node::Live(_)) { Part::Live } else { Part::Standby };
    tenure.end_after(part, &outcome, node.report().generation);
    Ok(exit::report(&outcome))
}

/// A peer that has sent its machine, and waits to hear that this side is ready.
struct Paired {
    visit: Visit,
    machine: Computer,
    images: build::Images,
    peer: SocketAddr,
}

/// What this side was told of the machine that may come.
fn own(args: &BackupArgs) -> Result<Own> {
    let ram = args.memory.as_ref().map(|said| Ok::<_, anyhow::Error>((parse_size(said)?, said.clone())));
    Ok(Own { ram: ram.transpose()? })
}

/// Opens what needed the machine, then says that this side is ready, last of all.
fn begin(
    paired: Paired,
    args: &BackupArgs,
    (nets, disks): (&[NetTarget], &[(u8, DiskSpec)]),
    tenure: &Tenure,
    ports: &mut HostPorts,
) -> Result<Standby<Computer>> {
    let Paired { mut visit, mut machine, images, .. } = paired;
    let settings = settings(&visit.hello, disks);
    let generation = visit.hello.generation;
    let reader = visit.take_reader();
    let plugged_in = engine::install(&mut machine, args.engine).and_then(|()| {
        ports.set_marks(marks::begin(disks, tenure)?);
        build::plug_disks(ports, images, None)?;
        plug_nets(nets, &machine, ports)?;
        ports.set_arbiter(tenure.arbiter.clone(), tenure.claimant())?;
        reader.context("the link is gone")?.spawn(OTHER_SIDE, ports.sender())?;
        Ok(())
    });
    let why_not = plugged_in.as_ref().copied().map_err(|error| format!("{error:#}"));
    let link = visit.ready(&mut machine, why_not, &ports.sender());
    plugged_in?;
    ports.set_link(OTHER_SIDE, link?);
    let protocol = Backup::new(settings.protocol.clone(), generation, clock::now(), OTHER_SIDE);
    let mut standby = Standby::new(machine, protocol, settings);
    standby.begin_pending(ports);
    Ok(standby)
}

/// Takes the first peer that makes a pair; others are told why not and forgotten. `None`: told to stop.
fn accept(
    door: &Door,
    args: &BackupArgs,
    disks: &[(u8, DiskSpec)],
    ports: &mut HostPorts,
) -> Result<Option<Paired>> {
    let stop = ports.sender();
    loop {
        // Nothing else in the channel concerns a VM that is not there yet.
        while ports.poll_event().is_some() {}
        if stop.is_stopping() {
            return Ok(None);
        }
        let Some(visitor) = door.next(LOOK_EVERY) else { continue };
        door.set_taken(true);
        let peer = visitor.peer;
        match pair(visitor, args, disks, &stop) {
            Ok(paired) => return Ok(Some(paired)),
            Err(error) => tracing::warn!(%peer, "not paired: {error:#}"),
        }
        door.set_taken(false);
    }
}

/// Reads this side's disks as they are now, compares, and takes the machine.
fn pair(visitor: Visitor, args: &BackupArgs, disks: &[(u8, DiskSpec)], stop: &EventSender) -> Result<Paired> {
    let Visitor { mut visit, peer } = visitor;
    let mut taking = Taking { args, disks, stop, images: None };
    let machine = visit.take(&mut taking, stop)?;
    let images = taking.images.context("the disks have not been opened")?;
    Ok(Paired { visit, machine, images, peer })
}

/// What taking a visitor in needs of this command.
struct Taking<'a> {
    args: &'a BackupArgs,
    disks: &'a [(u8, DiskSpec)],
    stop: &'a EventSender,
    images: Option<build::Images>,
}

impl BackupHost for Taking<'_> {
    fn open_disks(&mut self) -> Result<Vec<OwnDisk>, String> {
        let opened = open_disks(self.disks, !self.args.trust_disks, self.stop);
        let (images, own) = opened.map_err(|error| format!("{error:#}"))?;
        self.images = Some(images);
        Ok(own)
    }

    fn fit(&mut self, greet: &Greet, _: &Hello) -> Result<(), String> {
        // Content that is compared needs no mark to speak for it.
        if !self.args.trust_disks {
            return Ok(());
        }
        let arbiter = ArbiterId(greet.arbiter).to_string();
        let start = Start::Beside { vm: &greet.vm, arbiter: &arbiter };
        marks::compare(self.disks, start, &self.args.ignore_mark).map_err(|error| format!("{error:#}"))
    }
}

/// Opens the disks, and reads them if they are to be compared, in a thread that may be left behind.
fn open_disks(
    disks: &[(u8, DiskSpec)],
    hash: bool,
    stop: &EventSender,
) -> Result<(build::Images, Vec<OwnDisk>)> {
    let (sender, opened) = channel();
    let disks = disks.to_vec();
    std::thread::Builder::new().name("disks".into()).spawn(move || {
        let _ = sender.send(build::open_disks(&disks, hash));
    })?;
    loop {
        match opened.recv_timeout(LOOK_EVERY) {
            Ok(opened) => return opened,
            Err(RecvTimeoutError::Timeout) if stop.is_stopping() => bail!("told to stop"),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => bail!("the disks could not be read"),
        }
    }
}

/// What stands at this side's arbiter of the generation that a peer says it runs in, and the secret of its claim. The
/// rest of what makes a peer no stranger is for `pollux_protocol::pairing` to say.
pub(super) fn look_up(greet: &Greet, arbiter: &FileArbiter) -> Result<(Found, Option<Secret>), String> {
    let Greet { vm, generation, .. } = greet;
    pollux_arbiter::validate_name(vm).map_err(|e| format!("the VM's name {vm:?}: {e}"))?;
    if *generation >= GENERATION_MAX {
        return Err(format!("the primary's generation {generation} makes no sense: no VM gets there"));
    }
    let standing = |generation| arbiter.standing(vm, generation).map_err(|error| error.to_string());
    let held = standing(*generation)?.filter(|claim| !claim.is_end());
    let is_spent = standing(generation.next())?.is_some();
    let (holder, secret) = held.map(|claim| (claim.holder, claim.secret)).unzip();
    Ok((Found { arbiter: arbiter.id().0, holder, is_spent }, secret))
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
    let default = pollux_protocol::Settings::default();
    let protocol = pollux_protocol::Settings {
        heartbeat_every_ns: hello.heartbeat_ns,
        failure_after_ns: hello.failure_ns,
        net_wait_ns: default.net_wait_ns.max(hello.failure_ns.saturating_mul(3)),
        stall_after_ns: default.stall_after_ns.max(hello.failure_ns),
        ..default
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
    use pollux_arbiter::{Arbiter, Claim};
    use pollux_node::Event;
    use pollux_protocol::HostTime;
    use pollux_protocol::pairing::{BackupAction, BackupInput, BackupStart, Greeting, Refusal, Word};
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

    fn made(folder: &std::path::Path) -> FileArbiter {
        FileArbiter::init(folder).expect("room");
        FileArbiter::open(folder).expect("usable")
    }

    fn greet(arbiter: &FileArbiter, generation: u64) -> Greet {
        let (vm, holder, generation) = ("vm".into(), "a".into(), Generation(generation));
        Greet { vm, generation, arbiter: arbiter.id().0, holder, nonce: [0; 32] }
    }

    /// What a backup makes of a peer that says this: the secret it is to know, or why it is a stranger.
    fn meets(greet: &Greet, arbiter: &FileArbiter) -> Result<Secret, String> {
        let mut start = BackupStart::new(Own::default(), HostTime(0));
        let mut tell = |input| start.handle(HostTime(0), input);
        let Greet { vm, generation, arbiter: id, holder, nonce } = greet.clone();
        tell(BackupInput::Heard(Word::Greet(Greeting { vm, generation, arbiter: id, holder, nonce })));
        let (found, secret) =
            look_up(greet, arbiter).map_or_else(|why| (Err(why), None), |(f, s)| (Ok(f), s));
        tell(BackupInput::Looked(found));
        tell(BackupInput::Proved { nonce: [0; 32], proof: [0; 32] });
        tell(BackupInput::Heard(Word::Proof([0; 32])));
        match std::iter::from_fn(|| start.poll_action()).last() {
            Some(BackupAction::GiveUp(Refusal::Stranger(_, Some(why)))) => Err(why),
            _ => secret.ok_or_else(|| "no secret".into()),
        }
    }

    #[test]
    fn a_backup_that_waits_ends_when_it_is_told_to_stop() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let door = Door::open(listener, |_, _| bail!("nobody comes")).expect("a thread");
        let mut ports = HostPorts::default();
        for event in [Event::PowerButton, Event::Stop] {
            ports.sender().send(event).expect("heard");
        }
        let paired = accept(&door, &args(&[]), &[], &mut ports).expect("no failure");
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
        let arbiter = made(folder.path());
        let refused = meets(&greet(&arbiter, u64::MAX), &arbiter).expect_err("no next one");
        assert!(refused.contains("no VM gets there"), "{refused}");
    }

    #[test]
    fn a_primary_that_does_not_hold_its_generation_at_this_sides_arbiter_is_a_stranger() {
        let folder = tempfile::tempdir().expect("a folder");
        let arbiter = made(folder.path());
        let refused = |greet: &Greet| meets(greet, &arbiter).expect_err("a stranger");
        assert!(refused(&greet(&arbiter, 1)).contains("is not held by a"));
        let (vm, generation, secret) = ("vm".into(), Generation(1), Secret([3; 32]));
        let claim = Claim { vm, generation, holder: "a".into(), after: None, secret };
        arbiter.claim(&claim).expect("reachable");
        assert_eq!(meets(&greet(&arbiter, 1), &arbiter), Ok(secret));
        assert!(refused(&Greet { holder: "b".into(), ..greet(&arbiter, 1) }).contains("not held by b"));
        let other = tempfile::tempdir().expect("a folder");
        let elsewhere = Greet { arbiter: made(other.path()).id().0, ..greet(&arbiter, 1) };
        assert!(refused(&elsewhere).contains("the same folder"));
        arbiter.clone().end("vm", Generation(1), "a").expect("reachable");
        assert!(refused(&greet(&arbiter, 1)).contains("spent"));
        assert!(refused(&greet(&arbiter, 2)).contains("not held"), "nobody runs in that one");
    }
}
