//! One number over all host code for a large corpus: a change of the translator that changes no host code does not change
//! it. `digest FILE…` translates random pages, and each file's bytes as pages; every page from several entries, one after
//! the other as in a run, in every manner.

use pollux_codegen::{Behind, Features, Manner, Region, stubs, translate};
use pollux_isa::{Format, OPCODES, OpcodeInfo};
use std::collections::BTreeMap;

const PAGE: usize = 4096;
/// Random pages of each kind.
const PAGES: u64 = 60;

/// FNV-1a, 64 bits.
struct Digest(u64);

impl Digest {
    fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }

    fn region(&mut self, region: &Region) {
        self.add(&region.bytes);
        self.add(&region.cold);
        for (offset, place) in &region.entries {
            self.add(&offset.to_le_bytes());
            self.add(&place.to_le_bytes());
        }
        for link in &region.links {
            self.add(&link.target.to_le_bytes());
            self.add(&link.place.to_le_bytes());
        }
        for (first, end) in &region.ranges {
            self.add(&first.to_le_bytes());
            self.add(&end.to_le_bytes());
        }
    }
}

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// A word of a row of the table: registers are often the same few, and jumps short, as in programs.
fn word(rng: &mut Rng, row: &OpcodeInfo) -> u32 {
    const REGISTERS: u32 = 31 << 7 | 31 << 15 | 31 << 20;
    let few = 0b01010 << 7 | 0b01010 << 15 | 0b01010 << 20;
    let mut random = rng.next() as u32;
    if rng.below(2) == 0 {
        random = random & !REGISTERS | few | random & (1 << 7 | 1 << 15 | 1 << 20);
    }
    match row.format {
        // Forward or back by less than 64 bytes.
        Format::B => random = random & !(63 << 25) | if random >> 31 == 1 { 62 << 25 } else { 0 },
        Format::J => random = (random & 0x0000_0fff) | (rng.below(32) as u32 * 2) << 21,
        _ => {}
    }
    random & !row.mask | row.value
}

/// Pages of a kind: any instruction, some kinds of rows more than others, or any halfwords.
fn random_page(rng: &mut Rng, kind: u64) -> [u8; PAGE] {
    let is_wanted = |row: &&OpcodeInfo| match kind % 4 {
        0 => row.format != Format::Bare,
        1 => {
            matches!(row.format, Format::I | Format::R | Format::U | Format::Load | Format::Store | Format::B)
        }
        2 => row.name.starts_with('f') && row.format != Format::Fence,
        _ => {
            matches!(row.format, Format::Load | Format::Store | Format::FLoad | Format::FStore | Format::Amo)
        }
    };
    let rows: Vec<&OpcodeInfo> = OPCODES.iter().filter(is_wanted).collect();
    let mut page = [0; PAGE];
    let mut at = 0;
    while at < PAGE {
        let bytes = match rng.below(8) {
            0 => (rng.next() as u32).to_le_bytes()[..2].to_vec(),
            any => {
                let row =
                    if any == 1 { &OPCODES[rng.below(OPCODES.len())] } else { rows[rng.below(rows.len())] };
                word(rng, row).to_le_bytes().to_vec()
            }
        };
        let len = bytes.len().min(PAGE - at);
        page[at..at + len].copy_from_slice(&bytes[..len]);
        at += len;
    }
    page
}

/// Translates a page from several entries.
fn run(digest: &mut Digest, rng: &mut Rng, page: &[u8; PAGE], manner: Manner) -> usize {
    let (code, stubs) = stubs();
    let mut bases = (code.len() as u32, 1 << 26);
    let mut known: BTreeMap<u16, u32> = BTreeMap::new();
    let mut bytes = 0;
    for turn in 0..6 {
        let entry = match turn {
            0 => 0,
            1 => 0xffe,
            _ => rng.below(PAGE / 2) as u16 * 2,
        };
        if known.contains_key(&entry) {
            continue;
        }
        let half = rng.next() as u16;
        let behind = (entry == 0xffe && !half.is_multiple_of(4)).then_some(Behind {
            page: 3,
            ram_offset: 0x7000,
            half,
        });
        let place_of = |offset| known.get(&offset).copied();
        let region = translate(page, entry, bases, &stubs, manner, &place_of, behind);
        digest.region(&region);
        bytes += region.bytes.len() + region.cold.len();
        bases.0 += region.bytes.len() as u32;
        bases.1 += region.cold.len() as u32;
        known.extend(region.entries);
    }
    bytes
}

fn main() {
    let mut rng = Rng(1);
    let mut pages: Vec<[u8; PAGE]> = (0..4 * PAGES).map(|kind| random_page(&mut rng, kind)).collect();
    for path in std::env::args().skip(1) {
        let file = std::fs::read(path).expect("a file");
        pages.extend(file.chunks(PAGE).map(|chunk| {
            let mut page = [0; PAGE];
            page[..chunk.len()].copy_from_slice(chunk);
            page
        }));
    }
    let (code, _) = stubs();
    let mut digest = Digest(0xcbf2_9ce4_8422_2325);
    digest.add(&code);
    let mut bytes = 0;
    for page in &pages {
        for bits in [0b1111, 0b1101, 0b0110, 0b0001] {
            let has = |bit: u32| bits >> bit & 1 == 1;
            let features = Features { fma: has(0), popcnt: has(1) };
            let manner = Manner { features, grouped: has(2), upper: has(3) };
            bytes += run(&mut digest, &mut rng, page, manner);
        }
    }
    println!("{:016x}: {} pages, {bytes} bytes of host code", digest.0, pages.len());
}
