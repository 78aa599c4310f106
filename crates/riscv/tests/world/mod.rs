//! A world around a machine, for tests: an in-memory disk, entropy from a seed, a network with one client, somebody
//! at the terminal. All that it does to the machine goes into a log, which other machines are then fed.
//!
//! Delays come from a seed, so that answers overtake each other and arrive in the middle of things.

#![allow(dead_code, unreachable_pub, reason = "every test file uses a part of this")]

pub mod bounds;
#[path = "../../../../tests/chance.rs"]
mod chance;
pub mod driver;
pub mod frames;

pub use chance::Xorshift as Random;
use frames::{GUEST_MAC, udp};
use pollux_riscv::{Boot, Computer, Config, DeviceConfig, Machine, Stop};
use pollux_vocab::{
    ClockRate, ConsoleId, Digest, DiskOp, DiskRequest, DiskStatus, Icount, Input, Output, VirtTime,
};

/// The guest that a busy machine runs.
pub const TINY: &[u8] = include_bytes!("../../../../guests/tiny/tiny.elf");
/// Bytes of a busy machine's disk, and the slot of its network card.
pub const DISK_BYTES: usize = 1 << 20;
pub const NET: u8 = 1;

/// Two harts, disk, network card, source of entropy and console, in the middle of its work: a request to the disk is in
/// flight.
pub fn busy(command_line: &str) -> World {
    let devices = vec![
        DeviceConfig::Block { bytes: DISK_BYTES as u64, read_only: false, serial: "tiny".into() },
        DeviceConfig::Net { mac: GUEST_MAC },
        DeviceConfig::Rng,
        DeviceConfig::Console,
    ];
    let config = Config { ram_bytes: 8 << 20, harts: 2, devices, rtc_base_ns: 0, ..Config::default() };
    let mut world = World::new(&config, TINY, command_line, vec![0; DISK_BYTES]);
    assert!(world.run_until(|world| world.uart.contains("tiny: ready")), "{}", world.uart);
    world.send(Input::Packet { slot: NET, frame: udp("PUT 1 1 3 feed\n") });
    assert!(world.run_until(|world| !world.machine.pending().is_empty()), "the disk is asked");
    world
}

/// Steps between two digests in the log; an odd number, so that they hit anything.
const DIGEST_STEPS: u64 = 300_007;
/// Where a test gives up.
const STEPS_MAX: u64 = 200_000_000;
/// Idle waits in a row that nothing but the timer ends, after which the world has nothing more to do.
const QUIET_WAITS: u32 = 3;

/// What was done to the machine, and what was true of it.
#[derive(Clone, PartialEq, Debug)]
pub enum Deed {
    Apply(Input),
    Compare(Digest),
}

/// A machine and all that stands around it.
pub struct World {
    pub machine: Computer,
    pub disk: Vec<u8>,
    pub disk_fails: bool,
    pub random: Random,
    /// What was done, and when.
    pub log: Vec<(Icount, Deed)>,
    /// What the machine said, and when.
    pub said: Vec<(Icount, Output)>,
    /// What the UART and the virtio console showed.
    pub uart: String,
    pub terminal: String,
    /// Frames from the guest that nobody has looked at.
    pub frames: Vec<Vec<u8>>,
    /// What will happen, and from when on.
    coming: Vec<(Icount, Input)>,
    next_digest: Icount,
    quiet: u32,
}

impl World {
    pub fn new(config: &Config, image: &[u8], command_line: &str, disk: Vec<u8>) -> Self {
        let boot = Boot::Kernel { image, initrd: None, command_line };
        Self {
            machine: Computer::new(config, boot).expect("a machine"),
            disk,
            disk_fails: false,
            random: Random(0x5eed),
            log: Vec::new(),
            said: Vec::new(),
            uart: String::new(),
            terminal: String::new(),
            frames: Vec::new(),
            coming: Vec::new(),
            next_digest: Icount(DIGEST_STEPS),
            quiet: 0,
        }
    }

    /// Something will happen in a while.
    pub fn send(&mut self, input: Input) {
        let delay = self.random.below(30_000);
        self.coming.push((self.machine.icount().after(delay), input));
        self.quiet = 0;
    }

    pub fn type_line(&mut self, line: &str) {
        let bytes = format!("{line}\r").into_bytes();
        self.send(Input::Console { console: ConsoleId::Uart, bytes });
    }

    /// Goes on until a condition holds; `false` if the guest has ended, or nothing goes on, before that.
    pub fn run_until(&mut self, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        self.quiet = 0;
        while !done(self) {
            assert!(self.machine.icount().0 < STEPS_MAX, "not within {STEPS_MAX} steps:\n{}", self.uart);
            let due = self.coming.iter().map(|event| event.0).min().unwrap_or(self.next_digest);
            match self.machine.run(due.min(self.next_digest)) {
                Stop::Output => self.listen(),
                Stop::Until => self.act(),
                Stop::Idle { wake } => {
                    if !self.hurry(wake) {
                        return false;
                    }
                }
                Stop::Halted => return false,
            }
        }
        true
    }

    fn apply(&mut self, input: Input) {
        self.machine.apply(&input);
        self.log.push((self.machine.icount(), Deed::Apply(input)));
    }

    fn listen(&mut self) {
        while let Some(output) = self.machine.take_output() {
            self.said.push((self.machine.icount(), output.clone()));
            match output {
                Output::Console { console: ConsoleId::Uart, bytes } => {
                    self.uart.push_str(&String::from_utf8_lossy(&bytes));
                }
                Output::Console { bytes, .. } => self.terminal.push_str(&String::from_utf8_lossy(&bytes)),
                Output::Packet { frame, .. } => self.frames.push(frame),
                Output::Disk(request) => {
                    let input = self.disk_answer(&request);
                    self.send(input);
                }
                Output::EntropyWanted { slot, request, len } => {
                    let bytes = (0..len).map(|_| self.random.below(256) as u8).collect();
                    self.send(Input::Entropy { slot, request, bytes });
                }
                Output::Reset | Output::PowerOff { .. } => {}
            }
        }
    }

    fn disk_answer(&mut self, request: &DiskRequest) -> Input {
        let (mut data, mut status) = (Vec::new(), DiskStatus::Ok);
        match &request.op {
            _ if self.disk_fails => status = DiskStatus::IoError,
            DiskOp::Read { offset, len } => data = self.disk[*offset as usize..][..*len as usize].to_vec(),
            DiskOp::Write { offset, data } => {
                self.disk[*offset as usize..][..data.len()].copy_from_slice(data)
            }
            DiskOp::Zero { offset, len, .. } => self.disk[*offset as usize..][..*len as usize].fill(0),
            DiskOp::Flush => {}
        }
        Input::DiskDone { slot: request.slot, request: request.request, status, data }
    }

    /// Does what is due, and takes a digest if one is.
    fn act(&mut self) {
        let now = self.machine.icount();
        if now >= self.next_digest {
            assert_eq!(self.machine.pending().len(), self.open_requests(), "what the machine waits for");
            let digest = self.machine.digest();
            self.log.push((now, Deed::Compare(digest)));
            self.next_digest = now.after(DIGEST_STEPS);
        }
        let (due, coming) = std::mem::take(&mut self.coming).into_iter().partition(|event| event.0 <= now);
        self.coming = coming;
        let due: Vec<(Icount, Input)> = due;
        for (_, input) in due {
            self.deliver(input);
        }
    }

    fn deliver(&mut self, input: Input) {
        match input {
            Input::Packet { slot, .. } if !self.machine.packet_room(slot) => self.send(input),
            _ => self.apply(input),
        }
    }

    /// The guest idles: time jumps to what happens next. `false`: nothing does.
    fn hurry(&mut self, wake: Option<VirtTime>) -> bool {
        let first = (0..self.coming.len()).min_by_key(|i| self.coming[*i].0);
        if let Some(first) = first {
            let input = self.coming.remove(first).1;
            self.deliver(input);
            return true;
        }
        self.quiet += 1;
        let Some(time) = wake.filter(|_| self.quiet <= QUIET_WAITS) else { return false };
        self.apply(Input::Clock { time, rate: ClockRate::default() });
        true
    }

    /// Requests that are not answered yet.
    fn open_requests(&self) -> usize {
        let answers = |input: &Input| matches!(input, Input::DiskDone { .. } | Input::Entropy { .. });
        self.coming.iter().filter(|event| answers(&event.1)).count()
    }

    /// How the guest powered off, if that was the last it did.
    pub fn power_off_status(&self) -> Option<i32> {
        match self.said.last() {
            Some((_, Output::PowerOff { status })) => Some(*status),
            _ => None,
        }
    }
}

/// How a replayed machine is disturbed. None of it may show.
#[derive(Clone, Copy)]
pub enum Disturbance {
    None,
    /// Runs end at random places, and caches are dropped there.
    Splits(u64),
    /// At every digest, the machine is replaced by one restored from its snapshot.
    Restored,
}

/// Feeds a machine what another was fed. Every digest and every output must be the other's.
pub fn replay(mut machine: Computer, world: &World, disturbance: Disturbance) {
    let mut said = Vec::new();
    let mut random = Random(if let Disturbance::Splits(seed) = disturbance { seed } else { 1 });
    for (at, deed) in &world.log {
        advance(&mut machine, *at, disturbance, &mut random, &mut said);
        assert_eq!(machine.icount(), *at, "it must be possible to do {deed:?} where it was done");
        match deed {
            Deed::Apply(input) => machine.apply(input),
            Deed::Compare(digest) => {
                assert_same(&machine.digest(), digest, *at);
                if let Disturbance::Restored = disturbance {
                    let pending = machine.pending();
                    machine = Computer::restore(&machine.snapshot()).expect("its own snapshot");
                    assert_eq!(machine.pending(), pending);
                    assert_same(&machine.digest(), digest, *at);
                }
            }
        }
    }
    let last = world.machine.icount();
    advance(&mut machine, last, disturbance, &mut random, &mut said);
    assert_eq!(said.len(), world.said.len());
    for (ours, theirs) in said.iter().zip(&world.said) {
        assert_eq!(ours, theirs);
    }
}

fn assert_same(ours: &Digest, theirs: &Digest, at: Icount) {
    assert_eq!(
        (&ours.harts, &ours.devices, ours.ram),
        (&theirs.harts, &theirs.devices, theirs.ram),
        "at {at}"
    );
}

fn advance(
    machine: &mut Computer,
    to: Icount,
    disturbance: Disturbance,
    random: &mut Random,
    said: &mut Vec<(Icount, Output)>,
) {
    loop {
        let mut until = to;
        if let Disturbance::Splits(_) = disturbance {
            until = until.min(machine.icount().after(random.below(50_000)));
            if random.below(8) == 0 {
                machine.clear_caches();
            }
        }
        match machine.run(until) {
            Stop::Output => {
                while let Some(output) = machine.take_output() {
                    said.push((machine.icount(), output));
                }
            }
            Stop::Until if machine.icount() < to => {}
            Stop::Until | Stop::Idle { .. } | Stop::Halted => return,
        }
    }
}
