/* Network card, disk, entropy: what the service stands on. */
#include "tiny.h"

/* ---- network ---- */

enum { RX_BUFFERS = 8, FRAME = 2048, HEADER = 12 };
static struct queue net_queues[2];
static struct device net;
static u8 rx[RX_BUFFERS][FRAME], tx[QUEUE][FRAME];
static u16 tx_next;
u8 own_mac[6];
int have_net;

void net_init(void)
{
    net = find_device(1, net_queues, 2);
    have_net = net.regs != 0;
    if (!have_net)
        return;
    for (int i = 0; i < 6; i++)
        own_mac[i] = ((volatile u8 *)net.regs)[0x100 + i];
    for (u16 i = 0; i < RX_BUFFERS; i++) {
        net_queues[0].desc[i] = (struct desc){ (u64)rx[i], FRAME, 2, 0 };
        offer(&net_queues[0], i);
    }
    kick(&net, 0);
}

void net_poll(void)
{
    if (!have_net)
        return;
    struct queue *q = &net_queues[0];
    int any = 0;
    net.regs[0x64 / 4] = net.regs[0x60 / 4];
    while (q->seen != *(volatile u16 *)&q->used.idx) {
        u16 id = (u16)q->used.ring[q->seen % QUEUE].id;
        u32 len = q->used.ring[q->seen % QUEUE].len;
        q->seen++;
        if (len > HEADER)
            frame_arrived(rx[id] + HEADER, len - HEADER);
        offer(q, id);
        any = 1;
    }
    if (any)
        kick(&net, 0);
}

void net_send(const u8 *frame, u32 len)
{
    if (!have_net || len > FRAME - HEADER)
        return;
    struct queue *q = &net_queues[1];
    /* The device takes a frame at the kick, so a slot that was used long ago is free. */
    u16 slot = tx_next++ % QUEUE;
    memset(tx[slot], 0, HEADER);
    memcpy(tx[slot] + HEADER, frame, len);
    q->desc[slot] = (struct desc){ (u64)tx[slot], HEADER + len, 0, 0 };
    offer(q, slot);
    kick(&net, 1);
}

/* ---- disk ---- */

enum { REQUESTS = QUEUE / 4 };
static struct queue disk_queue;
static struct device disk;
static struct { struct { u32 type, zero; u64 sector; } head; u8 status; disk_done done; int tag; int busy; } requests[REQUESTS];
u64 disk_bytes;

void disk_init(void)
{
    disk = find_device(2, &disk_queue, 1);
    if (disk.regs)
        disk_bytes = *(volatile u64 *)((u64)disk.regs + 0x100) * 512;
}

int disk_begin(u32 op, u64 block, u8 *buffer, disk_done done, int tag)
{
    if (!disk.regs)
        return 0;
    for (u16 i = 0; i < REQUESTS; i++) {
        if (requests[i].busy)
            continue;
        u16 d = (u16)(i * 4);
        requests[i].head.type = op;
        requests[i].head.zero = 0;
        requests[i].head.sector = op == 4 ? 0 : block * (BLOCK / 512);
        requests[i].status = 0xff;
        requests[i].done = done;
        requests[i].tag = tag;
        requests[i].busy = 1;
        disk_queue.desc[d] = (struct desc){ (u64)&requests[i].head, 16, 1, (u16)(op == 4 ? d + 2 : d + 1) };
        disk_queue.desc[d + 1] = (struct desc){ (u64)buffer, BLOCK, op == 0 ? 3 : 1, (u16)(d + 2) };
        disk_queue.desc[d + 2] = (struct desc){ (u64)&requests[i].status, 1, 2, 0 };
        offer(&disk_queue, d);
        kick(&disk, 0);
        return 1;
    }
    return 0;
}

void disk_poll(void)
{
    if (!disk.regs)
        return;
    disk.regs[0x64 / 4] = disk.regs[0x60 / 4];
    while (disk_queue.seen != *(volatile u16 *)&disk_queue.used.idx) {
        u32 i = disk_queue.used.ring[disk_queue.seen++ % QUEUE].id / 4;
        requests[i].busy = 0;
        requests[i].done(requests[i].tag, *(volatile u8 *)&requests[i].status == 0);
    }
}

/* ---- entropy ---- */

static struct queue rng_queue;
static struct device rng;
static u8 entropy[64];

void rng_init(void)
{
    rng = find_device(4, &rng_queue, 1);
}

/* Waits for random bytes; 0 if there is no device. */
int rng_bytes(u8 *to, u32 n)
{
    if (!rng.regs || n > sizeof entropy)
        return 0;
    rng_queue.desc[0] = (struct desc){ (u64)entropy, n, 2, 0 };
    offer(&rng_queue, 0);
    kick(&rng, 0);
    while (rng_queue.seen == *(volatile u16 *)&rng_queue.used.idx)
        __asm__ volatile("wfi");
    rng_queue.seen++;
    rng.regs[0x64 / 4] = rng.regs[0x60 / 4];
    memcpy(to, entropy, n);
    return 1;
}
