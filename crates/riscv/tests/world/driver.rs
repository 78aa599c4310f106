//! A driver for tests that is no guest: it writes the board's registers and RAM itself, and can thus do what no
//! honest driver does.

use pollux_riscv::board::{Board, PLIC_BASE, VIRTIO_BASE};
use pollux_riscv::{Config, DeviceConfig, RAM_BASE, Ram};
use pollux_vocab::{DiskOp, DiskRequest, DiskStatus, GuestAddr, Input, Output, RequestId, SlotId, VirtTime};

/// Registers of a virtio-mmio slot (virtio 1.2, 4.2.2).
pub mod reg {
    pub const DEVICE_ID: u64 = 0x08;
    pub const DEVICE_FEATURES: u64 = 0x10;
    pub const DEVICE_FEATURES_SEL: u64 = 0x14;
    pub const DRIVER_FEATURES: u64 = 0x20;
    pub const DRIVER_FEATURES_SEL: u64 = 0x24;
    pub const QUEUE_SEL: u64 = 0x30;
    pub const QUEUE_NUM_MAX: u64 = 0x34;
    pub const QUEUE_NUM: u64 = 0x38;
    pub const QUEUE_READY: u64 = 0x44;
    pub const QUEUE_NOTIFY: u64 = 0x50;
    pub const INTERRUPT_STATUS: u64 = 0x60;
    pub const INTERRUPT_ACK: u64 = 0x64;
    pub const STATUS: u64 = 0x70;
    pub const QUEUE_DESC: u64 = 0x80;
    pub const QUEUE_AVAIL: u64 = 0x90;
    pub const QUEUE_USED: u64 = 0xa0;
    pub const CONFIG: u64 = 0x100;
}

pub const STATUS_ACKNOWLEDGED: u32 = 3;
pub const STATUS_FEATURES_OK: u32 = 8;
pub const STATUS_LIVE: u32 = 15;
pub const STATUS_NEEDS_RESET: u32 = 64;
pub const INTERRUPT_USED: u32 = 1;
pub const INTERRUPT_CONFIG: u32 = 2;
pub const DESC_NEXT: u16 = 1;
pub const DESC_WRITE: u16 = 2;
pub const DESC_INDIRECT: u16 = 4;
pub const F_VERSION_1: u64 = 1 << 32;

pub const RAM_BYTES: u64 = 4 << 20;
pub const RAM_END: u64 = RAM_BASE + RAM_BYTES;
/// Buffers lie from here on; rings before.
const BUFFERS: u64 = RAM_BASE + (1 << 20);
/// Every queue's rings: the table, one page on the available ring, another page on the used ring.
const RINGS_BYTES: u64 = 0x4000;

/// A buffer of a chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Buf {
    pub addr: u64,
    pub len: u32,
    pub writable: bool,
}

/// A board with its RAM, and no hart.
pub struct Bench {
    pub board: Board,
    pub ram: Ram,
    pub now: VirtTime,
    config: Config,
    next_buffer: u64,
}

impl Bench {
    pub fn new(devices: Vec<DeviceConfig>) -> Self {
        let config = Config { ram_bytes: RAM_BYTES, harts: 2, devices, rtc_base_ns: 0, ..Config::default() };
        let (board, ram) = (Board::new(&config), Ram::new(RAM_BYTES));
        Self { board, ram, now: VirtTime(0), config, next_buffer: BUFFERS }
    }

    /// The same board, out of its own saved state.
    pub fn save_and_restore(&mut self) {
        let saved = self.board.save();
        self.board = Board::restore(&self.config, saved).expect("its own state");
    }

    pub fn load(&mut self, addr: u64, bytes: u8) -> Option<u64> {
        self.board.read(&mut self.ram, self.now, addr, bytes)
    }

    pub fn store(&mut self, addr: u64, bytes: u8, value: u64) -> Option<()> {
        self.board.write(&mut self.ram, self.now, addr, bytes, value)
    }

    /// A word register that must be there.
    pub fn word(&mut self, addr: u64) -> u32 {
        self.load(addr, 4).unwrap_or_else(|| panic!("access fault at {addr:#x}")) as u32
    }

    pub fn set_word(&mut self, addr: u64, value: u32) {
        self.store(addr, 4, u64::from(value)).unwrap_or_else(|| panic!("access fault at {addr:#x}"));
    }

    pub fn get(&mut self, slot: SlotId, register: u64) -> u32 {
        self.word(VIRTIO_BASE + u64::from(slot) * 0x1000 + register)
    }

    pub fn set(&mut self, slot: SlotId, register: u64, value: u32) {
        self.set_word(VIRTIO_BASE + u64::from(slot) * 0x1000 + register, value);
    }

    pub fn status(&mut self, slot: SlotId) -> u32 {
        self.get(slot, reg::STATUS)
    }

    /// Whether the device has given up on its driver, and says so by an interrupt.
    pub fn has_given_up(&mut self, slot: SlotId) -> bool {
        let gave_up = self.status(slot) & STATUS_NEEDS_RESET != 0;
        assert_eq!(gave_up, self.get(slot, reg::INTERRUPT_STATUS) & INTERRUPT_CONFIG != 0);
        gave_up
    }

    /// Whether the slot's line at the interrupt controller is high; for a test that has not enabled it.
    pub fn is_pending(&mut self, slot: SlotId) -> bool {
        self.word(PLIC_BASE + 0x1000) >> (slot + 1) & 1 != 0
    }

    pub fn apply(&mut self, input: &Input) {
        self.board.apply(&mut self.ram, self.now, input);
    }

    pub fn outputs(&mut self) -> Vec<Output> {
        self.board.outputs.drain(..).collect()
    }

    /// What the disks are asked for; nothing else may be said.
    pub fn disk_requests(&mut self) -> Vec<(RequestId, DiskOp)> {
        let op = |output| match output {
            Output::Disk(DiskRequest { request, op, .. }) => (request, op),
            other => panic!("not a disk's: {other:?}"),
        };
        self.outputs().into_iter().map(op).collect()
    }

    pub fn disk_done(&mut self, slot: SlotId, request: RequestId, data: &[u8]) {
        let data = data.to_vec();
        self.apply(&Input::DiskDone { slot, request, status: DiskStatus::Ok, data });
    }

    /// Reset, negotiation of all that is offered, queues of `size` entries, go.
    pub fn start(&mut self, slot: SlotId, queues: u32, size: u16) -> Vec<Ring> {
        self.set(slot, reg::STATUS, 0);
        self.set(slot, reg::STATUS, STATUS_ACKNOWLEDGED);
        for half in [0, 1] {
            self.set(slot, reg::DEVICE_FEATURES_SEL, half);
            self.set(slot, reg::DRIVER_FEATURES_SEL, half);
            let offered = self.get(slot, reg::DEVICE_FEATURES);
            self.set(slot, reg::DRIVER_FEATURES, offered);
        }
        self.set(slot, reg::STATUS, STATUS_ACKNOWLEDGED | STATUS_FEATURES_OK);
        assert_eq!(self.status(slot), STATUS_ACKNOWLEDGED | STATUS_FEATURES_OK);
        let rings = (0..queues).map(|queue| self.set_up(slot, queue, size)).collect();
        self.set(slot, reg::STATUS, STATUS_LIVE);
        rings
    }

    pub fn set_up(&mut self, slot: SlotId, queue: u32, size: u16) -> Ring {
        let base = RAM_BASE + (u64::from(slot) * 2 + u64::from(queue)) * RINGS_BYTES;
        let (desc, avail, used) = (base, base + 0x1000, base + 0x2000);
        self.ram.write(GuestAddr(base), &[0; RINGS_BYTES as usize]).unwrap();
        self.set(slot, reg::QUEUE_SEL, queue);
        self.set(slot, reg::QUEUE_NUM, u32::from(size));
        for (register, addr) in [(reg::QUEUE_DESC, desc), (reg::QUEUE_AVAIL, avail), (reg::QUEUE_USED, used)]
        {
            self.set(slot, register, addr as u32);
            self.set(slot, register + 4, (addr >> 32) as u32);
        }
        self.set(slot, reg::QUEUE_READY, 1);
        Ring { slot, queue, size, desc, avail, used, offered: 0, taken: 0, next_desc: 0 }
    }

    /// A buffer with these bytes, for the device to read.
    pub fn full(&mut self, bytes: &[u8]) -> Buf {
        let buf = Buf { writable: false, ..self.empty(bytes.len() as u32) };
        self.ram.write(GuestAddr(buf.addr), bytes).unwrap();
        buf
    }

    /// A buffer for the device to write, filled with what no device writes by chance.
    pub fn empty(&mut self, len: u32) -> Buf {
        let addr = self.next_buffer;
        self.next_buffer = (addr + u64::from(len)).next_multiple_of(64);
        self.ram.write(GuestAddr(addr), &vec![0xee; len as usize]).unwrap();
        Buf { addr, len, writable: true }
    }

    pub fn bytes(&self, buf: Buf) -> &[u8] {
        self.ram.slice(GuestAddr(buf.addr), u64::from(buf.len)).unwrap()
    }
}

/// One queue, from its driver's side.
pub struct Ring {
    pub slot: SlotId,
    pub queue: u32,
    pub size: u16,
    pub desc: u64,
    pub avail: u64,
    pub used: u64,
    pub offered: u16,
    taken: u16,
    next_desc: u16,
}

impl Ring {
    pub fn write_desc(&self, ram: &mut Ram, index: u16, buf: Buf, flags: u16, next: u16) {
        let at = self.desc + 16 * u64::from(index);
        let flags = flags | if buf.writable { DESC_WRITE } else { 0 };
        ram.write_u64(GuestAddr(at), buf.addr).unwrap();
        ram.write_u32(GuestAddr(at + 8), buf.len).unwrap();
        ram.write_u16(GuestAddr(at + 12), flags).unwrap();
        ram.write_u16(GuestAddr(at + 14), next).unwrap();
    }

    /// Puts a head into the available ring.
    pub fn offer_head(&mut self, ram: &mut Ram, head: u16) {
        let slot = u64::from(self.offered % self.size);
        ram.write_u16(GuestAddr(self.avail + 4 + 2 * slot), head).unwrap();
        self.offered = self.offered.wrapping_add(1);
        ram.write_u16(GuestAddr(self.avail + 2), self.offered).unwrap();
    }

    /// Offers a chain; its head. Descriptors are used in turn, so the caller keeps few chains in flight.
    pub fn offer(&mut self, bench: &mut Bench, bufs: &[Buf]) -> u16 {
        let index = |i: usize| (self.next_desc + i as u16) % self.size;
        for (i, buf) in bufs.iter().enumerate() {
            let flags = if i + 1 < bufs.len() { DESC_NEXT } else { 0 };
            self.write_desc(&mut bench.ram, index(i), *buf, flags, index(i + 1));
        }
        let head = index(0);
        self.next_desc = index(bufs.len());
        self.offer_head(&mut bench.ram, head);
        head
    }

    pub fn kick(&self, bench: &mut Bench) {
        bench.set(self.slot, reg::QUEUE_NOTIFY, self.queue);
    }

    pub fn offer_and_kick(&mut self, bench: &mut Bench, bufs: &[Buf]) -> u16 {
        let head = self.offer(bench, bufs);
        self.kick(bench);
        head
    }

    /// What came back since the last look: heads and bytes written.
    pub fn take_used(&mut self, bench: &Bench) -> Vec<(u16, u32)> {
        let end = bench.ram.read_u16(GuestAddr(self.used + 2)).unwrap();
        let mut all = Vec::new();
        while self.taken != end {
            let at = self.used + 4 + 8 * u64::from(self.taken % self.size);
            let head = bench.ram.read_u32(GuestAddr(at)).unwrap();
            all.push((head as u16, bench.ram.read_u32(GuestAddr(at + 4)).unwrap()));
            self.taken = self.taken.wrapping_add(1);
        }
        all
    }
}
