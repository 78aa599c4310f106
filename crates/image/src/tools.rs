//! The host's programs that a build needs, and running them.

use crate::ImageError;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Lines of a failed program's output that are shown.
const SHOWN_LINES: usize = 12;

/// Every program, and Debian's package that has it.
const TOOLS: [(&str, &str); 4] =
    [("apt-get", "apt"), ("apt-cache", "apt"), ("dpkg-deb", "dpkg"), ("mke2fs", "e2fsprogs")];

/// Fails with the name of the first program that is missing.
pub(crate) fn check() -> Result<(), ImageError> {
    match TOOLS.iter().find(|(tool, _)| find(tool).is_none()) {
        Some((tool, package)) => Err(ImageError::Tool { tool, package }),
        None => Ok(()),
    }
}

/// A program on PATH, or where administrators' programs are.
pub(crate) fn find(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    // Only real folders of administrators' programs are added: a PATH that is emptied on purpose stays so.
    folders
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
    let failed = |output: String| ImageError::Failed { what: what.into(), output };
    let output = command.output().map_err(|error| failed(error.to_string()))?;
    if output.status.success() { Ok(output) } else { Err(failed(said(&output))) }
}

/// The last lines of what a program said.
pub(crate) fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}
