/* The time in nanoseconds, and the CPU time of this process in seconds. */
#pragma once
#include <stdint.h>
#include <time.h>

enum { MILLISECOND_NS = 1000000, SECOND_NS = 1000000000 };

/* The clock of the times in marks. Never 0, because 0 means "no time". */
static inline uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * SECOND_NS + (uint64_t)t.tv_nsec;
}

static inline double used_cpu_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / SECOND_NS;
}

/* The duration of a command, and the CPU time that this program used for it. */
struct stopwatch {
    uint64_t began_ns;
    double began_cpu_s;
};

static inline struct stopwatch start_stopwatch(void) {
    return (struct stopwatch){now_ns(), used_cpu_s()};
}

static inline double elapsed_s(const struct stopwatch *watch) {
    return (double)(now_ns() - watch->began_ns) / SECOND_NS;
}

static inline double elapsed_cpu_s(const struct stopwatch *watch) {
    return used_cpu_s() - watch->began_cpu_s;
}
