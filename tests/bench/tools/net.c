/* See net.h. */
#include "net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void fail(const char *what)
{
    perror(what);
    exit(2);
}

long number_argument(const char *name, const char *text, long least, long most)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno || end == text || *end || value < least || value > most) {
        fprintf(stderr, "%s: %s is not a whole number from %ld to %ld\n", name, text, least, most);
        exit(2);
    }
    return value;
}

uint16_t port_argument(const char *name, const char *text)
{
    return (uint16_t)number_argument(name, text, 1, 65535);
}

/* 127.0.NET.1; servers are on 127.0.0.1. */
static struct sockaddr_in loopback(uint8_t net, uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK + (net << 8));
    return address;
}

static int new_socket(int flags)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | flags, 0);
    if (fd < 0)
        fail("socket");
    int room = 4 << 20; /* as the daemon; the kernel limits it to net.core.?mem_max */
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    return fd;
}

int bound_socket(uint16_t port, int flags)
{
    int fd = new_socket(flags), yes = 1;
    struct sockaddr_in address = loopback(0, port);
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &yes, sizeof yes);
    if (bind(fd, (struct sockaddr *)&address, sizeof address))
        fail("bind");
    return fd;
}

int connected_socket(uint8_t net, uint16_t port, int flags)
{
    int fd = new_socket(flags);
    struct sockaddr_in own = loopback(net, 0), address = loopback(0, port);
    if (bind(fd, (struct sockaddr *)&own, sizeof own))
        fail("bind");
    if (connect(fd, (struct sockaddr *)&address, sizeof address))
        fail("connect");
    return fd;
}

static void prepare(struct batch *batch, int i, size_t length, int with_address)
{
    struct msghdr *header = &batch->headers[i].msg_hdr;
    batch->parts[i] = (struct iovec){batch->packets[i], length};
    *header = (struct msghdr){.msg_iov = &batch->parts[i], .msg_iovlen = 1};
    if (with_address) {
        header->msg_name = &batch->addresses[i];
        header->msg_namelen = sizeof batch->addresses[i];
    }
}

int receive_batch(int fd, struct batch *batch, int flags)
{
    for (int i = 0; i < BATCH; i++)
        prepare(batch, i, PACKET_SIZE, 1);
    int count = recvmmsg(fd, batch->headers, BATCH, flags, NULL);
    return count > 0 ? count : 0;
}

int send_batch(int fd, struct batch *batch, int count, int to_addresses)
{
    int sent = 0;
    for (int i = 0; i < count; i++)
        prepare(batch, i, batch->parts[i].iov_len, to_addresses);
    while (sent < count) {
        int taken = sendmmsg(fd, batch->headers + sent, count - sent, 0);
        if (taken <= 0) {
            /* A connected socket reports a closed port once, and sends nothing. */
            if (taken < 0 && (errno == EINTR || errno == ECONNREFUSED))
                continue;
            break;
        }
        sent += taken;
    }
    return sent;
}
