/* limit_forward PORT UPSTREAM_PORT THREADS: the limit for forwarding.
 *
 * Each thread has one socket for clients and one for the upstream. It gives each query the next id, and returns the
 * response with the id of the client: the system calls of a forwarding server, a minimum of state, and no checks. The
 * limit of `uncached`. */
#include "net.h"

#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static uint16_t port, upstream_port;

struct pending {
    struct sockaddr_in client;
    uint8_t id[2];
};

static void forward(int clients, int upstream, struct batch *batch, struct pending *table, uint16_t *next)
{
    int count = receive_batch(clients, batch, MSG_DONTWAIT);
    for (int i = 0; i < count; i++) {
        uint8_t *packet = batch->packets[i];
        struct pending *entry = &table[*next];
        entry->client = batch->addresses[i];
        memcpy(entry->id, packet, 2);
        packet[0] = *next >> 8;
        packet[1] = *next & 255;
        ++*next;
        batch->parts[i].iov_len = batch->headers[i].msg_len;
    }
    send_batch(upstream, batch, count, 0);
}

static void give_back(int clients, int upstream, struct batch *batch, const struct pending *table)
{
    int count = receive_batch(upstream, batch, MSG_DONTWAIT);
    for (int i = 0; i < count; i++) {
        uint8_t *packet = batch->packets[i];
        const struct pending *entry = &table[packet[0] << 8 | packet[1]];
        batch->addresses[i] = entry->client;
        memcpy(packet, entry->id, 2);
        batch->parts[i].iov_len = batch->headers[i].msg_len;
    }
    send_batch(clients, batch, count, 1);
}

static void *serve(void *unused)
{
    (void)unused;
    struct batch *batch = calloc(1, sizeof *batch);
    struct pending *table = calloc(1 << 16, sizeof *table);
    if (!batch || !table)
        fail("calloc");
    int clients = bound_socket(port, SOCK_NONBLOCK), upstream = connected_socket(0, upstream_port, SOCK_NONBLOCK);
    struct pollfd watched[] = {{clients, POLLIN, 0}, {upstream, POLLIN, 0}};
    uint16_t next = 0;
    for (;;) {
        poll(watched, 2, -1);
        if (watched[0].revents)
            forward(clients, upstream, batch, table, &next);
        if (watched[1].revents)
            give_back(clients, upstream, batch, table);
    }
}

int main(int count, char **arguments)
{
    if (count != 4)
        return 2;
    port = port_argument("PORT", arguments[1]);
    upstream_port = port_argument("UPSTREAM_PORT", arguments[2]);
    long threads = number_argument("THREADS", arguments[3], 1, 64);
    for (long i = 1; i < threads; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, serve, NULL))
            fail("pthread_create");
    }
    serve(NULL);
}
