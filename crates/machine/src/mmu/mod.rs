//! Address translation: the walk ([`walk`](mod@walk)) and the software TLB that spares it.
//!
//! Invariant (DESIGN 2.1, 2.2): the machine behaves as if it walked the page tables at every access. So a
//! translation is cached only when using it has no side effect left to do (accessed set; dirty set for
//! stores), failures are never cached, and every page a cached translation was read from is flagged in
//! [`Ram`](crate::ram::Ram): a store that changes a valid entry there drops what was translated by it: one page's
//! translation if the entry stands for one page of data, and all of them else.
//! Therefore `sfence.vma` and writes to `satp` have nothing to do here.
//!
//! How: an entry's tag names the virtual page and a *context*, a small number standing for all else that the
//! translation depends on (satp, privilege, SUM, MXR; PMP). Dropping everything means forgetting which number
//! stands for what and going on with fresh numbers; only when they run out are the arrays wiped.

pub(crate) mod walk;

/// Entries per array: enough for 16 MiB of working set. What is not used of it is not in the host's caches.
pub(crate) const ENTRIES: usize = 4096;
/// Contexts remembered at once.
const CONTEXTS: usize = 16;
/// Contexts are numbered from 1 to here: they share the tag's low bits with the alignment check.
const CONTEXT_MAX: u64 = 511;
/// Where the context sits in a tag. The three bits below are zero, so that the tag of a misaligned address
/// never matches.
const CONTEXT_SHIFT: u32 = 3;
/// The virtual page number's bits of an address.
pub(crate) const PAGE_MASK: u64 = !0xfff;

/// A cached translation for loads or stores.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Entry {
    /// Virtual page address and context; 0 matches nothing, because no context is 0.
    pub(crate) tag: u64,
    /// What to add to a virtual address for its offset in RAM.
    pub(crate) delta: u64,
}

/// A cached translation for instruction fetches.
#[derive(Clone, Copy)]
pub(crate) struct FetchEntry {
    pub(crate) tag: u64,
    /// The decoded page, as an index into the code cache.
    pub(crate) code_page: u32,
}

/// All that a translation depends on besides the address.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ContextKey {
    pub(crate) satp: u64,
    /// Effective privilege (2 bits), SUM, MXR.
    pub(crate) bits: u8,
}

/// One hart's software TLB. Not part of the state.
pub(crate) struct Tlb {
    pub(crate) read: [Entry; ENTRIES],
    pub(crate) write: [Entry; ENTRIES],
    pub(crate) fetch: [FetchEntry; ENTRIES],
    known: [(ContextKey, u64); CONTEXTS],
    /// How many of `known` count, and which one goes next.
    used: usize,
    victim: usize,
    newest: u64,
    /// How often the numbers ran out.
    epoch: u64,
}

const NO_ENTRY: Entry = Entry { tag: 0, delta: 0 };
const NO_FETCH: FetchEntry = FetchEntry { tag: 0, code_page: 0 };

impl Tlb {
    pub(crate) fn new() -> Self {
        Self {
            read: [NO_ENTRY; ENTRIES],
            write: [NO_ENTRY; ENTRIES],
            fetch: [NO_FETCH; ENTRIES],
            known: [(ContextKey::default(), 0); CONTEXTS],
            used: 0,
            victim: 0,
            newest: 0,
            epoch: 0,
        }
    }

    /// Changes when contexts are numbered anew.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Where a virtual address's entry is, in each array.
    #[inline(always)]
    pub(crate) fn slot(addr: u64) -> usize {
        (addr >> 12) as usize % ENTRIES
    }

    /// Forgets every translation.
    pub(crate) fn forget(&mut self) {
        self.used = 0;
        self.victim = 0;
    }

    /// Forgets what loads and stores know of one virtual page, in every context.
    pub(crate) fn forget_page(&mut self, addr: u64) {
        let slot = Self::slot(addr);
        self.read[slot] = NO_ENTRY;
        self.write[slot] = NO_ENTRY;
    }

    /// The tag bits that stand for `key`.
    pub(crate) fn context(&mut self, key: ContextKey) -> u64 {
        if let Some((_, tag)) = self.known[..self.used].iter().find(|(known, _)| *known == key) {
            return *tag;
        }
        if self.newest == CONTEXT_MAX {
            self.read.fill(NO_ENTRY);
            self.write.fill(NO_ENTRY);
            self.fetch.fill(NO_FETCH);
            self.newest = 0;
            self.epoch += 1;
            self.forget();
        }
        self.newest += 1;
        let tag = self.newest << CONTEXT_SHIFT;
        if self.used < CONTEXTS {
            self.known[self.used] = (key, tag);
            self.used += 1;
        } else {
            self.known[self.victim] = (key, tag);
            self.victim = (self.victim + 1) % CONTEXTS;
        }
        tag
    }
}
