//! The snapshot container: what is put in comes out, and damage, other files and other versions are told apart.

use pollux_codec::snapshot::{self, ContainerError, Item, Reader, Section};
use proptest::prelude::*;

const SECTIONS: [Section<'static>; 3] = [(1, 1, b"first"), (0xff03, 7, b""), (2, 2, &[9; 100])];

fn sample() -> Vec<u8> {
    snapshot::encode(SECTIONS)
}

/// What a reader makes of bytes that come in pieces.
fn read(bytes: &[u8], piece: usize) -> Result<Vec<(u16, u16, Vec<u8>)>, ContainerError> {
    let (mut reader, mut sections) = (Reader::default(), Vec::new());
    for mut rest in bytes.chunks(piece) {
        while let Some(item) = reader.next(&mut rest)? {
            match item {
                Item::Begin { kind, version, .. } => sections.push((kind, version, Vec::new())),
                Item::Content(bytes) => sections.last_mut().expect("begun").2.extend_from_slice(bytes),
                Item::End => {}
            }
        }
        assert!(rest.is_empty(), "all is taken");
    }
    reader.finish()?;
    Ok(sections)
}

fn owned(sections: &[Section<'_>]) -> Vec<(u16, u16, Vec<u8>)> {
    sections.iter().map(|(kind, version, bytes)| (*kind, *version, bytes.to_vec())).collect()
}

#[test]
fn a_snapshot_that_comes_in_pieces_is_the_same_snapshot_and_as_damaged() {
    let bytes = sample();
    for piece in [1, 3, 19, 64, bytes.len()] {
        assert_eq!(read(&bytes, piece), Ok(owned(&SECTIONS)));
        assert_eq!(read(&snapshot::encode([]), piece), Ok(vec![]));
        for len in 0..bytes.len() {
            let whole = snapshot::decode(&bytes[..len]).expect_err("cut off");
            assert_eq!(read(&bytes[..len], piece), Err(whole), "{len} bytes in pieces of {piece}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&damaged, piece).is_err(), "bit {bit}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(matches!(read(&longer, piece), Err(ContainerError::TrailingBytes { .. })));
        let twice = snapshot::encode([(5, 1, &b"a"[..]), (5, 1, b"b")]);
        assert_eq!(read(&twice, piece), Err(ContainerError::Duplicate { kind: 5 }));
    }
}

#[test]
fn sections_come_back_in_order() {
    assert_eq!(snapshot::decode(&sample()), Ok(SECTIONS.to_vec()));
    assert_eq!(snapshot::decode(&snapshot::encode([])), Ok(vec![]));
}

#[test]
fn every_truncation_is_told_with_its_byte() {
    let bytes = sample();
    assert_eq!(snapshot::decode(&[]), Err(ContainerError::NotASnapshot { found: vec![] }));
    for len in 1..bytes.len() {
        let error = snapshot::decode(&bytes[..len]).expect_err("cut off");
        assert!(matches!(error, ContainerError::Truncated { at, .. } if at == len as u64), "{len}: {error}");
    }
    let longer = [&bytes[..], &[0]].concat();
    let at = bytes.len() as u64;
    assert_eq!(snapshot::decode(&longer), Err(ContainerError::TrailingBytes { at, extra: 1 }));
}

#[test]
fn every_flipped_bit_is_found() {
    let good = sample();
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(snapshot::decode(&bytes).is_err(), "bit {bit}");
    }
}

#[test]
fn other_files_and_newer_formats_are_told_as_such() {
    let error = snapshot::decode(b"\x7fELF\x02\x01\x01\x00rest").expect_err("an ELF file");
    assert!(error.to_string().starts_with("not a Pollux snapshot"), "{error}");
    let mut newer = sample();
    newer[8] = 2;
    assert_eq!(snapshot::decode(&newer), Err(ContainerError::UnknownFormat { found: 2 }));
}

#[test]
fn two_sections_of_one_kind_are_refused() {
    let bytes = snapshot::encode([(5, 1, &b"a"[..]), (5, 1, b"b")]);
    assert_eq!(snapshot::decode(&bytes), Err(ContainerError::Duplicate { kind: 5 }));
}

/// What was written by version 1 must be read for ever.
#[test]
fn the_golden_snapshot_of_version_1_is_still_read() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/snapshot/v1/three-sections");
    if std::env::var_os("POLLUX_WRITE_GOLDEN").is_some() {
        std::fs::write(path, sample()).expect("the golden file can be written");
    }
    let bytes = std::fs::read(path).expect("the golden file is there");
    assert_eq!(snapshot::decode(&bytes), Ok(SECTIONS.to_vec()));
}

proptest! {
    #[test]
    fn any_sections_come_back(
        sections in proptest::collection::btree_map(
            any::<u16>(), (any::<u16>(), proptest::collection::vec(any::<u8>(), 0..200)), 0..10),
    ) {
        let sections: Vec<Section<'_>> = sections.iter().map(|(&k, (v, b))| (k, *v, &b[..])).collect();
        let bytes = snapshot::encode(sections.iter().copied());
        prop_assert_eq!(snapshot::decode(&bytes), Ok(sections));
    }

    #[test]
    fn no_bytes_make_the_reader_panic(
        junk in proptest::collection::vec(any::<u8>(), 0..200), keep: prop::sample::Index,
    ) {
        let bytes = sample();
        let _ = snapshot::decode(&[&bytes[..keep.index(bytes.len())], &junk].concat());
        let _ = snapshot::decode(&junk);
    }
}
