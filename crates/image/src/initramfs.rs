//! The initial RAM disk: busybox, the modules that lead to the root disk, and a script.
//!
//! Not compressed: unpacking costs guest instructions, and a boot is counted in those. So do labels in modules (`module`).

use crate::{ImageError, io_error, module};
use cpio::newc::Builder;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

/// What must be loaded before the root disk can be mounted, the network used and the power button heard; dependencies are
/// added.
const MODULES: [&str; 7] =
    ["virtio_mmio", "virtio_blk", "ext4", "virtio_net", "virtio-rng", "virtio_input", "evdev"];
/// What the fast boot's initial RAM disk runs.
pub(crate) const INIT: &str = include_str!("guest/init");
const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;

/// Writes the initial RAM disk for the kernel unpacked in `kernel`, with the busybox in `root` and `init` to run.
pub(crate) fn write(to: &Path, root: &Path, kernel: &Path, init: &str) -> Result<(), ImageError> {
    let release_folder = kernel.join("usr/lib/modules");
    let release_folder = if release_folder.is_dir() { release_folder } else { kernel.join("lib/modules") };
    let entries = fs::read_dir(&release_folder).map_err(io_error("cannot read", &release_folder))?;
    let modules = entries.flatten().next().ok_or(ImageError::Missing("kernel modules"))?.path();
    let order = load_order(&modules)?;
    let busybox_path = busybox(root)?;
    let busybox = fs::read(&busybox_path).map_err(io_error("cannot read", &busybox_path))?;
    let mut out = BufWriter::new(File::create(to).map_err(io_error("cannot create", to))?);
    let mut add = |name: &str, mode: u32, content: &[u8]| -> std::io::Result<()> {
        let mut entry = Builder::new(name).mode(mode).nlink(1).mtime(0).write(&mut out, content.len() as u32);
        entry.write_all(content)?;
        entry.finish()?;
        Ok(())
    };
    let fault = || io_error("cannot write", to);
    for folder in ["bin", "dev", "proc", "sys", "root", "modules"] {
        add(folder, FOLDER, b"").map_err(fault())?;
    }
    add("bin/busybox", PROGRAM, &busybox).map_err(fault())?;
    let mut list = String::new();
    for path in &order {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("module").trim_end_matches(".xz");
        add(&format!("modules/{name}"), FILE, &module::without_labels(unpack(path)?)).map_err(fault())?;
        list.push_str(&format!("{name}\n"));
    }
    add("modules/order", FILE, list.as_bytes()).map_err(fault())?;
    add("init", PROGRAM, init.as_bytes()).map_err(fault())?;
    cpio::newc::trailer(&mut out).and_then(|out| out.flush()).map_err(fault())
}

/// The static busybox among the files of its package, unpacked in `root`.
pub(crate) fn busybox(root: &Path) -> Result<PathBuf, ImageError> {
    let paths = ["usr/bin/busybox", "bin/busybox"].map(|p| root.join(p));
    paths.into_iter().find(|p| p.is_file()).ok_or(ImageError::Missing("busybox"))
}

/// Writes an initial RAM disk with a program as its init, and a folder to mount `proc` on.
pub(crate) fn write_program(to: &Path, program: &[u8]) -> std::io::Result<()> {
    let mut out = BufWriter::new(File::create(to)?);
    for (name, mode, content) in [("proc", FOLDER, &b""[..]), ("init", PROGRAM, program)] {
        let mut entry = Builder::new(name).mode(mode).nlink(1).mtime(0).write(&mut out, content.len() as u32);
        entry.write_all(content)?;
        entry.finish()?;
    }
    cpio::newc::trailer(&mut out)?.flush()
}

/// A module's content, decompressed.
fn unpack(path: &Path) -> Result<Vec<u8>, ImageError> {
    let file = File::open(path).map_err(io_error("cannot open", path))?;
    let mut content = Vec::new();
    if path.extension().is_some_and(|e| e == "xz") {
        let unpacked = lzma_rs::xz_decompress(&mut BufReader::new(file), &mut content);
        unpacked.map_err(|e| io_error("cannot unpack", path)(std::io::Error::other(format!("{e:?}"))))?;
    } else {
        std::io::Read::read_to_end(&mut BufReader::new(file), &mut content)
            .map_err(io_error("cannot read", path))?;
    }
    Ok(content)
}

/// The files of [`MODULES`] and what they depend on, each behind its dependencies.
///
/// A kernel's package has no `modules.dep` (its installation makes it), so dependencies are read out of the modules.
fn load_order(modules: &Path) -> Result<Vec<PathBuf>, ImageError> {
    let mut all = Vec::new();
    list(&modules.join("kernel"), &mut all);
    let find = |name: &str| {
        let plain = |n: &str| n.replace('-', "_");
        let matches = |p: &&PathBuf| {
            let file = p.file_name().and_then(|f| f.to_str()).unwrap_or_default();
            file.split(".ko").next().is_some_and(|stem| plain(stem) == plain(name))
        };
        all.iter().find(matches).cloned()
    };
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    // What is not there as a module is built into the kernel.
    for path in MODULES.iter().chain(&["crc32c_generic"]).filter_map(|name| find(name)) {
        visit(path, &find, &mut seen, &mut order)?;
    }
    // ext4 asks for "crc32c" by name when it is first used: that must be there before.
    order.sort_by_key(|path: &PathBuf| !path.to_string_lossy().contains("crc32c_generic"));
    if order.is_empty() { Err(ImageError::Missing("kernel modules")) } else { Ok(order) }
}

fn visit(
    path: PathBuf,
    find: &dyn Fn(&str) -> Option<PathBuf>,
    seen: &mut BTreeSet<PathBuf>,
    order: &mut Vec<PathBuf>,
) -> Result<(), ImageError> {
    if !seen.insert(path.clone()) {
        return Ok(());
    }
    let content = unpack(&path)?;
    for name in depends(&content) {
        if let Some(dependency) = find(&name) {
            visit(dependency, find, seen, order)?;
        }
    }
    order.push(path);
    Ok(())
}

/// The `depends=` of a module's `.modinfo`.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let rest = &module[at + KEY.len()..];
    let value = &rest[..rest.iter().position(|b| *b == 0).unwrap_or(0)];
    String::from_utf8_lossy(value).split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            list(&path, files);
        } else if path.to_string_lossy().contains(".ko") {
            files.push(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_modules_dependencies_are_read_out_of_it() {
        let module = b"junk\0license=GPL\0depends=mbcache,jbd2,crc16\0name=ext4\0";
        assert_eq!(depends(module), ["mbcache", "jbd2", "crc16"]);
        assert!(depends(b"junk\0depends=\0x").is_empty());
        assert!(depends(b"junk").is_empty());
    }
}
