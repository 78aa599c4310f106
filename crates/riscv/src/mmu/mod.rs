//! Address translation: the walk ([`walk`](mod@walk)) and the software TLB that spares it.
//!
//! Invariant (DESIGN 2.1, 2.2): the machine behaves as if it walked the page tables at every access. So a
//! translation is cached only when using it has no side effect left to do (accessed set; dirty set for
//! stores), failures are never cached, and every page a cached translation was read from is flagged in
//! [`Ram`](crate::ram::Ram): a store that changes a valid entry there drops what was translated by it: one page's
//! translation if the entry stands for one page, an address space's if it lies in the table where walks begin, nothing if
//! it points to a table without valid entries, and all translations else.
//! Therefore `sfence.vma` and writes to `satp` have nothing to do here.
//!
//! How: an entry's tag names the virtual page and a *context*, a small number standing for all else that the
//! translation depends on (satp, privilege, SUM, MXR; PMP). Dropping everything means forgetting which number
//! stands for what and going on with fresh numbers; only when they run out are the arrays wiped. A context's number
//! also decides where its entries lie, so that address spaces that look alike (every process) do not evict each
//! other's. The two halves of the address space have a context each, for the upper one, the kernel's, is the same in
//! every address space, and then it also is the same context ([`uppers`]).

mod uppers;
pub(crate) mod walk;

use crate::hart::pmp::Pmp;
use crate::ram::Ram;
use alloc::boxed::Box;
use alloc::vec;
use uppers::Uppers;

/// Entries per array: enough for 64 MiB of working set. What is not used of it is not in the host's caches.
pub(crate) const ENTRIES: usize = 16384;
/// Contexts remembered at once.
const CONTEXTS: usize = 32;
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
#[repr(C)]
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
    pub(crate) read: Box<[Entry; ENTRIES]>,
    pub(crate) write: Box<[Entry; ENTRIES]>,
    pub(crate) fetch: Box<[FetchEntry; ENTRIES]>,
    known: [Known; CONTEXTS],
    uppers: Uppers,
    /// How many of `known` count, and which one goes next.
    used: usize,
    victim: usize,
    newest: u64,
    /// How often the numbers ran out.
    epoch: u64,
    /// How often a number was taken away from what it stood for.
    changes: u64,
}

const NO_ENTRY: Entry = Entry { tag: 0, delta: 0 };
const NO_FETCH: FetchEntry = FetchEntry { tag: 0, code_page: 0 };

/// An array on the heap, which never was on the stack.
fn boxed<T: Copy>(entry: T) -> Box<[T; ENTRIES]> {
    let Ok(array) = vec![entry; ENTRIES].into_boxed_slice().try_into() else {
        unreachable!("it has that many entries");
    };
    array
}

/// A context that is in use.
#[derive(Clone, Copy, Default)]
struct Known {
    key: ContextKey,
    tag: u64,
    /// Not every page from which instructions were fetched in it is still in the array for fetches.
    has_lost_fetches: bool,
}

/// The contexts of an address space's lower and upper half for one kind of access, and what they put into page numbers.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(C)]
pub(crate) struct Contexts {
    pub(crate) tags: [u64; 2],
    pub(crate) mixes: [u64; 2],
}

impl Contexts {
    pub(crate) fn new(lower: u64, upper: u64) -> Self {
        Self { tags: [lower, upper], mixes: [mix(lower), mix(upper)] }
    }

    /// The context of an address.
    #[inline(always)]
    pub(crate) fn tag(&self, addr: u64) -> u64 {
        self.tags[(addr >> 63) as usize]
    }

    /// Where a virtual address's entry is, in each array.
    #[inline(always)]
    pub(crate) fn slot(&self, addr: u64) -> usize {
        Tlb::slot(addr, self.mixes[(addr >> 63) as usize])
    }
}

/// What a context puts into the page numbers of addresses to find their entries, as bits of addresses.
fn mix(context: u64) -> u64 {
    // Any odd number spreads them; this one leaves no small multiple near a power of two.
    ((context >> CONTEXT_SHIFT) * 0x25a7) << 12
}

impl Tlb {
    pub(crate) fn new() -> Self {
        Self {
            read: boxed(NO_ENTRY),
            write: boxed(NO_ENTRY),
            fetch: boxed(NO_FETCH),
            known: [Known::default(); CONTEXTS],
            uppers: Uppers::default(),
            used: 0,
            victim: 0,
            newest: 0,
            epoch: 0,
            changes: 0,
        }
    }

    /// Changes when contexts are numbered anew.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Where a virtual address's entry is, in each array, for the context with this [`mix`].
    #[inline(always)]
    fn slot(addr: u64, mix: u64) -> usize {
        ((addr ^ mix) >> 12) as usize % ENTRIES
    }

    /// Changes when a number is taken away from what it stood for.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// Forgets every translation.
    pub(crate) fn forget(&mut self) {
        self.changes += 1;
        self.used = 0;
        self.victim = 0;
    }

    /// Forgets one virtual page in every context. Where instructions were fetched from it, others may know where
    /// that led (an engine's jump targets), so that the whole context gets another number; returns whether there was one.
    pub(crate) fn forget_page(&mut self, addr: u64, is_executable: bool) -> bool {
        let used = self.used;
        // A context that is not known any more is never used again.
        for i in (0..used).rev() {
            let Known { tag, has_lost_fetches, .. } = self.known[i];
            let slot = Self::slot(addr, mix(tag));
            let stale = addr | tag;
            for entries in [&mut self.read, &mut self.write] {
                if entries[slot].tag == stale {
                    entries[slot] = NO_ENTRY;
                }
            }
            if self.fetch[slot].tag == stale || (is_executable && has_lost_fetches) {
                self.used -= 1;
                self.known[i] = self.known[self.used];
            }
        }
        self.changes += u64::from(self.used < used);
        self.used < used
    }

    /// Gives the address spaces whose page tables begin at this guest physical address other numbers; returns whether
    /// there was one.
    pub(crate) fn forget_space(&mut self, root: u64) -> bool {
        let used = self.used;
        for i in (0..used).rev() {
            let satp = self.known[i].key.satp;
            if walk::root(satp) == Some(root) {
                self.used -= 1;
                self.known[i] = self.known[self.used];
            }
        }
        self.changes += u64::from(self.used < used);
        self.used < used
    }

    /// What stands for `satp` where the upper half of the address space is translated: address spaces that share it
    /// have the same.
    pub(crate) fn upper(&mut self, ram: &mut Ram, pmp: &Pmp, satp: u64) -> u64 {
        self.uppers.identify(ram, pmp, satp).unwrap_or(satp)
    }

    /// Caches that instructions at `pc` are fetched from a decoded page.
    pub(crate) fn cache_fetch(&mut self, pc: u64, contexts: &Contexts, code_page: u32) {
        let entry = &mut self.fetch[contexts.slot(pc)];
        let tag = pc & PAGE_MASK | contexts.tag(pc);
        let lost = if entry.tag == tag { 0 } else { entry.tag & !PAGE_MASK };
        *entry = FetchEntry { tag, code_page };
        if let Some(known) = self.known[..self.used].iter_mut().find(|known| known.tag == lost) {
            known.has_lost_fetches = true;
        }
    }

    /// The tag bits that stand for `key`.
    pub(crate) fn context(&mut self, key: ContextKey) -> u64 {
        if let Some(known) = self.known[..self.used].iter().find(|known| known.key == key) {
            return known.tag;
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
        let known = Known { key, tag, has_lost_fetches: false };
        if self.used < CONTEXTS {
            self.known[self.used] = known;
            self.used += 1;
        } else {
            self.changes += 1;
            self.known[self.victim] = known;
            self.victim = (self.victim + 1) % CONTEXTS;
        }
        tag
    }
}
