#include "histogram.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

void histogram_clear(struct histogram *histogram) {
    memset(histogram, 0, sizeof *histogram);
}

/* How many low bits of a value its bucket ignores: none below 256, one below 512, and so on. */
static unsigned ignored_bits(uint64_t value_ns) {
    unsigned bits = 64 - (unsigned)__builtin_clzll(value_ns | 1);
    return bits > HISTOGRAM_STEP_BITS + 1 ? bits - HISTOGRAM_STEP_BITS - 1 : 0;
}

void histogram_record(struct histogram *histogram, uint64_t value_ns) {
    unsigned shift = ignored_bits(value_ns);
    uint64_t bucket = ((uint64_t)shift << HISTOGRAM_STEP_BITS) + (value_ns >> shift);
    if (bucket >= HISTOGRAM_BUCKETS) bucket = HISTOGRAM_BUCKETS - 1;
    histogram->buckets[bucket]++;
    histogram->count++;
    if (value_ns > histogram->max_ns) histogram->max_ns = value_ns;
}

/* The middle of a bucket. */
static uint64_t value_of(uint64_t bucket) {
    uint64_t step = bucket >> HISTOGRAM_STEP_BITS;
    unsigned shift = step > 1 ? (unsigned)(step - 1) : 0;
    uint64_t low = (bucket - ((uint64_t)shift << HISTOGRAM_STEP_BITS)) << shift;
    return low + ((1ULL << shift) >> 1);
}

uint64_t histogram_quantile_ns(const struct histogram *histogram, double share) {
    uint64_t rank = (uint64_t)ceil(share * (double)histogram->count), seen = 0;
    for (uint64_t bucket = 0; bucket < HISTOGRAM_BUCKETS - 1; bucket++) {
        seen += histogram->buckets[bucket];
        if (seen && seen >= rank) {
            uint64_t value_ns = value_of(bucket);
            return value_ns < histogram->max_ns ? value_ns : histogram->max_ns;
        }
    }
    return histogram->max_ns;
}

static double quantile_us(const struct histogram *histogram, double share) {
    return (double)histogram_quantile_ns(histogram, share) / 1e3;
}

const char *histogram_json(const struct histogram *histogram, char out[HISTOGRAM_JSON_SIZE]) {
    snprintf(out, HISTOGRAM_JSON_SIZE,
             "{\"count\": %llu, \"p50\": %.3f, \"p99\": %.3f, \"p999\": %.3f, \"max\": %.3f}",
             (unsigned long long)histogram->count, quantile_us(histogram, 0.5), quantile_us(histogram, 0.99),
             quantile_us(histogram, 0.999), (double)histogram->max_ns / 1e3);
    return out;
}
