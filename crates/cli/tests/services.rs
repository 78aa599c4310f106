//! Services of an unmodified Debian, installed with `--packages` alone: up after a boot, and not wrong after a failover.
//!
//! Needs apt, ssh and many minutes for the first build, so it runs where `POLLUX_TEST_DEBIAN=1` is set; elsewhere it says that it
//! was skipped. `POLLUX_TEST_CACHE` names a folder for the images.

mod common;

use common::*;
use rustix::process::Signal;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// From reset until ssh answers, on a busy host.
const BOOT_PATIENCE: Duration = Duration::from_secs(300);

/// What `pollux image build` has made.
struct Built {
    image: pollux_image::Image,
    key: PathBuf,
    _folder: tempfile::TempDir,
}

fn asked_for() -> bool {
    let asked = std::env::var_os("POLLUX_TEST_DEBIAN").is_some();
    if !asked {
        println!("skipped: set POLLUX_TEST_DEBIAN=1 to test with Debian");
    }
    asked
}

/// Builds an image with `packages` and a key of our own; a mirror without updates will do for a test.
fn build(packages: &str) -> Built {
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("key");
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status();
    assert!(made.expect("ssh-keygen").success());
    let attempt = |extra: &[&str]| {
        let mut command = Command::new(POLLUX);
        command.args(["image", "build", "--packages", packages, "--size", "4G", "--json", "--ssh-key"]);
        command.arg(key.with_extension("pub")).args(extra);
        if let Some(cache) = std::env::var_os("POLLUX_TEST_CACHE") {
            command.arg("--cache").arg(cache);
        }
        command.output().expect("it runs")
    };
    let mut output = attempt(&[]);
    if String::from_utf8_lossy(&output.stderr).contains("--no-updates") {
        println!("the mirror's updates cannot be fetched: without them");
        output = attempt(&["--no-updates"]);
    }
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let image = serde_json::from_slice(&output.stdout).expect("JSON");
    Built { image, key, _folder: folder }
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
        let arbiter = folder.join("arbiter").display().to_string();
        let mut words =
            strings(&["run", "--name", "vm", "--console", "none", "--memory", "1G", "--net", &net]);
        words.extend(strings(&["--append", &built.image.command_line, "--disk", &disk("primary.img")]));
        for (flag, path) in [("--kernel", &built.image.kernel), ("--initrd", &built.image.initrd)] {
            words.extend([flag.to_owned(), path.display().to_string()]);
        }
        let backup = protected.then(|| {
            let instance = strings(&["backup", "--listen", "127.0.0.1:0", "--instance", "backup"]);
            let mut args = instance;
            args.extend(strings(&["--arbiter", &arbiter, "--disk", &disk("backup.img"), "--net", &net]));
            spawn(folder, "backup", &[], &args)
        });
        if protected {
            let at = eventually("the backup listens", || status(folder, "backup").ok()?.listen);
            words.extend(strings(&["--backup", &at, "--arbiter", &arbiter, "--trust-disks"]));
        }
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
            "ConnectTimeout=10",
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
        self.primary.signal(Signal::KILL);
        let _ = self.primary.child.wait();
    }
}

#[test]
fn services_installed_as_packages_alone_are_up_after_a_boot_as_on_debian() {
    if !asked_for() {
        return;
    }
    let built = build("redis-server,nginx,postgresql");
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
    let built = build("redis-server,nginx,postgresql");
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
    let built = build("redis-server,nginx,postgresql");
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
    let built = build("redis-server,nginx,postgresql");
    let mut guest = Guest::start(&built, &[], true);
    guest.wait_up();
    let postgres = |command: &str| format!("cd /tmp && runuser -u postgres -- {command}");
    guest.run(&postgres("createdb bench"));
    guest.run(&postgres("/usr/lib/postgresql/17/bin/pgbench -q -i -s 1 bench"));
    // Every confirmed transaction is a line of the log, outside of the database.
    let load = postgres("/usr/lib/postgresql/17/bin/pgbench -n -c 4 -T 10 bench");
    let mut client = guest.ssh_command();
    client.arg(&load).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let client = client.spawn().expect("ssh");
    std::thread::sleep(Duration::from_secs(4));
    guest.kill_primary();
    let output = client.wait_with_output().expect("ssh");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "the session lives on: {said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let line = said.lines().find_map(|line| line.strip_prefix("number of transactions actually processed: "));
    let confirmed: u64 = line.and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{said}"));
    assert!(said.contains("number of failed transactions: 0"), "{said}");
    let sql = "select count(*), sum(delta) = (select sum(abalance) from pgbench_accounts), \
        sum(delta) = (select sum(tbalance) from pgbench_tellers), \
        sum(delta) = (select sum(bbalance) from pgbench_branches) from pgbench_history";
    let found = guest.run(&postgres(&format!("psql -At bench -c \"{sql}\"")));
    assert_eq!(
        found.trim(),
        format!("{confirmed}|t|t|t"),
        "none is lost, none is there twice, and the sums agree"
    );
}

/// Services that take long to install: each in an image of its own, up after its boot.
fn is_up(packages: &str, units: &str, check: &str, answer: &str) {
    if !asked_for() {
        return;
    }
    let built = build(packages);
    let mut guest = Guest::start(&built, &[], false);
    guest.wait_up();
    guest.expect_up(units);
    let said = guest.run(check);
    assert!(said.contains(answer), "{said}");
}

#[test]
fn mariadb_is_up() {
    is_up("mariadb-server", "mariadb", "mariadb -e 'select 6*7'", "42");
}

#[test]
fn etcd_is_up() {
    is_up("etcd-server,etcd-client", "etcd", "etcdctl put a b && etcdctl get a", "b");
}

#[test]
fn zookeeper_is_up() {
    is_up("zookeeperd", "zookeeper", "/usr/share/zookeeper/bin/zkCli.sh ls / 2>&1", "[zookeeper]");
}

#[test]
fn nodejs_and_memcached_are_up() {
    let check = "node -e 'const s=require(\"net\").connect(11211,\"127.0.0.1\");s.write(\"version\\r\\n\");s.on(\"data\",d=>{console.log(String(d));s.end()})'";
    is_up("nodejs,memcached", "memcached", check, "VERSION");
}

#[test]
fn podman_runs_a_container() {
    // No registry: the container's file system is a static busybox.
    let check = "mkdir -p /srv/c/bin && cp /usr/bin/busybox /srv/c/bin/ && ln -sf busybox /srv/c/bin/sh && \
        tar -C /srv/c -c . | podman import -q - c && podman run --rm c /bin/sh -c '/bin/busybox echo inside $(/bin/busybox id -u)'";
    is_up("podman,busybox-static,netavark,aardvark-dns,nftables", "ssh", check, "inside 0");
}
