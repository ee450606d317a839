/* The queries of the load tool, built once. */
#pragma once
#include <stddef.h>
#include <stdint.h>

enum {
    QUERY_SIZE = 300, /* header, the longest name (RFC 1035 2.3.4), question, OPT, and the label of `unique` */
    UNIQUE_AT = 13,   /* where the eight digits of that label are */
};

struct query {
    uint16_t length;
    uint8_t is_blocked; /* whether the correct response is a block */
    uint8_t bytes[QUERY_SIZE];
};

struct queries {
    struct query *all;
    size_t count;
};

/* Reads lines of "NAME TYPE blocked" or "NAME TYPE open"; TYPE is A or AAAA. With `unique`, open names get one more
 * label in front, which write_unique() fills, so that all queries are different. Ends the program after an error. */
struct queries read_queries(const char *path, int unique);

void write_unique(uint8_t *bytes, uint32_t number);
