//! `--engine`: what executes the guest's instructions. Which one does never shows in the guest (DESIGN 1), so the two
//! sides of a pair, or a recording and its replay, may use different ones.

use anyhow::{Context, Result};
use clap::ValueEnum;
use pollux_jit::{CODE_BYTES, Jit};
use pollux_riscv::Computer;
use serde::Deserialize;

/// An engine.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// The reference: slow, and the same on every host
    Interpreter,
    /// Translates to the host's code; x86-64 Linux hosts only
    Jit,
}

/// Gives the machine the engine that was asked for: by default the JIT where there is one.
pub fn install(machine: &mut Computer, wanted: Option<Engine>) -> Result<()> {
    if wanted == Some(Engine::Interpreter) {
        return Ok(());
    }
    match Jit::new(CODE_BYTES) {
        Ok(jit) => machine.set_engine(Some(Box::new(jit))),
        Err(error) if wanted.is_none() => {
            tracing::info!(%error, "the interpreter executes the guest");
        }
        Err(error) => return Err(error).context("--engine jit; --engine interpreter works everywhere"),
    }
    Ok(())
}
