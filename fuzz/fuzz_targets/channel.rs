//! What a peer may say: frames, messages, records.
//!
//! Held true of any bytes, as they are and with right checksums: no panic; the messages that come out do not depend
//! on the pieces that the bytes arrive in; a message that came out, encoded, comes out again, whole or in pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pollux_codec::frame::{FrameDecoder, FrameError};
use pollux_codec::message::Wire;
use pollux_codec::record;
use pollux_fuzz::seal;

fn decode(bytes: &[u8], piece: usize) -> (Vec<Wire>, Option<FrameError>, u64) {
    let mut decoder = FrameDecoder::new();
    let mut all = Vec::new();
    for piece in bytes.chunks(piece) {
        decoder.push(piece);
        loop {
            match decoder.poll() {
                Ok(Some(wire)) => all.push(wire),
                Ok(None) => break,
                Err(error) => return (all, Some(error), decoder.offset()),
            }
        }
        assert!(decoder.pending_bytes() <= bytes.len());
    }
    (all, None, decoder.offset())
}

fn check(bytes: &[u8]) {
    let whole = decode(bytes, bytes.len().max(1));
    let pieces = decode(bytes, 1 + bytes.len() / 7);
    assert_eq!(whole, pieces);
    let mut again = Vec::new();
    whole.0.iter().for_each(|wire| wire.encode_into(&mut again));
    // A batch of more records than fit into one frame is not made by decoding one.
    let (second, error, end) = decode(&again, again.len().max(1));
    assert_eq!((&second, error, end), (&whole.0, None, again.len() as u64));
    let again: Vec<u8> = second.iter().flat_map(Wire::encode_in_pieces).collect();
    let (third, error, end) = decode(&again, again.len().max(1));
    assert_eq!((third, error, end), (second, None, again.len() as u64));
}

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    let mut sealed = bytes.to_vec();
    seal::frames(&mut sealed);
    check(&sealed);
    if let Ok((released, records)) = record::decode(bytes) {
        let (again, rest) = record::encode(released, &records);
        assert!(rest.is_empty());
        assert_eq!(record::decode(&again), Ok((released, records)));
    }
});
