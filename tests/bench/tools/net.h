/* UDP in batches on 127.0.0.1, for all programs in this folder.
 *
 * They use only loopback addresses, and move up to BATCH datagrams per system call (recvmmsg and sendmmsg), which is
 * the cheapest way through Linux sockets. */
#pragma once
#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

enum {
    BATCH = 64,         /* datagrams for one system call */
    PACKET_SIZE = 1536, /* bytes for one datagram; those of the bench are far shorter */
    HEADER_SIZE = 12,   /* RFC 1035 4.1.1 */
};

/* A batch is large (100 KB): use static memory or the heap. */
struct batch {
    struct mmsghdr headers[BATCH];
    struct iovec parts[BATCH];
    struct sockaddr_in addresses[BATCH];
    uint8_t packets[BATCH][PACKET_SIZE];
};

/* A socket bound to 127.0.0.1:port; several may share a port, and the kernel distributes clients among them. */
int bound_socket(uint16_t port, int flags);

/* A socket on 127.0.NET.1, connected to 127.0.0.1:port. */
int connected_socket(uint8_t net, uint16_t port, int flags);

/* Fills the batch; returns the number of datagrams, 0 if none arrived. Datagram `i` is packets[i], with
 * lengths in headers[i].msg_len and senders in addresses[i]. */
int receive_batch(int fd, struct batch *batch, int flags);

/* Sends packets[0..count], each parts[i].iov_len bytes long, to addresses[i], or to the connected address if
 * `to_addresses` is 0. Returns how many the kernel accepted. */
int send_batch(int fd, struct batch *batch, int count, int to_addresses);

/* Parses an integer between least and most, or ends the program with a message that names it. */
long number_argument(const char *name, const char *text, long least, long most);

/* The same for a port. */
uint16_t port_argument(const char *name, const char *text);

/* Ends the program with a message; `what` as for perror. */
_Noreturn void fail(const char *what);
