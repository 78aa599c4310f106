/*
 * The workloads of `pollux bench`: each is a fixed amount of work and prints a checksum, which is the same on every
 * machine and every host. Uses no C library, so that the program is small, depends on the compiler alone, and is the
 * same in the guest and on the host that it is compared with.
 *
 *     workloads NAME
 *
 * As a guest's init (then it is process 1) it does what guest/driver of `pollux bench` does: runs what `pollux.run=` on
 * the kernel's command line names, between markers on the console.
 */
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

/* Linux's system calls: numbers, and the instruction. */
#if defined(__x86_64__)
enum { READ = 0, WRITE = 1, CLOSE = 3, MMAP = 9, MUNMAP = 11, GETPID = 39, CLONE = 56, EXECVE = 59, EXIT = 60,
       WAIT4 = 61, GETPPID = 110, MOUNT = 165, OPENAT = 257, DUP3 = 292, PIPE2 = 293 };
#else
enum { DUP3 = 24, MOUNT = 40, OPENAT = 56, CLOSE = 57, PIPE2 = 59, READ = 63, WRITE = 64, EXIT = 93, GETPID = 172,
       GETPPID = 173, MUNMAP = 215, CLONE = 220, EXECVE = 221, MMAP = 222, WAIT4 = 260 };
#endif

static long call(long number, long a, long b, long c, long d, long e, long f)
{
#if defined(__x86_64__)
    register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
    long result;
    __asm__ volatile("syscall" : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
    return result;
#elif defined(__riscv)
    register long a0 __asm__("a0") = a, a1 __asm__("a1") = b, a2 __asm__("a2") = c, a3 __asm__("a3") = d;
    register long a4 __asm__("a4") = e, a5 __asm__("a5") = f, a7 __asm__("a7") = number;
    __asm__ volatile("ecall" : "+r"(a0) : "r"(a1), "r"(a2), "r"(a3), "r"(a4), "r"(a5), "r"(a7) : "memory");
    return a0;
#elif defined(__aarch64__)
    register long x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c, x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e, x5 __asm__("x5") = f, x8 __asm__("x8") = number;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5), "r"(x8) : "memory");
    return x0;
#else
#error "no system calls are known for this architecture"
#endif
}

/* The kernel enters here with the argument count at the stack pointer. */
#if defined(__x86_64__)
__asm__(".globl _start\n_start: mov %rsp, %rdi\n and $-16, %rsp\n call begin\n");
#elif defined(__riscv)
/* Small data is reached from gp. */
__asm__(".globl _start\n_start:\n .option push\n .option norelax\n la gp, __global_pointer$\n .option pop\n"
        " mv a0, sp\n andi sp, sp, -16\n call begin\n");
#else
__asm__(".globl _start\n_start: mov x0, sp\n bl begin\n");
#endif

static _Noreturn void leave(int status)
{
    for (;;)
        call(EXIT, status, 0, 0, 0, 0, 0);
}

static void say(const char *text)
{
    size_t n = 0;
    while (text[n])
        n++;
    call(WRITE, 1, (long)text, (long)n, 0, 0, 0);
}

/* Every call that fails ends the program: a workload that does less than its work must not look fast. */
static long must(long result)
{
    if (result < 0) {
        say("a system call failed\n");
        leave(1);
    }
    return result;
}

static void *map(size_t bytes)
{
    enum { READ_WRITE = 3, PRIVATE_ANONYMOUS = 0x22 };
    return (void *)must(call(MMAP, 0, (long)bytes, READ_WRITE, PRIVATE_ANONYMOUS, -1, 0));
}

static long start_child(void)
{
    enum { SIGCHLD = 17 };
    return must(call(CLONE, SIGCHLD, 0, 0, 0, 0, 0));
}

static u64 wait_for(long child)
{
    int status = 0;
    must(call(WAIT4, child, (long)&status, 0, 0, 0, 0));
    return (u64)status;
}

/* The compiler may call these. */
void *memset(void *to, int value, size_t n)
{
    for (u8 *p = to; n--;)
        *p++ = (u8)value;
    return to;
}

void *memcpy(void *to, const void *from, size_t n)
{
    const u8 *f = from;
    for (u8 *p = to; n--;)
        *p++ = *f++;
    return to;
}

static u64 seed = 1;

static u32 next_random(void)
{
    seed = seed * 6364136223846793005 + 1442695040888963407;
    return (u32)(seed >> 32);
}

static u16 crc16(u16 crc, u16 value)
{
    for (int bit = 0; bit < 16; bit++, value >>= 1)
        crc = (crc ^ value) & 1 ? (u16)(crc >> 1 ^ 0xa001) : (u16)(crc >> 1);
    return crc;
}

/* integer: what CoreMark does: a list that is searched, reversed and sorted, matrices, a state machine, a CRC. */
enum { NODES = 256, SIDE = 24, TEXT = 512 };
struct node {
    struct node *next;
    u16 key, value;
};
static struct node nodes[NODES];
static short left[SIDE][SIDE], right[SIDE][SIDE];
static int product[SIDE][SIDE];
static char text[TEXT];

static struct node *merge_sort(struct node *list, int count)
{
    if (count < 2) {
        if (list)
            list->next = NULL;
        return list;
    }
    struct node *middle = list, *sorted = NULL, **tail = &sorted;
    for (int i = 0; i < count / 2; i++)
        middle = middle->next;
    struct node *b = merge_sort(middle, count - count / 2), *a = merge_sort(list, count / 2);
    while (a || b) {
        struct node **from = !b || (a && a->key <= b->key) ? &a : &b;
        *tail = *from;
        tail = &(*from)->next;
        *from = (*from)->next;
    }
    *tail = NULL;
    return sorted;
}

static u16 lists(u16 crc, int round)
{
    for (int i = 0; i < NODES; i++)
        nodes[i] = (struct node){i + 1 < NODES ? &nodes[i + 1] : NULL, (u16)(next_random() ^ (u32)round), (u16)i};
    struct node *list = nodes, *reversed = NULL;
    for (int wanted = 0; wanted < 32; wanted++) {
        struct node *at = list;
        while (at && (at->value & 127) != wanted * 4)
            at = at->next;
        crc = crc16(crc, at ? at->key : 0);
    }
    while (list) {
        struct node *rest = list->next;
        list->next = reversed;
        reversed = list;
        list = rest;
    }
    for (list = merge_sort(reversed, NODES); list; list = list->next)
        crc = crc16(crc, list->value);
    return crc;
}

static u16 matrices(u16 crc, int round)
{
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j++) {
            left[i][j] = (short)(i * j + round);
            right[i][j] = (short)(i - j + round);
        }
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j++) {
            int sum = 0;
            for (int k = 0; k < SIDE; k++)
                sum += left[i][k] * right[k][j];
            product[i][j] = sum;
        }
    for (int i = 0; i < SIDE; i++)
        crc = crc16(crc, (u16)product[i][SIDE - 1 - i]);
    return crc;
}

/* Tells numbers from other words, as a scanner does. */
static u16 states(u16 crc)
{
    enum { START, SIGN, INTEGER, FRACTION, EXPONENT, WORD, STATES } state = START;
    u16 seen[STATES] = {0};
    static const char letters[] = "0123456789+-.eE,,,xyz";
    for (int i = 0; i < TEXT; i++)
        text[i] = letters[next_random() % (sizeof letters - 1)];
    for (int i = 0; i < TEXT; i++) {
        char c = text[i];
        int digit = c >= '0' && c <= '9';
        if (c == ',') {
            seen[state]++;
            state = START;
            continue;
        }
        switch (state) {
        case START: state = digit ? INTEGER : c == '+' || c == '-' ? SIGN : c == '.' ? FRACTION : WORD; break;
        case SIGN: state = digit ? INTEGER : c == '.' ? FRACTION : WORD; break;
        case INTEGER: state = digit ? INTEGER : c == '.' ? FRACTION : (c | 32) == 'e' ? EXPONENT : WORD; break;
        case FRACTION: state = digit ? FRACTION : (c | 32) == 'e' ? EXPONENT : WORD; break;
        case EXPONENT: state = digit || c == '-' || c == '+' ? EXPONENT : WORD; break;
        default: break;
        }
    }
    for (int i = 0; i < STATES; i++)
        crc = crc16(crc, seen[i]);
    return crc;
}

static u64 integer(void)
{
    u16 crc = 0;
    for (int round = 0; round < 6000; round++)
        crc = states(matrices(lists(crc, round), round));
    return crc;
}

/* calls: recursion, so that nearly every other instruction is a call or a return. */
__attribute__((noinline)) static u64 fibonacci(u64 n)
{
    __asm__ volatile("" : "+r"(n));
    return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

static u64 calls(void)
{
    return fibonacci(37);
}

/* indirect: calls through a table, in an order that is not predictable. */
static u64 op_add(u64 x) { return x + 0x9e3779b97f4a7c15; }
static u64 op_xor(u64 x) { return x ^ x >> 29; }
static u64 op_mul(u64 x) { return x * 0xbf58476d1ce4e5b9; }
static u64 op_not(u64 x) { return ~x; }
static u64 op_rot(u64 x) { return x << 13 | x >> 51; }
static u64 op_sub(u64 x) { return x - 12345; }
static u64 op_neg(u64 x) { return 0 - x; }
static u64 op_shl(u64 x) { return x ^ x << 7; }
static u64 (*const volatile table[])(u64) = {op_add, op_xor, op_mul, op_not, op_rot, op_sub, op_neg, op_shl};

static u64 indirect(void)
{
    u64 x = 1, order = 1;
    for (int i = 0; i < 30000000; i++) {
        order = order * 6364136223846793005 + 1442695040888963407;
        x = table[order >> 61](x);
    }
    return x;
}

/* dispatch: calls through the same table, in the order of a short program that repeats itself, as in an interpreter. */
static u64 dispatch(void)
{
    static const volatile u8 program[16] = {0, 3, 1, 5, 2, 0, 7, 4, 6, 1, 3, 2, 5, 0, 4, 7};
    u64 x = 1;
    for (int i = 0; i < 30000000; i++)
        x = table[program[i & 15]](x);
    return x;
}

/* sieve: bytes in 8 MB. */
static u64 sieve(void)
{
    enum { BYTES = 8 << 20 };
    u8 *composite = map(BYTES);
    u64 primes = 0;
    for (u8 round = 1; round <= 6; round++)
        for (u32 i = 2; i < BYTES; i++) {
            if (composite[i] == round)
                continue;
            primes++;
            for (u64 j = (u64)i * i; j < BYTES; j += i)
                composite[j] = round;
        }
    return primes;
}

/* chase: each load's address is the load before; 64 MB, one random cycle. */
static u64 chase(void)
{
    enum { CELLS = (64 << 20) / 8 };
    u64 *cell = map((size_t)CELLS * 8), at = 0;
    for (u64 i = 0; i < CELLS; i++)
        cell[i] = i;
    for (u64 i = CELLS - 1; i > 0; i--) {
        u64 j = next_random() % i, other = cell[j];
        cell[j] = cell[i];
        cell[i] = other;
    }
    for (int i = 0; i < 4000000; i++)
        at = cell[at];
    return at;
}

/* nbody: double precision, with division and square root. */
struct body {
    double x[3], v[3], mass;
};

static u64 nbody(void)
{
    enum { BODIES = 5 };
    static struct body body[BODIES] = {
        {{0, 0, 0}, {0, 0, 0}, 39.5},
        {{4.84, -1.16, -0.10}, {0.61, 2.81, -0.03}, 0.038},
        {{8.34, 4.12, -0.40}, {-1.01, 1.82, 0.01}, 0.011},
        {{12.89, -15.11, -0.22}, {1.08, 0.87, -0.01}, 0.0017},
        {{15.38, -25.92, 0.18}, {0.98, 0.59, -0.03}, 0.002},
    };
    const double step = 0.01;
    for (int round = 0; round < 900000; round++) {
        for (int i = 0; i < BODIES; i++)
            for (int j = i + 1; j < BODIES; j++) {
                double d[3], square = 0;
                for (int k = 0; k < 3; k++) {
                    d[k] = body[i].x[k] - body[j].x[k];
                    square += d[k] * d[k];
                }
                double pull = step / (square * __builtin_sqrt(square));
                for (int k = 0; k < 3; k++) {
                    body[i].v[k] -= d[k] * body[j].mass * pull;
                    body[j].v[k] += d[k] * body[i].mass * pull;
                }
            }
        for (int i = 0; i < BODIES; i++)
            for (int k = 0; k < 3; k++)
                body[i].x[k] += step * body[i].v[k];
    }
    u64 bits;
    __builtin_memcpy(&bits, &body[0].x[0], sizeof bits);
    return bits;
}

/* quiet: comparisons that raise nothing for a NaN, as C's isless has them, and tests for one. */
static u64 quiet(void)
{
    u64 count = 0;
    volatile double nan = __builtin_nan("");
    for (int i = 0; i < 20000000; i++) {
        u64 r = next_random();
        double a = (double)(r >> 40), b = (i & 1023) ? (double)(r >> 20 & 0xffffff) : nan;
        count += (u64)__builtin_isless(a, b) + 2 * (u64)__builtin_isgreaterequal(a, b * 0.5) + 4 * (u64)(b != b);
    }
    return count;
}

/* quad: the C compiler's emulation of 128-bit floating point. */
static u64 quad(void)
{
    _Float128 sum = 0, term = 1;
    for (int i = 1; i <= 1500000; i++) {
        term = term * 3 / 2 - sum;
        if (term > 1000 || term < -1000)
            term = 1;
        sum = sum / 4 + term * (double)i;
    }
    double rounded = (double)sum;
    u64 bits;
    __builtin_memcpy(&bits, &rounded, sizeof bits);
    return bits;
}

/* crossing: doublewords that begin in one page and end in the next, copied. */
static u64 load_anywhere(const u8 *from)
{
    u64 value;
#if defined(__riscv)
    __asm__ volatile("ld %0, 0(%1)" : "=r"(value) : "r"(from) : "memory");
#else
    __builtin_memcpy(&value, from, sizeof value);
#endif
    return value;
}

static void store_anywhere(u8 *to, u64 value)
{
#if defined(__riscv)
    __asm__ volatile("sd %0, 0(%1)" : : "r"(value), "r"(to) : "memory");
#else
    __builtin_memcpy(to, &value, sizeof value);
#endif
}

static u64 crossing(void)
{
    enum { PAGES = 256, PAGE_BYTES = 4096, ROUNDS = 8000 };
    u8 *page = map((size_t)(PAGES + 1) * PAGE_BYTES);
    u64 sum = 1;
    for (int round = 0; round < ROUNDS; round++)
        for (size_t at = PAGE_BYTES; at <= (size_t)PAGES * PAGE_BYTES; at += PAGE_BYTES) {
            sum = sum * 3 + load_anywhere(page + at - 3);
            store_anywhere(page + at - 5, sum);
        }
    return sum;
}

/* getppid: the way into the kernel and back. */
static u64 getppid_loop(void)
{
    enum { TIMES = 500000 };
    u64 same = 0;
    long parent = call(GETPPID, 0, 0, 0, 0, 0, 0);
    for (int i = 0; i < TIMES; i++)
        same += call(GETPPID, 0, 0, 0, 0, 0, 0) == parent;
    return same;
}

/* pipe: two processes wake each other in turn. */
static u64 pipe_pingpong(void)
{
    enum { TIMES = 10000 };
    int there[2], back[2];
    u64 sum = 0;
    u8 byte = 0;
    must(call(PIPE2, (long)there, 0, 0, 0, 0, 0));
    must(call(PIPE2, (long)back, 0, 0, 0, 0, 0));
    long child = start_child();
    for (int i = 0; i < TIMES; i++) {
        if (child) {
            must(call(WRITE, there[1], (long)&byte, 1, 0, 0, 0));
            must(call(READ, back[0], (long)&byte, 1, 0, 0, 0));
            sum += byte;
        } else {
            must(call(READ, there[0], (long)&byte, 1, 0, 0, 0));
            byte = (u8)(byte * 5 + 1);
            must(call(WRITE, back[1], (long)&byte, 1, 0, 0, 0));
        }
    }
    if (!child)
        leave(0);
    return sum + wait_for(child);
}

/* fork: a child that ends at once, waited for. */
static u64 fork_wait(void)
{
    u64 sum = 0;
    for (int i = 0; i < 1000; i++) {
        long child = start_child();
        if (!child)
            leave(i & 127);
        sum += wait_for(child) >> 8;
    }
    return sum;
}

/* exec: a child that becomes this program anew, and that does nothing. */
static u64 exec_self(void)
{
    u64 sum = 0;
    for (int i = 0; i < 500; i++) {
        long child = start_child();
        if (!child) {
            const char *arguments[] = {"workloads", "nothing", NULL}, *environment[] = {NULL};
            call(EXECVE, (long)"/proc/self/exe", (long)arguments, (long)environment, 0, 0, 0);
            leave(1);
        }
        sum += 1 + wait_for(child);
    }
    return sum;
}

/* fault: memory that is mapped, touched page by page, and given back. */
static u64 fault(void)
{
    enum { BYTES = 16 << 20, PAGE = 4096 };
    u64 sum = 0;
    for (int round = 0; round < 12; round++) {
        volatile u8 *memory = map(BYTES);
        for (u64 at = 0; at < BYTES; at += PAGE)
            memory[at]++;
        for (u64 at = 0; at < BYTES; at += PAGE)
            sum += memory[at];
        must(call(MUNMAP, (long)memory, BYTES, 0, 0, 0, 0));
    }
    return sum;
}

static const struct {
    const char *name;
    u64 (*run)(void);
} workloads[] = {
    {"integer", integer}, {"calls", calls},          {"indirect", indirect},     {"dispatch", dispatch},
    {"sieve", sieve},     {"chase", chase},          {"nbody", nbody},           {"getppid", getppid_loop},
    {"pipe", pipe_pingpong}, {"fork", fork_wait},    {"exec", exec_self},        {"fault", fault},
    {"quiet", quiet},     {"quad", quad},            {"crossing", crossing},
};

static int equal(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

static void say_hex(u64 value)
{
    char line[18];
    for (int i = 0; i < 16; i++)
        line[i] = "0123456789abcdef"[value >> (60 - 4 * i) & 15];
    line[16] = '\n';
    line[17] = 0;
    say(line);
}

static void say_number(u64 value)
{
    char digits[24], *p = digits + sizeof digits;
    *--p = 0;
    do {
        *--p = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    say(p);
}

/* One run in a process of its own, between its markers; what it says is the answer. */
static void run_between_markers(const char *name, u64 turn)
{
    char answer[32];
    int pipe[2];
    must(call(PIPE2, (long)pipe, 0, 0, 0, 0, 0));
    say("@begin ");
    say(name);
    say(" ");
    say_number(turn);
    say("\n");
    long child = start_child();
    if (!child) {
        const char *arguments[] = {"workloads", name, NULL}, *environment[] = {NULL};
        must(call(DUP3, pipe[1], 1, 0, 0, 0, 0));
        call(EXECVE, (long)"/proc/self/exe", (long)arguments, (long)environment, 0, 0, 0);
        leave(1);
    }
    call(CLOSE, pipe[1], 0, 0, 0, 0, 0);
    u64 status = wait_for(child);
    long n = must(call(READ, pipe[0], (long)answer, sizeof answer - 2, 0, 0, 0));
    call(CLOSE, pipe[0], 0, 0, 0, 0, 0);
    answer[n] = n ? 0 : '\n';
    answer[n + 1] = 0;
    say("@end ");
    say(name);
    say(" ");
    say_number(turn);
    say(" ");
    say_number(status);
    say(" ");
    say(answer);
}

/* What follows `key` in the words of `line`; each word is ended with a zero byte. */
static char *value_of(char *line, const char *key)
{
    for (char *word = line; *word; word++) {
        size_t n = 0;
        while (key[n] && word[n] == key[n])
            n++;
        if (key[n])
            continue;
        for (char *end = word; *end; end++)
            if (*end == ' ' || *end == '\n')
                *end = 0;
        return word + n;
    }
    return "";
}

static _Noreturn void be_init(void)
{
    static char line[2048], copy[2048];
    enum { HERE = -100 };
    must(call(MOUNT, (long)"proc", (long)"/proc", (long)"proc", 0, 0, 0));
    long file = must(call(OPENAT, HERE, (long)"/proc/cmdline", 0, 0, 0, 0));
    must(call(READ, file, (long)line, sizeof line - 1, 0, 0, 0));
    memcpy(copy, line, sizeof line);
    u64 repeats = 0;
    for (char *p = value_of(copy, "pollux.repeats="); *p >= '0' && *p <= '9'; p++)
        repeats = repeats * 10 + (u64)(*p - '0');
    say("@ready\n");
    for (char *name = value_of(line, "pollux.run="), *next; *name; name = next) {
        for (next = name; *next && *next != ','; next++)
            ;
        if (*next)
            *next++ = 0;
        for (u64 turn = 0; turn <= repeats; turn++)
            run_between_markers(name, turn);
    }
    say("@done\n");
    /* An init that ends takes the kernel down; the host ends the machine. */
    for (;;)
        call(READ, 0, (long)line, 1, 0, 0, 0);
}

/* `stack` holds the argument count and then the arguments. */
__attribute__((used)) _Noreturn void begin(const long *stack)
{
    const char *wanted = stack[0] == 2 ? (const char *)stack[2] : "";
    if (call(GETPID, 0, 0, 0, 0, 0, 0) == 1)
        be_init();
    if (equal(wanted, "nothing"))
        leave(0);
    for (size_t i = 0; i < sizeof workloads / sizeof *workloads; i++)
        if (equal(wanted, workloads[i].name)) {
            say_hex(workloads[i].run());
            leave(0);
        }
    say("usage: workloads NAME, where NAME is one of");
    for (size_t i = 0; i < sizeof workloads / sizeof *workloads; i++) {
        say(" ");
        say(workloads[i].name);
    }
    say("\n");
    leave(2);
}
