/* What the parts of the embedded guest share. */
#pragma once
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

/* lib.c */
void put(const char *text);
void put_number(u64 value);
u64 parse_number(const char **text, int base);
int same(const void *a, const void *b, u64 n);
void *memcpy(void *to, const void *from, size_t n);
void *memset(void *to, int value, size_t n);
size_t strlen(const char *text);

struct sbiret { long error; long value; };
struct sbiret sbi(u64 eid, u64 fid, u64 a0, u64 a1, u64 a2);
static inline u64 now(void) { u64 t; __asm__ volatile("rdtime %0" : "=r"(t)); return t; }
_Noreturn void end(int status);

/* virtio.c */
enum { QUEUE = 16 };
struct desc { u64 addr; u32 len; u16 flags; u16 next; };
struct queue {
    struct desc desc[QUEUE] __attribute__((aligned(16)));
    struct { u16 flags, idx, ring[QUEUE]; } avail __attribute__((aligned(2)));
    struct { u16 flags, idx; struct { u32 id, len; } ring[QUEUE]; } used __attribute__((aligned(4)));
    u16 seen;
};
struct device { volatile u32 *regs; u32 irq; };
/* The first device of a kind, set up with `queues` queues; regs is 0 if there is none. */
struct device find_device(u32 kind, struct queue *queues, u32 count);
void offer(struct queue *q, u16 head);
void kick(struct device *d, u32 queue);

/* service.c: the UDP service; net.c: frames; disk.c: blocks */
void net_init(void);
void net_poll(void);
void net_send(const u8 *frame, u32 len);
extern u8 own_mac[6];
extern int have_net;
void frame_arrived(u8 *frame, u32 len);
void say_hello(void);

enum { BLOCK = 4096 };
typedef void (*disk_done)(int tag, int ok);
void disk_init(void);
void disk_poll(void);
extern u64 disk_bytes;
/* Begins an operation on one block of `buffer`: 0 read, 1 write, 4 flush. Fails (0) when too many are under way. */
int disk_begin(u32 op, u64 block, u8 *buffer, disk_done done, int tag);

void rng_init(void);
int rng_bytes(u8 *to, u32 n);

extern volatile u64 ticks;
extern u64 counter;
