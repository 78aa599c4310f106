//! `pollux record`: a VM alone, with everything that enters it written down.

use super::{build, run};
use crate::config::{OnTerm, VmArgs};
use crate::{engine, exit, marks};
use anyhow::{Context, Result, ensure};
use clap::Args;
use pollux_host::clock;
use pollux_host::mark::MarkName;
use pollux_host::ports::HostPorts;
use pollux_host::recorder::Recorder;
use pollux_machine::Pieces;
use pollux_protocol::Primary;
use pollux_vocab::{Generation, Lsn};
use std::path::{Path, PathBuf};

#[derive(Args, Debug)]
pub struct RecordArgs {
    /// The recording to write
    #[arg(long, value_name = "FILE")]
    pub log: PathBuf,
    /// The VM's description (TOML); every key is also a flag, and flags win
    #[arg(value_name = "VM.toml")]
    pub file: Option<PathBuf>,
    #[command(flatten)]
    pub vm: VmArgs,
    /// Use a disk image whose mark is against it: VM@GENERATION, as the refusal names it; may be repeated
    #[arg(long, value_name = "MARK")]
    pub ignore_mark: Vec<MarkName>,
}

pub fn run(args: RecordArgs) -> Result<u8> {
    let default_name = args
        .file
        .as_deref()
        .and_then(Path::file_stem)
        .and_then(|s| s.to_str())
        .unwrap_or("recorded")
        .to_owned();
    let vm = args.vm.merged_with(args.file.as_deref())?.resolve(&default_name, build::disk_bytes)?;
    ensure!(
        vm.args.arbiter.is_none() && vm.args.backup()?.is_none(),
        "a VM that is recorded runs alone, and no arbiter would know of it: leave --arbiter and --backup out, and record a copy of its disk"
    );
    let (images, _) = build::open_disks(&vm.disks, false)?;
    marks::begin_alone(&vm.disks, &args.ignore_mark)?;
    let mut machine = build::build_machine(&vm)?;
    engine::install(&mut machine, vm.args.engine)?;
    let mut ports = HostPorts::default();
    build::with_status(&ports, |status| status.vm.clone_from(&vm.name));
    let control = build::serve_control(&ports, &vm.name)?;
    build::stop_on_signals(&ports, OnTerm::Stop)?;
    build::plug_in(&vm, &mut ports, images)?;
    // Last: what is refused has written over nothing.
    let written = build::inputs(&vm).refuse(&args.log).map_err(anyhow::Error::from);
    let recorder = written
        .and_then(|()| {
            let mut snapshot = Pieces::of(&mut machine);
            Ok(Recorder::create(&args.log, snapshot.bytes(), &mut snapshot)?)
        })
        .with_context(|| format!("cannot write the recording {}", args.log.display()));
    let recorder = recorder.inspect_err(|_| drop(std::fs::remove_file(&control)))?;
    ports.set_recorder(recorder);
    let protocol = Primary::new_solo(vm.settings.protocol.clone(), Generation(0), clock::now(), Lsn(1));
    let (outcome, _) = run::run_live(machine, protocol, &vm, &mut ports);
    let _ = std::fs::remove_file(control);
    ports.finish_recording().with_context(|| format!("the recording {} is not whole", args.log.display()))?;
    Ok(exit::report(&outcome))
}
