//! In and out of translated code.
//!
//! While translated code runs it owns the hart, RAM's bytes in pages without flags, and nothing else; Rust runs in
//! between only in [`step`], which is called from there and returns there.

use crate::run::Run;
use pollux_codegen::state;
use std::ffi::c_void;

/// Runs the translated code at `code` until it leaves. `stub` is the address of the stub named `enter`.
pub(crate) fn enter(run: &mut Run<'_, '_, '_, '_>, stub: u64, code: u64) {
    let step: extern "sysv64" fn(*mut c_void, u32) -> u32 = step;
    let run: *mut Run<'_, '_, '_, '_> = run;
    // SAFETY: `run` is a mutable borrow that lasts for all of this function.
    let guest = unsafe { &mut *(*run).guest };
    let words = guest.words();
    words[state::CONTEXT] = run as u64;
    words[state::STEP] = step as usize as u64;
    let registers = guest.hart_address().wrapping_add(state::REGISTERS);
    // What it calls writes to the hart through `registers` (the engine's words, registers, `pc`, the reservation,
    // `mstatus` and the plain supervisor CSRs), with values that they may have, at offsets that `engine::layout` takes
    // from the struct itself, and to RAM through the addresses in the engine's words, at offsets that the TLB vouches
    // for: the machine caches translations only of whole pages of RAM.
    // SAFETY: `stub` is the address of a function of this type: `pollux-codegen` makes it at the beginning of code
    // memory, which never moves. `run` mutably borrows all that it writes to, and `step` gets at that through it alone.
    unsafe {
        let function: extern "sysv64" fn(*mut u8, u64) = std::mem::transmute(stub as usize);
        function(registers, code);
    }
}

/// What translated code calls to have one instruction interpreted. A panic in here ends the process, because it cannot
/// pass through translated code; there is none that guest input can reach.
extern "sysv64" fn step(context: *mut c_void, info: u32) -> u32 {
    // SAFETY: `enter` put the address of a live `Run` there, whose borrow lasts until translated code returns to it;
    // translated code, which is suspended in this call, holds no Rust reference.
    let run = unsafe { &mut *context.cast::<Run<'_, '_, '_, '_>>() };
    let answer = run.step(info);
    #[cfg(debug_assertions)]
    spoil_vectors();
    answer
}

/// Writes signalling NaNs, of both precisions, to all vector registers: they belong to whoever is called, and translated code that counts on
/// one must not pass a test because nobody happened to use it.
#[cfg(debug_assertions)]
fn spoil_vectors() {
    const SIGNALLING: u64 = 0x7ff0_0000_7f80_0001;
    macro_rules! spoil {
        ($($name:tt)*) => {
            // SAFETY: it writes to registers that are declared as written, and to nothing else.
            unsafe {
                std::arch::asm!(
                    $(concat!("movq ", $name, ", {value}"),)*
                    value = in(reg) SIGNALLING,
                    $(out($name) _,)*
                    options(nomem, nostack, preserves_flags)
                );
            }
        };
    }
    spoil!("xmm0" "xmm1" "xmm2" "xmm3" "xmm4" "xmm5" "xmm6" "xmm7" "xmm8" "xmm9" "xmm10" "xmm11" "xmm12" "xmm13"
        "xmm14" "xmm15");
}
