//! What to run: where ports connect, which addresses the gateway has, which host ports lead to a guest.
//!
//! Invariant: a [`Config`] that passed `check` has all its addresses inside its subnet and none twice.
//! The defaults are those of QEMU's user network (10.0.2.0/24, gateway .2, DNS .3, first guest .15), so that
//! an image that ran there runs here.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// The most TCP connections that [`Config::tcp_flows_max`] may allow: fewer than the gateway has ports.
const TCP_FLOWS_MAX: usize = 32_768;

/// An Ethernet address.
pub type MacAddr = [u8; 6];

/// What a switch does. [`Config::new`] gives the defaults.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where ports connect to.
    pub listen: SwitchAddr,
    /// The network that the gateway and the guests are in.
    pub subnet: Subnet,
    /// The gateway's address; with `host_loopback` a guest that connects to it reaches the host's loopback.
    pub gateway: Ipv4Addr,
    /// The address at which guests find a resolver; `None`: guests are told of no resolver.
    pub dns: Option<Ipv4Addr>,
    /// Where DNS goes; `None`: the first `nameserver` of the host's `/etc/resolv.conf`.
    pub dns_upstream: Option<SocketAddr>,
    /// The first address that DHCP gives out, and where forwards without a guest address lead; the rest
    /// follow upwards to the end of the subnet. `None`: no DHCP.
    pub dhcp_first: Option<Ipv4Addr>,
    /// Addresses that DHCP keeps for certain guests.
    pub reservations: Vec<(MacAddr, Ipv4Addr)>,
    /// Host ports that lead to guests.
    pub forwards: Vec<Forward>,
    /// Whether guests may connect to the outside at all.
    pub nat: bool,
    /// Whether the gateway's address leads a guest to the host's loopback (needs `nat`). Off unless asked for: what
    /// listens there trusts whoever reaches it.
    pub host_loopback: bool,
    /// How long a forwarded connection waits for the guest to accept it before its client is reset.
    pub connect_timeout: Duration,
    /// Ports at a time; more are turned away.
    pub ports_max: usize,
    /// Ports at a time from one host's address (all Unix sockets count as one host).
    pub ports_per_peer_max: usize,
    /// TCP connections at a time through the gateway; more clients wait in the backlog, a guest's SYN is dropped.
    pub tcp_flows_max: usize,
    /// Of these, how many one guest may open outward.
    pub tcp_flows_per_guest_max: usize,
    /// UDP mappings at a time, each way; the longest idle one makes room for a new one.
    pub udp_flows_max: usize,
    /// Bytes that wait for a slow port; frames beyond are dropped and counted.
    pub port_queue_bytes: usize,
    /// Bytes of buffer in the gateway per TCP connection and direction.
    pub tcp_buffer_bytes: usize,
}

impl Config {
    /// The default network behind `listen`, with no forwards.
    #[must_use]
    pub fn new(listen: SwitchAddr) -> Self {
        Self {
            listen,
            subnet: Subnet { network: Ipv4Addr::new(10, 0, 2, 0), prefix: 24 },
            gateway: Ipv4Addr::new(10, 0, 2, 2),
            dns: Some(Ipv4Addr::new(10, 0, 2, 3)),
            dns_upstream: None,
            dhcp_first: Some(Ipv4Addr::new(10, 0, 2, 15)),
            reservations: Vec::new(),
            forwards: Vec::new(),
            nat: true,
            host_loopback: false,
            connect_timeout: Duration::from_secs(5),
            ports_max: 256,
            ports_per_peer_max: 64,
            tcp_flows_max: 4096,
            tcp_flows_per_guest_max: 1024,
            udp_flows_max: 1024,
            port_queue_bytes: 4 * 1024 * 1024,
            tcp_buffer_bytes: 128 * 1024,
        }
    }

    /// The guest that a forward without a guest address leads to.
    pub(crate) fn default_guest(&self) -> Option<Ipv4Addr> {
        self.dhcp_first
    }

    /// Says what is wrong with the configuration, if anything.
    pub(crate) fn check(&self) -> Result<(), String> {
        if !(8..=30).contains(&self.subnet.prefix) {
            return Err(format!("the subnet {} must have a prefix of 8 to 30 bits", self.subnet));
        }
        let own = [Some(self.gateway), self.dns];
        let named = own.into_iter().chain([self.dhcp_first]).flatten();
        for address in named.chain(self.reservations.iter().map(|&(_, address)| address)) {
            if !self.subnet.has_host(address) {
                return Err(format!("{address} is no host address of the subnet {}", self.subnet));
            }
        }
        if self.dns == Some(self.gateway) {
            return Err("the gateway and the resolver must have different addresses".to_owned());
        }
        let taken = |address: Ipv4Addr| own.contains(&Some(address));
        if self.dhcp_first.is_some_and(taken) || self.reservations.iter().any(|&(_, a)| taken(a)) {
            return Err("DHCP may not give out the gateway's or the resolver's address".to_owned());
        }
        for forward in &self.forwards {
            match forward.guest.or(self.default_guest()) {
                None => return Err(format!("forward {forward}: name a guest address, DHCP being off")),
                Some(guest) if !self.subnet.has_host(guest) || taken(guest) => {
                    return Err(format!("forward {forward}: {guest} is no guest of {}", self.subnet));
                }
                Some(_) if forward.guest_port == 0 => {
                    return Err(format!("forward {forward}: the guest's port may not be 0"));
                }
                Some(_) => {}
            }
        }
        if self.tcp_flows_max > TCP_FLOWS_MAX {
            return Err(format!("at most {TCP_FLOWS_MAX} TCP connections are possible"));
        }
        if !(4096..=1 << 20).contains(&self.tcp_buffer_bytes) {
            return Err("the TCP buffer must have 4096 to 1048576 bytes".to_owned());
        }
        Ok(())
    }
}

/// Where a switch listens for ports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SwitchAddr {
    /// A Unix socket at this path.
    Unix(PathBuf),
    /// `host:port` over TCP. Not authenticated: only for networks where everybody is trusted.
    Tcp(String),
}

impl fmt::Display for SwitchAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(name) => write!(f, "tcp:{name}"),
        }
    }
}

impl FromStr for SwitchAddr {
    type Err = ParseError;

    /// `unix:PATH`, `tcp:HOST:PORT`; without a scheme, what contains a `/` is a path.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let tcp = |name: &str| match name.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                Ok(Self::Tcp(name.to_owned()))
            }
            _ => Err(ParseError::Address(text.to_owned())),
        };
        match (text.strip_prefix("unix:"), text.strip_prefix("tcp:")) {
            (Some(""), _) => Err(ParseError::Address(text.to_owned())),
            (Some(path), _) => Ok(Self::Unix(path.into())),
            (None, Some(name)) => tcp(name),
            (None, None) if text.contains('/') => Ok(Self::Unix(text.into())),
            (None, None) => tcp(text),
        }
    }
}

/// An IPv4 network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subnet {
    /// Any address in it.
    pub network: Ipv4Addr,
    /// Length of the network part, in bits.
    pub prefix: u8,
}

impl Subnet {
    /// The netmask.
    #[must_use]
    pub fn mask(&self) -> Ipv4Addr {
        let host_bits = 32 - u32::from(self.prefix.min(32));
        Ipv4Addr::from(u32::MAX.checked_shl(host_bits).unwrap_or(0))
    }

    /// Whether `address` lies in the network.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        address.to_bits() & self.mask().to_bits() == self.network.to_bits() & self.mask().to_bits()
    }

    /// The broadcast address.
    #[must_use]
    pub fn broadcast(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.network.to_bits() | !self.mask().to_bits())
    }

    /// Whether `address` can be a host's: in the network, and neither its first nor its last address.
    #[must_use]
    pub fn has_host(&self, address: Ipv4Addr) -> bool {
        let first = Ipv4Addr::from(self.network.to_bits() & self.mask().to_bits());
        self.contains(address) && address != first && address != self.broadcast()
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = ParseError;

    /// `ADDRESS/PREFIX`.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong = || ParseError::Subnet(text.to_owned());
        let (network, prefix) = text.split_once('/').ok_or_else(wrong)?;
        Ok(Self {
            network: network.parse().map_err(|_| wrong())?,
            prefix: prefix.parse().ok().filter(|&prefix| prefix <= 32).ok_or_else(wrong)?,
        })
    }
}

/// The transport protocol of a forward.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proto {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A host port that leads to a guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Forward {
    /// The transport protocol.
    pub proto: Proto,
    /// Where the host listens; port 0 lets the system choose ([`crate::Bound`] tells).
    pub host: SocketAddr,
    /// The guest; `None`: the first one that DHCP serves.
    pub guest: Option<Ipv4Addr>,
    /// The port on the guest.
    pub guest_port: u16,
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let proto = if self.proto == Proto::Tcp { "tcp" } else { "udp" };
        write!(f, "{proto}:{}-", self.host)?;
        if let Some(guest) = self.guest {
            write!(f, "{guest}")?;
        }
        write!(f, ":{}", self.guest_port)
    }
}

impl FromStr for Forward {
    type Err = ParseError;

    /// `[tcp:|udp:][HOST]:PORT-[GUEST]:PORT`, as QEMU's `hostfwd`, but an empty HOST is 127.0.0.1 and not
    /// every address that the host has.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong = || ParseError::Forward(text.to_owned());
        let (proto, rest) = match (text.strip_prefix("tcp:"), text.strip_prefix("udp:")) {
            (Some(rest), _) => (Proto::Tcp, rest),
            (None, Some(rest)) => (Proto::Udp, rest),
            (None, None) => (Proto::Tcp, text),
        };
        let (host, guest) = rest.rsplit_once('-').ok_or_else(wrong)?;
        let (host_ip, host_port) = host.rsplit_once(':').ok_or_else(wrong)?;
        let (guest_ip, guest_port) = guest.rsplit_once(':').ok_or_else(wrong)?;
        let host_ip = match host_ip.trim_start_matches('[').trim_end_matches(']') {
            "" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            ip => ip.parse().map_err(|_| wrong())?,
        };
        let guest = match guest_ip {
            "" => None,
            ip => Some(ip.parse().map_err(|_| wrong())?),
        };
        let host_port = host_port.parse().map_err(|_| wrong())?;
        let guest_port = guest_port.parse().ok().filter(|&port: &u16| port != 0).ok_or_else(wrong)?;
        Ok(Self { proto, host: SocketAddr::new(host_ip, host_port), guest, guest_port })
    }
}

/// A text that is not what it should be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ParseError {
    /// not an address of a switch
    #[error("`{0}` is no address of a switch: write unix:PATH or tcp:HOST:PORT")]
    Address(String),
    /// not a forward
    #[error("`{0}` is no forward: write [tcp:|udp:][HOST]:PORT-[GUEST]:PORT, as in tcp:127.0.0.1:6379-:6379")]
    Forward(String),
    /// not a subnet
    #[error("`{0}` is no subnet: write ADDRESS/PREFIX, as in 10.0.2.0/24")]
    Subnet(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forward_reads_as_it_prints() {
        for text in ["tcp:127.0.0.1:6379-:6379", "udp:0.0.0.0:53-10.0.2.15:5353", "tcp:[::1]:0-:80"] {
            assert_eq!(text.parse::<Forward>().unwrap().to_string(), text);
        }
        let short: Forward = ":8080-:80".parse().unwrap();
        assert_eq!(short.to_string(), "tcp:127.0.0.1:8080-:80");
        for text in ["", "tcp:", "tcp:80", "tcp::80-:0", "tcp::99999-:1", "tcp:x:1-:1", "icmp::1-:1"] {
            assert!(text.parse::<Forward>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_address_says_whether_it_is_a_path_or_a_host() {
        let unix = |path: &str| SwitchAddr::Unix(path.into());
        assert_eq!("/run/switch".parse(), Ok(unix("/run/switch")));
        assert_eq!("unix:switch".parse(), Ok(unix("switch")));
        assert_eq!("tcp:[::1]:7000".parse(), Ok(SwitchAddr::Tcp("[::1]:7000".into())));
        assert_eq!("node1:7000".parse(), Ok(SwitchAddr::Tcp("node1:7000".into())));
        for text in ["", "unix:", "tcp:", "node1", "tcp:node1:x"] {
            assert!(text.parse::<SwitchAddr>().is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_outside_the_subnet_are_refused() {
        let good = Config::new(SwitchAddr::Unix("x".into()));
        assert_eq!(good.check(), Ok(()));
        let bad = |change: &dyn Fn(&mut Config)| {
            let mut config = good.clone();
            change(&mut config);
            assert!(config.check().is_err(), "{config:?}");
        };
        bad(&|c| c.gateway = Ipv4Addr::new(10, 0, 3, 2));
        bad(&|c| c.gateway = Ipv4Addr::new(10, 0, 2, 255));
        bad(&|c| c.dns = Some(c.gateway));
        bad(&|c| c.dhcp_first = Some(c.gateway));
        bad(&|c| c.subnet.prefix = 31);
        bad(&|c| c.forwards = vec!["tcp::0-10.0.2.2:1".parse().unwrap()]);
        bad(&|c| (c.dhcp_first, c.forwards) = (None, vec!["tcp::0-:1".parse().unwrap()]));
    }
}
