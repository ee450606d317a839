/* The queries that the load tool sends, made ready once. */
#pragma once
#include <stddef.h>
#include <stdint.h>

enum {
    QUERY_SIZE = 300, /* header, the longest name (RFC 1035 2.3.4), question, OPT, and the label of `unique` */
    UNIQUE_AT = 13,   /* where the eight digits of that label are */
};

struct query {
    uint16_t length;
    uint8_t is_blocked; /* which answer is the right one */
    uint8_t octets[QUERY_SIZE];
};

struct queries {
    struct query *all;
    size_t count;
};

/* Reads lines of "NAME TYPE blocked" or "NAME TYPE open"; TYPE is A or AAAA. With `unique`, open names get one more
 * label in front, which write_unique() fills, so that no two queries are the same. Ends the program where it cannot. */
struct queries read_queries(const char *path, int unique);

void write_unique(uint8_t *octets, uint32_t number);
