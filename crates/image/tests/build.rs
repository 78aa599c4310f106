//! Builds with false tools, to see what a person is told, and (asked for) a real build, to see what comes out.
//!
//! A test that needs another PATH runs itself in a child process: a process's own environment cannot be changed
//! safely. The real build downloads about 140 MB, so it runs with `POLLUX_TEST_IMAGE=1` only.
//! Not here: that the image boots (`crates/cli/tests/debian.rs`).

use pollux_image::{BuildOptions, Image, ImageError, Progress};
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

const CHILD: &str = "POLLUX_TEST_IMAGE_CHILD";

/// What a user reads when a build with these programs (name, shell script) fails.
fn told(programs: &[(&str, &str)], keyring: bool) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let bin = folder.path().join("bin");
    fs::create_dir(&bin).expect("room");
    for (name, script) in programs {
        fs::write(bin.join(name), format!("#!/bin/sh\n{script}\n")).expect("room");
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).expect("ours");
    }
    if keyring {
        fs::write(folder.path().join("keys.gpg"), "").expect("room");
    }
    let output = Command::new(std::env::current_exe().expect("a test"))
        .args(["--exact", "a_build_in_a_child_says_what_went_wrong", "--nocapture"])
        .env("PATH", &bin)
        .env(CHILD, folder.path())
        .output()
        .expect("started");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

const APT_CACHE: &str = "echo linux-image-riscv64; echo '  Depends: linux-image-6.12.0-riscv64'";

fn told_by_apt(apt_get: &str) -> String {
    told(&[("apt-get", apt_get), ("apt-cache", APT_CACHE), ("dpkg-deb", ""), ("mke2fs", "")], true)
}

#[test]
fn a_build_in_a_child_says_what_went_wrong() {
    let Some(folder) = std::env::var_os(CHILD) else { return };
    let folder = Path::new(&folder);
    let options = BuildOptions {
        cache_dir: Some(folder.join("cache")),
        mirror: Some("file:/nowhere".into()),
        keyring: Some(folder.join("keys.gpg")),
        ..BuildOptions::default()
    };
    println!("{}", pollux_image::build(&options, &mut ()).expect_err("false tools"));
}

#[test]
fn without_apt_a_user_is_told_what_is_missing_and_how_to_do_without() {
    let text = told(&[], true);
    assert!(text.contains("apt-get is not on this host") && text.contains("--kernel"), "{text}");
}

#[test]
fn without_the_keyring_nothing_is_asked_of_an_archive() {
    let tools = [("apt-get", "echo asked; exit 1"), ("apt-cache", ""), ("dpkg-deb", ""), ("mke2fs", "")];
    let text = told(&tools, false);
    assert!(text.contains("keys.gpg is not on this host") && text.contains("--keyring"), "{text}");
    assert!(!text.contains("asked"), "{text}");
}

#[test]
fn a_signature_by_an_unknown_key_ends_the_build_even_when_apt_calls_it_a_warning() {
    let text = told_by_apt("echo 'W: GPG error: x: NO_PUBKEY 6ED0E7B82643E131' >&2; exit 0");
    assert!(text.contains("signature could not be checked") && text.contains("6ED0E7B82643E131"), "{text}");
}

#[test]
fn a_package_that_debian_does_not_have_is_named() {
    let text = told_by_apt(
        "case \"$*\" in *update*) exit 0;; esac; echo 'E: Unable to locate package nosuch' >&2; exit 100",
    );
    assert!(text.contains("no package nosuch"), "{text}");
}

#[test]
fn a_full_disk_is_called_a_full_disk() {
    let text = told_by_apt("echo 'E: Write error - write (28: No space left on device)' >&2; exit 100");
    assert!(text.contains("no space is left on this host's disk"), "{text}");
}

#[derive(Default)]
struct Steps(Vec<String>);

impl Progress for Steps {
    fn step(&mut self, name: &str, _index: usize, _total: usize) {
        self.0.push(name.into());
    }
    fn advance(&mut self, _done: u64, _total: u64) {}
    fn finish(&mut self) {}
}

#[test]
fn a_real_image_is_built_once_and_then_found() {
    if std::env::var_os("POLLUX_TEST_IMAGE").is_none_or(|value| value != "1") {
        eprintln!("skipped: set POLLUX_TEST_IMAGE=1 to download and build a guest");
        return;
    }
    let cache = tempfile::tempdir().expect("a folder");
    let overlay = tempfile::tempdir().expect("a folder");
    fs::write(overlay.path().join("ours"), "laid over").expect("room");
    let options = BuildOptions {
        cache_dir: Some(cache.path().into()),
        overlay: Some(overlay.path().into()),
        size_bytes: 512 << 20,
        ..BuildOptions::default()
    };
    let mut steps = Steps::default();
    let image = pollux_image::build(&options, &mut steps).expect("an image");
    assert_eq!(steps.0.len(), 5, "{:?}", steps.0);
    let at = |path: &Path, offset: u64, bytes: usize| {
        let mut buffer = vec![0; bytes];
        let file = fs::File::open(path).expect("there");
        file.read_exact_at(&mut buffer, offset).expect("long enough");
        buffer
    };
    assert_eq!(at(&image.kernel, 56, 4), b"RSC\x05", "a Linux Image for RISC-V");
    assert_eq!(at(&image.initrd, 0, 6), b"070701", "a newc archive, not compressed");
    assert_eq!(at(&image.disk, 1024 + 0x38, 2), [0x53, 0xef], "an ext4 superblock");
    let disk = fs::metadata(&image.disk).expect("there");
    assert_eq!(disk.len(), 512 << 20);
    assert!(disk.blocks() * 512 < disk.len(), "sparse");
    assert!(image.packages.iter().any(|name| name.starts_with("redis-server_")), "{:?}", image.packages);

    // debugfs comes with mke2fs: whose are the files, and is the overlay there?
    let debugfs = |request: &str| {
        let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
        let output =
            Command::new("debugfs").env("PATH", path).args(["-R", request]).arg(&image.disk).output();
        String::from_utf8_lossy(&output.expect("debugfs").stdout).into_owned()
    };
    for file in ["/usr/bin/bash", "/etc/passwd", "/etc/pollux/rc"] {
        let text = debugfs(&format!("stat {file}"));
        let owner: Vec<_> =
            text.lines().find(|l| l.starts_with("User:")).unwrap_or(&text).split_whitespace().collect();
        assert_eq!((owner[1], owner[3]), ("0", "0"), "{file}: {text}");
    }
    assert_eq!(debugfs("cat /ours"), "laid over");

    let mut again = Steps::default();
    assert_eq!(pollux_image::build(&options, &mut again).expect("there"), image);
    assert!(again.0.is_empty(), "found, not built");
    assert_eq!(Image::open(image.disk.parent().expect("a folder")).expect("whole"), image);

    let unknown = BuildOptions { packages: vec!["no-such-package-anywhere".into()], ..options.clone() };
    let error = pollux_image::build(&unknown, &mut ()).expect_err("unknown");
    assert!(
        matches!(&error, ImageError::NoPackage { name } if name == "no-such-package-anywhere"),
        "{error}"
    );
    let small = BuildOptions { size_bytes: 32 << 20, ..options };
    let error = pollux_image::build(&small, &mut ()).expect_err("small");
    assert!(matches!(error, ImageError::TooSmall), "{error}");
}
