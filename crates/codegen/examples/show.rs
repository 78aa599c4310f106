//! Shows what guest code becomes: `show FILE OFFSET` translates the region at an offset of a file (numbers as 0x…) as if
//! the file's bytes were a page, and prints guest and host code side by side in turn.

use iced_x86::{Decoder, DecoderOptions, Formatter, GasFormatter, Instruction};
use pollux_codegen::{Features, Manner, Region, stubs, translate};
use pollux_isa::{decode, decode_compressed, disasm, is_compressed};

fn number(text: &str) -> usize {
    match text.strip_prefix("0x") {
        Some(hex) => usize::from_str_radix(hex, 16).expect("a hexadecimal number"),
        None => text.parse().expect("a number"),
    }
}

fn guest(page: &[u8; 4096], from: u16, to: u16) {
    let mut at = usize::from(from);
    while at < usize::from(to) {
        let low = u16::from_le_bytes([page[at], page[at + 1]]);
        let inst = if is_compressed(low) {
            decode_compressed(low)
        } else {
            let word = |i: usize| u32::from(page.get(at + i).copied().unwrap_or(0)) << (8 * i);
            decode(word(0) | word(1) | word(2) | word(3))
        };
        println!("  {at:03x}  {}", inst.map_or("?".into(), |inst| disasm(&inst)));
        at += inst.map_or(2, |inst| usize::from(inst.len));
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let bytes = std::fs::read(&args[1]).expect("a file");
    let offset = number(&args[2]);
    let mut page = [0; 4096];
    let from = offset & !0xfff;
    let len = (bytes.len() - from).min(4096);
    page[..len].copy_from_slice(&bytes[from..from + len]);
    let (code, stubs) = stubs();
    let features = Features { fma: true, popcnt: true };
    let region = translate(
        &page,
        (offset & 0xfff) as u16,
        (code.len() as u32, 1 << 20),
        &stubs,
        Manner { features, grouped: true, upper: false },
        &|_| None,
        None,
    );
    print(&page, &region, &region.bytes, code.len() as u64);
    println!("\n  out of line");
    print(&page, &region, &region.cold, 1 << 20);
}

fn print(page: &[u8; 4096], region: &Region, bytes: &[u8], place: u64) {
    let mut formatter = GasFormatter::new();
    let mut decoder = Decoder::with_ip(64, bytes, place, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        let place = instruction.ip() as u32;
        if let Some(at) = region.entries.iter().position(|entry| entry.1 == place) {
            println!();
            guest(page, region.ranges[at].0, region.ranges[at].1);
        }
        let mut text = String::new();
        formatter.format(&instruction, &mut text);
        println!("        {place:6x}  {text}");
    }
}
