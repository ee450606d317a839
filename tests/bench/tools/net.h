/* UDP in batches on 127.0.0.1, for every program in this folder.
 *
 * All of them speak to the loopback address only, and move up to BATCH datagrams with one system call
 * (recvmmsg and sendmmsg), which is the least that Linux asks for a datagram through its sockets. */
#pragma once
#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

enum {
    BATCH = 64,         /* datagrams for one system call */
    PACKET_SIZE = 1536, /* octets of room for one; what we send and expect is far shorter */
    HEADER_SIZE = 12,   /* RFC 1035 4.1.1 */
};

/* A batch is big (100 KB): keep it static or on the heap. */
struct batch {
    struct mmsghdr headers[BATCH];
    struct iovec parts[BATCH];
    struct sockaddr_in addresses[BATCH];
    uint8_t packets[BATCH][PACKET_SIZE];
};

/* A socket bound to 127.0.0.1:port; several may share a port, and the kernel spreads clients over them. */
int bound_socket(uint16_t port, int flags);

/* A socket on 127.0.NET.1 that speaks to 127.0.0.1:port and to nobody else. */
int connected_socket(uint8_t net, uint16_t port, int flags);

/* Fills the batch; returns how many datagrams came, 0 where none was there. Datagram `i` is packets[i], with
 * lengths in headers[i].msg_len and senders in addresses[i]. */
int receive_batch(int fd, struct batch *batch, int flags);

/* Sends packets[0..count], each parts[i].iov_len octets long, to addresses[i], or where the socket is connected to
 * if `to_addresses` is 0. Returns how many the kernel took. */
int send_batch(int fd, struct batch *batch, int count, int to_addresses);

/* Reads a whole number between least and most, or ends the program with a message that names it. */
long number_argument(const char *name, const char *text, long least, long most);

/* The same for a port. */
uint16_t port_argument(const char *name, const char *text);

/* Ends the program with a message; `what` as for perror. */
_Noreturn void fail(const char *what);
