//! A guest that means harm, from a seed: random registers, rings and descriptors, and a world that answers at random.
//! Whatever it does, nothing panics, what it can make the machine say and hold is bounded, and the same seed gives the
//! same machine.
//!
//! A failure prints the seed; `HOSTILE_SEED=n cargo test -p pollux-riscv --test hostile` runs that one alone.

mod world;

use pollux_riscv::board::{CLINT_BASE, FINISHER_BASE, PLIC_BASE, RTC_BASE, UART_BASE};
use pollux_riscv::{DeviceConfig, RAM_BASE};
use pollux_vocab::{ClockRate, ConsoleId, DiskRequest, DiskStatus, GuestAddr, Input, Output, VirtTime};
use world::driver::*;
use world::{Random, bounds};

const SEEDS: u64 = 5000;
const DEEDS: u64 = 60;
const SLOTS: u64 = 5;
const QUEUE_SIZES: [u16; 6] = [1, 2, 4, 8, 16, 256];
const DISK_BYTES: u64 = 1 << 20;

fn devices() -> Vec<DeviceConfig> {
    vec![
        DeviceConfig::Block { bytes: DISK_BYTES, read_only: false, serial: "hostile".into() },
        DeviceConfig::Net { mac: [2; 6] },
        DeviceConfig::Rng,
        DeviceConfig::Console,
        DeviceConfig::Empty,
    ]
}

/// FNV-1a: any hash will do.
fn hash(seed: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(seed, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// The guest and its world.
struct Fiend {
    bench: Bench,
    random: Random,
    rings: Vec<Ring>,
    host: bounds::Host,
    said: u64,
    last_said: Option<Output>,
}

impl Fiend {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut bench = Bench::new(devices());
        let mut rings = Vec::new();
        for (slot, queues) in [(0, 1), (1, 2), (2, 1), (3, 2)] {
            let size = QUEUE_SIZES[random.below(6) as usize];
            rings.extend(bench.start(slot, queues, size));
        }
        Self { bench, random, rings, host: bounds::Host::default(), said: 0, last_said: None }
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.random.below(one_in) == 0
    }

    /// An address: mostly RAM, and there mostly where rings are; sometimes at an edge; sometimes anything.
    fn addr(&mut self) -> u64 {
        match self.random.below(16) {
            0 => self.random.below(u64::MAX),
            1 => u64::MAX - self.random.below(64),
            2 => RAM_BASE.wrapping_add(self.random.below(64)).wrapping_sub(32),
            3 => RAM_END + 32 - self.random.below(64),
            4 => self.random.below(RAM_BASE),
            5..8 => RAM_BASE + self.random.below(0x2_0000),
            _ => RAM_BASE + self.random.below(RAM_BYTES - 0x1000),
        }
    }

    /// A length: mostly small or a sector's, sometimes monstrous.
    fn len(&mut self) -> u32 {
        match self.random.below(12) {
            0 => self.random.below(1 << 32) as u32,
            1 => u32::MAX - self.random.below(16) as u32,
            2 => self.random.below(1 << 20) as u32,
            3 => 0,
            4..7 => 512 * self.random.below(8) as u32 + self.random.below(2) as u32,
            _ => self.random.below(64) as u32,
        }
    }

    fn scribble(&mut self) {
        let addr = self.addr();
        let bytes: Vec<u8> = (0..=self.random.below(24)).map(|_| self.random.below(256) as u8).collect();
        // Outside RAM nothing is written, as a hart's store would fault.
        let _ = self.bench.ram.write(GuestAddr(addr), &bytes);
    }

    fn write_desc(&mut self, index: usize) {
        let size = u64::from(self.rings[index].size);
        let flags = match self.random.below(8) {
            0 => self.random.below(1 << 16) as u16,
            1 => DESC_INDIRECT,
            2..6 => DESC_NEXT,
            _ => 0,
        };
        let buf = Buf { addr: self.addr(), len: self.len(), writable: self.chance(2) };
        let next = if self.chance(20) { self.random.below(1 << 16) } else { self.random.below(size) };
        let at = self.random.below(size) as u16;
        self.rings[index].write_desc(&mut self.bench.ram, at, buf, flags, next as u16);
    }

    /// A disk request whose header makes sense, so that not everything ends at once.
    fn sane_request(&mut self) {
        let kind = [0u32, 1, 1, 4, 8, 3, 11, 13][self.random.below(8) as usize];
        let mut header = [&kind.to_le_bytes()[..], &[0; 4], &self.random.below(2100).to_le_bytes()].concat();
        if matches!(kind, 11 | 13) {
            // The range to make zeros of lies behind the header.
            let (sectors, flags) = (self.random.below(200) as u32, self.random.below(3) as u32);
            let range = [self.random.below(2100), u64::from(sectors) | u64::from(flags) << 32];
            header.extend(range.iter().flat_map(|word| word.to_le_bytes()));
        }
        let at = RAM_BASE + 0x20_0000 + 32 * self.random.below(64);
        self.bench.ram.write(GuestAddr(at), &header).unwrap();
        let len = 512 * (1 + self.random.below(4)) as u32;
        let data = Buf { addr: RAM_BASE + self.random.below(RAM_BYTES / 2), len, writable: kind != 1 };
        let status = Buf { addr: self.addr(), len: 1, writable: true };
        if self.rings[0].size >= 4 {
            let head = Buf { addr: at, len: header.len() as u32, writable: false };
            let bufs = if header.len() > 16 { vec![head, status] } else { vec![head, data, status] };
            self.rings[0].offer(&mut self.bench, &bufs);
            self.rings[0].kick(&mut self.bench);
        }
    }

    /// A chain of good buffers on any queue.
    fn sane_chain(&mut self) {
        let index = self.random.below(self.rings.len() as u64) as usize;
        let writable = self.chance(2);
        let count = 1 + self.random.below(3).min(u64::from(self.rings[index].size) - 1);
        let buf = |random: &mut Random| {
            let len = 10 + random.below(700) as u32;
            Buf { addr: RAM_BASE + 0x20_0000 + random.below(0x10_0000), len, writable }
        };
        let bufs: Vec<Buf> = (0..count).map(|_| buf(&mut self.random)).collect();
        self.rings[index].offer_and_kick(&mut self.bench, &bufs);
    }

    fn kick(&mut self) {
        let index = self.random.below(self.rings.len() as u64) as usize;
        (0..self.random.below(4)).for_each(|_| self.write_desc(index));
        for _ in 0..self.random.below(6) {
            let size = u64::from(self.rings[index].size);
            let head = if self.chance(20) { self.random.below(1 << 16) } else { self.random.below(size) };
            self.rings[index].offer_head(&mut self.bench.ram, head as u16);
        }
        if self.chance(30) {
            let at = self.rings[index].avail + 2;
            self.bench.ram.write_u16(GuestAddr(at), self.random.below(1 << 16) as u16).unwrap();
        }
        self.rings[index].kick(&mut self.bench);
    }

    fn restart(&mut self) {
        let (slot, queues) = [(0, 1), (1, 2), (2, 1), (3, 2)][self.random.below(4) as usize];
        let size = QUEUE_SIZES[self.random.below(6) as usize];
        self.rings.retain(|ring| ring.slot != slot);
        let rings = self.bench.start(slot, queues, size);
        // The disk's stays the first.
        let at = if slot == 0 { 0 } else { self.rings.len() };
        self.rings.splice(at..at, rings);
    }

    fn touch_virtio(&mut self) {
        let offset = if self.chance(4) { self.random.below(0x200) } else { 4 * self.random.below(0x42) };
        let addr = pollux_riscv::board::VIRTIO_BASE + 0x1000 * self.random.below(SLOTS) + offset;
        let value = match self.random.below(4) {
            0 => self.random.below(1 << 32),
            1 => self.addr(),
            _ => self.random.below(16),
        };
        self.touch(addr, value);
    }

    fn touch_chips(&mut self) {
        let base = [CLINT_BASE, PLIC_BASE, UART_BASE, RTC_BASE, FINISHER_BASE, 0, 0x1000]
            [self.random.below(7) as usize];
        let window = [16, 0x100, 0x1_0000, 0x60_0000][self.random.below(4) as usize];
        let addr = base + self.random.below(window);
        let value = self.random.below(u64::MAX);
        // The finisher ends the machine: now and then is enough.
        if base != FINISHER_BASE || self.chance(50) {
            self.touch(addr, value);
        }
    }

    fn touch(&mut self, addr: u64, value: u64) {
        let bytes = [1, 2, 4, 4, 4, 8][self.random.below(6) as usize];
        if self.chance(2) {
            self.said = hash(self.said, &self.bench.load(addr, bytes).unwrap_or(!0).to_le_bytes());
        } else {
            self.bench.store(addr, bytes, value);
        }
    }

    /// Something from outside, asked for or not.
    fn world(&mut self) {
        let bytes = |random: &mut Random, max: u64| -> Vec<u8> {
            (0..random.below(max)).map(|_| random.below(256) as u8).collect()
        };
        let slot = self.random.below(9) as u8;
        let input = match self.random.below(8) {
            0 => Input::Packet { slot, frame: bytes(&mut self.random, 2000) },
            1 => Input::Packet { slot: 1, frame: bytes(&mut self.random, 100) },
            2 => Input::Console { console: ConsoleId::Virtio(slot), bytes: bytes(&mut self.random, 300) },
            3 => Input::Console { console: ConsoleId::Uart, bytes: bytes(&mut self.random, 100) },
            4 => {
                let (request, data) = (self.random.below(40), bytes(&mut self.random, 600));
                Input::DiskDone { slot, request, status: DiskStatus::Ok, data }
            }
            5 => Input::Entropy { slot, request: self.random.below(40), bytes: bytes(&mut self.random, 600) },
            6 => Input::Clock { time: VirtTime(self.random.below(u64::MAX)), rate: ClockRate::default() },
            _ => return self.answer(),
        };
        self.host.settle(&input);
        self.bench.apply(&input);
    }

    /// One of the answers that are owed, or were; the right one or nearly.
    fn answer(&mut self) {
        let nth = self.random.below(1 << 32) as usize;
        let again = self.chance(5);
        let fill = self.random.below(256) as u8;
        let status = if self.chance(8) { DiskStatus::IoError } else { DiskStatus::Ok };
        let wrong = self.chance(10);
        let len = |asked: u32| if wrong { asked / 2 + 1 } else { asked };
        if let Some(input) = self.host.answer(nth, again, status, fill, len) {
            self.bench.apply(&input);
        }
    }

    /// What the machine has said is within bounds.
    fn listen(&mut self) {
        for output in bounds::listen(&mut self.bench, DISK_BYTES) {
            match &output {
                Output::Packet { slot: 1, .. }
                | Output::Disk(DiskRequest { slot: 0, .. })
                | Output::EntropyWanted { slot: 2, .. }
                | Output::Console { .. }
                | Output::PowerOff { .. }
                | Output::Reset => {}
                other => panic!("from a device that is not there: {other:?}"),
            }
            self.said = hash(self.said, format!("{output:?}").as_bytes());
            self.last_said = Some(output.clone());
            self.host.hear(&output);
        }
        self.host.check(&self.bench);
    }

    fn act(&mut self) {
        match self.random.below(24) {
            0..3 => self.kick(),
            3..7 => self.sane_chain(),
            7..10 => self.sane_request(),
            10..14 => self.world(),
            14..16 => self.answer(),
            16..18 => self.touch_virtio(),
            18..20 => self.touch_chips(),
            20 => self.scribble(),
            21 => self.bench.save_and_restore(),
            22 => _ = (self.bench.board.packet_room(&self.bench.ram, 1), self.bench.board.interrupts(0)),
            _ => self.restart(),
        }
        self.bench.now = VirtTime(self.bench.now.0 + self.random.below(1 << 40));
        self.listen();
    }

    /// Everything that two machines could differ in.
    fn digest(&self) -> u64 {
        let state = self.bench.board.save().into_iter().fold(self.said, |h, (_, _, bytes)| hash(h, &bytes));
        // Rings and the buffers next to them; all of RAM would cost more than the rest of the test.
        hash(state, self.bench.ram.slice(GuestAddr(RAM_BASE), 0x4_0000).unwrap())
    }
}

fn run(seed: u64) -> u64 {
    let mut fiend = Fiend::new(seed);
    (0..DEEDS).for_each(|_| fiend.act());
    fiend.digest()
}

#[test]
fn no_guest_can_break_the_board() {
    if let Some(seed) = std::env::var("HOSTILE_SEED").ok().and_then(|seed| seed.parse().ok()) {
        run(seed);
        return;
    }
    for seed in 0..SEEDS {
        if std::panic::catch_unwind(|| run(seed)).is_err() {
            panic!("replay: HOSTILE_SEED={seed} cargo test -p pollux-riscv --test hostile");
        }
    }
}

#[test]
fn the_same_guest_makes_the_same_board() {
    for seed in (0..SEEDS).step_by(10) {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
    assert_ne!(run(1), run(2), "the digest tells boards apart");
}

#[test]
fn the_guest_gets_far_enough_to_do_harm() {
    let (mut frames, mut disk, mut entropy, mut shown, mut answered, mut gave_up) = (0, 0, 0, 0, 0, [0; 4]);
    for seed in 0..SEEDS / 10 {
        let mut fiend = Fiend::new(seed);
        for _ in 0..DEEDS {
            fiend.act();
            let last = fiend.last_said.take();
            match last {
                Some(Output::Packet { .. }) => frames += 1,
                Some(Output::Disk(_)) => disk += 1,
                Some(Output::EntropyWanted { .. }) => entropy += 1,
                Some(Output::Console { .. }) => shown += 1,
                _ => {}
            }
        }
        (0..4).for_each(|slot| {
            gave_up[slot] += u32::from(fiend.bench.status(slot as u8) & STATUS_NEEDS_RESET != 0)
        });
        answered += fiend.rings.iter_mut().map(|ring| ring.take_used(&fiend.bench).len()).sum::<usize>();
    }
    let all = [frames, disk, entropy, shown, answered];
    assert!(all.iter().all(|count| *count > 50), "{all:?}");
    assert!(gave_up.iter().all(|count| *count > 50), "{gave_up:?}");
}
