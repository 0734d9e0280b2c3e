/* The plan: the connections, what they send, and which of them receive each other's messages. */
#pragma once
#include "connection.h"

struct plan {
    struct connection *connections;
    int connection_count;
    struct group *groups;
    int group_count;
};

/* Reads a plan: one line per connection with fields separated by tabs:
 *   1  the number of its group, from 0
 *   2  `t` or `b`: text or binary frames
 *   3  the message that it publishes in hex, or `-`
 *   4… its setup messages in hex
 * Fails with the number of the first invalid line (from 1).
 */
struct plan read_plan(const char *file_name);

/* Decodes hex in place. Returns the size, or -1 if the text is not hex. */
long decode_hex(char *text);
