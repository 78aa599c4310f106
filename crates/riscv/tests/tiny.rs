//! The embedded guest (guests/tiny) on the computer, in process: every device works, and the machine is a function of
//! what it was fed (DESIGN 1, 2), wherever runs stop, whatever is cached, and across snapshots.
//!
//! Not here: real processes and hosts (crates/cli/tests), instruction by instruction comparison (tests/oracle).

mod world;

use pollux_riscv::{Boot, Computer, Config, DeviceConfig};
use pollux_vocab::{ConsoleId, Input, Output};
use world::frames::*;
use world::{Deed, Disturbance, Random, World, replay};

const TINY: &[u8] = include_bytes!("../../../guests/tiny/tiny.elf");
const DISK_BYTES: usize = 1 << 20;
/// The network card's slot, and the virtio console's.
const NET: u8 = 1;
const TERMINAL: u8 = 3;

fn config(harts: u32) -> Config {
    let devices = vec![
        DeviceConfig::Block { bytes: DISK_BYTES as u64, read_only: false, serial: "tiny".into() },
        DeviceConfig::Net { mac: GUEST_MAC },
        DeviceConfig::Rng,
        DeviceConfig::Console,
    ];
    Config { ram_bytes: 8 << 20, harts, devices, rtc_base_ns: 0, ..Config::default() }
}

fn is_ready(world: &mut World) -> bool {
    world.uart.find("tiny: ready").is_some_and(|at| world.uart[at..].contains('\n'))
}

fn started(harts: u32, command_line: &str, disk: Vec<u8>) -> World {
    let mut world = World::new(&config(harts), TINY, command_line, disk);
    assert!(world.run_until(is_ready), "not ready:\n{}", world.uart);
    world
}

/// A client of the service.
struct Client {
    id: u64,
    seq: u64,
}

impl Client {
    /// One request; its answer, or none if the guest ended or kept silent.
    fn ask(&mut self, world: &mut World, verb: &str, rest: &str) -> Option<String> {
        self.seq += 1;
        self.ask_again(world, verb, rest)
    }

    fn ask_again(&mut self, world: &mut World, verb: &str, rest: &str) -> Option<String> {
        let request = format!("{verb} {} {}{rest}\n", self.id, self.seq);
        let prefix = format!("{} {} ", self.id, self.seq);
        world.frames.clear();
        world.send(Input::Packet { slot: NET, frame: udp(&request) });
        let mut answer = None;
        world.run_until(|world| {
            let texts = world.frames.drain(..).filter_map(|frame| udp_text(&frame));
            answer =
                texts.filter_map(|text| text.strip_prefix(&prefix).map(|a| a.trim_end().to_owned())).next();
            answer.is_some()
        });
        answer
    }

    fn expect(&mut self, world: &mut World, verb: &str, rest: &str, answer: &str) {
        assert_eq!(self.ask(world, verb, rest).as_deref(), Some(answer), "{verb}{rest}");
    }
}

/// A bit of everything: counting, late copies, blocks, entropy, time, rubbish.
fn work(world: &mut World, rounds: u64) {
    let mut client = Client { id: 7, seq: 0 };
    let mut random = Random(rounds | 1);
    for round in 1..=rounds {
        client.expect(world, "INC", "", &round.to_string());
        if round % 3 == 0 {
            assert_eq!(client.ask_again(world, "INC", ""), Some(round.to_string()), "counted once");
        }
        client.expect(world, "PUT", &format!(" {} {:x}", round % 5, round * 1000), "ok");
        client.expect(world, "CHK", &format!(" {}", round % 5), &format!("{:x}", round * 1000));
        assert_eq!(client.ask(world, "RND", "").map(|text| text.len()), Some(32));
        assert!(client.ask(world, "TIME", "").is_some());
        let mut rubbish = udp(&format!("INC 99 {round}\n"));
        let at = 12 + random.below(rubbish.len() as u64 - 12) as usize; // no checksum is over the addresses
        rubbish[at] ^= 1 << random.below(8);
        world.send(Input::Packet { slot: NET, frame: rubbish });
        let mut rubbish = ping(&[1; 300]);
        rubbish.truncate(random.below(300) as usize + 14);
        world.send(Input::Packet { slot: NET, frame: rubbish });
    }
}

fn power_off(world: &mut World) {
    world.type_line("poweroff");
    assert!(!world.run_until(|_| false));
    assert_eq!(world.power_off_status(), Some(0), "{}", world.uart);
}

fn assert_deterministic(world: &World, harts: u32, command_line: &str) {
    let digests = world.log.iter().filter(|(_, deed)| matches!(deed, Deed::Compare(_))).count();
    assert!(digests >= 5, "only {digests} digests: nothing to compare");
    let fresh = || {
        let boot = Boot::Kernel { image: TINY, initrd: None, command_line };
        Computer::new(&config(harts), boot).expect("a machine")
    };
    replay(fresh(), world, Disturbance::None);
    for seed in [3, 77] {
        replay(fresh(), world, Disturbance::Splits(seed));
    }
    replay(fresh(), world, Disturbance::Restored);
}

#[test]
fn every_device_serves_the_guest() {
    let mut world = started(1, "", vec![0; DISK_BYTES]);
    assert!(world.uart.contains("ip=10.0.2.15 disk=ok boot=1 rng=ok net=ok"), "{}", world.uart);
    assert_eq!(world.terminal, "tiny: hello\r\n");
    assert_eq!(world.frames, [gratuitous_arp()]);
    work(&mut world, 5);
    power_off(&mut world);
    assert_eq!(&world.disk[..8], b"tiny1\0\0\0");
}

#[test]
fn arp_and_ping_are_answered() {
    let mut world = started(1, "", vec![0; DISK_BYTES]);
    world.frames.clear();
    world.send(Input::Packet { slot: NET, frame: arp_request() });
    assert!(world.run_until(|world| world.frames.contains(&arp_reply())));
    let payload: Vec<u8> = (0..=255).cycle().take(1001).collect();
    world.send(Input::Packet { slot: NET, frame: ping(&payload) });
    let answered = |world: &mut World| world.frames.iter().any(|f| pong_payload(f) == Some(&payload));
    assert!(world.run_until(answered));
}

#[test]
fn a_late_copy_of_a_request_does_nothing() {
    let mut world = started(1, "", vec![0; DISK_BYTES]);
    let mut client = Client { id: 1, seq: 5 };
    client.expect(&mut world, "INC", "", "1");
    client.expect(&mut world, "INC", "", "2");
    client.expect(&mut world, "PUT", " 0 abc", "ok");
    let mut late = Client { id: 1, seq: 5 };
    assert_eq!(late.ask(&mut world, "INC", ""), None);
    assert_eq!(late.ask(&mut world, "PUT", " 0 def"), None);
    client.expect(&mut world, "GET", "", "2");
    client.expect(&mut world, "CHK", " 0", "abc");
}

#[test]
fn a_disk_error_reaches_the_guest() {
    let mut world = started(1, "", vec![0; DISK_BYTES]);
    let mut client = Client { id: 1, seq: 0 };
    world.disk_fails = true;
    client.expect(&mut world, "PUT", " 3 1", "bad");
    client.expect(&mut world, "CHK", " 3", "bad");
    world.disk_fails = false;
    client.expect(&mut world, "PUT", " 3 1", "ok");
    client.expect(&mut world, "CHK", " 99999", "bad");
}

#[test]
fn a_disk_outlives_its_machine() {
    let mut world = started(1, "", vec![0; DISK_BYTES]);
    Client { id: 1, seq: 0 }.expect(&mut world, "PUT", " 9 feed", "ok");
    power_off(&mut world);
    let mut world = started(1, "", world.disk);
    assert!(world.uart.contains("boot=2"), "{}", world.uart);
    Client { id: 1, seq: 0 }.expect(&mut world, "CHK", " 9", "feed");
}

#[test]
fn a_guest_without_devices_gets_ready_too() {
    for harts in [1, 8] {
        let bare = Config { ram_bytes: 8 << 20, harts, devices: vec![], rtc_base_ns: 0, ..Config::default() };
        let mut world = World::new(&bare, TINY, "smp=1 ip=192.168.7.9", vec![]);
        let ready = "ready ip=192.168.7.9 disk=none boot=0 rng=none net=none";
        assert!(world.run_until(|world| world.uart.contains(ready)), "{}", world.uart);
        assert!(world.uart.contains(&format!("smp {harts} harts agree")), "{}", world.uart);
        power_off(&mut world);
    }
}

#[test]
fn the_consoles_echo_and_obey() {
    let mut world = started(1, "", vec![0; DISK_BYTES]);
    world.type_line("help");
    assert!(world.run_until(|world| world.uart.contains("help\r\ntiny: commands are")), "{}", world.uart);
    let input = Input::Console { console: ConsoleId::Virtio(TERMINAL), bytes: b"knock".to_vec() };
    world.send(input);
    assert!(world.run_until(|world| world.terminal.ends_with("knock")), "{}", world.terminal);
    for (line, status) in [("poweroff", 0), ("fail 9", 9), ("panic", 99)] {
        let mut world = started(1, "", vec![0; DISK_BYTES]);
        world.type_line(line);
        assert!(!world.run_until(|_| false));
        assert_eq!(world.power_off_status(), Some(status), "{line}: {}", world.uart);
    }
}

#[test]
fn a_client_can_end_the_guest() {
    let mut world = started(1, "", vec![0; DISK_BYTES]);
    Client { id: 1, seq: 0 }.expect(&mut world, "DIE", " 42", "ok");
    assert!(!world.run_until(|_| false));
    assert_eq!(world.power_off_status(), Some(42));
    assert!(world.said.iter().filter(|(_, output)| matches!(output, Output::PowerOff { .. })).count() == 1);
}

#[test]
fn an_idle_guest_is_the_same_machine_wherever_it_is_stopped() {
    let mut world = started(1, "", vec![0; DISK_BYTES]);
    work(&mut world, 60);
    power_off(&mut world);
    assert_deterministic(&world, 1, "");
}

#[test]
fn a_busy_guest_with_its_own_timer_is_the_same_machine_wherever_it_is_stopped() {
    let mut world = started(1, "load=1 sstc=1", vec![0; DISK_BYTES]);
    work(&mut world, 20);
    power_off(&mut world);
    assert_deterministic(&world, 1, "load=1 sstc=1");
}

#[test]
fn four_harts_are_the_same_machine_wherever_they_are_stopped() {
    let mut world = started(4, "smp=1", vec![0; DISK_BYTES]);
    assert!(world.uart.contains("tiny: smp 4 harts agree"), "{}", world.uart);
    work(&mut world, 10);
    power_off(&mut world);
    assert_deterministic(&world, 4, "smp=1");
}
