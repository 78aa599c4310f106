/*
 * The embedded guest: a machine small enough to start in a blink, with a service on every device that Pollux has.
 * Runs in S-mode under an SBI, on QEMU's virt board and on Pollux alike (see ../README.md).
 */
#include "tiny.h"

extern char secondary_start[];
volatile u64 ticks;
static const char *options = "";
static volatile u8 *const uart = (u8 *)0x10000000;
static volatile u64 atomics, reserved, harts_done, woken;
static volatile int outside; /* an external interrupt was taken and not looked after yet */
static int sstc;
static u64 boots;
static u8 scratch[2][BLOCK] __attribute__((aligned(16)));
static volatile int step_done, step_ok;

enum { TICK = 100000, ROUNDS = 20000 }; /* 10 ms */
enum { SSI = 1 << 1, STI = 1 << 5, SEI = 1 << 9 };
static const u64 SUPERBLOCK = 0x31796e6974; /* "tiny1" */

static u32 be32(const u8 *p)
{
    return (u32)p[0] << 24 | (u32)p[1] << 16 | (u32)p[2] << 8 | p[3];
}

/* Finds /chosen/bootargs: the only property of that name. */
static void read_options(const u8 *fdt)
{
    if (!fdt || be32(fdt) != 0xd00dfeed)
        return;
    const u8 *p = fdt + be32(fdt + 8), *names = fdt + be32(fdt + 12), *last = fdt + be32(fdt + 4);
    while (p < last) {
        u32 token = be32(p);
        p += 4;
        if (token == 1)
            p += (strlen((const char *)p) + 4) & ~3ul;
        else if (token == 3) {
            u32 len = be32(p);
            if (len && same(names + be32(p + 4), "bootargs", 9))
                options = (const char *)p + 8;
            p += 8 + ((len + 3) & ~3u);
        } else if (token == 9)
            return;
    }
}

/* What stands behind `name` among the words of the command line; 0 if it is not there. */
static const char *option(const char *name)
{
    u64 n = strlen(name);
    for (const char *p = options; *p; p++)
        if ((p == options || p[-1] == ' ') && same(p, name, n))
            return p + n;
    return 0;
}

static void read_address(void)
{
    const char *p = option("ip=");
    for (int i = 0; p && i < 4; i++) {
        own_ip[i] = (u8)parse_number(&p, 10);
        if (*p == '.')
            p++;
    }
}

static void put_address(void)
{
    for (int i = 0; i < 4; i++) {
        put_number(own_ip[i]);
        put(i < 3 ? "." : "");
    }
}

static void set_timer(void)
{
    if (sstc)
        __asm__ volatile("csrw 0x14d, %0" ::"r"(now() + TICK)); /* stimecmp */
    else
        sbi(0x54494d45, 0, now() + TICK, 0, 0);
}

static void plic_enable(u32 source)
{
    u64 hart;
    __asm__ volatile("mv %0, tp" : "=r"(hart));
    volatile u32 *plic = (u32 *)0x0c000000;
    u64 context = 2 * hart + 1;
    plic[source] = 1;
    plic[(0x2000 + 0x80 * context) / 4] |= 1u << source;
    plic[(0x200000 + 0x1000 * context) / 4] = 0;
}

static volatile u32 *plic_claim(void)
{
    u64 hart;
    __asm__ volatile("mv %0, tp" : "=r"(hart));
    return (u32 *)(0x0c200004 + 0x1000 * (2 * hart + 1));
}

/* Interrupts are taken in `idle` alone. An external one is masked here; whoever idled looks after it. */
void trap(u64 cause, u64 pc, u64 value)
{
    if (cause == (1ul << 63 | 5)) {
        ticks++;
        set_timer();
    } else if (cause == (1ul << 63 | 9)) {
        outside = 1;
        __asm__ volatile("csrc sie, %0" ::"r"(SEI));
    } else if (cause == (1ul << 63 | 1)) {
        __asm__ volatile("csrc sip, %0" ::"r"(SSI));
    } else {
        put("tiny: trap ");
        put_number(cause);
        put(" at ");
        put_number(pc);
        put(" value ");
        put_number(value);
        put("\n");
        end(99);
    }
}

/* Sleeps until an interrupt is pending, and takes it. Pending beforehand: does not sleep, so that none is missed. */
void idle(void)
{
    __asm__ volatile("wfi\n csrsi sstatus, 2\n csrci sstatus, 2" ::: "memory");
    if (outside)
        __asm__ volatile("csrs sie, %0" ::"r"(SEI));
}

/* Takes what is pending, without waiting. */
static void look_up(void)
{
    __asm__ volatile("csrsi sstatus, 2\n csrci sstatus, 2" ::: "memory");
    if (outside)
        __asm__ volatile("csrs sie, %0" ::"r"(SEI));
}

static void console_poll(void);

/* Looks after every device that has interrupted: quiets it first, so that what comes later interrupts again. */
static void external(void)
{
    volatile u32 *claim = plic_claim();
    u32 source;
    outside = 0;
    while ((source = *claim) != 0) {
        if (source <= 8) {
            volatile u32 *status = (u32 *)(0x10001060ul + (source - 1) * 0x1000);
            status[1] = *status;
        }
        net_poll();
        disk_poll();
        terminal_poll();
        console_poll();
        *claim = source;
    }
}

static void command(const char *line)
{
    const char *p = line + 5;
    if (same(line, "poweroff", 9))
        sbi(0x53525354, 0, 0, 0, 0);
    else if (same(line, "fail ", 5))
        end((int)parse_number(&p, 10));
    else if (same(line, "count", 6)) {
        put_number(counter);
        put("\n");
    } else if (same(line, "panic", 6))
        __asm__ volatile("unimp");
    else if (*line)
        put("tiny: commands are help, count, poweroff, fail N, panic\n");
}

static void console_poll(void)
{
    static char line[64];
    static u32 n;
    while (uart[5] & 1) {
        char c = (char)uart[0];
        char echo[2] = { c == '\r' ? '\n' : c, 0 };
        put(echo);
        if (c == '\r' || c == '\n') {
            line[n] = 0;
            n = 0;
            command(line);
        } else if (n < sizeof line - 1)
            line[n++] = c;
    }
}

static void step(int tag, int ok)
{
    (void)tag;
    step_ok = ok;
    step_done = 1;
}

static int disk_wait(u32 op, u64 block, u8 *buffer)
{
    step_done = 0;
    if (!disk_begin(op, block, buffer, step, 0))
        return 0;
    for (;;) {
        external();
        if (step_done)
            break;
        idle();
    }
    return step_ok;
}

static int disk_test(void)
{
    u64 last = disk_bytes / BLOCK;
    if (last < 32)
        return 0;
    if (!disk_wait(0, 0, scratch[0]))
        return 0;
    u64 *superblock = (u64 *)scratch[0];
    if (superblock[0] != SUPERBLOCK)
        memset(superblock, 0, BLOCK);
    superblock[0] = SUPERBLOCK;
    boots = ++superblock[1];
    if (!disk_wait(1, 0, scratch[0]))
        return 0;
    for (u64 block = last - 16; block < last; block++) {
        for (u32 i = 0; i < BLOCK; i++)
            scratch[0][i] = (u8)(i * 7 + block);
        if (!disk_wait(1, block, scratch[0]) || !disk_wait(4, 0, 0) || !disk_wait(0, block, scratch[1]))
            return 0;
        if (!same(scratch[0], scratch[1], BLOCK))
            return 0;
    }
    return 1;
}

static void hammer(void)
{
    for (int i = 0; i < ROUNDS; i++) {
        __asm__ volatile("amoadd.d x0, %0, (%1)" ::"r"(1ul), "r"(&atomics) : "memory");
        u64 t, failed;
        do
            __asm__ volatile("lr.d %0, (%2)\n addi %0, %0, 1\n sc.d %1, %0, (%2)" : "=&r"(t), "=&r"(failed) : "r"(&reserved) : "memory");
        while (failed);
    }
    __asm__ volatile("amoadd.d x0, %0, (%1)" ::"r"(1ul), "r"(&harts_done) : "memory");
}

void secondary(void)
{
    __asm__ volatile("csrw sie, %0" ::"r"(SSI));
    hammer();
    for (;;) {
        u64 pending;
        __asm__ volatile("wfi\n csrr %0, sip" : "=r"(pending)::"memory");
        if (!(pending & SSI))
            continue;
        __asm__ volatile("csrc sip, %0" ::"r"(SSI));
        __asm__ volatile("amoadd.d x0, %0, (%1)" ::"r"(1ul), "r"(&woken) : "memory");
    }
}

/* Starts all harts, lets them count together, wakes each with an interrupt. */
static void smp(void)
{
    u64 self, others = 0, started = 0;
    __asm__ volatile("mv %0, tp" : "=r"(self));
    for (u64 hart = 0; hart < 8; hart++)
        if (hart != self && sbi(0x48534d, 0, hart, (u64)secondary_start, 0).error == 0) {
            others++;
            started |= 1ul << hart;
        }
    hammer();
    while (harts_done != others + 1)
        __asm__ volatile(".insn 0x0100000f" ::: "memory"); /* pause */
    sbi(0x735049, 0, started, 0, 0);
    while (woken != others)
        __asm__ volatile(".insn 0x0100000f" ::: "memory");
    put("tiny: smp ");
    put_number(others + 1);
    put(atomics == (others + 1) * ROUNDS && reserved == atomics ? " harts agree\n" : " harts DISAGREE\n");
}

void kmain(u64 hart, const u8 *fdt)
{
    (void)hart;
    read_options(fdt);
    read_address();
    sstc = option("sstc=1") != 0;
    put("tiny: hello\n");
    set_timer();
    for (u32 source = 1; source <= 10; source++)
        plic_enable(source);
    uart[1] = 1;
    __asm__ volatile("csrw sie, %0" ::"r"(SSI | STI | SEI));
    terminal_init();
    rng_init();
    u8 seed[8];
    int have_entropy = rng_bytes(seed, sizeof seed);
    disk_init();
    int disk_fine = disk_bytes ? disk_test() : 0;
    if (option("smp=1"))
        smp();
    net_init();
    if (have_net)
        say_hello();
    put("tiny: ready ip=");
    put_address();
    put(" disk=");
    put(disk_bytes == 0 ? "none" : disk_fine ? "ok" : "FAILED");
    put(" boot=");
    put_number(boots);
    put(have_entropy ? " rng=ok" : " rng=none");
    put(have_net ? " net=ok\n" : " net=none\n");
    int load = option("load=1") != 0;
    volatile u64 *memory = (u64 *)scratch[0];
    for (u64 round = 0;; round++) {
        external();
        if (!load) {
            idle();
            continue;
        }
        for (u64 i = 0; i < 2000; i++)
            memory[(i * 31 + round) % (BLOCK / 8)] += i * round;
        look_up();
    }
}
