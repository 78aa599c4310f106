//! `pollux run`: a VM, alone or protected.

use super::{build, detach};
use crate::config::{Vm, VmArgs};
use crate::exit::HeldElsewhere;
use crate::tenure::Tenure;
use crate::{engine, exit, marks};
use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;
use pollux_arbiter::Decision;
use pollux_codec::message::Hello;
use pollux_host::arbiter_file::FileArbiter;
use pollux_host::link::{LinkError, LinkReader, LinkSender};
use pollux_host::mark::MarkName;
use pollux_host::pairing::{Offer, OwnDisk, PairingError, PrimaryHost, Refusal};
use pollux_host::ports::{HostPorts, OTHER_SIDE};
use pollux_host::{clock, drive, link, pairing};
use pollux_machine::{Build, Machine, OwnMemory, Pieces, Restore};
use pollux_node::{Live, Node, Outcome};
use pollux_protocol::ending::Part;
use pollux_protocol::{Primary, Verdict};
use pollux_riscv::Computer;
use pollux_vocab::{Generation, Lsn};
use std::collections::BTreeMap;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long one try to reach the backup may take, an address.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);

/// The largest snapshot that is read: the largest machine and its devices.
const SNAPSHOT_BYTES_MAX: u64 = 65 << 30;

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
    /// Do not compare the content of replicated disks with the backup's (sizes still are)
    #[arg(long)]
    pub trust_disks: bool,
    /// Return once the VM runs, and leave it running: its log goes to NAME.log in the run folder
    #[arg(short, long)]
    pub detach: bool,
    /// Use a disk image whose mark is against it: VM@GENERATION, as the refusal names it; may be repeated
    #[arg(long, value_name = "MARK")]
    pub ignore_mark: Vec<MarkName>,
}

pub fn run(args: RunArgs) -> Result<u8> {
    let default_name =
        args.file.as_deref().and_then(Path::file_stem).and_then(|s| s.to_str()).unwrap_or("vm").to_owned();
    let is_left_alone = detach::is_detached();
    let mut flags = args.vm.merged_with(args.file.as_deref())?;
    if is_left_alone && flags.console.is_none() {
        flags.console = Some("socket".into());
    }
    let vm = flags.resolve(&default_name, build::disk_bytes)?;
    if args.detach && !is_left_alone {
        return detach::start(&vm.name, vm.args.console.as_deref());
    }
    let backup = vm.args.backup()?;
    let (images, own) = build::open_disks(&vm.disks, backup.is_some() && !args.trust_disks)?;
    if vm.args.arbiter.is_none() {
        marks::begin_alone(&vm.disks, &args.ignore_mark)?;
    }
    let mut machine = start_machine(&vm, args.snapshot.as_deref())?;
    engine::install(&mut machine, vm.args.engine)?;
    let mut ports = HostPorts::default();
    build::with_status(&ports, |status| status.vm = vm.name.clone());
    let control = build::serve_control(&ports, &vm.name)?;
    build::stop_on_signals(&ports, vm.args.on_term.unwrap_or_default())?;
    build::plug_in(&vm, &mut ports, images)?;
    let tenure = match &vm.args.arbiter {
        Some(folder) => {
            let tenure = Tenure::find(FileArbiter::open(folder)?, &vm.name, build::holder_id(), folder)?;
            let id = tenure.arbiter.id().to_string();
            marks::compare(&vm.disks, tenure.start(&id), &args.ignore_mark)?;
            ports.own_nets(tenure.generation);
            Some(tenure)
        }
        None => None,
    };
    let protocol = match &tenure {
        Some(tenure) => match start_under(tenure, &vm, &own, &mut machine, &mut ports, backup) {
            Err(error) if is_stopped(&error) => {
                tracing::info!("{error:#}; the VM has not been started");
                let _ = std::fs::remove_file(control);
                return Ok(0);
            }
            started => started?,
        },
        None => Primary::new_solo(vm.settings.protocol.clone(), Generation(0), clock::now(), Lsn(1)),
    };
    let (outcome, generation) = run_live(machine, protocol, &vm, &mut ports);
    let _ = std::fs::remove_file(control);
    if let Some(tenure) = &tenure {
        tenure.end_after(Part::Live, &outcome, generation);
    }
    Ok(exit::report(&outcome))
}

/// Whether a start failed because somebody told this process to stop.
fn is_stopped(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(PairingError::Link(LinkError::Stopped)))
}

fn start_machine(vm: &Vm, snapshot: Option<&Path>) -> Result<Computer> {
    let Some(path) = snapshot else { return build::build_machine(vm) };
    let refused = |error| anyhow::anyhow!("snapshot {}: {error}", path.display());
    let mut builder = Computer::builder(Box::new(OwnMemory));
    build::read_pieces(path, "snapshot", SNAPSHOT_BYTES_MAX, |piece| builder.push(piece).map_err(refused))?;
    let machine = builder.finish().map_err(refused)?;
    let wanted = &vm.machine;
    let found = machine.config();
    ensure!(
        found.ram_bytes == wanted.ram_bytes || vm.args.memory.is_none(),
        "the snapshot is of a machine with {} bytes of RAM, --memory says {}",
        found.ram_bytes,
        wanted.ram_bytes
    );
    let kinds = |c: &pollux_riscv::Config| c.devices.iter().map(std::mem::discriminant).collect::<Vec<_>>();
    ensure!(
        kinds(found) == kinds(wanted),
        "the snapshot's devices are {:?}; give the same --disk and --net flags in the same order",
        found.devices
    );
    Ok(machine)
}

/// Drives the live side to its end; also says in which generation that was.
pub fn run_live(
    machine: Computer,
    protocol: Primary,
    vm: &Vm,
    ports: &mut HostPorts,
) -> (Outcome, Generation) {
    let now = clock::now();
    build::with_status(ports, |status| status.timeline.started_ns = now.0);
    let mut live = Live::new(machine, protocol, vm.settings.clone(), now, Vec::new());
    live.reissue(ports, &BTreeMap::new());
    let mut node = Node::Live(Box::new(live));
    let outcome = drive::drive(&mut node, ports);
    (outcome, node.report().generation)
}

/// Wins the first generation, and makes a pair with the backup if there is one.
fn start_under(
    tenure: &Tenure,
    vm: &Vm,
    own: &[OwnDisk],
    machine: &mut Computer,
    ports: &mut HostPorts,
    backup: Option<&str>,
) -> Result<Primary> {
    let (stop, icount) = (ports.sender(), machine.icount());
    let settings = &vm.settings.protocol;
    let mut snapshot = backup.map(|_| Pieces::of(machine));
    let offer = snapshot.as_mut().map(|snapshot| {
        let (snapshot_bytes, parts) = (snapshot.bytes(), snapshot.machine().parts());
        let hello = Hello {
            software: format!("pollux {}", env!("CARGO_PKG_VERSION")),
            vm: vm.name.clone(),
            generation: tenure.generation,
            ram_bytes: parts.memory_bytes,
            harts: parts.harts,
            disks: build::disk_hellos(own),
            heartbeat_ns: settings.heartbeat_every_ns,
            failure_ns: settings.failure_after_ns,
            snapshot_bytes,
            machine: Computer::KIND.into(),
        };
        Offer { hello, snapshot }
    });
    let (greet, secret) = tenure.greet();
    let mut starting = Starting { tenure, vm, ports, backup: backup.unwrap_or_default(), unreached: None };
    if let Err((why, failed)) = pairing::start((&greet, secret), offer, &mut starting, &stop) {
        return Err(starting.explain(why, failed));
    }
    let (settings, generation) = (settings.clone(), tenure.generation);
    let Some(backup) = backup else {
        return Ok(Primary::new_solo(settings, generation, clock::now(), Lsn(1)));
    };
    build::with_status(ports, |status| status.peer = Some(backup.into()));
    tracing::info!(%backup, vm = vm.name, %icount, "protected");
    Ok(Primary::new_protected(settings, generation, clock::now(), OTHER_SIDE))
}

/// What a start needs of this command.
struct Starting<'a> {
    tenure: &'a Tenure,
    vm: &'a Vm,
    ports: &'a mut HostPorts,
    backup: &'a str,
    /// Why the backup could not be reached the last time.
    unreached: Option<String>,
}

impl PrimaryHost for Starting<'_> {
    type Error = anyhow::Error;

    fn connect(&mut self) -> Result<Option<(LinkSender, LinkReader)>> {
        let backup = self.backup;
        let addresses =
            backup.to_socket_addrs().with_context(|| format!("--backup {backup:?} is no HOST:PORT"))?;
        self.unreached = None;
        for address in addresses {
            match TcpStream::connect_timeout(&address, CONNECT_PATIENCE) {
                Ok(stream) => return link::split(stream).map(Some).context("cannot set the link up"),
                Err(error) => self.unreached = Some(error.to_string()),
            }
        }
        Ok(None)
    }

    fn claim(&mut self, _: Generation) -> Result<Verdict> {
        Ok(match self.tenure.claim()? {
            Decision::Won => Verdict::Won,
            Decision::Lost { .. } => Verdict::Lost,
            Decision::Elsewhere => Verdict::Unreachable,
        })
    }

    fn mark(&mut self) -> Result<()> {
        self.ports.set_marks(marks::begin(&self.vm.disks, self.tenure)?);
        Ok(())
    }

    fn plug_in(&mut self, link: LinkSender, reader: LinkReader) -> Result<()> {
        self.ports.set_arbiter(self.tenure.arbiter.clone(), self.tenure.claimant())?;
        reader.spawn(OTHER_SIDE, self.ports.sender())?;
        self.ports.set_link(OTHER_SIDE, link);
        Ok(())
    }

    fn spend(&mut self, own: Generation) {
        self.tenure.end(own);
    }
}

impl Starting<'_> {
    /// Why the VM has not been started, and what to do.
    fn explain(&self, why: PairingError, failed: Option<anyhow::Error>) -> anyhow::Error {
        let (vm, backup) = (&self.vm.name, self.backup);
        match (why, failed) {
            (PairingError::NotStarted(Refusal::NotReached), _) => {
                let why = self.unreached.as_deref().unwrap_or("no such host");
                anyhow!(
                    "cannot reach the backup at {backup}: {why}; start it there: pollux backup --listen {backup} …"
                )
            }
            (PairingError::NotStarted(Refusal::Taken), _) => {
                HeldElsewhere(format!("somebody else has just started {vm}")).into()
            }
            (_, Some(error)) => error,
            (PairingError::NotStarted(_), None) => anyhow!("the arbiter has not decided who may start {vm}"),
            (why, None) => why.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::backup::look_up;
    use super::*;
    use pollux_arbiter::Claim;
    use pollux_codec::message::Greet;
    use std::net::TcpListener;

    /// A backup whose disks cannot be opened.
    struct NotToday;

    impl pairing::BackupHost for NotToday {
        fn open_disks(&mut self) -> Result<Vec<OwnDisk>, String> {
            Err("not today".into())
        }

        fn fit(&mut self, _: &Greet, _: &Hello) -> Result<(), String> {
            Ok(())
        }
    }

    const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../guests/tiny/tiny.elf");

    fn vm() -> Vm {
        let args = VmArgs {
            kernel: Some(TINY.into()),
            memory: Some("16M".into()),
            console: Some("none".into()),
            ..VmArgs::default()
        };
        args.resolve("vm", |_| Ok(0)).expect("a good VM")
    }

    fn find(folder: &Path, holder: &str) -> Result<Tenure> {
        FileArbiter::init(folder)?;
        Tenure::find(FileArbiter::open(folder)?, "vm", holder.into(), folder)
    }

    fn newest(folder: &Path) -> Option<Claim> {
        let arbiter = FileArbiter::open(folder).expect("usable");
        arbiter.newest("vm").expect("reachable")
    }

    fn start(tenure: &Tenure, backup: Option<&str>) -> Result<Primary> {
        let vm = vm();
        let mut machine = build::build_machine(&vm)?;
        start_under(tenure, &vm, &[], &mut machine, &mut HostPorts::default(), backup)
    }

    #[test]
    fn a_backup_hears_of_a_generation_only_when_it_is_won_and_it_is_spent_if_they_make_no_pair() {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let tenure = find(folder.path(), "a").expect("free");
        let (error, standing) = std::thread::scope(|scope| {
            let backup = scope.spawn(|| {
                let (stream, _) = listener.accept().expect("a primary");
                let (sender, reader) = link::split(stream).expect("a link");
                let mut standing = None;
                let visit = pairing::meet(sender, reader, pairing::Own::default(), |greet| {
                    standing = newest(folder.path());
                    look_up(greet, &FileArbiter::open(folder.path()).expect("usable"))
                });
                let mut visit = visit.expect("no stranger");
                assert_eq!(visit.hello.generation, Generation(1));
                let refused = visit.take::<Computer>(&mut NotToday, &pollux_host::events::inbox().0);
                assert!(refused.is_err());
                standing
            });
            let error = start(&tenure, Some(&address)).expect_err("refused");
            (error, backup.join().expect("no panic"))
        });
        assert!(error.to_string().contains("not today"), "{error}");
        assert_eq!(standing.map(|claim| claim.holder).as_deref(), Some("a"), "won before it was offered");
        assert_eq!(
            newest(folder.path()),
            Some(Claim::end("vm", Generation(1), "a")),
            "the VM may be started again"
        );
    }

    #[test]
    fn of_two_starts_at_once_the_loser_says_nothing_to_its_backup() {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let [first, second] = ["a", "b"].map(|holder| find(folder.path(), holder).expect("free for both"));
        first.claim().expect("the first");
        let error = start(&second, Some(&address)).expect_err("lost");
        assert!(error.to_string().contains("somebody else"), "{error}");
        assert_eq!(exit::of_error(&error), exit::HALTED);
        let (stream, _) = listener.accept().expect("it had connected");
        let (_sender, mut reader) = link::split(stream).expect("a link");
        assert!(reader.receive().is_err(), "but said no word");
        assert_eq!(
            newest(folder.path()).map(|claim| claim.holder).as_deref(),
            Some("a"),
            "and ended nothing"
        );
    }

    #[test]
    fn a_lone_vm_under_an_arbiter_holds_its_generation_and_spends_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let tenure = find(folder.path(), "a").expect("free");
        let primary = start(&tenure, None).expect("won");
        assert_eq!(primary.report().generation, Generation(1));
        let held = find(folder.path(), "b").expect_err("held");
        assert!(held.to_string().contains("is held by a"), "{held}");
        assert_eq!(exit::of_error(&held.context("more")), exit::HALTED);
        let ended = Outcome::PoweredOff { status: 0 };
        let mut stranger = tenure.clone();
        stranger.holder = "b".into();
        stranger.end_after(Part::Live, &ended, Generation(1));
        assert!(
            newest(folder.path()).is_some_and(|claim| claim.holder == "a"),
            "a stranger's end ends nothing"
        );
        tenure.end_after(Part::Live, &ended, Generation(1));
        assert_eq!(find(folder.path(), "b").expect("free again").generation, Generation(3));
    }
}
