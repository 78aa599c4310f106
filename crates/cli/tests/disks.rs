//! Disks of real processes: that hang, are slow, and what is on them when a pair ends.

mod common;

use common::*;
use rustix::process::Signal;
use std::path::Path;
use std::time::Duration;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Put before a side's command: what its disks do is what the file says, from now on.
fn disk_does(file: &Path) -> Vec<String> {
    vec!["env".into(), format!("{}={}", pollux_host::disk_fault::VARIABLE, file.display())]
}

/// Clients that write for a while; some of what they ask is unanswered when they are done.
fn load(pair: &Pair, time: Duration) -> Vec<std::thread::JoinHandle<()>> {
    let service = pair.service;
    let client = move |id| {
        let mut client = Client::new(service, id);
        let begun = std::time::Instant::now();
        while begun.elapsed() < time {
            let seq = begun.elapsed().as_micros();
            let _ = client.call("PUT", &format!(" {} {seq:x}", seq % 97), ms(50));
        }
    };
    (1..=4).map(|id| std::thread::spawn(move || client(id))).collect()
}

#[test]
fn two_sides_that_end_together_under_load_leave_equal_images() {
    for round in 0..rounds(3) {
        let slow = tempfile::NamedTempFile::new().expect("a file");
        let mut pair = Pair::start(&Options { backup_wrapper: disk_does(slow.path()), ..Options::default() });
        pair.wait_paired();
        Client::new(pair.service, 9).wait_ready();
        let clients = load(&pair, ms(600));
        std::thread::sleep(ms(200));
        // The backup is behind with its disk when the VM is stopped.
        std::fs::write(slow.path(), "slow").expect("room");
        std::thread::sleep(ms(150));
        // SIGTERM would hand the VM over.
        pair.primary.signal(Signal::INT);
        for side in [&mut pair.primary, &mut pair.backup] {
            let status = side.wait(Duration::from_secs(30)).and_then(|status| status.code());
            assert_eq!(status, Some(0), "round {round}: {}", side.log());
        }
        clients.into_iter().for_each(|client| client.join().expect("no panic"));
        let [ours, theirs] = pair.disks.clone().map(|disk| std::fs::read(disk).expect("there"));
        assert!(ours == theirs, "round {round}: the images differ");
        assert!(ours.iter().any(|byte| *byte != 0), "round {round}: nothing was written");
    }
}

#[test]
fn a_backup_whose_disk_hangs_leaves_the_pair_and_the_vm_goes_on() {
    let hang = tempfile::NamedTempFile::new().expect("a file");
    let options = Options {
        backup_wrapper: disk_does(hang.path()),
        backup_args: strings(&["--disk-hang-ms", "500"]),
        ..Options::default()
    };
    let mut pair = Pair::start(&options);
    pair.wait_paired();
    let mut client = Client::new(pair.service, 1);
    client.wait_ready();
    client.work(ms(100)).expect("a right history");
    std::fs::write(hang.path(), "hang").expect("room");
    client.work(ms(1500)).and_then(|()| client.check()).expect("a right history");
    let status = pair.backup.wait(Duration::from_secs(10)).expect("the backup leaves");
    assert_eq!(status.code(), Some(72), "{}", pair.backup.log());
    assert!(pair.backup.log().contains("does not answer"), "{}", pair.backup.log());
    assert_eq!(pair.primary_status().expect("it runs").role, "solo");
}

/// A primary for the backup that waits there.
fn primary(folder: &Path, listen: &str, disk: &Path) -> Process {
    let arbiter = folder.join("arbiter").display().to_string();
    let mut args =
        strings(&["run", "--name", "vm", "--kernel", TINY, "--memory", "16M", "--console", "none"]);
    args.extend(strings(&["--backup", listen, "--arbiter", &arbiter, "--disk", &disk.display().to_string()]));
    spawn(folder, "vm", &[], &args)
}

#[test]
fn a_disk_that_is_copied_anew_while_its_backup_waits_makes_a_pair_and_one_that_differs_does_not() {
    // Over the old file, and beside it and then in its place.
    for replaces in [false, true] {
        let folder = tempfile::tempdir().expect("a folder");
        let [ours, theirs] = ["primary.img", "backup.img"].map(|name| folder.path().join(name));
        std::fs::write(&ours, vec![7; 1 << 20]).expect("room");
        std::fs::write(&theirs, vec![8; 1 << 20]).expect("room");
        let arbiter = arbiter(folder.path());
        let mut args = strings(&["backup", "--listen", "127.0.0.1:0", "--instance", "backup"]);
        args.extend(strings(&["--arbiter", &arbiter, "--disk", &theirs.display().to_string()]));
        let mut backup = spawn(folder.path(), "backup", &[], &args);
        let listen = eventually("the backup listens", || status(folder.path(), "backup").ok()?.listen);

        let mut refused = primary(folder.path(), &listen, &ours);
        let ended = refused.wait(Duration::from_secs(20)).expect("it does not run without its backup");
        assert_eq!(ended.code(), Some(1), "{}", refused.log());
        for side in [&refused, &backup] {
            let words =
                "disk 0 differs in content from the primary's; replicated disks start as equal copies";
            assert!(side.log().contains(words), "replaces {replaces}: {}", side.log());
        }
        assert!(backup.is_running(), "it waits for another: {}", backup.log());

        if replaces {
            let copy = folder.path().join("copy.img");
            std::fs::copy(&ours, &copy).and_then(|_| std::fs::rename(&copy, &theirs)).expect("room");
        } else {
            std::fs::copy(&ours, &theirs).expect("room");
        }
        let mut paired = primary(folder.path(), &listen, &ours);
        eventually("they are a pair", || {
            assert!(paired.is_running(), "replaces {replaces}: {}", paired.log());
            status(folder.path(), "backup").ok().filter(|status| status.role == "backup" && status.icount > 0)
        });
    }
}

#[test]
fn a_hung_disk_is_shown_and_does_not_keep_a_vm_that_runs_alone_from_being_stopped() {
    let folder = tempfile::tempdir().expect("a folder");
    let (disk, hang) = (folder.path().join("disk.img"), folder.path().join("hang"));
    std::fs::File::create(&disk).and_then(|file| file.set_len(8 << 20)).expect("a disk");
    std::fs::write(&hang, "hang").expect("room");
    let mut args =
        strings(&["run", "--name", "vm", "--kernel", TINY, "--memory", "16M", "--console", "none"]);
    args.extend(strings(&["--disk-hang-ms", "300", "--disk", &disk.display().to_string()]));
    let mut vm = spawn(folder.path(), "vm", &disk_does(&hang), &args);
    eventually("the disk is known to hang", || {
        status(folder.path(), "vm").ok().filter(|status| status.disks_hung == [0])
    });
    vm.signal(Signal::TERM);
    let ended = vm.wait(Duration::from_secs(5)).expect("it is not waited for");
    assert_eq!(ended.code(), Some(0), "{}", vm.log());
}
