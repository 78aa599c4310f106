//! Faults in real processes, on the embedded guest. After each: at most one live VM, and a history that is right.
//!
//! `POLLUX_FAULT_ROUNDS` sets how many rounds of each kind are run, `POLLUX_FAULT_SEED` where chance starts.

mod common;

use common::*;
use pollux_host::arbiter_file::FileArbiter;
use rustix::process::Signal;
use std::time::Duration;

fn seed(kind: u64) -> Random {
    let base = std::env::var("POLLUX_FAULT_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(1u64);
    Random(base.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(kind) | 1)
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Runs `fault` against a working pair, `rounds` times, at random moments; the history must be right afterwards.
fn under_fault(kind: u64, fault: impl Fn(&mut Pair, &mut Random)) {
    under_fault_with(kind, &[Options::default()], rounds(8), fault);
}

/// The same against pairs of several kinds in turn.
fn under_fault_with(kind: u64, of: &[Options], rounds: u64, fault: impl Fn(&mut Pair, &mut Random)) {
    let mut random = seed(kind);
    for (round, options) in (0..rounds).zip(of.iter().cycle()) {
        let mut pair = Pair::start(options);
        pair.wait_paired();
        let mut client = Client::new(pair.service, 1);
        client.wait_ready();
        let before = ms(random.below(200));
        let mut work = client.work(before);
        fault(&mut pair, &mut random);
        work = work.and_then(|()| client.work(ms(100))).and_then(|()| client.check());
        let logs = || format!("{}\n{}", pair.primary.log(), pair.backup.log());
        assert!(work.is_ok(), "round {round}: {work:?}\n{}", logs());
        let (primary, backup) = settled(&mut pair);
        assert!(
            !(primary && backup) || pair_is_whole(&pair),
            "round {round}: two live VMs\n{}",
            pair.primary.log()
        );
        assert!(
            primary || backup,
            "round {round}: no live VM\n{}\n{}",
            pair.primary.log(),
            pair.backup.log()
        );
    }
}

/// Who is live once nothing moves any more.
fn settled(pair: &mut Pair) -> (bool, bool) {
    eventually("one side is live", || {
        let live = pair.live_sides();
        (live.0 || live.1).then_some(live)
    })
}

fn pair_is_whole(pair: &Pair) -> bool {
    pair.backup_status().is_some_and(|s| s.role == "backup")
}

#[test]
fn a_killed_primary_is_taken_over_from() {
    under_fault(1, |pair, _| {
        pair.primary.signal(Signal::KILL);
        let _ = pair.primary.child.wait();
    });
}

/// Fills a pipe, so that the next who writes to it waits until somebody reads.
fn fill(pipe: &std::io::PipeWriter) {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    let flags = fcntl_getfl(pipe).expect("a pipe");
    fcntl_setfl(pipe, flags | OFlags::NONBLOCK).expect("a pipe");
    for piece in [4096, 1] {
        while rustix::io::write(pipe, &vec![b'.'; piece]).is_ok() {}
    }
    fcntl_setfl(pipe, flags).expect("a pipe");
}

#[test]
fn a_log_that_stands_still_stops_no_failover() {
    for primary_dies in [true, false] {
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        let full = writer.try_clone().expect("a descriptor");
        let mut pair = Pair::start(&Options { stderr: Some(writer), ..Options::default() });
        pair.wait_paired();
        let mut client = Client::new(pair.service, 1);
        client.wait_ready();
        fill(&full);
        let dies = if primary_dies { &mut pair.primary } else { &mut pair.backup };
        dies.signal(Signal::KILL);
        let _ = dies.child.wait();
        client.work(ms(200)).and_then(|()| client.check()).expect("the survivor goes on");
        drop(full);
        // Whoever reads again gets all that found room.
        let mut said = String::new();
        let reading = std::thread::spawn(move || {
            use std::io::Read;
            let mut bytes = Vec::new();
            let _ = reader.read_to_end(&mut bytes);
            said.push_str(&String::from_utf8_lossy(&bytes));
            said
        });
        let survivor = if primary_dies { &mut pair.backup } else { &mut pair.primary };
        survivor.signal(Signal::TERM);
        assert_eq!(survivor.wait(ms(10_000)).and_then(|status| status.code()), Some(0));
        let said = reading.join().expect("no panic");
        assert!(!said.contains("\u{1b}["), "colours in a pipe: {said}");
        let wanted = if primary_dies { "this side is live" } else { "running on without a backup" };
        assert!(said.contains(wanted), "{said}");
    }
}

#[test]
fn a_killed_primary_is_taken_over_from_by_a_backup_with_another_engine() {
    let Some(mixed) = mixed_engines() else { return };
    let options = mixed.map(|[primary, backup]| {
        let mut options = Options::default();
        options.primary_args.extend(strings(&["--engine", primary]));
        options.backup_args.extend(strings(&["--engine", backup]));
        options
    });
    under_fault_with(5, &options, rounds(6), |pair, _| {
        pair.primary.signal(Signal::KILL);
        let _ = pair.primary.child.wait();
    });
}

#[test]
fn a_killed_backup_is_done_without() {
    under_fault(2, |pair, _| {
        pair.backup.signal(Signal::KILL);
        let _ = pair.backup.child.wait();
    });
}

#[test]
fn a_paused_primary_that_returns_contradicts_nobody() {
    under_fault(3, |pair, random| {
        pair.primary.signal(Signal::STOP);
        std::thread::sleep(ms(random.below(900)));
        pair.primary.signal(Signal::CONT);
    });
}

#[test]
fn a_paused_backup_that_returns_contradicts_nobody() {
    under_fault(4, |pair, random| {
        pair.backup.signal(Signal::STOP);
        std::thread::sleep(ms(random.below(900)));
        pair.backup.signal(Signal::CONT);
    });
}

#[test]
fn a_paused_primary_halts_when_it_returns_after_the_takeover() {
    let mut pair = Pair::start(&Options::default());
    pair.wait_paired();
    let mut client = Client::new(pair.service, 1);
    client.wait_ready();
    client.work(ms(50)).expect("a right history");
    pair.primary.signal(Signal::STOP);
    client.work(ms(1000)).expect("the backup goes on");
    assert_eq!(pair.backup_status().expect("it is live").role, "solo");
    pair.primary.signal(Signal::CONT);
    let status = pair.primary.wait(Duration::from_secs(10)).expect("the old primary ends");
    assert_eq!(status.code(), Some(70), "{}", pair.primary.log());
    client.work(ms(100)).and_then(|()| client.check()).expect("a right history");
}

#[test]
fn an_unreachable_arbiter_lets_nobody_run_until_it_is_back() {
    let mut pair = Pair::start(&Options::default());
    pair.wait_paired();
    let mut client = Client::new(pair.service, 1);
    client.wait_ready();
    client.work(ms(50)).expect("a right history");
    // The folder itself may be moved: who has it open still has it. Without its marker it is not the arbiter.
    let (arbiter, away) = (pair.folder.join("arbiter/pollux-arbiter"), pair.folder.join("arbiter/away"));
    std::fs::rename(&arbiter, &away).expect("moved");
    pair.primary.signal(Signal::KILL);
    let _ = pair.primary.child.wait();
    assert_eq!(client.call("GET", "", ms(1500)), None, "nobody may answer");
    assert_eq!(pair.backup_status().expect("it waits").role, "claiming");
    std::fs::rename(&away, &arbiter).expect("moved back");
    client.work(ms(100)).and_then(|()| client.check()).expect("a right history");
}

/// Files of a process wrapped like this cannot grow, nor be written, beyond 1 MiB: its disk fails behind that.
fn failing_disk() -> Vec<String> {
    strings(&["sh", "-c", "trap '' XFSZ; ulimit -f 2048; exec \"$0\" \"$@\""])
}

#[test]
fn a_backup_whose_disk_is_full_leaves_the_pair_and_the_vm_goes_on() {
    let mut pair = Pair::start(&Options { backup_wrapper: failing_disk(), ..Options::default() });
    let mut client = Client::new(pair.service, 1);
    client.wait_ready();
    let status = pair.backup.wait(Duration::from_secs(10)).expect("the backup leaves");
    assert_eq!(status.code(), Some(72), "{}", pair.backup.log());
    assert!(pair.backup.log().contains("disk 0"), "{}", pair.backup.log());
    client.work(ms(200)).and_then(|()| client.check()).expect("a right history");
    assert_eq!(pair.primary_status().expect("it runs").role, "solo");
}

#[test]
fn a_primary_whose_disk_is_full_hands_over_and_its_guest_never_knows() {
    let mut pair = Pair::start(&Options { primary_wrapper: failing_disk(), ..Options::default() });
    let mut client = Client::new(pair.service, 1);
    client.wait_ready();
    let status = pair.primary.wait(Duration::from_secs(10)).expect("the primary gives the VM away");
    assert_eq!(status.code(), Some(0), "{}", pair.primary.log());
    let good = client.call("PUT", " 400 1", Duration::from_secs(5));
    assert_eq!(good.as_deref(), Some("ok"), "the other disk has room behind 1 MiB");
    client.work(ms(200)).and_then(|()| client.check()).expect("a right history");
}

#[test]
fn a_guest_that_ends_ends_both_sides_and_its_generations_are_spent() {
    let mut pair = Pair::start(&Options::default());
    pair.wait_paired();
    let mut client = Client::new(pair.service, 1);
    client.wait_ready();
    let _ = client.call("DIE", " 5", ms(300));
    let primary = pair.primary.wait(Duration::from_secs(10)).expect("the primary ends");
    let backup = pair.backup.wait(Duration::from_secs(10)).expect("the backup ends");
    assert_eq!((primary.code(), backup.code()), (Some(5), Some(0)), "{}", pair.backup.log());
    let arbiter = FileArbiter::open(&pair.folder.join("arbiter")).expect("a folder");
    let newest = arbiter.newest("vm").expect("readable");
    assert!(newest.as_ref().is_some_and(pollux_arbiter::Claim::is_end), "{newest:?}");
    let next = pollux_arbiter::first_generation(newest.as_ref()).expect("the VM may be started again");
    assert_eq!(next.0, 3, "behind what a copy that slept would claim");
}

#[test]
fn stop_ends_both_sides() {
    let mut pair = Pair::start(&Options::default());
    pair.wait_paired();
    let stop =
        std::process::Command::new(POLLUX).args(["stop", "vm"]).env("POLLUX_RUN_DIR", &pair.folder).status();
    assert!(stop.expect("it runs").success());
    assert_eq!(pair.primary.wait(Duration::from_secs(10)).and_then(|s| s.code()), Some(0));
    assert_eq!(pair.backup.wait(Duration::from_secs(10)).and_then(|s| s.code()), Some(0));
}

#[test]
fn a_primary_that_is_told_to_end_hands_the_vm_over_and_its_clients_notice_nothing_wrong() {
    for signal in [Signal::TERM, Signal::HUP] {
        let mut pair = Pair::start(&Options::default());
        pair.wait_paired();
        let mut client = Client::new(pair.service, 1);
        client.wait_ready();
        client.work(ms(100)).expect("a right history");
        pair.primary.signal(signal);
        let logs = |pair: &Pair| format!("{}\n{}", pair.primary.log(), pair.backup.log());
        let work = client.work(ms(400)).and_then(|()| client.check());
        assert!(work.is_ok(), "{work:?}\n{}", logs(&pair));
        let status = pair.primary.wait(Duration::from_secs(10)).and_then(|status| status.code());
        assert_eq!(status, Some(0), "{}", logs(&pair));
        assert!(pair.primary.log().contains("handed over"), "it says so: {}", pair.primary.log());
        let solo = eventually("the backup is live", || pair.backup_status().filter(|s| s.role == "solo"));
        assert_eq!(solo.generation, 2);
        pair.backup.signal(Signal::TERM);
        let status = pair.backup.wait(Duration::from_secs(10)).and_then(|status| status.code());
        assert_eq!(status, Some(0), "who is alone ends the VM");
    }
}

#[test]
fn a_second_start_of_a_vm_that_runs_is_refused() {
    let mut pair = Pair::start(&Options::default());
    pair.wait_paired();
    let arbiter = pair.folder.join("arbiter").display().to_string();
    let other = tempfile::tempdir().expect("a folder");
    let args = ["run", "--name", "vm", "--kernel", TINY, "--backup", "127.0.0.1:1", "--arbiter", &arbiter];
    let output = std::process::Command::new(POLLUX).args(args).env("POLLUX_RUN_DIR", other.path()).output();
    let output = output.expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("is held by"), "{said}");
    assert_eq!(output.status.code(), Some(70), "as the table of exit statuses says");
}

mod cut {
    use super::*;
    use std::process::Command;

    /// Two network namespaces with a link between them that can be cut.
    struct Cable(String);

    impl Cable {
        fn lay() -> Option<Self> {
            let name = format!("px{}", std::process::id());
            let (a, b) = (format!("{name}a"), format!("{name}b"));
            let ip = |args: &str| {
                Command::new("ip").args(args.split(' ')).output().is_ok_and(|o| o.status.success())
            };
            let laid = ip(&format!("netns add {a}"))
                && ip(&format!("netns add {b}"))
                && ip(&format!("link add {a} netns {a} type veth peer name {b} netns {b}"))
                && ip(&format!("-n {a} addr add 10.77.0.1/24 dev {a}"))
                && ip(&format!("-n {b} addr add 10.77.0.2/24 dev {b}"))
                && ip(&format!("-n {a} link set {a} up"))
                && ip(&format!("-n {b} link set {b} up"))
                && ip(&format!("-n {b} link set lo up"));
            laid.then_some(Self(name))
        }
        fn inside(&self, end: &str) -> Vec<String> {
            strings(&["ip", "netns", "exec", &format!("{}{end}", self.0)])
        }
        fn cut(&self) {
            let a = format!("{}a", self.0);
            let _ = Command::new("ip").args(["-n", &a, "link", "set", &a, "down"]).status();
        }
    }

    impl Drop for Cable {
        fn drop(&mut self) {
            for end in ["a", "b"] {
                let _ = Command::new("ip").args(["netns", "del", &format!("{}{end}", self.0)]).output();
            }
        }
    }

    #[test]
    fn a_cut_link_between_the_hosts_lets_exactly_one_side_run() {
        let Some(_) = Cable::lay() else {
            println!("skipped: network namespaces need root and iproute2");
            assert!(
                std::env::var_os("CI").is_none() || !rustix::process::geteuid().is_root(),
                "CI can do this"
            );
            return;
        };
        for round in 0..rounds(3).min(10) {
            let cable = Cable::lay().expect("as before");
            let mut pair = Pair::start(&Options {
                primary_wrapper: cable.inside("a"),
                backup_wrapper: cable.inside("b"),
                backup_listen: "10.77.0.2:7878".into(),
                ..Options::default()
            });
            pair.wait_paired();
            let mut client = Client::new(pair.service, 1);
            client.wait_ready();
            client.work(ms(100)).expect("a right history");
            cable.cut();
            client.work(ms(1500)).and_then(|()| client.check()).expect("a right history");
            let (primary, backup) = (pair.primary.is_running(), pair.backup.is_running());
            assert!(primary != backup, "round {round}: exactly one runs, not {primary} and {backup}");
            let loser = if primary { &mut pair.backup } else { &mut pair.primary };
            assert_eq!(loser.wait(ms(100)).and_then(|s| s.code()), Some(70), "{}", loser.log());
        }
    }
}
