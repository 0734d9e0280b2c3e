/* Latencies in log-linear buckets: each power of two has 128 buckets, so the error of a value is < 0.5 %. */
#pragma once
#include <stdint.h>

enum {
    HISTOGRAM_STEP_BITS = 7,
    HISTOGRAM_RANGE_BITS = 37, /* 2^37 ns are 137 s; longer latencies are counted in the last bucket */
    HISTOGRAM_BUCKETS = (HISTOGRAM_RANGE_BITS - HISTOGRAM_STEP_BITS + 1) << HISTOGRAM_STEP_BITS,
    HISTOGRAM_JSON_SIZE = 192
};

struct histogram {
    uint64_t count, max_ns;
    uint64_t buckets[HISTOGRAM_BUCKETS];
};

void histogram_clear(struct histogram *histogram);
void histogram_record(struct histogram *histogram, uint64_t value_ns);

/* The quantile for a share, for example 0.99. 0 if the histogram is empty. */
uint64_t histogram_quantile_ns(const struct histogram *histogram, double share);

/* {"count": ..., "p50": ..., "p99": ..., "p999": ..., "max": ...}, in microseconds. Returns `out`. */
const char *histogram_json(const struct histogram *histogram, char out[HISTOGRAM_JSON_SIZE]);
