/* When the messages of an open loop are due: at equal intervals, independent of earlier messages. */
#pragma once
#include "commands.h"
#include <stdint.h>

struct schedule {
    double interval_ns, timeout_ns;
    long total;
};

/* Reads per_second=R seconds=S [timeout=5]. */
struct schedule read_schedule(const struct words *command);

/* When message `number` (from 0) is due. */
uint64_t due_ns(const struct schedule *schedule, uint64_t began_ns, long number);

/* When the command ends even if copies are missing. */
uint64_t end_ns(const struct schedule *schedule, uint64_t began_ns);
