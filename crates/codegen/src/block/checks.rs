//! Which memory accesses of a block share one check.
//!
//! Accesses through a base register that nothing changes in between lie close together: a stack frame, a structure.
//! The first of them (the *leader*) proves that all of them lie in one page and are aligned; the others follow it and
//! prove nothing. That holds as long as nothing is interpreted in between, for the interpreter may change what is
//! translated how: an interpreted step that a group spans does not come back to the block. No group spans what may take
//! a right away.

use super::Place;
use super::native::{is_atomic, may_change_rights};
use super::registers::written;
use alloc::vec;
use alloc::vec::Vec;
use pollux_isa::{Inst, Opcode as Op};

/// A group spans at most this many bytes, so that it hardly ever lies across two pages.
const SPAN_MAX: i32 = 1024;
/// So the bytes that an access or a group proves are fewer, wherever its lowest lies.
pub(crate) const GROUP_BYTES_MAX: i32 = SPAN_MAX + 16;

/// How an instruction's address is checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Check {
    /// It has none, or it proves its own.
    Own,
    /// It proves all from `low`, which is aligned to `align` if the accesses are aligned, to `high`, the last byte; for
    /// stores if there is one among them, for what can be written can be read.
    Leads { low: i32, high: i32, align: u8, store: bool },
    /// It was proved, for loads or for stores.
    Follows { store: bool },
}

/// The check of an instruction, and whether the instruction stands between a check and an access that relies on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Checked {
    pub(crate) check: Check,
    /// Whether an instruction behind it follows one before it, or it itself.
    pub(crate) is_spanned: bool,
}

impl Checked {
    /// It shares nothing.
    pub(crate) const OWN: Self = Self { check: Check::Own, is_spanned: false };
}

/// A load or store.
#[derive(Clone, Copy)]
struct Access {
    base: u8,
    imm: i32,
    bytes: i32,
    store: bool,
}

fn access(inst: Inst) -> Option<Access> {
    let (bytes, store) = match inst.opcode {
        Op::Lb | Op::Lbu => (1, false),
        Op::Lh | Op::Lhu => (2, false),
        Op::Lw | Op::Lwu | Op::Flw => (4, false),
        Op::Ld | Op::Fld => (8, false),
        Op::Sb => (1, true),
        Op::Sh => (2, true),
        Op::Sw | Op::Fsw => (4, true),
        Op::Sd | Op::Fsd => (8, true),
        _ => return None,
    };
    Some(Access { base: inst.rs1, imm: inst.imm, bytes, store })
}

/// What the members of a group have in common.
struct Group {
    base: u8,
    store: bool,
    low: i32,
    high: i32,
    align: i32,
    /// The offset of a member with the largest alignment.
    anchor: i32,
}

impl Group {
    fn of(first: Access) -> Self {
        let Access { base, imm, bytes, store } = first;
        Self { base, store, low: imm, high: imm + bytes - 1, align: bytes, anchor: imm }
    }

    /// Takes an access in, if it can be proved along with the others.
    fn take(&mut self, access: Access) -> bool {
        let Access { base, imm, bytes, store } = access;
        let (low, high) = (self.low.min(imm), self.high.max(imm + bytes - 1));
        let apart = (imm - self.anchor) % bytes.min(self.align) != 0;
        if base != self.base || apart || high - low > SPAN_MAX {
            return false;
        }
        (self.low, self.high) = (low, high);
        self.store |= store;
        if bytes > self.align {
            (self.align, self.anchor) = (bytes, imm);
        }
        true
    }

    fn check(&self) -> Check {
        // The last place at or below the lowest that is aligned as the anchor is.
        let low = self.anchor - (self.anchor - self.low + self.align - 1) / self.align * self.align;
        Check::Leads { low, high: self.high, align: self.align as u8, store: self.store }
    }
}

/// Shares checks among the instructions of a block. `is_step` says which instructions are always interpreted.
pub(crate) fn share(places: &[Place], is_step: &dyn Fn(Inst) -> bool) -> Vec<Checked> {
    let mut checks = vec![Checked::OWN; places.len()];
    for leader in 0..places.len() {
        let Some(first) = access(places[leader].inst) else { continue };
        if checks[leader].check != Check::Own {
            continue;
        }
        let mut group = Group::of(first);
        let mut followers: Vec<usize> = Vec::new();
        if written(places[leader].inst) != Some(first.base) {
            for (next, &Place { inst, .. }) in places.iter().enumerate().skip(leader + 1) {
                let ends = is_step(inst) || may_change_rights(inst);
                if ends || (is_atomic(inst.opcode) && inst.rs1 == first.base) {
                    break;
                }
                if let Some(access) = access(inst)
                    && access.base == first.base
                {
                    if !group.take(access) {
                        // It may find another page, and that will be the one in the register's inline cache.
                        break;
                    }
                    followers.push(next);
                }
                if written(inst) == Some(first.base) {
                    break;
                }
            }
        }
        if let Some(&last) = followers.last() {
            checks[leader].check = group.check();
            followers.into_iter().for_each(|next| checks[next].check = Check::Follows { store: group.store });
            checks[leader..last].iter_mut().for_each(|one| one.is_spanned = true);
        }
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inst(opcode: Op, rd: u8, rs1: u8, imm: i32) -> Place {
        Place { inst: Inst { opcode, len: 4, rd, rs1, rs2: 0, rs3: 0, rm: 0, imm }, offset: 0 }
    }

    fn checks(places: &[Place]) -> Vec<Check> {
        share(places, &|inst| inst.opcode == Op::Csrrw).iter().map(|one| one.check).collect()
    }

    #[test]
    fn accesses_through_one_register_share_a_check_until_it_changes() {
        let frame =
            [inst(Op::Sd, 0, 2, 8), inst(Op::Sd, 0, 2, 24), inst(Op::Addi, 2, 2, 32), inst(Op::Sd, 0, 2, 0)];
        let leads = Check::Leads { low: 8, high: 31, align: 8, store: true };
        assert_eq!(checks(&frame), [leads, Check::Follows { store: true }, Check::Own, Check::Own]);
        let chain = [inst(Op::Ld, 10, 10, 0), inst(Op::Ld, 10, 10, 8)];
        assert_eq!(checks(&chain), [Check::Own, Check::Own]);
    }

    #[test]
    fn a_group_with_a_store_is_proved_for_stores() {
        let [load, store] = [inst(Op::Ld, 5, 8, 0), inst(Op::Sd, 0, 8, 8)];
        let leads = Check::Leads { low: 0, high: 15, align: 8, store: true };
        assert_eq!(checks(&[load, store]), [leads, Check::Follows { store: true }]);
        assert_eq!(checks(&[store, load]), [leads, Check::Follows { store: true }]);
        assert_eq!(checks(&[load, load])[1], Check::Follows { store: false });
    }

    #[test]
    fn an_access_far_away_ends_a_group_because_it_may_cache_another_page() {
        let [near, far] = [inst(Op::Ld, 5, 8, 0), inst(Op::Ld, 5, 8, 2040)];
        assert_eq!(checks(&[near, far, near]), [Check::Own; 3]);
    }

    #[test]
    fn what_is_interpreted_ends_a_group() {
        let [load, csr] = [inst(Op::Ld, 5, 8, 0), inst(Op::Csrrw, 0, 0, 0)];
        assert_eq!(checks(&[load, csr, load]), [Check::Own; 3]);
    }

    #[test]
    fn what_may_take_a_right_away_ends_a_group() {
        let sstatus = i32::from(pollux_isa::csr::SSTATUS);
        let [load, clear, read] =
            [inst(Op::Ld, 5, 8, 0), inst(Op::Csrrc, 0, 6, sstatus), inst(Op::Csrrs, 6, 0, sstatus)];
        assert_eq!(checks(&[load, clear, load]), [Check::Own; 3]);
        assert_ne!(checks(&[load, read, load]), [Check::Own; 3]);
    }

    #[test]
    fn the_lowest_byte_proved_is_aligned_as_the_widest_access_is() {
        let [byte, word] = [inst(Op::Lb, 5, 8, 1), inst(Op::Lw, 5, 8, 8)];
        assert_eq!(checks(&[byte, word])[0], Check::Leads { low: 0, high: 11, align: 4, store: false });
        // A doubleword and a word that cannot both be aligned to what they are.
        let askew = [inst(Op::Ld, 5, 8, 0), inst(Op::Lw, 5, 8, 2)];
        assert_eq!(checks(&askew), [Check::Own, Check::Own]);
    }
}
