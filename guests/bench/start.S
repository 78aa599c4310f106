/* Entry of the benchmark, in M-mode or S-mode: a0 = hart id, a1 = device tree. The first hart to come works. */
    .section .text.start, "ax"
    .globl _start
_start:
    la      t0, first
    li      t1, 1
    amoadd.w t1, t1, (t0)
    bnez    t1, park
    li      t0, 3 << 13         /* FS: the matrix is of doubles; sstatus is there in both modes */
    csrs    sstatus, t0
    csrwi   fcsr, 0
    la      sp, stack_top
    mv      a0, a1
    j       bench
park:
    wfi
    j       park

    .data
    .align 3
first:
    .word 0

    .bss
    .align 4
    .space 16384
stack_top:
