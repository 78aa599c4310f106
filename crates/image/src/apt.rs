//! Debian's packages through the host's own apt, in a state folder of our own.
//!
//! Signatures are checked by apt as always: the sources are the host's, with suite and architecture changed, and so
//! are the keys. Nothing of the host's package database is read or written.

use crate::tools::{command, explain, is_about_signatures, output, run, said};
use crate::{BuildOptions, ImageError, Init, Progress, io_error};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The release that guests are made of.
const SUITE: &str = "trixie";
const ARCHITECTURE: &str = "riscv64";
const DEBIAN_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// What every guest has. With `--no-install-recommends`, plus what these depend on.
const BASE: [&str; 19] = [
    "base-files",
    "base-passwd",
    "bash",
    "busybox-static",
    "coreutils",
    "dash",
    "e2fsprogs",
    "grep",
    "hostname",
    "iproute2",
    "kmod",
    "libc-bin",
    "libc6",
    "login",
    "mount",
    "procps",
    "sed",
    "sysvinit-core",
    "util-linux",
];
/// What a real Debian takes from beside its release: the suites' endings.
const UPDATES: [&str; 2] = ["-updates", "-security"];
/// How often the download's folder is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// The package that depends on the current kernel.
pub(crate) const KERNEL: &str = "linux-image-riscv64";

/// The packages of a build, downloaded.
pub(crate) struct Debs {
    /// The guest's user space.
    pub(crate) packages: Vec<PathBuf>,
    /// The kernel's package.
    pub(crate) kernel: PathBuf,
}

/// Packages that an installation needs, downloaded, in the order in which apt would install them.
pub(crate) struct Selection {
    /// Each unpacked package: its name and its file.
    pub(crate) debs: Vec<(String, PathBuf)>,
    /// What apt would do: its words, a line a step.
    pub(crate) simulation: String,
}

/// apt with a state of its own.
pub(crate) struct Apt {
    folder: PathBuf,
    config: PathBuf,
}

impl Apt {
    /// Lays out the private folders; `status` is what dpkg would say is installed.
    pub(crate) fn prepare(folder: &Path, options: &BuildOptions, status: &str) -> Result<Self, ImageError> {
        let make = |path: &Path| fs::create_dir_all(path).map_err(io_error("cannot make", path));
        for sub in ["state/lists/partial", "cache/archives/partial", "etc/preferences.d"] {
            make(&folder.join(sub))?;
        }
        let write = |path: &Path, text: &str| fs::write(path, text).map_err(io_error("cannot write", path));
        let keyring = options.keyring.clone().unwrap_or_else(|| DEBIAN_KEYRING.into());
        let sources = sources(options)?;
        if !keyring.is_file() {
            return Err(ImageError::NoKeyring { path: keyring });
        }
        write(&folder.join("sources.list"), &sources)?;
        write(&folder.join("state/status"), status)?;
        let config = folder.join("apt.conf");
        let dir = |name: &str, path: &str| format!("Dir::{name} \"{}\";\n", folder.join(path).display());
        // Read last (`-c`), so the host's settings do not win over these; its proxies and the like stay. Its hooks
        // are for its own package lists: one of the usual ones empties the host's cache of packages.
        let text = [
            "#clear APT::Update::Pre-Invoke;\n#clear APT::Update::Post-Invoke;\n".into(),
            "#clear APT::Update::Post-Invoke-Success;\n#clear APT::Architectures;\n".into(),
            dir("State", "state"),
            dir("State::status", "state/status"),
            dir("Cache", "cache"),
            dir("Etc::sourcelist", "sources.list"),
            "Dir::Etc::sourceparts \"-\";\n".into(),
            dir("Etc::preferencesparts", "etc/preferences.d"),
            "Dir::Etc::preferences \"-\";\n".into(),
            format!("APT::Architecture \"{ARCHITECTURE}\";\nAPT::Architectures {{ \"{ARCHITECTURE}\"; }};\n"),
            "APT::Default-Release \"\";\nAPT::Install-Recommends \"false\";\nAcquire::Languages \"none\";\n"
                .into(),
            "APT::Sandbox::User \"\";\nAcquire::Retries \"3\";\nDpkg::Use-Pty \"0\";\n".into(),
        ]
        .concat();
        write(&config, &text)?;
        Ok(Self { folder: folder.into(), config })
    }

    fn command(&self, tool: &'static str) -> Command {
        let mut command = command(tool);
        command.arg("-c").arg(&self.config).current_dir(&self.folder);
        command
    }

    /// Fetches the lists of packages. A list that is there and fresh costs nothing.
    pub(crate) fn update(&self) -> Result<(), ImageError> {
        const WHAT: &str = "apt-get update (Debian's package lists, signatures checked)";
        let output = output(WHAT, self.command("apt-get").args(["update", "-q"]), &mut || ())?;
        // apt-get update ends well with a list it could not fetch, if it has an older one; it says so, though.
        let text = said(&output);
        let broken = text.lines().any(|line| line.starts_with("E:")) || is_about_signatures(&text);
        if output.status.success() && !broken {
            return Ok(());
        }
        let error = explain(WHAT, text.clone());
        let suite = UPDATES.iter().find(|suite| {
            text.lines().any(|line| line.starts_with("E:") && line.contains(&format!("/{SUITE}{suite}")))
        });
        match suite {
            Some(suite) if !matches!(error, ImageError::Signature { .. }) => {
                Err(ImageError::NoUpdates { suite: format!("{SUITE}{suite}"), output: text })
            }
            _ => Err(error),
        }
    }

    /// Downloads `wanted` and what it needs beside what is installed.
    pub(crate) fn select(
        &self,
        wanted: &[&str],
        recommends: bool,
        progress: &mut dyn Progress,
    ) -> Result<Selection, ImageError> {
        let flag = if recommends { "--install-recommends" } else { "--no-install-recommends" };
        let install = ["install", "-y", "-q", flag];
        self.fetch(&install, wanted, progress)?;
        let list = run(
            "apt-get install (listing the packages)",
            self.command("apt-get").args(install).args(["--simulate"]).args(wanted),
        )?;
        let simulation = String::from_utf8_lossy(&list.stdout).into_owned();
        Ok(Selection { debs: self.files_of(&simulation)?, simulation })
    }

    /// Downloads what an installation of `wanted` takes, and nothing twice.
    fn fetch(
        &self,
        install: &[&str; 4],
        wanted: &[&str],
        progress: &mut dyn Progress,
    ) -> Result<(), ImageError> {
        let plan = run(
            "apt-get install (finding out what the packages need)",
            self.command("apt-get").args(install).arg("--print-uris").args(wanted),
        )?;
        // 'URI' name_version_arch.deb bytes hash
        let text = String::from_utf8_lossy(&plan.stdout).into_owned();
        let bytes = |line: &str| line.strip_prefix('\'')?.split_whitespace().nth(2)?.parse::<u64>().ok();
        let total = text.lines().filter_map(bytes).sum();
        let archives = self.folder.join("cache/archives");
        let mut download = self.command("apt-get");
        download.args(install).arg("--download-only").args(wanted);
        watch("apt-get install --download-only", download, &archives, total, progress)
    }

    /// Downloads everything that the guest needs, and nothing twice.
    pub(crate) fn download(
        &self,
        options: &BuildOptions,
        progress: &mut dyn Progress,
    ) -> Result<Debs, ImageError> {
        let kernel = self.kernel_name()?;
        let wanted: Vec<&str> =
            BASE.iter().copied().chain(options.packages.iter().map(String::as_str)).collect();
        let install = ["install", "-y", "-q", "--no-install-recommends"];
        self.fetch(&install, &wanted, progress)?;
        let archives = self.folder.join("cache/archives");
        run(
            "apt-get download of the kernel",
            self.command("apt-get").args(["download", "-q", &kernel]).current_dir(&archives),
        )?;
        let list = run(
            "apt-get install (listing the packages)",
            self.command("apt-get").args(install).args(["--simulate"]).args(&wanted),
        )?;
        let packages = self.files_of(&String::from_utf8_lossy(&list.stdout))?;
        if packages.is_empty() {
            return Err(ImageError::Missing("packages at all"));
        }
        let kernel = self.deb(&kernel, None)?.ok_or(ImageError::Missing("kernel package"))?;
        Ok(Debs { packages: packages.into_iter().map(|(_, file)| file).collect(), kernel })
    }

    /// The packages that a simulated installation unpacks, with their files.
    fn files_of(&self, simulation: &str) -> Result<Vec<(String, PathBuf)>, ImageError> {
        let mut packages = Vec::new();
        for (name, version) in simulation.lines().filter_map(unpacked) {
            let file = self.deb(&name, Some(&version))?.ok_or(ImageError::Missing("downloaded package"))?;
            packages.push((name, file));
        }
        Ok(packages)
    }

    /// The downloaded file of a package.
    fn deb(&self, name: &str, version: Option<&str>) -> Result<Option<PathBuf>, ImageError> {
        let archives = self.folder.join("cache/archives");
        let entries = fs::read_dir(&archives).map_err(io_error("cannot read", &archives))?;
        let start = match version {
            Some(version) => format!("{name}_{}_", version.replace(':', "%3a")),
            None => format!("{name}_"),
        };
        let files = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        Ok(files.filter(|f| f.starts_with(&start) && f.ends_with(".deb")).max().map(|f| archives.join(f)))
    }

    /// The name of the package with the kernel itself.
    fn kernel_name(&self) -> Result<String, ImageError> {
        let output =
            run("apt-cache depends of the kernel", self.command("apt-cache").args(["depends", KERNEL]))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let name = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        name.map(str::to_owned)
            .find(|name| name.starts_with("linux-image-"))
            .ok_or(ImageError::Missing("kernel package"))
    }
}

/// Name and version in a line like `Inst name [installed version] (version archive [arch])`.
fn unpacked(line: &str) -> Option<(String, String)> {
    let rest = line.strip_prefix("Inst ")?;
    let name = rest.split_whitespace().next()?.split(':').next()?;
    let version = rest.split_once('(')?.1.split_whitespace().next()?;
    Some((name.to_owned(), version.to_owned()))
}

/// Runs a download while telling how many bytes of it have arrived.
fn watch(
    what: &str,
    mut command: Command,
    archives: &Path,
    total: u64,
    progress: &mut dyn Progress,
) -> Result<(), ImageError> {
    let size = || -> u64 {
        [archives.to_owned(), archives.join("partial")]
            .iter()
            .filter_map(|folder| fs::read_dir(folder).ok())
            .flat_map(|entries| entries.flatten())
            .filter_map(|entry| entry.metadata().ok())
            .filter(fs::Metadata::is_file)
            .map(|meta| meta.len())
            .sum()
    };
    let before = size();
    let mut looked = Instant::now();
    let output = output(what, &mut command, &mut || {
        if looked.elapsed() >= LOOK {
            looked = Instant::now();
            progress.advance(size().saturating_sub(before).min(total), total);
        }
    })?;
    if output.status.success() { Ok(()) } else { Err(explain(what, said(&output))) }
}

/// Our sources.list: the host's Debian archive with our suite.
fn sources(options: &BuildOptions) -> Result<String, ImageError> {
    let keyring = options.keyring.clone().unwrap_or_else(|| DEBIAN_KEYRING.into());
    let keyring = std::path::absolute(&keyring).unwrap_or(keyring);
    let line = |uri: &str, suite: &str| format!("deb [signed-by={}] {uri} {suite} main\n", keyring.display());
    let uri = archive(options)?;
    let mut text = line(&uri, SUITE);
    if let Init::Systemd(system) = &options.init
        && system.updates
    {
        for (uri, suite) in update_suites(&uri) {
            text += &line(&uri, &suite);
        }
    }
    Ok(text)
}

/// Where the updates of the archive at `uri` are: `(URI, suite)`. Every mirror that has security updates has them
/// beside the archive, in `debian-security`.
fn update_suites(uri: &str) -> Vec<(String, String)> {
    let plain = uri.trim_end_matches('/');
    UPDATES
        .iter()
        .map(|ending| {
            let uri = if *ending == "-security" { format!("{plain}-security") } else { plain.to_owned() };
            (uri, format!("{SUITE}{ending}"))
        })
        .collect()
}

/// The `debian.sources` of a guest.
pub(crate) fn guest_sources(options: &BuildOptions) -> Result<String, ImageError> {
    const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let stanza = |uri: &str, suites: &str| {
        format!("Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: main\nSigned-By: {KEYS}\n")
    };
    let uri = archive(options)?;
    let updates = update_suites(&uri);
    let mut text = stanza(&uri, SUITE);
    for (uri, suite) in &updates {
        text += &format!("\n{}", stanza(uri, suite));
    }
    Ok(text)
}

/// The archive that packages are taken from.
fn archive(options: &BuildOptions) -> Result<String, ImageError> {
    if let Some(mirror) = &options.mirror {
        return Ok(mirror.clone());
    }
    let mut texts = Vec::new();
    let mut read = |path: PathBuf| texts.extend(fs::read_to_string(path));
    read("/etc/apt/sources.list".into());
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        paths.into_iter().for_each(&mut read);
    }
    texts.iter().find_map(|text| debian_uri(text)).ok_or(ImageError::NoSource)
}

/// The archive's URI in a file of sources, in either format.
fn debian_uri(text: &str) -> Option<String> {
    const RELEASES: [&str; 8] =
        ["bullseye", "bookworm", "trixie", "forky", "sid", "stable", "testing", "unstable"];
    // One line an entry: deb [options] uri suite components
    for line in text.lines() {
        let Some(rest) = line.trim().strip_prefix("deb ") else { continue };
        let rest = rest.trim_start();
        let rest =
            if rest.starts_with('[') { rest.split_once(']').map_or("", |(_, rest)| rest) } else { rest };
        let mut words = rest.split_whitespace();
        if let (Some(uri), Some(suite)) = (words.next(), words.next())
            && RELEASES.contains(&suite)
        {
            return Some(uri.into());
        }
    }
    // deb822: stanzas of fields
    for stanza in text.split("\n\n") {
        let field = |name: &str| {
            let line = stanza.lines().find(|line| line.to_ascii_lowercase().starts_with(name))?;
            Some(line[name.len()..].split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        };
        let off = field("enabled:").is_some_and(|words| words.first().is_some_and(|word| word == "no"));
        if off || !field("types:").unwrap_or_default().iter().any(|kind| kind == "deb") {
            continue;
        }
        let suites = field("suites:").unwrap_or_default();
        if suites.iter().any(|suite| RELEASES.contains(&suite.as_str()))
            && let Some(uri) = field("uris:").unwrap_or_default().first()
        {
            return Some(uri.clone());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_debian_archive_is_found_in_both_formats_and_nothing_else_is() {
        let old =
            "# deb x://no bookworm main\ndeb [signed-by=/k arch=amd64] x://a/debian bookworm main contrib\n";
        assert_eq!(debian_uri(old).as_deref(), Some("x://a/debian"));
        let new = "Types: deb\nURIs: x://tools\nSuites: nodistro\n\nTypes: deb\nURIs: x://b/debian\nSuites: trixie trixie-updates\nComponents: main\n";
        assert_eq!(debian_uri(new).as_deref(), Some("x://b/debian"));
        assert_eq!(debian_uri("deb x://ubuntu noble main\n"), None);
    }

    #[test]
    fn a_source_that_is_switched_off_or_holds_no_packages_is_not_used() {
        let off = "Enabled: no\nTypes: deb\nURIs: x://a\nSuites: trixie\nComponents: main\n";
        let source = "Types: deb-src\nURIs: x://b\nSuites: trixie\nComponents: main\n";
        assert_eq!(debian_uri(off), None);
        assert_eq!(debian_uri(source), None);
        assert_eq!(debian_uri("deb-src x://c trixie main\n# deb x://d trixie main\n"), None);
        let on = format!("{off}\n{source}\nTypes: deb deb-src\nURIs: x://e\nSuites: trixie\n");
        assert_eq!(debian_uri(&on).as_deref(), Some("x://e"));
    }

    #[test]
    fn a_mirror_of_ones_own_is_taken_with_its_keys() {
        let options = BuildOptions {
            mirror: Some("x://mirror".into()),
            keyring: Some("/keys.gpg".into()),
            ..BuildOptions::default()
        };
        assert_eq!(sources(&options).expect("given"), "deb [signed-by=/keys.gpg] x://mirror trixie main\n");
    }
}
