//! Recordings, as files that somebody else may have written.
//!
//! Held true of any bytes, as they are and with right checksums: no panic; what is read does not depend on the
//! pieces that the file is read in; records rise; what is said to be good is within the file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pollux_codec::logfile::{LogEnd, LogError, LogHeader, LogItem, LogReader};
use pollux_fuzz::seal;
use pollux_vocab::Record;

type Read = (Option<LogHeader>, Vec<u8>, Vec<Record>, Result<LogEnd, LogError>);

fn read(bytes: &[u8], piece: usize) -> Read {
    let mut reader = LogReader::new();
    let (mut header, mut snapshot, mut all) = (None, Vec::new(), Vec::new());
    'file: for piece in bytes.chunks(piece) {
        reader.push(piece);
        loop {
            match reader.poll() {
                Ok(Some(LogItem::Header(found))) => assert!(header.replace(found).is_none()),
                Ok(Some(LogItem::Snapshot { offset, bytes })) => {
                    assert_eq!(offset, snapshot.len() as u64);
                    snapshot.extend_from_slice(&bytes);
                }
                Ok(Some(LogItem::Records(records))) => all.extend(records),
                Ok(None) => break,
                Err(_) => break 'file,
            }
        }
    }
    (header, snapshot, all, reader.finish())
}

fn check(bytes: &[u8]) {
    let whole = read(bytes, bytes.len().max(1));
    // Where a damaged file is cut off may show in its end, not in what came before.
    let pieces = read(bytes, 1 + bytes.len() / 5);
    assert_eq!((&whole.0, &whole.1, &whole.2), (&pieces.0, &pieces.1, &pieces.2));
    assert_eq!(whole.3.is_ok(), pieces.3.is_ok());
    let rises = |pair: &[Record]| pair[0].lsn < pair[1].lsn && pair[0].icount <= pair[1].icount;
    assert!(whole.2.windows(2).all(rises));
    if let Ok(LogEnd::Cut { good_bytes, torn_bytes }) = whole.3 {
        assert_eq!(good_bytes + torn_bytes, bytes.len() as u64);
        if torn_bytes > 0 {
            let good = read(&bytes[..good_bytes as usize], good_bytes as usize);
            assert_eq!((good.2, good.3), (whole.2, Ok(LogEnd::Cut { good_bytes, torn_bytes: 0 })));
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    let mut sealed = bytes.to_vec();
    seal::log(&mut sealed);
    check(&sealed);
});
