/* virtio-mmio, version 2: finding devices, setting queues up, offering buffers (virtio 1.2, 4.2 and 2.7). */
#include "tiny.h"

enum { MAGIC = 0x00 / 4, VERSION = 0x04 / 4, KIND = 0x08 / 4, DRIVER_FEATURES = 0x20 / 4, DRIVER_SEL = 0x24 / 4,
       QUEUE_SEL = 0x30 / 4, QUEUE_NUM = 0x38 / 4, QUEUE_READY = 0x44 / 4, NOTIFY = 0x50 / 4, STATUS = 0x70 / 4,
       DESC = 0x80 / 4, AVAIL = 0x90 / 4, USED = 0xa0 / 4 };

static void address(volatile u32 *regs, int at, const volatile void *p)
{
    regs[at] = (u32)(u64)p;
    regs[at + 1] = (u32)((u64)p >> 32);
}

struct device find_device(u32 kind, struct queue *queues, u32 count)
{
    for (u32 slot = 0; slot < 8; slot++) {
        volatile u32 *regs = (u32 *)(0x10001000ul + slot * 0x1000);
        if (regs[MAGIC] != 0x74726976 || regs[VERSION] != 2 || regs[KIND] != kind)
            continue;
        regs[STATUS] = 0;
        regs[STATUS] = 3; /* ACKNOWLEDGE, DRIVER */
        regs[DRIVER_SEL] = 0;
        regs[DRIVER_FEATURES] = kind == 1 ? 1u << 5 : kind == 2 ? 1u << 9 : 0; /* MAC; FLUSH */
        regs[DRIVER_SEL] = 1;
        regs[DRIVER_FEATURES] = 1; /* VERSION_1 */
        regs[STATUS] = 11;
        if (!(regs[STATUS] & 8))
            continue;
        for (u32 i = 0; i < count; i++) {
            memset(&queues[i], 0, sizeof queues[i]);
            regs[QUEUE_SEL] = i;
            regs[QUEUE_NUM] = QUEUE;
            address(regs, DESC, queues[i].desc);
            address(regs, AVAIL, &queues[i].avail);
            address(regs, USED, &queues[i].used);
            regs[QUEUE_READY] = 1;
        }
        regs[STATUS] = 15;
        return (struct device){ regs, slot + 1 };
    }
    return (struct device){ 0, 0 };
}

void offer(struct queue *q, u16 head)
{
    q->avail.ring[q->avail.idx % QUEUE] = head;
    __asm__ volatile("fence rw, rw" ::: "memory");
    *(volatile u16 *)&q->avail.idx += 1;
}

int finished(struct queue *q, u32 *id, u32 *len)
{
    if (q->seen == *(volatile u16 *)&q->used.idx)
        return 0;
    __asm__ volatile("fence r, r" ::: "memory");
    *id = q->used.ring[q->seen % QUEUE].id;
    *len = q->used.ring[q->seen % QUEUE].len;
    q->seen++;
    return 1;
}

void kick(struct device *d, u32 queue)
{
    __asm__ volatile("fence rw, rw" ::: "memory");
    d->regs[NOTIFY] = queue;
}
