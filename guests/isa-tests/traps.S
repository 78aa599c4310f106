/* Exceptions and what they leave behind; interrupts through a vectored mtvec (Priv. spec 3.1.6 to 3.1.16). */
    .include "check.inc"
    begin

    step    1
    traps   2, .word 0xffffffff
    expect  s9, 0xffffffff      /* the instruction is the trap value */
    step    2
    traps   3, ebreak
    step    3
    traps   11, ecall
    step    4                   /* nobody answers here */
    li      a0, 0x0e000000
    traps   5, lw a1, 0(a0)
    expect  s9, 0x0e000000
    traps   7, sw a1, 4(a0)
    expect  s9, 0x0e000004
    step    5
    traps   1, jr a0
    expect  s9, 0x0e000000
    expect  s10, 0x0e000000
    step    6                   /* no such CSR; one that is read-only */
    traps   2, csrr a0, 0x5c0
    traps   2, csrw mhartid, zero
    csrr    a0, mhartid         /* reading it does no harm */
    step    7                   /* mepc is the instruction's own address */
    li      s8, -1
    la      s7, 1f
    la      a0, 2f
2:  ecall
    j       fail
1:  bne     s10, a0, fail
    li      t0, 3 << 11
    and     t1, s6, t0
    bne     t1, t0, fail        /* MPP: came from M */

    step    8                   /* user mode */
    enter   0, in_user
    expect  s8, 8
    li      t0, 3 << 11
    and     t1, s6, t0
    bnez    t1, fail
    la      t0, in_user
    bne     s10, t0, fail
    step    9
    enter   0, user_csr
    expect  s8, 2
    step    10                  /* supervisor mode */
    enter   1, in_user
    expect  s8, 9
    enter   1, supervisor_csr
    expect  s8, 2
    step    11                  /* TVM, TW, TSR make S-mode ask */
    li      t0, 1 << 20 | 1 << 21 | 1 << 22
    csrs    mstatus, t0
    enter   1, supervisor_satp
    expect  s8, 2
    enter   1, supervisor_sret
    expect  s8, 2
    li      t0, 1 << 20 | 1 << 21 | 1 << 22
    csrc    mstatus, t0

    step    12                  /* software interrupt, vectored */
    la      t0, vector
    ori     t0, t0, 1
    csrw    mtvec, t0
    li      t0, 8
    csrw    mie, t0
    li      t1, 0x2000000
    li      a0, 1
    sw      a0, 0(t1)
    la      s7, 3f
    li      a1, 0
    csrsi   mstatus, 8
    nop
    j       fail
3:  expect  a1, 3
    expect  s8, 0x8000000000000003
    sw      zero, 0(t1)
    step    13                  /* an interrupt that is masked waits */
    la      t0, trap_m
    csrw    mtvec, t0
    csrw    mie, zero
    sw      a0, 0(t1)
    csrsi   mstatus, 8
    nop
4:  csrr    a2, mip
    andi    a2, a2, 8
    beqz    a2, 4b
    csrci   mstatus, 8
    sw      zero, 0(t1)
    pass

    .text
in_user:
    ecall
user_csr:
    csrr    a0, mscratch
supervisor_csr:
    csrr    a0, mscratch
supervisor_satp:
    csrr    a0, satp
supervisor_sret:
    sret
    .align  8
vector:
    j       fail
    j       fail
    j       fail
    j       vector_3
    j       fail
vector_3:
    li      a1, 3
    j       trap_m
