//! What the translator makes of typical blocks, as text that a change of it can be reviewed by: `blocks/*.txt`.
//!
//! A file is a comment, the guest's code, and the host's code for it. The guest's words are the input (the text behind
//! them is a disassembly), the rest is output: a difference fails, and `POLLUX_BLESS=1 cargo test -p pollux-codegen
//! --test blocks` writes the files anew, for `git diff` to show what has changed. For a new block write the comment,
//! `guest:` and the words, four or eight hexadecimal digits a line. Lines `with: …` between comment and code say what is
//! unusual: `no-fma`, `no-popcnt`, `ungrouped`, `upper` (half of the address space), `at=OFFSET` in the page,
//! `behind=HALFWORD` of the next page, `known=OFFSET:PLACE` of a block that was translated before; all in hexadecimal.
//!
//! Operands on the hart and on the engine's words have names: `x5`, `f10`, `pc`, and those of `codegen::state`.

use iced_x86::{Decoder, DecoderOptions, Formatter, GasFormatter, MemorySize, Register};
use pollux_codegen::{Behind, Features, Manner, Stubs, state, stubs, translate};
use pollux_riscv::engine::layout;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Where the block is in its page: not at its beginning, so that jumps back have somewhere to go.
const ENTRY: u16 = 0x100;
const PAGE: usize = 4096;
/// Cold code lies far behind, as in code memory.
const COLD: u32 = 1 << 24;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/blocks")
}

/// What is unusual about a listing.
struct With {
    manner: Manner,
    at: u16,
    behind: Option<Behind>,
    known: Vec<(u16, u32)>,
}

impl With {
    fn read(comment: &str) -> Self {
        let hexadecimal = |text: &str| u32::from_str_radix(text, 16).expect("hexadecimal digits");
        let features = Features { fma: true, popcnt: true };
        let manner = Manner { features, grouped: true, upper: false };
        let mut with = Self { manner, at: ENTRY, behind: None, known: Vec::new() };
        for word in comment.lines().filter_map(|line| line.strip_prefix("with: ")) {
            match word.split_once('=') {
                None if word == "no-fma" => with.manner.features.fma = false,
                None if word == "no-popcnt" => with.manner.features.popcnt = false,
                None if word == "ungrouped" => with.manner.grouped = false,
                None if word == "upper" => with.manner.upper = true,
                Some(("at", offset)) => with.at = hexadecimal(offset) as u16,
                Some(("behind", half)) => {
                    let half = hexadecimal(half) as u16;
                    with.behind = Some(Behind { page: 7, ram_offset: 0x5000, half });
                }
                Some(("known", block)) => {
                    let (offset, place) = block.split_once(':').expect("OFFSET:PLACE");
                    with.known.push((hexadecimal(offset) as u16, hexadecimal(place)));
                }
                _ => panic!("with: {word}?"),
            }
        }
        with
    }
}

/// The comment, and the guest's code.
fn read(text: &str) -> (String, Vec<u8>) {
    let (comment, rest) = text.split_once("guest:\n").expect("a line `guest:`");
    let mut code = Vec::new();
    for line in rest.lines().take_while(|line| line.starts_with("  ")) {
        let word = line.split_whitespace().next().expect("a word");
        let number = u32::from_str_radix(word, 16).expect("hexadecimal digits");
        match word.len() {
            4 => code.extend((number as u16).to_le_bytes()),
            8 => code.extend(number.to_le_bytes()),
            _ => panic!("{word}: four or eight digits"),
        }
    }
    (comment.to_owned(), code)
}

/// The guest's words, with what they mean.
fn guest(code: &[u8]) -> String {
    let mut text = String::new();
    let mut at = 0;
    while at < code.len() {
        let half = u16::from_le_bytes([code[at], code[at + 1]]);
        if pollux_isa::is_compressed(half) {
            let inst = pollux_isa::decode_compressed(half).map(|inst| pollux_isa::disasm(&inst));
            let _ = writeln!(text, "  {half:04x}      {}", inst.unwrap_or_default());
            at += 2;
        } else if at + 4 > code.len() {
            let _ = writeln!(text, "  {half:04x}      (goes on in the next page)");
            at += 2;
        } else {
            let word = u32::from_le_bytes([code[at], code[at + 1], code[at + 2], code[at + 3]]);
            let inst = pollux_isa::decode(word).map(|inst| pollux_isa::disasm(&inst));
            let _ = writeln!(text, "  {word:08x}  {}", inst.unwrap_or_default());
            at += 4;
        }
    }
    text
}

/// Names of engine words that listings have; one that is not here is shown by its number.
const WORDS: [(usize, &str); 27] = [
    (state::PAGE_BASE, "PAGE_BASE"),
    (state::BUDGET, "BUDGET"),
    (state::TABLE, "TABLE"),
    (state::CONTEXT, "CONTEXT"),
    (state::STEP, "STEP"),
    (state::FLOAT, "FLOAT"),
    (state::MXCSR, "MXCSR"),
    (state::CLEAN, "CLEAN"),
    (state::RAM, "RAM"),
    (state::FLAGS, "FLAGS"),
    (state::SHORT, "SHORT"),
    (state::SUPERVISOR, "SUPERVISOR"),
    (state::ZERO, "ZERO"),
    (state::LINES, "LINES"),
    (state::PAGES, "PAGES"),
    (state::PAGES_LEN, "PAGES_LEN"),
    (state::CODE, "CODE"),
    (state::TABLE_CONTEXT, "TABLE_CONTEXT"),
    (state::MISSED, "MISSED"),
    (state::MISSED_AT, "MISSED_AT"),
    (state::AGAIN, "AGAIN"),
    (state::NAN_DOUBLE, "NAN_DOUBLE"),
    (state::NAN_SINGLE, "NAN_SINGLE"),
    (state::TIME_STEPS, "TIME_STEPS"),
    (state::TIME_BASE, "TIME_BASE"),
    (state::TIME_RATE, "TIME_RATE"),
    (state::FFLAGS_OF, "FFLAGS_OF"),
];

/// What of the hart lies `displacement` from rbp.
fn operand(displacement: i64) -> String {
    let at = state::REGISTERS as i64 + displacement;
    let index = |base: usize, len: usize| {
        let within = at - base as i64;
        (within >= 0 && within % 8 == 0 && within < 8 * len as i64).then_some(within as usize / 8)
    };
    if let Some(number) = index(layout::X, 32) {
        return format!("x{number}");
    }
    if let Some(number) = index(layout::F, 32) {
        return format!("f{number}");
    }
    if let Some(number) = index(layout::ENGINE, layout::ENGINE_WORDS) {
        let name = WORDS.iter().find(|(word, _)| *word == number).map(|&(_, name)| name.to_owned());
        return name.unwrap_or_else(|| match number {
            state::LOAD_TAGS..32 => format!("LOAD_TAGS[{number}]"),
            state::STORE_TAGS..64 => format!("STORE_TAGS[{}]", number - 32),
            64..128 => format!("ADDENDS[{}]", number - 64),
            128..192 => format!("GROUP_ADDENDS[{}]", number - 128),
            _ => format!("WORD[{number}]"),
        });
    }
    let named = [
        (layout::PC, "pc"),
        (layout::FFLAGS, "fflags"),
        (layout::FRM, "frm"),
        (layout::MSTATUS, "mstatus"),
        (layout::MIE, "mie"),
        (layout::MIP, "mip"),
        (layout::SSCRATCH, "sscratch"),
        (layout::SEPC, "sepc"),
        (layout::SCAUSE, "scause"),
        (layout::STVAL, "stval"),
        (layout::MODE, "mode"),
        (layout::TRAPPED, "trapped"),
        (layout::RESERVATION, "reservation"),
        (layout::TLB_READ, "tlb_read"),
        (layout::TLB_WRITE, "tlb_write"),
        (layout::TLB_FETCH, "tlb_fetch"),
        (layout::DATA_MIXES, "data_mixes[0]"),
        (layout::DATA_MIXES + 8, "data_mixes[1]"),
        (layout::DATA_CONTEXTS, "data_contexts[0]"),
        (layout::DATA_CONTEXTS + 8, "data_contexts[1]"),
        (layout::FETCH_MIXES, "fetch_mixes[0]"),
        (layout::FETCH_CONTEXTS, "fetch_contexts[0]"),
    ];
    let name = named.iter().find(|(place, _)| *place as i64 == at).map(|&(_, name)| name.to_owned());
    name.unwrap_or_else(|| "hart".to_owned())
}

/// Instructions as text, with labels for what is jumped to.
fn host(bytes: &[u8], base: u32, labels: &BTreeMap<u64, String>) -> String {
    let mut formatter = GasFormatter::new();
    let mut text = String::new();
    for instruction in &mut Decoder::with_ip(64, bytes, u64::from(base), DecoderOptions::NONE) {
        if let Some(label) = labels.get(&instruction.ip()) {
            let _ = writeln!(text, "{label}:");
        }
        let mut line = String::new();
        formatter.format(&instruction, &mut line);
        if instruction.near_branch_target() != 0 {
            let target = instruction.near_branch_target();
            let name = labels.get(&target).cloned().unwrap_or_else(|| "?".to_owned());
            line = format!("{} {name}", line.split_whitespace().next().unwrap_or_default());
        } else if instruction.memory_base() == Register::RBP
            && instruction.memory_size() != MemorySize::Unknown
        {
            let displacement = instruction.memory_displacement64() as i64;
            let open = line.find("(%rbp").expect("a memory operand");
            let digits = line[..open].rfind([' ', ',', '*']).map_or(0, |at| at + 1);
            let plain = line[open..].starts_with("(%rbp)");
            let rest = if plain { &line[open + "(%rbp)".len()..] } else { &line[open..] };
            line = format!("{}{}{rest}", &line[..digits], operand(displacement));
        }
        let _ = writeln!(text, "  {line}");
    }
    text
}

/// Every jump's target gets a name: a stub's, a block's, or a number in the order of places.
fn labels(region: &pollux_codegen::Region, base: u32, stubs: &Stubs) -> BTreeMap<u64, String> {
    let mut labels = BTreeMap::new();
    let parts = [(&region.bytes, base), (&region.cold, COLD)];
    for (bytes, base) in parts {
        for instruction in &mut Decoder::with_ip(64, bytes, u64::from(base), DecoderOptions::NONE) {
            let target = instruction.near_branch_target();
            if target != 0 {
                labels.insert(target, String::new());
            }
        }
    }
    for (number, label) in labels.values_mut().enumerate() {
        *label = format!("L{number}");
    }
    for (offset, place) in &region.entries {
        labels.insert(u64::from(*place), format!("block_{offset:x}"));
    }
    for (name, place) in stubs.names() {
        labels.insert(u64::from(place), name.to_owned());
    }
    labels
}

/// The whole file, as it ought to be.
fn listing(text: &str) -> String {
    let (comment, code) = read(text);
    let mut page = [0; PAGE];
    let with = With::read(&comment);
    page[usize::from(with.at)..][..code.len()].copy_from_slice(&code);
    let (shared, stubs) = stubs();
    let base = shared.len() as u32;
    let known = |offset| with.known.iter().find(|block| block.0 == offset).map(|block| block.1);
    let region = translate(&page, with.at, (base, COLD), &stubs, with.manner, &known, with.behind);
    let mut labels = labels(&region, base, &stubs);
    labels.extend(with.known.iter().map(|(offset, place)| (u64::from(*place), format!("known_{offset:x}"))));
    let (hot, cold) = (host(&region.bytes, base, &labels), host(&region.cold, COLD, &labels));
    format!("{comment}guest:\n{}\nhost:\n{hot}\nhost, cold:\n{cold}", guest(&code))
}

#[test]
fn typical_blocks_are_translated_as_they_were_when_somebody_last_looked() {
    let mut changed = Vec::new();
    let mut files: Vec<_> =
        std::fs::read_dir(folder()).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    assert!(files.len() >= 10, "the listings are not there");
    for path in files {
        // Git may have changed the ends of lines.
        let text = std::fs::read_to_string(&path).expect("a listing").replace('\r', "");
        let wanted = listing(&text);
        if text == wanted {
            continue;
        }
        if std::env::var_os("POLLUX_BLESS").is_some() {
            std::fs::write(&path, wanted).expect("a listing is written");
            continue;
        }
        let differs = text.lines().zip(wanted.lines()).position(|(is, was)| is != was);
        changed.push(format!("{}:{}", path.display(), differs.unwrap_or(text.lines().count()) + 1));
    }
    assert!(
        changed.is_empty(),
        "the translator makes other code. Look at it: POLLUX_BLESS=1 cargo test -p pollux-codegen --test blocks \
         && git diff crates/codegen/tests/blocks\n{}",
        changed.join("\n")
    );
}
