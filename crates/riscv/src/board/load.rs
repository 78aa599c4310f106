//! What reset finds in memory: kernel or firmware, initial RAM disk, device tree, reset code.
//!
//! Sources: Linux `Documentation/arch/riscv/boot.rst` (a0 hart id, a1 device tree, kernel on a 2 MiB boundary); QEMU
//! `hw/riscv/boot.c` for where the next stage and the reset vector lie; OpenSBI `fw_dynamic_info`.

use super::image::{Image, Piece, understand};
use super::{Board, ROM_BASE, fdt};
use crate::config::{Boot, Config, DeviceConfig, HARTS_MAX, SLOTS};
use crate::ram::{RAM_BASE, Ram};
use alloc::vec::Vec;
use pollux_vocab::GuestAddr;

/// Where the next stage of a firmware is expected, as an offset in RAM (QEMU, OpenSBI's `fw_jump`).
const NEXT_STAGE: u64 = 0x20_0000;
/// A kernel or device tree lies on a boundary of this.
const ALIGN: u64 = 2 << 20;
/// Room kept for the device tree at the end of RAM.
const FDT_ROOM: u64 = 2 << 20;
/// Least RAM: the device tree's room, and as much again.
const RAM_BYTES_MIN: u64 = 4 << 20;
/// The initial RAM disk and device tree lie below this offset, so that every kernel maps them early.
const LOW_RAM: u64 = 1 << 30;
const PAGE: u64 = 4096;
/// Longest command line in bytes: Linux keeps 1024 (`COMMAND_LINE_SIZE` of riscv), one of them for the NUL behind it, and
/// would cut a longer one off without a word.
const COMMAND_LINE_MAX: usize = 1023;

/// Why a machine cannot be started.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BootError {
    /// The configuration is impossible.
    #[error("impossible machine: {0}")]
    Config(&'static str),
    /// The host has not the memory.
    #[error(
        "a machine with {bytes} bytes of RAM is more than this host has got to give; give it less --memory"
    )]
    NoMemory {
        /// How much it wants.
        bytes: u64,
    },
    /// A file without content.
    #[error("the {what} file is empty")]
    Empty {
        /// Which.
        what: &'static str,
    },
    /// A file that makes no sense.
    #[error("the {what} cannot be started: {why}")]
    Corrupt {
        /// Which.
        what: &'static str,
        /// Why not.
        why: &'static str,
    },
    /// A gzip file.
    #[error("the {what} is compressed with gzip; unpack it first: zcat FILE > Image")]
    Compressed {
        /// Which.
        what: &'static str,
    },
    /// It does not fit.
    #[error(
        "the {what} ({bytes} bytes at {addr:#x}) does not fit into {ram} bytes of RAM at {RAM_BASE:#x}; give the machine more --memory, or a smaller file"
    )]
    NoRoom {
        /// Which.
        what: &'static str,
        /// Where it belongs.
        addr: u64,
        /// How large it is.
        bytes: u64,
        /// How much RAM there is.
        ram: u64,
    },
    /// Two files in the same place.
    #[error("the {what} does not fit beside the {other}; give the machine more --memory")]
    Overlap {
        /// Which.
        what: &'static str,
        /// With which.
        other: &'static str,
    },
    /// The command line.
    #[error(
        "the kernel command line has {bytes} bytes; at most {COMMAND_LINE_MAX} fit into Linux's 1024 with the NUL behind them, and it may not contain a NUL itself"
    )]
    CommandLine {
        /// How long it is.
        bytes: usize,
    },
}

/// How every hart leaves reset.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ResetState {
    /// The first instruction.
    pub pc: u64,
    /// Address of the device tree, for a1 (direct boot) or the reset code.
    pub fdt: u64,
    /// Address of the random seed in it.
    pub rng_seed: u64,
    /// Whether a kernel is entered directly, in S-mode under the machine's own SBI, by hart 0 alone. Otherwise all
    /// harts run the reset code in M-mode.
    pub direct: bool,
}

/// The memory taken so far.
struct Layout<'a> {
    ram: &'a mut Ram,
    taken: Vec<(&'static str, u64, u64)>,
}

impl Layout<'_> {
    fn end(&self) -> u64 {
        RAM_BASE + self.ram.len()
    }

    /// Takes `[addr, addr + bytes)` for `what`.
    fn take(&mut self, what: &'static str, addr: u64, bytes: u64) -> Result<(), BootError> {
        let end = addr.checked_add(bytes).filter(|end| addr >= RAM_BASE && *end <= self.end());
        let Some(end) = end else {
            return Err(BootError::NoRoom { what, addr, bytes, ram: self.ram.len() });
        };
        if let Some((other, ..)) =
            self.taken.iter().find(|(other, from, to)| addr < *to && *from < end && *other != what)
        {
            return Err(BootError::Overlap { what, other });
        }
        self.taken.push((what, addr, end));
        Ok(())
    }

    fn put(&mut self, what: &'static str, addr: u64, bytes: &[u8], mem_bytes: u64) -> Result<(), BootError> {
        self.take(what, addr, mem_bytes.max(bytes.len() as u64))?;
        let no_room = |_| BootError::NoRoom { what, addr, bytes: bytes.len() as u64, ram: 0 };
        self.ram.write(GuestAddr(addr), bytes).map_err(no_room)
    }

    fn put_pieces(&mut self, what: &'static str, pieces: &[Piece<'_>]) -> Result<(), BootError> {
        pieces.iter().try_for_each(|piece| self.put(what, piece.addr, piece.bytes, piece.mem_bytes))
    }

    /// Puts `image` where it belongs, `default` if it does not say. Returns its entry.
    fn put_image(&mut self, what: &'static str, bytes: &[u8], default: u64) -> Result<u64, BootError> {
        match understand(what, bytes)? {
            Image::Elf { entry, pieces } => {
                self.put_pieces(what, &pieces)?;
                Ok(entry)
            }
            Image::Linux { text_offset, image_bytes } => {
                // `default` is a 2 MiB boundary; the kernel wants to lie `text_offset` behind one.
                let addr = default + text_offset % ALIGN;
                self.put(what, addr, bytes, image_bytes)?;
                Ok(addr)
            }
            Image::Flat => {
                self.put(what, default, bytes, 0)?;
                Ok(default)
            }
        }
    }

    /// Puts the initial RAM disk and the device tree as high as the kernel can be sure to reach. Returns where the tree and
    /// the seed in it lie.
    fn put_tail(
        &mut self,
        config: &Config,
        initrd: Option<&[u8]>,
        command_line: &str,
    ) -> Result<(u64, u64), BootError> {
        let top = self.end().min(RAM_BASE + LOW_RAM);
        let fdt_addr = top.saturating_sub(FDT_ROOM);
        let mut range = None;
        if let Some(initrd) = initrd {
            if initrd.is_empty() {
                return Err(BootError::Empty { what: "initial RAM disk" });
            }
            let addr = fdt_addr.saturating_sub(initrd.len() as u64) & !(PAGE - 1);
            self.put("initial RAM disk", addr, initrd, 0)?;
            range = Some((addr, addr + initrd.len() as u64));
        }
        if command_line.len() > COMMAND_LINE_MAX || command_line.contains('\0') {
            return Err(BootError::CommandLine { bytes: command_line.len() });
        }
        let (blob, seed) = fdt::build(config, command_line, range)
            .map_err(|_| BootError::Config("its device tree cannot be written"))?;
        self.put("device tree", fdt_addr, &blob, FDT_ROOM)?;
        Ok((fdt_addr, fdt_addr + seed as u64))
    }
}

/// Whether a machine can be built like this.
fn check(config: &Config) -> Result<(), BootError> {
    let wrong = if !(1..=HARTS_MAX).contains(&config.harts) {
        "it has 1 to 8 harts"
    } else if config.devices.len() > SLOTS {
        "it has at most 8 devices"
    } else if config.devices.contains(&DeviceConfig::Button) {
        "it has one power button, and that in its own place"
    } else if config.ram_bytes < RAM_BYTES_MIN || !config.ram_bytes.is_multiple_of(ALIGN) {
        "its RAM is a multiple of 2 MiB, and at least 4 MiB"
    } else {
        return Ok(());
    };
    Err(BootError::Config(wrong))
}

/// Fills RAM and ROM as `boot` asks.
pub fn load(
    config: &Config,
    boot: &Boot<'_>,
    ram: &mut Ram,
    board: &mut Board,
) -> Result<ResetState, BootError> {
    check(config)?;
    let mut layout = Layout { ram, taken: Vec::new() };
    match *boot {
        Boot::Kernel { image, initrd, command_line } => {
            let pc = layout.put_image("kernel", image, RAM_BASE + NEXT_STAGE)?;
            let (fdt, rng_seed) = layout.put_tail(config, initrd, command_line)?;
            Ok(ResetState { pc, fdt, rng_seed, direct: true })
        }
        Boot::Firmware { image, kernel, initrd, command_line } => {
            let entry = layout.put_image("firmware", image, RAM_BASE)?;
            let next = match kernel {
                Some(kernel) => layout.put_image("kernel", kernel, RAM_BASE + NEXT_STAGE)?,
                None => 0,
            };
            let (fdt, rng_seed) = layout.put_tail(config, initrd, command_line)?;
            board.set_rom(reset_code(entry, fdt, next));
            Ok(ResetState { pc: ROM_BASE, fdt, rng_seed, direct: false })
        }
    }
}

/// The reset code, as on QEMU's `virt`: a0 hart id, a1 device tree, a2 `fw_dynamic_info`, then jump.
fn reset_code(entry: u64, fdt: u64, next: u64) -> Vec<u8> {
    let code: [u32; 6] = [
        0x0000_0297, // auipc t0, 0
        0x0282_8613, // addi  a2, t0, 40     -> fw_dynamic_info
        0xf140_2573, // csrr  a0, mhartid
        0x0202_b583, // ld    a1, 32(t0)     -> device tree
        0x0182_b283, // ld    t0, 24(t0)     -> entry
        0x0002_8067, // jr    t0
    ];
    let mut rom: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
    rom.extend_from_slice(&entry.to_le_bytes());
    rom.extend_from_slice(&fdt.to_le_bytes());
    // struct fw_dynamic_info (OpenSBI, include/sbi/fw_dynamic.h): magic "OSBI", version 2, next address, next mode S,
    // options, boot hart.
    for word in [0x4942_534f, 2, next, 1, 0, 0u64] {
        rom.extend_from_slice(&word.to_le_bytes());
    }
    rom
}

impl Board {
    /// What the harts find at [`ROM_BASE`].
    fn set_rom(&mut self, rom: Vec<u8>) {
        self.misc.rom = rom;
    }
}
