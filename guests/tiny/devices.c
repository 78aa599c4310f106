/* Network card, disk, entropy, terminal: what the service stands on. */
#include "tiny.h"

/* ---- network ---- */

enum { RX_BUFFERS = 8, FRAME = 2048, HEADER = 12 };
static struct queue net_queues[2];
static struct device net;
static u8 rx[RX_BUFFERS][FRAME], tx[QUEUE][FRAME];
static u16 tx_next;
u8 own_mac[6], own_ip[4] = { 10, 0, 2, 15 };
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
    u32 id, len;
    while (finished(q, &id, &len)) {
        if (id >= RX_BUFFERS)
            continue;
        if (len > HEADER && len <= FRAME)
            frame_arrived(rx[id] + HEADER, len - HEADER);
        offer(q, (u16)id);
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
    u32 id, used;
    while (finished(q, &id, &used))
        ;
    if ((u16)(q->avail.idx - q->seen) >= QUEUE)
        return; /* All slots are with the device: the frame is lost, as frames may be. */
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
    u32 id, len;
    while (finished(&disk_queue, &id, &len)) {
        u32 i = id / 4;
        if (i >= REQUESTS)
            continue;
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
    u32 id, len;
    while (!finished(&rng_queue, &id, &len))
        idle();
    /* Fewer bytes than asked for: those that are missing stay what they were before. */
    memcpy(to, entropy, n);
    return 1;
}

/* ---- terminal ---- */

static struct queue terminal_queues[2];
static struct device terminal;
static u8 typed[64], shown[64];

static void terminal_send(const u8 *text, u32 len)
{
    u32 id, used;
    while (finished(&terminal_queues[1], &id, &used))
        ;
    if (terminal_queues[1].avail.idx != terminal_queues[1].seen)
        return; /* still showing */
    memcpy(shown, text, len);
    terminal_queues[1].desc[0] = (struct desc){ (u64)shown, len, 0, 0 };
    offer(&terminal_queues[1], 0);
    kick(&terminal, 1);
}

static void terminal_listen(void)
{
    terminal_queues[0].desc[0] = (struct desc){ (u64)typed, sizeof typed, 2, 0 };
    offer(&terminal_queues[0], 0);
    kick(&terminal, 0);
}

void terminal_init(void)
{
    terminal = find_device(3, terminal_queues, 2);
    if (!terminal.regs)
        return;
    terminal_send((const u8 *)"tiny: hello\r\n", 13);
    terminal_listen();
}

/* Shows what is typed. */
void terminal_poll(void)
{
    u32 id, len;
    if (!terminal.regs || !finished(&terminal_queues[0], &id, &len))
        return;
    terminal_send(typed, len < sizeof typed ? len : sizeof typed);
    terminal_listen();
}
