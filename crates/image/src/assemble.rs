//! From packages to a bootable guest: unpack, add what ties them together, make kernel, initial RAM disk and disk.

use crate::apt::Debs;
use crate::tools::{command, find, run};
use crate::{BuildOptions, Image, ImageError, Progress, initramfs, io_error};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

pub(crate) const COMMAND_LINE: &str = "console=ttyS0 root=/dev/vda rw quiet";
const RC: &str = include_str!("guest/rc");
const SHELL: &str = include_str!("guest/shell");
const INITTAB: &str = include_str!("guest/inittab");
const POWER_BUTTON: &str = include_str!("guest/power-button");
const REDIS: &str = include_str!("guest/redis");

/// Everything of ours that goes into an image, for the cache's key.
pub(crate) fn recipe() -> String {
    [RC, SHELL, INITTAB, POWER_BUTTON, REDIS, include_str!("guest/init"), COMMAND_LINE].concat()
}

/// Makes the image in `folder`.
pub(crate) fn assemble(
    options: &BuildOptions,
    debs: &Debs,
    folder: &Path,
    progress: &mut dyn Progress,
) -> Result<Image, ImageError> {
    let staging = folder.with_extension("new");
    if staging.exists() {
        fs::remove_dir_all(&staging).map_err(io_error("cannot clear", &staging))?;
    }
    let (root, kernel) = (staging.join("root"), staging.join("kernel-package"));
    for path in [&root, &kernel] {
        fs::create_dir_all(path).map_err(io_error("cannot make", path))?;
    }
    progress.step("unpacking packages", 3, 5);
    merge_usr(&root)?;
    for (index, deb) in debs.packages.iter().enumerate() {
        progress.advance(index as u64, debs.packages.len() as u64);
        run(&format!("unpacking {}", deb.display()), command("dpkg-deb").arg("-x").arg(deb).arg(&root))?;
    }
    run("unpacking the kernel", command("dpkg-deb").arg("-x").arg(&debs.kernel).arg(&kernel))?;
    configure(&root, options)?;
    progress.step("making the initial RAM disk", 4, 5);
    take_kernel(&kernel, &staging.join("kernel"))?;
    initramfs::write(&staging.join("initrd"), &root, &kernel, initramfs::INIT)?;
    progress.step("making the root disk", 5, 5);
    make_disk(&staging.join("disk.img"), &root, options.size_bytes)?;
    for path in [&root, &kernel] {
        fs::remove_dir_all(path).map_err(io_error("cannot remove", path))?;
    }
    let name = |path: &std::path::PathBuf| {
        path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default()
    };
    let image = Image {
        kernel: folder.join("kernel"),
        initrd: folder.join("initrd"),
        disk: folder.join("disk.img"),
        command_line: COMMAND_LINE.into(),
        packages: debs.packages.iter().chain([&debs.kernel]).map(name).collect(),
    };
    store(&image, &staging, folder)?;
    Ok(image)
}

/// Gives what is in `staging` its name.
pub(crate) fn store(image: &Image, staging: &Path, folder: &Path) -> Result<(), ImageError> {
    let manifest = staging.join("manifest.json");
    let text = serde_json::to_string_pretty(image).unwrap_or_default();
    fs::write(&manifest, text).map_err(io_error("cannot write", &manifest))?;
    // On stable storage before it gets its name: after a crash of the host, what has its name is whole.
    for name in ["kernel", "initrd", "disk.img", "manifest.json"] {
        let path = staging.join(name);
        fs::File::open(&path).and_then(|file| file.sync_all()).map_err(io_error("cannot store", &path))?;
    }
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(io_error("cannot clear", folder))?;
    }
    fs::rename(staging, folder).map_err(io_error("cannot rename to", folder))
}

/// Debian's merged /usr, which an installer makes before it unpacks.
pub(crate) fn merge_usr(root: &Path) -> Result<(), ImageError> {
    for name in ["bin", "sbin", "lib"] {
        let target = root.join("usr").join(name);
        fs::create_dir_all(&target).map_err(io_error("cannot make", &target))?;
        let link = root.join(name);
        symlink(format!("usr/{name}"), &link).map_err(io_error("cannot link", &link))?;
    }
    Ok(())
}

/// What the packages' own installation would do and a booting guest cannot do without, and our few files.
fn configure(root: &Path, options: &BuildOptions) -> Result<(), ImageError> {
    let read = |path: &str| {
        let path = root.join(path);
        fs::read_to_string(&path).map_err(io_error("cannot read", &path))
    };
    let write = |path: &str, text: &str, mode: u32| {
        let path = root.join(path);
        let folder = path.parent().unwrap_or(root);
        fs::create_dir_all(folder).map_err(io_error("cannot make", folder))?;
        fs::write(&path, text).map_err(io_error("cannot write", &path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(io_error("cannot change", &path))
    };
    let users = read("usr/share/base-passwd/passwd.master")?.replace(":*:", ":x:");
    write("etc/passwd", &format!("{users}redis:x:100:101::/var/lib/redis:/usr/sbin/nologin\n"), 0o644)?;
    write("etc/group", &format!("{}redis:x:101:\n", read("usr/share/base-passwd/group.master")?), 0o644)?;
    write("etc/hostname", "pollux\n", 0o644)?;
    write("etc/hosts", "127.0.0.1 localhost\n127.0.1.1 pollux\n", 0o644)?;
    write("etc/resolv.conf", "nameserver 10.0.2.3\n", 0o644)?;
    write("etc/fstab", "/dev/vda / ext4 defaults 0 1\n", 0o644)?;
    write("etc/inittab", INITTAB, 0o644)?;
    write("etc/pollux/rc", RC, 0o755)?;
    write("etc/pollux/shell", SHELL, 0o755)?;
    write("etc/pollux/power-button", POWER_BUTTON, 0o755)?;
    write("root/.bashrc", "PS1='\\u@\\h:\\w# '\n", 0o644)?;
    fs::create_dir_all(root.join("etc/pollux/services"))
        .map_err(io_error("cannot make services in", root))?;
    if options.packages.iter().any(|package| package == "redis-server") {
        write("etc/pollux/services/redis", REDIS, 0o755)?;
    }
    for name in ["dev", "proc", "sys", "run", "tmp"] {
        let path = root.join(name);
        fs::create_dir_all(&path).map_err(io_error("cannot make", &path))?;
    }
    let tmp = root.join("tmp");
    fs::set_permissions(&tmp, fs::Permissions::from_mode(0o1777)).map_err(io_error("cannot change", &tmp))?;
    // awk and the like are alternatives, which only an installation links.
    for (link, target) in [("usr/bin/awk", "mawk"), ("usr/bin/pager", "more")] {
        if !root.join(link).exists() {
            symlink(target, root.join(link)).map_err(io_error("cannot link", &root.join(link)))?;
        }
    }
    if let Some(overlay) = &options.overlay {
        let from = overlay.join(".");
        // Whoever made the overlay, in the guest it is root's.
        let copy = ["-a", "--no-preserve=ownership"];
        run("copying the overlay", Command::new("cp").args(copy).arg(from).arg(root))?;
    }
    Ok(())
}

/// The kernel, as an uncompressed `Image`, which is how Debian ships it for this architecture.
pub(crate) fn take_kernel(package: &Path, to: &Path) -> Result<(), ImageError> {
    let boot = package.join("boot");
    let entries = fs::read_dir(&boot).map_err(io_error("cannot read", &boot))?;
    let is_kernel = |name: &std::ffi::OsString| name.to_string_lossy().starts_with("vmlinu");
    let kernel =
        entries.flatten().find(|e| is_kernel(&e.file_name())).ok_or(ImageError::Missing("kernel"))?.path();
    let bytes = fs::read(&kernel).map_err(io_error("cannot read", &kernel))?;
    if bytes.get(56..60) != Some(b"RSC\x05") {
        return Err(ImageError::Missing("uncompressed RISC-V kernel"));
    }
    fs::write(to, bytes).map_err(io_error("cannot write", to))
}

/// An ext4 file system with the staging tree in it, all of it root's.
pub(crate) fn make_disk(to: &Path, root: &Path, bytes: u64) -> Result<(), ImageError> {
    let mke2fs = find("mke2fs").ok_or(ImageError::Tool { tool: "mke2fs", package: "e2fsprogs" })?;
    let arguments = |command: &mut Command| {
        command.env("LC_ALL", "C").args(["-q", "-F", "-t", "ext4", "-m", "0", "-L", "pollux"]);
        command.args(["-E", "root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0", "-d"]).arg(root).arg(to);
        command.arg(format!("{}k", bytes / 1024));
    };
    if rustix::process::geteuid().is_root() {
        let mut command = Command::new(&mke2fs);
        arguments(&mut command);
        return run("mke2fs", &mut command).map(drop);
    }
    // In a user namespace, or under fakeroot, the caller's files are root's.
    let wrappers: [(&str, &[&str]); 2] = [("unshare", &["-r"]), ("fakeroot", &[])];
    for (wrapper, options) in wrappers {
        let Some(program) = find(wrapper) else { continue };
        let works =
            Command::new(&program).args(options).arg("true").output().is_ok_and(|o| o.status.success());
        if works {
            let mut command = Command::new(program);
            command.args(options).arg(&mke2fs);
            arguments(&mut command);
            return run("mke2fs", &mut command).map(drop);
        }
    }
    Err(ImageError::Ownership)
}
