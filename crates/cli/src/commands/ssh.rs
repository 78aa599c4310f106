//! `pollux ssh` and `pollux cp`: the host's own ssh, at a guest behind a switch's forward of its port 22.
//!
//! The switch gives every guest the same outside address, so a guest is known by its VM's name: its host key is kept
//! under that, in a file of ours. The key to log in with is one per user, beside the images (`image build --ssh`).

use anyhow::{Context, Result, ensure};
use clap::Args;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How a guest is reached.
#[derive(Args, Debug)]
pub struct Way {
    /// The host where the switch runs
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// The switch's port that leads to the guest's port 22 (`switch --forward tcp:127.0.0.1:2222-:22`)
    #[arg(long, default_value_t = 2222)]
    port: u16,
    /// A private key [default: the one of `image build --ssh`]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Who to log in as
    #[arg(long, default_value = "root")]
    user: String,
    /// Where images are kept [default: the user's cache folder]
    #[arg(long, value_name = "FOLDER")]
    cache: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct SshArgs {
    #[command(flatten)]
    way: Way,
    /// The VM
    name: String,
    /// What to run there [default: a shell]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

#[derive(Args, Debug)]
pub struct CpArgs {
    #[command(flatten)]
    way: Way,
    /// Copy folders, too
    #[arg(short)]
    recursive: bool,
    /// From where to where; the guest's side is NAME:PATH
    #[arg(num_args = 2.., required = true)]
    paths: Vec<String>,
}

/// The folder with our key.
fn folder(cache: Option<&Path>) -> PathBuf {
    cache.map_or_else(pollux_image::default_cache, Path::to_owned).join("ssh")
}

/// The public key of `image build --ssh`; made when it is first asked for.
pub fn own_public_key(cache: Option<&Path>) -> Result<String> {
    let folder = folder(cache);
    let key = folder.join("id_ed25519");
    let public = folder.join("id_ed25519.pub");
    if !key.exists() || !public.exists() {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.with_context(|| format!("cannot make {}", folder.display()))?;
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-t", "ed25519", "-N", "", "-C", "pollux", "-f"]).arg(&key);
        let status = command.status().context("ssh-keygen is not on this host (package openssh-client)")?;
        ensure!(status.success(), "ssh-keygen ended with {status}");
    }
    fs::read_to_string(&public).with_context(|| format!("cannot read {}", public.display()))
}

/// What ssh and scp share. `port`: the flag that each has for it.
fn command(program: &str, port: &str, way: &Way, name: &str) -> Result<Command> {
    ensure!(
        !name.is_empty() && !name.starts_with('-') && !name.contains(char::is_whitespace),
        "{name:?} is no VM's name"
    );
    let folder = folder(way.cache.as_deref());
    let own = folder.join("id_ed25519");
    let key = way.key.clone().or_else(|| own.exists().then_some(own));
    let mut command = Command::new(program);
    command.args([port, &way.port.to_string()]);
    command.arg("-o").arg(format!("HostKeyAlias={name}"));
    // A VM's first key is believed, another one later is not.
    command.args(["-o", "StrictHostKeyChecking=accept-new", "-o", "CheckHostIP=no"]);
    if fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).is_ok() {
        let known = folder.join("known_hosts");
        command.arg("-o").arg(format!("UserKnownHostsFile=\"{}\"", known.display()));
    }
    if let Some(key) = key {
        command.arg("-i").arg(key);
    }
    Ok(command)
}

fn run(mut command: Command, program: &str) -> Result<u8> {
    let status = command
        .status()
        .with_context(|| format!("{program} is not on this host (package openssh-client)"))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(crate::exit::FAILED))
}

pub fn ssh(args: SshArgs) -> Result<u8> {
    let mut command = command("ssh", "-p", &args.way, &args.name)?;
    command.arg(format!("{}@{}", args.way.user, args.way.host)).args(args.command);
    run(command, "ssh")
}

pub fn cp(args: CpArgs) -> Result<u8> {
    let (name, paths) = remote(&args.paths, &args.way)?;
    let mut command = command("scp", "-P", &args.way, &name)?;
    if args.recursive {
        command.arg("-r");
    }
    command.arg("--").args(paths);
    run(command, "scp")
}

/// The one guest that `paths` name, and the paths as scp has them.
fn remote(paths: &[String], way: &Way) -> Result<(String, Vec<String>)> {
    let mut name = None;
    let mut words = Vec::new();
    for path in paths {
        // With a slash before it, a colon is part of a file's name.
        match path.split_once(':').filter(|(host, _)| !host.is_empty() && !host.contains('/')) {
            Some((host, inside)) => {
                ensure!(name.as_deref().is_none_or(|n| n == host), "only one guest at a time");
                name = Some(host.to_owned());
                words.push(format!("{}@{}:{inside}", way.user, way.host));
            }
            None if path.contains(':') || path.starts_with('-') => words.push(format!("./{path}")),
            None => words.push(path.clone()),
        }
    }
    Ok((name.context("none of the paths is in a guest; that is NAME:PATH")?, words))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(cache: &Path) -> Way {
        Way { host: "h".into(), port: 2222, key: None, user: "root".into(), cache: Some(cache.into()) }
    }

    #[test]
    fn a_guest_is_known_by_its_vms_name_and_its_key_is_kept_apart() {
        let folder = tempfile::tempdir().expect("a folder");
        let command = command("ssh", "-p", &way(folder.path()), "db").expect("a command");
        let words: Vec<_> = command.get_args().map(|w| w.to_string_lossy().into_owned()).collect();
        assert!(words.contains(&"HostKeyAlias=db".into()) && words.contains(&"2222".into()), "{words:?}");
        assert!(words.iter().any(|w| w.contains("known_hosts")), "{words:?}");
        for bad in ["", "-oProxyCommand=x", "a b"] {
            assert!(super::command("ssh", "-p", &way(folder.path()), bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_copy_has_one_guest_on_either_side_and_no_path_becomes_an_option() {
        let way = way(Path::new("/nowhere"));
        let of = |paths: &[&str]| remote(&paths.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>(), &way);
        let (name, words) = of(&["db:/etc/hosts", "here"]).expect("a guest");
        assert_eq!((name.as_str(), words), ("db", vec!["root@h:/etc/hosts".to_owned(), "here".into()]));
        assert_eq!(of(&["-x", "db:"]).expect("a guest").1, ["./-x", "root@h:"]);
        assert_eq!(
            of(&["./a:b", "db:c"]).expect("a guest").1,
            ["./a:b".replace("./", "././"), "root@h:c".into()]
        );
        assert!(of(&["a", "b"]).is_err() && of(&["a:x", "b:y"]).is_err());
    }
}
