use super::asm::{r::*, *};
use super::machine;
use crate::Machine;
use pollux_vocab::Icount;

#[test]
fn speed() {
    let program = [
        auipc(SP, 0x100),
        addi(A0, ZERO, 0),
        // loop
        addi(A0, A0, 1),
        sd(A0, 0, SP),
        ld(A1, 0, SP),
        xor(A2, A1, A0),
        add(A3, A2, A0),
        slli(A4, A3, 3),
        andi(A5, A0, 0x3f8),
        add(A5, A5, SP),
        lw(A6, 8, A5),
        add(A6, A6, A4),
        sw(A6, 16, A5),
        bne(A0, ZERO, -44),
    ];
    let mut m = machine(1, &program);
    m.run(Icount(1_000_000));
    let start = std::time::Instant::now();
    m.run(Icount(401_000_000));
    let s = start.elapsed().as_secs_f64();
    std::println!("MIPS {:.1} a0={}", 400.0 / s, m.harts[0].x[10]);
}
