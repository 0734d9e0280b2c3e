/* When the messages of an open loop are due: evenly, whatever became of those before. */
#pragma once
#include "commands.h"
#include <stdint.h>

struct schedule {
    double interval_ns, patience_ns;
    long total;
};

/* Reads per_second=R seconds=S [patience=5]. */
struct schedule read_schedule(const struct words *command);

/* When the n-th, from 0, is due. */
uint64_t due_ns(const struct schedule *schedule, uint64_t began_ns, long number);

/* When not to wait any more for what has become of them. */
uint64_t end_ns(const struct schedule *schedule, uint64_t began_ns);
