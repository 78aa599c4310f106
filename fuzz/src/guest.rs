//! A hostile guest on one device, and a world that answers it at will: what all virtio targets do.
//!
//! The fuzzer's bytes decide everything: which registers are read and written, what lies in rings, descriptors and
//! buffers, what the world sends, when the board is saved and restored. Decisions that lead deep (a chain of good
//! buffers, a request with a good header) are short, so that the fuzzer need not find them by chance.
//!
//! Held true: no panic; what one kick makes the device say, and what it holds for the guest, is bounded; what it says
//! to the world makes sense there (a disk request lies on the disk); what the host still does is what the board knows
//! that it does, across all resets; a board restored from its own state says and does
//! the same. The bench is that of the machine's own tests.

use crate::driver::*;
use crate::{Choices, bounds};
use pollux_riscv::board::{Board, VIRTIO_BASE};
use pollux_riscv::{DeviceConfig, RAM_BASE};
use pollux_vocab::{ClockRate, ConsoleId, DiskRequest, DiskStatus, GuestAddr, Input, Output, VirtTime};

/// Bytes of the disk that is fuzzed.
pub const DISK_BYTES: u64 = 1 << 20;
/// Decisions of one story: longer ones are slow, and show nothing more.
const DEEDS_MAX: usize = 200;
/// Where buffers of good chains lie.
const GOOD: u64 = RAM_BASE + 0x20_0000;

struct Guest<'a> {
    choices: Choices<'a>,
    bench: Bench,
    queues: u32,
    rings: Vec<Ring>,
    host: bounds::Host,
}

/// Plays the story that `bytes` tell to a board with `device` in its first slot, which has so many queues.
pub fn play(bytes: &[u8], device: DeviceConfig, queues: u32) {
    let mut guest = Guest {
        choices: Choices(bytes),
        bench: Bench::new(vec![device]),
        queues,
        rings: Vec::new(),
        host: bounds::Host::default(),
    };
    guest.restart();
    for _ in 0..DEEDS_MAX {
        if guest.choices.is_empty() {
            break;
        }
        guest.act();
        guest.listen();
    }
    guest.check_restored();
}

impl Guest<'_> {
    fn act(&mut self) {
        match self.choices.below(16) {
            0 => self.good_chain(),
            1 => self.good_request(),
            2 => self.answer(),
            3 => self.packet(),
            4 => self.typed(),
            5 => self.entropy(),
            6 => self.descriptor(),
            7 => self.offer(),
            8 => self.kick(),
            9 => self.write_register(),
            10 => self.read_register(),
            11 => self.scribble(),
            12 => self.bench.save_and_restore(),
            13 => self.restart(),
            14 => self.disk_done(),
            _ => self.look(),
        }
    }

    /// Reset and honest negotiation; rings of a size of the guest's choice.
    fn restart(&mut self) {
        let size = 1 << self.choices.below(9);
        self.rings = self.bench.start(0, self.queues, size);
    }

    fn ring(&mut self) -> usize {
        self.choices.below(u64::from(self.queues)) as usize
    }

    /// An address: near a ring, near a buffer, at an edge of RAM, or anything.
    fn addr(&mut self) -> u64 {
        match self.choices.below(8) {
            0..3 => GOOD + self.choices.below(0x1_0000),
            3 | 4 => RAM_BASE + self.choices.below(0x1_0000),
            5 => RAM_END.wrapping_sub(self.choices.below(0x100)),
            6 => RAM_BASE.wrapping_sub(self.choices.below(0x100)),
            _ => self.choices.u64(),
        }
    }

    fn len(&mut self) -> u32 {
        match self.choices.below(6) {
            0 => self.choices.u32(),
            1 => 512 * u32::from(self.choices.u8()),
            2 => u32::from(self.choices.u16()),
            _ => u32::from(self.choices.u8()),
        }
    }

    /// Buffers that are in order and in RAM, whatever is in them; then a kick.
    fn good_chain(&mut self) {
        let ring = self.ring();
        let count = 1 + self.choices.below(4).min(u64::from(self.rings[ring].size) - 1);
        let readable = self.choices.below(count + 1);
        let buf = |i: u64, choices: &mut Choices<'_>| {
            let len = u32::from(choices.u16()) % 5000;
            Buf { addr: GOOD + 0x1_0000 * i, len, writable: i >= readable }
        };
        let bufs: Vec<Buf> = (0..count).map(|i| buf(i, &mut self.choices)).collect();
        self.rings[ring].offer_and_kick(&mut self.bench, &bufs);
    }

    /// A disk request with a header: kinds that there are and others, sectors on the disk and others.
    fn good_request(&mut self) {
        let kind = self.choices.u8();
        let kind = if kind < 0x40 { [0u32, 1, 4, 8, 11, 13][usize::from(kind) % 6] } else { u32::from(kind) };
        let sector = match self.choices.below(8) {
            0 => self.choices.u64(),
            _ => self.choices.below(2100),
        };
        let header = [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat();
        let at = GOOD + 0x8_0000 + 16 * self.choices.below(16);
        self.write(at, &header);
        let head = Buf { addr: at, len: 16, writable: false };
        let (addr, len) = (GOOD + self.choices.below(0x1_0000), self.len());
        let mut data = Buf { addr, len, writable: kind != 1 };
        if matches!(kind, 11 | 13) {
            // A range to make zeros of.
            let (sectors, flags) = (u64::from(self.choices.u16()), u64::from(self.choices.u8() % 3));
            let range = [self.choices.below(2100), sectors | flags << 32].map(u64::to_le_bytes).concat();
            data = Buf { addr: GOOD + 0xa_0000, len: 16, writable: false };
            self.write(data.addr, &range);
        }
        let status = Buf { addr: GOOD + 0x9_0000, len: 1 + self.choices.below(2) as u32, writable: true };
        let ring = self.ring();
        if self.rings[ring].size >= 4 {
            let bufs = if len == 0 { vec![head, status] } else { vec![head, data, status] };
            self.rings[ring].offer_and_kick(&mut self.bench, &bufs);
        }
    }

    fn descriptor(&mut self) {
        let ring = self.ring();
        let size = u64::from(self.rings[ring].size);
        let index = self.choices.below(size) as u16;
        let flags = u16::from(self.choices.u8() & 15);
        let buf = Buf { addr: self.addr(), len: self.len(), writable: false };
        let next = if self.choices.one_in(8) { self.choices.u16() } else { self.choices.below(size) as u16 };
        // An indirect table is as easily written as a direct one: it lies where good buffers do.
        let at = if self.choices.one_in(3) { GOOD } else { self.rings[ring].desc } + 16 * u64::from(index);
        let fields =
            [&buf.addr.to_le_bytes()[..], &buf.len.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()];
        self.write(at, &fields.concat());
    }

    fn offer(&mut self) {
        let ring = self.ring();
        let head = if self.choices.one_in(8) {
            self.choices.u16()
        } else {
            self.choices.below(u64::from(self.rings[ring].size)) as u16
        };
        self.rings[ring].offer_head(&mut self.bench.ram, head);
    }

    fn kick(&mut self) {
        let ring = self.ring();
        self.rings[ring].kick(&mut self.bench);
    }

    /// Outside RAM nothing is written, as a hart's store would fault.
    fn write(&mut self, addr: u64, bytes: &[u8]) {
        let _ = self.bench.ram.write(GuestAddr(addr), bytes);
    }

    fn scribble(&mut self) {
        let (addr, bytes) = (self.addr(), self.choices.piece());
        self.write(addr, bytes);
    }

    fn register(&mut self) -> (u64, u8) {
        if self.choices.one_in(4) {
            (VIRTIO_BASE + self.choices.below(0x1000), 1 << self.choices.below(4))
        } else {
            (VIRTIO_BASE + 4 * self.choices.below(0x48), 4)
        }
    }

    fn write_register(&mut self) {
        let (addr, bytes) = self.register();
        let value = match self.choices.below(3) {
            0 => u64::from(self.choices.u8()),
            1 => self.addr(),
            _ => self.choices.u64(),
        };
        self.bench.store(addr, bytes, value);
    }

    fn read_register(&mut self) {
        let (addr, bytes) = self.register();
        self.bench.load(addr, bytes);
    }

    fn look(&mut self) {
        self.bench.now = VirtTime(self.bench.now.0.saturating_add(u64::from(self.choices.u32())));
        let board = &self.bench.board;
        let _ = (
            board.packet_room(&self.bench.ram, 0),
            board.console_room(ConsoleId::Virtio(0)),
            board.interrupts(0),
        );
        let rate = ClockRate(self.choices.u64());
        self.bench.apply(&Input::Clock { time: self.bench.now, rate });
    }

    fn packet(&mut self) {
        let len = usize::from(self.choices.u16()) % 2000;
        let frame = vec![self.choices.u8(); len];
        self.bench.apply(&Input::Packet { slot: 0, frame });
    }

    fn typed(&mut self) {
        let bytes = vec![b'x'; usize::from(self.choices.u16()) % 5000];
        self.bench.apply(&Input::Console { console: ConsoleId::Virtio(0), bytes });
    }

    fn entropy(&mut self) {
        let (request, bytes) = (u64::from(self.choices.u8()), self.choices.piece().to_vec());
        self.guess(&Input::Entropy { slot: 0, request, bytes });
    }

    /// An answer to what may never have been asked.
    fn disk_done(&mut self) {
        let (request, data) = (u64::from(self.choices.u8()), self.choices.piece().to_vec());
        let status = if self.choices.one_in(3) { DiskStatus::IoError } else { DiskStatus::Ok };
        self.guess(&Input::DiskDone { slot: 0, request, status, data });
    }

    fn guess(&mut self, input: &Input) {
        self.host.settle(input);
        self.bench.apply(input);
    }

    /// One of the answers that are owed, or were; the right one or nearly, however late.
    fn answer(&mut self) {
        let nth = usize::from(self.choices.u8());
        let how = self.choices.u8();
        let status = if how & 6 == 6 { DiskStatus::IoError } else { DiskStatus::Ok };
        let len = |asked: u32| if how & 0xc0 == 0xc0 { asked / 2 + 1 } else { asked };
        if let Some(input) = self.host.answer(nth, how & 1 != 0, status, how, len) {
            self.bench.apply(&input);
        }
    }

    /// What the device has said makes sense and is within bounds.
    fn listen(&mut self) {
        for output in bounds::listen(&mut self.bench, DISK_BYTES) {
            match &output {
                Output::Packet { slot: 0, .. }
                | Output::Disk(DiskRequest { slot: 0, .. })
                | Output::EntropyWanted { slot: 0, .. }
                | Output::Console { console: ConsoleId::Virtio(0), .. } => {}
                other => panic!("not this device's to say: {other:?}"),
            }
            self.host.hear(&output);
        }
        self.host.check(&self.bench);
    }

    fn check_restored(&mut self) {
        let before = self.bench.board.save();
        self.bench.save_and_restore();
        assert!(before == Board::save(&self.bench.board), "a restored board is another's");
    }
}
