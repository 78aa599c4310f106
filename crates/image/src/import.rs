//! Takes in a disk image that boots by itself elsewhere: finds kernel, initial RAM disk and command line in it.
//!
//! ```text
//!   qcow2 ─► qemu-img ─┐
//!   raw ───────────────┴─► partition table (GPT, MBR, none) ─► each ext4 ─► /boot/extlinux, /boot/grub, /boot/vmlinu*
//! ```
//!
//! The image is somebody else's: every size in it is bounded before it is believed, no path leads out of its file
//! systems, and a qcow2 file that refers to other files of the host is refused.

use crate::assemble::store;
use crate::bootconfig::{self, Entry};
use crate::tools::{find, run};
use crate::{Image, ImageError, Progress, fresh_disk_copy, io_error};
use ext4_view::{Ext4, Ext4Read};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Largest kernel that is taken out of an image, in bytes.
const KERNEL_BYTES_MAX: u64 = 256 << 20;
/// Largest initial RAM disk, in bytes.
const INITRD_BYTES_MAX: u64 = 512 << 20;
/// Largest configuration of a boot loader, in bytes.
const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// Partitions that are looked at.
const PARTITIONS_MAX: usize = 128;
const SECTOR_BYTES: u64 = 512;

/// A part of a disk, as a file system's device.
struct Window {
    disk: File,
    start: u64,
    bytes: u64,
}

impl Ext4Read for Window {
    fn read(&mut self, at: u64, into: &mut [u8]) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let end = at.checked_add(into.len() as u64);
        if end.is_none_or(|end| end > self.bytes) {
            return Err("beyond the partition's end".into());
        }
        Ok(self.disk.read_exact_at(into, self.start + at)?)
    }
}

/// A partition: its number (0: the whole disk), and where it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Partition {
    number: u32,
    start: u64,
    bytes: u64,
}

/// What boots in an image.
struct Found {
    kernel: Vec<u8>,
    initrd: Vec<u8>,
    command_line: String,
}

/// Makes `folder` an image of the disk in `file`, which is not changed.
pub fn import(file: &Path, folder: &Path, progress: &mut dyn Progress) -> Result<Image, ImageError> {
    const STEPS: usize = 3;
    if folder.exists() {
        return Err(ImageError::Unusable(format!("{} is there already", folder.display())));
    }
    let mut name = folder.as_os_str().to_owned();
    name.push(".new");
    let staging = PathBuf::from(name);
    if staging.exists() {
        fs::remove_dir_all(&staging).map_err(io_error("cannot clear", &staging))?;
    }
    fs::create_dir_all(&staging).map_err(io_error("cannot make", &staging))?;
    let result = import_into(file, folder, &staging, progress, STEPS);
    if result.is_err() {
        // A half-made copy of a disk is of no use to anybody.
        let _ = fs::remove_dir_all(&staging);
    }
    progress.finish();
    result
}

fn import_into(
    file: &Path,
    folder: &Path,
    staging: &Path,
    progress: &mut dyn Progress,
    steps: usize,
) -> Result<Image, ImageError> {
    let disk = staging.join("disk.img");
    progress.step("copying the disk", 1, steps);
    copy_raw(file, &disk)?;
    progress.step("looking for a kernel", 2, steps);
    let found = look_into(&disk, file)?;
    progress.step("storing the image", 3, steps);
    for (name, bytes) in [("kernel", &found.kernel), ("initrd", &found.initrd)] {
        let path = staging.join(name);
        fs::write(&path, bytes).map_err(io_error("cannot write", &path))?;
    }
    let image = Image {
        kernel: folder.join("kernel"),
        initrd: folder.join("initrd"),
        disk: folder.join("disk.img"),
        command_line: found.command_line,
        packages: Vec::new(),
    };
    store(&image, staging, folder)?;
    Ok(image)
}

/// A raw copy of a raw or qcow2 image.
fn copy_raw(from: &Path, to: &Path) -> Result<(), ImageError> {
    let mut head = Vec::new();
    let open = File::open(from).map_err(io_error("cannot open", from))?;
    if !open.metadata().map_err(io_error("cannot read", from))?.is_file() {
        return Err(ImageError::Unusable(format!("{} is no file", from.display())));
    }
    open.take(104).read_to_end(&mut head).map_err(io_error("cannot read", from))?;
    if !head.starts_with(b"QFI\xfb") {
        return fresh_disk_copy(from, to).map_err(io_error("cannot copy", from));
    }
    refuse_foreign_files(&head, from)?;
    let program = find("qemu-img").ok_or_else(|| {
        ImageError::Unusable(format!(
            "{} is a qcow2 image; reading it takes qemu-img, which is not on this host (Debian's package qemu-utils has it)",
            from.display()
        ))
    })?;
    let absolute = std::path::absolute(from).map_err(io_error("cannot find", from))?;
    let mut convert = Command::new(program);
    convert.args(["convert", "-f", "qcow2", "-O", "raw"]).arg(absolute).arg(to);
    run("qemu-img convert", &mut convert).map(drop)
}

/// A qcow2 image may say that part of it is another file: of the host, whoever made the image.
fn refuse_foreign_files(head: &[u8], from: &Path) -> Result<(), ImageError> {
    let number = |at: usize, bytes: usize| {
        head.get(at..at + bytes).map(|b| b.iter().fold(0u64, |n, b| n << 8 | u64::from(*b)))
    };
    let backing = number(8, 8) != Some(0);
    // From version 3 on; bit 2: the data is in another file.
    let external = number(4, 4) != Some(2) && number(72, 8).is_none_or(|features| features & 4 != 0);
    if backing || external {
        return Err(ImageError::Unusable(format!(
            "{} is a qcow2 image that needs another file; make it whole first: qemu-img convert -O raw",
            from.display()
        )));
    }
    Ok(())
}

fn look_into(disk: &Path, named: &Path) -> Result<Found, ImageError> {
    let mut systems = Vec::new();
    for partition in partitions(disk)? {
        let window = Window {
            disk: File::open(disk).map_err(io_error("cannot open", disk))?,
            start: partition.start,
            bytes: partition.bytes,
        };
        if let Ok(system) = Ext4::load(Box::new(window)) {
            systems.push((partition, system));
        }
    }
    if systems.is_empty() {
        return Err(ImageError::Unusable(format!(
            "{} has no ext4 file system, neither in a partition (GPT, MBR) nor without",
            named.display()
        )));
    }
    let root = systems.iter().find(|(_, system)| system.exists("/etc").unwrap_or(false));
    let root = root.map(|(partition, _)| *partition);
    for (_, system) in &systems {
        // /boot, or a partition that becomes it.
        for prefix in ["/boot", ""] {
            if let Some(found) = boots(system, prefix, root)? {
                return Ok(found);
            }
        }
    }
    Err(ImageError::Unusable(format!(
        "{} has neither a boot loader's configuration (/boot/extlinux/extlinux.conf, /boot/grub/grub.cfg) nor a /boot/vmlinuz-*; take kernel and initial RAM disk out of it by hand: pollux run --kernel FILE --initrd FILE --disk FILE",
        named.display()
    )))
}

/// The partitions of a disk, or the whole of it.
fn partitions(disk: &Path) -> Result<Vec<Partition>, ImageError> {
    let file = File::open(disk).map_err(io_error("cannot open", disk))?;
    let total = file.metadata().map_err(io_error("cannot read", disk))?.len();
    let whole = Partition { number: 0, start: 0, bytes: total };
    let inside = |p: &Partition| p.bytes > 0 && p.start.checked_add(p.bytes).is_some_and(|end| end <= total);
    let gpt = gpt::GptConfig::new().writable(false).only_valid_headers(true).open(disk);
    let mut found: Vec<Partition> = match gpt {
        Ok(table) => {
            let of = |(number, p): (&u32, &gpt::partition::Partition)| {
                let sectors = p.last_lba.checked_sub(p.first_lba)?.checked_add(1)?;
                let start = p.first_lba.checked_mul(SECTOR_BYTES)?;
                Some(Partition { number: *number, start, bytes: sectors.checked_mul(SECTOR_BYTES)? })
            };
            table
                .partitions()
                .iter()
                .filter(|(_, p)| p.is_used())
                .take(PARTITIONS_MAX)
                .filter_map(of)
                .collect()
        }
        Err(_) => {
            let mut sector = [0; SECTOR_BYTES as usize];
            match file.read_exact_at(&mut sector, 0) {
                Ok(()) => mbr(&sector),
                Err(_) => Vec::new(),
            }
        }
    };
    found.retain(inside);
    if found.is_empty() { Ok(vec![whole]) } else { Ok(found) }
}

/// The four primary partitions of an MBR.
fn mbr(sector: &[u8; SECTOR_BYTES as usize]) -> Vec<Partition> {
    if sector[510..] != [0x55, 0xaa] {
        return Vec::new();
    }
    let word = |at: usize| {
        u64::from(u32::from_le_bytes([sector[at], sector[at + 1], sector[at + 2], sector[at + 3]]))
    };
    (0..4u32)
        .map(|index| {
            let at = 446 + 16 * index as usize;
            let (start, bytes) = (word(at + 8) * SECTOR_BYTES, word(at + 12) * SECTOR_BYTES);
            Partition { number: index + 1, start, bytes }
        })
        .collect()
}

/// What boots in a file system whose `/boot` is at `prefix`.
fn boots(system: &Ext4, prefix: &str, root: Option<Partition>) -> Result<Option<Found>, ImageError> {
    let config = |name: &str| {
        let text = content(system, &format!("{prefix}/{name}"), CONFIG_BYTES_MAX).ok()?;
        Some(String::from_utf8_lossy(&text).into_owned())
    };
    let entry = config("extlinux/extlinux.conf").and_then(|text| bootconfig::extlinux(&text));
    let entry = entry.or_else(|| config("grub/grub.cfg").and_then(|text| bootconfig::grub(&text)));
    let Some(entry) = entry.or_else(|| newest(system, prefix)) else { return Ok(None) };
    // A path is seen from the root file system, or from the partition that becomes /boot.
    let read = |path: &str, limit: u64| {
        let path = format!("/{}", path.trim_start_matches('/'));
        let other = path.strip_prefix("/boot").filter(|_| prefix.is_empty()).map(str::to_owned);
        let candidates = [Some(path.clone()), other, Some(format!("{prefix}{path}"))];
        let found = candidates.into_iter().flatten().find(|p| system.exists(p.as_str()).unwrap_or(false));
        let found = found.ok_or_else(|| {
            ImageError::Unusable(format!("the boot loader's configuration names {path}, which is not there"))
        })?;
        content(system, &found, limit)
    };
    let kernel = read(&entry.kernel, KERNEL_BYTES_MAX)?;
    if kernel.get(56..60) != Some(b"RSC\x05") {
        return Err(ImageError::Unusable(format!(
            "{} in the image is no uncompressed RISC-V kernel (a Linux `Image`); unpack it and give it with --kernel",
            entry.kernel
        )));
    }
    let initrd = match &entry.initrd {
        Some(path) => read(path, INITRD_BYTES_MAX)?,
        None => Vec::new(),
    };
    Ok(Some(Found { kernel, initrd, command_line: command_line(&entry.command_line, root) }))
}

/// The newest kernel in a folder without a boot loader's configuration.
fn newest(system: &Ext4, prefix: &str) -> Option<Entry> {
    let folder = if prefix.is_empty() { "/" } else { prefix };
    let names = system.read_dir(folder).ok()?.filter_map(Result::ok);
    let names: Vec<_> = names.filter_map(|entry| Some(entry.file_name().as_str().ok()?.to_owned())).collect();
    bootconfig::newest(&names, prefix)
}

/// A file's content, if it is not larger than `limit`.
fn content(system: &Ext4, path: &str, limit: u64) -> Result<Vec<u8>, ImageError> {
    let broken = |error: ext4_view::Ext4Error| {
        ImageError::Unusable(format!("cannot read {path} in the image: {error}"))
    };
    let bytes = system.metadata(path).map_err(broken)?.len();
    if bytes > limit {
        return Err(ImageError::Unusable(format!(
            "{path} in the image has {bytes} bytes; {limit} are the limit"
        )));
    }
    system.read(path).map_err(broken)
}

/// The kernel's command line on this machine: a serial console, and a root disk, if nothing is said about them.
fn command_line(given: &str, root: Option<Partition>) -> String {
    let mut words: Vec<String> = given.split_whitespace().map(str::to_owned).collect();
    if !words.iter().any(|word| word.starts_with("root=")) {
        let number = root.map_or(0, |p| p.number);
        words.insert(0, if number == 0 { "root=/dev/vda".into() } else { format!("root=/dev/vda{number}") });
    }
    if !words.iter().any(|word| word.starts_with("console=ttyS0")) {
        words.push("console=ttyS0".into());
    }
    words.join(" ")
}

/// Enlarges a raw disk, and the file system on it if that fills the whole disk. Says whether it did the latter.
pub fn resize(disk: &Path, bytes: u64) -> Result<bool, ImageError> {
    let file = File::options().read(true).write(true).open(disk).map_err(io_error("cannot open", disk))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| ImageError::Unusable(format!("{} is in use; end its VM first", disk.display())))?;
    let now = file.metadata().map_err(io_error("cannot read", disk))?.len();
    if bytes < now {
        return Err(ImageError::Unusable(format!(
            "{} has {now} bytes; a disk cannot become smaller without losing what is at its end",
            disk.display()
        )));
    }
    let mut head = [0; 4];
    if file.read_exact_at(&mut head, 0).is_ok() && head == *b"QFI\xfb" {
        return Err(ImageError::Unusable(format!("{} is a qcow2 image; import it first", disk.display())));
    }
    let mut magic = [0; 2];
    let bare = matches!(file.read_exact_at(&mut magic, 1024 + 0x38), Ok(())) && magic == [0x53, 0xef];
    if bare && (find("e2fsck").is_none() || find("resize2fs").is_none()) {
        return Err(ImageError::Tool { tool: "resize2fs", package: "e2fsprogs" });
    }
    file.set_len(bytes).map_err(io_error("cannot enlarge", disk))?;
    if !bare {
        return Ok(false);
    }
    let program = |name: &'static str| Command::new(find(name).unwrap_or_else(|| name.into()));
    // Status 1: it has mended something.
    let output = program("e2fsck").args(["-f", "-p"]).arg(disk).output();
    let output = output.map_err(|e: io::Error| io_error("cannot check", disk)(e))?;
    if !matches!(output.status.code(), Some(0 | 1)) {
        return Err(ImageError::Failed { what: "e2fsck".into(), output: crate::tools::said(&output) });
    }
    run("resize2fs", program("resize2fs").arg(disk)).map(|_| true)
}

#[cfg(test)]
#[path = "import_tests.rs"]
mod tests;
