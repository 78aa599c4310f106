/* LR/SC and atomic operations on one hart (Unprivileged spec, A extension). */
    .include "check.inc"
    .macro  amo instruction, before, operand, after
    li      t0, \before
    sd      t0, 0(s0)
    li      t1, \operand
    \instruction a1, t1, (s0)
    expect  a1, \before
    ld      a2, 0(s0)
    expect  a2, \after
    .endm
    begin
    la      s0, cell
    step    1                   /* a reservation is used once */
    li      t0, 5
    sd      t0, 0(s0)
    lr.d    a0, (s0)
    expect  a0, 5
    addi    a0, a0, 1
    sc.d    a1, a0, (s0)
    bnez    a1, fail
    sc.d    a1, zero, (s0)
    beqz    a1, fail
    ld      a0, 0(s0)
    expect  a0, 6
    step    2                   /* elsewhere it fails, and is gone */
    addi    s1, s0, 64
    lr.d    a0, (s0)
    sc.d    a1, a0, (s1)
    beqz    a1, fail
    sc.d    a1, a0, (s0)
    beqz    a1, fail
    step    3                   /* words are sign-extended */
    li      t0, 0x80000000
    sd      t0, 0(s0)
    lr.w    a0, (s0)
    expect  a0, -0x80000000
    li      t0, 7
    sc.w    a1, t0, (s0)
    bnez    a1, fail
    ld      a0, 0(s0)
    expect  a0, 7
    step    4
    amo     amoadd.d, 40, 2, 42
    amo     amoswap.d, 1, 2, 2
    amo     amoxor.d, 12, 10, 6
    amo     amoand.d, 12, 10, 8
    amo     amoor.d, 12, 10, 14
    amo     amomin.d, -1, 1, -1
    amo     amomax.d, -1, 1, 1
    amo     amominu.d, -1, 1, 1
    amo     amomaxu.d, -1, 1, -1
    step    5                   /* a word operation leaves the other half alone */
    li      t0, 0x11111111ffffffff
    sd      t0, 0(s0)
    li      t1, 1
    amoadd.w a1, t1, (s0)
    expect  a1, -1
    ld      a2, 0(s0)
    expect  a2, 0x1111111100000000
    step    6                   /* without memory */
    li      s1, 0x0e000000
    traps   5, lr.w a0, (s1)
    traps   7, amoadd.w a0, a1, (s1)
    step    7                   /* askew: LR like a load, an AMO like a store */
    addi    s1, s0, 2
    traps   4, lr.w a0, (s1)
    traps   6, amoadd.w a0, a1, (s1)
    pass

    .data
    .align  6
cell:
    .space  128
