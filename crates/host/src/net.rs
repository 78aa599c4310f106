//! The guest's network card meets the host's network: a port of the user-space switch, or a TAP device.
//!
//! Sending never waits for long: a network may lose packets, a VM must not stand still for them.

use crate::events::EventSender;
use crate::sys::tap;
use pollux_node::Event;
use pollux_switch::{PortClient, PortSender, SwitchAddr};
use pollux_vocab::SlotId;
use std::fs::File;
use std::io::{Read, Write};
use std::time::Duration;

/// How long to try to reach the switch at the start.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// The longest frame a TAP device hands over.
const FRAME_BYTES_MAX: usize = 65_536;

/// Where a network card is plugged in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NetTarget {
    /// A port of `pollux switch`.
    Switch(SwitchAddr),
    /// A TAP device of this name.
    Tap(String),
    /// Nowhere: what the guest sends is dropped.
    None,
}

/// Why a network card cannot be plugged in.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// No switch there.
    #[error("cannot reach the switch at {addr}: {why}; start one with `pollux switch --listen {addr}`")]
    Switch {
        /// Where it should be.
        addr: String,
        /// What happened.
        why: String,
    },
    /// No TAP device.
    #[error(
        "cannot open the TAP device {name}: {source}; it needs CAP_NET_ADMIN, or a device made for you: ip tuntap add {name} mode tap user YOU"
    )]
    Tap {
        /// Its name.
        name: String,
        /// The host's answer.
        source: std::io::Error,
    },
    /// No thread.
    #[error("cannot start a thread for the network: {0}")]
    Thread(std::io::Error),
}

/// The sending half of a plugged-in card.
#[derive(Debug)]
pub enum NetPort {
    /// See [`NetTarget::Switch`].
    Switch(PortSender),
    /// See [`NetTarget::Tap`].
    Tap(File),
    /// See [`NetTarget::None`].
    None,
}

impl NetPort {
    /// Plugs the card in `slot` in; received frames go to `events`.
    pub fn open(target: &NetTarget, slot: SlotId, events: &EventSender) -> Result<Self, NetError> {
        let thread = std::thread::Builder::new().name(format!("net{slot}"));
        let events = events.clone();
        match target {
            NetTarget::Switch(addr) => {
                let fault = |e: &dyn std::fmt::Display| NetError::Switch {
                    addr: addr.to_string(),
                    why: e.to_string(),
                };
                let client = PortClient::connect(addr, CONNECT_PATIENCE).map_err(|e| fault(&e))?;
                let (sender, mut receiver) = client.split();
                let receive = move || {
                    let mut frame = Vec::new();
                    while receiver.recv(&mut frame).is_ok() {
                        if events.send(Event::Packet { slot, frame: std::mem::take(&mut frame) }).is_err() {
                            return;
                        }
                    }
                    tracing::error!(
                        slot,
                        "the switch is gone; the guest has no network until the VM is restarted"
                    );
                };
                thread.spawn(receive).map_err(NetError::Thread)?;
                Ok(Self::Switch(sender))
            }
            NetTarget::Tap(name) => {
                let fault = |source| NetError::Tap { name: name.clone(), source };
                let sender = tap::open(name).map_err(fault)?;
                let mut receiver = sender.try_clone().map_err(fault)?;
                let receive = move || {
                    let mut buffer = vec![0; FRAME_BYTES_MAX];
                    while let Ok(n) = receiver.read(&mut buffer) {
                        if events.send(Event::Packet { slot, frame: buffer[..n].to_vec() }).is_err() {
                            return;
                        }
                    }
                };
                thread.spawn(receive).map_err(NetError::Thread)?;
                Ok(Self::Tap(sender))
            }
            NetTarget::None => Ok(Self::None),
        }
    }

    /// Sends a frame, or loses it. False: lost.
    pub fn send(&mut self, frame: &[u8]) -> bool {
        match self {
            Self::Switch(sender) => sender.send(frame).and_then(|()| sender.flush()).is_ok(),
            Self::Tap(file) => file.write_all(frame).is_ok(),
            Self::None => true,
        }
    }
}

/// A reverse-ARP request from `mac`: makes every switch on the way learn where it is now. RFC 903; the guest's IP
/// address is not needed, and no host takes anything else from it.
#[must_use]
pub fn announcement(mac: [u8; 6]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(60);
    frame.extend_from_slice(&[0xff; 6]);
    frame.extend_from_slice(&mac);
    frame.extend_from_slice(&[0x80, 0x35]); // EtherType RARP
    frame.extend_from_slice(&[0, 1, 8, 0, 6, 4, 0, 3]); // Ethernet, IPv4, lengths 6 and 4, "request reverse"
    frame.extend_from_slice(&mac);
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(&mac);
    frame.extend_from_slice(&[0; 4]);
    frame.resize(60, 0);
    frame
}
