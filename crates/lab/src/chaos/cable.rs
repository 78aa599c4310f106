//! Two hosts on one machine: a network namespace each, joined to the clients' side by a bridge, and to each other by a
//! [`Wire`].
//!
//! ```text
//!  clients, switch ── bridge 198.18.N.1 ─┬─ veth ─ host a 198.18.N.2 ── tap 198.19.N.1 ─┐
//!                                        └─ veth ─ host b 198.18.N.3 ── tap 198.19.N.2 ─┴─ wire (delay, loss, cuts)
//! ```
//!
//! The addresses are those that RFC 2544 keeps for tests. The devices are made in this process's own namespace and moved:
//! an open TAP device stays open. Invariant: everything made here is gone when the value is.

use super::wire::Wire;
use anyhow::{Context, Result, bail};
use pollux_host::sys::tap;
use std::process::Command;

/// The port of the backup, and of the switch; nobody else is in these networks.
const PORT: u16 = 7878;

/// The hosts and what is between them.
pub struct Cable {
    tag: String,
    net: u32,
    /// From a to b and back.
    pub wire: Wire,
}

/// Why there can be no namespaces here; `None`: there can.
pub fn obstacle() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("network namespaces need root".into());
    }
    if run("netns list").is_err() {
        return Some("there is no `ip netns` (Debian's package iproute2)".into());
    }
    if !std::path::Path::new("/dev/net/tun").exists() {
        return Some("there is no /dev/net/tun".into());
    }
    None
}

fn run(words: &str) -> Result<()> {
    let output = Command::new("ip").args(words.split(' ')).output().context("cannot start `ip`")?;
    if !output.status.success() {
        bail!("ip {words}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// What is added to the tag for the name of a host, by side.
const HOSTS: &[&str] = &["a", "b"];

/// Takes the namespaces and the bridge away again.
struct Cleaner<'a>(&'a str, bool);

impl Drop for Cleaner<'_> {
    fn drop(&mut self) {
        if self.1 {
            clean(self.0);
        }
    }
}

fn clean(tag: &str) {
    for host in HOSTS {
        let _ = run(&format!("netns del {tag}{host}"));
    }
    let _ = run(&format!("link del {tag}"));
}

impl Cable {
    /// Makes it all.
    pub fn lay(seed: u64) -> Result<Self> {
        let pid = std::process::id();
        let (tag, net) = (format!("pxc{pid}"), pid % 250);
        let mut cleaner = Cleaner(&tag, true);
        run(&format!("link add {tag} type bridge"))?;
        run(&format!("addr add 198.18.{net}.1/24 dev {tag}"))?;
        run(&format!("link set {tag} up"))?;
        let mut taps = Vec::new();
        for (side, number) in HOSTS.iter().zip(2..) {
            let name = format!("{tag}{side}");
            run(&format!("netns add {name}"))?;
            run(&format!("link add {name} type veth peer name eth0 netns {name}"))?;
            run(&format!("link set {name} master {tag} up"))?;
            run(&format!("-n {name} link set lo up"))?;
            run(&format!("-n {name} addr add 198.18.{net}.{number}/24 dev eth0"))?;
            run(&format!("-n {name} link set eth0 up"))?;
            let tap_name = format!("{name}r");
            taps.push(tap::open(&tap_name).context("cannot make a TAP device")?);
            run(&format!("link set {tap_name} netns {name}"))?;
            run(&format!("-n {name} addr add 198.19.{net}.{}/24 dev {tap_name}", number - 1))?;
            run(&format!("-n {name} link set {tap_name} mtu 9000 up"))?;
        }
        let (second, first) = (taps.pop().context("no device")?, taps.pop().context("one device")?);
        let wire = Wire::lay(first, second, seed)?;
        cleaner.1 = false;
        drop(cleaner);
        Ok(Self { tag, net, wire })
    }

    /// Plugs host `side` into the clients' network, or out of it.
    pub fn plug_service(&self, side: usize, plugged: bool) -> Result<()> {
        let (end, state) = (HOSTS[side], if plugged { "up" } else { "down" });
        run(&format!("link set {}{end} {state}", self.tag))
    }

    /// What goes before a command that runs on host `side`.
    pub fn wrapper(&self, side: usize) -> Vec<String> {
        ["ip", "netns", "exec", &format!("{}{}", self.tag, HOSTS[side])].map(String::from).to_vec()
    }

    /// Where the backup listens.
    pub fn backup_listen(&self) -> String {
        format!("198.19.{}.2:{PORT}", self.net)
    }

    /// Where the switch listens.
    pub fn switch_listen(&self) -> String {
        format!("tcp:198.18.{}.1:{PORT}", self.net)
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        clean(&self.tag);
    }
}
