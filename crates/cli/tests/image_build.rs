//! `pollux image build` that is told to end in the middle: nothing of it stays, and nothing that was there is lost.
//!
//! The host's programs are false ones here, and the guest is a kernel that does nothing for ever.

mod common;

use common::*;
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const APT_GET: &str = r#"case "$*" in
*--download-only*)
    for name in busybox-static dpkg linux-image-6-riscv64; do : > "cache/archives/${name}_1_all.deb"; done ;;
*--simulate*) for name in busybox-static dpkg linux-image-6-riscv64; do echo "Inst $name (1 x [all])"; done ;;
esac"#;
const DPKG_DEB: &str = r#"case "$1 $2" in
"-f "*) printf 'Package: dpkg\nVersion: 1\n' ;;
"-x "*linux-image*)
    mkdir -p "$3/boot" "$3/lib/modules/6/kernel"
    cp "$POLLUX_TEST_KERNEL" "$3/boot/vmlinux-6"
    for name in virtio_mmio virtio_blk ext4 virtio_net virtio-rng virtio_input evdev; do
        printf 'x\0depends=\0' > "$3/lib/modules/6/kernel/$name.ko"
    done ;;
"-x "*busybox*) mkdir -p "$3/bin"; : > "$3/bin/busybox" ;;
"--root-owner-group "*) : > "$4" ;;
esac"#;
/// What it makes is as large as asked, and empty.
const MKE2FS: &str = r#"for word; do before=$to; to=$size; size=$word; done; truncate -s "$size" "$to""#;

/// A Linux `Image` for RISC-V that jumps to itself.
fn kernel() -> [u8; 4096] {
    let mut image = [0; 4096];
    image[..4].copy_from_slice(&0x6fu32.to_le_bytes());
    image[8..16].copy_from_slice(&0x20_0000u64.to_le_bytes());
    image[16..24].copy_from_slice(&4096u64.to_le_bytes());
    image[48..60].copy_from_slice(b"RISCV\0\0\0RSC\x05");
    image
}

/// A build whose machine runs.
struct Build {
    process: Process,
    /// The process of its machine, in `/proc`.
    machine: PathBuf,
    folder: tempfile::TempDir,
}

impl Build {
    fn start() -> Self {
        let keep = tempfile::tempdir().expect("a folder");
        let folder = keep.path();
        for name in ["bin", "tmp"] {
            fs::create_dir(folder.join(name)).expect("room");
        }
        for (name, script) in
            [("apt-get", APT_GET), ("apt-cache", ""), ("dpkg-deb", DPKG_DEB), ("mke2fs", MKE2FS)]
        {
            let path = folder.join("bin").join(name);
            fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("room");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("ours");
        }
        fs::write(folder.join("kernel"), kernel()).expect("room");
        fs::write(folder.join("keys"), "").expect("room");
        fs::write(folder.join("disk.img"), "precious").expect("room");
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(POLLUX);
        command.args(["image", "build", "--packages", "", "--no-updates", "--mirror", "file:/nowhere"]);
        for (flag, name) in [("--cache", "cache"), ("--keyring", "keys"), ("--copy", "disk.img")] {
            command.arg(flag).arg(folder.join(name));
        }
        command
            .env("PATH", format!("{}:{path}", folder.join("bin").display()))
            .env("POLLUX_TEST_KERNEL", folder.join("kernel"))
            .env("TMPDIR", folder.join("tmp"))
            .stdin(Stdio::null());
        let log = folder.join("build.log");
        command.stderr(fs::File::create(&log).expect("room"));
        let mut process = Process { child: command.spawn().expect("it starts"), log };
        let machine = eventually("the machine runs", || {
            assert!(process.is_running(), "{}", process.log());
            socket_in(&folder.join("tmp")).and_then(|_| child_of(process.child.id()))
        });
        Self { process, machine, folder: keep }
    }

    fn expect_nothing_left(&self) {
        eventually("the machine ends", || (!self.machine.exists()).then_some(()));
        let folder = self.folder.path();
        assert_eq!(fs::read(folder.join("disk.img")).expect("there"), b"precious");
    }
}

/// The machine's control socket: it is there when the machine is.
fn socket_in(tmp: &Path) -> Option<PathBuf> {
    let folder = fs::read_dir(tmp).ok()?.flatten().next()?.path();
    let mut names = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    names.find(|path| path.extension().is_some_and(|e| e == "sock"))
}

fn child_of(pid: u32) -> Option<PathBuf> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    Some(Path::new("/proc").join(children.split_whitespace().next()?))
}

#[test]
fn a_build_that_is_told_to_end_takes_its_machine_and_all_that_is_half_made_with_it() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut build = Build::start();
        build.process.signal(signal);
        let ended = build.process.wait(Duration::from_secs(20)).expect("it ends");
        assert_eq!(ended.code(), Some(1), "{}", build.process.log());
        assert!(build.process.log().contains("interrupted"), "{}", build.process.log());
        build.expect_nothing_left();
        let count = |name: &str| fs::read_dir(build.folder.path().join(name)).expect("there").count();
        assert_eq!(count("tmp"), 0, "temporary files");
        assert_eq!(count("cache/images"), 0, "half-made images");
    }
}

#[test]
fn the_machine_of_a_build_that_is_killed_ends_with_it() {
    let mut build = Build::start();
    build.process.signal(Signal::KILL);
    let _ = build.process.wait(Duration::from_secs(20));
    build.expect_nothing_left();
}
