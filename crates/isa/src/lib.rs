//! The instruction set (RV64GC and what RVA22 adds, and more) as data: encodings, decoding, disassembly, CSR numbers. No state, no execution.
//!
//! Tables are in the order of the RISC-V unprivileged specification, so that they can be read beside it.
//!
//! Map: [`table`](mod@table) the 32-bit encodings; [`decode`] and [`Inst`]; [`compressed`] the 16-bit encodings and what
//! they expand to; [`disasm`]; [`csr`] numbers and names. What an instruction does is `pollux-riscv`'s.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod compressed;
pub mod csr;
mod decode;
mod disasm;
pub mod table;

pub use decode::{Inst, decode, decode_compressed, is_compressed};
pub use disasm::{disasm, freg_name, reg_name};
pub use table::{Format, OPCODES, Opcode, OpcodeInfo, code};
