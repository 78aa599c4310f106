/* Sv39 (Priv. spec 12.3, 12.4): permissions, accessed and dirty bits, faults. Machine mode looks through MPRV. */
    .include "check.inc"
    .equ    V, 1
    .equ    R, 2
    .equ    W, 4
    .equ    X, 8
    .equ    U, 16
    .equ    A, 64
    .equ    D, 128

    /* The entry for the page at 0x40000000 becomes `page` with `flags`. */
    .macro  map page, flags
    la      t0, \page
    srli    t0, t0, 2
    ori     t0, t0, \flags
    la      t1, leaf
    sd      t0, 0(t1)
    sfence.vma
    .endm

    /* Only these of A and D are set in the entry. */
    .macro  marks bits
    la      t1, leaf
    ld      t0, 0(t1)
    andi    t0, t0, A | D
    expect  t0, \bits
    .endm

    begin
    la      t0, middle          /* root[1] -> middle -> leaf; root[2]: RAM as it is */
    srli    t0, t0, 2
    ori     t0, t0, V
    la      t1, root
    sd      t0, 8(t1)
    li      t0, 0x80000000 >> 2 | V | R | W | X | A | D
    sd      t0, 16(t1)
    la      t0, leaf
    srli    t0, t0, 2
    ori     t0, t0, V
    la      t1, middle
    sd      t0, 0(t1)
    la      t0, root
    srli    t0, t0, 12
    li      t1, 8 << 60
    or      t0, t0, t1
    csrw    satp, t0
    li      a0, 0x40000000
    li      s5, 1 << 17 | 1 << 11 /* MPRV as S */
    li      s4, 3 << 11

    .macro  look                /* from here on, data as S-mode sees it */
    csrc    mstatus, s4
    csrs    mstatus, s5
    .endm
    .macro  unlook
    li      t5, 1 << 17
    csrc    mstatus, t5
    .endm
    .macro  faults cause, instruction:vararg
    look
    traps   \cause, \instruction
    unlook
    .endm

    step    1                   /* a load sets A, a store sets D */
    map     one, V | R | W
    look
    ld      a1, 0(a0)
    unlook
    expect  a1, 1111
    marks   A
    look
    sd      a1, 8(a0)
    unlook
    marks   A | D
    step    2                   /* another page after a fence */
    map     two, V | R | W
    look
    ld      a1, 0(a0)
    unlook
    expect  a1, 2222
    step    3                   /* permissions, and no marks by what faults */
    map     one, V | R
    faults  15, sd a1, 16(a0)
    expect  s9, 0x40000010
    marks   0
    map     one, V | X
    faults  13, ld a1, 0(a0)
    step    4                   /* MXR: executable is readable */
    li      t0, 1 << 19
    csrs    mstatus, t0
    look
    ld      a1, 0(a0)
    unlook
    expect  a1, 1111
    li      t0, 1 << 19
    csrc    mstatus, t0
    step    5                   /* user pages need SUM */
    map     one, V | R | W | U
    faults  13, ld a1, 0(a0)
    li      t0, 1 << 18
    csrs    mstatus, t0
    look
    ld      a1, 0(a0)
    unlook
    expect  a1, 1111
    step    6                   /* W without R, not valid, no canonical address, superpage askew */
    map     one, V | W
    faults  13, ld a1, 0(a0)
    map     one, R | W
    faults  13, ld a1, 0(a0)
    li      a0, 0x4040000000
    faults  13, ld a1, 0(a0)
    li      a0, 0x40200000
    la      t1, middle
    li      t0, (0x80000000 + 0x1000) >> 2 | V | R
    sd      t0, 8(t1)
    sfence.vma
    faults  13, ld a1, 0(a0)
    step    7                   /* code in a mapped page: calls from S at its virtual address */
    map     code, V | X
    csrc    mstatus, s4
    li      t0, 1 << 11
    csrs    mstatus, t0
    li      t0, 0x40000000
    csrw    mepc, t0
    la      s7, 1f
    mret
1:  expect  s8, 9
    expect  s10, 0x40000004
    marks   A
    step    8                   /* not executable */
    map     code, V | R | W
    csrc    mstatus, s4
    li      t0, 1 << 11
    csrs    mstatus, t0
    li      t0, 0x40000000
    csrw    mepc, t0
    la      s7, 2f
    mret
2:  expect  s8, 12
    expect  s9, 0x40000000
    pass

    .data
    .align  12
root:   .space 4096
middle: .space 4096
leaf:   .space 4096
one:    .dword 1111
    .align  12
two:    .dword 2222
    .align  12
code:   .word 0x00000013
    ecall
    .align  12
