/* limit_echo PORT THREADS: the limit for local answers.
 *
 * Each thread sends every datagram back as NXDOMAIN: only the system calls of a server that answers itself. The limit
 * of `blocked`, `cached` and `mix`. */
#include "net.h"

#include <pthread.h>
#include <stdlib.h>

static uint16_t port;

static void *serve(void *unused)
{
    (void)unused;
    struct batch *batch = calloc(1, sizeof *batch);
    int fd = bound_socket(port, 0);
    if (!batch)
        fail("calloc");
    for (;;) {
        int count = receive_batch(fd, batch, MSG_WAITFORONE);
        for (int i = 0; i < count; i++) {
            uint8_t *packet = batch->packets[i];
            packet[2] |= 0x80; /* QR: a response */
            packet[3] = 0x83;  /* RA, NXDOMAIN */
            batch->parts[i].iov_len = batch->headers[i].msg_len;
        }
        send_batch(fd, batch, count, 1);
    }
}

int main(int count, char **arguments)
{
    if (count != 3)
        return 2;
    port = port_argument("PORT", arguments[1]);
    long threads = number_argument("THREADS", arguments[2], 1, 64);
    for (long i = 1; i < threads; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, serve, NULL))
            fail("pthread_create");
    }
    serve(NULL);
}
