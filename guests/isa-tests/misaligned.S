/* Loads and stores at any address, across a page boundary too: plain memory takes them all. */
    .include "check.inc"
    begin
    la      s0, pages + 4096 - 8
    li      s1, 0               /* offset: the accesses move over the boundary */
1:  addi    s11, s1, 1
    add     a0, s0, s1
    li      t0, 0x1122334455667788
    sd      zero, 0(s0)
    sd      zero, 8(s0)
    sd      zero, 16(s0)
    sd      t0, 0(a0)
    ld      a1, 0(a0)
    bne     a1, t0, fail
    li      a3, 0               /* byte for byte */
2:  add     a4, a0, a3
    lbu     a5, 0(a4)
    slli    a6, a3, 3
    srl     a7, t0, a6
    andi    a7, a7, 255
    bne     a5, a7, fail
    addi    a3, a3, 1
    li      t1, 8
    bne     a3, t1, 2b
    lw      a1, 2(a0)
    expect  a1, 0x33445566
    li      t1, 0x8899aabb
    sw      t1, 2(a0)
    lw      a1, 2(a0)
    expect  a1, -0x77665545
    lwu     a1, 2(a0)
    expect  a1, 0x8899aabb
    lh      a1, 5(a0)
    expect  a1, 0x2288
    li      t1, 0xf00d
    sh      t1, 3(a0)
    lhu     a1, 3(a0)
    expect  a1, 0xf00d
    ld      a1, 0(a0)
    expect  a1, 0x112288f00dbb7788
    addi    s1, s1, 1
    li      t1, 9
    bne     s1, t1, 1b
    pass

    .bss
    .align  12
pages:
    .space  8192
