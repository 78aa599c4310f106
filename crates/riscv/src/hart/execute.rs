//! The interpreter's inner loop.
//!
//! Invariant: it leaves after exactly the number of steps it was given, or earlier, between two steps, when
//! something happened that only the machine can settle (a device, a changed translation, an interrupt). Every
//! step is one instruction attempted. Nothing that is cached here shows.
//!
//! How it is fast: instructions are decoded once per page and looked up by the page that is executing; loads
//! and stores hit a TLB entry with one comparison, which also proves alignment; interrupts are not polled,
//! because the step budget ends where the next one could become due.
//!
//! Here are I, A, Zawrs and what leads elsewhere, in the specification's order; what else only computes a register is in
//! [`compute`]. The function is longer than one should be because its short ways are macros over what it holds in registers.

use super::code::{CodeCache, CodePage, Packed, SLOTS};
use super::compute::{self, word};
use super::csr::irq;
use super::system::Next;
use super::trap::{self, Exception};
use super::{Hart, amo, fetch, float, memory, system};
use crate::board::Board;
use crate::mmu::PAGE_MASK;
use crate::ram::Ram;
use core::sync::atomic::{AtomicU64, Ordering};
use pollux_isa::code;
use pollux_vocab::{Clock, Icount, VirtTime};

/// What the inner loop needs of the machine around the hart, and what it reports back.
pub(crate) struct Env<'a> {
    pub(crate) board: &'a mut Board,
    pub(crate) code: &'a CodeCache,
    pub(crate) clock: Clock,
    /// The machine's steps, and the hart's, when the loop was entered.
    pub(crate) icount_base: u64,
    pub(crate) steps_base: u64,
    /// Interrupt lines into the hart. They change only where the loop is left.
    pub(crate) lines: u64,
    /// `ecall` from S-mode is the machine's own SBI.
    pub(crate) builtin_sbi: bool,
    /// The machine has no other hart.
    pub(crate) is_alone: bool,
    /// Steps begun since the loop was entered; up to date whenever a slow path runs.
    pub(crate) begun: u64,
    /// Leave the loop after this step.
    pub(crate) leave: bool,
    /// Out: the page of `pc` is not in the fetch TLB.
    pub(crate) fetch_miss: bool,
    /// Out: the hart asks the SBI for something.
    pub(crate) sbi_call: bool,
    /// Out: the hart gives the rest of its turn away.
    pub(crate) yielded: bool,
}

impl Env<'_> {
    /// The machine's steps before the instruction that executes.
    pub(super) fn icount(&self) -> u64 {
        self.icount_base + self.begun - 1
    }

    /// The hart's steps before the instruction that executes.
    pub(super) fn hart_steps(&self) -> u64 {
        self.steps_base + self.begun - 1
    }

    /// The interrupt lines at the instruction that executes. Timers that no interrupt is enabled for do not end
    /// the step budget, so they are compared with the clock again.
    pub(super) fn lines_now(&self, hart: &Hart) -> u64 {
        let mtimecmp = self.board.mtimecmp(hart.csrs.hart_id as usize);
        self.lines & !(irq::MTI | irq::STI) | hart.csrs.timer_lines(mtimecmp, self.time())
    }

    /// Virtual time at the instruction that executes.
    pub(super) fn time(&self) -> VirtTime {
        self.clock.at(Icount(self.icount()))
    }
}

/// A page with nothing decoded: where the loop stands before it has looked its page up.
static NO_CODE: CodePage = [const { AtomicU64::new(0) }; SLOTS];
/// No page starts at an odd address.
const NO_PAGE: u64 = 1;

/// Runs at most `limit` steps, and with `ONE_BLOCK` not beyond the first jump. Returns how many it ran; `hart.pc` is
/// where to go on.
#[allow(clippy::cognitive_complexity)]
pub(crate) fn run<const ONE_BLOCK: bool>(
    hart: &mut Hart,
    ram: &mut Ram,
    env: &mut Env<'_>,
    mut limit: u64,
) -> u64 {
    let code_cache = env.code;
    let mut begun = 0u64;
    let mut pc = hart.pc;
    let mut page: &CodePage = &NO_CODE;
    let mut page_addr = NO_PAGE;
    let mut page_index = 0;

    'jump: while begun < limit && !(ONE_BLOCK && begun > 0) {
        if pc & PAGE_MASK != page_addr {
            let entry = &hart.tlb.fetch[hart.fetches.slot(pc)];
            page_index = entry.code_page;
            match code_cache.page(page_index) {
                Some(found) if entry.tag == pc & PAGE_MASK | hart.fetches.tag(pc) => page = found,
                _ => {
                    env.fetch_miss = true;
                    break;
                }
            }
            page_addr = pc & PAGE_MASK;
        }
        // From here to the next jump, `slot` is where we are; `pc` is where we came from.
        let mut slot = (pc >> 1) as usize % SLOTS;
        let mut op: Packed;

        macro_rules! here {
            () => {
                page_addr.wrapping_add(2 * slot as u64)
            };
        }
        macro_rules! jump {
            ($target:expr) => {{
                pc = $target;
                continue 'jump;
            }};
        }
        macro_rules! x {
            (rd = $value:expr) => {{
                let value: u64 = $value;
                hart.x[op.rd()] = value;
            }};
            (rs1) => {
                hart.x[op.rs1()]
            };
            (rs2) => {
                hart.x[op.rs2()]
            };
        }
        macro_rules! raise {
            ($exception:expr) => {{
                let exception: Exception = $exception;
                hart.pc = here!();
                trap::exception(hart, exception);
                pc = hart.pc;
                page_addr = NO_PAGE;
                continue 'jump;
            }};
        }
        // Runs a path that may trap, touch devices or make caches stale.
        macro_rules! slow {
            ($call:expr) => {{
                env.begun = begun;
                let result = $call;
                // A walk may have set bits of an entry in a page that also holds code.
                if ram.is_stale() {
                    memory::settle(ram, env);
                }
                match result {
                    Ok(value) => {
                        if env.leave {
                            limit = begun;
                        }
                        value
                    }
                    Err(exception) => raise!(exception),
                }
            }};
        }
        macro_rules! load {
            ($bytes:literal, $raw:ident, $value:expr) => {{
                let addr = x!(rs1).wrapping_add(op.imm());
                let entry = &hart.tlb.read[hart.data.slot(addr)];
                let $raw = if entry.tag == addr & (PAGE_MASK | ($bytes - 1)) | hart.data.tag(addr) {
                    widen(ram.load::<$bytes>(addr.wrapping_add(entry.delta) as usize))
                } else {
                    slow!(memory::load(hart, ram, env, addr, $bytes))
                };
                $value
            }};
        }
        macro_rules! store {
            ($bytes:literal, $type:ty, $value:expr) => {{
                let addr = x!(rs1).wrapping_add(op.imm());
                let entry = &hart.tlb.write[hart.data.slot(addr)];
                let value: u64 = $value;
                if entry.tag == addr & (PAGE_MASK | ($bytes - 1)) | hart.data.tag(addr) {
                    let at = addr.wrapping_add(entry.delta) as usize;
                    if ram.store(at, (value as $type).to_le_bytes()) {
                        memory::settle(ram, env);
                        if env.leave {
                            limit = begun;
                        }
                    }
                } else {
                    slow!(memory::store(hart, ram, env, addr, $bytes, value));
                }
            }};
        }
        macro_rules! branch {
            ($taken:expr) => {
                if $taken {
                    jump!(here!().wrapping_add(op.imm()))
                }
            };
        }
        macro_rules! illegal {
            () => {{
                env.begun = begun;
                raise!(Exception::illegal(fetch::bits_at(hart, ram, env, here!())))
            }};
        }

        loop {
            let Some(cell) = page.get(slot) else { jump!(here!()) };
            op = Packed(cell.load(Ordering::Relaxed));
            begun += 1;
            if op == Packed::EMPTY {
                op = slow!(fetch::decode_at(hart, ram, env, page_index, here!()));
            }
            match op.kind() {
                // I
                code::Lui => x!(rd = op.imm() << 12),
                code::Auipc => x!(rd = here!().wrapping_add(op.imm() << 12)),
                code::Jal => {
                    x!(rd = here!().wrapping_add(op.len()));
                    jump!(here!().wrapping_add(op.imm()))
                }
                code::Jalr => {
                    let target = x!(rs1).wrapping_add(op.imm()) & !1;
                    x!(rd = here!().wrapping_add(op.len()));
                    jump!(target)
                }
                code::Beq => branch!(x!(rs1) == x!(rs2)),
                code::Bne => branch!(x!(rs1) != x!(rs2)),
                code::Blt => branch!((x!(rs1) as i64) < x!(rs2) as i64),
                code::Bge => branch!(x!(rs1) as i64 >= x!(rs2) as i64),
                code::Bltu => branch!(x!(rs1) < x!(rs2)),
                code::Bgeu => branch!(x!(rs1) >= x!(rs2)),
                code::Lb => x!(rd = load!(1, raw, raw as i8 as u64)),
                code::Lh => x!(rd = load!(2, raw, raw as i16 as u64)),
                code::Lw => x!(rd = load!(4, raw, raw as i32 as u64)),
                code::Lbu => x!(rd = load!(1, raw, raw)),
                code::Lhu => x!(rd = load!(2, raw, raw)),
                code::Sb => store!(1, u8, x!(rs2)),
                code::Sh => store!(2, u16, x!(rs2)),
                code::Sw => store!(4, u32, x!(rs2)),
                code::Addi => x!(rd = x!(rs1).wrapping_add(op.imm())),
                code::Slti => x!(rd = u64::from((x!(rs1) as i64) < op.imm() as i64)),
                code::Sltiu => x!(rd = u64::from(x!(rs1) < op.imm())),
                code::Xori => x!(rd = x!(rs1) ^ op.imm()),
                code::Ori => x!(rd = x!(rs1) | op.imm()),
                code::Andi => x!(rd = x!(rs1) & op.imm()),
                code::Slli => x!(rd = x!(rs1) << (op.imm() & 63)),
                code::Srli => x!(rd = x!(rs1) >> (op.imm() & 63)),
                code::Srai => x!(rd = (x!(rs1) as i64 >> (op.imm() & 63)) as u64),
                code::Add => x!(rd = x!(rs1).wrapping_add(x!(rs2))),
                code::Sub => x!(rd = x!(rs1).wrapping_sub(x!(rs2))),
                code::Sll => x!(rd = x!(rs1) << (x!(rs2) & 63)),
                code::Slt => x!(rd = u64::from((x!(rs1) as i64) < x!(rs2) as i64)),
                code::Sltu => x!(rd = u64::from(x!(rs1) < x!(rs2))),
                code::Xor => x!(rd = x!(rs1) ^ x!(rs2)),
                code::Srl => x!(rd = x!(rs1) >> (x!(rs2) & 63)),
                code::Sra => x!(rd = (x!(rs1) as i64 >> (x!(rs2) & 63)) as u64),
                code::Or => x!(rd = x!(rs1) | x!(rs2)),
                code::And => x!(rd = x!(rs1) & x!(rs2)),
                // Other harts may have what is waited for: whoever waits gives its turn away, and looks again.
                code::Pause | code::WrsNto | code::WrsSto => {
                    if !env.is_alone {
                        env.yielded = true;
                        limit = begun;
                    }
                }
                code::Fence | code::FenceI => {}
                code::Lwu => x!(rd = load!(4, raw, raw)),
                code::Ld => x!(rd = load!(8, raw, raw)),
                code::Sd => store!(8, u64, x!(rs2)),
                code::Addiw => x!(rd = word(x!(rs1).wrapping_add(op.imm()))),
                code::Slliw => x!(rd = word(x!(rs1) << (op.imm() & 31))),
                code::Srliw => x!(rd = word(u64::from(x!(rs1) as u32 >> (op.imm() & 31)))),
                code::Sraiw => x!(rd = (x!(rs1) as i32 >> (op.imm() & 31)) as u64),
                code::Addw => x!(rd = word(x!(rs1).wrapping_add(x!(rs2)))),
                code::Subw => x!(rd = word(x!(rs1).wrapping_sub(x!(rs2)))),
                code::Sllw => x!(rd = word(x!(rs1) << (x!(rs2) & 31))),
                code::Srlw => x!(rd = word(u64::from(x!(rs1) as u32 >> (x!(rs2) & 31)))),
                code::Sraw => x!(rd = (x!(rs1) as i32 >> (x!(rs2) & 31)) as u64),
                // A
                code::LrW..=code::AmomaxuD => slow!(amo::execute(hart, ram, env, op)),
                // Zacas
                code::AmocasQ if amo::is_odd(op) => illegal!(),
                code::AmocasW..=code::AmocasQ => slow!(amo::compare_and_swap(hart, ram, env, op)),
                // F, D, Zfhmin, Zfa
                code::Flw | code::Fld | code::Fsw | code::Fsd if !float::enabled(hart) => illegal!(),
                code::Flh | code::Fsh if !float::enabled(hart) => illegal!(),
                code::Flh => {
                    let value = load!(2, raw, super::fp::boxed_half(raw as u16));
                    float::set(hart, op.rd(), value);
                }
                code::Fsh => store!(2, u16, hart.f[op.rs2() & 31]),
                code::Flw => {
                    let value = load!(4, raw, fp_boxed(raw));
                    float::set(hart, op.rd(), value);
                }
                code::Fld => {
                    let value = load!(8, raw, raw);
                    float::set(hart, op.rd(), value);
                }
                code::Fsw => store!(4, u32, hart.f[op.rs2() & 31]),
                code::Fsd => store!(8, u64, hart.f[op.rs2() & 31]),
                code::FmaddS..=code::FmvDX | code::FmvXH..=code::FleqD => {
                    if float::execute(hart, op).is_err() {
                        illegal!();
                    }
                }
                _ => match compute::value(hart, op) {
                    // Zimop, Zicond, M, Zb*
                    Some(value) => x!(rd = value),
                    // Zicsr, cache blocks, privileged
                    None => {
                        let next = here!().wrapping_add(op.len());
                        hart.pc = here!();
                        let after = slow!(system::execute(hart, ram, env, op));
                        page_addr = NO_PAGE;
                        jump!(if let Next::Jump = after { hart.pc } else { next })
                    }
                },
            }
            slot += op.len() as usize / 2;
            if begun >= limit {
                jump!(here!())
            }
        }
    }
    hart.pc = pc;
    begun
}

/// Little-endian bytes as a number.
#[inline(always)]
fn widen<const N: usize>(bytes: [u8; N]) -> u64 {
    let mut wide = [0; 8];
    wide[..N].copy_from_slice(&bytes);
    u64::from_le_bytes(wide)
}

#[inline(always)]
fn fp_boxed(raw: u64) -> u64 {
    super::fp::boxed(raw as u32)
}
