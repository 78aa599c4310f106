//! `pollux image`: Debian guests, built with the host's own apt and no root.

use super::image_machine::OwnBinary;
use crate::config::parse_size;
use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand, ValueEnum};
use pollux_image::{Access, BuildOptions, Image, Init, System};
pub use pollux_lab::Bar;
use std::path::{Path, PathBuf};

#[derive(Args, Debug)]
pub struct ImageArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Build a Debian 13 riscv64 guest (kernel, initial RAM disk, root disk); cached
    Build(Box<BuildArgs>),
    /// Take in a disk image that boots elsewhere: find its kernel, initial RAM disk and command line
    Import(super::image_import::ImportArgs),
    /// Enlarge a raw disk image, and the file system on it where that fills it
    Resize(super::image_import::ResizeArgs),
    /// Show the images that were built here
    List(super::image_cache::ListArgs),
    /// Remove images that nobody has asked for lately; never one that a build or a VM uses
    Prune(super::image_cache::PruneArgs),
}

#[derive(Args, Debug)]
struct BuildArgs {
    /// Debian packages beside the base system; '' for none
    #[arg(long, value_delimiter = ',', default_value = "redis-server")]
    packages: Vec<String>,
    /// The guest's first process: systemd on a Debian whose packages install themselves, or the fastest boot
    #[arg(long, value_enum, default_value_t = InitKind::Systemd)]
    init: InitKind,
    /// Size of the root disk [default: 2G, or 1G with --init minimal]
    #[arg(long)]
    size: Option<String>,
    /// Where images are kept [default: the user's cache folder]
    #[arg(long, value_name = "FOLDER")]
    cache: Option<PathBuf>,
    /// A folder whose content is laid over the root file system
    #[arg(long, value_name = "FOLDER")]
    overlay: Option<PathBuf>,
    /// A Debian mirror, for hosts whose apt has no Debian source
    #[arg(long, value_name = "URI")]
    mirror: Option<String>,
    /// The keyring that the mirror's signatures are checked with
    #[arg(long, value_name = "FILE")]
    keyring: Option<PathBuf>,
    /// Copy the root disk to this file, and name the copy: the cached one stays as it is
    #[arg(long, value_name = "FILE")]
    copy: Option<PathBuf>,
    /// Print the paths as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    system: SystemArgs,
}

/// What only a guest with systemd has.
#[derive(Args, Debug)]
#[command(next_help_heading = "Guests with systemd")]
struct SystemArgs {
    /// Do without trixie-updates and trixie-security
    #[arg(long)]
    no_updates: bool,
    /// Install what packages recommend, too
    #[arg(long)]
    recommends: bool,
    /// The guest's host name
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Public keys that may log in as root over ssh (installs openssh-server)
    #[arg(long, value_name = "FILE")]
    ssh_key: Option<PathBuf>,
    /// Let `pollux ssh` in: a key pair of yours, made when first asked for and kept beside the images
    #[arg(long)]
    ssh: bool,
    /// Root's password, in the first line of a file
    #[arg(long, value_name = "FILE")]
    root_password: Option<PathBuf>,
    /// A root shell on the console, without a password
    #[arg(long)]
    autologin: bool,
    /// cloud-init's user-data (NoCloud; installs cloud-init)
    #[arg(long, value_name = "FILE")]
    user_data: Option<PathBuf>,
    /// cloud-init's meta-data [default: an instance-id and the host name]
    #[arg(long, value_name = "FILE")]
    meta_data: Option<PathBuf>,
}

/// The first process of a guest.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum InitKind {
    /// Debian as its installer makes it
    Systemd,
    /// No package's script is run; a root shell on the console
    Minimal,
}

impl SystemArgs {
    /// Whether anything was asked for.
    fn is_used(&self) -> bool {
        let files = [&self.ssh_key, &self.root_password, &self.user_data, &self.meta_data];
        let flags =
            self.no_updates || self.recommends || self.autologin || self.ssh || self.hostname.is_some();
        flags || files.into_iter().any(Option::is_some)
    }

    fn read(&self, cache: Option<&Path>) -> Result<System> {
        let file = |path: &Option<PathBuf>| path.as_deref().map(read_text).transpose();
        let password = file(&self.root_password)?.map(|text| text.lines().next().unwrap_or("").to_owned());
        let mut keys = file(&self.ssh_key)?;
        if self.ssh {
            keys = Some(keys.unwrap_or_default() + &super::ssh::own_public_key(cache)?);
        }
        Ok(System {
            updates: !self.no_updates,
            recommends: self.recommends,
            access: Access {
                hostname: self.hostname.clone(),
                ssh_keys: keys,
                root_password: password,
                autologin: self.autologin,
                user_data: file(&self.user_data)?,
                meta_data: file(&self.meta_data)?,
            },
        })
    }
}

/// A small file that a user names.
fn read_text(path: &Path) -> Result<String> {
    /// More is no key and no configuration.
    const BYTES_MAX: u64 = 1 << 20;
    let read = || -> std::io::Result<String> {
        let mut text = String::new();
        let file = std::fs::File::open(path)?;
        std::io::Read::read_to_string(&mut std::io::Read::take(file, BYTES_MAX + 1), &mut text)?;
        Ok(text)
    };
    let text = read().with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(text.len() as u64 <= BYTES_MAX, "{} has more than {BYTES_MAX} bytes", path.display());
    Ok(text)
}

pub fn run(args: ImageArgs) -> Result<u8> {
    end_on_signals()?;
    match args.action {
        Action::Build(args) => build(*args),
        Action::Import(args) => super::image_import::import(args),
        Action::Resize(args) => super::image_import::resize(&args),
        Action::List(args) => super::image_cache::list(args),
        Action::Prune(args) => super::image_cache::prune(args),
    }
}

/// A signal ends the machine and the programs of a build and removes what is half made; the next one ends this process.
fn end_on_signals() -> Result<()> {
    let mut signals = crate::signals::endings()?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for _ in signals.forever() {
            if pollux_image::is_interrupted() {
                std::process::exit(i32::from(crate::exit::FAILED));
            }
            pollux_image::interrupt();
        }
    })?;
    Ok(())
}

fn build(args: BuildArgs) -> Result<u8> {
    let init = match args.init {
        InitKind::Systemd => Init::Systemd(Box::new(args.system.read(args.cache.as_deref())?)),
        InitKind::Minimal => {
            ensure!(!args.system.is_used(), "--init minimal has none of the options of guests with systemd");
            Init::Minimal
        }
    };
    let default_size = if args.init == InitKind::Minimal { "1G" } else { "2G" };
    let options = BuildOptions {
        packages: args.packages.into_iter().filter(|name| !name.is_empty()).collect(),
        size_bytes: parse_size(args.size.as_deref().unwrap_or(default_size))?,
        cache_dir: args.cache,
        overlay: args.overlay,
        mirror: args.mirror,
        keyring: args.keyring,
        init,
    };
    let mut image: Image = pollux_image::build_with(&options, &mut OwnBinary, &mut Bar::default())?;
    if let Init::Systemd(system) = &options.init
        && system.access == Access::default()
    {
        eprintln!(
            "nobody can log in to this guest; see --ssh, --ssh-key, --root-password, --user-data, --autologin"
        );
    }
    if let Some(copy) = args.copy {
        pollux_image::fresh_disk_copy(&image.disk, &copy)
            .with_context(|| format!("cannot copy the disk to {}", copy.display()))?;
        // What was there before belonged to a VM, perhaps; this does not.
        pollux_host::mark::remove(&copy)?;
        image.disk = copy.canonicalize().unwrap_or(copy);
    } else if !args.json {
        println!("# the disk below is the cached one: copy it (--copy FILE) before a VM writes to it");
    }
    print(&image, args.json)?;
    Ok(0)
}

/// Says what an image is made of: a VM file, or JSON.
pub fn print(image: &Image, json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string(image)?);
        return Ok(());
    }
    // A JSON string is a TOML string: paths and command lines may hold quotes.
    let text = |path: &Path| serde_json::to_string(&path.to_string_lossy());
    println!("kernel = {}", text(&image.kernel)?);
    println!("initrd = {}", text(&image.initrd)?);
    println!("append = {}", serde_json::to_string(&image.command_line)?);
    println!("[[disk]]\npath = {}", text(&image.disk)?);
    Ok(())
}
