//! Puts right checksums and lengths into bytes that a fuzzer has changed.
//!
//! Why: a checksum that is wrong ends every decoder at once, and no fuzzer finds a right one. Damage that is
//! told by a checksum is the codec's own tests' business; what fuzzing is for is a peer that is faulty or
//! hostile, and that one computes checksums well. The layouts are those of `docs/wire.md`.

use pollux_codec::crc32c;
use pollux_codec::message::kind;
use pollux_codec::{frame, logfile, snapshot};

fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// A row of frames: each that has room for a header becomes whole and right, whatever it says.
pub fn frames(bytes: &mut [u8]) {
    let mut at = 0;
    while bytes.len() - at >= frame::HEADER_BYTES {
        let (head, rest) = bytes[at..].split_at_mut(frame::HEADER_BYTES);
        head[..3].copy_from_slice(&frame::MAGIC);
        head[3] = frame::VERSION;
        head[5] &= 1;
        head[6..8].fill(0);
        let stored = (u32_at(head, 8) as usize).min(rest.len());
        put_u32(head, 8, stored as u32);
        // A frame that comes in one piece is sealed as well; one level of that is all there may be.
        if head[4] == kind::PIECE && rest[..stored].get(4) == Some(&kind::RECORDS) {
            frames(&mut rest[..stored]);
        }
        put_u32(head, 20, crc32c(&rest[..stored]));
        let crc = crc32c(&head[..24]);
        put_u32(head, 24, crc);
        at += frame::HEADER_BYTES + stored;
    }
}

/// A log file: its header, a snapshot of any content, then frames.
pub fn log(bytes: &mut [u8]) {
    const FIXED: usize = 40;
    if bytes.len() < FIXED + 4 {
        return;
    }
    bytes[..8].copy_from_slice(&logfile::MAGIC);
    bytes[8..10].copy_from_slice(&logfile::FORMAT.to_le_bytes());
    bytes[10..12].fill(0);
    let room = bytes.len() - FIXED - 4;
    let name = (u32_at(bytes, 32) as usize).min(room).min(logfile::VM_NAME_BYTES_MAX);
    let config = (u32_at(bytes, 36) as usize).min(room - name);
    put_u32(bytes, 32, name as u32);
    put_u32(bytes, 36, config as u32);
    let whole = FIXED + name + config + 4;
    put_u32(bytes, 12, whole as u32);
    let crc = crc32c(&bytes[..whole - 4]);
    put_u32(bytes, whole - 4, crc);
    let snapshot = u64::from(u32_at(bytes, 24)).min((bytes.len() - whole) as u64);
    // The bytes above stay: a snapshot may be longer than the file, or than any.
    if bytes[28..32] == [0; 4] {
        frames(&mut bytes[whole + snapshot as usize..]);
    }
}

/// A snapshot: its header, and as many sections as the bytes hold.
pub fn snapshot(bytes: &mut [u8]) {
    const HEADER: usize = 28;
    const SECTION: usize = 20;
    if bytes.len() < HEADER {
        return;
    }
    let (mut at, mut count) = (HEADER, 0);
    while bytes.len() - at >= SECTION {
        let (head, rest) = bytes[at..].split_at_mut(SECTION);
        // Sections are found by their kind: small ones are the board's, the rest the machine's.
        let len = (u32_at(head, 4) as usize).min(rest.len());
        head[4..12].copy_from_slice(&(len as u64).to_le_bytes());
        put_u32(head, 12, crc32c(&rest[..len]));
        let crc = crc32c(&head[..16]);
        put_u32(head, 16, crc);
        (at, count) = (at + SECTION + len, count + 1);
    }
    let total = bytes.len() as u64;
    bytes[..8].copy_from_slice(&snapshot::MAGIC);
    bytes[8..10].copy_from_slice(&snapshot::FORMAT.to_le_bytes());
    bytes[10..12].fill(0);
    bytes[12..20].copy_from_slice(&total.to_le_bytes());
    put_u32(bytes, 20, count);
    let crc = crc32c(&bytes[..24]);
    put_u32(bytes, 24, crc);
}
