//! What a machine executes, step by step, as text.

use super::duel::register;
use pollux_isa::{decode, decode_compressed, disasm, is_compressed};
use pollux_riscv::{Computer, Machine};
use pollux_vocab::GuestAddr;

/// The next steps of a copy of a machine. Where one writes a register of those named, it is marked.
pub fn trace(computer: &Computer, steps: u64, registers: &[(usize, String)]) -> String {
    let mut copy = Computer::restore(&computer.snapshot()).expect("a snapshot");
    let harts = copy.config().harts as usize;
    let mut lines = Vec::new();
    for _ in 0..steps {
        let values = |copy: &Computer| -> Vec<u64> {
            registers.iter().map(|(hart, name)| register(copy, *hart, name)).collect()
        };
        let taken =
            |copy: &Computer| -> Vec<u64> { (0..harts).map(|hart| register(copy, hart, "steps")).collect() };
        let before = (values(&copy), taken(&copy));
        let texts: Vec<String> = (0..harts).map(|hart| instruction(&copy, hart)).collect();
        copy.run(copy.icount().after(1));
        while copy.take_output().is_some() {}
        let after = (values(&copy), taken(&copy));
        let mark = if before.0 == after.0 { ' ' } else { '*' };
        let hart = (0..harts).find(|&hart| before.1[hart] != after.1[hart]).unwrap_or(0);
        lines.push(format!("{mark} {} hart {hart}: {}", copy.icount(), texts[hart]));
    }
    lines.join("\n")
}

/// The instruction at a hart's program counter, if it lies on one page.
fn instruction(computer: &Computer, hart: usize) -> String {
    let pc = register(computer, hart, "pc");
    let half = |at: u64| computer.ram().read_u16(GuestAddr(physical(computer, hart, at))).unwrap_or(0);
    let low = half(pc);
    if is_compressed(low) {
        let text = decode_compressed(low).map_or("?".into(), |inst| disasm(&inst));
        return format!("{pc:#x}: {low:04x}     {text}");
    }
    let word = u32::from(low) | u32::from(half(pc.wrapping_add(2))) << 16;
    let text = decode(word).map_or("?".into(), |inst| disasm(&inst));
    format!("{pc:#x}: {word:08x} {text}")
}

/// Where a fetch goes, as far as the page tables say without their rights.
fn physical(computer: &Computer, hart: usize, at: u64) -> u64 {
    let satp = register(computer, hart, "satp");
    let levels = match satp >> 60 {
        _ if register(computer, hart, "mode") == 3 => return at,
        8 => 3,
        9 => 4,
        _ => return at,
    };
    let mut table = satp << 20 >> 8;
    for level in (0..levels).rev() {
        let slot = GuestAddr(table + (at >> (12 + 9 * level) & 511) * 8);
        let entry = computer.ram().read_u64(slot).unwrap_or(0);
        table = entry << 10 >> 20 << 12;
        if entry & 0xe != 0 {
            return table | at & ((1 << (12 + 9 * level)) - 1);
        }
    }
    table
}
