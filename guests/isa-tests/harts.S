/* Several harts: sleep and wake by software interrupts, count together with LR/SC, AMOs and a lock. Up to 8. */
    .include "check.inc"
    .equ    ROUNDS, 3000
    .section .text.start, "ax"
    .globl  _start
_start:
    csrr    s0, mhartid
    csrwi   mie, 8
    li      s1, 0x2000000
    slli    t0, s0, 2
    add     s1, s1, t0          /* own msip */
    la      s2, present
    li      t0, 1
    amoadd.d zero, t0, (s2)
    beqz    s0, first
1:  wfi                         /* until hart 0 calls */
    csrr    t0, mip
    andi    t0, t0, 8
    beqz    t0, 1b
    sw      zero, 0(s1)
    call    count
    la      t0, done
    li      t1, 1
    amoadd.d zero, t1, (t0)
2:  wfi
    j       2b

count:
    li      t0, ROUNDS
    la      t1, reserved
    la      t2, added
    la      t3, lock
    la      t4, locked
3:  lr.d    t5, (t1)
    addi    t5, t5, 1
    sc.d    t6, t5, (t1)
    bnez    t6, 3b
    li      t5, 1
    amoadd.d zero, t5, (t2)
4:  amoswap.w.aq t6, t5, (t3)
    bnez    t6, 4b
    ld      t6, 0(t4)
    addi    t6, t6, 1
    sd      t6, 0(t4)
    amoswap.w.rl zero, zero, (t3)
    addi    t0, t0, -1
    bnez    t0, 3b
    ret

first:
    li      s11, 1
    li      t0, 200000          /* 20 ms for the others to come */
    rdtime  t1
    add     t0, t0, t1
5:  rdtime  t1
    bltu    t1, t0, 5b
    ld      s3, 0(s2)           /* how many we are */
    li      t0, 1
    li      t1, 0x2000000
6:  bgeu    t0, s3, 7f
    addi    t1, t1, 4
    li      t2, 1
    sw      t2, 0(t1)
    addi    t0, t0, 1
    j       6b
7:  call    count
    addi    s4, s3, -1
    la      t0, done
8:  ld      t1, 0(t0)
    bne     t1, s4, 8b
    li      t0, ROUNDS
    mul     s5, s3, t0
    li      s11, 2
    ld      t0, reserved
    bne     t0, s5, fail
    li      s11, 3
    ld      t0, added
    bne     t0, s5, fail
    li      s11, 4
    ld      t0, locked
    bne     t0, s5, fail
    pass

    .data
    .align  6
present:  .dword 0
done:     .dword 0
reserved: .dword 0
added:    .dword 0
locked:   .dword 0
lock:     .dword 0
