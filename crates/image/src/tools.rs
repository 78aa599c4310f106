//! The host's programs that a build needs, and running them.

use crate::ImageError;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Lines of a failed program's output that are shown.
const SHOWN_LINES: usize = 12;

/// How often a running program is looked at, at most.
const POLL: Duration = Duration::from_millis(20);

/// Whether this process has been told to end.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Ends what this process builds or copies: programs and the machine are killed, what was half made is removed, and
/// the caller gets [`ImageError::Interrupted`]. For signals: there is no way back.
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Whether [`interrupt`] was called.
pub fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Every program, and Debian's package that has it.
const TOOLS: [(&str, &str); 4] =
    [("apt-get", "apt"), ("apt-cache", "apt"), ("dpkg-deb", "dpkg"), ("mke2fs", "e2fsprogs")];

/// Fails with the name of the first program that is missing.
pub(crate) fn check() -> Result<(), ImageError> {
    check_in(&folders())
}

fn check_in(folders: &[PathBuf]) -> Result<(), ImageError> {
    match TOOLS.iter().find(|(tool, _)| find_in(tool, folders).is_none()) {
        Some((tool, package)) => Err(ImageError::Tool { tool, package }),
        None => Ok(()),
    }
}

/// A program on PATH, or where administrators' programs are.
pub(crate) fn find(tool: &str) -> Option<PathBuf> {
    find_in(tool, &folders())
}

/// Where programs are: an ordinary user's PATH on Debian lacks the folders that mke2fs is in.
fn folders() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from)).collect()
}

fn find_in(tool: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    folders
        .iter()
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(tool))
        .find(|file| is_program(file))
}

fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// A command for a program that [`check`] has found.
pub(crate) fn command(tool: &'static str) -> Command {
    let mut command = Command::new(find(tool).unwrap_or_else(|| tool.into()));
    command.env("LC_ALL", "C").stdin(std::process::Stdio::null());
    command
}

/// Runs a command; its output if it went well, what it said if not.
pub(crate) fn run(what: &str, command: &mut Command) -> Result<Output, ImageError> {
    let output = output(what, command, &mut || ())?;
    if output.status.success() { Ok(output) } else { Err(explain(what, said(&output))) }
}

/// Runs a command to its end, or kills it when this process is told to end; `meanwhile` is called now and then.
pub(crate) fn output(
    what: &str,
    command: &mut Command,
    meanwhile: &mut dyn FnMut(),
) -> Result<Output, ImageError> {
    let failed = |error: io::Error| explain(what, error.to_string());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(failed)?;
    let (stdout, stderr) = (child.stdout.take().map(collect), child.stderr.take().map(collect));
    let mut pause = Duration::from_millis(1);
    let status = loop {
        if is_interrupted() {
            let _ = child.kill();
            let _ = child.wait();
            return Err(ImageError::Interrupted);
        }
        if let Some(status) = child.try_wait().map_err(failed)? {
            break status;
        }
        meanwhile();
        std::thread::sleep(pause);
        pause = (pause * 2).min(POLL);
    };
    let end = |reader: Option<JoinHandle<Vec<u8>>>| reader.and_then(|r| r.join().ok()).unwrap_or_default();
    Ok(Output { status, stdout: end(stdout), stderr: end(stderr) })
}

fn collect(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        bytes
    })
}

/// Whether apt complains about a signature.
pub(crate) fn is_about_signatures(text: &str) -> bool {
    const SIGNS: [&str; 7] = [
        "NO_PUBKEY",
        "EXPKEYSIG",
        "REVKEYSIG",
        "BADSIG",
        "is not signed",
        "could not be verified",
        "couldn't be verified",
    ];
    SIGNS.iter().any(|sign| text.contains(sign))
}

/// The error that a program's words amount to.
pub(crate) fn explain(what: &str, output: String) -> ImageError {
    let (what, text) = (what.to_owned(), &output);
    let package = text.lines().find_map(|line| {
        let unknown = line.strip_prefix("E: Unable to locate package ");
        let virtual_only = || line.strip_prefix("E: Package ")?.split_once(" has no installation candidate");
        unknown.or_else(|| virtual_only().map(|(name, _)| name))
    });
    if let Some(name) = package {
        return ImageError::NoPackage { name: name.trim_matches('\'').to_owned() };
    }
    if is_about_signatures(text) {
        return ImageError::Signature { output };
    }
    // What mke2fs says when the image, and not the host's disk, is too small.
    if text.contains("Could not allocate block") || text.contains("Could not allocate inode") {
        return ImageError::TooSmall;
    }
    if text.contains("No space left on device") || text.contains("enough free space") {
        return ImageError::HostFull { what };
    }
    ImageError::Failed { what, output }
}

/// The last lines of what a program said.
pub(crate) fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn each_missing_program_is_named_with_its_package_and_the_way_out() {
        for (missing, package) in TOOLS {
            let folder = tempfile::tempdir().expect("a folder");
            for (tool, _) in TOOLS.iter().filter(|(tool, _)| *tool != missing) {
                let file = folder.path().join(tool);
                fs::write(&file, "").expect("room");
                fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("ours");
            }
            let error = check_in(&[folder.path().into()]).expect_err("one is missing").to_string();
            assert!(error.contains(missing) && error.contains(package), "{error}");
            assert!(error.contains("--kernel") && error.contains("--disk"), "{error}");
            fs::write(folder.path().join(missing), "").expect("room");
            assert!(check_in(&[folder.path().into()]).is_err(), "a file that is no program is not enough");
        }
    }

    #[test]
    fn a_relative_folder_on_the_path_is_not_searched() {
        assert_eq!(find_in("sh", &["bin".into(), "".into()]), None);
    }

    #[test]
    fn what_programs_say_becomes_an_error_that_says_what_to_do() {
        let of = |text: &str| explain("x", text.into());
        let unknown = of("Reading lists\nE: Unable to locate package nosuch");
        assert!(matches!(unknown, ImageError::NoPackage { name } if name == "nosuch"));
        let empty = of("E: Package 'awk' has no installation candidate");
        assert!(matches!(empty, ImageError::NoPackage { name } if name == "awk"));
        assert!(matches!(of("W: GPG error: x: NO_PUBKEY 6ED0E7B82643E131"), ImageError::Signature { .. }));
        assert!(matches!(of("mke2fs: Could not allocate block in ext2 filesystem"), ImageError::TooSmall));
        assert!(matches!(
            of("E: Write error - write (28: No space left on device)"),
            ImageError::HostFull { .. }
        ));
        assert!(matches!(of("Segmentation fault"), ImageError::Failed { .. }));
    }
}
