/* The plan: which connections there are, what they say, and who hears whom. */
#pragma once
#include "connection.h"

struct plan {
    struct connection *connections;
    int connection_count;
    struct group *groups;
    int group_count;
};

/* Reads a plan: a line per connection, its fields separated by tabs:
 *   1  the number of its group, from 0
 *   2  `t` or `b`: whether it sends text or binary
 *   3  what it publishes in hex, or `-`
 *   4… its greetings in hex
 * Fails with the number of the line (from 1) that is wrong.
 */
struct plan read_plan(const char *file_name);

/* Decodes hex in place. Returns the size, or -1 if it is none. */
long decode_hex(char *text);
