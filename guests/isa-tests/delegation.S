/* Traps and interrupts that machine mode leaves to supervisor mode (Priv. spec 3.1.8, 12.1). */
    .include "check.inc"
    begin
    li      t0, 1 << 2 | 1 << 8 /* illegal instruction, call from U */
    csrw    medeleg, t0
    li      t0, 1 << 1 | 1 << 5 | 1 << 9
    csrw    mideleg, t0
    la      t0, trap_s
    csrw    stvec, t0

    step    1                   /* U calls: S gets it and calls M */
    enter   0, user_call
    expect  s8, 9
    expect  a1, 8               /* scause */
    la      t0, user_call
    bne     a2, t0, fail        /* sepc */
    andi    t0, a3, 1 << 8
    bnez    t0, fail            /* SPP: came from U */
    step    2
    enter   0, user_illegal
    expect  s8, 9
    expect  a1, 2
    step    3                   /* S itself: SPP says so */
    enter   1, user_illegal
    expect  s8, 9
    expect  a1, 2
    andi    t0, a3, 1 << 8
    beqz    t0, fail
    step    4                   /* what happens in M stays in M */
    traps   2, .word 0xffffffff
    step    5                   /* sret goes back to U behind the call */
    la      t0, trap_s_return
    csrw    stvec, t0
    li      a4, 0
    enter   0, user_twice
    expect  s8, 3
    expect  a4, 2

    step    6                   /* a software interrupt that M raises and S takes, at once when entered */
    la      t0, trap_s
    csrw    stvec, t0
    csrsi   mip, 2
    csrsi   mie, 2
    csrsi   mstatus, 8          /* M takes no interrupt that is delegated */
    nop
    csrci   mstatus, 8
    enter   0, spin
    expect  s8, 9
    expect  a1, 0x8000000000000001
    la      t0, spin
    bne     a2, t0, fail
    csrci   mip, 2
    step    7                   /* sip and sie show what is delegated, and no more */
    li      t0, -1
    csrw    mie, t0
    csrr    t1, sie
    li      t0, 1 << 1 | 1 << 5 | 1 << 9
    bne     t1, t0, fail
    csrw    sie, zero
    csrr    t1, mie
    and     t1, t1, t0
    bnez    t1, fail
    csrr    t1, mie
    andi    t1, t1, 8
    beqz    t1, fail
    step    8                   /* sstatus is a part of mstatus */
    csrw    mie, zero
    li      t0, 1 << 18         /* SUM */
    csrs    sstatus, t0
    csrr    t1, mstatus
    and     t1, t1, t0
    beqz    t1, fail
    csrc    mstatus, t0
    csrr    t1, sstatus
    and     t1, t1, t0
    bnez    t1, fail
    li      t0, 3 << 11         /* MPP is not */
    csrc    mstatus, t0
    csrs    sstatus, t0
    csrr    t1, mstatus
    and     t1, t1, t0
    bnez    t1, fail
    pass

    .text
user_call:
    ecall
user_illegal:
    .word   0xffffffff
user_twice:
    ecall
    ecall
    ebreak
spin:
    j       spin
    .align  2
trap_s:
    csrr    a1, scause
    csrr    a2, sepc
    csrr    a3, sstatus
    ecall
    .align  2
trap_s_return:
    addi    a4, a4, 1
    csrr    t0, sepc
    addi    t0, t0, 4
    csrw    sepc, t0
    sret
