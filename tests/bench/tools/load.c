/* load: sends DNS queries over UDP to a server on 127.0.0.1, and prints the result as one line of JSON.
 *
 *   load --port PORT --queries FILE [--seconds S] [--warm-up S] [--sockets N]
 *        [--window N | --rate QUERIES_PER_SECOND] [--lag US] [--upstream PORT [--ttl S]] [--unique] [--any] [--pid PID]
 *
 * With --window, each socket has this many outstanding queries: the server sets the pace, and is saturated. With --rate,
 * the clock sets the pace, whatever the server does (open loop). Latency is measured from the time at which a query was
 * due, so that a stall counts for all queries that waited (no coordinated omission). If this program falls behind by
 * more than --lag, it skips queries and counts them as `skipped`. For latencies, this count must be zero.
 *
 * With --upstream, it is also the recursive resolver behind the server. One loop does both, because both use the one
 * processor that the server does not have. Two programs there would wait for each other for milliseconds.
 *
 * Each socket has its own address from 127.0.1.1 on, so that the server sees clients in different networks. The
 * measurement starts after --warm-up. `qps`, `useful` and `cpu_ns` (of all threads of --pid) count responses that
 * arrived in it; latencies, `lost` and `wrong` count queries that were due in it. All times are monotonic nanoseconds. */
#include "net.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "queries.h"
#include "standin.h"

enum {
    IDS = 1 << 16,
    SOCKETS_MAX = 64,
    BUCKETS = 2000000, /* of one microsecond each; the last one is for all longer latencies */
};
static const uint64_t SECOND = 1000000000, PATIENCE = SECOND, QUIET = SECOND / 10;

struct options {
    const char *file;
    double seconds, warm_up, rate;
    uint16_t port, upstream;
    long sockets, window, lag_us, ttl, pid;
    int unique, any;
};

/* An outstanding query: when it was due (0: none), and the expected response. */
struct slot {
    uint64_t due;
    uint8_t is_blocked;
};

struct flow {
    int fd;
    uint16_t next_id;
    int outstanding;
    uint64_t heard; /* when a response last arrived, or the first query was sent */
    struct slot *slots;
};

struct counts {
    uint64_t offered, skipped, in_time, wrong; /* of queries that were due in the window */
    uint64_t arrived, useful, bytes, rcodes[16]; /* of responses that arrived in the window */
};

/* 256 outstanding queries fit into a receive buffer of Linux's default size. */
static struct options options = {
    .seconds = 4, .warm_up = 1, .sockets = 16, .window = 16, .lag_us = 1000000, .ttl = 3600,
};
static struct queries queries;
static struct flow flows[SOCKETS_MAX];
static struct counts counts;
static struct batch batch;
static uint32_t latencies[BUCKETS];
static uint64_t begin = UINT64_MAX, end = UINT64_MAX; /* of the measurement; not known yet */
static int upstream_fd = -1;

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec time;
    if (clock_gettime(clock, &time))
        fail("clock_gettime");
    return (uint64_t)time.tv_sec * SECOND + (uint64_t)time.tv_nsec;
}

static uint64_t now(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

static int in_window(uint64_t time)
{
    return time >= begin && time < end;
}

/* ------- Sending ------- */

/* Sends `count` queries. The first one is due at `due`, each later one `step` after the previous one. */
static int offer(struct flow *flow, int count, uint64_t due, double step)
{
    static size_t position;
    static uint32_t serial;
    uint16_t first_id = flow->next_id;
    for (int i = 0; i < count; i++) {
        const struct query *query = &queries.all[position];
        uint8_t *packet = batch.packets[i];
        uint16_t id = flow->next_id++;
        if (++position == queries.count)
            position = 0;
        memcpy(packet, query->bytes, query->length);
        if (options.unique && !query->is_blocked)
            write_unique(packet, serial++);
        packet[0] = (uint8_t)(id >> 8);
        packet[1] = (uint8_t)id;
        batch.parts[i].iov_len = query->length;
        flow->slots[id] = (struct slot){due + (uint64_t)(i * step), query->is_blocked};
    }
    int sent = send_batch(flow->fd, &batch, count, 0);
    for (int i = 0; i < count; i++) {
        struct slot *slot = &flow->slots[(uint16_t)(first_id + i)];
        if (i >= sent)
            slot->due = 0;
        else if (in_window(slot->due))
            counts.offered++;
    }
    flow->next_id = (uint16_t)(first_id + sent);
    flow->outstanding += sent;
    return sent;
}

/* Sends until the window of a flow is full; the server sets the pace. */
static void offer_window(struct flow *flow, uint64_t time)
{
    if (flow->outstanding >= options.window && time - flow->heard > QUIET)
        flow->outstanding = 0; /* the server dropped them */
    int room = (int)options.window - flow->outstanding;
    if (room > BATCH)
        room = BATCH;
    if (room > 0) {
        if (flow->outstanding == 0)
            flow->heard = time;
        offer(flow, room, time, 0);
    }
}

/* Sends the queries that are due, on one flow after the other; the clock sets the pace. */
static void offer_due(uint64_t start, uint64_t time)
{
    static uint64_t done; /* queries that were due, sent or skipped */
    static int turn;
    double step = 1e9 / options.rate;
    uint64_t due = (uint64_t)((double)(time - start) / step) + 1;
    if (due <= done)
        return;
    uint64_t behind = due - done, allowed = (uint64_t)((double)options.lag_us * 1000 / step) + BATCH;
    if (behind > allowed) {
        if (in_window(time))
            counts.skipped += behind - allowed;
        done += behind - allowed;
        behind = allowed;
    }
    int count = behind > BATCH ? BATCH : (int)behind;
    struct flow *flow = &flows[turn];
    turn = (turn + 1) % (int)options.sockets;
    /* A query that the kernel did not accept is sent again in the next turn, with its own due time. */
    done += (uint64_t)offer(flow, count, start + (uint64_t)((double)done * step), step);
}

/* ------- Receiving ------- */

static int is_right(const struct slot *slot, const uint8_t *packet, size_t length)
{
    int rcode = packet[3] & 15;
    if (options.any)
        return 1;
    return slot->is_blocked ? rcode == 3 : rcode == 0 && has_answer(packet, length);
}

static void note(struct flow *flow, const uint8_t *packet, size_t length, uint64_t time)
{
    if (length < HEADER_SIZE)
        return;
    struct slot *slot = &flow->slots[packet[0] << 8 | packet[1]];
    if (!slot->due)
        return; /* a duplicate, or the response to no outstanding query */
    /* A query may be answered just before it was due: its latency is not negative. */
    uint64_t latency = time > slot->due ? time - slot->due : 0;
    int right = is_right(slot, packet, length), in_time = latency <= PATIENCE;
    if (in_window(time)) {
        counts.arrived++;
        counts.bytes += length;
        counts.rcodes[packet[3] & 15]++;
        counts.useful += right && in_time;
    }
    if (in_window(slot->due)) {
        uint64_t bucket = latency / 1000;
        latencies[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
        counts.in_time += in_time;
        counts.wrong += !right;
    }
    slot->due = 0;
    if (flow->outstanding)
        flow->outstanding--;
}

static int receive(struct flow *flow)
{
    int count, total = 0;
    do {
        count = receive_batch(flow->fd, &batch, MSG_DONTWAIT);
        if (count) {
            uint64_t time = flow->heard = now();
            for (int i = 0; i < count; i++)
                note(flow, batch.packets[i], batch.headers[i].msg_len, time);
        }
        total += count;
    } while (count == BATCH);
    return total;
}

static int be_upstream(void)
{
    if (upstream_fd < 0)
        return 0;
    int count = receive_batch(upstream_fd, &batch, MSG_DONTWAIT), kept = 0;
    for (int i = 0; i < count; i++) {
        size_t length = standin_answer(batch.packets[i], batch.headers[i].msg_len, PACKET_SIZE, (uint32_t)options.ttl);
        if (!length)
            continue;
        if (kept != i) {
            memcpy(batch.packets[kept], batch.packets[i], length);
            batch.addresses[kept] = batch.addresses[i];
        }
        batch.parts[kept++].iov_len = length;
    }
    send_batch(upstream_fd, &batch, kept, 1);
    return count;
}

static int receive_all(void)
{
    int heard = be_upstream();
    for (int i = 0; i < options.sockets; i++)
        heard += receive(&flows[i]);
    return heard;
}

/* ------- The run ------- */

static uint64_t percentile(double share)
{
    uint64_t total = 0, seen = 0;
    for (int i = 0; i < BUCKETS; i++)
        total += latencies[i];
    for (int i = 0; i < BUCKETS; i++) {
        seen += latencies[i];
        if (seen && (double)seen >= share * (double)total)
            return (uint64_t)i;
    }
    return 0;
}

static void report(double elapsed, uint64_t cpu_ns, uint64_t waited, double idle)
{
    printf("{\"seconds\": %.6f, \"qps\": %.1f, \"useful_qps\": %.1f, \"arrived\": %lu, \"useful\": %lu, ", elapsed,
           (double)counts.arrived / elapsed, (double)counts.useful / elapsed, counts.arrived, counts.useful);
    printf("\"offered\": %lu, \"skipped\": %lu, \"lost\": %lu, \"wrong\": %lu, \"bytes\": %lu, ", counts.offered,
           counts.skipped, counts.offered - counts.in_time, counts.wrong, counts.bytes);
    printf("\"cpu_ns\": %lu, \"waited_ns\": %lu, \"idle\": %.4f, ", cpu_ns, waited, idle);
    printf("\"p50_us\": %lu, \"p90_us\": %lu, \"p99_us\": %lu, \"p999_us\": %lu, \"max_us\": %lu, \"rcodes\": {",
           percentile(.5), percentile(.9), percentile(.99), percentile(.999), percentile(1));
    const char *comma = "";
    for (int i = 0; i < 16; i++)
        if (counts.rcodes[i]) {
            printf("%s\"%d\": %lu", comma, i, counts.rcodes[i]);
            comma = ", ";
        }
    printf("}}\n");
}

/* The run delay of this program (sched-stats.rst); 0 if the kernel has no such statistics. */
static uint64_t waited_ns(void)
{
    uint64_t waited = 0;
    FILE *file = fopen("/proc/thread-self/schedstat", "r");
    if (file) {
        if (fscanf(file, "%*u %lu", &waited) != 1)
            waited = 0;
        fclose(file);
    }
    return waited;
}

/* Continues until no more packets arrive, so that neither the server nor its upstream state has interrupted
 * queries. */
static void drain(void)
{
    uint64_t stop = now() + PATIENCE, heard = now();
    for (uint64_t time = heard; time < stop && time - heard < QUIET; time = now())
        if (receive_all())
            heard = time;
}

static void run(void)
{
    clockid_t server = CLOCK_MONOTONIC;
    if (options.pid && clock_getcpuclockid((pid_t)options.pid, &server))
        fail("clock_getcpuclockid");
    uint64_t start = now(), cpu = 0, loops = 0, idle = 0, time = start;
    uint64_t warm = start + (uint64_t)(options.warm_up * 1e9), waited = 0;
    int is_counting = 0;
    for (; time < end; time = now()) {
        if (!is_counting && time >= warm) {
            is_counting = 1;
            begin = time;
            end = begin + (uint64_t)(options.seconds * 1e9);
            waited = waited_ns();
            cpu = options.pid ? clock_ns(server) : 0;
        }
        if (options.rate > 0) {
            offer_due(start, time);
        } else {
            for (int i = 0; i < options.sockets; i++) {
                offer_window(&flows[i], now());
                be_upstream();
                receive(&flows[i]);
            }
        }
        int heard = receive_all();
        loops += is_counting;
        idle += is_counting && !heard;
    }
    cpu = options.pid ? clock_ns(server) - cpu : 0;
    waited = waited_ns() - waited;
    double elapsed = (double)(now() - begin) / 1e9;
    drain();
    report(elapsed, cpu, waited, loops ? (double)idle / (double)loops : 0);
}

/* ------- The command line ------- */

static const struct option names[] = {
    {"port", required_argument, NULL, 'p'},    {"queries", required_argument, NULL, 'q'},
    {"seconds", required_argument, NULL, 's'}, {"warm-up", required_argument, NULL, 'w'},
    {"sockets", required_argument, NULL, 'n'}, {"window", required_argument, NULL, 'W'},
    {"rate", required_argument, NULL, 'r'},    {"lag", required_argument, NULL, 'l'},
    {"upstream", required_argument, NULL, 'u'}, {"ttl", required_argument, NULL, 't'},
    {"pid", required_argument, NULL, 'i'},     {"unique", no_argument, NULL, 'U'},
    {"any", no_argument, NULL, 'a'},           {NULL, 0, NULL, 0},
};

static double real_argument(const char *name, const char *text, double most)
{
    char *rest;
    double value = strtod(text, &rest);
    if (rest == text || *rest || !(value >= 0 && value <= most)) {
        fprintf(stderr, "%s: %s is not a number from 0 to %g\n", name, text, most);
        exit(2);
    }
    return value;
}

static void read_options(int count, char **arguments)
{
    int option;
    while ((option = getopt_long(count, arguments, "", names, NULL)) != -1) {
        switch (option) {
        case 'p': options.port = port_argument("--port", optarg); break;
        case 'q': options.file = optarg; break;
        case 's': options.seconds = real_argument("--seconds", optarg, 3600); break;
        case 'w': options.warm_up = real_argument("--warm-up", optarg, 3600); break;
        case 'n': options.sockets = number_argument("--sockets", optarg, 1, SOCKETS_MAX); break;
        case 'W': options.window = number_argument("--window", optarg, 1, IDS / 2); break;
        case 'r': options.rate = real_argument("--rate", optarg, 1e8); break;
        case 'l': options.lag_us = number_argument("--lag", optarg, 0, 10000000); break;
        case 'u': options.upstream = port_argument("--upstream", optarg); break;
        case 't': options.ttl = number_argument("--ttl", optarg, 0, 604800); break;
        case 'i': options.pid = number_argument("--pid", optarg, 1, 1 << 30); break;
        case 'U': options.unique = 1; break;
        case 'a': options.any = 1; break;
        default: exit(2);
        }
    }
    if (!options.file || !options.port || optind != count) {
        fprintf(stderr, "usage: load --port PORT --queries FILE [options]; the options are in load.c\n");
        exit(2);
    }
}

int main(int count, char **arguments)
{
    read_options(count, arguments);
    queries = read_queries(options.file, options.unique);
    for (int i = 0; i < options.sockets; i++) {
        flows[i].fd = connected_socket((uint8_t)(i + 1), options.port, SOCK_NONBLOCK);
        flows[i].slots = calloc(IDS, sizeof *flows[i].slots);
        if (!flows[i].slots)
            fail("calloc");
    }
    if (options.upstream)
        upstream_fd = bound_socket(options.upstream, SOCK_NONBLOCK);
    run();
}
