/* The counters of the current command: in total and of each group. */
#pragma once
#include "histogram.h"
#include <stdbool.h>
#include <stdint.h>

/* Connections that receive each other's messages: all copies of a publisher's message arrive in its group. */
struct group {
    struct connection **publishers;
    int publisher_count, next_publisher;
    long sent, arrived, acked;
    bool complete;
    bool touched; /* something was received since `counters.touched` was emptied */
};

extern struct counters {
    uint64_t began_ns;
    long opened, arrived, acked;
    struct histogram latency;
    struct group *groups;
    int group_count;
    struct group **touched; /* groups whose window may have space, so that not all groups must be checked each time */
    int touched_count;
} counters;

/* Call this once, with zeroed groups. */
void counters_start(struct group *groups, int group_count);

/* Resets all counters at the start of a command. */
void counters_begin(void);

/* A connection is open; opening took this long. */
void counters_opened(uint64_t took_ns);

/* A mark was received. `sent_ns` is 0 if unknown. A mark that was sent before the command started is not counted. */
void counters_mark(struct group *group, uint64_t sent_ns, uint64_t now_ns);

void counters_ack(struct group *group);
