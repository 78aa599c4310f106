//! Kernel modules without the labels that nobody refers to.
//!
//! RISC-V's assembler keeps a symbol for every label, because linker relaxation may move it: Debian's ext4 has 215,000, of
//! 5 MiB, and the kernel walks all of them several times when it loads the module. That were 1.8 of the 3.5 thousand million
//! instructions of a whole boot. `strip --discard-locals` would do the same, but a host seldom has one for RISC-V.
//!
//! Debian's modules are signed. A signature would not fit any more and is taken off, so the kernel says of itself that it has loaded a
//! module without one (taint flag E). Nothing that boots from here enforces signatures; `/lib/modules` keeps Debian's files.
//!
//! Invariant: code, data, and every symbol that has a type, is not local, or is referred to stay as they are. A module that
//! is not understood is left whole. Format: System V ABI, chapter 4 (ELF-64).

/// Bytes of a section header, of a symbol, and of a relocation.
const SECTION_BYTES: usize = 64;
const SYMBOL_BYTES: usize = 24;
const RELA_BYTES: usize = 24;
/// Kinds of sections.
const SYMTAB: u32 = 2;
const RELA: u32 = 4;
/// Kinds that number symbols in ways that are not rewritten here: REL, GROUP, SYMTAB_SHNDX.
const FOREIGN: [u32; 3] = [9, 17, 18];
/// What follows moves by whole pages, so that alignments are kept.
const MOVE_BYTES: usize = 4096;
/// The end of a module that is signed, and bytes of what is before it: the signature's kind and, last, its length.
const SIGNED: &[u8] = b"~Module signature appended~\n";
const SIGNATURE_BYTES: usize = 12;

/// What of a section header matters here.
struct Section {
    kind: u32,
    offset: usize,
    bytes: usize,
    link: usize,
}

/// The module, smaller if it can be.
pub(crate) fn without_labels(module: Vec<u8>) -> Vec<u8> {
    shorten(&module).unwrap_or(module)
}

/// The module before its signature.
fn unsigned(module: &[u8]) -> Option<&[u8]> {
    let Some(signed) = module.strip_suffix(SIGNED) else { return Some(module) };
    let length = signed.last_chunk().map(|bytes| u32::from_be_bytes(*bytes))?;
    signed.get(..signed.len().checked_sub(SIGNATURE_BYTES)?.checked_sub(length as usize)?)
}

fn shorten(module: &[u8]) -> Option<Vec<u8>> {
    const RELOCATABLE: u64 = 1;
    let module = unsigned(module)?;
    let understood = module.starts_with(b"\x7fELF\x02\x01") && number(module, 16, 2)? == RELOCATABLE;
    if !understood || number(module, 0x3a, 2)? != SECTION_BYTES as u64 {
        return None;
    }
    let (headers, count) =
        (usize::try_from(number(module, 0x28, 8)?).ok()?, number(module, 0x3c, 2)? as usize);
    let sections = (0..count).map(|i| section(module, headers.checked_add(i * SECTION_BYTES)?));
    let sections = sections.collect::<Option<Vec<_>>>()?;
    if sections.iter().any(|s| FOREIGN.contains(&s.kind)) {
        return None;
    }
    let mut tables = (0..count).filter(|i| sections[*i].kind == SYMTAB);
    let (at, None) = (tables.next()?, tables.next()) else { return None };
    let table = &sections[at];
    let symbols = module.get(table.offset..table.offset.checked_add(table.bytes)?)?;
    let symbols: Vec<_> = symbols.chunks_exact(SYMBOL_BYTES).collect();
    let mut keep: Vec<_> = symbols.iter().map(|symbol| symbol[4] != 0).collect();
    *keep.first_mut()? = true;
    let relocations = sections.iter().filter(|s| s.kind == RELA);
    for relocation in relocations.clone() {
        let entries = module.get(relocation.offset..relocation.offset.checked_add(relocation.bytes)?)?;
        if relocation.link != at {
            return None;
        }
        for entry in entries.chunks_exact(RELA_BYTES) {
            *keep.get_mut(number(entry, 12, 4)? as usize)? = true;
        }
    }
    let kept: Vec<u8> =
        symbols.iter().zip(&keep).filter(|(_, keep)| **keep).flat_map(|(s, _)| *s).copied().collect();
    let locals = symbols.iter().zip(&keep).filter(|(s, keep)| **keep && s[4] >> 4 == 0).count();
    let gone = (table.bytes - kept.len()) / MOVE_BYTES * MOVE_BYTES;
    if gone == 0 {
        return None;
    }
    let (start, end) = (table.offset, table.offset + table.bytes);
    let moved = |offset: usize| if offset >= end { offset - gone } else { offset };
    let mut out = module[..start].to_vec();
    out.extend_from_slice(&kept);
    out.resize(end - gone, 0);
    out.extend_from_slice(module.get(end..)?);
    // The same symbols under their new numbers.
    let numbers = keep.iter().scan(0u32, |next, keep| {
        *next += u32::from(*keep);
        Some(next.saturating_sub(1))
    });
    let numbers: Vec<_> = numbers.collect();
    for relocation in relocations {
        let offset = moved(relocation.offset);
        for entry in out.get_mut(offset..offset + relocation.bytes)?.chunks_exact_mut(RELA_BYTES) {
            let symbol = number(entry, 12, 4)? as usize;
            entry[12..16].copy_from_slice(&numbers.get(symbol)?.to_le_bytes());
        }
    }
    let new_headers = moved(headers);
    out.get_mut(0x28..0x30)?.copy_from_slice(&(new_headers as u64).to_le_bytes());
    for (index, section) in sections.iter().enumerate() {
        let header = out.get_mut(new_headers + index * SECTION_BYTES..)?.get_mut(..SECTION_BYTES)?;
        header[24..32].copy_from_slice(&(moved(section.offset) as u64).to_le_bytes());
        if index == at {
            header[32..40].copy_from_slice(&(kept.len() as u64).to_le_bytes());
            header[44..48].copy_from_slice(&(locals as u32).to_le_bytes());
        }
    }
    Some(out)
}

fn section(module: &[u8], at: usize) -> Option<Section> {
    let header = module.get(at..)?.get(..SECTION_BYTES)?;
    Some(Section {
        kind: number(header, 4, 4)? as u32,
        offset: usize::try_from(number(header, 24, 8)?).ok()?,
        bytes: usize::try_from(number(header, 32, 8)?).ok()?,
        link: number(header, 40, 4)? as usize,
    })
}

/// A little-endian number of `bytes` bytes, up to eight.
fn number(from: &[u8], at: usize, bytes: usize) -> Option<u64> {
    let bytes = from.get(at..)?.get(..bytes)?;
    Some(bytes.iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABELS: usize = 1000;

    /// A module: labels, of which the relocation refers to the 500th, then a function and a global symbol.
    fn module() -> Vec<u8> {
        let symbol = |info: u8, value: u64| {
            let mut symbol = [0; SYMBOL_BYTES];
            symbol[4] = info;
            symbol[8..16].copy_from_slice(&value.to_le_bytes());
            symbol
        };
        let mut symbols = vec![[0; SYMBOL_BYTES]];
        symbols.extend((1..=LABELS as u64).map(|value| symbol(0, value)));
        symbols.extend([symbol(2, 7001), symbol(0x12, 7002)]);
        let symbols = symbols.concat();
        let mut relocations = [0; 2 * RELA_BYTES];
        relocations[12..16].copy_from_slice(&500u32.to_le_bytes());
        relocations[36..40].copy_from_slice(&(LABELS as u32 + 2).to_le_bytes());
        let mut out = vec![0; 64];
        out[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (out[16], out[0x3a], out[0x3c]) = (1, SECTION_BYTES as u8, 3);
        out.extend_from_slice(&symbols);
        let at = out.len();
        out.extend_from_slice(&relocations);
        let headers = out.len();
        out[0x28..0x30].copy_from_slice(&(headers as u64).to_le_bytes());
        for (kind, offset, bytes, link) in
            [(0u32, 0, 0, 0u32), (SYMTAB, 64, symbols.len(), 0), (RELA, at, relocations.len(), 1)]
        {
            let mut header = [0; SECTION_BYTES];
            header[4..8].copy_from_slice(&kind.to_le_bytes());
            header[24..32].copy_from_slice(&(offset as u64).to_le_bytes());
            header[32..40].copy_from_slice(&(bytes as u64).to_le_bytes());
            header[40..44].copy_from_slice(&link.to_le_bytes());
            out.extend_from_slice(&header);
        }
        out
    }

    #[test]
    fn a_module_loses_its_labels_and_its_relocations_mean_what_they_meant() {
        let short = without_labels(module());
        assert!(short.len() + MOVE_BYTES * 5 <= module().len(), "{} of {}", short.len(), module().len());
        let headers = number(&short, 0x28, 8).expect("a number") as usize;
        let table = section(&short, headers + SECTION_BYTES).expect("a section");
        let relocations = section(&short, headers + 2 * SECTION_BYTES).expect("a section");
        assert_eq!(table.bytes, 4 * SYMBOL_BYTES, "none, a label, a function, a global symbol");
        assert_eq!(number(&short, headers + SECTION_BYTES + 44, 4), Some(3), "three of them local");
        let meant = |entry: usize| {
            let symbol = number(&short, relocations.offset + entry * RELA_BYTES + 12, 4).expect("a number");
            number(&short, table.offset + symbol as usize * SYMBOL_BYTES + 8, 8)
        };
        assert_eq!([meant(0), meant(1)], [Some(500), Some(7002)]);
    }

    #[test]
    fn a_signature_that_does_not_fit_any_more_is_taken_off() {
        let signed = [&module()[..], b"signature", &[0; 8], &9u32.to_be_bytes(), SIGNED].concat();
        assert_eq!(without_labels(signed), without_labels(module()));
    }

    #[test]
    fn a_module_that_is_not_understood_is_left_whole() {
        let whole = module();
        for cut in 0..whole.len() {
            assert_eq!(without_labels(whole[..cut].to_vec()), whole[..cut], "cut at {cut}");
        }
        let signed = [&whole[..], &[0; 8], &9u32.to_be_bytes(), SIGNED].concat();
        assert_eq!(without_labels(signed.clone()), signed, "its signature begins within its headers");
        let mut wild = whole.clone();
        let relocation = 64 + (LABELS + 3) * SYMBOL_BYTES + 12;
        wild[relocation..relocation + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(without_labels(wild.clone()), wild, "it names a symbol that is not there");
    }
}
