//! Datagrams in pieces (RFC 791, 3.2): put together from what guests send ([`Reassembly`]), cut for guests ([`cut`]),
//! and told apart ([`Idents`]). Pure: time is an argument.
//!
//! Pieces that overlap or contradict each other ruin their datagram, and what of it still comes is dropped, too: no
//! honest sender makes any, and what two readers make of them differs (RFC 5722, 3, which is about IPv6). A piece that
//! comes twice, byte for byte, is only late.
//!
//! Invariants: what is held never exceeds the bounds below, counted with what keeping it costs; a datagram is
//! forgotten [`FORGET_AFTER`] its first piece, finished or not; a guest at its bound loses its own oldest datagram, and
//! if all guests together are at theirs, the one that holds most loses its.
//!
//! Not here: which pieces are worth keeping, and checksums (`gateway`).

use crate::config::MacAddr;
use crate::fabric::PortId;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// The longest IPv4 packet, with its header, in bytes.
const PACKET_BYTES_MAX: usize = 65_535;
/// Offsets count in units of so many bytes.
const UNIT_BYTES: usize = 8;
/// How long pieces wait for the rest: RFC 791's own proposal. Long enough for a failover between two pieces; the 60 s and
/// more of RFC 1122 (3.3.2) would let a busy guest's 16-bit identification come round while an old piece still waits
/// (RFC 4963), and pieces do not cross the world on their way to the gateway.
pub(crate) const FORGET_AFTER: Duration = Duration::from_secs(15);
/// Unfinished datagrams of one port.
const PORT_DATAGRAMS_MAX: usize = 32;
/// Bytes of one port's unfinished datagrams; more than any single one can cost.
const PORT_BYTES_MAX: usize = 1 << 20;
/// Unfinished datagrams of all ports.
const DATAGRAMS_MAX: usize = 16 * PORT_DATAGRAMS_MAX;
/// Bytes of all ports' unfinished datagrams.
const BYTES_MAX: usize = 16 * PORT_BYTES_MAX;
/// What a piece costs beside its bytes.
const PIECE_COST_BYTES: usize = 64;

/// What makes pieces one datagram's (RFC 791, 2.3; the protocol is always UDP). Not the port: a guest may move
/// between two pieces, and a MAC is of one port at a time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Key {
    pub(crate) mac: MacAddr,
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
    pub(crate) ident: u16,
}

/// A piece of a datagram.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece<'a> {
    /// Bytes of the packet's header.
    pub(crate) header: usize,
    /// Where it begins in the packet's payload, in bytes.
    pub(crate) offset: usize,
    /// Whether it is not the last.
    pub(crate) more: bool,
    pub(crate) bytes: &'a [u8],
}

/// A datagram that is not whole yet.
#[derive(Debug)]
struct Partial {
    port: PortId,
    since: Instant,
    /// By offset; no two overlap.
    pieces: BTreeMap<usize, Vec<u8>>,
    /// Their bytes.
    bytes: usize,
    /// How long the whole is, once the last piece has come.
    length: Option<usize>,
    ruined: bool,
}

impl Partial {
    fn cost(&self) -> usize {
        self.bytes + self.pieces.len() * PIECE_COST_BYTES
    }

    /// Adds a piece; whether the datagram is whole, or why it never will be.
    fn add(&mut self, piece: Piece<'_>) -> Result<bool, &'static str> {
        let Piece { header, offset: start, more, bytes } = piece;
        let end = start + bytes.len();
        if self.ruined {
            return Err("it belongs to a datagram that is dropped");
        }
        if bytes.is_empty() || (more && bytes.len() % UNIT_BYTES != 0) {
            return Err("no piece has this length");
        }
        if header + end > PACKET_BYTES_MAX {
            return Err("the datagram is longer than any");
        }
        let is_known = self.pieces.get(&start).is_some_and(|known| known[..] == *bytes);
        if is_known && more == (self.length != Some(end)) {
            return Ok(false);
        }
        let last = |pieces: &BTreeMap<usize, Vec<u8>>, below: usize| {
            pieces.range(..below).next_back().map_or(0, |(at, bytes)| at + bytes.len())
        };
        if last(&self.pieces, end) > start {
            return Err("it overlaps another piece");
        }
        let fits = match self.length {
            Some(length) => more && end < length,
            None => more || last(&self.pieces, usize::MAX) <= start,
        };
        if !fits {
            return Err("it contradicts the datagram's end");
        }
        if !more {
            self.length = Some(end);
        }
        self.bytes += bytes.len();
        self.pieces.insert(start, bytes.to_vec());
        // Without overlaps, as many bytes as the whole has are the whole.
        Ok(self.length == Some(self.bytes))
    }

    fn ruin(&mut self) {
        self.ruined = true;
        self.pieces.clear();
        self.bytes = 0;
    }
}

/// All datagrams that are not whole yet.
#[derive(Debug, Default)]
pub(crate) struct Reassembly {
    partial: BTreeMap<Key, Partial>,
    /// Unfinished datagrams dropped since they were counted last.
    lost: u64,
}

impl Reassembly {
    /// Takes a piece that came through `port`; gives the datagram if that made it whole. `Err` says why the piece, and
    /// its datagram, is dropped.
    pub(crate) fn take(
        &mut self,
        port: PortId,
        key: Key,
        piece: Piece<'_>,
        now: Instant,
    ) -> Result<Option<Vec<u8>>, &'static str> {
        if self.partial.get(&key).is_some_and(|partial| is_over(partial, now)) {
            self.drop_one(key);
        }
        let port = self.partial.get(&key).map_or(port, |partial| partial.port);
        self.make_room(port, key, piece.bytes.len() + PIECE_COST_BYTES);
        let partial = self.partial.entry(key).or_insert_with(|| Partial {
            port,
            since: now,
            pieces: BTreeMap::new(),
            bytes: 0,
            length: None,
            ruined: false,
        });
        match partial.add(piece) {
            Ok(false) => Ok(None),
            Ok(true) => {
                let pieces = self.partial.remove(&key).map(|partial| partial.pieces).unwrap_or_default();
                Ok(Some(pieces.into_values().flatten().collect()))
            }
            Err(reason) => {
                partial.ruin();
                Err(reason)
            }
        }
    }

    /// Makes room for `cost` bytes more of datagram `key`, which is spared: it fits alone.
    fn make_room(&mut self, port: PortId, key: Key, cost: usize) {
        let is_new = usize::from(!self.partial.contains_key(&key));
        loop {
            let mut held: BTreeMap<PortId, (usize, usize)> = BTreeMap::new();
            for partial in self.partial.values() {
                let (bytes, datagrams) = held.entry(partial.port).or_default();
                (*bytes, *datagrams) = (*bytes + partial.cost(), *datagrams + 1);
            }
            let own = held.get(&port).copied().unwrap_or_default();
            let all = held.values().fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
            let is_full = |held: (usize, usize), bytes: usize, datagrams: usize| {
                held.0 + cost > bytes || held.1 + is_new > datagrams
            };
            let from = if is_full(own, PORT_BYTES_MAX, PORT_DATAGRAMS_MAX) {
                Some(port)
            } else if is_full(all, BYTES_MAX, DATAGRAMS_MAX) {
                // Who holds most of what is short.
                let is_short_of_bytes = all.0 + cost > BYTES_MAX;
                let most = |held: (usize, usize)| if is_short_of_bytes { held.0 } else { held.1 };
                held.iter().max_by_key(|(_, held)| most(**held)).map(|(&port, _)| port)
            } else {
                None
            };
            let its =
                self.partial.iter().filter(|(other, partial)| **other != key && Some(partial.port) == from);
            let Some(oldest) = its.min_by_key(|(_, partial)| partial.since).map(|(&oldest, _)| oldest) else {
                return;
            };
            self.drop_one(oldest);
        }
    }

    fn drop_one(&mut self, key: Key) {
        // The pieces of a ruined one have been counted.
        self.lost += self.partial.remove(&key).map_or(0, |partial| u64::from(!partial.ruined));
    }

    /// Forgets what has waited for too long. How many unfinished datagrams are lost since the last time, that way and
    /// by making room.
    pub(crate) fn expire(&mut self, now: Instant) -> u64 {
        let over = self.partial.iter().filter(|(_, partial)| is_over(partial, now)).map(|(&key, _)| key);
        over.collect::<Vec<_>>().into_iter().for_each(|key| self.drop_one(key));
        std::mem::take(&mut self.lost)
    }

    /// When the next datagram is to be forgotten.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.partial.values().map(|partial| partial.since + FORGET_AFTER).min()
    }
}

fn is_over(partial: &Partial, now: Instant) -> bool {
    now.saturating_duration_since(partial.since) >= FORGET_AFTER
}

/// Identifications for what the gateway cuts.
#[derive(Debug)]
pub(crate) struct Idents {
    keys: RandomState,
    used: u16,
}

impl Idents {
    pub(crate) fn new() -> Self {
        Self { keys: RandomState::new(), used: 0 }
    }

    /// One that datagrams from `source` to `destination` have not had for 65,535 others (RFC 6864, 4.3), and that
    /// nobody can guess from those of other guests.
    pub(crate) fn next(&mut self, source: Ipv4Addr, destination: Ipv4Addr) -> u16 {
        self.used = self.used.wrapping_add(1);
        let [low, high, ..] = self.keys.hash_one((source, destination)).to_le_bytes();
        self.used.wrapping_add(u16::from_le_bytes([low, high]))
    }
}

/// A packet's payload in pieces of at most `room` bytes: where each begins, whether more follow, and its bytes.
pub(crate) fn cut(payload: &[u8], room: usize) -> impl Iterator<Item = (usize, bool, &[u8])> {
    let step = (room / UNIT_BYTES).max(1) * UNIT_BYTES;
    payload.chunks(step).enumerate().map(move |(n, bytes)| {
        let offset = n * step;
        (offset, offset + bytes.len() < payload.len(), bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: PortId = PortId(1);

    fn key(mac: u8, ident: u16) -> Key {
        let (source, destination) = (Ipv4Addr::new(10, 0, 2, mac), Ipv4Addr::new(10, 0, 2, 2));
        Key { mac: [2, 0, 0, 0, 0, mac], source, destination, ident }
    }

    fn piece(offset: usize, more: bool, bytes: &[u8]) -> Piece<'_> {
        Piece { header: 20, offset, more, bytes }
    }

    fn held(all: &Reassembly, port: PortId) -> (usize, usize) {
        let its = all.partial.values().filter(|partial| partial.port == port);
        its.fold((0, 0), |(bytes, count), partial| (bytes + partial.cost(), count + 1))
    }

    #[test]
    fn what_is_cut_is_put_together_in_any_order_whatever_comes_twice() {
        let now = Instant::now();
        for length in [9, 16, 1481, 4000, 65_515] {
            let payload: Vec<u8> = (0..length).map(|i| (i * 7 + i / 256) as u8).collect();
            for turned in [0, 1, 5] {
                let mut pieces: Vec<_> = cut(&payload, if length < 100 { 8 } else { 1480 }).collect();
                assert!(
                    pieces.iter().all(|(offset, more, b)| offset % 8 == 0 && (!more || b.len() % 8 == 0))
                );
                let count = pieces.len();
                pieces.rotate_left(turned % count);
                if turned == 5 {
                    pieces.reverse();
                }
                let mut all = Reassembly::default();
                let (last, others) = pieces.split_last().unwrap();
                for &(offset, more, bytes) in others.iter().chain(others) {
                    assert_eq!(all.take(A, key(1, 1), piece(offset, more, bytes), now), Ok(None));
                }
                let whole = all.take(A, key(1, 1), piece(last.0, last.1, last.2), now);
                assert!(whole == Ok(Some(payload.clone())), "{length} {turned}");
                assert!(all.partial.is_empty());
            }
        }
    }

    #[test]
    fn pieces_that_contradict_each_other_ruin_their_datagram_and_what_of_it_still_comes() {
        let (now, zeros) = (Instant::now(), [0; 64]);
        let contradictions: [&[(usize, bool, usize)]; 9] = [
            &[(0, true, 16), (8, true, 16)],
            &[(8, true, 16), (0, true, 16)],
            &[(0, true, 24), (8, true, 8)],
            &[(8, true, 8), (0, true, 24)],
            &[(16, false, 8), (24, true, 8)],
            &[(24, true, 8), (8, false, 8)],
            &[(16, false, 8), (16, true, 8)],
            &[(16, false, 8), (24, false, 8)],
            &[(0, true, 9)],
        ];
        for steps in contradictions {
            let mut all = Reassembly::default();
            let mut said = Ok(None);
            for &(offset, more, length) in steps {
                assert_eq!(said, Ok(None), "{steps:?}");
                said = all.take(A, key(1, 1), piece(offset, more, &zeros[..length]), now);
            }
            assert!(said.is_err(), "{steps:?}");
            for (offset, more, bytes) in cut(&zeros, 8) {
                assert!(all.take(A, key(1, 1), piece(offset, more, bytes), now).is_err(), "{steps:?}");
            }
            assert_eq!(held(&all, A), (0, 1));
            assert_eq!((all.expire(now + FORGET_AFTER), all.partial.len()), (0, 0));
        }
        let mut all = Reassembly::default();
        all.take(A, key(1, 1), piece(0, true, &[1; 8]), now).unwrap();
        assert!(
            all.take(A, key(1, 1), piece(0, true, &[2; 8]), now).is_err(),
            "other bytes in the same place"
        );
    }

    #[test]
    fn no_datagram_is_longer_than_any_can_be() {
        let (now, mut all) = (Instant::now(), Reassembly::default());
        assert_eq!(all.take(A, key(1, 1), piece(65_512, false, &[0; 3]), now), Ok(None));
        for (ident, header, offset, length) in [(2, 20, 65_512, 4), (3, 24, 65_512, 3), (4, 20, 65_528, 1480)]
        {
            let piece = Piece { header, offset, more: false, bytes: &vec![0; length] };
            assert!(all.take(A, key(1, ident), piece, now).is_err());
        }
    }

    #[test]
    fn a_flood_of_pieces_stays_within_the_bounds_and_costs_the_flooder_its_own() {
        let (mut now, mut all) = (Instant::now(), Reassembly::default());
        let victim = PortId(1000);
        all.take(victim, key(0, 0), piece(0, true, &[7; 8]), now).unwrap();
        for n in 0..4000u16 {
            now += Duration::from_micros(1);
            let port = PortId(u64::from(n % 40));
            // Long pieces, and as many small ones as a datagram can have.
            let long = vec![0; 65_504];
            all.take(port, key(1, n), piece(0, true, &long), now).unwrap();
            all.take(port, key(2, n % 64), piece(usize::from(n) * 16, true, &[0; 8]), now).unwrap();
            let (bytes, count) = held(&all, port);
            assert!(bytes <= PORT_BYTES_MAX && count <= PORT_DATAGRAMS_MAX, "{bytes} {count}");
            let bytes: usize = all.partial.values().map(Partial::cost).sum();
            assert!(bytes <= BYTES_MAX && all.partial.len() <= DATAGRAMS_MAX);
        }
        assert!(all.lost > 0);
        let whole = all.take(victim, key(0, 0), piece(8, false, &[7]), now);
        assert_eq!(whole, Ok(Some(vec![7; 9])), "whoever holds little loses nothing");
    }

    #[test]
    fn a_datagram_that_stays_unfinished_is_forgotten() {
        let (now, mut all) = (Instant::now(), Reassembly::default());
        all.take(A, key(1, 1), piece(0, true, &[1; 8]), now).unwrap();
        assert_eq!(all.due(), Some(now + FORGET_AFTER));
        let before = now + FORGET_AFTER - Duration::from_millis(1);
        assert_eq!((all.expire(before), all.partial.len()), (0, 1));
        // Not swept yet, and of no use any more.
        let late = all.take(A, key(1, 1), piece(8, false, &[1; 8]), now + FORGET_AFTER);
        assert_eq!(late, Ok(None));
        assert_eq!((all.expire(now + 2 * FORGET_AFTER), all.due()), (2, None));
    }

    #[test]
    fn an_identification_comes_back_only_after_all_others() {
        let mut idents = Idents::new();
        let (a, b) = (Ipv4Addr::new(10, 0, 2, 2), Ipv4Addr::new(10, 0, 2, 15));
        let used: std::collections::BTreeSet<u16> = (0..=u16::MAX).map(|_| idents.next(a, b)).collect();
        assert_eq!(used.len(), 65_536);
    }
}
