//! A VM's description: a TOML file, flags, or both. Every key of the file is also a flag; a flag wins.

pub use crate::choices::{ClockMode, OnEnd, OnNetLoss, OnTerm};
use crate::engine::Engine;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use pollux_host::console::ConsoleTarget;
use pollux_host::net::NetTarget;
use pollux_node::{DiskMode, Pacing};
use pollux_riscv::config::RNG_SEED_BYTES;
use pollux_riscv::{Config, DeviceConfig, OnPanic, OnReset};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Smallest and largest RAM that is accepted, in bytes.
const RAM_BYTES: std::ops::RangeInclusive<u64> = 16 << 20..=64 << 30;

/// The largest VM file that is read, in bytes.
const VM_FILE_BYTES_MAX: u64 = 1 << 20;

/// The flags of a VM; also the keys of its file (with `disk` and `net` as tables).
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct VmArgs {
    /// The VM's name: what the arbiter, `pollux status` and the backup know it by
    #[arg(long)]
    pub name: Option<String>,
    /// Linux kernel (`Image`, not compressed) or S-mode ELF to start
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk
    #[arg(long, value_name = "FILE")]
    pub initrd: Option<PathBuf>,
    /// Kernel command line
    #[arg(long, value_name = "TEXT")]
    pub append: Option<String>,
    /// Firmware (ELF or flat image) started in M-mode; with --kernel, OpenSBI hands over to that
    #[arg(long, value_name = "FILE")]
    pub bios: Option<PathBuf>,
    /// RAM, e.g. 512M or 2G [default: 512M]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// Number of harts, 1 to 8 [default: 1]
    #[arg(long)]
    pub harts: Option<u32>,
    /// A disk image: PATH[,mode=replicated|shared][,readonly][,serial=TEXT]; may be repeated
    #[arg(long, value_name = "SPEC")]
    pub disk: Vec<DiskSpec>,
    /// A network card: switch=ADDR | tap=NAME | none [,mac=XX:XX:XX:XX:XX:XX]; may be repeated
    #[arg(long, value_name = "SPEC")]
    pub net: Vec<NetSpec>,
    /// The console: stdio, none, socket, socket=PATH or file=PATH [default: stdio]
    #[arg(long, value_name = "WHERE")]
    pub console: Option<String>,
    /// Leave out the random number generator
    #[arg(long)]
    pub no_rng: bool,
    /// What executes the guest's instructions [default: jit on x86-64 Linux, else interpreter]
    #[arg(long, value_enum, env = "POLLUX_ENGINE")]
    pub engine: Option<Engine>,
    /// How the guest's clock goes [default: real]
    #[arg(long, value_enum)]
    pub clock: Option<ClockMode>,
    /// Wall-clock time at reset in seconds since 1970 [default: now]
    #[arg(long, value_name = "SECONDS")]
    pub rtc: Option<u64>,
    /// What the guest's random number generator is seeded with: 64 hex digits [default: drawn by the host]
    #[arg(long, value_name = "HEX")]
    pub rng_seed: Option<String>,
    /// What becomes of the VM when its guest reboots [default: restart]
    #[arg(long, value_enum)]
    pub on_reset: Option<OnEnd>,
    /// What becomes of the VM when its guest ends with a failure status [default: stop]
    #[arg(long, value_enum)]
    pub on_panic: Option<OnEnd>,
    /// Host nanoseconds of silence after which the other side counts as dead, in ms [default: 300]
    #[arg(long, value_name = "MS")]
    pub failure_ms: Option<u64>,
    /// Interval of heartbeats in ms [default: 50]
    #[arg(long, value_name = "MS")]
    pub heartbeat_ms: Option<u64>,
    /// What SIGTERM and SIGHUP do to a primary that has a healthy backup [default: handover]
    #[arg(long, value_enum)]
    pub on_term: Option<OnTerm>,
    /// What a primary does that has lost its service network while its backup reaches it [default: handover]
    #[arg(long, value_enum)]
    pub on_net_loss: Option<OnNetLoss>,
    /// A backup that executes nothing for so many ms, or whose window is full for so long, is given up [default: 5000]
    #[arg(long, value_name = "MS")]
    pub stall_ms: Option<u64>,
    /// How long a disk may take over one request before it counts as hung, in ms [default: 5000]
    #[arg(long, value_name = "MS")]
    pub disk_hang_ms: Option<u64>,
    /// Seconds between comparisons of the state digest; 0 for none [default: 1]
    #[arg(long, value_name = "S")]
    pub digest_s: Option<f64>,
    /// Protect the VM: HOST:PORT of a `pollux backup`; `none`: run it alone, whatever its file says
    #[arg(long, value_name = "HOST:PORT")]
    pub backup: Option<String>,
    /// Folder on storage that both hosts reach; decides who may run
    #[arg(long, value_name = "FOLDER")]
    pub arbiter: Option<PathBuf>,
    /// Host ports that lead to the VM, for `pollux switch --vm`: a key of the file alone.
    #[arg(skip)]
    pub forward: Vec<String>,
    /// The file that these come from, if any.
    #[arg(skip)]
    #[serde(skip)]
    pub source: Option<PathBuf>,
}

/// A disk as a flag or a `[[disk]]` table.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DiskSpec {
    /// The raw image.
    pub path: PathBuf,
    /// `replicated` or `shared`.
    #[serde(default)]
    pub mode: DiskSpecMode,
    /// Refuse writes.
    #[serde(default)]
    pub readonly: bool,
    /// What the guest reads as its serial number.
    #[serde(default)]
    pub serial: Option<String>,
}

/// See [`DiskMode`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskSpecMode {
    /// Each host has its own image.
    #[default]
    Replicated,
    /// Both hosts reach one image.
    Shared,
}

impl From<DiskSpecMode> for DiskMode {
    fn from(mode: DiskSpecMode) -> Self {
        match mode {
            DiskSpecMode::Replicated => Self::Replicated,
            DiskSpecMode::Shared => Self::Shared,
        }
    }
}

impl std::str::FromStr for DiskSpec {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.split(',');
        let path = parts.next().unwrap_or_default();
        ensure!(!path.is_empty(), "a disk needs a path: PATH[,mode=shared][,readonly][,serial=TEXT]");
        let mut spec =
            Self { path: path.into(), mode: DiskSpecMode::default(), readonly: false, serial: None };
        for part in parts {
            match part.split_once('=').unwrap_or((part, "")) {
                ("mode", "replicated") => spec.mode = DiskSpecMode::Replicated,
                ("mode", "shared") => spec.mode = DiskSpecMode::Shared,
                ("readonly", "") => spec.readonly = true,
                ("serial", serial) => spec.serial = Some(serial.into()),
                _ => bail!(
                    "unknown disk option {part:?}; there are mode=replicated|shared, readonly and serial=TEXT"
                ),
            }
        }
        Ok(spec)
    }
}

/// A network card as a flag or a `[[net]]` table.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct NetSpec {
    /// A port of `pollux switch`.
    pub switch: Option<String>,
    /// A TAP device.
    pub tap: Option<String>,
    /// The card's address.
    pub mac: Option<String>,
}

impl std::str::FromStr for NetSpec {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut spec = Self::default();
        for part in text.split(',') {
            match part.split_once('=').unwrap_or((part, "")) {
                ("switch", addr) if !addr.is_empty() => spec.switch = Some(addr.into()),
                ("tap", name) if !name.is_empty() => spec.tap = Some(name.into()),
                ("mac", mac) => spec.mac = Some(mac.into()),
                ("none", "") => {}
                _ => bail!(
                    "unknown network option {part:?}; there are switch=ADDR, tap=NAME, none and mac=ADDR"
                ),
            }
        }
        ensure!(
            spec.switch.is_none() || spec.tap.is_none(),
            "a network card is plugged into one place: switch or tap"
        );
        Ok(spec)
    }
}

impl NetSpec {
    /// Where the card is plugged in on this host.
    pub fn target(&self) -> Result<NetTarget> {
        Ok(match (&self.switch, &self.tap) {
            (Some(addr), _) => {
                NetTarget::Switch(addr.parse().map_err(|e| anyhow::anyhow!("switch address {addr:?}: {e}"))?)
            }
            (None, Some(name)) => NetTarget::Tap(name.clone()),
            (None, None) => NetTarget::None,
        })
    }

    fn mac(&self, vm: &str, index: usize) -> Result<[u8; 6]> {
        let Some(text) = &self.mac else {
            // Locally administered, the same for the same VM on every host.
            let hash = vm
                .bytes()
                .fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
            let [a, b, c, ..] = hash.to_le_bytes();
            return Ok([0x52, 0x54, 0, a, b, c.wrapping_add(index as u8)]);
        };
        let byte = |part: &str| {
            let is_hex = matches!(part.len(), 1 | 2) && part.bytes().all(|b| b.is_ascii_hexdigit());
            is_hex.then(|| u8::from_str_radix(part, 16).ok()).flatten()
        };
        let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
        let mac: [u8; 6] = bytes
            .and_then(|bytes| bytes.try_into().ok())
            .with_context(|| format!("{text:?} is no MAC address (six hex bytes with colons)"))?;
        ensure!(
            mac[0] & 1 == 0,
            "{text} is a multicast address; a network card needs a unicast one (even first byte)"
        );
        Ok(mac)
    }
}

/// A VM that is ready to be built.
#[derive(Clone, Debug)]
pub struct Vm {
    /// Its name.
    pub name: String,
    /// The machine.
    pub machine: Config,
    /// Disks, in slot order.
    pub disks: Vec<(u8, DiskSpec)>,
    /// Network cards with their addresses.
    pub nets: Vec<(u8, [u8; 6], NetSpec)>,
    /// The console.
    pub console: ConsoleTarget,
    /// How the node behaves.
    pub settings: pollux_node::Settings,
    /// What starts.
    pub args: VmArgs,
}

impl VmArgs {
    /// Reads `file`, if given, and lays these flags over it.
    pub fn merged_with(self, file: Option<&Path>) -> Result<Self> {
        let Some(path) = file else { return Ok(self) };
        let bytes = crate::files::read_file(path, "VM file", VM_FILE_BYTES_MAX)?;
        let text =
            String::from_utf8(bytes).with_context(|| format!("{} is not a VM file", path.display()))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let merged =
            self.over(&text, folder).with_context(|| format!("{} is not a VM file", path.display()))?;
        Ok(Self { source: Some(path.into()), ..merged })
    }

    /// Lays these flags over the text of a VM file that lies in `folder`.
    pub fn over(self, text: &str, folder: &Path) -> Result<Self> {
        let base: Self = toml::from_str(text)?;
        let base = base.relative_to(folder);
        Ok(Self {
            name: self.name.or(base.name),
            kernel: self.kernel.or(base.kernel),
            initrd: self.initrd.or(base.initrd),
            append: self.append.or(base.append),
            bios: self.bios.or(base.bios),
            memory: self.memory.or(base.memory),
            harts: self.harts.or(base.harts),
            disk: if self.disk.is_empty() { base.disk } else { self.disk },
            net: if self.net.is_empty() { base.net } else { self.net },
            console: self.console.or(base.console),
            no_rng: self.no_rng || base.no_rng,
            engine: self.engine.or(base.engine),
            clock: self.clock.or(base.clock),
            rtc: self.rtc.or(base.rtc),
            rng_seed: self.rng_seed.or(base.rng_seed),
            on_reset: self.on_reset.or(base.on_reset),
            on_panic: self.on_panic.or(base.on_panic),
            failure_ms: self.failure_ms.or(base.failure_ms),
            heartbeat_ms: self.heartbeat_ms.or(base.heartbeat_ms),
            on_term: self.on_term.or(base.on_term),
            on_net_loss: self.on_net_loss.or(base.on_net_loss),
            stall_ms: self.stall_ms.or(base.stall_ms),
            disk_hang_ms: self.disk_hang_ms.or(base.disk_hang_ms),
            digest_s: self.digest_s.or(base.digest_s),
            backup: self.backup.or(base.backup),
            arbiter: self.arbiter.or(base.arbiter),
            forward: base.forward,
            source: self.source,
        })
    }

    /// Paths in a file are relative to the file.
    fn relative_to(mut self, folder: &Path) -> Self {
        let paths = [&mut self.kernel, &mut self.initrd, &mut self.bios, &mut self.arbiter];
        for path in paths.into_iter().flatten().chain(self.disk.iter_mut().map(|disk| &mut disk.path)) {
            *path = folder.join(&*path);
        }
        if let Some((kind @ ("file" | "socket"), path)) =
            self.console.as_deref().and_then(|c| c.split_once('='))
            && !path.is_empty()
        {
            self.console = Some(format!("{kind}={}", folder.join(path).display()));
        }
        self
    }

    /// Where the backup is, if there is to be one.
    pub fn backup(&self) -> Result<Option<&str>> {
        let backup = self.backup.as_deref().filter(|backup| *backup != "none");
        ensure!(
            backup.is_none() || self.arbiter.is_some(),
            "a VM that has a backup needs an arbiter, which decides who may run: --arbiter FOLDER, or `arbiter` in the VM file"
        );
        Ok(backup)
    }

    /// Checks everything that can be checked without opening anything but the disks (for their sizes).
    pub fn resolve(self, default_name: &str, disk_bytes: impl Fn(&DiskSpec) -> Result<u64>) -> Result<Vm> {
        let name = self.name.clone().unwrap_or_else(|| default_name.into());
        pollux_arbiter::validate_name(&name).map_err(|e| anyhow::anyhow!("--name {name:?}: {e}"))?;
        let ram_bytes = parse_size(self.memory.as_deref().unwrap_or("512M"))?;
        ensure!(
            RAM_BYTES.contains(&ram_bytes) && ram_bytes.is_multiple_of(2 << 20),
            "--memory must be a multiple of 2M from 16M to 64G, not {ram_bytes} bytes"
        );
        let harts = self.harts.unwrap_or(1);
        ensure!(
            (1..=pollux_riscv::config::HARTS_MAX).contains(&harts),
            "--harts must be 1 to 8, not {harts}"
        );
        let mut devices = Vec::new();
        let mut disks = Vec::new();
        for spec in &self.disk {
            let serial = spec.serial.clone().unwrap_or_else(|| format!("pollux{}", disks.len()));
            ensure!(
                serial.is_ascii() && serial.len() <= 20,
                "disk serial {serial:?}: at most 20 ASCII characters"
            );
            disks.push((devices.len() as u8, spec.clone()));
            devices.push(DeviceConfig::Block { bytes: disk_bytes(spec)?, read_only: spec.readonly, serial });
        }
        let mut nets = Vec::new();
        for (index, spec) in self.net.iter().enumerate() {
            let mac = spec.mac(&name, index)?;
            nets.push((devices.len() as u8, mac, spec.clone()));
            devices.push(DeviceConfig::Net { mac });
        }
        if !self.no_rng {
            devices.push(DeviceConfig::Rng);
        }
        ensure!(
            devices.len() <= pollux_riscv::config::SLOTS,
            "{} devices, but the board has {} slots",
            devices.len(),
            pollux_riscv::config::SLOTS
        );
        let rtc_s = self.rtc.unwrap_or_else(|| {
            std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |since| since.as_secs())
        });
        let rtc_base_ns = rtc_s.checked_mul(1_000_000_000).context("--rtc lies too far in the future")?;
        let on_reset = match self.on_reset.unwrap_or(OnEnd::Restart) {
            OnEnd::Restart => OnReset::Restart,
            OnEnd::Stop => OnReset::Stop,
        };
        let on_panic = match self.on_panic.unwrap_or(OnEnd::Stop) {
            OnEnd::Restart => OnPanic::Restart,
            OnEnd::Stop => OnPanic::Stop,
        };
        let rng_seed = rng_seed(self.rng_seed.as_deref())?;
        let settings = self.settings(&disks)?;
        let console = parse_console(self.console.as_deref().unwrap_or("stdio"), &name)?;
        Ok(Vm {
            name,
            machine: Config { ram_bytes, harts, devices, rtc_base_ns, rng_seed, on_reset, on_panic },
            disks,
            nets,
            console,
            settings,
            args: self,
        })
    }

    /// The node's settings for these disks.
    pub fn settings(&self, disks: &[(u8, DiskSpec)]) -> Result<pollux_node::Settings> {
        let mut protocol = pollux_protocol::Settings::default();
        let ms = |value: u64| value.saturating_mul(1_000_000);
        if let Some(failure) = self.failure_ms {
            protocol.failure_after_ns = ms(failure);
        }
        if let Some(heartbeat) = self.heartbeat_ms {
            protocol.heartbeat_every_ns = ms(heartbeat);
        }
        ensure!(
            protocol.heartbeat_every_ns > 0
                && protocol.heartbeat_every_ns.saturating_mul(2) <= protocol.failure_after_ns,
            "--failure-ms must be at least twice --heartbeat-ms, or one late heartbeat looks like a death"
        );
        if let Some(stall) = self.stall_ms {
            protocol.stall_after_ns = ms(stall);
        }
        ensure!(
            protocol.stall_after_ns >= protocol.failure_after_ns,
            "--stall-ms must be at least --failure-ms: a backup is not given up for less than a death"
        );
        // Longer than the other side takes to find out that it is alone, and to claim.
        protocol.net_wait_ns = protocol.net_wait_ns.max(protocol.failure_after_ns.saturating_mul(3));
        if self.on_net_loss == Some(OnNetLoss::Stay) {
            protocol.net_loss_ns = None;
        }
        let digest_s = self.digest_s.unwrap_or(1.0);
        ensure!((0.0..=86_400.0).contains(&digest_s), "--digest-s must be 0 to 86400 seconds");
        Ok(pollux_node::Settings {
            protocol,
            pacing: match self.clock.unwrap_or(ClockMode::Real) {
                ClockMode::Real => Pacing::RealTime,
                ClockMode::Virtual => Pacing::Virtual,
            },
            disk_modes: disks.iter().map(|(slot, spec)| (*slot, spec.mode.into())).collect(),
            digest_every_ns: (digest_s * 1e9) as u64,
        })
    }
}

/// The seed that was asked for, or one of the host's.
fn rng_seed(hex: Option<&str>) -> Result<[u8; RNG_SEED_BYTES]> {
    let mut seed = [0; RNG_SEED_BYTES];
    let Some(hex) = hex else {
        let got = rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())
            .context("the host has no random bytes for the guest's seed")?;
        ensure!(got == RNG_SEED_BYTES, "the host gave {got} of {RNG_SEED_BYTES} random bytes");
        return Ok(seed);
    };
    ensure!(
        hex.len() == 2 * RNG_SEED_BYTES && hex.bytes().all(|digit| digit.is_ascii_hexdigit()),
        "--rng-seed takes {} hex digits, not {hex:?}",
        2 * RNG_SEED_BYTES
    );
    for (byte, digits) in seed.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(&String::from_utf8_lossy(digits), 16)?;
    }
    Ok(seed)
}

/// Parses `512M`, `2G`, `65536K` or plain bytes.
pub fn parse_size(text: &str) -> Result<u64> {
    let (digits, unit) = text.split_at(text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).len());
    let shift = match unit.to_ascii_uppercase().trim_end_matches("IB").trim_end_matches('B') {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => bail!("{text:?} is no size; write 512M or 2G"),
    };
    let number: u64 =
        digits.parse().ok().with_context(|| format!("{text:?} is no size; write 512M or 2G"))?;
    number.checked_mul(1 << shift).with_context(|| format!("{text:?} is too large"))
}

fn parse_console(text: &str, name: &str) -> Result<ConsoleTarget> {
    Ok(match text.split_once('=').unwrap_or((text, "")) {
        ("stdio", "") => ConsoleTarget::Stdio,
        ("none", "") => ConsoleTarget::None,
        ("socket", "") => {
            ConsoleTarget::Socket(pollux_host::control::run_folder().join(format!("{name}.console")))
        }
        ("socket", path) => ConsoleTarget::Socket(path.into()),
        ("file", path) if !path.is_empty() => ConsoleTarget::File(path.into()),
        _ => bail!("--console {text:?}: there are stdio, none, socket, socket=PATH and file=PATH"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(args: VmArgs) -> Result<Vm> {
        args.resolve("vm", |_| Ok(1 << 20))
    }

    #[test]
    fn sizes_are_read_with_their_units() {
        for (text, bytes) in
            [("512M", 512 << 20), ("2G", 2 << 30), ("4096", 4096), ("1KiB", 1024), ("3mb", 3 << 20)]
        {
            assert_eq!(parse_size(text).expect(text), bytes);
        }
        for text in ["", "M", "-1", "1T", "99999999999999999999", "18446744073709551615G"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_file_is_read_and_flags_win() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("vm.toml");
        let text = "name = 'redis'\nkernel = 'k'\nconsole = 'file=said'\nbackup = 'b:7878'\narbiter = '../claims'\nforward = ['tcp:127.0.0.1:80-:80']\nmemory = '1G'\n[[disk]]\npath = 'd.img'\nmode = 'shared'\n[[net]]\ntap = 'tap0'\n";
        std::fs::write(&path, text).expect("room");
        let flags = VmArgs { memory: Some("256M".into()), ..VmArgs::default() };
        let merged = flags.merged_with(Some(&path)).expect("a good file");
        assert_eq!(merged.kernel.as_deref(), Some(folder.path().join("k").as_path()));
        assert_eq!(merged.arbiter.as_deref(), Some(folder.path().join("../claims").as_path()));
        assert_eq!((merged.backup().expect("it has an arbiter"), merged.forward.len()), (Some("b:7878"), 1));
        let alone = VmArgs { backup: Some("none".into()), ..VmArgs::default() }.merged_with(Some(&path));
        assert_eq!(alone.expect("a good file").backup().expect("alone"), None);
        let vm = resolve(merged).expect("a good VM");
        assert_eq!(
            vm.console,
            ConsoleTarget::File(folder.path().join("said")),
            "relative to the file, like all paths"
        );
        assert_eq!(vm.machine.ram_bytes, 256 << 20);
        assert_eq!(vm.settings.disk_modes, vec![(0, DiskMode::Shared)]);
        assert_eq!(vm.machine.devices.len(), 3);
    }

    #[test]
    fn a_file_with_an_unknown_key_is_refused_by_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("vm.toml");
        std::fs::write(&path, "memroy = '1G'\n").expect("room");
        let error = VmArgs::default().merged_with(Some(&path)).expect_err("a typing error");
        assert!(format!("{error:#}").contains("memroy"), "{error:#}");
    }

    #[test]
    fn what_makes_no_machine_is_refused_with_what_to_write() {
        let with = |change: fn(&mut VmArgs)| {
            let mut args = VmArgs::default();
            change(&mut args);
            format!("{:#}", resolve(args).expect_err("refused"))
        };
        assert!(with(|a| a.memory = Some("3M".into())).contains("multiple of 2M"));
        assert!(with(|a| a.harts = Some(9)).contains("1 to 8"));
        assert!(with(|a| a.name = Some("../x".into())).contains("--name"));
        assert!(with(|a| a.failure_ms = Some(60)).contains("twice"));
        assert!(with(|a| a.console = Some("printer".into())).contains("file=PATH"));
        assert!(
            with(|a| a.net = vec![NetSpec { mac: Some("01:00:00:00:00:00".into()), ..NetSpec::default() }])
                .contains("multicast")
        );
        for mac in ["52:54:00:12:34:56:zz", "52:54:00:12:34", "52:54:00:12:34:+6", "52:54:00:12:34:56:", ""] {
            let spec = NetSpec { mac: Some(mac.into()), ..NetSpec::default() };
            assert!(spec.mac("vm", 0).is_err(), "{mac:?} is no MAC address");
        }
        let unarbitrated = VmArgs { backup: Some("b:1".into()), ..VmArgs::default() };
        assert!(unarbitrated.backup().expect_err("who decides?").to_string().contains("--arbiter"));
        assert!("d,mod=shared".parse::<DiskSpec>().is_err());
        assert!("switch=a,tap=b".parse::<NetSpec>().is_err());
    }

    #[test]
    fn each_vm_has_a_seed_of_its_own_unless_one_is_given() {
        let seed = |hex: Option<&str>| {
            let args = VmArgs { rng_seed: hex.map(Into::into), ..VmArgs::default() };
            resolve(args).map(|vm| vm.machine.rng_seed)
        };
        assert_ne!(seed(None).expect("drawn"), seed(None).expect("drawn"));
        assert_eq!(seed(Some(&"0a".repeat(32))).expect("given"), [10; 32]);
        for wrong in ["", "0a", &"0g".repeat(32), &"0a".repeat(33), &"+a".repeat(32)] {
            assert!(format!("{:#}", seed(Some(wrong)).expect_err("no seed")).contains("64 hex digits"));
        }
    }

    #[test]
    fn a_heartbeat_whose_double_is_beyond_all_numbers_is_refused() {
        for heartbeat_ms in [9_223_372_036_855, u64::MAX] {
            let args = VmArgs { heartbeat_ms: Some(heartbeat_ms), ..VmArgs::default() };
            let error = resolve(args).expect_err("longer than the timeout");
            assert!(format!("{error:#}").contains("twice"), "{error:#}");
        }
    }
}
