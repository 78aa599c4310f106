/*
 * A CPU-bound program without a system, to compare the speed of machines: QEMU with -bios or -kernel, Pollux likewise.
 * Works in M-mode and in S-mode. Prints for each part a checksum, which is the same everywhere, and how long it took by
 * the time CSR; ends the machine through the test finisher. Every part is done ten times, or as
 * often as `rounds=N` on the command line says.
 */
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint32_t u32;
typedef uint64_t u64;

enum { PRIMES = 200000, SIDE = 64, NUMBERS = 20000, BYTES = 1 << 18, NODES = 1 << 15, ROUNDS = 10 };
static u8 composite[PRIMES];
static double a[SIDE][SIDE], b[SIDE][SIDE], c[SIDE][SIDE];
static u32 numbers[NUMBERS], table[256], next[NODES];
static u8 bytes[BYTES];
static u64 seed;

static void put(const char *text)
{
    for (; *text; text++)
        *(volatile u8 *)0x10000000 = (u8)*text;
}

static void put_number(u64 value, u64 base)
{
    char text[24], *p = text + sizeof text;
    *--p = 0;
    do {
        *--p = "0123456789abcdef"[value % base];
        value /= base;
    } while (value);
    put(p);
}

void *memset(void *to, int value, size_t n)
{
    u8 *p = to;
    while (n--)
        *p++ = (u8)value;
    return to;
}

static u64 now(void)
{
    u64 t;
    __asm__ volatile("rdtime %0" : "=r"(t));
    return t;
}

static u32 random(void)
{
    seed = seed * 6364136223846793005 + 1442695040888963407;
    return (u32)(seed >> 32);
}

/* Byte loads and stores, short loops. */
static u64 sieve(void)
{
    u64 sum = 0;
    memset(composite, 0, PRIMES);
    for (u32 i = 2; i < PRIMES; i++) {
        if (composite[i])
            continue;
        sum += i;
        for (u32 j = 2 * i; j < PRIMES; j += i)
            composite[j] = 1;
    }
    return sum;
}

/* Floating point. */
static u64 matrix(void)
{
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j++) {
            a[i][j] = (double)random() / 65536;
            b[i][j] = 1 / (1 + (double)(random() >> 8));
        }
    u64 sum = 0;
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j++) {
            double x = 0;
            for (int k = 0; k < SIDE; k++)
                x += a[i][k] * b[k][j];
            c[i][j] = x;
            union { double d; u64 u; } bits = { .d = c[i][j] };
            sum = sum * 31 + bits.u;
        }
    return sum;
}

/* Branches that cannot be foretold. */
static u64 sort(void)
{
    for (int i = 0; i < NUMBERS; i++)
        numbers[i] = random();
    for (u32 size = NUMBERS, root = NUMBERS / 2; size > 1;) {
        u32 value, at;
        if (root > 0)
            value = numbers[at = --root];
        else {
            value = numbers[--size];
            numbers[size] = numbers[0];
            at = 0;
        }
        for (u32 child; (child = 2 * at + 1) < size; at = child) {
            if (child + 1 < size && numbers[child + 1] > numbers[child])
                child++;
            if (numbers[child] <= value)
                break;
            numbers[at] = numbers[child];
        }
        numbers[at] = value;
    }
    u64 sum = 0;
    for (int i = 0; i < NUMBERS; i++)
        sum = sum * 31 + numbers[i] + (i && numbers[i - 1] > numbers[i]);
    return sum;
}

/* Table look-ups in a dependent chain. */
static u64 crc(void)
{
    for (u32 i = 0; i < 256; i++) {
        u32 x = i;
        for (int k = 0; k < 8; k++)
            x = x >> 1 ^ (x & 1 ? 0xedb88320 : 0);
        table[i] = x;
    }
    for (u32 i = 0; i < BYTES; i++)
        bytes[i] = (u8)(i * i >> 3);
    u32 sum = ~0u;
    for (u32 i = 0; i < BYTES; i++)
        sum = table[(sum ^ bytes[i]) & 255] ^ sum >> 8;
    return ~sum;
}

/* Loads that depend on each other, all over 128 KiB. */
static u64 chase(void)
{
    for (u32 i = 0; i < NODES; i++)
        next[i] = (i * 12345 + 6789) & (NODES - 1);
    u64 at = 0, sum = 0;
    for (u32 i = 0; i < 8 * NODES; i++) {
        at = next[at] ^ (i & 1);
        sum += at * i;
    }
    return sum;
}

/* The number behind `rounds=`, wherever in the device tree it stands. */
static u64 rounds_of(const u8 *fdt)
{
    const u8 *p = fdt;
    if (!fdt || p[0] != 0xd0 || p[1] != 0x0d || p[2] != 0xfe || p[3] != 0xed)
        return ROUNDS;
    const u8 *end = fdt + ((u32)p[4] << 24 | (u32)p[5] << 16 | (u32)p[6] << 8 | p[7]) - 8;
    for (; p < end; p++) {
        int i = 0;
        while (i < 7 && p[i] == (u8)"rounds="[i])
            i++;
        u64 value = 0;
        for (; i == 7 && p[i] >= '0' && p[i] <= '9'; p++)
            value = value * 10 + p[i] - '0';
        if (value)
            return value;
    }
    return ROUNDS;
}

static void part(const char *name, u64 (*work)(void), u64 rounds)
{
    u64 begun = now(), sum = 0;
    seed = 42;
    for (u64 i = 0; i < rounds; i++)
        sum = sum * 31 + work();
    u64 us = (now() - begun) / 10;
    put("bench: ");
    put(name);
    put(" ");
    put_number(sum, 16);
    put(" ");
    put_number(us, 10);
    put(" us\n");
}

_Noreturn void bench(const u8 *fdt)
{
    u64 rounds = rounds_of(fdt);
    part("sieve", sieve, rounds);
    part("matrix", matrix, rounds);
    part("sort", sort, rounds);
    part("crc", crc, rounds);
    part("chase", chase, rounds);
    put("bench: end\n");
    *(volatile u32 *)0x100000 = 0x5555;
    for (;;)
        __asm__ volatile("wfi");
}
