//! Every byte that outlives a process: what is written is read back, and what is damaged is refused.

use pollux_codec::frame::{self, FrameDecoder, FrameError};
use pollux_codec::logfile::{self, LogReader, Tail};
use pollux_codec::message::{AckV1, Hello, Wire};
use pollux_codec::snapshot::{self, ContainerError};
use pollux_vocab::*;
use proptest::prelude::*;

fn record(lsn: u64, icount: u64, body: RecordBody) -> Record {
    Record { lsn: Lsn(lsn), icount: Icount(icount), body }
}

fn some_records() -> Vec<Record> {
    vec![
        record(5, 100, RecordBody::Input(Input::Clock { time: VirtTime(1000), rate: ClockRate(10 << 32) })),
        record(6, 100, RecordBody::Input(Input::Packet { slot: 1, frame: vec![7; 60] })),
        record(7, 250, RecordBody::Mark),
        record(8, 250, RecordBody::DiskDoneLocal { slot: 0, request: 9, status: DiskStatus::IoError }),
        record(9, 9_000_000_000, RecordBody::Digest(Digest { harts: vec![1], ..Digest::default() })),
        record(10, 9_000_000_001, RecordBody::Control(Control::Stop)),
    ]
}

fn some_messages() -> Vec<Wire> {
    let generation = Generation(3);
    vec![
        Wire::Hello(Hello {
            software: "pollux".into(),
            vm: "castor".into(),
            generation,
            ram_bytes: 1 << 29,
            harts: 2,
            disks: vec![],
            heartbeat_ns: 1,
            failure_ns: 2,
            snapshot_bytes: 3,
        }),
        Wire::Welcome,
        Wire::Refuse { reason: "no".into() },
        Wire::State { offset: 7, bytes: vec![1, 2, 3] },
        Wire::StateEnd { total: 10 },
        Wire::Ready { digest: Digest { ram: 5, ..Digest::default() } },
        Wire::Records { generation, released: Lsn(4), records: some_records() },
        Wire::Ack(AckV1 {
            generation,
            received: Lsn(9),
            executed: Lsn(8),
            icount: Icount(7),
            time: VirtTime(6),
            buffered_bytes: 5,
        }),
        Wire::Heartbeat { generation },
        Wire::Goodbye { generation, reason: 1 },
    ]
}

fn decode_all(bytes: &[u8]) -> Result<Vec<Wire>, FrameError> {
    let mut decoder = FrameDecoder::new();
    let mut all = Vec::new();
    decoder.push(bytes);
    while let Some(wire) = decoder.poll()? {
        all.push(wire);
    }
    Ok(all)
}

#[test]
fn messages_survive_the_wire_in_whatever_pieces_they_arrive() {
    let messages = some_messages();
    let bytes: Vec<u8> = messages.iter().flat_map(Wire::encode).collect();
    for piece in [1, 3, 16, bytes.len()] {
        let mut decoder = FrameDecoder::new();
        let mut read = Vec::new();
        for chunk in bytes.chunks(piece) {
            decoder.push(chunk);
            while let Some(wire) = decoder.poll().expect("whole") {
                read.push(wire);
            }
        }
        assert_eq!(read, messages);
    }
}

#[test]
fn every_single_flipped_bit_is_noticed() {
    let bytes: Vec<u8> = some_messages().iter().flat_map(Wire::encode).collect();
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        match decode_all(&damaged) {
            // A longer length leaves the stream waiting for the rest of a frame: less is read, never wrongly.
            Ok(read) => assert!(some_messages().starts_with(&read) && read.len() < some_messages().len(), "bit {bit}"),
            Err(_) => {}
        }
    }
}

#[test]
fn another_version_is_named_before_anything_else_is_read() {
    let mut bytes = Wire::Welcome.encode();
    bytes[2] = 9;
    assert_eq!(decode_all(&bytes), Err(FrameError::Version { offset: 0, found: 9 }));
    assert!(decode_all(&bytes).unwrap_err().to_string().contains("both sides"));
}

#[test]
fn a_frame_that_says_it_is_enormous_is_refused_at_once() {
    let mut bytes = Wire::Welcome.encode();
    bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(decode_all(&bytes), Err(FrameError::TooLong { .. })));
}

#[test]
fn a_batch_too_long_for_a_frame_is_split_and_stays_in_order() {
    let packet = |lsn| record(lsn, lsn, RecordBody::Input(Input::Packet { slot: 0, frame: vec![1; 9 << 20] }));
    let records: Vec<_> = (1..=3).map(packet).collect();
    let wire = Wire::Records { generation: Generation(1), released: Lsn(0), records: records.clone() };
    let read = decode_all(&wire.encode()).expect("whole");
    assert!(read.len() > 1);
    let joined: Vec<_> = read
        .into_iter()
        .flat_map(|wire| match wire {
            Wire::Records { records, .. } => records,
            other => panic!("{}", other.name()),
        })
        .collect();
    assert_eq!(joined, records);
}

#[test]
fn a_clock_adjustment_costs_less_than_forty_bytes_on_the_wire() {
    let records = some_records()[..1].to_vec();
    let bytes = Wire::Records { generation: Generation(1), released: Lsn(4), records }.encode();
    assert!(bytes.len() < 40, "{}", bytes.len());
}

fn recording() -> Vec<u8> {
    let mut bytes = logfile::encode_header(4).to_vec();
    bytes.extend_from_slice(b"snap");
    bytes.extend_from_slice(&logfile::encode_records(some_records()));
    bytes.extend_from_slice(&logfile::encode_end(6));
    bytes
}

fn read_recording(bytes: &[u8]) -> Result<(usize, Tail), logfile::LogError> {
    let snapshot = logfile::decode_header(bytes)? as usize;
    let mut reader = LogReader::default();
    reader.push(bytes.get(logfile::HEADER_BYTES + snapshot..).unwrap_or(&[]));
    let mut count = 0;
    while let Some(records) = reader.poll()? {
        count += records.len();
    }
    Ok((count, reader.tail()))
}

#[test]
fn a_recording_tells_a_good_end_from_a_cut_one() {
    let bytes = recording();
    assert_eq!(read_recording(&bytes), Ok((6, Tail::Closed)));
    let end = logfile::encode_end(6).len();
    let cut = &bytes[..bytes.len() - end - 3];
    assert_eq!(read_recording(cut), Ok((0, Tail::Truncated { offset: 0 })));
    assert!(read_recording(&bytes[..10]).is_err());
    assert_eq!(read_recording(b"garbage"), Err(logfile::LogError::Magic));
}

#[test]
fn a_snapshot_container_reads_back_and_every_flipped_bit_or_cut_is_refused() {
    let sections: [(u16, u16, &[u8]); 3] = [(1, 1, b"one"), (2, 7, b""), (0xff00, 1, b"three")];
    let bytes = snapshot::encode(sections.iter().copied());
    assert_eq!(snapshot::decode(&bytes).expect("whole"), sections);
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        // Kinds and versions of sections are their readers' to check.
        if let Ok(read) = snapshot::decode(&damaged) {
            assert!(read.iter().zip(sections).all(|(a, b)| a.2 == b.2), "bit {bit}");
        }
    }
    for length in 0..bytes.len() {
        assert!(snapshot::decode(&bytes[..length]).is_err(), "{length} bytes");
    }
    let longer = [bytes, vec![0]].concat();
    assert_eq!(snapshot::decode(&longer), Err(ContainerError::Trailing { bytes: 1 }));
}

/// What was written by version 1 must be read for ever.
#[test]
fn the_golden_files_of_version_1_are_still_read() {
    if std::env::var_os("POLLUX_WRITE_GOLDEN").is_some() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
        std::fs::write(format!("{folder}/v1.log"), recording()).expect("room");
        let sections: [(u16, u16, &[u8]); 3] = [(1, 1, b"one"), (2, 7, b""), (0xff00, 1, b"three")];
        std::fs::write(format!("{folder}/v1.snapshot"), snapshot::encode(sections.iter().copied())).expect("room");
        return;
    }
    let log: &[u8] = include_bytes!("golden/v1.log");
    assert_eq!(read_recording(log), Ok((6, Tail::Closed)));
    let snapshot_file: &[u8] = include_bytes!("golden/v1.snapshot");
    assert_eq!(snapshot::decode(snapshot_file).expect("readable")[1], (2, 7, &b""[..]));
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in any::<u8>()) {
        let _ = decode_all(&bytes);
        let _ = decode_all(&frame::encode(kind, &bytes));
        let _ = decode_all(&frame::encode(7, &bytes));
        let _ = snapshot::decode(&bytes);
        let _ = read_recording(&bytes);
    }

    #[test]
    fn any_packet_survives_the_wire(lsn in 1u64.., icount: u64, slot: u8, frame in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let records = vec![record(lsn.min(u64::MAX - 1), icount, RecordBody::Input(Input::Packet { slot, frame }))];
        let wire = Wire::Records { generation: Generation(1), released: Lsn(0), records };
        prop_assert_eq!(decode_all(&wire.encode()), Ok(vec![wire]));
    }
}
