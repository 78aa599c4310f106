/*
 * ARP, ICMP echo, and a service on UDP port 7000, one line a datagram:
 *   INC client seq                count
 *   GET client seq                read the counter
 *   SUM client seq                a hash of all that was counted: who, with which number, in which order
 *   PUT client seq block value    write a block full of `value` (hexadecimal), answer "ok" when it is flushed
 *   CHK client seq block          read it back: its value, or "bad"
 *   RND client seq                16 random bytes in hexadecimal
 *   TIME client seq               the time CSR
 *   SPIN client seq ms            compute for so long (at most 10 s), answer "ok"
 *   DIE client seq status         end the machine
 * The answer is "client seq result". A client numbers its requests upwards and asks one at a time; the same number
 * again gets the same answer again and does nothing, a smaller number is a late copy and gets none. The 64 clients
 * that were last new are remembered. Malformed packets are ignored.
 */
#include "tiny.h"

enum { CLIENTS = 64, JOBS = 8, PORT = 7000 };
u64 counter;
static u64 history = 0xcbf29ce484222325; /* FNV-1a over client, seq, counter */

/* The newest answer to each client, for requests that come again. */
static struct { u64 id, seq; u16 len; char text[80]; } memory[CLIENTS];
static u32 forgotten;

/* A request that waits for the disk, and the frame that its answer goes back in. */
static struct job { int state; u64 id, seq, block, value; u8 frame[64]; u8 buffer[BLOCK] __attribute__((aligned(16))); } jobs[JOBS];
enum { FREE, WRITING, FLUSHING, READING };

static u16 checksum(const u8 *p, u32 n, u32 sum)
{
    for (u32 i = 0; i + 1 < n; i += 2)
        sum += (u32)p[i] << 8 | p[i + 1];
    if (n & 1)
        sum += (u32)p[n - 1] << 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (u16)~sum;
}

static void note(u64 value)
{
    for (int i = 0; i < 64; i += 8)
        history = (history ^ (value >> i & 0xff)) * 0x100000001b3;
}

/* The sum over a UDP header and its data with the pseudo header (RFC 768); 0 is right. */
static u16 udp_checksum(const u8 *f, u32 size)
{
    u32 sum = 17 + size;
    for (int i = 26; i < 34; i += 2)
        sum += (u32)f[i] << 8 | f[i + 1];
    return checksum(f + 34, size, sum);
}

static void store16(u8 *p, u32 value)
{
    p[0] = (u8)(value >> 8);
    p[1] = (u8)value;
}

static u32 load16(const u8 *p)
{
    return (u32)p[0] << 8 | p[1];
}

void say_hello(void)
{
    u8 arp[42] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1 };
    memcpy(arp + 6, own_mac, 6);
    memcpy(arp + 22, own_mac, 6);
    memcpy(arp + 28, own_ip, 4);
    memcpy(arp + 38, own_ip, 4);
    net_send(arp, sizeof arp);
}

static void arp(u8 *f, u32 len)
{
    if (len < 42 || load16(f + 20) != 1 || !same(f + 38, own_ip, 4))
        return;
    u8 reply[42];
    memcpy(reply, f, 42);
    memcpy(reply, f + 6, 6);
    memcpy(reply + 6, own_mac, 6);
    store16(reply + 20, 2);
    memcpy(reply + 22, own_mac, 6);
    memcpy(reply + 28, own_ip, 4);
    memcpy(reply + 32, f + 22, 10);
    net_send(reply, 42);
}

/* Sends `frame` back to where it came from; addresses and IP header are turned round, the rest is done. */
static void send_back(u8 *f, u32 ip_len)
{
    u8 t[6];
    memcpy(t, f, 6);
    memcpy(f, f + 6, 6);
    memcpy(f + 6, own_mac, 6);
    memcpy(t, f + 26, 4);
    memcpy(f + 26, own_ip, 4);
    memcpy(f + 30, t, 4);
    store16(f + 16, ip_len);
    store16(f + 20, 0);
    f[22] = 64;
    store16(f + 24, 0);
    store16(f + 24, checksum(f + 14, 20, 0));
    net_send(f, 14 + ip_len);
}

static char *append_number(char *p, u64 value, u64 base)
{
    char digits[24];
    int n = 0;
    do {
        digits[n++] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value);
    while (n)
        *p++ = digits[--n];
    return p;
}

static void answer_text(const u8 *request, const char *text, u32 len)
{
    u8 f[256];
    memcpy(f, request, 42);
    memcpy(f + 42, text, len);
    u8 t[2];
    memcpy(t, f + 34, 2);
    memcpy(f + 34, f + 36, 2);
    memcpy(f + 36, t, 2);
    store16(f + 38, 8 + len);
    store16(f + 40, 0);
    u32 check = udp_checksum(f, 8 + len); /* indifferent to which address is source and which destination */
    store16(f + 40, check ? check : 0xffff);
    send_back(f, 28 + len);
}

/* Answers, and remembers the answer. */
static void answer(const u8 *request, u64 id, u64 seq, const char *word, u64 value, u64 base)
{
    u32 slot = CLIENTS;
    for (u32 i = 0; i < CLIENTS; i++)
        if (memory[i].len && memory[i].id == id)
            slot = i;
    for (u32 i = 0; slot == CLIENTS && i < CLIENTS; i++)
        if (!memory[i].len)
            slot = i;
    if (slot == CLIENTS)
        slot = forgotten++ % CLIENTS;
    char *text = memory[slot].text, *p = append_number(text, id, 10);
    *p++ = ' ';
    p = append_number(p, seq, 10);
    *p++ = ' ';
    if (word)
        while (*word)
            *p++ = *word++;
    else
        p = append_number(p, value, base);
    *p++ = '\n';
    memory[slot].id = id;
    memory[slot].seq = seq;
    memory[slot].len = (u16)(p - text);
    answer_text(request, text, memory[slot].len);
}

static void disk_step(int tag, int ok)
{
    struct job *j = &jobs[tag];
    if (ok && j->state == WRITING) {
        j->state = FLUSHING;
        if (disk_begin(4, 0, 0, disk_step, tag))
            return;
        ok = 0;
    }
    if (!ok)
        answer(j->frame, j->id, j->seq, "bad", 0, 0);
    else if (j->state == FLUSHING)
        answer(j->frame, j->id, j->seq, "ok", 0, 0);
    else {
        u64 *words = (u64 *)j->buffer, value = words[0];
        for (u32 i = 0; i < BLOCK / 8; i++)
            ok &= words[i] == value + i;
        answer(j->frame, j->id, j->seq, ok ? 0 : "bad", value, 16);
    }
    j->state = FREE;
}

static void disk_request(const u8 *f, u64 id, u64 seq, int write, u64 block, u64 value)
{
    for (int i = 0; i < JOBS; i++) /* already at it */
        if (jobs[i].state != FREE && jobs[i].id == id && jobs[i].seq == seq)
            return;
    /* Block 0 holds the boot count, the last 16 are for the self-test. */
    if (disk_bytes / BLOCK < 18 || block >= disk_bytes / BLOCK - 18) {
        answer(f, id, seq, "bad", 0, 0);
        return;
    }
    for (int i = 0; i < JOBS; i++) {
        struct job *j = &jobs[i];
        if (j->state != FREE)
            continue;
        j->id = id;
        j->seq = seq;
        memcpy(j->frame, f, 42);
        u64 *words = (u64 *)j->buffer;
        for (u32 w = 0; write && w < BLOCK / 8; w++)
            words[w] = value + w;
        j->state = write ? WRITING : READING;
        if (!disk_begin(write ? 1 : 0, block + 1, j->buffer, disk_step, i))
            j->state = FREE; /* The client asks again. */
        return;
    }
}

static void spin(u64 ms)
{
    u64 until = now() + (ms < 10000 ? ms : 10000) * 10000;
    while (now() < until)
        ;
}

static void random(const u8 *f, u64 id, u64 seq)
{
    u8 bytes[16] = { 0 };
    char text[33] = { 0 };
    int fine = rng_bytes(bytes, sizeof bytes);
    for (int i = 0; i < 32; i++)
        text[i] = "0123456789abcdef"[bytes[i / 2] >> (i & 1 ? 0 : 4) & 15];
    answer(f, id, seq, fine ? text : "bad", 0, 0);
}

/* Whether a request was answered before (then it is again) or is a late copy. */
static int is_old(const u8 *f, u64 id, u64 seq)
{
    for (u32 i = 0; i < CLIENTS; i++) {
        if (!memory[i].len || memory[i].id != id || memory[i].seq < seq)
            continue;
        if (memory[i].seq == seq)
            answer_text(f, memory[i].text, memory[i].len);
        return 1;
    }
    return 0;
}

static void serve(const u8 *f, const char *line)
{
    const char *p = line;
    while (*p >= 'A' && *p <= 'Z')
        p++;
    u64 verb = (u64)(p - line), id = parse_number(&p, 10), seq = parse_number(&p, 10);
    if (verb < 3 || verb > 4 || line[verb] != ' ' || is_old(f, id, seq))
        return;
    if (same(line, "INC ", 4)) {
        note(id);
        note(seq);
        note(++counter);
        answer(f, id, seq, 0, counter, 10);
    } else if (same(line, "GET ", 4))
        answer(f, id, seq, 0, counter, 10);
    else if (same(line, "SUM ", 4))
        answer(f, id, seq, 0, history, 16);
    else if (same(line, "PUT ", 4)) {
        u64 block = parse_number(&p, 10), value = parse_number(&p, 16);
        disk_request(f, id, seq, 1, block, value);
    } else if (same(line, "CHK ", 4))
        disk_request(f, id, seq, 0, parse_number(&p, 10), 0);
    else if (same(line, "RND ", 4))
        random(f, id, seq);
    else if (same(line, "TIME ", 5))
        answer(f, id, seq, 0, now(), 10);
    else if (same(line, "SPIN ", 5)) {
        spin(parse_number(&p, 10));
        answer(f, id, seq, "ok", 0, 0);
    } else if (same(line, "DIE ", 4)) {
        u64 status = parse_number(&p, 10);
        answer(f, id, seq, "ok", 0, 0);
        end((int)status);
    }
}

static void udp(const u8 *f, u32 ip_len)
{
    u32 size = load16(f + 38);
    char line[204];
    if (load16(f + 36) != PORT || size < 8 + 4 || 20 + size > ip_len || size > 8 + 200)
        return;
    if (load16(f + 40) && udp_checksum(f, size) != 0)
        return;
    memcpy(line, f + 42, size - 8);
    line[size - 8] = 0;
    serve(f, line);
}

void frame_arrived(u8 *f, u32 len)
{
    if (len < 14)
        return;
    u32 type = load16(f + 12);
    if (type == 0x0806)
        arp(f, len);
    if (type != 0x0800 || len < 42 || f[14] != 0x45 || !same(f + 30, own_ip, 4))
        return;
    u32 ip_len = load16(f + 16);
    /* No fragments, no damage. */
    if (ip_len < 28 || 14 + ip_len > len || load16(f + 20) & 0x3fff || checksum(f + 14, 20, 0) != 0)
        return;
    if (f[23] == 17)
        udp(f, ip_len);
    else if (f[23] == 1 && f[34] == 8) {
        f[34] = 0;
        store16(f + 36, 0);
        store16(f + 36, checksum(f + 34, ip_len - 20, 0));
        send_back(f, ip_len);
    }
}
