//! Translating a region: the blocks that an entry reaches without leaving its page. They are planned (`block`), and
//! emitted (`emit`).

use crate::block::find::{Behind, Source};
use crate::block::plan::plan;
use crate::emit::{self, Target};
use crate::stubs::Stubs;
use alloc::vec::Vec;

/// So many bytes, at most, either part of a translation has.
pub const REGION_BYTES_MAX: usize = 1 << 20;

/// What the host can do that not every x86-64 can. Results never depend on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Features {
    /// FMA3: fused multiply-add.
    pub fma: bool,
    /// `popcnt`.
    pub popcnt: bool,
}

/// A jump that leaves its region for a block of the same page that is not translated yet. Until it is patched
/// ([`crate::jump_to`]) it leaves translated code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// Where in the page it leads.
    pub target: u16,
    /// Where its displacement lies.
    pub place: u32,
}

/// A translated region.
#[derive(Debug)]
pub struct Region {
    /// Its code.
    pub bytes: Vec<u8>,
    /// What of its code is rarely needed, so that the rest lies close together.
    pub cold: Vec<u8>,
    /// Entries: where in the page, and where in code memory.
    pub entries: Vec<(u16, u32)>,
    /// Jumps to be patched when their targets are translated.
    pub links: Vec<Link>,
    /// The pieces of the page that were read: first byte, and one past the last.
    pub ranges: Vec<(u16, u16)>,
}

/// What a translation is to be like. Results never depend on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Manner {
    /// What of the host it may use.
    pub features: Features,
    /// Accesses may share checks. Without, each proves its own address, which is what code needs that is entered in the
    /// middle of a block because such a check failed.
    pub grouped: bool,
    /// The half of the address space in which the code, and so most of what it accesses, is likely to lie: the upper one.
    pub upper: bool,
}

/// Translates the region of `page` that begins at offset `entry`, to be placed at the offsets `bases` of code memory, its
/// [`Region::bytes`] and its [`Region::cold`]. `known` says where blocks of the page that were translated before begin;
/// `behind`, if the entry is the page's last halfword, what follows there: without, an instruction that ends in the next
/// page is a step.
#[must_use]
pub fn translate(
    page: &[u8; 4096],
    entry: u16,
    bases: (u32, u32),
    stubs: &Stubs,
    manner: Manner,
    known: &dyn Fn(u16) -> Option<u32>,
    behind: Option<Behind>,
) -> Region {
    let blocks = plan(&Source { page, behind }, entry, manner, known);
    emit::region(&blocks, bases, Target { stubs, half: usize::from(manner.upper) }, known)
}
