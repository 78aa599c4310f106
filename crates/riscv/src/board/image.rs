//! What a boot file is: an ELF, a Linux `Image`, perhaps compressed, or flat bytes. Everything in it is untrusted.
//!
//! Sources: ELF-64 object file format; Linux `Documentation/arch/riscv/boot-image-header.rst`.

use super::load::BootError;
use alloc::vec::Vec;

const ELF_MAGIC: &[u8] = b"\x7fELF";
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const LINUX_MAGIC2: &[u8] = b"RSC\x05";
const EM_RISCV: u16 = 243;
const PT_LOAD: u32 = 1;
const PHDR_BYTES: usize = 56;
/// Program headers that are looked at.
const PHDRS_MAX: u16 = 64;

/// A piece of a boot file and where it belongs.
pub(super) struct Piece<'a> {
    pub(super) addr: u64,
    pub(super) bytes: &'a [u8],
    /// Bytes it takes in memory; what the file does not fill is zero.
    pub(super) mem_bytes: u64,
}

/// A boot file understood.
pub(super) enum Image<'a> {
    /// It says where it belongs.
    Elf { entry: u64, pieces: Vec<Piece<'a>> },
    /// A Linux kernel: belongs at `text_offset` from a 2 MiB boundary, and needs `image_bytes` there.
    Linux { text_offset: u64, image_bytes: u64 },
    /// Anything else.
    Flat,
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array(bytes, at).map(u64::from_le_bytes)
}

/// Refuses what is compressed: the host half unpacks.
pub(super) fn understand<'a>(what: &'static str, bytes: &'a [u8]) -> Result<Image<'a>, BootError> {
    if bytes.is_empty() {
        return Err(BootError::Empty { what });
    }
    if bytes.starts_with(ELF_MAGIC) {
        return elf(what, bytes);
    }
    if bytes.starts_with(GZIP_MAGIC) {
        return Err(BootError::Compressed { what });
    }
    if bytes.get(56..60) == Some(LINUX_MAGIC2) {
        let (Some(text_offset), Some(image_bytes)) = (u64_at(bytes, 8), u64_at(bytes, 16)) else {
            return Err(BootError::Corrupt { what, why: "its header is cut off" });
        };
        if image_bytes == 0 || text_offset > 1 << 30 || image_bytes > 1 << 40 {
            return Err(BootError::Corrupt { what, why: "its header gives impossible sizes" });
        }
        // `image_bytes` counts what the kernel clears behind the file (bss): never less than the file.
        return Ok(Image::Linux { text_offset, image_bytes: image_bytes.max(bytes.len() as u64) });
    }
    Ok(Image::Flat)
}

fn elf<'a>(what: &'static str, bytes: &'a [u8]) -> Result<Image<'a>, BootError> {
    let corrupt = |why| BootError::Corrupt { what, why };
    if bytes.get(4..6) != Some(&[2, 1]) || u16_at(bytes, 18) != Some(EM_RISCV) {
        return Err(corrupt("it is an ELF file, but not for 64-bit little-endian RISC-V"));
    }
    let cut = || corrupt("its ELF headers are cut off");
    let entry = u64_at(bytes, 24).ok_or_else(cut)?;
    let table = u64_at(bytes, 32).ok_or_else(cut)?;
    let size = u16_at(bytes, 54).ok_or_else(cut)?;
    let count = u16_at(bytes, 56).ok_or_else(cut)?;
    if usize::from(size) != PHDR_BYTES || count > PHDRS_MAX {
        return Err(corrupt("its ELF program headers make no sense"));
    }
    let mut pieces = Vec::new();
    let mut start = None;
    for index in 0..usize::from(count) {
        let at =
            usize::try_from(table).ok().and_then(|t| t.checked_add(index * PHDR_BYTES)).ok_or_else(cut)?;
        if u32_at(bytes, at).ok_or_else(cut)? != PT_LOAD {
            continue;
        }
        let field = |offset| u64_at(bytes, at + offset).ok_or_else(cut);
        let (offset, virt, addr) = (field(8)?, field(16)?, field(24)?);
        let (file_bytes, mem_bytes) = (field(32)?, field(40)?);
        let end = offset.checked_add(file_bytes).and_then(|end| usize::try_from(end).ok());
        let content = end.and_then(|end| bytes.get(offset as usize..end));
        let content = content.ok_or_else(|| corrupt("it is cut off: a segment lies beyond its end"))?;
        if mem_bytes < file_bytes {
            return Err(corrupt("a segment is larger in the file than in memory"));
        }
        // The entry is a virtual address where the two differ, as QEMU's loader has it.
        let into = [virt, addr].map(|base| entry.wrapping_sub(base)).into_iter().find(|at| *at < mem_bytes);
        start = start.or(into.map(|at| addr.wrapping_add(at)));
        if mem_bytes > 0 {
            pieces.push(Piece { addr, bytes: content, mem_bytes });
        }
    }
    if pieces.is_empty() {
        return Err(corrupt("it has nothing to load"));
    }
    let entry = start.ok_or_else(|| corrupt("its entry lies outside of what it loads"))?;
    Ok(Image::Elf { entry, pieces })
}
