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
