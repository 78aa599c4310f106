//! Instructions of the privileged half: CSR accesses, environment calls, trap returns, `wfi`, fences and
//! cache-block management.
//!
//! Choices: `wfi` in U-mode is illegal; `wfi` under TW traps at once; fences have nothing to do, and
//! `cbo.clean/flush/inval` nothing but to check the address, because memory is coherent and the MMU too (`mmu`). Source: privileged specification,
//! "Machine-Mode Privileged Instructions", "Supervisor Instructions"; Zicsr; CMO.

use super::code::Packed;
use super::csr::{Illegal, Now, envcfg, status};
use super::execute::Env;
use super::fetch::bits_at;
use super::trap::{self, Exception, cause};
use super::{Activity, Hart, Mode, amo};
use crate::ram::Ram;
use pollux_isa::code;

/// What a system instruction did to the flow of control.
pub(super) enum Next {
    /// On to the next instruction.
    Following,
    /// `hart.pc` says where.
    Jump,
}

/// Executes one system instruction. `hart.pc` is its address.
#[inline(never)]
pub(super) fn execute(
    hart: &mut Hart,
    ram: &mut Ram,
    env: &mut Env<'_>,
    op: Packed,
) -> Result<Next, Exception> {
    let pc = hart.pc;
    let done = match op.kind() {
        code::Csrrw | code::Csrrs | code::Csrrc | code::Csrrwi | code::Csrrsi | code::Csrrci => {
            csr(hart, ram, env, op).map(|()| Next::Following)
        }
        code::Ecall => return environment_call(hart, env),
        code::Ebreak => return Err(Exception { cause: cause::BREAKPOINT, tval: pc }),
        code::Mret if hart.mode == Mode::Machine => {
            trap::return_machine(hart);
            Ok(Next::Jump)
        }
        code::Sret if may_supervise(hart, status::TSR) => {
            trap::return_supervisor(hart);
            Ok(Next::Jump)
        }
        code::Wfi if may_supervise(hart, status::TW) => {
            hart.activity = Activity::Waiting;
            env.leave = true;
            Ok(Next::Following)
        }
        code::SfenceVma | code::SinvalVma if may_supervise(hart, status::TVM) => Ok(Next::Following),
        code::SfenceWInval | code::SfenceInvalIr if hart.mode != Mode::User => Ok(Next::Following),
        code::CboZero if block_op_enabled(hart, hart.mode, envcfg::CBZE) => {
            amo::zero_block(hart, ram, env, hart.x[op.rs1()])?;
            Ok(Next::Following)
        }
        code::CboClean | code::CboFlush if block_op_enabled(hart, hart.mode, envcfg::CBCFE) => {
            amo::check_block(hart, ram, hart.x[op.rs1()])?;
            Ok(Next::Following)
        }
        code::CboInval if block_op_enabled(hart, hart.mode, envcfg::CBIE) => {
            amo::check_block(hart, ram, hart.x[op.rs1()])?;
            Ok(Next::Following)
        }
        _ => Err(Illegal),
    };
    let next = done.map_err(|Illegal| Exception::illegal(bits_at(hart, ram, env, pc)))?;
    env.leave |= hart.interrupt_due(env.lines);
    Ok(next)
}

/// Whether S-mode (unless `trapped_by` is set in `mstatus`) or M-mode executes.
fn may_supervise(hart: &Hart, trapped_by: u64) -> bool {
    match hart.mode {
        Mode::Machine => true,
        Mode::Supervisor => hart.csrs.mstatus & trapped_by == 0,
        Mode::User => false,
    }
}

/// Whether `menvcfg`, and for U-mode `senvcfg`, enable a cache-block operation in a mode.
pub(crate) fn block_op_enabled(hart: &Hart, mode: Mode, field: u64) -> bool {
    let machine = hart.csrs.menvcfg & field != 0;
    let supervisor = hart.csrs.senvcfg & field != 0;
    match mode {
        Mode::Machine => true,
        Mode::Supervisor => machine,
        Mode::User => machine && supervisor,
    }
}

/// `ecall`: an exception, unless the machine itself is the supervisor's execution environment.
fn environment_call(hart: &mut Hart, env: &mut Env<'_>) -> Result<Next, Exception> {
    if env.builtin_sbi && hart.mode == Mode::Supervisor {
        hart.trapped = hart.trapped.wrapping_add(1);
        env.sbi_call = true;
        env.leave = true;
        return Ok(Next::Following);
    }
    Err(Exception { cause: cause::ECALL_U + hart.mode as u64, tval: 0 })
}

/// The six CSR instructions (Zicsr, table "Conditions determining whether a CSR instruction reads or writes").
fn csr(hart: &mut Hart, ram: &mut Ram, env: &mut Env<'_>, op: Packed) -> Result<(), Illegal> {
    let kind = op.kind();
    let number = (op.imm() & 0xfff) as u16;
    let immediate = kind >= code::Csrrwi;
    let swap = kind == code::Csrrw || kind == code::Csrrwi;
    let writes = swap || op.rs1() != 0;
    let source = if immediate { op.rs1() as u64 } else { hart.x[op.rs1()] };
    let now =
        Now { icount: env.icount(), steps: env.hart_steps(), time: env.time(), lines: env.lines_now(hart) };
    let old = hart.csr_read(number, writes, &now)?;
    if writes {
        let base = hart.csr_modify_base(number, old);
        let new = match kind {
            code::Csrrw | code::Csrrwi => source,
            code::Csrrs | code::Csrrsi => base | source,
            _ => base & !source,
        };
        let effects = hart.csr_write(number, new, &now);
        if effects.translations {
            hart.forget_translations(ram);
        } else if effects.space {
            hart.refresh_upper(ram);
        } else if effects.contexts {
            hart.refresh_contexts();
        }
        env.leave |= effects.timers;
    }
    hart.x[op.rd()] = old;
    Ok(())
}
