//! The channel between replicas: what is said is heard, whatever pieces it arrives in, and what is damaged is
//! refused at the right byte.

mod common;

use common::{decode_all, every_message, every_record, handover, network, record, records};
use pollux_codec::frame::{self, FrameDecoder, FrameError, HEADER_BYTES, Packing};
use pollux_codec::message::Wire;
use pollux_codec::record::{BATCH_RECORDS_MAX, RecordError};
use pollux_vocab::*;
use proptest::prelude::*;

const RECORDS: u8 = pollux_codec::message::kind::RECORDS;

fn frame_of(kind: u8, payload: &[u8], packing: Packing) -> Vec<u8> {
    let mut out = Vec::new();
    frame::encode(&mut out, kind, Generation(1), payload, packing);
    out
}

fn joined(messages: Vec<Wire>) -> Vec<Record> {
    let records = |wire| match wire {
        Wire::Records { records, .. } => records,
        other => panic!("{}", other.name()),
    };
    messages.into_iter().flat_map(records).collect()
}

#[test]
fn messages_survive_the_wire_in_whatever_pieces_they_arrive() {
    let messages = every_message();
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
        assert_eq!((decoder.offset(), decoder.pending_bytes()), (bytes.len() as u64, 0));
    }
}

#[test]
fn every_single_flipped_bit_is_noticed_and_everything_before_it_is_read() {
    let messages = every_message();
    let mut starts = vec![0];
    let mut bytes = Vec::new();
    for wire in &messages {
        wire.encode_into(&mut bytes);
        starts.push(bytes.len());
    }
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let (read, error) = decode_all(&damaged);
        let hit = starts.iter().filter(|&&start| start <= bit / 8).count() - 1;
        assert_eq!(read[..], messages[..hit], "bit {bit}");
        assert_eq!(error.map(|e| e.offset()), Some(starts[hit] as u64), "bit {bit}");
    }
}

#[test]
fn after_an_error_the_decoder_stays_at_it() {
    let mut bytes = Wire::Welcome.encode();
    bytes.extend_from_slice(b"GET / HTTP/1.1\r\n\r\n");
    let mut decoder = FrameDecoder::new();
    decoder.push(&bytes);
    assert_eq!(decoder.poll(), Ok(Some(Wire::Welcome)));
    let error = FrameError::NotAFrame { offset: HEADER_BYTES as u64, found: *b"GET " };
    assert_eq!(decoder.poll(), Err(error.clone()));
    decoder.push(&Wire::Welcome.encode());
    assert_eq!(decoder.poll(), Err(error));
    assert_eq!(decoder.offset(), HEADER_BYTES as u64);
}

#[test]
fn another_version_is_named_before_anything_else_is_read() {
    let mut bytes = Wire::Welcome.encode();
    bytes[3] = 9;
    bytes[4..].fill(0xee);
    let (_, error) = decode_all(&bytes[..4]);
    assert_eq!(error, Some(FrameError::Version { offset: 0, found: 9 }));
    assert!(error.is_some_and(|e| e.to_string().contains("both sides")));
}

#[test]
fn a_frame_that_says_it_is_enormous_is_refused_before_its_payload_comes() {
    let big = vec![0; frame::PAYLOAD_BYTES_MAX + 1];
    let bytes = frame_of(4, &big, Packing::Plain);
    let (_, error) = decode_all(&bytes[..HEADER_BYTES]);
    assert_eq!(error, Some(FrameError::TooLong { offset: 0, bytes: big.len() as u64 }));
}

#[test]
fn what_is_all_alike_is_packed_and_what_is_random_is_not() {
    let zeros = Wire::State { offset: 0, bytes: vec![0; 1 << 20] };
    assert!(zeros.encode().len() < 1 << 13, "{}", zeros.encode().len());
    assert_eq!(decode_all(&zeros.encode()).0, [zeros]);
    let mut seed = 1u64;
    let mut random = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) as u8
    };
    let noise = Wire::State { offset: 0, bytes: (0..1 << 16).map(|_| random()).collect() };
    assert_eq!(noise.encode().len(), HEADER_BYTES + 8 + (1 << 16));
    assert_eq!(decode_all(&noise.encode()).0, [noise]);
}

#[test]
fn long_states_and_batches_are_split_and_stay_in_order() {
    let state = Wire::State { offset: 5, bytes: (0..9u32 << 20).map(|i| (i >> 12) as u8).collect() };
    let mut next = 5;
    for wire in decode_all(&state.encode()).0 {
        let Wire::State { offset, bytes } = wire else { panic!("{}", wire.name()) };
        assert_eq!(offset, next);
        next += bytes.len() as u64;
    }
    assert_eq!(next, 5 + (9 << 20));
    let packet =
        |lsn| record(lsn, lsn, RecordBody::Input(Input::Packet { slot: 0, frame: vec![1; 9 << 20] }));
    let marks = (4..200_000).map(|lsn| record(lsn, lsn, RecordBody::Mark));
    let records: Vec<_> = (1..4).map(packet).chain(marks).collect();
    let wire = Wire::Records { generation: Generation(1), released: Lsn(0), records: records.clone() };
    let (read, error) = decode_all(&wire.encode());
    assert_eq!(error, None);
    assert!(read.len() >= 6, "{}", read.len());
    assert!(joined(read) == records);
}

#[test]
fn small_records_cost_few_bytes() {
    let cost = |records: Vec<Record>| {
        let count = records.len();
        let wire = |records| Wire::Records { generation: Generation(9), released: Lsn(1 << 40), records };
        (wire(records).encode().len() - wire(vec![]).encode().len()) / count
    };
    let at = |i: u64| (1 + (1 << 40) + i, (1 << 50) + i * 100_000);
    let marks = (0..1000).map(|i| record(at(i).0, at(i).1, RecordBody::Mark)).collect();
    assert!(cost(marks) <= 4);
    let clock = |i: u64| {
        let (time, rate) = (VirtTime((1 << 50) + i * 1_000_000), ClockRate((10 << 32) + i * 1000));
        record(at(i).0, at(i).1, RecordBody::Input(Input::Clock { time, rate }))
    };
    assert!(cost((0..1000).map(clock).collect()) <= 10);
}

#[test]
fn a_batch_that_is_out_of_order_or_too_long_is_refused() {
    let (first, second) = (record(5, 100, RecordBody::Mark), record(6, 99, RecordBody::Mark));
    let (batch, _) = pollux_codec::record::encode(Lsn(0), &[first.clone(), second]);
    let error = RecordError::Disorder { index: 1, lsn: Lsn(6), icount: Icount(99) };
    let (_, found) = decode_all(&frame_of(RECORDS, &batch, Packing::Plain));
    assert_eq!(found, Some(FrameError::Records { offset: 0, error }));
    let (batch, _) = pollux_codec::record::encode(Lsn(0), &[first.clone(), first]);
    assert!(matches!(pollux_codec::record::decode(&batch), Err(RecordError::Disorder { index: 1, .. })));
    let count = BATCH_RECORDS_MAX as u64 + 1;
    let mut batch = vec![1, 0];
    pollux_codec::varint::put(&mut batch, count);
    batch.extend(vec![0; 2 * count as usize]);
    assert_eq!(pollux_codec::record::decode(&batch), Err(RecordError::TooMany { count }));
}

#[test]
fn a_packed_frame_cannot_ask_for_more_memory_than_its_bytes_can_fill() {
    let packed = |len: u32, block: &[u8]| {
        let payload = [&len.to_le_bytes()[..], block].concat();
        let mut bytes = frame_of(4, &payload, Packing::Plain);
        bytes[5] = 1;
        let crc = pollux_codec::crc32c(&bytes[..24]);
        bytes[24..28].copy_from_slice(&crc.to_le_bytes());
        decode_all(&bytes).1
    };
    let unpackable = Some(FrameError::Unpackable { offset: 0 });
    assert_eq!(packed(64 << 20, &[0; 100]), unpackable);
    assert_eq!(packed((64 << 20) + 1, &[0; 1 << 19]), unpackable);
    assert_eq!(packed(9, &[0x10, 7]), unpackable);
}

/// What was said in version 1 must be understood for ever.
#[test]
fn the_golden_channel_of_version_1_is_still_understood() {
    for (name, messages) in
        [("every-message", every_message()), ("handover", vec![handover()]), ("network", network())]
    {
        let path = format!("{}/tests/golden/channel/v1/{name}", env!("CARGO_MANIFEST_DIR"));
        let bytes = std::fs::read(&path).expect("the golden file is there");
        assert_eq!(decode_all(&bytes), (messages, None), "{name}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in 0u8..18, lz4: bool,
    ) {
        let _ = decode_all(&bytes);
        let packing = if lz4 { Packing::Lz4 } else { Packing::Plain };
        let _ = decode_all(&frame_of(kind, &bytes, packing));
        let versioned = [&[1], &bytes[..]].concat();
        let _ = decode_all(&frame_of(RECORDS, &versioned, packing));
    }

    #[test]
    fn a_damaged_payload_with_a_right_checksum_makes_no_panic(
        index in 0usize..12, at: prop::sample::Index, byte: u8, cut: prop::sample::Index,
    ) {
        // A faulty peer, not a faulty wire: the checksums are made after the damage.
        let bytes = every_message()[index].encode();
        let (kind, mut payload) = (bytes[4], bytes[HEADER_BYTES..].to_vec());
        if !payload.is_empty() {
            let at = at.index(payload.len());
            payload[at] = byte;
            payload.truncate(cut.index(payload.len()) + 1);
        }
        let _ = decode_all(&frame_of(kind, &payload, Packing::Plain));
    }

    #[test]
    fn any_records_survive_the_wire(records in records(), generation: u64, released: u64) {
        let wire = Wire::Records { generation: Generation(generation), released: Lsn(released), records };
        prop_assert_eq!(decode_all(&wire.encode()), (vec![wire], None));
    }

    #[test]
    fn any_digest_survives_the_wire(digest in common::digest()) {
        let wire = Wire::Ready { digest };
        prop_assert_eq!(decode_all(&wire.encode()), (vec![wire], None));
    }

    #[test]
    fn a_cut_stream_gives_a_beginning_of_what_was_said(cut: prop::sample::Index) {
        let messages = every_message();
        let bytes: Vec<u8> = messages.iter().flat_map(Wire::encode).collect();
        let (read, error) = decode_all(&bytes[..cut.index(bytes.len())]);
        prop_assert_eq!(error, None);
        prop_assert!(messages.starts_with(&read));
    }
}

#[test]
fn every_kind_of_record_is_among_the_samples() {
    let wire = Wire::Records { generation: Generation(0), released: Lsn(0), records: every_record() };
    assert_eq!(decode_all(&wire.encode()).0, [wire]);
}

#[test]
fn the_golden_introduction_of_version_1_is_still_understood() {
    let greet = pollux_codec::message::Greet {
        vm: "castor".into(),
        generation: Generation(3),
        arbiter: core::array::from_fn(|i| i as u8),
        holder: "host-a-17".into(),
        nonce: [0xa5; 32],
    };
    let messages = vec![
        Wire::Greet(greet),
        Wire::Challenge { nonce: [1; 32], proof: [2; 32] },
        Wire::Proof { proof: core::array::from_fn(|i| i as u8) },
    ];
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/channel/v1/introduction");
    let written: Vec<u8> = messages.iter().flat_map(Wire::encode).collect();
    let bytes = std::fs::read(path).expect("the golden file is there");
    assert_eq!(decode_all(&bytes), (messages, None));
    for length in 0..written.len() {
        assert!(decode_all(&written[..length]).0.len() < 3, "{length} bytes");
    }
}
