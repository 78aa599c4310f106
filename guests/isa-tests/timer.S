/* The machine timer of the CLINT, the supervisor's own (Sstc), and sleeping until either (Priv. spec 3.2.1, 3.3.3). */
    .include "check.inc"
    begin
    li      s0, 0x2004000       /* mtimecmp of hart 0 */
    li      s1, 0x200bff8       /* mtime */
    li      s2, 20000           /* 2 ms */

    step    1                   /* time goes forward, and both clocks are one */
    ld      a0, 0(s1)
    rdtime  a1
    ld      a2, 0(s1)
    bltu    a1, a0, fail
    bltu    a2, a1, fail
    step    2                   /* taken when enabled, not before its time */
    li      t0, 1 << 7
    csrw    mie, t0
    rdtime  a0
    add     a0, a0, s2
    sd      a0, 0(s0)
    la      s7, 1f
    csrsi   mstatus, 8
2:  wfi
    j       2b
1:  rdtime  a1
    expect  s8, 0x8000000000000007
    bltu    a1, a0, fail
    csrr    t0, mip             /* stays pending until mtimecmp moves on */
    andi    t0, t0, 1 << 7
    beqz    t0, fail
    li      t0, -1
    sd      t0, 0(s0)
    csrr    t0, mip
    andi    t0, t0, 1 << 7
    bnez    t0, fail
    step    3                   /* wfi wakes for an enabled interrupt that is not taken */
    rdtime  a0
    add     a0, a0, s2
    sd      a0, 0(s0)
3:  wfi
    csrr    t0, mip
    andi    t0, t0, 1 << 7
    beqz    t0, 3b
    li      t0, -1
    sd      t0, 0(s0)

    step    4                   /* without STCE the supervisor has no timer of its own */
    li      t0, 1 << 1
    csrw    mcounteren, t0
    csrw    0x30a, zero         /* menvcfg */
    enter   1, supervisor_arms
    expect  s8, 2
    step    5                   /* with it, the interrupt comes in S-mode */
    li      t0, 1 << 63
    csrw    0x30a, t0
    li      t0, -1
    csrw    0x14d, t0           /* stimecmp */
    li      t0, 1 << 5
    csrw    mideleg, t0
    csrw    mie, t0
    la      t0, trap_s
    csrw    stvec, t0
    csrsi   mstatus, 2
    enter   1, supervisor_arms
    expect  s8, 9
    expect  a1, 0x8000000000000005
    bltu    a2, a0, fail
    step    6                   /* pending is a comparison, not a memory */
    csrr    t0, mip
    andi    t0, t0, 1 << 5
    beqz    t0, fail
    li      t0, -1
    csrw    0x14d, t0
    csrr    t0, mip
    andi    t0, t0, 1 << 5
    bnez    t0, fail
    step    7                   /* user mode reads the time only if both modes above let it */
    csrw    scounteren, zero
    enter   0, user_reads
    expect  s8, 2
    li      t0, 1 << 1
    csrw    scounteren, t0
    enter   0, user_reads
    expect  s8, 8
    csrw    mcounteren, zero
    enter   0, user_reads
    expect  s8, 2
    pass

    .text
supervisor_arms:
    rdtime  a0
    add     a0, a0, s2
    csrw    0x14d, a0
4:  wfi
    j       4b
user_reads:
    rdtime  a0
    ecall
    .align  2
trap_s:
    csrr    a1, scause
    rdtime  a2
    ecall
