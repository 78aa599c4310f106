//! Numbers of contexts run out and are given out anew; a number then means another address space than before, and
//! nothing that was remembered under it may be believed.

// Elsewhere there is no JIT to hold against the interpreter.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod fuzz;
mod pair;

use fuzz::asm::Code;
use pair::Pair;
use pollux_isa::{Opcode as Op, csr};
use pollux_machine::{Boot, Config, Machine, RAM_BASE};

const PAGE: u64 = 4096;
const PROGRAM: u64 = RAM_BASE + PAGE;
/// Two pages with different code, which are mapped in turn.
const CODE: [u64; 2] = [RAM_BASE + 2 * PAGE, RAM_BASE + 3 * PAGE];
const TABLES: u64 = RAM_BASE + 4 * PAGE;
const LEAVES: u64 = TABLES + 2 * PAGE;
/// Where they are mapped.
const WINDOW: u64 = 1 << 30;
/// As many numbers as there are (`pollux_machine`'s `mmu`).
const CONTEXTS: i32 = 511;
const RIGHTS: u64 = 0xcf;
const ROUNDS: i32 = 6;

/// Calls the page that is mapped, then changes the mapping `changes` times, once that of the page itself.
fn program(changes: i32) -> Code {
    let (ra, t0, t1, t2, s0, a0, a1, a2, a3, s2) = (1, 5, 6, 7, 8, 10, 11, 12, 13, 18);
    let mut code = Code::new(PROGRAM);
    code.emit(Op::Lui, a1, 0, 0, (WINDOW >> 12) as i32);
    code.address(a2, LEAVES);
    code.addi(s2, 0, ROUNDS);
    code.addi(a3, 0, ((CODE[0] ^ CODE[1]) >> 12 << 10) as i32);
    let outer = code.words.len();
    code.emit(Op::Jalr, ra, a1, 0, 0);
    code.emit(Op::Slli, t0, s0, 0, 1);
    code.emit(Op::Add, s0, s0, t0, 0);
    code.emit(Op::Add, s0, s0, a0, 0);
    code.emit(Op::Lbu, t2, a1, 0, 0);
    code.emit(Op::Ld, t0, a2, 0, 0);
    code.emit(Op::Xor, t0, t0, a3, 0);
    code.emit(Op::Sd, 0, a2, t0, 0);
    code.addi(t1, 0, changes - 1);
    let inner = code.words.len();
    // Only tables that are in use are watched.
    code.emit(Op::Lbu, t2, a1, 0, 0);
    code.emit(Op::Ld, t0, a2, 0, 8);
    code.emit(Op::Xori, t0, t0, 0, 0x100);
    code.emit(Op::Sd, 0, a2, t0, 8);
    code.addi(t1, t1, -1);
    back(&mut code, t1, inner);
    code.addi(s2, s2, -1);
    back(&mut code, s2, outer);
    code.emit(Op::Jal, 0, 0, 0, 0);
    code
}

/// Goes back for as long as a register is not zero.
fn back(code: &mut Code, register: u8, to: usize) {
    let distance = 4 * (to as i32 - code.words.len() as i32);
    code.emit(Op::Bne, 0, register, 0, distance);
}

/// Enters the program in supervisor mode.
fn reset() -> Code {
    let t0 = 5;
    let mut code = Code::new(RAM_BASE);
    code.addi(t0, 0, -1);
    code.csrw(csr::PMPADDR0, t0);
    code.addi(t0, 0, 0x1f);
    code.csrw(csr::PMPCFG0, t0);
    code.addi(t0, 0, 1);
    code.emit(Op::Slli, t0, t0, 0, 11);
    code.csrw(csr::MSTATUS, t0);
    code.address(t0, PROGRAM);
    code.csrw(csr::MEPC, t0);
    code.address(t0, TABLES);
    code.emit(Op::Srli, t0, t0, 0, 12);
    code.emit(Op::Bseti, t0, t0, 0, 63);
    code.csrw(csr::SATP, t0);
    code.emit(Op::Mret, 0, 0, 0, 0);
    code
}

fn image(changes: i32) -> Vec<u8> {
    let mut image = vec![0; (LEAVES + PAGE - RAM_BASE) as usize];
    let mut put = |at: u64, bytes: &[u8]| {
        let at = (at - RAM_BASE) as usize;
        image[at..at + bytes.len()].copy_from_slice(bytes);
    };
    let mut codes = vec![reset(), program(changes)];
    for (page, value) in CODE.into_iter().zip([3, 5]) {
        let mut code = Code::new(page);
        code.addi(10, 0, value);
        code.emit(Op::Jalr, 0, 1, 0, 0);
        codes.push(code);
    }
    for code in codes {
        let bytes: Vec<u8> = code.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        put(code.base, &bytes);
    }
    let entries = [
        (TABLES + 8, (TABLES + PAGE) >> 12 << 10 | 1),
        (TABLES + 16, RAM_BASE >> 12 << 10 | RIGHTS),
        (TABLES + PAGE, LEAVES >> 12 << 10 | 1),
        (LEAVES, CODE[0] >> 12 << 10 | RIGHTS),
        (LEAVES + 8, CODE[0] >> 12 << 10 | RIGHTS),
    ];
    entries.iter().for_each(|(at, entry)| put(*at, &entry.to_le_bytes()));
    image
}

#[test]
fn a_number_that_is_given_out_anew_leads_to_no_old_page() {
    // Whatever else takes a number, one of these comes round to the same one.
    for changes in CONTEXTS - 3..=CONTEXTS + 3 {
        let image: &'static [u8] = image(changes).leak();
        let config = Config { ram_bytes: 4 << 20, harts: 1, devices: vec![], rtc_base_ns: 0 };
        let boot = || Boot::Firmware { image, kernel: None, initrd: None, command_line: "" };
        let mut pair = Pair::new(&config, boot);
        for _ in 0..40 {
            pair.advance(701, false);
        }
        let s0 = pair.interpreted.describe_hart(0).iter().find(|(name, _)| name == "s0").map(|(_, s0)| *s0);
        // 3, 5, 3, 5, 3, 5 in turn, each time on three times what there was.
        assert_eq!(s0, Some([3, 5, 3, 5, 3, 5].iter().fold(0, |sum, value| 3 * sum + value)));
        assert!(pair.translated.icount().0 > 20_000);
    }
}
