//! Address spaces that share their upper half: a machine whose caches are warm against one whose caches are dropped
//! before every step, while software edits root tables, the tables below them, `satp` (Sv39, Sv48) and PMP at random.

use super::asm::r::*;
use super::asm::*;
use super::{chance, machine, put, x};
use crate::computer::Computer;
use crate::hart::Mode;
use crate::mmu::walk::pte;
use crate::ram::{PAGE, RAM_BASE};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use pollux_isa::csr::SATP;
use pollux_machine::Machine;
use pollux_vocab::GuestAddr;

/// Two roots, two middle tables, two leaf tables, and data behind them.
const TABLES: u64 = RAM_BASE + 0x10_0000;
const ROOTS: u64 = TABLES;
const MIDDLES: u64 = TABLES + 0x2000;
const LEAVES: u64 = TABLES + 0x4000;
const DATA: u64 = TABLES + 0x6000;
const TRAPS: u64 = RAM_BASE + 0x30_0000;
const TABLE_PAGES: u64 = 8;

/// Entries of a root that the test edits: one of the lower half, three of the upper one.
const ROOT_SLOTS: [u64; 4] = [1, 256, 257, 511];

const LOAD: u64 = RAM_BASE;
const STORE: u64 = RAM_BASE + 4;
const SWITCH: u64 = RAM_BASE + 8;

fn entry(physical: u64, bits: u64) -> u64 {
    physical >> 2 | bits
}

struct Random(chance::Xorshift);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0.below(end)
    }

    fn pick(&mut self, from: &[u64]) -> u64 {
        from[self.below(from.len() as u64) as usize]
    }

    fn virtual_address(&mut self) -> u64 {
        let slot = self.pick(&ROOT_SLOTS);
        let addr = slot << 30 | self.below(2) << 21 | self.below(2) << 12 | self.below(4) << 3;
        if self.below(6) == 0 {
            let deep = self.pick(&[0, 1, 256, 511]) << 39 | addr;
            return ((deep << 16) as i64 >> 16) as u64;
        }
        ((addr << 25) as i64 >> 25) as u64
    }

    /// A first entry of PMP about a piece of the tables: its address and what it allows; or none.
    fn protection(&mut self) -> (u64, u64) {
        let page = TABLES + self.below(TABLE_PAGES) * PAGE as u64;
        let sizes = [0x7fc, 0x3fc, 0xbfc, 0x1c];
        let addr = page | self.pick(&sizes);
        (addr >> 2, self.pick(&[0, 0, 0x18, 0x19, 0x1b]))
    }

    /// Where an entry is, and what may be written there.
    fn edit(&mut self) -> (u64, u64) {
        let flags = [pte::R, pte::R | pte::W, pte::R | pte::W | pte::A, pte::R | pte::W | pte::A | pte::D];
        let leaf = pte::V | self.pick(&flags);
        let which = self.below(2) * PAGE as u64;
        let (at, pointer, giant) = match self.below(4) {
            0 | 1 => (ROOTS + which + 8 * self.pick(&ROOT_SLOTS), MIDDLES, RAM_BASE),
            2 => (MIDDLES + which + 8 * self.below(2), LEAVES, RAM_BASE),
            _ => (LEAVES + which + 8 * self.below(2), DATA, DATA),
        };
        let value = match self.below(6) {
            0 => 0,
            1 => pte::R,
            2 => entry(giant, leaf),
            _ if pointer == DATA => entry(DATA + self.below(2) * PAGE as u64, leaf),
            _ => entry(pointer + self.below(2) * PAGE as u64, pte::V),
        };
        (at, value)
    }
}

fn start() -> Computer {
    let mut m = machine(1, &[ld(A0, 0, T0), sd(A1, 0, T0), csrrw(ZERO, SATP, A2)]);
    put(&mut m, TRAPS, &[jal(ZERO, 0)]);
    for root in [ROOTS, ROOTS + PAGE as u64] {
        // RAM onto itself, so that code runs and tables can be stored to.
        let itself = entry(RAM_BASE, pte::V | pte::R | pte::W | pte::X | pte::A | pte::D);
        m.ram.write_u64(GuestAddr(root + 16), itself).unwrap();
        // Under Sv48 it also is the table below itself.
        m.ram.write_u64(GuestAddr(root), entry(root, pte::V)).unwrap();
    }
    m.harts[0].pmp.set_addr(1, u64::MAX);
    m.harts[0].pmp.set_cfg(0, 0x1f00);
    m.harts[0].csrs.mtvec = TRAPS;
    m
}

/// One step in S-mode from `pc`.
fn step(m: &mut Computer, pc: u64, registers: &[(u32, u64)]) {
    let hart = &mut m.harts[0];
    (hart.mode, hart.pc) = (Mode::Supervisor, pc);
    registers.iter().for_each(|&(register, value)| hart.x[register as usize] = value);
    hart.refresh_contexts();
    let until = m.icount().after(1);
    m.run(until);
}

fn seen(m: &Computer) -> (u64, u64, u64, Vec<u8>) {
    let tables = m.ram.slice(GuestAddr(TABLES), TABLE_PAGES * PAGE as u64).unwrap();
    (x(m, A0), m.harts[0].pc, m.harts[0].csrs.mtval, tables.to_vec())
}

/// Which values of `satp` a context's number stood for, by the number and when it was given out.
type Spaces = BTreeMap<(u64, u64), BTreeSet<u64>>;

/// What a number may stand for decides what translated code may ask the TLB (`engine::layout::TLB_READ`).
#[derive(Default)]
struct Numbers {
    lower: Spaces,
    upper: Spaces,
}

impl Numbers {
    fn note(&mut self, m: &Computer) {
        let hart = &m.harts[0];
        if hart.mode != Mode::Supervisor {
            return;
        }
        let epoch = hart.tlb.epoch();
        for (spaces, tag) in [(&mut self.lower, hart.data.tags[0]), (&mut self.upper, hart.data.tags[1])] {
            spaces.entry((epoch, tag)).or_default().insert(hart.csrs.satp);
        }
    }

    /// Of a lower half's number: it is that of one address space, and no other's upper half has it.
    fn check(&self, seed: u64) {
        for (number, satps) in &self.lower {
            assert_eq!(satps.len(), 1, "seed {seed}: {number:x?} stands for the lower halves of {satps:x?}");
            let upper = self.upper.get(number);
            assert!(
                upper.is_none_or(|upper| upper == satps),
                "seed {seed}: {number:x?} stands for {satps:x?} and the upper half of {upper:x?}"
            );
        }
    }
}

#[test]
fn address_spaces_that_share_an_upper_half_never_show_it() {
    for seed in 1..=60u64 {
        let mut random = Random(chance::Xorshift(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let (mut warm, mut cold) = (start(), start());
        let mut numbers = Numbers::default();
        for turn in 0..400 {
            let mode = 8 + random.below(6) / 5;
            let satp = mode << 60 | random.below(2) << 44 | (ROOTS + random.below(2) * PAGE as u64) >> 12;
            if random.below(40) == 0 {
                let (addr, cfg) = random.protection();
                for m in [&mut warm, &mut cold] {
                    let Computer { harts, ram, .. } = m;
                    harts[0].pmp.set_addr(0, addr);
                    harts[0].pmp.set_cfg(0, 0x1f00 | cfg);
                    harts[0].forget_translations(ram);
                }
            }
            let (pc, registers) = match random.below(10) {
                0 | 8 => (SWITCH, [(A2, satp), (T0, 0)]),
                1 => {
                    let (at, value) = random.edit();
                    (STORE, [(T0, at), (A1, value)])
                }
                2 | 3 => {
                    // By a device, or by another hart; mostly in both roots alike, so that they often are.
                    let (at, value) = random.edit();
                    let twin = if at < MIDDLES && random.below(8) > 0 { at ^ PAGE as u64 } else { at };
                    for m in [&mut warm, &mut cold] {
                        m.ram.write_u64(GuestAddr(at), value).unwrap();
                        m.ram.write_u64(GuestAddr(twin), value).unwrap();
                    }
                    continue;
                }
                4 => (STORE, [(T0, random.virtual_address()), (A1, random.below(1 << 20) << 1)]),
                _ => (LOAD, [(T0, random.virtual_address()), (A1, 0)]),
            };
            cold.clear_caches();
            step(&mut warm, pc, &registers);
            step(&mut cold, pc, &registers);
            assert_eq!(seen(&warm), seen(&cold), "seed {seed}, turn {turn}, {pc:#x} with {registers:x?}");
            numbers.note(&warm);
        }
        numbers.check(seed);
    }
}

#[test]
fn a_kernel_in_another_address_space_is_still_translated() {
    let mut m = start();
    for root in [ROOTS, ROOTS + PAGE as u64] {
        m.ram.write_u64(GuestAddr(root + 8 * 511), entry(MIDDLES, pte::V)).unwrap();
    }
    m.ram.write_u64(GuestAddr(MIDDLES), entry(LEAVES, pte::V)).unwrap();
    m.ram.write_u64(GuestAddr(LEAVES), entry(DATA, pte::V | pte::R)).unwrap();
    let addr = (511u64 << 30) | !0 << 39;
    step(&mut m, SWITCH, &[(A2, 8 << 60 | ROOTS >> 12)]);
    step(&mut m, LOAD, &[(T0, addr)]);
    let first = m.harts[0].data;
    step(&mut m, SWITCH, &[(A2, 8 << 60 | (ROOTS + PAGE as u64) >> 12)]);
    let second = m.harts[0].data;
    assert_eq!(first.tag(addr), second.tag(addr));
    assert_ne!(first.tag(0), second.tag(0));
    // The other root changes there: it is another upper half now.
    m.ram.write_u64(GuestAddr(ROOTS + PAGE as u64 + 8 * 300), pte::R).unwrap();
    step(&mut m, LOAD, &[(T0, addr)]);
    assert_ne!(first.tag(addr), m.harts[0].data.tag(addr));
}
