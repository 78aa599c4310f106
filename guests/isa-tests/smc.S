/*
 * Code that changes under the machine's feet. With fence.i the new instruction must run (Zifencei). Without, the
 * specification allows the old one; on QEMU and on Pollux instruction fetch is coherent, and this holds them to it.
 */
    .include "check.inc"
    begin
    la      s0, patch
    la      s1, codes
    step    1                   /* with fence.i */
    lw      t0, 0(s1)
    sw      t0, 0(s0)
    fence.i
    call    patch
    expect  a0, 100
    lw      t0, 4(s1)
    sw      t0, 0(s0)
    fence.i
    call    patch
    expect  a0, 200
    step    2                   /* without */
    lw      t0, 0(s1)
    sw      t0, 0(s0)
    call    patch
    expect  a0, 100
    step    3                   /* a thousand times, hot in every cache */
    li      s2, 1000
1:  andi    t0, s2, 1
    slli    t0, t0, 2
    add     t0, t0, s1
    lw      t1, 0(t0)
    sw      t1, 0(s0)
    call    patch
    andi    t0, s2, 1
    li      t1, 100
    sll     t1, t1, t0
    bne     a0, t1, fail
    addi    s2, s2, -1
    bnez    s2, 1b
    step    4                   /* one byte of an instruction */
    lw      t0, 0(s1)
    sw      t0, 0(s0)
    call    patch
    lbu     t0, 7(s1)
    sb      t0, 3(s0)
    call    patch
    expect  a0, 196
    step    5                   /* the second half of an instruction that lies across two pages */
    la      s0, straddler
    call    straddler
    expect  a0, 100
    lhu     t0, 6(s1)
    sh      t0, 2(s0)
    fence.i
    call    straddler
    expect  a0, 200
    lhu     t0, 2(s1)
    sh      t0, 2(s0)
    call    straddler
    expect  a0, 100
    step    6                   /* an AMO changes code too */
    la      s0, patch
    lw      t0, 0(s1)
    amoswap.w t0, t0, (s0)
    call    patch
    expect  a0, 100
    step    7                   /* code copied to a fresh page */
    la      s0, fresh
    la      s2, patch
    ld      t0, 0(s2)
    sd      t0, 0(s0)
    fence.i
    jalr    s0
    expect  a0, 100
    lw      t0, 4(s1)
    sw      t0, 0(s0)
    jalr    s0
    expect  a0, 200
    pass

    .text
    .option push
    .option norvc
    .align  3
patch:
    li      a0, 1
    ret
    .align  3
codes:
    li      a0, 100
    li      a0, 200
    .option pop
    .align  12
    .space  4094
straddler:
    .option push
    .option norvc
    li      a0, 100
    ret
    .option pop
    .bss
    .align  12
fresh:
    .space  4096
