//! Sample values that the codec's tests share: one of every kind of record and message, and strategies for
//! arbitrary ones.
#![allow(dead_code, unreachable_pub, missing_docs)]

use pollux_codec::frame::{FrameDecoder, FrameError};
use pollux_codec::message::{AckV1, DiskHello, Hello, Wire};
use pollux_vocab::*;
use proptest::collection::vec;
use proptest::prelude::*;

pub fn record(lsn: u64, icount: u64, body: RecordBody) -> Record {
    Record { lsn: Lsn(lsn), icount: Icount(icount), body }
}

/// One record of every kind, with a gap in the LSNs and a clock that is adjusted twice.
pub fn every_record() -> Vec<Record> {
    let input = RecordBody::Input;
    let disk = |status, data| Input::DiskDone { slot: 2, request: 300, status, data };
    let local = |status| RecordBody::DiskDoneLocal { slot: 0, request: 9, status };
    let clock = |time, rate| Input::Clock { time: VirtTime(time), rate: ClockRate(rate) };
    let digest = Digest {
        harts: vec![1, u64::MAX],
        devices: vec![2, 3, 4],
        ram: 5,
        changed: vec![PageHash { page: 1 << 40, hash: 6 }, PageHash { page: 3, hash: 0 }],
    };
    let console = |console| Input::Console { console, bytes: b"root\n".to_vec() };
    let bodies = vec![
        input(clock(1_000, 10 << 32)),
        input(Input::Packet { slot: 1, frame: (0..60).collect() }),
        RecordBody::Mark,
        local(DiskStatus::Ok),
        local(DiskStatus::IoError),
        input(disk(DiskStatus::Ok, vec![0xa5; 512])),
        input(disk(DiskStatus::IoError, vec![])),
        input(console(ConsoleId::Uart)),
        input(console(ConsoleId::Virtio(3))),
        input(Input::Entropy { slot: 4, request: 1, bytes: vec![8, 9] }),
        input(clock(900, (10 << 32) - 77)),
        input(Input::PowerButton),
        RecordBody::Progress,
        RecordBody::Digest(digest),
        RecordBody::Control(Control::Stop),
    ];
    let place = |(i, body)| {
        let i = i as u64;
        record(if i < 8 { 5 + i } else { 100 + i }, 100 + i * i * 1_000_000_007, body)
    };
    bodies.into_iter().enumerate().map(place).collect()
}

/// One message of every kind that the first golden file has.
pub fn every_message() -> Vec<Wire> {
    let generation = Generation(3);
    let disk = |slot, content_hash: Option<u64>| DiskHello {
        slot,
        shared: content_hash.is_none(),
        bytes: 1 << 33,
        content_hash,
    };
    vec![
        Wire::Hello(Hello {
            software: "pollux 0.1.0".into(),
            vm: "castor".into(),
            generation,
            ram_bytes: 1 << 29,
            harts: 2,
            disks: vec![disk(0, Some(77)), disk(1, None)],
            heartbeat_ns: 50_000_000,
            failure_ns: 300_000_000,
            snapshot_bytes: 3,
            machine: "riscv-virt".into(),
        }),
        Wire::Welcome,
        Wire::Refuse { reason: "disk 0 differs in content: «copy it»".into() },
        Wire::State { offset: 7, bytes: vec![1, 2, 3] },
        Wire::State { offset: 10, bytes: vec![0; 8192] },
        Wire::StateEnd { total: 8202 },
        Wire::Ready { digest: Digest { ram: 5, ..Digest::default() } },
        Wire::Records { generation, released: Lsn(4), records: every_record() },
        Wire::Records { generation, released: Lsn(5), records: vec![] },
        Wire::Ack(AckV1 {
            generation,
            received: Lsn(9),
            executed: Lsn(8),
            icount: Icount(u64::MAX),
            time: VirtTime(6),
            buffered_bytes: 5,
        }),
        Wire::Heartbeat { generation },
        Wire::Goodbye { generation, reason: 1 },
    ]
}

/// A kind that was added to version 1.
pub fn handover() -> Wire {
    Wire::Handover { generation: Generation(3), last: Lsn(1 << 40) }
}

/// Another one.
pub fn network() -> Vec<Wire> {
    [false, true].map(|reached| Wire::Network { generation: Generation(3), reached }).into()
}

/// All messages in `bytes`, up to the end or the first error.
pub fn decode_all(bytes: &[u8]) -> (Vec<Wire>, Option<FrameError>) {
    let mut decoder = FrameDecoder::new();
    let mut all = Vec::new();
    decoder.push(bytes);
    loop {
        match decoder.poll() {
            Ok(Some(wire)) => all.push(wire),
            Ok(None) => return (all, None),
            Err(error) => return (all, Some(error)),
        }
    }
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 0..300), (any::<u8>(), 0usize..5000).prop_map(|(b, n)| vec![b; n])]
}

fn status() -> impl Strategy<Value = DiskStatus> {
    prop_oneof![Just(DiskStatus::Ok), Just(DiskStatus::IoError)]
}

fn console() -> impl Strategy<Value = ConsoleId> {
    prop_oneof![Just(ConsoleId::Uart), any::<u8>().prop_map(ConsoleId::Virtio)]
}

pub fn digest() -> impl Strategy<Value = Digest> {
    let pages = (any::<u64>(), any::<u64>()).prop_map(|(page, hash)| PageHash { page, hash });
    (vec(any::<u64>(), 0..9), vec(any::<u64>(), 0..20), any::<u64>(), vec(pages, 0..50))
        .prop_map(|(harts, devices, ram, changed)| Digest { harts, devices, ram, changed })
}

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        (any::<u8>(), bytes()).prop_map(|(slot, frame)| Input::Packet { slot, frame }),
        (any::<u8>(), any::<u64>(), status(), bytes())
            .prop_map(|(slot, request, status, data)| Input::DiskDone { slot, request, status, data }),
        (console(), bytes()).prop_map(|(console, bytes)| Input::Console { console, bytes }),
        (any::<u8>(), any::<u64>(), bytes()).prop_map(|(slot, request, bytes)| Input::Entropy {
            slot,
            request,
            bytes
        }),
        (any::<u64>(), any::<u64>())
            .prop_map(|(time, rate)| Input::Clock { time: VirtTime(time), rate: ClockRate(rate) }),
        Just(Input::PowerButton),
    ]
}

fn body() -> impl Strategy<Value = RecordBody> {
    prop_oneof![
        4 => input().prop_map(RecordBody::Input),
        1 => (any::<u8>(), any::<u64>(), status())
            .prop_map(|(slot, request, status)| RecordBody::DiskDoneLocal { slot, request, status }),
        1 => Just(RecordBody::Mark),
        1 => Just(RecordBody::Progress),
        1 => Just(RecordBody::Control(Control::Stop)),
        1 => digest().prop_map(RecordBody::Digest),
    ]
}

/// Records in order, from anywhere in a log.
pub fn records() -> impl Strategy<Value = Vec<Record>> {
    let step = (prop_oneof![4 => Just(1u64), 1 => 2u64..1 << 50], 0u64..1 << 50, body());
    (0u64..1 << 60, 0u64..1 << 60, vec(step, 0..40)).prop_map(|(mut lsn, mut icount, steps)| {
        let mut place = |(lsn_step, steps, body)| {
            lsn += lsn_step;
            icount += steps;
            record(lsn, icount, body)
        };
        steps.into_iter().map(&mut place).collect()
    })
}
