/* A stand-in for a recursive resolver, inside the load tool. */
#pragma once
#include <stddef.h>
#include <stdint.h>

/* Turns the query in `packet` into its response, in place: one A record (192.0.2.1) for a question of type A,
 * NODATA for any other. `room` is the maximum length. Returns the new length, 0: not a query. */
size_t standin_answer(uint8_t *packet, size_t length, size_t room, uint32_t ttl);

/* Whether a response carries at least one record in its answer section. */
int has_answer(const uint8_t *packet, size_t length);
