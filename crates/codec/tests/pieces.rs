//! Long frames in pieces: they come out as they went in, a heartbeat may come between, and nothing else may; a receiver
//! holds no more than it was sent.

mod common;

use common::{decode_all, every_message, handover, network, record};
use pollux_codec::frame::{self, FrameDecoder, FrameError, HEADER_BYTES, Packing};
use pollux_codec::message::{Wire, kind};
use pollux_codec::piece::PIECE_BYTES_MAX;
use pollux_vocab::*;

const GENERATION: Generation = Generation(3);

/// Bytes that hardly pack.
fn noise(bytes: usize) -> Vec<u8> {
    let mut seed = 1u64;
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) as u8
    };
    (0..bytes).map(|_| next()).collect()
}

fn long(bytes: usize) -> Wire {
    let body = RecordBody::Input(Input::DiskDone {
        slot: 0,
        request: 9,
        status: DiskStatus::Ok,
        data: noise(bytes),
    });
    let records = vec![record(1, 5, body), record(2, 6, RecordBody::Mark)];
    Wire::Records { generation: GENERATION, released: Lsn(0), records }
}

fn frames(bytes: &[u8]) -> Vec<&[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(|| {
        let (frame, behind) = rest.split_at(frame::whole_bytes(rest)?);
        rest = behind;
        Some(frame)
    })
    .collect()
}

fn piece(generation: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::encode(&mut out, kind::PIECE, Generation(generation), payload, Packing::Plain);
    out
}

#[test]
fn no_frame_of_the_log_on_the_channel_is_longer_than_a_piece() {
    for wire in [long(0), long(PIECE_BYTES_MAX), long(300_000), long(3 << 20)] {
        let bytes = wire.encode_in_pieces();
        assert!(frames(&bytes).iter().all(|frame| frame.len() <= HEADER_BYTES + PIECE_BYTES_MAX));
        let cost = bytes.len() as f64 / wire.encode().len() as f64;
        assert!(cost < 1.01, "{cost}");
        assert!(decode_all(&bytes) == decode_all(&wire.encode()), "the same as whole frames");
        assert_eq!(decode_all(&bytes).1, None);
    }
    let small = Wire::Heartbeat { generation: GENERATION };
    assert_eq!(small.encode_in_pieces(), small.encode());
}

#[test]
fn a_heartbeat_comes_through_between_two_pieces_and_no_other_message_does() {
    let bytes = long(100_000).encode_in_pieces();
    let pieces = frames(&bytes);
    let with = |between: &Wire| [pieces[0], &between.encode(), &pieces[1..].concat()].concat();
    let heartbeat = Wire::Heartbeat { generation: GENERATION };
    assert_eq!(decode_all(&with(&heartbeat)), (vec![heartbeat, long(100_000)], None));
    for other in every_message().into_iter().chain([handover()]) {
        let (read, error) = decode_all(&with(&other));
        let may = matches!(other, Wire::Heartbeat { .. } | Wire::Ack(_));
        assert_eq!(
            (read.len(), error.is_none()),
            if may { (2, true) } else { (0, false) },
            "{}",
            other.name()
        );
        let offset = pieces[0].len() as u64;
        assert!(may || error.is_some_and(|error| error.offset() == offset), "{}", other.name());
    }
}

#[test]
fn a_receiver_of_pieces_holds_no_more_than_it_was_sent_and_believes_no_more_than_a_frame_may_have() {
    let enormous = {
        let mut head = Vec::new();
        frame::encode(
            &mut head,
            kind::RECORDS,
            GENERATION,
            &vec![0; frame::PAYLOAD_BYTES_MAX + 1],
            Packing::Plain,
        );
        head.truncate(HEADER_BYTES);
        head
    };
    assert!(matches!(decode_all(&piece(3, &enormous)).1, Some(FrameError::TooLong { offset: 0, .. })));
    let whole = long(100_000).encode();
    let refused = |bytes: &[u8]| match decode_all(bytes) {
        (read, Some(FrameError::Piece { what, .. })) if read.is_empty() => what,
        other => panic!("{other:?}"),
    };
    assert!(refused(&piece(3, &[])).contains("no bytes"));
    assert!(refused(&piece(3, &whole[..PIECE_BYTES_MAX + 1])).contains("more than"));
    assert!(refused(&piece(3, &whole[..HEADER_BYTES - 1])).contains("header"));
    assert!(refused(&piece(4, &whole[..1000])).contains("generation"));
    let state = Wire::State { offset: 0, bytes: noise(1000) }.encode();
    assert!(refused(&piece(0, &state)).contains("records"), "nothing but the log comes in pieces");
    let nested = piece(3, &piece(3, &whole[..1000]));
    assert!(refused(&nested).contains("records"));
    let short = long(100).encode();
    assert!(refused(&piece(3, &[&short[..], &[0]].concat())).contains("behind the end"));
    let mut damaged = long(100_000).encode();
    damaged[70_000] ^= 1;
    let pieces: Vec<u8> = damaged.chunks(PIECE_BYTES_MAX).flat_map(|bytes| piece(3, bytes)).collect();
    assert_eq!(decode_all(&pieces).1, Some(FrameError::PayloadDamaged { offset: 0 }));
}

#[test]
fn a_file_holds_no_pieces() {
    let mut decoder = FrameDecoder::of_file(7);
    decoder.push(&long(100_000).encode_in_pieces());
    assert!(matches!(decoder.poll(), Err(FrameError::Piece { offset: 7, .. })));
}

/// What was said must be understood for ever: this version and the one before it differ in Hello alone. Files that are not
/// there are written if that is asked for.
#[test]
fn the_golden_channel_of_versions_2_and_3_is_still_understood() {
    let every = [every_message(), vec![handover()], network()].concat();
    let whole: Vec<u8> = every.iter().flat_map(Wire::encode).collect();
    let between = {
        let bytes = long(40_000).encode_in_pieces();
        let pieces = frames(&bytes);
        let heartbeat = Wire::Heartbeat { generation: GENERATION }.encode();
        [pieces[0], &heartbeat, &pieces[1..].concat()].concat()
    };
    let said = vec![Wire::Heartbeat { generation: GENERATION }, long(40_000)];
    for (version, name, messages, written) in [
        (2, "every-message", every.clone(), whole.clone()),
        (2, "pieces", said, between),
        (3, "every-message", every, whole),
    ] {
        let path = format!("{}/tests/golden/channel/v{version}/{name}", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("POLLUX_WRITE_GOLDEN").is_some() && !std::path::Path::new(&path).exists() {
            std::fs::write(&path, &written).expect("the golden file can be written");
        }
        let bytes = std::fs::read(&path).expect("the golden file is there");
        assert_eq!(decode_all(&bytes), (messages, None), "{name}");
        assert!(version < frame::VERSION || bytes == written, "{name} is written as it was");
    }
}
