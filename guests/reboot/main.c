/*
 * A guest that reboots for ever, with a request to its disk on the way each time: by turns through the SBI and through
 * the test finisher. It counts its lives on the disk, if it has one, and complains, and ends, if a life finds anything
 * that an earlier one has left in RAM or in a device.
 */
#include "../tiny/tiny.h"

enum { PAUSE = 20000 }; /* ticks of 100 ns: 2 ms */
volatile u64 ticks;
u64 counter;
static u8 buffer[2][BLOCK] __attribute__((aligned(16)));
static volatile int step_done;
/* One in .bss, one far from everything that is loaded. */
static volatile u64 stain;
static volatile u64 *const far_stain = (u64 *)0x80700000;

void trap(u64 cause, u64 pc, u64 value)
{
    (void)pc, (void)value;
    put("reboot: trap ");
    put_number(cause);
    put("\n");
    end(99);
}

void frame_arrived(u8 *frame, u32 len)
{
    (void)frame, (void)len;
}

void secondary(void)
{
    for (;;)
        idle();
}

void idle(void)
{
    __asm__ volatile("wfi" ::: "memory");
}

static void step(int tag, int ok)
{
    (void)tag, (void)ok;
    step_done = 1;
}

static void disk_wait(u32 op, u64 block, u8 *bytes)
{
    step_done = 0;
    disk_begin(op, block, bytes, step, 0);
    while (!step_done)
        disk_poll();
}

static u32 be32(const u8 *p)
{
    return (u32)p[0] << 24 | (u32)p[1] << 16 | (u32)p[2] << 8 | p[3];
}

/* The first eight bytes of /chosen/rng-seed: the only property of that name. */
static u64 seed(const u8 *fdt)
{
    const u8 *p = fdt + be32(fdt + 8), *names = fdt + be32(fdt + 12);
    for (;;) {
        u32 token = be32(p);
        p += 4;
        if (token == 1)
            p += (strlen((const char *)p) + 4) & ~3ul;
        else if (token == 3) {
            u32 len = be32(p);
            if (same(names + be32(p + 4), "rng-seed", 9))
                return (u64)be32(p + 8) << 32 | be32(p + 12);
            p += 8 + ((len + 3) & ~3u);
        } else if (token == 9)
            return 0;
    }
}

static void check(int fine, const char *what)
{
    if (fine)
        return;
    put("reboot: an earlier life has left ");
    put(what);
    put("\n");
    end(98);
}

void kmain(u64 hart, const u8 *fdt)
{
    (void)hart;
    check(!stain && !*far_stain, "bytes in RAM");
    stain = *far_stain = 1;
    for (u32 slot = 0; slot < 8; slot++)
        check(*(volatile u32 *)(0x10001070ul + slot * 0x1000) == 0, "a virtio device with a driver");
    volatile u8 *uart = (u8 *)0x10000000;
    check(uart[1] == 0, "the UART's interrupts on");
    uart[1] = 1;
    volatile u32 *plic = (u32 *)0x0c000000;
    check(plic[10] == 0, "priorities in the interrupt controller");
    plic[10] = 7;
    disk_init();
    u64 *lives = (u64 *)buffer[0];
    if (disk_bytes) {
        disk_wait(0, 0, buffer[0]);
        ++*lives;
        disk_wait(1, 0, buffer[0]);
    }
    put("reboot: life ");
    put_number(*lives);
    put(" seed ");
    put_number(seed(fdt));
    put("\n");
    for (u64 begun = now(); now() - begun < PAUSE;)
        ;
    /* Nobody waits for this one. */
    if (disk_bytes)
        disk_begin(1, 1, buffer[1], step, 0);
    if (*lives & 1)
        *(volatile u32 *)0x100000 = 0x7777;
    else
        sbi(0x53525354, 0, 1, 0, 0);
    put("reboot: it did not\n");
    end(97);
}
