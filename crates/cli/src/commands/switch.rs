//! `pollux switch`: the network outside the VM's fault domain.

use crate::config::VmArgs;
use anyhow::{Context, Result, anyhow};
use clap::Args;
use pollux_host::outfile::{self, Content};
use pollux_switch::{Config, Forward, Stopper, Subnet, Switch, SwitchAddr};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

#[derive(Args, Debug)]
pub struct SwitchArgs {
    /// Where VMs plug in: unix:PATH, or tcp:HOST:PORT on a network where everybody is trusted
    #[arg(long, value_name = "ADDR")]
    pub listen: SwitchAddr,
    /// A host port that leads to a guest: [tcp:|udp:][HOST]:PORT-[GUEST]:PORT; may be repeated
    #[arg(long, value_name = "SPEC")]
    pub forward: Vec<Forward>,
    /// A VM file whose `forward` list is added to these; may be repeated
    #[arg(long, value_name = "VM.toml")]
    pub vm: Vec<PathBuf>,
    /// The network of guests and gateway
    #[arg(long, value_name = "ADDR/BITS")]
    pub subnet: Option<Subnet>,
    /// Guests may not connect to the outside
    #[arg(long)]
    pub no_nat: bool,
    /// A guest that connects to the gateway's address reaches this host's loopback, and whatever listens there
    #[arg(long)]
    pub host_loopback: bool,
    /// Write the addresses that were bound to this file, one a line
    #[arg(long, value_name = "FILE")]
    pub bound: Option<PathBuf>,
}

/// Writes the addresses whole or not at all, over nothing but a former list.
fn write_bound(path: &Path, text: &str) -> Result<()> {
    let cannot = || format!("cannot write {}", path.display());
    drop(outfile::open(path, Content::Addresses)?);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let readable = std::fs::Permissions::from_mode(0o644);
    let mut file = tempfile::Builder::new().permissions(readable).tempfile_in(folder).with_context(cannot)?;
    file.write_all(text.as_bytes()).with_context(cannot)?;
    file.persist(path).with_context(cannot)?;
    Ok(())
}

/// What a VM file wants forwarded.
fn forwards_of(file: &Path) -> Result<Vec<Forward>> {
    let vm = VmArgs::default().merged_with(Some(file))?;
    let forward =
        |text: &String| text.parse().map_err(|e| anyhow!("{}: forward = [{text:?}]: {e}", file.display()));
    vm.forward.iter().map(forward).collect()
}

pub fn run(args: SwitchArgs) -> Result<u8> {
    let mut config = Config::new(args.listen);
    config.forwards = args.forward;
    for file in &args.vm {
        config.forwards.extend(forwards_of(file)?);
    }
    config.nat = !args.no_nat;
    config.host_loopback = args.host_loopback;
    fit_descriptors(&mut config);
    if let Some(subnet) = args.subnet {
        config.subnet = subnet;
    }
    let switch = Switch::bind(config)?;
    let bound = switch.bound().clone();
    for forward in &bound.forwards {
        tracing::info!(%forward, "forwarding");
    }
    // Who reads where it is bound may tell it to end.
    let stopper = Stopper::new().context("cannot make a stopper")?;
    let mut signals = crate::signals::endings()?;
    let on_signal = stopper.clone();
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        if signals.forever().next().is_some() {
            on_signal.stop();
        }
    })?;
    if let Some(path) = &args.bound {
        let text: String = bound.forwards.iter().map(|address| format!("{address}\n")).collect();
        write_bound(path, &text)?;
    }
    tracing::info!(listen = %bound.listen, "switching");
    switch.run(&stopper)?;
    Ok(0)
}

/// Descriptors that are for nothing but the switch itself: listeners, the log, the counters.
const DESCRIPTORS_KEPT: u64 = 64;

/// Raises this process's limit of descriptors as far as it may, and fits the connections into it: guests may use up
/// their share, and ports and forwards still get theirs.
fn fit_descriptors(config: &mut Config) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let now = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    let Some(now) = now else { return };
    let others =
        DESCRIPTORS_KEPT + (config.ports_max + 2 * config.udp_flows_max + config.forwards.len()) as u64;
    let room = now.saturating_sub(others).max(1).min(config.tcp_flows_max as u64) as usize;
    if room < config.tcp_flows_max {
        tracing::warn!(
            limit = now,
            connections = room,
            "the limit of open files leaves room for fewer TCP connections than {}; raise it with `ulimit -n`",
            config.tcp_flows_max
        );
        config.tcp_flows_max = room;
    }
    config.tcp_flows_per_guest_max = config.tcp_flows_per_guest_max.min(room.div_ceil(2));
}
