/* See queries.h. */
#include "queries.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net.h"

enum { LABEL_MAX = 63, NAME_MAX_OCTETS = 255, UNIQUE_LABEL = 9 };

static const uint8_t opt[11] = {0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0}; /* RFC 6891 6.1, 1232 bytes */

void write_unique(uint8_t *bytes, uint32_t number)
{
    for (int i = 0; i < 8; i++)
        bytes[UNIQUE_AT + i] = "0123456789abcdef"[number >> (28 - 4 * i) & 15];
}

/* Writes the name in wire format; returns its length, or 0 if it is not a name. */
static size_t write_name(uint8_t *out, const char *name, size_t room)
{
    size_t at = 0;
    while (*name) {
        size_t label = strcspn(name, ".");
        if (label == 0 || label > LABEL_MAX || at + 1 + label + 1 > room)
            return 0;
        out[at++] = (uint8_t)label;
        memcpy(out + at, name, label);
        at += label;
        name += label;
        if (*name == '.')
            name++;
    }
    out[at++] = 0;
    return at;
}

/* Returns 0 for a line without a name, or with another type. */
static int write_query(struct query *query, const char *name, const char *type, int unique)
{
    uint8_t *bytes = query->bytes;
    size_t at = HEADER_SIZE;
    memset(bytes, 0, HEADER_SIZE);
    bytes[2] = 1;  /* RD */
    bytes[5] = 1;  /* one question */
    bytes[11] = 1; /* one additional record, the OPT */
    if (unique && !query->is_blocked) {
        bytes[at] = UNIQUE_LABEL - 1;
        write_unique(bytes, 0);
        at += UNIQUE_LABEL;
    }
    size_t length = write_name(bytes + at, name, NAME_MAX_OCTETS - UNIQUE_LABEL);
    if (!length || (strcmp(type, "A") && strcmp(type, "AAAA")))
        return 0;
    at += length;
    const uint8_t question[4] = {0, strcmp(type, "A") ? 28 : 1, 0, 1};
    memcpy(bytes + at, question, sizeof question);
    at += sizeof question;
    memcpy(bytes + at, opt, sizeof opt);
    query->length = (uint16_t)(at + sizeof opt);
    return 1;
}

struct queries read_queries(const char *path, int unique)
{
    struct queries queries = {NULL, 0};
    size_t room = 0;
    char name[256], type[8], kind[8];
    FILE *file = fopen(path, "r");
    if (!file)
        fail(path);
    while (fscanf(file, "%255s %7s %7s", name, type, kind) == 3) {
        if (queries.count == room) {
            room = room ? room * 2 : 1024;
            queries.all = realloc(queries.all, room * sizeof *queries.all);
            if (!queries.all)
                fail("realloc");
        }
        struct query *query = &queries.all[queries.count];
        query->is_blocked = !strcmp(kind, "blocked");
        if (!write_query(query, name, type, unique)) {
            fprintf(stderr, "%s: %s %s is no query\n", path, name, type);
            exit(2);
        }
        queries.count++;
    }
    fclose(file);
    if (!queries.count) {
        fprintf(stderr, "%s: no queries\n", path);
        exit(2);
    }
    return queries;
}
