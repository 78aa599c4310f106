//! Recordings: three ends are told apart, closed, cut and corrupt, and what version 1 wrote is read for ever.

mod common;

use common::{every_record, record, records};
use pollux_codec::frame::FrameError;
use pollux_codec::logfile::{self, LogEnd, LogError, LogHeader, LogItem, LogReader};
use pollux_codec::message::Wire;
use pollux_vocab::*;
use proptest::prelude::*;

const SNAPSHOT: &[u8] = b"the machine's state";

fn header() -> LogHeader {
    LogHeader {
        generation: Generation(7),
        vm: "castor".into(),
        config: vec![1, 2, 3],
        snapshot_bytes: SNAPSHOT.len() as u64,
    }
}

/// Header, snapshot and two appends; not closed.
fn open_recording() -> (Vec<u8>, usize) {
    let mut bytes = header().encode();
    bytes.extend_from_slice(SNAPSHOT);
    let records = every_record();
    let (first, second) = records.split_at(9);
    bytes.extend_from_slice(&logfile::encode_records(first));
    let middle = bytes.len();
    bytes.extend_from_slice(&logfile::encode_records(second));
    (bytes, middle)
}

fn recording() -> Vec<u8> {
    let (mut bytes, _) = open_recording();
    bytes.extend_from_slice(&logfile::encode_end(every_record().len() as u64));
    bytes
}

#[derive(Default, PartialEq, Debug)]
struct Read {
    header: Option<LogHeader>,
    snapshot: Vec<u8>,
    records: Vec<Record>,
}

fn read(bytes: &[u8], piece: usize) -> (Read, Result<LogEnd, LogError>) {
    let mut reader = LogReader::new();
    let mut all = Read::default();
    for chunk in bytes.chunks(piece) {
        reader.push(chunk);
        loop {
            match reader.poll() {
                Ok(Some(LogItem::Header(header))) => all.header = Some(header),
                Ok(Some(LogItem::Snapshot { offset, bytes })) => {
                    assert_eq!(offset, all.snapshot.len() as u64);
                    all.snapshot.extend(bytes);
                }
                Ok(Some(LogItem::Records(records))) => all.records.extend(records),
                Ok(None) => break,
                Err(error) => return (all, Err(error)),
            }
        }
    }
    let end = reader.finish();
    (all, end)
}

#[test]
fn a_closed_recording_reads_back_in_whatever_pieces() {
    let bytes = recording();
    for piece in [1, 7, bytes.len()] {
        let (all, end) = read(&bytes, piece);
        assert_eq!(end, Ok(LogEnd::Closed));
        let whole = Read { header: Some(header()), snapshot: SNAPSHOT.to_vec(), records: every_record() };
        assert_eq!(all, whole);
    }
}

#[test]
fn a_recording_cut_at_any_byte_says_how_far_it_is_good() {
    let (bytes, middle) = open_recording();
    let start = header().encode().len() + SNAPSHOT.len();
    for cut in 1..=bytes.len() {
        let (all, end) = read(&bytes[..cut], 64);
        if cut < start {
            assert!(matches!(end, Err(LogError::NoStart { at, .. }) if at == cut as u64), "{cut}: {end:?}");
            continue;
        }
        let good = [bytes.len(), middle, start].into_iter().find(|&good| good <= cut).unwrap_or(0);
        let torn_bytes = (cut - good) as u64;
        let expected = LogEnd::Cut { good_bytes: good as u64, torn_bytes };
        assert_eq!(end, Ok(expected), "{cut}");
        assert!(every_record().starts_with(&all.records));
    }
}

#[test]
fn zeros_that_a_crash_left_are_a_cut_and_anything_behind_them_is_corruption() {
    let (mut bytes, _) = open_recording();
    let good_bytes = bytes.len() as u64;
    bytes.extend_from_slice(&[0; 5000]);
    for piece in [1, 100, bytes.len()] {
        let (all, end) = read(&bytes, piece);
        assert_eq!(end, Ok(LogEnd::Cut { good_bytes, torn_bytes: 5000 }));
        assert_eq!(all.records, every_record());
    }
    bytes.push(1);
    let (_, end) = read(&bytes, 100);
    assert!(matches!(end, Err(LogError::Corrupt(e)) if e.offset() == good_bytes));
}

#[test]
fn a_cut_recording_can_be_truncated_and_appended_to() {
    let (mut bytes, middle) = open_recording();
    bytes.truncate(bytes.len() - 1);
    assert!(matches!(read(&bytes, 64).1, Ok(LogEnd::Cut { good_bytes, .. }) if good_bytes == middle as u64));
    bytes.truncate(middle);
    bytes.extend_from_slice(&logfile::encode_records(&every_record()[9..]));
    bytes.extend_from_slice(&logfile::encode_end(every_record().len() as u64));
    let (all, end) = read(&bytes, 64);
    assert_eq!((all.records, end), (every_record(), Ok(LogEnd::Closed)));
}

#[test]
fn every_flipped_bit_is_corruption_and_never_a_shorter_log() {
    let bytes = recording();
    let snapshot = header().encode().len()..header().encode().len() + SNAPSHOT.len();
    for bit in 0..bytes.len() * 8 {
        if snapshot.contains(&(bit / 8)) {
            // The snapshot has checksums of its own.
            continue;
        }
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let (all, end) = read(&damaged, bytes.len());
        assert!(end.is_err(), "bit {bit}: {end:?}");
        assert!(every_record().starts_with(&all.records));
    }
}

#[test]
fn other_files_newer_formats_and_foreign_frames_are_told_as_such() {
    assert!(matches!(read(b"PK\x03\x04 a zip file", 64).1, Err(LogError::NotALog { .. })));
    let mut newer = recording();
    newer[8] = 2;
    assert_eq!(read(&newer, 64).1, Err(LogError::UnknownFormat { found: 2 }));
    let (mut bytes, _) = open_recording();
    let at = bytes.len() as u64;
    bytes.extend_from_slice(&Wire::Welcome.encode());
    assert_eq!(read(&bytes, 64).1, Err(LogError::Foreign { at, name: "Welcome" }));
}

#[test]
fn missing_and_disordered_records_and_frames_behind_the_end_are_corruption() {
    let (open, _) = open_recording();
    let with = |more: Vec<u8>| read(&[open.clone(), more].concat(), 64).1;
    let found = every_record().len() as u64;
    assert_eq!(with(logfile::encode_end(99)), Err(LogError::Missing { found, said: 99 }));
    let old = logfile::encode_records([record(1, u64::MAX, RecordBody::Mark)]);
    assert!(matches!(with(old), Err(LogError::Disorder { lsn: Lsn(1), .. })));
    let early = logfile::encode_records([record(1 << 40, 1, RecordBody::Mark)]);
    assert!(matches!(with(early), Err(LogError::Disorder { icount: Icount(1), .. })));
    let end = logfile::encode_end(found);
    assert!(matches!(with([end.clone(), end.clone()].concat()), Err(LogError::Foreign { .. })));
    assert!(matches!(with([end.clone(), end[..9].to_vec()].concat()), Err(LogError::Foreign { .. })));
    assert!(matches!(
        with([&end[..], b"junk"].concat()),
        Err(LogError::Corrupt(FrameError::NotAFrame { .. }))
    ));
}

#[test]
fn a_header_cannot_ask_for_more_than_its_bounds() {
    let long = LogHeader { vm: "x".repeat(256), ..header() }.encode();
    assert!(matches!(read(&long, 64).1, Err(LogError::HeaderDamaged { .. })));
    let endless = LogHeader { snapshot_bytes: u64::MAX, ..header() }.encode();
    assert!(matches!(read(&endless, 64).1, Err(LogError::NoStart { part: "snapshot", .. })));
}

/// What was written by version 1, with frames of version 1, must be read for ever.
#[test]
fn the_golden_recording_of_version_1_is_still_read() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/log/v1/every-record");
    let (all, end) = read(&std::fs::read(path).expect("the golden file is there"), 64);
    assert_eq!(end, Ok(LogEnd::Closed));
    assert_eq!(all.header, Some(header()));
    assert_eq!(all.snapshot, SNAPSHOT);
    assert_eq!(all.records, every_record());
}

proptest! {
    #[test]
    fn any_records_survive_a_file(records in records()) {
        let bytes =
            [logfile::encode_header(0), logfile::encode_records(&records), logfile::encode_end(records.len() as u64)];
        let (all, end) = read(&bytes.concat(), 4096);
        prop_assert_eq!(end, Ok(LogEnd::Closed));
        prop_assert_eq!(all.records, records);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(
        junk in proptest::collection::vec(any::<u8>(), 0..200), keep: prop::sample::Index, piece in 1usize..80,
    ) {
        let bytes = recording();
        let kept = &bytes[..keep.index(bytes.len())];
        let _ = read(&[kept, &junk].concat(), piece);
        let _ = read(&junk, piece);
    }
}
