//! The run loop: exact stops, exact interrupts, harts in turns, and that neither caches nor stops show.

use super::asm::r::*;
use super::asm::*;
use super::{FAR, machine, steps, x};
use crate::computer::Computer;
use crate::hart::csr::{envcfg, irq, status};
use crate::hart::{Activity, trap::cause};
use crate::ram::RAM_BASE;
use pollux_machine::{Machine, Stop};
use pollux_vocab::{ClockRate, Icount, Input, VirtTime};

const STIMECMP: u16 = 0x14d;
const TIME: u16 = 0xc01;

/// All harts add to a shared counter, by `amoadd` and by `lr`/`sc`, store to memory of their own, pause now
/// and then; each takes timer interrupts at its own pace. Handler at +0x100.
fn busy(harts: u32) -> Computer {
    let mut program = std::vec![
        auipc(T0, 0x100),
        slli(T1, A0, 14),
        add(T1, T1, T0),
        // loop
        addi(S0, S0, 1),
        amoadd_d(A1, S0, T0),
        lr_d(A2, T0),
        addi(A2, A2, 1),
        sc_d(A3, A2, T0),
        add(S1, S1, A3),
        andi(A4, S0, 0x3f8),
        add(A4, A4, T1),
        sd(S0, 8, A4),
        csrrs(A5, TIME, ZERO),
        sd(A5, 16, A4),
        andi(A6, S0, 0x7f),
        bne(A6, ZERO, -48),
        0x0100_000f, // pause
        jal(ZERO, -56),
    ];
    program.resize(64, nop());
    program.extend([
        addi(A7, A7, 1),
        csrrs(A5, TIME, ZERO),
        addi(A5, A5, 17),
        csrrw(ZERO, STIMECMP, A5),
        mret(),
    ]);
    let mut m = machine(harts, &program);
    for hart in &mut m.harts {
        hart.csrs.mtvec = RAM_BASE + 0x100;
        hart.csrs.menvcfg = envcfg::STCE;
        hart.csrs.mie = irq::STI;
        hart.csrs.mstatus |= status::MIE;
        hart.csrs.stimecmp = 5 + hart.csrs.hart_id;
    }
    m
}

/// A small deterministic generator for the tests' cuts.
struct Lcg(u64);

impl Lcg {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

#[test]
fn a_run_in_pieces_with_cold_caches_ends_where_one_run_ends() {
    for harts in [1, 2, 5] {
        let end = Icount(60_000);
        let mut whole = busy(harts);
        assert_eq!(whole.run(end), Stop::Until);
        let expected = whole.digest();
        assert!(whole.harts[0].x[A7 as usize] > 10, "interrupts were taken");
        for seed in 1..4 {
            let mut pieces = busy(harts);
            let mut cuts = Lcg(seed);
            while pieces.icount() < end {
                let until = Icount(end.0.min(pieces.icount().0 + cuts.below(700)));
                assert_eq!(pieces.run(until), Stop::Until);
                assert_eq!(pieces.icount(), until);
                match cuts.below(4) {
                    0 => pieces.clear_caches(),
                    1 => _ = pieces.digest(),
                    _ => {}
                }
            }
            let digest = pieces.digest();
            assert_eq!(digest.harts, expected.harts, "{harts} harts, seed {seed}");
            assert_eq!((digest.ram, digest.devices), (expected.ram, expected.devices.clone()));
        }
    }
}

#[test]
fn a_snapshot_in_the_middle_goes_on_as_the_machine_would_have() {
    let mut m = busy(3);
    m.run(Icount(12_345));
    let mut restored = Computer::restore(&m.snapshot()).expect("the snapshot is sound");
    assert_eq!(restored.icount(), m.icount());
    m.run(Icount(50_000));
    restored.run(Icount(50_000));
    let (a, b) = (m.digest(), restored.digest());
    assert_eq!((a.harts, a.ram, a.devices), (b.harts, b.ram, b.devices));
}

#[test]
fn a_timer_interrupt_is_taken_at_the_exact_step() {
    // At 10 ns a step, 10 steps a tick: tick 7 begins at step 70.
    let mut m = machine(1, &[addi(A1, A1, 1), jal(ZERO, -4)]);
    let c = &mut m.harts[0].csrs;
    (c.mtvec, c.menvcfg, c.mie, c.stimecmp) = (RAM_BASE + 0x100, envcfg::STCE, irq::STI, 7);
    c.mstatus |= status::MIE;
    super::put(&mut m, RAM_BASE + 0x100, &[csrrs(A2, 0xb00, ZERO), jal(ZERO, 0)]);
    m.run(Icount(70));
    assert_eq!(m.harts[0].csrs.mcause, 0, "not yet");
    m.run(Icount(71));
    assert_eq!(m.harts[0].csrs.mcause, cause::INTERRUPT | 5);
    assert_eq!(x(&m, A2), 70, "the handler's first instruction is step 70");
    assert_eq!(x(&m, A1), 35);
}

#[test]
fn minstret_counts_what_retired_and_mcycle_every_step() {
    let program = [ecall(), nop(), csrrs(A0, 0xb02, ZERO), csrrs(A1, 0xb00, ZERO), jal(ZERO, 0)];
    let mut m = machine(1, &program);
    m.harts[0].csrs.mtvec = RAM_BASE + 4;
    steps(&mut m, 4);
    assert_eq!((x(&m, A0), x(&m, A1)), (1, 3));
}

#[test]
fn waiting_harts_idle_until_the_clock_is_moved() {
    let mut m = machine(2, &[wfi(), addi(A1, A1, 1), jal(ZERO, -8)]);
    for hart in &mut m.harts {
        (hart.csrs.menvcfg, hart.csrs.mie, hart.csrs.stimecmp) = (envcfg::STCE, irq::STI, 1000);
    }
    m.harts[1].csrs.stimecmp = 900;
    let wake = VirtTime(90_000);
    assert_eq!(m.run(FAR), Stop::Idle { wake: Some(wake) });
    assert_eq!((m.icount(), m.harts[0].activity), (Icount(2), Activity::Waiting));
    assert_eq!(m.run(Icount(0)), Stop::Idle { wake: Some(wake) });
    m.apply(&Input::Clock { time: wake, rate: ClockRate::default() });
    assert_eq!(m.run(Icount(3)), Stop::Until);
    assert_eq!((m.harts[1].x[A1 as usize], m.harts[0].activity), (1, Activity::Waiting));
}

#[test]
fn a_machine_with_no_timer_armed_idles_for_ever() {
    let mut m = machine(1, &[wfi()]);
    assert_eq!(m.run(FAR), Stop::Idle { wake: None });
}

#[test]
fn a_fetch_that_faults_is_a_step() {
    let mut m = machine(1, &[jalr(ZERO, ZERO, 0)]);
    m.harts[0].csrs.mtvec = RAM_BASE + 0x100;
    steps(&mut m, 2);
    assert_eq!((m.harts[0].csrs.mcause, m.harts[0].csrs.mepc), (cause::FETCH_ACCESS, 0));
    assert_eq!(m.harts[0].pc, RAM_BASE + 0x100);
}

#[test]
fn a_flipped_bit_shows_in_the_digest_and_names_its_page() {
    let mut m = busy(1);
    m.run(Icount(1000));
    let before = m.digest();
    m.flip_ram_bit(pollux_vocab::GuestAddr(RAM_BASE + 0x5123), 3);
    let after = m.digest();
    assert_ne!(before.ram, after.ram);
    assert_eq!(after.changed.len(), 1);
    assert_eq!(after.changed[0].page, 0x80005);
    m.flip_ram_bit(pollux_vocab::GuestAddr(RAM_BASE + 0x5123), 3);
    assert_eq!(m.digest().ram, before.ram);
}

#[test]
fn a_store_conditional_fails_after_a_trap() {
    let program = [lr_d(A0, T0), ecall(), sc_d(A1, ZERO, T0), jal(ZERO, 0)];
    let mut m = machine(1, &program);
    m.harts[0].csrs.mtvec = RAM_BASE + 8;
    m.harts[0].x[T0 as usize] = RAM_BASE + 0x1000;
    steps(&mut m, 3);
    assert_eq!(x(&m, A1), 1);
}

#[test]
fn polling_a_timer_that_is_not_enabled_sees_it_at_the_exact_step() {
    // Counts polls of mip until STIP shows; no interrupt is enabled, so nothing ends the run's step budget.
    let program = [addi(A1, A1, 1), csrrs(A2, 0x344, ZERO), beq(A2, ZERO, -8), jal(ZERO, 0)];
    let machine = || {
        let mut m = machine(1, &program);
        (m.harts[0].csrs.menvcfg, m.harts[0].csrs.stimecmp) = (envcfg::STCE, 50);
        m
    };
    let mut whole = machine();
    whole.run(Icount(2000));
    let mut pieces = machine();
    for until in 0..2000 {
        pieces.run(Icount(until));
    }
    // The poll at step 500 is the first that can see tick 50; polls are the steps 1, 4, 7, ...
    assert_eq!((x(&whole, A1), x(&pieces, A1)), (168, 168));
}

#[test]
fn code_in_the_page_of_its_own_page_table_sees_the_accessed_bit() {
    // A leaf entry whose accessed bit is an immediate bit of the next instruction to execute.
    let mut m = machine(1, &[jal(ZERO, 0)]);
    let (root, target) = (RAM_BASE + 0x10_0000, RAM_BASE + 0x20_0000);
    let entry = |physical: u64, bits: u64| physical >> 2 | bits;
    m.ram.write_u64(pollux_vocab::GuestAddr(root + 16), entry(0x8000_0000, 0xcf)).unwrap();
    // Entry 1 maps a gigapage at 0x8000_0000 to 0x4000_0000, readable, A clear: as code, 0x2000_0003 is `lb x0`.
    m.ram.write_u64(pollux_vocab::GuestAddr(root + 8), entry(0x8000_0000, 0x03)).unwrap();
    super::put(&mut m, root + 0x800, &[jal(ZERO, 8 - 0x800), jal(ZERO, 0)]);
    super::put(&mut m, target, &[lbu(A0, 0, T0), jal(ZERO, 0)]);
    let hart = &mut m.harts[0];
    hart.mode = crate::hart::Mode::Supervisor;
    hart.csrs.satp = 8 << 60 | root >> 12;
    hart.csrs.mtvec = RAM_BASE;
    hart.x[T0 as usize] = 0x4000_0000;
    hart.pc = root + 0x800;
    hart.refresh_contexts();
    // Decodes the entry's low half as `lb zero, 512(zero)`: faults, but is cached.
    steps(&mut m, 2);
    let cached = m.code.page(m.harts[0].tlb.fetch[m.harts[0].fetches.slot(root)].code_page).unwrap()[4]
        .load(core::sync::atomic::Ordering::Relaxed);
    assert_ne!(cached, 0);
    let hart = &mut m.harts[0];
    (hart.mode, hart.pc) = (crate::hart::Mode::Supervisor, target);
    hart.refresh_contexts();
    steps(&mut m, 1);
    let index = m.harts[0].tlb.fetch[m.harts[0].fetches.slot(root)].code_page;
    let slot = m.code.page(index).unwrap()[4].load(core::sync::atomic::Ordering::Relaxed);
    assert_eq!(slot, 0, "the walk changed the entry, so its decoded instruction is stale");
}

#[test]
fn a_hart_that_waits_gives_its_turn_away_if_there_is_another_to_take_it() {
    const PAUSE: u32 = 0x0100_000f;
    for harts in [1, 2] {
        let mut m = machine(harts, &[PAUSE, nop(), nop()]);
        super::steps(&mut m, 1);
        assert_eq!(m.quantum_left == 0, harts == 2, "{harts} harts");
    }
}
