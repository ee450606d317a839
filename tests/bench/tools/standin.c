/* See standin.h. */
#include "standin.h"

#include <string.h>

#include "net.h"

enum { TYPE_A = 1, QUESTION_END = 4 /* bytes of QTYPE and QCLASS */ };

static const uint8_t record[16] = {0xc0, 12, 0, TYPE_A, 0, 1, 0, 0, 0, 0, 0, 4, 192, 0, 2, 1}; /* TTL at 6 */
static const uint8_t opt[11] = {0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0};                       /* RFC 6891 6.1 */

int has_answer(const uint8_t *packet, size_t length)
{
    return length >= HEADER_SIZE && (packet[6] || packet[7]);
}

/* Where the question ends, or 0 if it is incomplete. */
static size_t question_end(const uint8_t *packet, size_t length)
{
    size_t at = HEADER_SIZE;
    while (at < length && packet[at])
        at += packet[at] + 1u;
    at += 1 + QUESTION_END;
    return at <= length ? at : 0;
}

size_t standin_answer(uint8_t *packet, size_t length, size_t room, uint32_t ttl)
{
    if (length < HEADER_SIZE || packet[2] & 0x80)
        return 0;
    size_t at = question_end(packet, length);
    if (!at || at + sizeof record + sizeof opt > room)
        return 0;
    int is_a = packet[at - 4] == 0 && packet[at - 3] == TYPE_A, has_opt = packet[11] != 0;
    packet[2] = 0x80 | (packet[2] & 0x79);  /* QR; OPCODE and RD unchanged */
    packet[3] = 0x80 | (packet[3] & 0x10);  /* RA; CD unchanged */
    memset(packet + 6, 0, 6);               /* no records yet */
    if (is_a) {
        memcpy(packet + at, record, sizeof record);
        for (int i = 0; i < 4; i++)
            packet[at + 6 + i] = ttl >> (24 - 8 * i) & 0xff;
        at += sizeof record;
        packet[7] = 1;
    }
    if (has_opt) {
        memcpy(packet + at, opt, sizeof opt);
        at += sizeof opt;
        packet[11] = 1;
    }
    return at;
}
