//! A Debian as its installer makes it: systemd, udev, modules, updates, and packages that have installed themselves.
//!
//! An image is made in layers, each a second stage (`stage2`) on a copy of the one below, each cached under its own
//! name, so that the base system is installed once and other access to the same packages costs one short boot:
//!
//! ```text
//!   base: Debian's required packages, systemd, kernel      ─► images/BASE
//!     packages: --packages, --overlay, --size              ─► images/PACKAGES
//!       access: --hostname, --ssh-key, --root-password, …  ─► images/ACCESS
//! ```

use crate::apt::{Apt, KERNEL, Selection, guest_sources};
use crate::assemble::{COMMAND_LINE, make_disk, merge_usr, store, take_kernel};
use crate::stage2::{self, Runner, Work};
use crate::tools::{command, run};
use crate::{
    BuildOptions, Image, ImageError, Progress, default_cache, find_or_make, fingerprint, fresh_disk_copy,
    initramfs, io_error, name_of, plan,
};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Changes whenever the same options give another image.
const RECIPE: u32 = 2;
/// Size of the base system's disk in bytes; the smallest root disk that there is.
pub(crate) const BASE_BYTES: u64 = 2 << 30;
/// What dpkg and its scripts need before dpkg can run: unpacked on the host, as debootstrap does.
const REQUIRED: [&str; 31] = [
    "base-files",
    "base-passwd",
    "bash",
    "bsdutils",
    "coreutils",
    "dash",
    "debconf",
    "debianutils",
    "diffutils",
    "dpkg",
    "findutils",
    "grep",
    "gzip",
    "hostname",
    "init-system-helpers",
    "libc-bin",
    "libpam-modules",
    "libpam-runtime",
    "login",
    "login.defs",
    "mawk",
    "mount",
    "ncurses-base",
    "ncurses-bin",
    "passwd",
    "perl-base",
    "sed",
    "sysvinit-utils",
    "tar",
    "util-linux",
    "tzdata",
];
/// The rest of every guest.
const SYSTEM: [&str; 20] = [
    "apt",
    "ca-certificates",
    "dbus",
    "debian-archive-keyring",
    "e2fsprogs",
    "iproute2",
    "iputils-ping",
    "kmod",
    "less",
    "libnss-myhostname",
    "libpam-systemd",
    "linux-sysctl-defaults",
    "nano",
    "netbase",
    "procps",
    "systemd",
    "systemd-resolved",
    "systemd-sysv",
    "udev",
    KERNEL,
];
/// Debian's kernel wants somebody who makes its initial RAM disk. Here that comes from outside, with the kernel.
const INITRD_PACKAGE: &str = "Package: pollux-initrd\nVersion: 1\nArchitecture: all\nMaintainer: Pollux <pollux@localhost>\n\
    Provides: linux-initramfs-tool\nDescription: the initial RAM disk of this machine comes from outside\n \
    Kernel and initial RAM disk are given to the machine by Pollux. This package has no files.\n";
const INIT: &str = include_str!("guest/systemd/init");
const NETWORK: &str = include_str!("guest/systemd/network");
const WAIT_ONLINE: &str = include_str!("guest/systemd/wait-online.conf");
const SSH_KEYS: &str = include_str!("guest/systemd/ssh-keys.service");
const MODULES: &str = include_str!("guest/systemd/modules.conf");
const AUTOLOGIN: &str = include_str!("guest/systemd/autologin.conf");
/// Longest host name that Linux takes, in bytes.
const HOSTNAME_BYTES_MAX: usize = 64;

/// What such a guest has beside its packages.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct System {
    /// Take `trixie-updates` and `trixie-security`, too.
    pub updates: bool,
    /// Install what packages recommend.
    pub recommends: bool,
    /// Who gets in, and how.
    #[serde(skip)]
    pub access: Access,
}

impl Default for System {
    fn default() -> Self {
        Self { updates: true, recommends: false, access: Access::default() }
    }
}

/// Who gets into a guest, and under which name it is known. Nobody does by default: root is locked.
#[derive(Clone, PartialEq, Eq, Default, Serialize)]
pub struct Access {
    /// `/etc/hostname`.
    pub hostname: Option<String>,
    /// Lines of root's `authorized_keys`.
    pub ssh_keys: Option<String>,
    /// Root's password.
    pub root_password: Option<String>,
    /// A root shell on the console, without a password.
    pub autologin: bool,
    /// cloud-init's `user-data`.
    pub user_data: Option<String>,
    /// cloud-init's `meta-data`.
    pub meta_data: Option<String>,
}

/// A password is not shown.
impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("hostname", &self.hostname).finish_non_exhaustive()
    }
}

impl Access {
    fn wants_cloud_init(&self) -> bool {
        self.user_data.is_some() || self.meta_data.is_some()
    }

    /// Refuses what would go wrong in the guest, where nobody sees it.
    fn check(&self) -> Result<(), ImageError> {
        let unusable = |text: String| Err(ImageError::Unusable(text));
        if let Some(name) = &self.hostname {
            let legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
            let edge = name.starts_with(['-', '.']) || name.ends_with(['-', '.']);
            if name.is_empty() || name.len() > HOSTNAME_BYTES_MAX || edge || !name.chars().all(legal) {
                return unusable(format!(
                    "{name:?} is no host name: 1 to {HOSTNAME_BYTES_MAX} letters, digits, hyphens and dots"
                ));
            }
        }
        if let Some(keys) = &self.ssh_keys {
            let is_key = |line: &str| {
                let kind =
                    line.split_whitespace().find(|word| word.contains("ssh-") || word.contains("ecdsa-"));
                line.trim().is_empty() || line.starts_with('#') || kind.is_some()
            };
            if keys.trim().is_empty() || keys.contains("PRIVATE KEY") || !keys.lines().all(is_key) {
                return unusable(
                    "--ssh-key wants a file with public keys (id_ed25519.pub and the like)".into(),
                );
            }
        }
        if self.root_password.as_ref().is_some_and(|p| p.is_empty() || p.contains(['\n', '\0'])) {
            return unusable("--root-password wants one line that is not empty".into());
        }
        Ok(())
    }
}

/// Builds the image, or finds it in the cache.
pub(crate) fn build(
    options: &BuildOptions,
    system: &System,
    runner: &mut dyn Runner,
    progress: &mut dyn Progress,
) -> Result<Image, ImageError> {
    system.access.check()?;
    if options.size_bytes < BASE_BYTES {
        return Err(ImageError::Unusable(format!(
            "a root disk with systemd needs --size {}G",
            BASE_BYTES >> 30
        )));
    }
    let mut options = options.clone();
    for (name, wanted) in [
        ("openssh-server", system.access.ssh_keys.is_some()),
        ("cloud-init", system.access.wants_cloud_init()),
    ] {
        if wanted && !options.packages.iter().any(|package| package == name) {
            options.packages.push(name.into());
        }
    }
    let cache = options.cache_dir.clone().unwrap_or_else(default_cache);
    let builder = Builder { options: &options, system, cache: &cache };
    let base_name = builder.name(&[RECIPE.to_string(), recipe()]);
    let base = find_or_make(&cache, &base_name, progress, |folder, progress| {
        builder.base(folder, runner, progress)
    })?;
    let overlay = options.overlay.as_deref();
    let description = serde_json::to_string(&options).unwrap_or_default();
    let name = name_of(&format!("{base_name} {description}{}", overlay.map(fingerprint).unwrap_or_default()));
    let plain = options.packages.is_empty() && overlay.is_none() && options.size_bytes == BASE_BYTES;
    let image = if plain {
        base
    } else {
        find_or_make(&cache, &name, progress, |folder, progress| {
            builder.packages(&base, folder, runner, progress)
        })?
    };
    if system.access == Access::default() {
        return Ok(image);
    }
    // A name in the cache is no place for a guess at a password: such an image is made anew each time.
    let salt = if system.access.root_password.is_some() { random_text()? } else { String::new() };
    let access = serde_json::to_string(&system.access).unwrap_or_default();
    let description = if salt.is_empty() { access } else { salt };
    let name = name_of(&format!("{name} {description}"));
    find_or_make(&cache, &name, progress, |folder, progress| builder.access(&image, folder, runner, progress))
}

fn random_text() -> Result<String, ImageError> {
    let path = Path::new("/dev/urandom");
    let mut bytes = [0; 16];
    fs::File::open(path).and_then(|mut f| f.read_exact(&mut bytes)).map_err(io_error("cannot read", path))?;
    Ok(format!("{bytes:x?}"))
}

/// Everything of ours that goes into a base system, for the cache's key.
fn recipe() -> String {
    let lists = [REQUIRED.join(" "), SYSTEM.join(" "), INITRD_PACKAGE.into(), COMMAND_LINE.into()].concat();
    [lists, stage2::recipe(), [INIT, NETWORK, WAIT_ONLINE, SSH_KEYS, MODULES, AUTOLOGIN].concat()].concat()
}

struct Builder<'a> {
    options: &'a BuildOptions,
    system: &'a System,
    cache: &'a Path,
}

impl Builder<'_> {
    fn name(&self, parts: &[String]) -> String {
        let options = (&self.options.mirror, &self.options.keyring, self.system);
        name_of(&format!(
            "systemd {} {}",
            parts.join(" "),
            serde_json::to_string(&options).unwrap_or_default()
        ))
    }

    fn apt(&self, status: &str, total: usize, progress: &mut dyn Progress) -> Result<Apt, ImageError> {
        let status = format!("{status}{}", installed(INITRD_PACKAGE));
        let apt = Apt::prepare(&self.cache.join("apt"), self.options, &status)?;
        progress.step("asking Debian's archive for its packages", 1, total);
        apt.update()?;
        progress.step("downloading packages", 2, total);
        Ok(apt)
    }

    /// The base system.
    fn base(
        &self,
        folder: &Path,
        runner: &mut dyn Runner,
        progress: &mut dyn Progress,
    ) -> Result<Image, ImageError> {
        const STEPS: usize = 5;
        let apt = self.apt("", STEPS, progress)?;
        let tools = apt.select(&["busybox-static"], false, progress)?;
        let required: BTreeSet<_> =
            apt.select(&REQUIRED, false, progress)?.debs.into_iter().map(|(name, _)| name).collect();
        let wanted: Vec<_> = REQUIRED.iter().chain(&SYSTEM).copied().collect();
        let all = apt.select(&wanted, false, progress)?;
        let staging = fresh_staging(folder)?;
        let (root, kernel, busybox) =
            (staging.join("root"), staging.join("kernel-package"), staging.join("tools"));
        progress.step("unpacking the base system", 3, STEPS);
        for path in [&root, &kernel, &busybox] {
            fs::create_dir_all(path).map_err(io_error("cannot make", path))?;
        }
        first_stage(&root, &required, &all, progress)?;
        let image = |(name, _): &&(String, PathBuf)| name.starts_with("linux-image-") && name != KERNEL;
        let kernel_deb = &all.debs.iter().find(image).ok_or(ImageError::Missing("kernel package"))?.1;
        unpack(kernel_deb, &kernel)?;
        let tool = |(name, _): &&(String, PathBuf)| name == "busybox-static";
        unpack(&tools.debs.iter().find(tool).ok_or(ImageError::Missing("busybox"))?.1, &busybox)?;
        take_kernel(&kernel, &staging.join("kernel"))?;
        initramfs::write(&staging.join("initrd"), &busybox, &kernel, INIT)?;
        let bytes = fs::read(initramfs::busybox(&busybox)?).map_err(io_error("cannot read", &busybox))?;
        // Kept for the layers above.
        let kept = staging.join("busybox");
        fs::write(&kept, bytes).map_err(io_error("cannot write", &kept))?;
        make_disk(&staging.join("disk.img"), &root, BASE_BYTES)?;
        for path in [&root, &kernel, &busybox] {
            fs::remove_dir_all(path).map_err(io_error("cannot remove", path))?;
        }
        self.base_files(&staging.join("files"))?;
        let stand_in = stand_in(&staging)?;
        let mut debs = all.debs.clone();
        debs.push(("pollux-initrd".into(), stand_in.clone()));
        // Before what depends on it: right behind the required packages.
        let simulation = format!("Inst pollux-initrd (1)\nConf pollux-initrd (1)\n{}", all.simulation);
        let work = Work {
            plan: plan::plan(&required, &debs, &simulation),
            debs: &debs,
            files: &staging.join("files"),
            notes: vec![("base", String::new()), ("hostname", "pollux\n".into())],
            busybox: &kept,
        };
        progress.step("installing the base system, inside the machine", 4, STEPS);
        stage2::install(&work, &staging, runner, progress)?;
        fs::remove_file(&stand_in).map_err(io_error("cannot remove", &stand_in))?;
        progress.step("storing the image", 5, STEPS);
        let status = staging.join("status");
        fs::write(&status, statuses(&all)?).map_err(io_error("cannot write", &status))?;
        finish(&staging, folder, &[], &all)
    }

    /// Files of ours in the base system.
    fn base_files(&self, files: &Path) -> Result<(), ImageError> {
        write(files, "etc/fstab", "/dev/vda / ext4 errors=remount-ro 0 1\n")?;
        write(files, "etc/apt/sources.list.d/debian.sources", &guest_sources(self.options)?)?;
        write(files, "etc/systemd/network/80-dhcp.network", NETWORK)?;
        write(files, "etc/systemd/system/systemd-networkd-wait-online.service.d/bounded.conf", WAIT_ONLINE)?;
        write(files, "etc/modprobe.d/pollux.conf", MODULES)?;
        write(files, "etc/systemd/system/pollux-ssh-keys.service", SSH_KEYS)
    }

    /// A base system with packages.
    fn packages(
        &self,
        base: &Image,
        folder: &Path,
        runner: &mut dyn Runner,
        progress: &mut dyn Progress,
    ) -> Result<Image, ImageError> {
        const STEPS: usize = 4;
        let below = base.disk.parent().unwrap_or(Path::new("."));
        let status = below.join("status");
        let status = fs::read_to_string(&status).map_err(io_error("cannot read", &status))?;
        let apt = self.apt(&status, STEPS, progress)?;
        let wanted: Vec<_> = self.options.packages.iter().map(String::as_str).collect();
        let chosen = apt.select(&wanted, self.system.recommends, progress)?;
        let staging = fresh_staging(folder)?;
        copy_below(below, &staging, self.options.size_bytes)?;
        let files = staging.join("files");
        fs::create_dir_all(&files).map_err(io_error("cannot make", &files))?;
        if let Some(overlay) = &self.options.overlay {
            // Whoever made the overlay, in the guest it is root's.
            let copy = ["-a", "--no-preserve=ownership"];
            let from = overlay.join(".");
            run("copying the overlay", Command::new("cp").args(copy).arg(from).arg(&files))?;
        }
        let work = Work {
            plan: plan::plan(&BTreeSet::new(), &chosen.debs, &chosen.simulation),
            debs: &chosen.debs,
            files: &files,
            notes: Vec::new(),
            busybox: &staging.join("busybox"),
        };
        progress.step("installing packages, inside the machine", 3, STEPS);
        stage2::install(&work, &staging, runner, progress)?;
        progress.step("storing the image", 4, STEPS);
        finish(&staging, folder, &base.packages, &chosen)
    }

    /// An image that lets somebody in.
    fn access(
        &self,
        below: &Image,
        folder: &Path,
        runner: &mut dyn Runner,
        progress: &mut dyn Progress,
    ) -> Result<Image, ImageError> {
        let access = &self.system.access;
        let staging = fresh_staging(folder)?;
        // A hash of a password and the like are nobody else's.
        fs::set_permissions(&staging, fs::Permissions::from_mode(0o700))
            .map_err(io_error("cannot change", &staging))?;
        copy_below(below.disk.parent().unwrap_or(Path::new(".")), &staging, self.options.size_bytes)?;
        let files = staging.join("files");
        fs::create_dir_all(&files).map_err(io_error("cannot make", &files))?;
        if let Some(keys) = &access.ssh_keys {
            write(&files, "root/.ssh/authorized_keys", &format!("{}\n", keys.trim_end()))?;
        }
        if access.autologin {
            write(&files, "etc/systemd/system/serial-getty@ttyS0.service.d/autologin.conf", AUTOLOGIN)?;
        }
        if access.wants_cloud_init() {
            let seed = "var/lib/cloud/seed/nocloud";
            let own = || {
                let id = name_of(&serde_json::to_string(access).unwrap_or_default());
                format!(
                    "instance-id: {id}\nlocal-hostname: {}\n",
                    access.hostname.as_deref().unwrap_or("pollux")
                )
            };
            write(
                &files,
                &format!("{seed}/user-data"),
                access.user_data.as_deref().unwrap_or("#cloud-config\n"),
            )?;
            write(&files, &format!("{seed}/meta-data"), &access.meta_data.clone().unwrap_or_else(own))?;
        }
        let mut notes = Vec::new();
        if let Some(name) = &access.hostname {
            notes.push(("hostname", format!("{name}\n")));
        }
        if let Some(password) = &access.root_password {
            notes.push(("root-password", format!("root:{password}\n")));
        }
        let busybox = staging.join("busybox");
        let work = Work { plan: String::new(), debs: &[], files: &files, notes, busybox: &busybox };
        progress.step("letting you in, inside the machine", 1, 2);
        stage2::install(&work, &staging, runner, progress)?;
        progress.step("storing the image", 2, 2);
        let nothing = Selection { debs: Vec::new(), simulation: String::new() };
        finish(&staging, folder, &below.packages, &nothing)
    }
}

fn write(folder: &Path, name: &str, text: &str) -> Result<(), ImageError> {
    let path = folder.join(name);
    let parent = path.parent().unwrap_or(folder);
    fs::create_dir_all(parent).map_err(io_error("cannot make", parent))?;
    fs::write(&path, text).map_err(io_error("cannot write", &path))
}

fn unpack(deb: &Path, to: &Path) -> Result<(), ImageError> {
    run(&format!("unpacking {}", deb.display()), command("dpkg-deb").arg("-x").arg(deb).arg(to)).map(drop)
}

/// An empty folder beside the one that it will become.
fn fresh_staging(folder: &Path) -> Result<PathBuf, ImageError> {
    let staging = folder.with_extension("new");
    if staging.exists() {
        fs::remove_dir_all(&staging).map_err(io_error("cannot clear", &staging))?;
    }
    fs::create_dir_all(&staging).map_err(io_error("cannot make", &staging))?;
    Ok(staging)
}

/// What is needed for dpkg to run: files of the required packages, and a database that knows of nothing but itself.
fn first_stage(
    root: &Path,
    required: &BTreeSet<String>,
    all: &Selection,
    progress: &mut dyn Progress,
) -> Result<(), ImageError> {
    merge_usr(root)?;
    let debs: Vec<_> = all.debs.iter().filter(|(name, _)| required.contains(name)).collect();
    for (index, (_, deb)) in debs.iter().enumerate() {
        progress.advance(index as u64, debs.len() as u64);
        unpack(deb, root)?;
    }
    for name in ["dev", "proc", "sys", "run", "tmp", "mnt", "var/lib/dpkg/info", "var/lib/dpkg/updates"] {
        let path = root.join(name);
        fs::create_dir_all(&path).map_err(io_error("cannot make", &path))?;
    }
    let dpkg = control_of(&find(all, "dpkg")?)?;
    write(root, "var/lib/dpkg/status", &installed(&dpkg))?;
    for name in ["var/lib/dpkg/available", "var/lib/dpkg/info/dpkg.list", "etc/fstab"] {
        write(root, name, "")?;
    }
    // debootstrap's stand-in until the package registers its alternative.
    let awk = root.join("usr/bin/awk");
    if !awk.exists() {
        symlink("mawk", &awk).map_err(io_error("cannot link", &awk))?;
    }
    Ok(())
}

fn find(all: &Selection, name: &str) -> Result<PathBuf, ImageError> {
    all.debs.iter().find(|(n, _)| n == name).map(|(_, p)| p.clone()).ok_or(ImageError::Missing("dpkg"))
}

/// A package's control fields.
fn control_of(deb: &Path) -> Result<String, ImageError> {
    let output = run(&format!("reading {}", deb.display()), command("dpkg-deb").arg("-f").arg(deb))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Control fields as they are in dpkg's database when the package is installed.
fn installed(control: &str) -> String {
    control.trim_end().replacen('\n', "\nStatus: install ok installed\n", 1) + "\n\n"
}

/// What dpkg's database says when all of `all` is installed, for apt.
fn statuses(all: &Selection) -> Result<String, ImageError> {
    all.debs.iter().map(|(_, deb)| Ok(installed(&control_of(deb)?))).collect()
}

/// Builds the package that stands for the initial RAM disk.
fn stand_in(staging: &Path) -> Result<PathBuf, ImageError> {
    let tree = staging.join("stand-in");
    write(&tree, "DEBIAN/control", INITRD_PACKAGE)?;
    let deb = staging.join("pollux-initrd_1_all.deb");
    run(
        "dpkg-deb --build of a package of our own",
        command("dpkg-deb").args(["--root-owner-group", "--build"]).arg(&tree).arg(&deb),
    )?;
    fs::remove_dir_all(&tree).map_err(io_error("cannot remove", &tree))?;
    Ok(deb)
}

/// The parts of an image that a layer starts with; its disk as large as asked, if it is not larger already.
fn copy_below(below: &Path, staging: &Path, bytes: u64) -> Result<(), ImageError> {
    for name in ["kernel", "initrd", "busybox", "disk.img"] {
        let (from, to) = (below.join(name), staging.join(name));
        let shared = name != "disk.img" && fs::hard_link(&from, &to).is_ok();
        if !shared {
            fresh_disk_copy(&from, &to).map_err(io_error("cannot copy to", &to))?;
        }
    }
    let path = staging.join("disk.img");
    let disk = fs::File::options().write(true).open(&path).map_err(io_error("cannot open", &path))?;
    let now = disk.metadata().map_err(io_error("cannot read", &path))?.len();
    disk.set_len(bytes.max(now)).map_err(io_error("cannot enlarge", &path))
}

/// Writes down what the image is, and gives it its name.
fn finish(staging: &Path, folder: &Path, below: &[String], chosen: &Selection) -> Result<Image, ImageError> {
    let name =
        |path: &PathBuf| path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let image = Image {
        kernel: folder.join("kernel"),
        initrd: folder.join("initrd"),
        disk: folder.join("disk.img"),
        command_line: COMMAND_LINE.into(),
        packages: below.iter().cloned().chain(chosen.debs.iter().map(|(_, path)| name(path))).collect(),
    };
    store(&image, staging, folder)?;
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_lock_its_owner_out_is_refused_before_anything_is_built() {
        let check = |access: Access| access.check();
        let named = |name: &str| check(Access { hostname: Some(name.into()), ..Access::default() });
        assert!(named("db-1.example").is_ok());
        for bad in ["", "-a", "a b", "a_b", &"x".repeat(65)] {
            assert!(named(bad).is_err(), "{bad:?}");
        }
        let keyed = |keys: &str| check(Access { ssh_keys: Some(keys.into()), ..Access::default() });
        assert!(keyed("# mine\nssh-ed25519 AAAA me\n").is_ok());
        for bad in ["", "hello", "-----BEGIN OPENSSH PRIVATE KEY-----\nssh-"] {
            assert!(keyed(bad).is_err(), "{bad:?}");
        }
        let password = |p: &str| check(Access { root_password: Some(p.into()), ..Access::default() });
        assert!(password("open sesame").is_ok() && password("").is_err() && password("a\nroot2:b").is_err());
    }

    #[test]
    fn a_password_is_in_no_debug_output() {
        let access = Access { root_password: Some("open sesame".into()), ..Access::default() };
        assert!(!format!("{access:?}").contains("sesame"));
    }

    #[test]
    fn an_installed_package_is_told_to_apt_as_dpkg_tells_it() {
        let text = installed("Package: a\nVersion: 1\nDescription: x\n y\n");
        assert_eq!(text, "Package: a\nStatus: install ok installed\nVersion: 1\nDescription: x\n y\n\n");
    }
}
