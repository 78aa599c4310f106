//! The guest's network card meets the host's network: a port of the user-space switch, or a TAP device.
//!
//! Sending never waits: a network may lose packets, a VM must not stand still for them. A switch that has gone is
//! waited for, and learns anew where the guest is when it is back.

use crate::events::EventSender;
use crate::fence::Fence;
use crate::outlet::{Outlet, Unit};
use crate::sys::tap;
use pollux_node::Event;
use pollux_switch::{Claim, PortClient, PortCloser, PortError, PortReceiver, PortSender, SwitchAddr};
use pollux_vocab::SlotId;
use std::fs::File;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long to try to reach the switch at the start.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// How long one attempt to reach a switch that has gone may take, and how long to wait before the next.
const RECONNECT_PATIENCE: Duration = Duration::from_secs(1);
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
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

/// A plugged-in card. Frames leave through a thread of their own and come in through another one, which also
/// reconnects a port whose switch has gone:
///
/// ```text
///  connected ── the stream fails, in either direction ──► gone ── the switch is back ──► connected, announce
/// ```
#[derive(Debug)]
pub struct NetPort {
    outlet: Option<Outlet>,
    line: Arc<Line>,
}

/// What a card's threads share with the node.
#[derive(Debug, Default)]
struct Line {
    fence: Fence,
    /// The stream to the switch, while there is one.
    stream: Mutex<Option<PortSender>>,
    /// Ends the stream that there was last.
    closer: Mutex<Option<PortCloser>>,
    closed: AtomicBool,
    connected: AtomicBool,
    /// Whose MAC speaks here, as the switch is told before the next frame; and whether it has been told.
    claim: Mutex<(Option<Claim>, bool)>,
    /// Set by a reconnection until somebody asks.
    reconnected: AtomicBool,
    /// Frames lost because they could not be sent.
    lost: AtomicU64,
}

impl NetPort {
    /// Plugs the card in `slot` in; received frames go to `events`.
    pub fn open(target: &NetTarget, slot: SlotId, events: &EventSender) -> Result<Self, NetError> {
        let thread = std::thread::Builder::new().name(format!("net{slot}"));
        let line = Arc::<Line>::default();
        let (shared, events) = (line.clone(), events.clone());
        let outlet_name = format!("net{slot}-out");
        let outlet = match target {
            NetTarget::Switch(addr) => {
                let client = PortClient::connect(addr, CONNECT_PATIENCE)
                    .map_err(|e| NetError::Switch { addr: addr.to_string(), why: e.to_string() })?;
                let receiver = line.connect(client);
                let addr = addr.clone();
                thread
                    .spawn(move || keep_receiving(&addr, slot, receiver, &shared, &events))
                    .map_err(NetError::Thread)?;
                let line = line.clone();
                Some(
                    Outlet::spawn(outlet_name, Unit::Frames, move |frames| line.send(&frames))
                        .map_err(NetError::Thread)?,
                )
            }
            NetTarget::Tap(name) => {
                let fault = |source| NetError::Tap { name: name.clone(), source };
                let sender = tap::open(name).map_err(fault)?;
                let receiver = sender.try_clone().map_err(fault)?;
                let name = name.clone();
                line.connected.store(true, Ordering::Relaxed);
                thread
                    .spawn(move || receive_tap(receiver, &name, slot, &shared, &events))
                    .map_err(NetError::Thread)?;
                let line = line.clone();
                let write = move |frames: Vec<Vec<u8>>| line.send_tap(&sender, &frames);
                Some(Outlet::spawn(outlet_name, Unit::Frames, write).map_err(NetError::Thread)?)
            }
            NetTarget::None => None,
        };
        Ok(Self { outlet, line })
    }

    /// Sends a frame, or loses it; never waits. False: there was no room for it.
    pub fn send(&self, frame: Vec<u8>) -> bool {
        self.outlet.as_ref().is_none_or(|outlet| outlet.offer(frame))
    }

    /// What frames do not pass while this side may have been replaced: after the other side's announcement they
    /// would lead the switch back to this one.
    #[must_use]
    pub fn fence(&self) -> &Fence {
        &self.line.fence
    }

    /// From the next frame on this side speaks as `claim` says. The switch gives it the MAC if that is newer than what
    /// it knows.
    pub fn claim(&self, claim: Claim) {
        *lock(&self.line.claim) = (Some(claim), false);
    }

    /// Frames that were taken and could not be sent.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.line.lost.load(Ordering::Relaxed)
    }

    /// Whether the card is plugged into something that is gone.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.outlet.is_some() && !self.line.connected.load(Ordering::Relaxed)
    }

    /// True once after every reconnection: the switch has to learn anew where the guest is.
    pub fn take_reconnected(&self) -> bool {
        self.line.reconnected.swap(false, Ordering::AcqRel)
    }

    /// The guest will send nothing more.
    pub fn close(&mut self) {
        if let Some(outlet) = &mut self.outlet {
            outlet.close();
        }
    }

    /// After [`NetPort::close`], waits for the last frames to leave, at most until `deadline`.
    pub fn wait_closed(&self, deadline: Instant) {
        if let Some(outlet) = &self.outlet {
            outlet.wait_closed(deadline);
        }
    }
}

impl Drop for NetPort {
    fn drop(&mut self) {
        // What was taken leaves first, within the outlet's time.
        drop(self.outlet.take());
        self.line.close();
    }
}

impl Line {
    fn connect(&self, client: PortClient) -> PortReceiver {
        *lock(&self.closer) = Some(client.closer());
        let (sender, receiver) = client.split();
        let mut stream = lock(&self.stream);
        lock(&self.claim).1 = false;
        *stream = Some(sender);
        drop(stream);
        self.connected.store(true, Ordering::Relaxed);
        // Closed meanwhile: then nobody else ends this stream.
        if self.closed.load(Ordering::SeqCst) {
            self.close();
        }
        receiver
    }

    fn disconnect(&self) {
        self.connected.store(false, Ordering::Relaxed);
        *lock(&self.stream) = None;
    }

    fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.fence.end();
        if let Some(closer) = &*lock(&self.closer) {
            closer.close();
        }
    }

    /// Sends frames in one go, or loses them. False: never again.
    fn send(&self, frames: &[Vec<u8>]) -> bool {
        if !self.fence.pass() {
            return false;
        }
        let mut stream = lock(&self.stream);
        let Some(sender) = stream.as_mut() else {
            self.lose(frames.len());
            return true;
        };
        let mut claim = lock(&self.claim);
        if let (Some(said), false) = &*claim {
            sender.claim(said);
            claim.1 = true;
        }
        drop(claim);
        for frame in frames {
            match sender.send(frame) {
                Ok(()) => {}
                Err(PortError::FrameLength(_)) => self.lose(1),
                Err(_) => break,
            }
        }
        // After an error the stream is dead, and the receiving thread hears of it and reconnects.
        if sender.flush().is_err() {
            self.lose(frames.len());
            *stream = None;
        }
        true
    }

    fn send_tap(&self, mut device: &File, frames: &[Vec<u8>]) -> bool {
        if !self.fence.pass() {
            return false;
        }
        for frame in frames {
            if device.write_all(frame).is_err() {
                self.lose(1);
            }
        }
        true
    }

    fn lose(&self, frames: usize) {
        self.lost.fetch_add(frames as u64, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Receives until the node or the card is gone; a switch that goes is waited for.
fn keep_receiving(
    addr: &SwitchAddr,
    slot: SlotId,
    mut receiver: PortReceiver,
    line: &Line,
    events: &EventSender,
) {
    loop {
        let mut frame = Vec::new();
        let error = loop {
            match receiver.recv(&mut frame) {
                Ok(()) => {
                    if events.send(Event::Packet { slot, frame: std::mem::take(&mut frame) }).is_err() {
                        return;
                    }
                }
                Err(error) => break error,
            }
        };
        line.disconnect();
        if line.closed.load(Ordering::SeqCst) {
            return;
        }
        tracing::error!(slot, %addr, %error, "the switch is gone; the guest has no network until it is back");
        let mut told = false;
        let client = loop {
            match PortClient::connect(addr, RECONNECT_PATIENCE) {
                _ if line.closed.load(Ordering::SeqCst) => return,
                Ok(client) => break client,
                // One that answers but does not speak the protocol is not asked without end, either.
                Err(error) => {
                    if matches!(error, PortError::Wire(_)) && !std::mem::replace(&mut told, true) {
                        tracing::error!(slot, %addr, %error, "what answers there is no switch that this side can use; trying on");
                    }
                    std::thread::sleep(RECONNECT_PAUSE);
                }
            }
        };
        receiver = line.connect(client);
        line.reconnected.store(true, Ordering::Release);
        tracing::warn!(slot, %addr, "the switch is back");
    }
}

fn receive_tap(mut device: File, name: &str, slot: SlotId, line: &Line, events: &EventSender) {
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    loop {
        let error = match device.read(&mut buffer) {
            Ok(n @ 1..) => match events.send(Event::Packet { slot, frame: buffer[..n].to_vec() }) {
                Ok(()) => continue,
                Err(_) => return,
            },
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Ok(_) => std::io::ErrorKind::UnexpectedEof.into(),
            Err(error) => error,
        };
        line.connected.store(false, Ordering::Relaxed);
        tracing::error!(slot, name, %error, "the TAP device is gone; the guest has no network until the VM is restarted");
        return;
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
