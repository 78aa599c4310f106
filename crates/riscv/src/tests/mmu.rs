//! The coherent MMU: what software sees when it edits page tables and code under the machine's caches.

use super::asm::r::*;
use super::asm::*;
use super::{machine, put, steps, x};
use crate::computer::Computer;
use crate::hart::Mode;
use crate::hart::csr::{envcfg, status};
use crate::hart::trap::cause;
use crate::mmu::walk::pte;
use crate::ram::RAM_BASE;
use pollux_vocab::GuestAddr;

/// Page tables at RAM + 1 MiB: root, then middle, then leaf table.
const ROOT: u64 = RAM_BASE + 0x10_0000;
const MIDDLE: u64 = ROOT + 0x1000;
const LEAVES: u64 = ROOT + 0x2000;
/// Two data pages.
const PAGE_A: u64 = RAM_BASE + 0x20_0000;
const PAGE_B: u64 = RAM_BASE + 0x20_1000;
const TRAPS: u64 = RAM_BASE + 0x30_0000;
/// Virtual addresses of leaf entries 0 and 1.
const VIRTUAL: u64 = 0x4000_0000;

const RWX: u64 = pte::V | pte::R | pte::W | pte::X;

fn entry(physical: u64, bits: u64) -> u64 {
    physical >> 2 | bits
}

/// A machine in S-mode under Sv39: RAM mapped onto itself by a gigapage, `VIRTUAL` by 4 KiB pages whose first
/// entry is `first`. Traps go to M-mode, to an endless loop at `TRAPS`. T0 holds `VIRTUAL`, T1 the address of
/// leaf entry 0.
fn paged(program: &[u32], first: u64) -> Computer {
    let mut m = machine(1, program);
    put(&mut m, TRAPS, &[jal(ZERO, 0)]);
    m.ram.write_u64(GuestAddr(ROOT + 16), entry(0x8000_0000, RWX | pte::A | pte::D)).unwrap();
    m.ram.write_u64(GuestAddr(ROOT + 8), entry(MIDDLE, pte::V)).unwrap();
    m.ram.write_u64(GuestAddr(MIDDLE), entry(LEAVES, pte::V)).unwrap();
    m.ram.write_u64(GuestAddr(LEAVES), first).unwrap();
    m.ram.write_u64(GuestAddr(PAGE_A), 0xaaaa).unwrap();
    m.ram.write_u64(GuestAddr(PAGE_B), 0xbbbb).unwrap();
    let hart = &mut m.harts[0];
    hart.mode = Mode::Supervisor;
    hart.csrs.satp = 8 << 60 | ROOT >> 12;
    hart.csrs.mtvec = TRAPS;
    hart.x[T0 as usize] = VIRTUAL;
    hart.x[T1 as usize] = LEAVES;
    hart.refresh_contexts();
    m
}

fn leaf(m: &Computer, index: u64) -> u64 {
    m.ram.read_u64(GuestAddr(LEAVES + 8 * index)).unwrap()
}

#[track_caller]
fn assert_trap(m: &Computer, cause: u64, tval: u64) {
    let c = &m.harts[0].csrs;
    assert_eq!((c.mcause, c.mtval, m.harts[0].mode), (cause, tval, Mode::Machine));
}

#[test]
fn an_edited_page_table_is_seen_at_once_without_a_fence() {
    let program = [ld(A0, 0, T0), sd(A2, 0, T1), ld(A1, 0, T0)];
    let mut m = paged(&program, entry(PAGE_A, pte::V | pte::R));
    m.harts[0].x[A2 as usize] = entry(PAGE_B, pte::V | pte::R);
    steps(&mut m, 3);
    assert_eq!((x(&m, A0), x(&m, A1)), (0xaaaa, 0xbbbb));
}

#[test]
fn an_entry_made_invalid_faults_and_made_valid_works() {
    let program = [ld(A0, 0, T0), sd(ZERO, 0, T1), ld(A1, 0, T0)];
    let mut m = paged(&program, entry(PAGE_A, pte::V | pte::R));
    steps(&mut m, 3);
    assert_trap(&m, cause::LOAD_PAGE, VIRTUAL);
    m.ram.write_u64(GuestAddr(LEAVES), entry(PAGE_B, pte::V | pte::R)).unwrap();
    m.harts[0].mode = Mode::Supervisor;
    m.harts[0].pc = RAM_BASE + 8;
    m.harts[0].refresh_contexts();
    steps(&mut m, 1);
    assert_eq!(x(&m, A1), 0xbbbb);
}

#[test]
fn a_higher_level_entry_edited_by_dma_is_seen_at_once() {
    let program = [ld(A0, 0, T0), ld(A1, 0, T0)];
    let mut m = paged(&program, entry(PAGE_A, pte::V | pte::R));
    steps(&mut m, 1);
    m.ram.write_u64(GuestAddr(ROOT + 0x3000), entry(PAGE_B, pte::V | pte::R)).unwrap();
    m.ram.write_u64(GuestAddr(MIDDLE), entry(ROOT + 0x3000, pte::V)).unwrap();
    steps(&mut m, 1);
    assert_eq!((x(&m, A0), x(&m, A1)), (0xaaaa, 0xbbbb));
}

#[test]
fn the_walk_sets_accessed_then_dirty() {
    let program = [ld(A0, 0, T0), sd(A0, 8, T0)];
    let mut m = paged(&program, entry(PAGE_A, pte::V | pte::R | pte::W));
    steps(&mut m, 1);
    assert_eq!(leaf(&m, 0) & (pte::A | pte::D), pte::A);
    steps(&mut m, 1);
    assert_eq!(leaf(&m, 0) & (pte::A | pte::D), pte::A | pte::D);
}

#[test]
fn without_adue_a_walk_faults_where_a_bit_is_missing() {
    let mut m = paged(&[ld(A0, 0, T0), sd(A0, 8, T0)], entry(PAGE_A, pte::V | pte::R | pte::W | pte::A));
    m.harts[0].csrs.menvcfg = envcfg::PBMTE;
    steps(&mut m, 1);
    assert_eq!(m.harts[0].x[A0 as usize], 0xaaaa);
    steps(&mut m, 1);
    assert_trap(&m, 15, VIRTUAL + 8);
    assert_eq!(leaf(&m, 0) & pte::D, 0);
    let mut m = paged(&[ld(A0, 0, T0)], entry(PAGE_A, pte::V | pte::R));
    m.harts[0].csrs.menvcfg = 0;
    steps(&mut m, 1);
    assert_trap(&m, 13, VIRTUAL);
}

#[test]
fn an_entry_of_a_larger_page_stands_for_its_own_part_of_it() {
    let bits = pte::V | pte::R | pte::A | pte::N;
    let larger = PAGE_B & !0xffff;
    let mut m = paged(&[ld(A0, 0, T0)], entry(larger | 0x8000, bits));
    let own = PAGE_B >> 12 & 15;
    m.ram.write_u64(GuestAddr(LEAVES + 8 * own), entry(larger | 0x8000, bits)).unwrap();
    m.harts[0].x[T0 as usize] = VIRTUAL + (own << 12);
    steps(&mut m, 1);
    assert_eq!(m.harts[0].x[A0 as usize], 0xbbbb);
    let mut m = paged(&[ld(A0, 0, T0)], entry(larger | 0x4000, bits));
    steps(&mut m, 1);
    assert_trap(&m, 13, VIRTUAL);
}

#[test]
fn memory_types_mean_nothing_where_they_are_enabled_and_fault_where_not() {
    let bits = pte::V | pte::R | pte::A;
    for (kind, menvcfg, works) in
        [(1, envcfg::PBMTE, true), (2, envcfg::PBMTE, true), (3, envcfg::PBMTE, false), (1, 0, false)]
    {
        let mut m = paged(&[ld(A0, 0, T0)], entry(PAGE_A, bits) | kind << 61);
        m.harts[0].csrs.menvcfg = menvcfg;
        steps(&mut m, 1);
        assert_eq!(m.harts[0].x[A0 as usize] == 0xaaaa, works, "type {kind} under {menvcfg:#x}");
        if !works {
            assert_trap(&m, 13, VIRTUAL);
        }
    }
}

#[test]
fn an_accessed_bit_that_software_clears_is_set_again() {
    let clean = entry(PAGE_A, pte::V | pte::R);
    let program = [ld(A0, 0, T0), sd(A2, 0, T1), ld(A0, 0, T0)];
    let mut m = paged(&program, clean);
    m.harts[0].x[A2 as usize] = clean;
    steps(&mut m, 2);
    assert_eq!(leaf(&m, 0) & pte::A, 0);
    steps(&mut m, 1);
    assert_eq!(leaf(&m, 0) & pte::A, pte::A);
}

#[test]
fn permissions_follow_sum_mxr_and_the_user_bit() {
    let user = entry(PAGE_A, pte::V | pte::R | pte::U);
    let mut m = paged(&[ld(A0, 0, T0)], user);
    steps(&mut m, 1);
    assert_trap(&m, cause::LOAD_PAGE, VIRTUAL);
    let mut m = paged(&[ld(A0, 0, T0)], user);
    m.harts[0].csrs.mstatus |= status::SUM;
    steps(&mut m, 1);
    assert_eq!(x(&m, A0), 0xaaaa);
    let execute_only = entry(PAGE_A, pte::V | pte::X);
    let mut m = paged(&[ld(A0, 0, T0)], execute_only);
    steps(&mut m, 1);
    assert_trap(&m, cause::LOAD_PAGE, VIRTUAL);
    let mut m = paged(&[ld(A0, 0, T0)], execute_only);
    m.harts[0].csrs.mstatus |= status::MXR;
    steps(&mut m, 1);
    assert_eq!(x(&m, A0), 0xaaaa);
}

#[test]
fn toggling_sum_is_seen_by_cached_translations() {
    let sum = status::SUM;
    let program = [csrrs(ZERO, 0x100, A2), ld(A0, 0, T0), csrrc(ZERO, 0x100, A2), ld(A1, 0, T0)];
    let mut m = paged(&program, entry(PAGE_A, pte::V | pte::R | pte::U));
    m.harts[0].x[A2 as usize] = sum;
    steps(&mut m, 3);
    assert_eq!(x(&m, A0), 0xaaaa);
    steps(&mut m, 1);
    assert_trap(&m, cause::LOAD_PAGE, VIRTUAL);
}

#[test]
fn a_store_across_two_pages_touches_neither_if_the_second_faults() {
    let mut m = paged(&[sd(A2, -4, T2)], entry(PAGE_A, pte::V | pte::R | pte::W));
    m.harts[0].x[T2 as usize] = VIRTUAL + 0x1000;
    m.harts[0].x[A2 as usize] = u64::MAX;
    steps(&mut m, 1);
    assert_trap(&m, cause::STORE_PAGE, VIRTUAL + 0x1000);
    assert_eq!(m.ram.read_u64(GuestAddr(PAGE_A + 0xff8)).unwrap(), 0);
    m.ram.write_u64(GuestAddr(LEAVES + 8), entry(PAGE_B, pte::V | pte::R | pte::W)).unwrap();
    m.harts[0].mode = Mode::Supervisor;
    m.harts[0].pc = RAM_BASE;
    m.harts[0].refresh_contexts();
    steps(&mut m, 1);
    assert_eq!(m.ram.read_u32(GuestAddr(PAGE_A + 0xffc)).unwrap(), u32::MAX);
    assert_eq!(m.ram.read_u64(GuestAddr(PAGE_B)).unwrap(), 0xffff_ffff);
}

#[test]
fn superpages_must_be_aligned_and_addresses_canonical() {
    let mut m = paged(&[ld(A0, 0, T0)], 0);
    m.ram.write_u64(GuestAddr(MIDDLE), entry(PAGE_B, pte::V | pte::R)).unwrap();
    steps(&mut m, 1);
    assert_trap(&m, cause::LOAD_PAGE, VIRTUAL);
    let mut m = paged(&[ld(A0, 0, T0)], 0);
    m.harts[0].x[T0 as usize] = 0x80_4000_0000;
    steps(&mut m, 1);
    assert_trap(&m, cause::LOAD_PAGE, 0x80_4000_0000);
}

#[test]
fn an_instruction_across_two_pages_faults_at_its_second_half() {
    let mut m = paged(&[], entry(PAGE_A, pte::V | pte::X));
    m.ram.write_u16(GuestAddr(PAGE_A + 0xffe), addi(A0, ZERO, 7) as u16).unwrap();
    m.ram.write_u16(GuestAddr(PAGE_B), (addi(A0, ZERO, 7) >> 16) as u16).unwrap();
    m.harts[0].pc = VIRTUAL + 0xffe;
    steps(&mut m, 1);
    assert_trap(&m, cause::FETCH_PAGE, VIRTUAL + 0x1000);
    assert_eq!(m.harts[0].csrs.mepc, VIRTUAL + 0xffe);
    m.ram.write_u64(GuestAddr(LEAVES + 8), entry(PAGE_B, pte::V | pte::X)).unwrap();
    m.harts[0].mode = Mode::Supervisor;
    m.harts[0].pc = VIRTUAL + 0xffe;
    m.harts[0].refresh_contexts();
    steps(&mut m, 1);
    assert_eq!((x(&m, A0), m.harts[0].pc), (7, VIRTUAL + 0x1002));
}

#[test]
fn code_that_is_overwritten_executes_as_written_without_a_fence() {
    // The store replaces the instruction after it, which was executed (and cached) the first time round.
    let program = [
        addi(A1, ZERO, 0),
        sw(A2, 12, T2),
        nop(),
        addi(A1, A1, 1), // becomes addi a1, a1, 100
        addi(A0, A0, 1),
        jal(ZERO, -16),
    ];
    let mut m = machine(1, &program);
    m.harts[0].x[T2 as usize] = RAM_BASE + 0x1000;
    m.harts[0].x[A2 as usize] = u64::from(addi(A1, A1, 100));
    steps(&mut m, 6);
    assert_eq!(x(&m, A1), 1);
    m.harts[0].x[T2 as usize] = RAM_BASE;
    steps(&mut m, 3);
    assert_eq!(x(&m, A1), 101);
}

#[test]
fn overwriting_the_second_half_of_an_instruction_is_seen() {
    let program = [addi(A1, A1, 1), jal(ZERO, -4)];
    let mut m = machine(1, &program);
    steps(&mut m, 2);
    m.ram.write_u16(GuestAddr(RAM_BASE + 2), (addi(A1, A1, 64) >> 16) as u16).unwrap();
    steps(&mut m, 1);
    assert_eq!(x(&m, A1), 65);
}

#[test]
fn sv48_translates_with_four_levels() {
    let mut m = paged(&[ld(A0, 0, T0)], entry(PAGE_A, pte::V | pte::R));
    let top = ROOT + 0x4000;
    m.ram.write_u64(GuestAddr(top), entry(ROOT, pte::V)).unwrap();
    m.harts[0].csrs.satp = 9 << 60 | top >> 12;
    m.harts[0].refresh_contexts();
    steps(&mut m, 1);
    assert_eq!(x(&m, A0), 0xaaaa);
}

#[test]
fn many_contexts_never_confuse_translations() {
    // More address spaces than the TLB has context numbers, each mapping VIRTUAL somewhere else.
    let mut m = paged(&[ld(A0, 0, T0), jal(ZERO, -4)], 0);
    for round in 0..1500u64 {
        let page = if round % 2 == 0 { PAGE_A } else { PAGE_B };
        m.ram.write_u64(GuestAddr(LEAVES), entry(page, pte::V | pte::R)).unwrap();
        m.harts[0].csrs.satp = 8 << 60 | (round & 0xffff) << 44 | ROOT >> 12;
        m.harts[0].refresh_contexts();
        steps(&mut m, 2);
        assert_eq!(x(&m, A0), if round % 2 == 0 { 0xaaaa } else { 0xbbbb });
    }
}
