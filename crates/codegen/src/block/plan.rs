//! Planning a region: the blocks that an entry reaches without leaving its page, in the order of their code.
//!
//! Every block's beginning is an entry: no host register carries anything over it but what `state` says. Jumps between
//! blocks of a page are direct (block chaining), for a page is translated and forgotten as a whole; jumps to other pages
//! ask the table of jump targets, because only the page tables know what lies there.

use super::checks::{Checked, share};
use super::find::Source;
use super::fuse::fuse;
use super::locality::{Locality, Loops};
use super::native::{is_branch, is_step, kind};
use super::registers::{Allocation, insts};
use super::{Block, LAST_HALF, Next, PAGE, Place, Planned, Terminator, Work};
use crate::region::Manner;
use alloc::vec::Vec;
use pollux_isa::Opcode as Op;

/// Instructions in a region, about.
const REGION_MAX: usize = 1000;

/// A region as it is planned.
struct Planner<'a> {
    source: &'a Source<'a>,
    manner: Manner,
    known: &'a dyn Fn(u16) -> Option<u32>,
    loops: Loops<'a>,
    blocks: Vec<Block>,
    /// Targets of branches that have no block yet.
    pending: Vec<u16>,
    instructions: usize,
}

/// Plans the region that begins at `entry`. `known` says where blocks begin that were translated before.
pub(crate) fn plan(
    source: &Source<'_>,
    entry: u16,
    manner: Manner,
    known: &dyn Fn(u16) -> Option<u32>,
) -> Vec<Block> {
    let mut planner = Planner {
        source,
        manner,
        known,
        loops: Loops::new(source),
        blocks: Vec::new(),
        pending: alloc::vec![entry],
        instructions: 0,
    };
    while let Some(offset) = planner.pending.pop() {
        let is_for_later = offset != entry && source.ends_in_next_page(offset);
        if !planner.is_known(offset) && planner.has_room() && !is_for_later {
            planner.trace(offset);
        }
    }
    planner.blocks
}

impl Planner<'_> {
    fn has_room(&self) -> bool {
        self.instructions < REGION_MAX
    }

    /// Whether a block begins there.
    fn is_known(&self, offset: u16) -> bool {
        self.blocks.iter().any(|block| block.offset == offset) || (self.known)(offset).is_some()
    }

    /// Plans blocks from `offset` for as long as each leads to the next.
    fn trace(&mut self, mut offset: u16) {
        loop {
            let (mut block, end) = self.block(offset);
            self.instructions += usize::from(block.steps);
            block.locality = self.loops.locality(offset, block.steps);
            let terminator = block.terminator;
            self.blocks.push(block);
            if let Terminator::Jump(place) = terminator
                && is_branch(place.inst.opcode)
            {
                self.branch(place);
            }
            let next = self.next(terminator, end);
            if let Some(block) = self.blocks.last_mut() {
                block.next = next;
            }
            match next {
                Next::Following(target) => offset = target,
                _ => return,
            }
        }
    }

    /// How a block goes on that ends so, before the offset `end`.
    fn next(&self, terminator: Terminator, end: u16) -> Next {
        match terminator {
            Terminator::Jump(place) if place.inst.opcode == Op::Jalr => Next::Nowhere,
            Terminator::Jump(place) if place.inst.opcode == Op::Jal => self.target(place.target()),
            Terminator::Fall | Terminator::Jump(_) => self.target(end.into()),
            Terminator::Step { .. } => Next::Far(end.into()),
        }
    }

    /// The same, if it goes on at an offset from the page's beginning.
    fn target(&self, target: i32) -> Next {
        let Some(offset) = u16::try_from(target).ok().filter(|offset| *offset < PAGE) else {
            return Next::Far(target);
        };
        // Only when an instruction executes that ends in the next page, it is known what that is.
        if self.is_known(offset) || self.source.ends_in_next_page(offset) || !self.has_room() {
            return Next::Block(offset);
        }
        Next::Following(offset)
    }

    /// A taken branch leads to a block that may have to be planned.
    fn branch(&mut self, place: Place) {
        if let Ok(target) = u16::try_from(place.target())
            && target < PAGE
            && !self.is_known(target)
        {
            self.pending.push(target);
        }
    }

    /// Plans the block at `offset`, but for what lies outside of it; and says where it ends, if need be in the next page.
    fn block(&self, offset: u16) -> (Block, u16) {
        if offset == LAST_HALF
            && let Some(straddling) = self.straddling()
        {
            return straddling;
        }
        let (places, terminator, end) = self.source.block(offset, &|offset| self.is_known(offset));
        let steps = places.len() as u16 + u16::from(terminator != Terminator::Fall);
        let repeats = matches!(terminator, Terminator::Jump(place)
            if is_branch(place.inst.opcode) && place.target() == i32::from(offset));
        let block = Block {
            offset,
            end: end.min(PAGE),
            steps,
            behind: None,
            work: self.work(&places, steps),
            terminator,
            next: Next::Nowhere,
            allocation: self.allocate(&places, terminator, repeats),
            repeats,
            locality: Locality::default(),
        };
        (block, end)
    }

    /// The block of the instruction that ends in the next page, if it can be translated.
    fn straddling(&self) -> Option<(Block, u16)> {
        let (place, behind) = self.source.straddling()?;
        let jumps = matches!(place.inst.opcode, Op::Jal | Op::Jalr) || is_branch(place.inst.opcode);
        let terminator = if jumps { Terminator::Jump(place) } else { Terminator::Fall };
        let one = Work::One(self.planned(place, 1, Checked::OWN));
        let block = Block {
            offset: LAST_HALF,
            end: PAGE,
            steps: 1,
            behind: Some(behind),
            work: if jumps { Vec::new() } else { alloc::vec![one] },
            terminator,
            next: Next::Nowhere,
            allocation: Allocation::default(),
            repeats: false,
            locality: Locality::default(),
        };
        Some((block, place.next()))
    }

    fn planned(&self, place: Place, unexecuted: u16, Checked { check, is_spanned }: Checked) -> Planned {
        let kind = kind(place.inst, self.manner.features);
        Planned { place, kind, unexecuted, check, is_spanned }
    }

    /// Which host registers the block has for which guest registers: those that all blocks have, if something is always
    /// interpreted in it.
    fn allocate(&self, places: &[Place], terminator: Terminator, repeats: bool) -> Allocation {
        if places.iter().any(|place| is_step(place.inst, self.manner.features)) {
            return Allocation::default();
        }
        let jump = if let Terminator::Jump(place) = terminator { Some(place) } else { None };
        Allocation::choose(insts(places, jump), repeats)
    }

    /// What the instructions of a block are to the host.
    fn work(&self, places: &[Place], steps: u16) -> Vec<Work> {
        let checks = if self.manner.grouped {
            share(places, &|inst| is_step(inst, self.manner.features))
        } else {
            Vec::new()
        };
        // The piece that begins at `at` and ends before `end`, and how many instructions it is.
        let piece = |at: usize, end: usize| {
            let second = if at + 1 < end { places.get(at + 1) } else { None };
            match second.and_then(|&second| fuse(places[at], second)) {
                Some(fused) => (Work::Fused(fused), 2),
                None => {
                    let checked = checks.get(at).copied().unwrap_or(Checked::OWN);
                    (Work::One(self.planned(places[at], steps - at as u16, checked)), 1)
                }
            }
        };
        let mut work = Vec::with_capacity(places.len());
        let mut at = 0;
        while let Some(&place) = places.get(at) {
            if !is_branch(place.inst.opcode) {
                let (one, instructions) = piece(at, places.len());
                work.push(one);
                at += instructions;
                continue;
            }
            let target = place.target();
            let skipped =
                places[at + 1..].iter().take_while(|place| i32::from(place.offset) < target).count();
            let (first, end) = (at + 1, at + 1 + skipped);
            let mut pieces = Vec::with_capacity(skipped);
            at = first;
            while at < end {
                let (one, instructions) = piece(at, end);
                pieces.push(one);
                at += instructions;
            }
            if let Some(first) = places[first..end].first() {
                work.push(Work::Select {
                    branch: place.inst,
                    first: first.inst,
                    skipped: pieces,
                    instructions: skipped as u8,
                });
            }
        }
        work
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Kind;
    use crate::region::Features;

    /// The blocks of a page that begins with these words.
    fn blocks(words: &[u32]) -> Vec<Block> {
        let mut page = [0; PAGE as usize];
        for (bytes, word) in page.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        let manner = Manner { features: Features::default(), grouped: true, upper: false };
        plan(&Source { page: &page, behind: None }, 0, manner, &|_| None)
    }

    const RETURN: u32 = 0x0000_8067;

    #[test]
    fn what_only_computes_x0_is_executed_by_nobody() {
        // add zero, a0, a1; lw zero, 0(a0); csrw satp, a0
        let blocks = blocks(&[0x00b5_0033, 0x0005_2003, 0x1805_1073, RETURN]);
        let kinds = blocks[0].work.iter().map(|work| match work {
            Work::One(planned) => Some(planned.kind),
            _ => None,
        });
        assert!(kinds.eq([Some(Kind::Nothing), Some(Kind::Native), Some(Kind::Step)]));
    }

    #[test]
    fn blocks_follow_each_other_as_far_as_they_lead_to_each_other() {
        // beq a0, a1, .+12; addi a0, a0, 1; j .-8; ret
        let blocks = blocks(&[0x00b5_0663, 0x0015_0513, 0xff9f_f06f, RETURN]);
        let plan: Vec<(u16, u16, Next)> =
            blocks.iter().map(|block| (block.offset, block.steps, block.next)).collect();
        assert_eq!(plan, [(0, 1, Next::Following(4)), (4, 2, Next::Block(0)), (12, 1, Next::Nowhere)]);
    }

    #[test]
    fn a_block_whose_branch_leads_back_to_it_repeats_itself() {
        // addi a0, a0, -1; bnez a0, .-4
        let blocks = blocks(&[0xfff5_0513, 0xfe05_1ee3, RETURN]);
        assert!(blocks[0].repeats && !blocks[1].repeats);
        assert_eq!(blocks[0].next, Next::Following(8));
    }
}
