//! Who an arbiter is, and what only those who reach it know.
//!
//! Invariant: an arbiter is the one place that carries its marker, not whatever lies at a path. The marker's id is
//! random, made once by `pollux arbiter init`; both sides of a pair compare it, and every claim looks for it again.
//!
//! Not here: the claims themselves (the crate's root), random numbers, storage.

use crate::ClaimError;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use crc::{CRC_32_ISCSI, Crc};

/// First line of a marker at rest.
const HEADER: &str = "pollux-arbiter 1";

/// Which arbiter: random, chosen once. Everybody may know it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct ArbiterId(pub [u8; 16]);

impl fmt::Display for ArbiterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// What the claim of a running VM holds and nobody but readers of the arbiter knows: a peer that knows it reaches the
/// same arbiter.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Secret(pub [u8; 32]);

impl fmt::Debug for Secret {
    /// Never the bytes: a secret that is printed is in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The bytes of a marker at rest: text, the last line of which is the CRC32C of the others.
#[must_use]
pub fn encode_marker(id: ArbiterId) -> Vec<u8> {
    let text = alloc::format!("{HEADER}\nid {id}\n");
    let check = Crc::<u32>::new(&CRC_32_ISCSI).checksum(text.as_bytes());
    alloc::format!("{text}check {check:08x}\n").into_bytes()
}

/// Reads a marker at rest. Whatever [`encode_marker`] does not write is refused.
pub fn decode_marker(bytes: &[u8]) -> Result<ArbiterId, ClaimError> {
    let text = core::str::from_utf8(bytes).map_err(|_| ClaimError::NotAClaim("it is not text"))?;
    let mut lines = text.split_terminator('\n');
    match lines.next() {
        Some(HEADER) => {}
        Some(other) if other.starts_with("pollux-arbiter ") => {
            return Err(ClaimError::Version(other.to_string()));
        }
        _ => return Err(ClaimError::NotAClaim("it does not start like an arbiter's marker")),
    }
    let id = lines.next().and_then(|line| line.strip_prefix("id ")).and_then(unhex);
    let id = ArbiterId(id.ok_or(ClaimError::NotAClaim("the id is none"))?);
    if encode_marker(id) != bytes {
        return Err(ClaimError::Damaged);
    }
    Ok(id)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| alloc::format!("{byte:02x}")).collect()
}

pub(crate) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_survives_being_written_down_and_every_damaged_byte_is_noticed() {
        let id = ArbiterId(core::array::from_fn(|i| i as u8 * 17));
        let bytes = encode_marker(id);
        assert_eq!(decode_marker(&bytes), Ok(id));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            assert!(decode_marker(&damaged).is_err(), "byte {at}");
            assert!(decode_marker(&bytes[..at]).is_err(), "{at} bytes");
        }
        assert!(decode_marker(&[&bytes[..], b"x"].concat()).is_err());
    }

    #[test]
    fn a_secret_is_never_printed() {
        assert_eq!(alloc::format!("{:?}", Secret([7; 32])), "Secret(..)");
    }
}
