//! Images made like the ones that are meant: Debian's cloud image (GPT, ext4, GRUB or extlinux), and hostile ones.

use super::*;
use std::io::{Seek, SeekFrom, Write};

const MIB: u64 = 1 << 20;

fn kernel() -> Vec<u8> {
    let mut bytes = vec![7; 4096];
    bytes[56..60].copy_from_slice(b"RSC\x05");
    bytes
}

/// An ext4 file system with these files, as bytes.
fn ext4(folder: &Path, files: &[(&str, &[u8])]) -> Vec<u8> {
    let tree = folder.join("tree");
    let _ = fs::remove_dir_all(&tree);
    for (name, content) in files {
        let path = tree.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("room");
        fs::write(path, content).expect("room");
    }
    let image = folder.join("ext4");
    crate::assemble::make_disk(&image, &tree, 16 * MIB).expect("mke2fs");
    fs::read(&image).expect("there")
}

/// A disk with a GUID partition table and one partition of this content, the 15th, as boot partitions come first.
fn gpt_disk(path: &Path, content: &[u8]) {
    let mut file =
        File::options().read(true).write(true).create(true).truncate(true).open(path).expect("room");
    file.set_len(64 * MIB).expect("room");
    let sectors = u32::try_from(64 * MIB / SECTOR_BYTES - 1).expect("small");
    gpt::mbr::ProtectiveMBR::with_lb_size(sectors).overwrite_lba0(&mut file).expect("room");
    let config = gpt::GptConfig::new().writable(true);
    let mut table = config.create_from_device(file, None).expect("a table");
    let first = table.add_partition("efi", 2 * MIB, gpt::partition_types::EFI, 0, None).expect("room");
    let root = table.add_partition("root", 20 * MIB, gpt::partition_types::LINUX_FS, 0, None).expect("room");
    assert_eq!((first, root), (1, 2));
    let start = table.partitions()[&root].first_lba * SECTOR_BYTES;
    let mut file = table.write().expect("written");
    file.seek(SeekFrom::Start(start)).expect("there");
    file.write_all(content).expect("room");
}

fn taken(folder: &Path, disk: &Path) -> Result<Image, ImageError> {
    let to = folder.join("imported");
    let _ = fs::remove_dir_all(&to);
    import(disk, &to, &mut ())
}

#[test]
fn an_image_like_debians_cloud_image_is_taken_in_as_it_would_boot() {
    let folder = tempfile::tempdir().expect("a folder");
    let grub = b"menuentry 'Debian' {\n linux /boot/vmlinux-6.1-riscv64 root=PARTUUID=1 ro console=tty0 console=ttyS0,115200\n \
        initrd /boot/initrd.img-6.1-riscv64\n}\n";
    let files: [(&str, &[u8]); 4] = [
        ("boot/vmlinux-6.1-riscv64", &kernel()),
        ("boot/initrd.img-6.1-riscv64", b"initial"),
        ("boot/grub/grub.cfg", grub),
        ("etc/fstab", b""),
    ];
    let disk = folder.path().join("cloud.raw");
    gpt_disk(&disk, &ext4(folder.path(), &files));
    let before = fs::read(&disk).expect("there");
    let image = taken(folder.path(), &disk).expect("an image");
    assert_eq!(fs::read(&image.kernel).expect("there"), kernel());
    assert_eq!(fs::read(&image.initrd).expect("there"), b"initial");
    assert_eq!(image.command_line, "root=PARTUUID=1 ro console=tty0 console=ttyS0,115200");
    assert!(fs::read(&image.disk).expect("there") == before && fs::read(&disk).expect("there") == before);
    assert_eq!(Image::open(image.disk.parent().expect("a folder")).expect("whole"), image);
    let again = import(&disk, &folder.path().join("imported"), &mut ());
    assert!(again.expect_err("there").to_string().contains("is there already"));

    // The same as qcow2, where the host can make one.
    let qcow2 = folder.path().join("cloud.qcow2");
    let convert = Command::new("qemu-img").args(["convert", "-O", "qcow2"]).arg(&disk).arg(&qcow2).output();
    if convert.is_ok_and(|output| output.status.success()) {
        let image = taken(folder.path(), &qcow2).expect("an image");
        assert_eq!(fs::read(&image.kernel).expect("there"), kernel());
    } else {
        println!("skipped: no qemu-img here");
    }
}

#[test]
fn without_a_boot_loader_the_newest_kernel_starts_from_the_partition_that_it_lies_in() {
    let folder = tempfile::tempdir().expect("a folder");
    let files: [(&str, &[u8]); 3] =
        [("boot/vmlinuz-6.9", b"old"), ("boot/vmlinuz-6.10", &kernel()), ("etc/fstab", b"")];
    let system = ext4(folder.path(), &files);
    let disk = folder.path().join("plain.raw");
    gpt_disk(&disk, &system);
    let image = taken(folder.path(), &disk).expect("an image");
    assert_eq!(image.command_line, "root=/dev/vda2 console=ttyS0");
    assert!(fs::read(&image.initrd).expect("there").is_empty());
    // No table at all: the file system fills the disk.
    fs::write(&disk, &system).expect("room");
    assert_eq!(taken(folder.path(), &disk).expect("an image").command_line, "root=/dev/vda console=ttyS0");
}

#[test]
fn a_qcow2_image_that_reaches_for_the_hosts_files_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = folder.path().join("bad.qcow2");
    let mut head = vec![0; 512];
    head[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    head[15] = 112;
    fs::write(&disk, &head).expect("room");
    assert!(taken(folder.path(), &disk).expect_err("refused").to_string().contains("needs another file"));
    head[15] = 0;
    head[79] = 4;
    fs::write(&disk, &head).expect("room");
    assert!(taken(folder.path(), &disk).expect_err("refused").to_string().contains("needs another file"));
    assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 1, "nothing half made is left");
}

#[test]
fn a_disk_of_anything_gives_an_error_that_says_what_was_looked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = folder.path().join("noise");
    let mut seed = 7u32;
    for round in 0..20 {
        let noise: Vec<u8> = (0..64 << 10)
            .map(|_| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (seed >> 24) as u8
            })
            .collect();
        let mut noise = noise;
        // A signature of each kind in front of nonsense.
        noise[510..512].copy_from_slice(&[0x55, 0xaa]);
        if round % 2 == 0 {
            noise[512..520].copy_from_slice(b"EFI PART");
        }
        if round % 3 == 0 {
            noise[1024 + 0x38..1024 + 0x3a].copy_from_slice(&[0x53, 0xef]);
        }
        fs::write(&disk, &noise).expect("room");
        assert!(taken(folder.path(), &disk).expect_err("noise").to_string().contains("ext4"));
    }
    let files: [(&str, &[u8]); 2] = [("boot/vmlinuz-6", b"MZ compressed"), ("etc/fstab", b"")];
    fs::write(&disk, ext4(folder.path(), &files)).expect("room");
    assert!(taken(folder.path(), &disk).expect_err("EFI").to_string().contains("uncompressed"));
    fs::write(&disk, ext4(folder.path(), &[("etc/fstab", b"")])).expect("room");
    assert!(taken(folder.path(), &disk).expect_err("none").to_string().contains("extlinux.conf"));
}

#[test]
fn a_disk_becomes_larger_with_its_file_system_and_never_smaller() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = folder.path().join("disk.img");
    fs::write(&disk, ext4(folder.path(), &[("etc/fstab", b"x")])).expect("room");
    assert!(resize(&disk, 64 * MIB).expect("enlarged"), "the file system, too");
    assert_eq!(fs::metadata(&disk).expect("there").len(), 64 * MIB);
    let blocks = fs::read(&disk).expect("there")[1024 + 4..1024 + 8].to_vec();
    let kib = u64::from(u32::from_le_bytes(blocks.try_into().expect("four")));
    assert!(kib * 1024 == 64 * MIB || kib * 4096 == 64 * MIB, "{kib} blocks");
    assert!(resize(&disk, 32 * MIB).expect_err("smaller").to_string().contains("smaller"));
    let held = File::open(&disk).expect("there");
    rustix::fs::flock(&held, rustix::fs::FlockOperation::NonBlockingLockExclusive).expect("free");
    assert!(resize(&disk, 128 * MIB).expect_err("held").to_string().contains("in use"));
}
