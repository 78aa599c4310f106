//! A network card in a real switch: what becomes of frames when the switch goes and comes back, and when this side
//! may have been replaced.

#[path = "../../switch/tests/common/cable.rs"]
mod cable;

use cable::Cable;
use pollux_host::clock;
use pollux_host::net::{NetPort, NetTarget, announcement};
use pollux_host::ports::HostPorts;
use pollux_node::{Event, HostTime, Ports};
use pollux_switch::{Config, PortClient, PortReceiver, PortSender, Stopper, Switch, SwitchAddr, SwitchError};
use pollux_vocab::{Generation, Output};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const GUEST: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const OTHER: [u8; 6] = [0x52, 0x54, 0, 0x65, 0x43, 0x21];

struct Running(Stopper, JoinHandle<Result<(), SwitchError>>);

fn start(path: &Path) -> Running {
    let switch = Switch::bind(Config::new(SwitchAddr::Unix(path.into()))).expect("free");
    let stopper = Stopper::new().expect("a descriptor");
    let thread = std::thread::spawn({
        let stopper = stopper.clone();
        move || switch.run(&stopper)
    });
    Running(stopper, thread)
}

impl Running {
    fn stop(self) {
        self.0.stop();
        self.1.join().expect("no panic").expect("in order");
    }
}

/// Somebody else on the same network.
fn other(path: &Path) -> (PortSender, PortReceiver) {
    PortClient::connect(&SwitchAddr::Unix(path.into()), Duration::from_secs(60)).expect("there").split()
}

/// What `receiver` gets, in order.
fn heard(mut receiver: PortReceiver) -> Receiver<Vec<u8>> {
    let (tell, frames) = channel();
    std::thread::spawn(move || {
        let mut frame = Vec::new();
        while receiver.recv(&mut frame).is_ok() && tell.send(frame.clone()).is_ok() {}
    });
    frames
}

fn plugged(path: &Path) -> HostPorts {
    let mut ports = HostPorts::default();
    let target = NetTarget::Switch(SwitchAddr::Unix(path.into()));
    let port = NetPort::open(&target, 0, &ports.sender()).expect("the switch is there");
    ports.add_net(0, GUEST, port);
    ports
}

fn frame(to: [u8; 6], from: [u8; 6], fill: u8) -> Vec<u8> {
    let mut frame = [to, from].concat();
    frame.extend([0x88, 0xb5]); // EtherType for experiments
    frame.resize(60, fill);
    frame
}

/// Turns the loop until `done` says so. A failure shows as too many turns rather than as a test that hangs.
fn turn(ports: &mut HostPorts, live: bool, mut done: impl FnMut(&mut HostPorts) -> bool) {
    for _ in 0..100_000 {
        if done(ports) {
            return;
        }
        ports.begin_turn(live);
        ports.wait(HostTime(clock::now().0 + 1_000_000));
        ports.set_lease(HostTime(u64::MAX));
    }
    panic!("it did not happen");
}

#[test]
fn a_port_reconnects_to_a_switch_that_is_back_and_announces_the_guest_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("switch");
    let first = start(&path);
    let mut ports = plugged(&path);
    first.stop();
    turn(&mut ports, true, |ports| !ports.nets_down().is_empty());

    let second = start(&path);
    let (mut sender, receiver) = other(&path);
    let frames = heard(receiver);
    let mut got = None;
    turn(&mut ports, true, |_| {
        got = frames.try_recv().ok();
        got.is_some()
    });
    assert_eq!(got, Some(announcement(GUEST)), "the switch learns where the guest is before it speaks");
    assert!(ports.nets_down().is_empty());

    sender.send(&frame(GUEST, OTHER, 1)).and_then(|()| sender.flush()).expect("the switch lives");
    let mut event = None;
    turn(&mut ports, true, |ports| {
        event = ports.poll_event().filter(|event| !matches!(event, Event::Network { .. }));
        event.is_some()
    });
    assert_eq!(event, Some(Event::Packet { slot: 0, frame: frame(GUEST, OTHER, 1) }));
    ports.release(Output::Packet { slot: 0, frame: frame(OTHER, GUEST, 2) });
    while frames.recv_timeout(Duration::from_secs(30)).expect("it arrives") != frame(OTHER, GUEST, 2) {}
    drop(ports);
    second.stop();
}

/// `POLLUX_CUT_S=600 cargo test -p pollux-host --test network a_cut_cable -- --nocapture` measures a longer cut.
#[test]
fn a_cut_cable_shows_while_it_lasts_and_the_port_is_back_soon_after_it() {
    let cut_for = std::env::var("POLLUX_CUT_S").map_or(5.0, |text| text.parse().expect("seconds"));
    let switch = Switch::bind(Config::new(SwitchAddr::Tcp("127.0.0.1:0".into())))
        .expect("a port of the loopback is free");
    let cable = Cable::to(&switch.bound().listen);
    let stopper = Stopper::new().expect("a descriptor");
    let thread = std::thread::spawn({
        let stopper = stopper.clone();
        move || switch.run(&stopper)
    });
    let mut ports = HostPorts::default();
    let port = NetPort::open(&NetTarget::Switch(cable.addr.clone()), 0, &ports.sender()).expect("there");
    ports.add_net(0, GUEST, port);
    cable.set_cut(true);
    let cut = Instant::now();
    turn(&mut ports, true, |ports| !ports.nets_down().is_empty());
    let noticed = cut.elapsed();
    std::thread::sleep(Duration::from_secs_f64(cut_for).saturating_sub(noticed));
    cable.set_cut(false);
    let mended = Instant::now();
    turn(&mut ports, true, |ports| ports.nets_down().is_empty());
    let back = mended.elapsed();
    println!("a cut of {cut_for} s: noticed after {noticed:?}, the port was back {back:?} after its end");
    assert!(
        back < Duration::from_secs(10),
        "{back:?}: promised are 1.2 s, on a machine with nothing else to do"
    );
    drop(ports);
    stopper.stop();
    thread.join().expect("no panic").expect("in order");
}

#[test]
fn a_standby_that_reconnects_does_not_draw_the_guest_to_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("switch");
    let first = start(&path);
    let mut ports = plugged(&path);
    first.stop();
    turn(&mut ports, false, |ports| !ports.nets_down().is_empty());
    let second = start(&path);
    let (mut sender, receiver) = other(&path);
    let frames = heard(receiver);
    turn(&mut ports, false, |ports| ports.nets_down().is_empty());
    // A frame to everybody arrives: the port works, and the next turn sees that it is back.
    sender.send(&frame([0xff; 6], OTHER, 1)).and_then(|()| sender.flush()).expect("the switch lives");
    turn(&mut ports, false, |ports| ports.poll_event().is_some());
    ports.begin_turn(false);
    ports.close(true);
    drop(ports);
    second.stop();
    assert_eq!(frames.into_iter().count(), 0, "nobody spoke for the guest");
}

#[test]
fn a_side_that_has_lost_sends_nothing_more() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("switch");
    let switch = start(&path);
    let mut ports = plugged(&path);
    let frames = heard(other(&path).1);
    ports.release(Output::Packet { slot: 0, frame: frame([0xff; 6], GUEST, 1) });
    assert_eq!(frames.recv().expect("sent"), frame([0xff; 6], GUEST, 1));
    ports.hold_fences();
    ports.claim(Generation(1));
    ports.release(Output::Packet { slot: 0, frame: frame([0xff; 6], GUEST, 2) });
    ports.close(false);
    drop(ports);
    switch.stop();
    assert_eq!(frames.into_iter().count(), 0, "the other side may have announced the guest");
}

#[test]
fn a_newer_generation_has_the_mac_with_its_first_frame_and_an_older_one_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("switch");
    let switch = start(&path);
    let (survivor, stale) = (plugged(&path), plugged(&path));
    let frames = heard(other(&path).1);
    survivor.own_nets(Generation(2));
    stale.own_nets(Generation(0));
    let say = |mut ports: HostPorts, fill| {
        ports.release(Output::Packet { slot: 0, frame: frame([0xff; 6], GUEST, fill) });
        ports
    };
    let survivor = say(survivor, 1);
    assert_eq!(frames.recv_timeout(Duration::from_secs(30)).expect("sent"), frame([0xff; 6], GUEST, 1));
    let stale = say(stale, 2);
    assert!(frames.recv_timeout(Duration::from_millis(300)).is_err(), "an old image of the VM takes nothing");
    let mut next = plugged(&path);
    next.open_fences(Generation(3));
    let next = say(next, 3);
    assert_eq!(frames.recv_timeout(Duration::from_secs(30)).expect("sent"), frame([0xff; 6], GUEST, 3));
    drop((survivor, stale, next));
    switch.stop();
}
