# The oracle's harness: runs a table of cases in machine mode and leaves their results where the cases were.
#
# A case is a record in memory (offsets below, and in tests/oracle/record.rs): registers and CSRs to start with,
# code to run, and room for a log of traps. The harness loads everything, enters the code with mret, logs every
# trap, steps over the instruction that trapped, and at the end stores registers and CSRs back into the record.
# The same image runs on QEMU and on Pollux; the test compares the records afterwards.
#
# harness.elf is committed, so that running the tests needs no cross compiler; `cargo xtask guests` checks that
# build.sh makes it from this.

        .equ FINISHER, 0x100000         # test finisher of the virt board
        .equ FINISHER_PASS, 0x5555
        .equ MTIMECMP, 0x2004000        # CLINT, hart 0
        .equ S_RETURN, 0x80
        .equ STIMECMP, 0x14d            # the assembler may not know it

# Record: integer registers (x0's place is unused), floating-point registers, then:
        .equ R_F, 0x100
        .equ R_FCSR, 0x200
        .equ R_ENTRY, 0x208             # where to start
        .equ R_END, 0x210               # a trap here is the regular end
        .equ R_SKIP, 0x218              # length of every instruction, 0: read it at mepc
        .equ R_TRAPS_MAX, 0x220         # end at this many traps
        .equ R_TRAPS, 0x228             # traps so far
        .equ R_SAVE, 0x230              # t0, t1, t2 during the handler
        .equ R_CSR, 0x250               # the CSRs named by the macros below, in order
        .equ R_LOG, 0x310               # tag, cause, epc, tval, mstatus per trap
        .equ LOG_BYTES, 40

        # The header, from `table` on.
        .equ H_CASES, 8
        .equ H_STRIDE, 16
        .equ H_DONE, 24

        .macro for_each_csr what
        \what mstatus, 0
        \what medeleg, 1
        \what mideleg, 2
        \what mie, 3
        \what mip, 4
        \what satp, 5
        \what stvec, 6
        \what sscratch, 7
        \what sepc, 8
        \what scause, 9
        \what stval, 10
        \what mcounteren, 11
        \what scounteren, 12
        \what menvcfg, 13
        \what senvcfg, 14
        \what mcountinhibit, 15
        \what pmpaddr0, 16
        \what pmpaddr1, 17
        \what pmpaddr2, 18
        \what pmpaddr3, 19
        \what pmpcfg0, 20
        \what mcause, 21
        \what mtval, 22
        \what mepc, 23
        .endm

        .macro load_csr name, index
        ld t0, R_CSR + 8 * \index(sp)
        csrw \name, t0
        .endm

        .macro store_csr name, index
        csrr t0, \name
        sd t0, R_CSR + 8 * \index(sp)
        .endm

        .macro for_each_x what          # but for sp (the record) and t0 to t2 (saved by the handler)
        .irp n, 1, 3, 4, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
        \what x\n, 8 * \n(sp)
        .endr
        .endm

        .macro for_each_f what
        .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
        \what f\n, R_F + 8 * \n(sp)
        .endr
        .endm

        .text
        .globl _start
        .option norelax
_start:
        j start
        .balign 8
table:  .dword 0                        # 0x80000008: first record
cases:  .dword 0                        # 0x80000010: number of records
stride: .dword 0                        # 0x80000018: bytes from one to the next
done:   .dword 0                        # 0x80000020: records finished
stub:   .dword s_handler                # 0x80000028: where stvec may point

        .balign 256
# Supervisor trap handler, position-independent, mapped by cases that delegate. The machine-mode handler logs
# the supervisor's CSRs at the ecall, steps sepc over the instruction that trapped and goes on at the sret.
s_handler:
        .rept 32
        ecall                           # at offset 0, or where a vectored stvec leads
        .endr
        sret                            # at S_RETURN
        .rept 31
        ecall
        .endr

start:
        la t0, m_handler
        csrw mtvec, t0
        li t0, MTIMECMP                 # boards differ in what it is at reset
        li t1, -1
        sd t1, 0(t0)
        csrw STIMECMP, t1
        la t0, table
        ld sp, 0(t0)

next_case:
        la t0, table
        ld t1, H_CASES(t0)
        ld t2, H_DONE(t0)
        bgeu t2, t1, finish
        csrw mscratch, sp
        li t0, 0x6000                   # FS must be on to load the registers
        csrs mstatus, t0
        for_each_f fld
        ld t0, R_FCSR(sp)
        fscsr t0
        addi t0, sp, R_SAVE
        sc.w x0, x0, (t0)               # drop any reservation
        for_each_csr load_csr
        ld t0, R_ENTRY(sp)
        csrw mepc, t0
        sfence.vma
        fence.i
        for_each_x ld
        ld t0, 8 * 5(sp)
        ld t1, 8 * 6(sp)
        ld t2, 8 * 7(sp)
        ld sp, 8 * 2(sp)
        mret

        .balign 64
m_handler:
        csrrw sp, mscratch, sp          # mscratch: the case's sp
        sd t0, R_SAVE(sp)
        sd t1, R_SAVE + 8(sp)
        sd t2, R_SAVE + 16(sp)
        csrr t0, mepc
        ld t1, R_END(sp)
        beq t0, t1, end_case
        # Log it, unless the log is full.
        ld t1, R_TRAPS(sp)
        li t2, LOG_BYTES
        mul t2, t1, t2
        add t2, t2, sp
        addi t1, t1, 1
        sd t1, R_TRAPS(sp)
        csrr t1, mstatus
        sd t1, R_LOG + 32(t2)
        # An ecall from the supervisor's handler: log the supervisor's side instead.
        csrr t1, mcause
        addi t1, t1, -9
        bnez t1, log_machine
        csrr t1, stvec
        xor t1, t1, t0
        srli t1, t1, 8
        beqz t1, log_supervisor
log_machine:
        sd x0, R_LOG(t2)
        csrr t1, mcause
        sd t1, R_LOG + 8(t2)
        sd t0, R_LOG + 16(t2)
        csrr t1, mtval
        sd t1, R_LOG + 24(t2)
        # Interrupts and failed fetches end the case: there is nothing to step over.
        csrr t1, mcause
        bltz t1, end_case
        beqz t1, end_case
        addi t2, t1, -1
        beqz t2, end_case
        addi t2, t1, -12
        beqz t2, end_case
        ld t1, R_SKIP(sp)
        bnez t1, step
        lhu t2, 0(t0)
        li t1, 2
        andi t2, t2, 3
        addi t2, t2, -3
        bnez t2, step
        li t1, 4
step:
        add t0, t0, t1
        csrw mepc, t0
        ld t0, R_TRAPS(sp)
        ld t1, R_TRAPS_MAX(sp)
        bgeu t0, t1, end_case
        ld t0, R_SAVE(sp)
        ld t1, R_SAVE + 8(sp)
        ld t2, R_SAVE + 16(sp)
        csrrw sp, mscratch, sp
        mret

log_supervisor:
        li t1, 1
        sd t1, R_LOG(t2)
        csrr t1, scause
        sd t1, R_LOG + 8(t2)
        csrr t1, stval
        sd t1, R_LOG + 24(t2)
        csrr t1, sepc
        sd t1, R_LOG + 16(t2)
        ld t2, R_SKIP(sp)
        add t1, t1, t2
        csrw sepc, t1
        # As above, by the supervisor's cause. It fits no handler to resume what it cannot step over.
        csrr t1, scause
        bltz t1, end_case
        beqz t1, end_case
        addi t2, t1, -1
        beqz t2, end_case
        addi t2, t1, -12
        beqz t2, end_case
        andi t0, t0, -256
        li t1, S_RETURN
        j step

end_case:
        for_each_x sd
        ld t0, R_SAVE(sp)
        sd t0, 8 * 5(sp)
        ld t0, R_SAVE + 8(sp)
        sd t0, 8 * 6(sp)
        ld t0, R_SAVE + 16(sp)
        sd t0, 8 * 7(sp)
        csrr t0, mscratch
        sd t0, 8 * 2(sp)
        for_each_csr store_csr
        csrw satp, x0
        csrw mie, x0
        csrw pmpcfg0, x0
        csrw menvcfg, x0
        li t0, -1
        csrw STIMECMP, t0
        li t0, 0x6000
        csrs mstatus, t0
        frcsr t0
        sd t0, R_FCSR(sp)
        for_each_f fsd
        la t0, table
        ld t1, H_STRIDE(t0)
        add sp, sp, t1
        ld t1, H_DONE(t0)
        addi t1, t1, 1
        sd t1, H_DONE(t0)
        j next_case

finish:
        li t0, FINISHER
        li t1, FINISHER_PASS
        sw t1, 0(t0)
        j finish
