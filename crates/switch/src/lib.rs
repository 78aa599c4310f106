//! `pollux switch`: an Ethernet switch with a gateway, in user space, in a process of its own.
//!
//! Why it exists: on machines without privileges there is no bridge to plug a VM into, and whatever ends a
//! client's TCP connection must not die with the VM's host process (DESIGN 7). The primary's and the
//! backup's processes both connect to this one; a failover is then nothing but a MAC address that moves from
//! one port to another, and every connection that the gateway carries goes on.
//!
//! ```text
//!  host sockets          gateway (10.0.2.2)              fabric                 ports
//!  forwards in  ──►  tcp flows ─ smoltcp ─┐
//!  NAT out      ◄──  udp nat, dns, dhcp  ─┼─ frames ──  MAC table  ── frames ─┬─ primary's process
//!                                         ┘            learn, move, flood     └─ backup's process
//! ```
//!
//! One thread runs all of it, asleep in `epoll` until a descriptor is ready or a timer is due.
//!
//! Invariants: nothing that a port, a guest or a network peer sends can panic the switch, make it allocate
//! without bound, or make it wait for one of them; a slow port loses frames (counted), it never delays others.
//!
//! - [`Config`], [`SwitchAddr`], [`Forward`]: what to run.
//! - [`Switch`], [`Stopper`], [`run`]: running it.
//! - [`PortClient`]: the other end of a port, for the process that holds a VM.
//!
//! Not here: tap devices (the host crate's business), IPv6 in the gateway (frames are switched whatever they
//! carry), authentication of ports (use a Unix socket, or a network where everybody is trusted).
#![forbid(unsafe_code)]

mod client;
mod config;
mod fabric;
mod gateway;
mod owners;
mod poller;
mod port;
mod stats;
mod stream;
mod switch;
mod wire;

pub use client::{PortClient, PortCloser, PortError, PortReceiver, PortSender};
pub use config::{Config, Forward, MacAddr, ParseError, Proto, Subnet, SwitchAddr};
pub use stats::{GatewaySnapshot, PortSnapshot, Snapshot, Stats};
pub use switch::{Bound, Stopper, Switch, SwitchError, run};
pub use wire::{BEAT_EVERY, Claim, FRAME_BYTES_MAX, SILENCE_MAX, WireError};
