//! The port protocol: how Ethernet frames travel between a VM's process and the switch.
//!
//! Over a stream (Unix or TCP): each side sends an 8-byte hello, then frames, each a little-endian `u32`
//! length and that many bytes (destination address first, no FCS). A length of 0 is a *sign of life*: each side
//! sends one when it has sent nothing else for [`BEAT_EVERY`], and gives the port up when it has heard nothing for
//! [`SILENCE_MAX`]. TCP alone would notice a cut cable after minutes. A length with its highest bit set is that of a
//! [`Claim`], which the VM's side sends before its first frame and when its generation changes. Nothing else; either
//! side may close.
//!
//! Invariant: a reader never holds more than one frame of an unfinished length, and a length out of range
//! ends the connection, because after it the stream has no meaning.
//!
//! Not here: sockets (`stream`), who gets which frame (`fabric`).

use crate::config::MacAddr;
use std::time::Duration;

/// The longest Ethernet frame a port carries, in bytes: a 64 KiB segment (TSO) with its headers.
pub const FRAME_BYTES_MAX: usize = 65_550;
/// The shortest, in bytes: an Ethernet header. (No padding to 60: there is no wire to collide on.)
pub(crate) const FRAME_BYTES_MIN: usize = 14;
/// Bytes of the length that precedes each frame.
pub(crate) const PREFIX_BYTES: usize = 4;
/// What both sides send first: magic, version (u16 LE), two reserved zero bytes.
pub(crate) const HELLO: [u8; 8] = *b"PLXP\x03\x00\x00\x00";
/// The version in it. Version 1 had no signs of life, version 2 no claims.
const VERSION: u16 = 3;
/// What the length of a claim has and that of a frame has not.
const CLAIM_FLAG: u32 = 1 << 31;
/// Bytes of a claim before the VM's name.
const CLAIM_HEAD_BYTES: usize = 8 + 8 + 6;
/// The longest name in a claim, in bytes; of a longer one, so much is said.
const CLAIM_NAME_BYTES_MAX: usize = 255;
/// A length that no frame has.
pub(crate) const BEAT: [u8; PREFIX_BYTES] = [0; PREFIX_BYTES];
/// How long a side sends nothing before it gives a sign of life.
pub const BEAT_EVERY: Duration = Duration::from_millis(500);
/// A peer of which nothing is heard for so long is gone.
pub const SILENCE_MAX: Duration = Duration::from_secs(3);

/// Whose MAC speaks through a port: the VM's process says so, its guest cannot.
///
/// On the wire: generation (u64 LE), instance, MAC, and the name's bytes to the end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claim {
    /// In which generation the VM runs there; a newer one takes the MAC from an older one's port.
    pub generation: u64,
    /// Drawn by each process: in the same generation only the same process may connect anew.
    pub instance: [u8; 8],
    /// The card's address.
    pub mac: MacAddr,
    /// The VM's name.
    pub vm: Vec<u8>,
}

impl Claim {
    pub(crate) fn push(&self, out: &mut Vec<u8>) {
        let name = &self.vm[..self.vm.len().min(CLAIM_NAME_BYTES_MAX)];
        out.extend_from_slice(&(CLAIM_FLAG | (CLAIM_HEAD_BYTES + name.len()) as u32).to_le_bytes());
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.instance);
        out.extend_from_slice(&self.mac);
        out.extend_from_slice(name);
    }

    fn parse(body: &[u8]) -> Option<Self> {
        let (generation, rest) = body.split_first_chunk()?;
        let (instance, rest) = rest.split_first_chunk()?;
        let (mac, vm) = rest.split_first_chunk()?;
        let generation = u64::from_le_bytes(*generation);
        Some(Self { generation, instance: *instance, mac: *mac, vm: vm.to_vec() })
    }

    /// Whether who says this may have the MAC of whoever said `old`.
    pub(crate) fn replaces(&self, old: &Self) -> bool {
        let same = self.generation == old.generation && self.instance == old.instance;
        self.vm == old.vm && (self.generation > old.generation || same)
    }
}

/// What a VM's side says, but for signs of life.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Piece<'a> {
    Frame(&'a [u8]),
    Claim(Claim),
}

/// Why a peer's bytes are not the port protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WireError {
    /// not a Pollux port: the hello starts with {0:02x?}, expected "PLXP"
    #[error("not a Pollux port: the hello starts with {0:02x?}, expected \"PLXP\"")]
    Magic([u8; 4]),
    /// port protocol version {0} is not spoken here
    #[error(
        "port protocol version {0} is not spoken here, only version {VERSION}: run the same release on both ends"
    )]
    Version(u16),
    /// frame of {0} bytes announced
    #[error("a frame of {0} bytes was announced; the limits are {FRAME_BYTES_MIN} and {FRAME_BYTES_MAX}")]
    Length(u32),
}

/// Whether `hello` is one that we understand. Reserved bytes are ignored: a later minor use may fill them.
pub(crate) fn check_hello(hello: [u8; 8]) -> Result<(), WireError> {
    let [m0, m1, m2, m3, v0, v1, _, _] = hello;
    if [m0, m1, m2, m3] != HELLO[..4] {
        return Err(WireError::Magic([m0, m1, m2, m3]));
    }
    match u16::from_le_bytes([v0, v1]) {
        VERSION => Ok(()),
        other => Err(WireError::Version(other)),
    }
}

/// Appends `frame` with its length to `out`. The caller has checked the frame's length.
pub(crate) fn push_frame(out: &mut Vec<u8>, frame: &[u8]) {
    out.extend_from_slice(&(frame.len() as u32).to_le_bytes());
    out.extend_from_slice(frame);
}

/// Bytes as they came from a stream, cut into frames.
#[derive(Debug)]
pub(crate) struct FrameBuffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl FrameBuffer {
    /// A buffer that takes up to `capacity` bytes per read; at least one longest frame fits.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { bytes: vec![0; capacity.max(FRAME_BYTES_MAX + PREFIX_BYTES)], start: 0, end: 0 }
    }

    /// The free space to read into. Never empty: [`FrameBuffer::next_frame`] has been run dry before.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.bytes.len() - self.end < FRAME_BYTES_MAX + PREFIX_BYTES {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        &mut self.bytes[self.end..]
    }

    /// Notes that `n` bytes were read into [`FrameBuffer::space`].
    pub(crate) fn filled(&mut self, n: usize) {
        self.end = (self.end + n).min(self.bytes.len());
    }

    /// Takes `N` raw bytes off the front (the hello), if they are there.
    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let taken: [u8; N] = self.bytes[self.start..self.end].get(..N)?.try_into().ok()?;
        self.start += N;
        Some(taken)
    }

    /// The next whole frame or claim, if there is one. Signs of life are passed over.
    pub(crate) fn next_piece(&mut self) -> Result<Option<Piece<'_>>, WireError> {
        self.pass_beats();
        let held = &self.bytes[self.start..self.end];
        let Some(prefix) = held.first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
        let said = u32::from_le_bytes(*prefix);
        if said & CLAIM_FLAG == 0 {
            return Ok(self.next_frame()?.map(Piece::Frame));
        }
        let length = (said & !CLAIM_FLAG) as usize;
        if !(CLAIM_HEAD_BYTES..=CLAIM_HEAD_BYTES + CLAIM_NAME_BYTES_MAX).contains(&length) {
            return Err(WireError::Length(said));
        }
        let Some(body) = held.get(PREFIX_BYTES..PREFIX_BYTES + length) else { return Ok(None) };
        let claim = Claim::parse(body).ok_or(WireError::Length(said))?;
        self.start += PREFIX_BYTES + length;
        Ok(Some(Piece::Claim(claim)))
    }

    fn pass_beats(&mut self) {
        while self.bytes[self.start..self.end].starts_with(&BEAT) {
            self.start += PREFIX_BYTES;
        }
    }

    /// The next whole frame, if there is one. Signs of life are passed over; a claim is an error, as a switch makes none.
    pub(crate) fn next_frame(&mut self) -> Result<Option<&[u8]>, WireError> {
        self.pass_beats();
        let held = &self.bytes[self.start..self.end];
        let Some(prefix) = held.first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
        let length = u32::from_le_bytes(*prefix);
        if !(FRAME_BYTES_MIN..=FRAME_BYTES_MAX).contains(&(length as usize)) {
            return Err(WireError::Length(length));
        }
        let whole = PREFIX_BYTES + length as usize;
        if held.len() < whole {
            return Ok(None);
        }
        let at = self.start + PREFIX_BYTES;
        self.start += whole;
        Ok(Some(&self.bytes[at..at + length as usize]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_whole_however_the_stream_was_cut() {
        let frames: Vec<Vec<u8>> = (0..40usize).map(|i| vec![i as u8; 14 + i * 977 % 65_000]).collect();
        let mut stream = Vec::new();
        for frame in &frames {
            push_frame(&mut stream, frame);
        }
        for chunk in [1usize, 3, 1500, 70_000] {
            let mut buffer = FrameBuffer::new(0);
            let mut got = Vec::new();
            let mut rest = &stream[..];
            while !rest.is_empty() {
                let space = buffer.space();
                let n = chunk.min(space.len()).min(rest.len());
                assert!(n > 0);
                space[..n].copy_from_slice(&rest[..n]);
                buffer.filled(n);
                rest = &rest[n..];
                while let Some(frame) = buffer.next_frame().unwrap() {
                    got.push(frame.to_vec());
                }
            }
            assert_eq!(got, frames, "chunk {chunk}");
        }
    }

    #[test]
    fn signs_of_life_between_frames_are_passed_over() {
        let mut stream = [BEAT, BEAT].concat();
        push_frame(&mut stream, &[7; 14]);
        stream.extend(BEAT);
        let mut buffer = FrameBuffer::new(0);
        buffer.space()[..stream.len()].copy_from_slice(&stream);
        buffer.filled(stream.len());
        assert_eq!(buffer.next_frame(), Ok(Some(&[7; 14][..])));
        assert_eq!(buffer.next_frame(), Ok(None));
        assert_eq!((buffer.start, buffer.end), (stream.len(), stream.len()));
    }

    #[test]
    fn a_claim_is_read_as_it_was_said_and_a_frame_stays_a_frame() {
        let claim = Claim { generation: 7, instance: [3; 8], mac: [2; 6], vm: b"web".to_vec() };
        let mut stream = Vec::new();
        claim.push(&mut stream);
        push_frame(&mut stream, &[7; 14]);
        let mut buffer = FrameBuffer::new(0);
        buffer.space()[..stream.len()].copy_from_slice(&stream);
        buffer.filled(10);
        assert_eq!(buffer.next_piece(), Ok(None), "a part of it");
        buffer.filled(stream.len() - 10);
        assert_eq!(buffer.next_piece(), Ok(Some(Piece::Claim(claim))));
        assert_eq!(buffer.next_piece(), Ok(Some(Piece::Frame(&[7; 14]))));
        let mut buffer = FrameBuffer::new(0);
        buffer.space()[..4].copy_from_slice(&(CLAIM_FLAG | 21).to_le_bytes());
        buffer.filled(4);
        assert_eq!(buffer.next_piece(), Err(WireError::Length(CLAIM_FLAG | 21)));
    }

    #[test]
    fn a_length_out_of_range_is_refused_before_its_bytes_arrive() {
        for length in [1u32, 13, FRAME_BYTES_MAX as u32 + 1, u32::MAX] {
            let mut buffer = FrameBuffer::new(0);
            buffer.space()[..4].copy_from_slice(&length.to_le_bytes());
            buffer.filled(4);
            assert_eq!(buffer.next_frame(), Err(WireError::Length(length)));
        }
    }

    #[test]
    fn only_our_own_magic_and_version_are_let_in() {
        assert_eq!(check_hello(HELLO), Ok(()));
        assert_eq!(check_hello(*b"GET / HT"), Err(WireError::Magic(*b"GET ")));
        assert_eq!(check_hello(*b"PLXP\x01\x00\x00\x00"), Err(WireError::Version(1)));
    }
}
