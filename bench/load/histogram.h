/* Latencies in log-linear buckets: each power of two is cut into 128, so that a value read back is off by < 0.5 %. */
#pragma once
#include <stdint.h>

enum {
    HISTOGRAM_STEP_BITS = 7,
    HISTOGRAM_RANGE_BITS = 37, /* 2^37 ns are 137 s; what took longer counts in the last bucket */
    HISTOGRAM_BUCKETS = (HISTOGRAM_RANGE_BITS - HISTOGRAM_STEP_BITS + 1) << HISTOGRAM_STEP_BITS,
    HISTOGRAM_JSON_SIZE = 192
};

struct histogram {
    uint64_t count, max_ns;
    uint64_t buckets[HISTOGRAM_BUCKETS];
};

void histogram_clear(struct histogram *histogram);
void histogram_record(struct histogram *histogram, uint64_t value_ns);

/* The value that a share of all does not exceed, e.g. 0.99. 0 if there is none. */
uint64_t histogram_quantile_ns(const struct histogram *histogram, double share);

/* {"count": ..., "p50": ..., "p99": ..., "p999": ..., "max": ...}, in microseconds. Returns `out`. */
const char *histogram_json(const struct histogram *histogram, char out[HISTOGRAM_JSON_SIZE]);
