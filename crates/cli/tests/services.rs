//! Services of an unmodified Debian, installed with `--packages` alone: up after a boot, and not wrong after a failover.
//!
//! Each is loaded from outside through the switch, by a client that counts: every answer must be the one before it plus
//! one, so that none may be lost, repeated or forgotten. In the middle the primary is killed. What was seen is printed.
//!
//! Needs apt, ssh and many minutes for the first builds, so it runs where `POLLUX_TEST_DEBIAN=1` is set; elsewhere it says that it
//! was skipped. `POLLUX_TEST_CACHE` names a folder for the images; `POLLUX_TEST_NO_UPDATES=1` is for mirrors without updates. Run one
//! test at a time: each takes two cores.

mod common;

use common::*;
use rustix::process::Signal;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// From reset until ssh answers, on a busy host.
const BOOT_PATIENCE: Duration = Duration::from_secs(600);
/// How long a client counts before its service's primary is killed, and after.
const COUNTING: Duration = Duration::from_secs(8);
/// Answers that make a load, on either side of the kill.
const ANSWERS_MIN: usize = 5;
/// Services that can share a guest.
const SMALL: &str = "redis-server,nginx,postgresql,memcached";

/// What `pollux image build` has made.
struct Built {
    image: pollux_image::Image,
    key: PathBuf,
}

fn asked_for() -> bool {
    let asked = std::env::var_os("POLLUX_TEST_DEBIAN").is_some();
    if !asked {
        println!("skipped: set POLLUX_TEST_DEBIAN=1 to test with Debian");
    }
    asked
}

/// Builds an image with `packages` that lets `pollux ssh` in.
fn build(packages: &str) -> Built {
    let cache = std::env::var_os("POLLUX_TEST_CACHE").map(PathBuf::from);
    let cache = cache.unwrap_or_else(pollux_image::default_cache);
    let attempt = |extra: &[&str]| {
        let mut command = Command::new(POLLUX);
        command.args(["image", "build", "--packages", packages, "--size", "4G", "--json", "--ssh"]);
        command.args(extra).arg("--cache").arg(&cache);
        command.output().expect("it runs")
    };
    let without = std::env::var_os("POLLUX_TEST_NO_UPDATES").is_some();
    let output = attempt(if without { &["--no-updates"] } else { &[] });
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let image = serde_json::from_slice(&output.stdout).expect("JSON");
    Built { image, key: cache.join("ssh/id_ed25519") }
}

/// A VM, protected or not, behind a switch that leads to its ports.
struct Guest<'a> {
    built: &'a Built,
    primary: Process,
    backup: Option<Process>,
    _switch: Process,
    /// Where the asked-for ports are, in their order; ssh comes first.
    ports: Vec<SocketAddr>,
    _folder: tempfile::TempDir,
}

impl<'a> Guest<'a> {
    fn start(built: &'a Built, ports: &[u16], protected: bool) -> Self {
        let keep = tempfile::tempdir().expect("a folder");
        let folder = keep.path();
        let listen = format!("unix:{}", folder.join("switch.sock").display());
        let bound = folder.join("bound");
        let mut words = strings(&["switch", "--listen", &listen, "--bound", &bound.display().to_string()]);
        for port in [22].iter().chain(ports) {
            words.extend(strings(&["--forward", &format!("tcp:127.0.0.1:0-:{port}")]));
        }
        let switch = spawn(folder, "switch", &[], &words);
        let ports = eventually("the switch is bound", || {
            fs::read_to_string(&bound).ok()?.lines().map(|line| line.parse().ok()).collect::<Option<Vec<_>>>()
        });
        let disk = |name: &str| {
            let disk = folder.join(name);
            pollux_image::fresh_disk_copy(&built.image.disk, &disk).expect("a copy");
            disk.display().to_string()
        };
        let net = format!("switch={listen}");
        let arbiter = arbiter(folder);
        let mut words =
            strings(&["run", "--name", "vm", "--console", "none", "--memory", "1G", "--net", &net]);
        words.extend(strings(&["--append", &built.image.command_line, "--disk", &disk("primary.img")]));
        for (flag, path) in [("--kernel", &built.image.kernel), ("--initrd", &built.image.initrd)] {
            words.extend([flag.to_owned(), path.display().to_string()]);
        }
        let backup = protected.then(|| {
            let instance =
                strings(&["backup", "--listen", "127.0.0.1:0", "--instance", "backup", "--trust-disks"]);
            let mut args = instance;
            args.extend(strings(&["--arbiter", &arbiter, "--disk", &disk("backup.img"), "--net", &net]));
            spawn(folder, "backup", &[], &args)
        });
        if protected {
            let at = eventually("the backup listens", || status(folder, "backup").ok()?.listen);
            words.extend(strings(&["--backup", &at, "--arbiter", &arbiter, "--trust-disks"]));
        }
        // A host that builds and tests other things, too, makes each side wait for a processor for longer than by default.
        words.extend(strings(&["--failure-ms", "2000", "--stall-ms", "20000"]));
        let primary = spawn(folder, "primary", &[], &words);
        Self { built, primary, backup, _switch: switch, ports, _folder: keep }
    }

    /// The host's ssh, or scp, at this guest.
    fn ssh_command(&self) -> Command {
        let mut command = Command::new("ssh");
        command.arg("-i").arg(&self.built.key).args(["-p", &self.ports[0].port().to_string()]);
        for option in [
            "BatchMode=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            "ConnectTimeout=60",
            "ServerAliveInterval=15",
        ] {
            command.args(["-o", option]);
        }
        command.arg("root@127.0.0.1");
        command
    }

    fn try_run(&self, script: &str) -> Output {
        self.ssh_command().arg(script).output().expect("ssh")
    }

    /// What `script` prints, run by root inside.
    fn run(&self, script: &str) -> String {
        let output = self.try_run(script);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let log = self.backup.as_ref().map(Process::log).unwrap_or_default();
        assert!(
            output.status.success(),
            "{script}: {}\n{text}\n{}\n{}\n{log}",
            output.status,
            String::from_utf8_lossy(&output.stderr),
            self.primary.log()
        );
        text
    }

    /// Waits until ssh answers.
    fn wait_up(&mut self) {
        let begun = Instant::now();
        while !self.try_run("true").status.success() {
            assert!(self.primary.is_running(), "the VM ended:\n{}", self.primary.log());
            assert!(begun.elapsed() < BOOT_PATIENCE, "no ssh:\n{}", self.primary.log());
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// Every one of `units` is up, and nothing has failed.
    fn expect_up(&self, units: &str) {
        let state =
            self.try_run("systemctl is-system-running --wait; systemctl --failed --no-legend --plain");
        let state = String::from_utf8_lossy(&state.stdout).into_owned();
        assert!(
            state.starts_with("running"),
            "{state}\n{}",
            self.run("journalctl -b -p warning --no-pager | tail -50")
        );
        for unit in units.split(' ') {
            assert_eq!(self.run(&format!("systemctl is-active {unit}")).trim(), "active", "{unit}");
        }
    }

    fn kill_primary(&mut self) {
        let folder = self._folder.path();
        eventually("it is protected", || status(folder, "backup").ok().filter(|s| s.role == "backup"));
        self.primary.signal(Signal::KILL);
        let _ = self.primary.child.wait();
    }

    /// A client inside, whose lines and answers cross the switch.
    fn session(&self, client: &str) -> Session {
        let mut command = self.ssh_command();
        command.arg(client).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().expect("ssh");
        let asks = child.stdin.take().expect("a pipe");
        let answers = BufReader::new(child.stdout.take().expect("a pipe"));
        Session { child, asks, answers, client: client.into() }
    }
}

#[test]
fn services_installed_as_packages_alone_are_up_after_a_boot_as_on_debian() {
    if !asked_for() {
        return;
    }
    let built = build(SMALL);
    let mut guest = Guest::start(&built, &[80], false);
    guest.wait_up();
    guest.expect_up(
        "redis-server nginx postgresql@17-main ssh systemd-networkd systemd-resolved systemd-udevd",
    );
    assert_eq!(guest.run("redis-cli ping").trim(), "PONG");
    assert_eq!(guest.run("runuser -u postgres -- psql -Atc 'select 6*7'").trim(), "42");
    let page =
        Command::new("curl").args(["-sS", &format!("http://{}/", guest.ports[1])]).output().expect("curl");
    assert!(String::from_utf8_lossy(&page.stdout).contains("Welcome to nginx"), "{page:?}");
    // A Debian that its administrator knows.
    assert_eq!(guest.run("dpkg --audit; apt-get check -qq; cat /proc/1/comm").trim(), "systemd");
    assert_eq!(
        guest.run("readlink /var/run; stat -c %a /dev/shm; stat -f -c %T /sys/fs/cgroup").trim(),
        "/run\n1777\ncgroup2fs"
    );
    assert!(guest.run("passwd -S root").starts_with("root L"), "root is locked");
    assert!(guest.run("modprobe -a overlay br_netfilter nf_tables veth && lsmod").contains("overlay"));
    assert!(guest.run("ip -4 addr show dev eth0").contains("dynamic"), "its address comes by DHCP");
    assert_eq!(guest.run("wc -c < /etc/machine-id").trim(), "33");
    let first_boot =
        "systemctl show -P ConditionResult ldconfig.service systemd-journal-catalog-update.service";
    assert_eq!(guest.run(first_boot).replace('\n', ""), "nono", "that was done while it was installed");
    assert_eq!(
        guest.run("lsmod | grep -cE '^(cfg80211|drm) '; true").trim(),
        "0",
        "for no card that is here"
    );
    // What is given back in the guest is given back on the host.
    let image = fs::File::open(guest._folder.path().join("primary.img")).expect("its disk");
    let allocated = || image.metadata().expect("it is there").blocks() * 512;
    guest.run("head -c 300000000 /dev/urandom > /var/big && sync && rm /var/big && sync");
    let before = allocated();
    println!("{}", guest.run("fstrim -v /"));
    let freed = before.saturating_sub(allocated());
    assert!(freed >= 250_000_000, "the image shrank by {freed} bytes");
    let took = guest.run("systemd-analyze");
    println!("{took}");
    println!("{}", guest.run("systemd-analyze blame --no-pager | head -15"));
    guest.run("systemctl poweroff");
    assert!(guest.primary.wait(Duration::from_secs(120)).is_some_and(|status| status.success()));
}

#[test]
fn two_copies_of_an_image_are_two_machines() {
    if !asked_for() {
        return;
    }
    let built = build(SMALL);
    let identities = [0, 1].map(|_| {
        let mut guest = Guest::start(&built, &[], false);
        guest.wait_up();
        guest.run("cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub")
    });
    assert_ne!(identities[0], identities[1]);
}

#[test]
fn a_download_goes_on_through_a_failover_and_its_hash_is_right() {
    if !asked_for() {
        return;
    }
    let built = build(SMALL);
    let mut guest = Guest::start(&built, &[80], true);
    guest.wait_up();
    let file = "/var/www/html/big";
    let made = guest.run(&format!("head -c 500000000 /dev/urandom > {file} && sync && sha256sum < {file}"));
    let url = format!("http://{}/big", guest.ports[1]);
    let download = std::thread::spawn(move || {
        let command = format!("curl -sS --max-time 600 {url} | sha256sum");
        Command::new("bash").args(["-c", &format!("set -o pipefail; {command}")]).output().expect("curl")
    });
    std::thread::sleep(Duration::from_millis(800));
    assert!(!download.is_finished(), "it must be under way");
    guest.kill_primary();
    let got = download.join().expect("a thread");
    assert!(got.status.success(), "{}", String::from_utf8_lossy(&got.stderr));
    assert_eq!(String::from_utf8_lossy(&got.stdout), made);
    guest.expect_up("nginx ssh");
}

#[test]
fn postgresql_forgets_no_transaction_that_it_has_confirmed_when_its_primary_dies() {
    if !asked_for() {
        return;
    }
    let built = build(SMALL);
    let mut guest = Guest::start(&built, &[5432], true);
    guest.wait_up();
    // What an administrator does who wants it to be reached from outside.
    let sql = |query: &str| format!("cd /; runuser -u postgres -- psql -Atqc \"{query}\"");
    guest.run(&sql("alter system set listen_addresses = '*'"));
    guest.run("echo 'host all all 10.0.2.0/24 trust' >> /etc/postgresql/17/main/pg_hba.conf");
    guest.run("systemctl restart postgresql@17-main");
    let pgbench = |words: &str| {
        let mut command = Command::new("pgbench");
        command.args(["-h", "127.0.0.1", "-p", &guest.ports[1].port().to_string(), "-U", "postgres"]);
        command.args(words.split(' ')).arg("postgres").stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("pgbench (Debian's package postgresql-client)")
    };
    let made = pgbench("-q -i -s 1").wait_with_output().expect("pgbench");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    // Every confirmed transaction is counted outside of the database.
    let client = pgbench("-n -c 4 -T 16");
    std::thread::sleep(COUNTING);
    guest.kill_primary();
    let output = client.wait_with_output().expect("pgbench");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "every connection lives on: {said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let line = said.lines().find_map(|line| line.strip_prefix("number of transactions actually processed: "));
    let confirmed: u64 = line.and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{said}"));
    assert!(said.contains("number of failed transactions: 0"), "{said}");
    let books = "select count(*), sum(delta) = (select sum(abalance) from pgbench_accounts), \
        sum(delta) = (select sum(tbalance) from pgbench_tellers), \
        sum(delta) = (select sum(bbalance) from pgbench_branches) from pgbench_history";
    let found = guest.run(&sql(books));
    println!("postgresql: {said}");
    assert_eq!(
        found.trim(),
        format!("{confirmed}|t|t|t"),
        "none is lost, none is there twice, and the sums agree"
    );
}

/// Somebody who asks a service to count, a line a request, and reads a number from each answer.
struct Session {
    child: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
    client: String,
}

impl Session {
    fn count(&mut self, request: &str) -> u64 {
        writeln!(self.asks, "{request}").and_then(|()| self.asks.flush()).expect("the session lives");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the session lives");
        let answer = line.trim().parse();
        answer.unwrap_or_else(|_| panic!("{}: {line:?} is the answer to {request}", self.client))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A service that can count.
struct Service {
    packages: &'static str,
    units: &'static str,
    /// What an administrator does first.
    prepare: &'static str,
    /// The client: reads requests, writes a number for each.
    client: &'static str,
    request: &'static str,
    /// Whether another client must find the count where the first has left it.
    kept: bool,
}

/// Boots the service protected, counts, kills the primary, counts on.
fn counts_through_a_kill(service: &Service) {
    if !asked_for() {
        return;
    }
    let built = build(service.packages);
    let begun = Instant::now();
    let mut guest = Guest::start(&built, &[], true);
    guest.wait_up();
    guest.expect_up(service.units);
    println!("{}: up after {:.1} s", service.units, begun.elapsed().as_secs_f64());
    guest.run(service.prepare);
    let mut session = guest.session(service.client);
    let mut last = session.count(service.request);
    let mut tallies = [0; 2];
    let mut longest = Duration::ZERO;
    for (life, tally) in tallies.iter_mut().enumerate() {
        if life == 1 {
            guest.kill_primary();
        }
        let begun = Instant::now();
        while begun.elapsed() < COUNTING {
            let asked = Instant::now();
            let answer = session.count(service.request);
            longest = longest.max(asked.elapsed());
            assert_eq!(answer, last + 1, "{}: lost, repeated or forgotten", service.units);
            (last, *tally) = (answer, *tally + 1);
        }
    }
    println!(
        "{}: {} answers, kill -9, {} more, none lost or contradicted; the longest took {longest:?}",
        service.units, tallies[0], tallies[1]
    );
    assert!(tallies.iter().all(|tally| *tally >= ANSWERS_MIN), "{tallies:?} answers are no load");
    drop(session);
    if service.kept {
        assert_eq!(guest.session(service.client).count(service.request), last + 1, "to somebody else");
    }
    guest.expect_up(service.units);
}

#[test]
fn redis_counts_through_the_death_of_its_primary() {
    counts_through_a_kill(&Service {
        packages: SMALL,
        units: "redis-server",
        prepare: "redis-cli config set appendonly yes",
        client: "redis-cli",
        request: "INCR count",
        kept: true,
    });
}

#[test]
fn memcached_counts_through_the_death_of_its_primary() {
    counts_through_a_kill(&Service {
        packages: SMALL,
        units: "memcached",
        prepare: "exec 3<>/dev/tcp/127.0.0.1/11211; printf 'set count 0 0 1\r\n0\r\n' >&3; read -r x <&3; echo $x",
        client: "exec 3<>/dev/tcp/127.0.0.1/11211; while read -r line; do printf '%s\r\n' \"$line\" >&3; \
            read -r answer <&3; echo ${answer%%[!0-9]*}; done",
        request: "incr count 1",
        kept: true,
    });
}

#[test]
fn postgresql_counts_through_the_death_of_its_primary() {
    counts_through_a_kill(&Service {
        packages: SMALL,
        units: "postgresql@17-main",
        prepare: "cd /; runuser -u postgres -- psql -qc 'create table counter as select 0 as n'",
        client: "cd /; runuser -u postgres -- psql -qAt",
        request: "update counter set n = n + 1 returning n;",
        kept: true,
    });
}

#[test]
fn mariadb_counts_through_the_death_of_its_primary() {
    counts_through_a_kill(&Service {
        packages: "mariadb-server",
        units: "mariadb",
        prepare: "mariadb -e 'create database d; create table d.counter as select 0 as n'",
        client: "mariadb --skip-column-names --batch --unbuffered d",
        request: "update counter set n = n + 1; select n from counter;",
        kept: true,
    });
}

#[test]
fn etcd_counts_through_the_death_of_its_primary() {
    counts_through_a_kill(&Service {
        packages: "etcd-server,etcd-client,nodejs",
        units: "etcd",
        prepare: "etcdctl put count 0",
        // The revision of the whole store: every write makes it one more.
        client: "while read -r line; do etcdctl put count \"$line\" -w json | \
            sed 's/.*\"revision\":\\([0-9]*\\).*/\\1/'; done",
        request: "x",
        kept: true,
    });
}

#[test]
fn nodejs_counts_through_the_death_of_its_primary() {
    counts_through_a_kill(&Service {
        packages: "etcd-server,etcd-client,nodejs",
        units: "ssh",
        prepare: "node --version",
        client: "node -e 'let n = 0; require(\"readline\").createInterface({input: process.stdin})\
            .on(\"line\", () => console.log(++n))'",
        request: "x",
        kept: false,
    });
}

#[test]
fn zookeeper_counts_through_the_death_of_its_primary() {
    counts_through_a_kill(&Service {
        packages: "zookeeperd",
        units: "zookeeper",
        prepare: "/usr/share/zookeeper/bin/zkCli.sh create /counts x",
        // The server numbers what is created in sequence; its client says so on standard error.
        client: "/usr/share/zookeeper/bin/zkCli.sh 2>&1 | \
            sed -u -n 's|^.*Created /counts/n0*\\([0-9]*\\).*|0\\1|p'",
        request: "create -s /counts/n x",
        kept: true,
    });
}

#[test]
fn a_container_of_podman_counts_through_the_death_of_its_primary() {
    counts_through_a_kill(&Service {
        packages: "podman,busybox-static,netavark,aardvark-dns,nftables",
        units: "ssh",
        // No registry: the container's file system is a static busybox.
        prepare: "mkdir -p /srv/c/bin && cp /usr/bin/busybox /srv/c/bin/ && ln -sf busybox /srv/c/bin/sh && \
            tar -C /srv/c -c . | podman import -q - counter",
        client: "podman run --rm -i counter /bin/sh -c 'n=0; while read -r line; do n=$((n+1)); echo $n; done'",
        request: "x",
        kept: false,
    });
}
