//! Debian's packages through the host's own apt, in a state folder of our own.
//!
//! Signatures are checked by apt as always: the sources are the host's, with suite and architecture changed, and so
//! are the keys. Nothing of the host's package database is read or written.

use crate::tools::{command, explain, is_about_signatures, run, said};
use crate::{BuildOptions, ImageError, Progress, io_error};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

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
/// The package that depends on the current kernel.
const KERNEL: &str = "linux-image-riscv64";

/// The packages of a build, downloaded.
pub(crate) struct Debs {
    /// The guest's user space.
    pub(crate) packages: Vec<PathBuf>,
    /// The kernel's package.
    pub(crate) kernel: PathBuf,
}

/// apt with a state of its own.
pub(crate) struct Apt {
    folder: PathBuf,
    config: PathBuf,
}

impl Apt {
    /// Lays out the private folders.
    pub(crate) fn prepare(folder: &Path, options: &BuildOptions) -> Result<Self, ImageError> {
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
        write(&folder.join("state/status"), "")?;
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
        let output = self.command("apt-get").args(["update", "-q"]).output();
        let output = output.map_err(|error| explain(WHAT, error.to_string()))?;
        // apt-get update ends well with a list it could not fetch, if it has an older one; it says so, though.
        let text = said(&output);
        let broken = text.lines().any(|line| line.starts_with("E:")) || is_about_signatures(&text);
        if output.status.success() && !broken { Ok(()) } else { Err(explain(WHAT, text)) }
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
        let plan = run(
            "apt-get install (finding out what the packages need)",
            self.command("apt-get").args(install).arg("--print-uris").args(&wanted),
        )?;
        // 'URI' name_version_arch.deb bytes hash
        let text = String::from_utf8_lossy(&plan.stdout).into_owned();
        let fields = |line: &str| {
            let mut words = line.strip_prefix('\'')?.split_whitespace().skip(1);
            Some((words.next()?.to_owned(), words.next()?.parse::<u64>().ok()?))
        };
        let missing: Vec<(String, u64)> = text.lines().filter_map(fields).collect();
        let total = missing.iter().map(|(_, bytes)| bytes).sum();
        let archives = self.folder.join("cache/archives");
        let mut download = self.command("apt-get");
        download.args(install).arg("--download-only").args(&wanted);
        watch("apt-get install --download-only", download, &archives, total, progress)?;
        run(
            "apt-get download of the kernel",
            self.command("apt-get").args(["download", "-q", &kernel]).current_dir(&archives),
        )?;
        let list = run(
            "apt-get install (listing the packages)",
            self.command("apt-get").args(install).args(["--simulate"]).args(&wanted),
        )?;
        self.collect(&String::from_utf8_lossy(&list.stdout), &kernel)
    }

    /// The files of the packages that a simulated installation names.
    fn collect(&self, simulation: &str, kernel: &str) -> Result<Debs, ImageError> {
        let archives = self.folder.join("cache/archives");
        let entries = fs::read_dir(&archives).map_err(io_error("cannot read", &archives))?;
        let files: Vec<String> = entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
        // Inst name (version archive [arch]) ...
        let find_deb = |name: &str, version: Option<&str>| {
            let start = match version {
                Some(version) => format!("{name}_{}_", version.replace(':', "%3a")),
                None => format!("{name}_"),
            };
            files
                .iter()
                .filter(|f| f.starts_with(&start) && f.ends_with(".deb"))
                .max()
                .map(|f| archives.join(f))
        };
        let mut packages = Vec::new();
        for line in simulation.lines().filter_map(|line| line.strip_prefix("Inst ")) {
            let mut words = line.split_whitespace();
            let name = words.next().unwrap_or_default().split(':').next().unwrap_or_default();
            let version = words.next().map(|v| v.trim_start_matches('('));
            packages.push(find_deb(name, version).ok_or(ImageError::Missing("downloaded package"))?);
        }
        let kernel = find_deb(kernel, None).ok_or(ImageError::Missing("kernel package"))?;
        if packages.is_empty() {
            return Err(ImageError::Missing("packages at all"));
        }
        Ok(Debs { packages, kernel })
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
    let failed = |error: std::io::Error| explain(what, error.to_string());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(failed)?;
    while child.try_wait().map_err(failed)?.is_none() {
        progress.advance(size().saturating_sub(before).min(total), total);
        std::thread::sleep(Duration::from_millis(100));
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() { Ok(()) } else { Err(explain(what, said(&output))) }
}

/// Our sources.list: the host's Debian archive with our suite.
fn sources(options: &BuildOptions) -> Result<String, ImageError> {
    let keyring = options.keyring.clone().unwrap_or_else(|| DEBIAN_KEYRING.into());
    let keyring = std::path::absolute(&keyring).unwrap_or(keyring);
    if let Some(mirror) = &options.mirror {
        return Ok(format!("deb [signed-by={}] {mirror} {SUITE} main\n", keyring.display()));
    }
    let mut texts = Vec::new();
    let mut read = |path: PathBuf| texts.extend(fs::read_to_string(path));
    read("/etc/apt/sources.list".into());
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        paths.into_iter().for_each(&mut read);
    }
    let uri = texts.iter().find_map(|text| debian_uri(text)).ok_or(ImageError::NoSource)?;
    Ok(format!("deb [signed-by={}] {uri} {SUITE} main\n", keyring.display()))
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
