/* What a command has seen so far: in all, and in each group. */
#pragma once
#include "histogram.h"
#include <stdbool.h>
#include <stdint.h>

/* Connections that hear each other; what its publishers publish arrives in the group. */
struct group {
    struct connection **publishers;
    int publisher_count, next_publisher;
    long sent, arrived, acked;
    bool complete;
    bool touched; /* something has come in since `tally.touched` was emptied */
};

extern struct tally {
    uint64_t began_ns;
    long opened, arrived, acked;
    struct histogram latency;
    struct group *groups;
    int group_count;
    struct group **touched; /* where a window may have opened: so that not every group need be looked at each time */
    int touched_count;
} tally;

/* Once, with zeroed groups. */
void tally_start(struct group *groups, int group_count);

/* A command begins: everything at 0. */
void tally_begin(void);

/* A connection is open, after so long. */
void tally_opened(uint64_t took_ns);

/* A mark has arrived. Its time is when it was sent, 0 if it does not say; older than the command, it does not count. */
void tally_mark(struct group *group, uint64_t sent_ns, uint64_t now_ns);

void tally_ack(struct group *group);
